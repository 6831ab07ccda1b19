"""An execution that another process reports: what both know of it passes through two pipes.

``aioftrackjobs run`` forks before it starts its command. The parent passes the output on, and stays
small; the child imports what communicates with ftrack. So neither the imports nor the requests
delay the output. If the parent is killed, the child sees the end of the pipe, and the Job fails.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import suppress

from aioftrackjobs.commands.execution import CommandResult, CommandSettings, Execution
from aioftrackjobs.commands.process import BY_SIGNAL
from aioftrackjobs.commands.progress import Reading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, NoReturn

#: Seconds from one message about progress to the next.
_INTERVAL = 0.1

#: How much the reporting process leaves to others: its imports take half a second of a processor.
_NICENESS = 5

#: What the reporting process must not be ended by: its parent decides what a signal means.
_IGNORED = (
    "SIGINT",
    "SIGTERM",
    "SIGHUP",
    "SIGQUIT",
    "SIGTSTP",
    "SIGUSR1",
    "SIGUSR2",
    "SIGPIPE",
)


class _Link:
    """Two ends of pipes through which JSON objects pass, one in a line."""

    def __init__(self, source: int, target: int) -> None:
        self._source = os.fdopen(source, "rb")
        self._target = os.fdopen(target, "wb", buffering=0)
        self._lock = threading.RLock()

    def send(self, **message: Any) -> None:
        """Send a message; nothing happens if the other process has ended."""
        import json  # late: the command starts before

        line = memoryview(json.dumps(message).encode() + b"\n")
        with self._lock:
            try:
                while line:
                    line = line[self._target.write(line) or 0 :]
            except (OSError, ValueError):
                pass

    def receive(self) -> Iterator[dict[str, Any]]:
        """Return the messages of the other process, until it ends."""
        import json

        for line in self._source:
            if line.endswith(b"\n"):
                yield json.loads(line)

    def close(self) -> None:
        """Let the other process see that no more messages come."""
        with self._lock:
            self._target.close()


class ReportingProcess:
    """The process that reports an execution of this process.

    Args:
        execution: A command that is not started yet.
        report: Reports it, in the new process.
    """

    def __init__(self, execution: Execution, report: Callable[[RemoteExecution], object]) -> None:
        to_child, from_parent = os.pipe(), os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(to_child[1])
            os.close(from_parent[0])
            _run_report(_Link(to_child[0], from_parent[1]), execution, report)
        os.close(to_child[0])
        os.close(from_parent[1])
        self._link = _Link(from_parent[0], to_child[1])
        self._execution = execution
        self._news = threading.Event()
        self._status = 0
        self._latest = Reading()

    def start(self) -> None:
        """Begin to pass messages; the command may be started before or after that."""
        self._execution.follow(self._note)
        self._execution.on_end(self._news.set)
        for run in (self._send, self._receive):
            threading.Thread(target=run, name=run.__name__, daemon=True).start()

    def wait(self) -> bool:
        """Wait until the process has ended, and return whether it was not killed.

        It may be called again.
        """
        with suppress(ChildProcessError):
            self._status = os.waitpid(self._pid, 0)[1]
        return not os.WIFSIGNALED(self._status)

    def _note(self, reading: Reading) -> None:
        if reading.fraction is not None:
            self._latest.fraction = reading.fraction
        if reading.message is not None:
            self._latest.message = reading.message
        self._news.set()

    def _send(self) -> None:
        while True:
            self._news.wait()
            self._news.clear()
            fraction, message = self._latest.fraction, self._latest.message
            self._link.send(reading=[fraction, message])
            if (result := self._execution.result) is not None:
                self._link.send(result={name: getattr(result, name) for name in result.__slots__})
                self._link.close()
                return
            pause = threading.Event()
            self._execution.on_end(pause.set)
            pause.wait(_INTERVAL)

    def _receive(self) -> None:
        for message in self._link.receive():
            if "start" in message:
                with suppress(OSError):  # its result says so
                    self._execution.start()
            elif "stop" in message:
                self._execution.stop(message["stop"])


def _run_report(
    link: _Link, execution: Execution, report: Callable[[RemoteExecution], object]
) -> NoReturn:
    """Report the execution of the parent process, and end this one."""
    code = 1
    try:
        with suppress(OSError):
            os.nice(_NICENESS)  # the command and its output come first
        for name in _IGNORED:
            if (number := getattr(signal, name, None)) is not None:
                signal.signal(number, signal.SIG_IGN)
        with open(os.devnull, "r+b") as nothing:
            os.dup2(nothing.fileno(), 0)
            os.dup2(nothing.fileno(), 1)
        report(RemoteExecution(link, execution))
        code = 0
    finally:
        sys.stderr.flush()
        os._exit(code)  # what the parent registered for its exit is not run here


class RemoteExecution:
    """An execution of the parent process: see :class:`Execution`.

    Args:
        link: The connection to the parent process.
        execution: The same execution before it was started.
    """

    def __init__(self, link: _Link, execution: Execution) -> None:
        self.settings: CommandSettings = execution.settings
        self.warn: Callable[[str], object] = execution.warn
        self.result: CommandResult | None = None
        self._link = link
        self._lock = threading.RLock()
        self._listener: Callable[[Reading], object] | None = None
        self._latest = Reading()
        self._on_end: list[Callable[[], object]] = []
        threading.Thread(target=self._receive, name="execution", daemon=True).start()

    def start(self) -> None:
        """Have the command started."""
        self._link.send(start=True)

    def stop(self, reason: str) -> None:
        """Have the command stopped."""
        self._link.send(stop=reason)

    def on_end(self, notify: Callable[[], object]) -> None:
        """Have *notify* called when the command has ended."""
        with self._lock:
            if self.result is None:
                self._on_end.append(notify)
                return
        notify()

    def follow(self, listener: Callable[[Reading], object] | None) -> None:
        """Have *listener* called with progress."""
        with self._lock:
            self._listener = listener
            self._report()

    def _report(self) -> None:
        latest = self._latest
        if self._listener is not None and (latest.fraction, latest.message) != (None, None):
            self._listener(latest)

    def _receive(self) -> None:
        result: CommandResult | None = None
        for message in self._link.receive():
            if "reading" in message:
                with self._lock:
                    self._latest = Reading(*message["reading"])
                    self._report()
            elif "result" in message:
                result = CommandResult(**message["result"])
        with self._lock:
            self.result = result or _killed()
            for notify in self._on_end:
                notify()


def _killed() -> CommandResult:
    """Return the result of a command whose parent was killed, so that a watchdog ends it."""
    return CommandResult(
        BY_SIGNAL + int(signal.SIGTERM),
        "aioftrackjobs run was killed",
        seconds=0.0,
        attempts=1,
        was_stopped=True,
        log="",
    )
