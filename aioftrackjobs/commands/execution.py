"""Execution: runs a command, again if it fails, and follows what it writes.

All of it runs in threads, without an event loop: a command is started before the packages are
imported that communicate with ftrack, and its output passes while the event loop is blocked.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from itertools import pairwise

from aioftrackjobs.commands.output import LineReader, OutputLog, Pump, copy_size, open_stream
from aioftrackjobs.commands.process import Process, exit_code, start_error_code
from aioftrackjobs.commands.progress import ProgressReader, Reading

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Mapping, Sequence

#: The environment variable that has the id of the Job for the command.
JOB_ID = "FTRACK_JOB_ID"

#: Seconds from the end of a command until its output is not waited for any more.
_LAST_OUTPUT = 1.0

#: Seconds that ffprobe may take.
_PROBE_LIMIT = 30.0

_STDOUT, _STDERR = 1, 2


class CommandResult:
    """How a command ended.

    Example: ``result = await run_command(session, ["ls"]); print(result.exit_code)``

    Attributes:
        exit_code: As a shell reports it: 128 plus its number after a signal, 127 if there is no
            such command, 126 if it cannot be executed.
        reason: Why it failed, in one line; None if it did not.
        seconds: How long it ran, with all attempts.
        attempts: How often it was started.
        was_stopped: Whether it was stopped from outside, and not by its own error.
        log: The end of its output, without hidden values.
    """

    __slots__ = ("attempts", "exit_code", "log", "reason", "seconds", "was_stopped")

    def __init__(
        self,
        exit_code: int,
        reason: str | None,
        *,
        seconds: float,
        attempts: int,
        was_stopped: bool,
        log: str,
    ) -> None:
        self.exit_code: int = exit_code
        self.reason: str | None = reason
        self.seconds: float = seconds
        self.attempts: int = attempts
        self.was_stopped: bool = was_stopped
        self.log: str = log

    def __repr__(self) -> str:
        shown = "" if self.reason is None else f", {self.reason!r}"
        return f"<{type(self).__name__} {self.exit_code}{shown}>"


class CommandSettings:
    """What to run, and how.

    Args:
        arguments: The program and its arguments.
        job_id: The id of the Job, which the command gets as ``FTRACK_JOB_ID``.
        environment: Variables that the command gets besides those of this process.
        folder: Its current directory; None for that of this process.
        preset: The name of a preset for progress.
        pattern: A regular expression for progress.
        frames: The frames that it renders, as ``"1001-1100"``.
        duration: Seconds of the film that ffmpeg writes.
        timeout: Seconds after which an attempt is stopped; None for no limit.
        grace: Seconds from SIGTERM to SIGKILL.
        retries: How often to start it again after a failure.
        is_quiet: Whether to drop its output, which otherwise goes to that of this process.
        has_input: Whether it reads the standard input of this process.

    Raises:
        ValueError: What is to be read as progress is wrong; the text says what is right.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        job_id: str,
        environment: Mapping[str, str] | None = None,
        folder: str | None = None,
        preset: str | None = None,
        pattern: str | re.Pattern[str] | None = None,
        frames: str | None = None,
        duration: float | None = None,
        timeout: float | None = None,
        grace: float = 10.0,
        retries: int = 0,
        is_quiet: bool = False,
        has_input: bool = False,
    ) -> None:
        self.arguments: list[str] = list(arguments)
        self.job_id = job_id
        self.environment: dict[str, str] = {**os.environ, **(environment or {}), JOB_ID: job_id}
        self.folder = folder
        self.timeout: float | None = timeout
        self.grace: float = grace
        self.retries: int = retries
        self.is_quiet: bool = is_quiet
        self.has_input: bool = has_input
        self._reading = {"preset": preset, "pattern": pattern, "frames": frames}
        self._duration = duration
        if preset == "ffmpeg" and duration is None:
            self._duration = _limit_in(self.arguments)
        self.new_reader()  # raises what is wrong

    @property
    def name(self) -> str:
        """The name of the program, for messages."""
        return os.path.basename(self.arguments[0]) or self.arguments[0]

    @property
    def stdin(self) -> int | None:
        """What the command gets as its standard input, as in subprocess."""
        from subprocess import DEVNULL

        return None if self.has_input else DEVNULL

    def new_reader(self) -> ProgressReader:
        """Return a reader for one attempt."""
        reading = self._reading
        return ProgressReader(
            preset=reading["preset"],  # type: ignore[arg-type]
            pattern=reading["pattern"],
            frames=reading["frames"],  # type: ignore[arg-type]
            duration=self._duration,
            command=self.arguments,
        )


class Execution:
    """A command that runs.

    Args:
        settings: What to run, and how.
        warn: Called in a thread with a text that the user should read.

    Raises:
        UnsupportedPlatformError: This is Windows.

    Attributes:
        result: How it ended; None until then.
        warn: As given.
    """

    def __init__(self, settings: CommandSettings, warn: Callable[[str], object]) -> None:
        if os.name != "posix":
            from aioftrackjobs.errors import UnsupportedPlatformError  # late: imports take long

            raise UnsupportedPlatformError(
                "commands run as Jobs",
                "Linux and macOS",
                "on Windows, run it by anyio.run_process inside the block of job_context",
            )
        self.settings = settings
        self.result: CommandResult | None = None
        self.warn = warn
        self._lock = threading.RLock()  # a signal handler may interrupt this class
        self._began = time.monotonic()
        self._attempts = 0
        self._stop_reason: str | None = None
        self._was_stopped = False
        self._is_over = False  # no further attempt
        self._process: Process | None = None
        self._listener: Callable[[Reading], object] | None = None
        self._latest = Reading()
        self._on_end: list[Callable[[], object]] = []
        self._terminals: dict[int, int] = {}  # of the command, by those of this process

    @property
    def has_started(self) -> bool:
        """Whether it has been tried to start the command."""
        return self._attempts > 0 or self.result is not None

    # From the beginning to the end

    def start(self) -> None:
        """Start the command.

        Raises:
            OSError: It cannot be started; :attr:`result` says why.
        """
        try:
            self._start_attempt()
        except OSError as error:
            self._end(self._result_of_error(error))
            raise
        threading.Thread(target=self._run, name="command", daemon=True).start()

    def _start_attempt(self) -> None:
        settings = self.settings
        if not self._was_stopped:  # by a signal that came meanwhile
            self._stop_reason = None  # of an attempt that took too long
        self._reader = settings.new_reader()
        self._log, self._errors = OutputLog(), OutputLog()
        streams: list[tuple[int, int]] = []
        outputs = [None if settings.is_quiet else each for each in (_STDOUT, _STDERR)]
        try:
            streams.extend(map(open_stream, outputs))
            self._process = Process(
                settings.arguments,
                environment=settings.environment,
                folder=settings.folder,
                stdin=settings.stdin,
                stdout=streams[0][1],
                stderr=streams[1][1],
                grace=settings.grace,
            )
        except BaseException:
            for source, _ in streams:
                os.close(source)
            raise
        finally:
            for _, target in streams:
                os.close(target)
        self._attempts += 1
        if self._was_stopped:
            self._process.stop()
        lock = threading.Lock()
        logs = ((self._log,), (self._log, self._errors))
        self._pumps = []
        for (source, _), output, kept in zip(streams, outputs, logs, strict=True):
            lines = LineReader(self._reader, lock, kept, self._report)
            self._pumps.append(Pump(source, output, lines.feed, lines.end, self.warn))
        self._terminals = {
            output: source
            for output, (source, _) in zip(outputs, streams, strict=True)
            if output is not None and os.isatty(source)
        }

    def _run(self) -> None:
        """Wait for the end of the command, and start it again if it is to be retried."""
        while True:
            result = self._finish_attempt()
            with self._lock:
                if result.reason is None or self._is_over or self._attempts > self.settings.retries:
                    self._is_over = True
                    break
                number = f"attempt {self._attempts + 1} of {self.settings.retries + 1}"
                self.warn(f"{result.reason}; {number}")
                self._report(Reading(None if self._latest.fraction is None else 0.0, number))
                try:
                    self._start_attempt()
                except OSError as error:
                    self._is_over = True
                    result = self._result_of_error(error)
                    break
        self._end(result)

    def _end(self, result: CommandResult) -> None:
        with self._lock:
            self.result = result
            for notify in self._on_end:
                notify()

    def _finish_attempt(self) -> CommandResult:
        process = self._process
        assert process is not None  # noqa: S101 - for type checkers
        timer = None
        if self.settings.timeout is not None:
            timer = threading.Timer(self.settings.timeout, self._time_out)
            timer.daemon = True
            timer.start()
        self._probe_duration()
        code = process.wait()
        if timer is not None:
            timer.cancel()
        process.end_descendants()
        self._terminals = {}
        for pump in self._pumps:
            pump.finish(_LAST_OUTPUT, is_patient=not self._was_stopped)
        return self._judge(code)

    def _judge(self, code: int) -> CommandResult:
        shown, reason = exit_code(code), None
        if self._stop_reason is not None:
            reason = self._stop_reason
            shown = shown or exit_code(-signal.SIGTERM)
        elif code and self._reader.failure is not None:
            reason = self._reader.failure
        elif code:
            last = self._errors.last_line()
            reason = f"killed by {_signal_name(-code)}" if code < 0 else f"exit code {code}"
            reason = reason if last is None else f"{reason}: {last}"
        return self._result(shown, reason and self._reader.hide(reason))

    def _result_of_error(self, error: OSError) -> CommandResult:
        code = start_error_code(error)
        what = "not found" if code == 127 else error.strerror or str(error)
        self._log = OutputLog()
        name = self.settings.arguments[0]
        if self.settings.folder is not None and error.filename == self.settings.folder:
            name = self.settings.folder
        return self._result(code, f"{name}: {what}")

    def _result(self, code: int, reason: str | None) -> CommandResult:
        return CommandResult(
            code,
            reason,
            seconds=time.monotonic() - self._began,
            attempts=self._attempts,
            was_stopped=self._was_stopped,
            log=self._reader.hide(self._log.text()),
        )

    def on_end(self, notify: Callable[[], object]) -> None:
        """Have *notify* called when the command has ended, in any thread; at once if it has."""
        with self._lock:
            if self.result is None:
                self._on_end.append(notify)
                return
        notify()

    def wait(self) -> None:
        """Wait in this thread until the command has ended."""
        ended = threading.Event()
        self.on_end(ended.set)
        ended.wait()

    # Progress

    def follow(self, listener: Callable[[Reading], object] | None) -> None:
        """Have *listener* called with progress, in any thread, from now on; first with the latest.

        Args:
            listener: What is called; None for nothing.
        """
        with self._lock:
            self._listener = listener
            if listener is not None and self._latest.message is not None:
                listener(Reading(None, self._latest.message))
            if listener is not None and self._latest.fraction is not None:
                listener(Reading(self._latest.fraction))

    def _report(self, reading: Reading) -> None:
        with self._lock:
            text = None if reading.message is None else self._reader.hide(reading.message)
            fraction = reading.fraction
            if text is not None:
                self._latest.message = text
            if fraction is not None:
                self._latest.fraction = fraction
            if self._listener is not None:
                self._listener(Reading(fraction, text))

    def _probe_duration(self) -> None:
        """Find out how long the film is that ffmpeg reads, unless its output says it."""
        arguments = self.settings.arguments
        if self._reader.needs_duration and "-i" in arguments[:-1]:
            at = arguments.index("-i")
            given = ["-f", arguments[at - 1]] if at > 1 and arguments[at - 2] == "-f" else []
            command = ["ffprobe", "-v", "error", *given, "-show_entries", "format=duration"]
            command += ["-of", "csv=p=0", "-i", arguments[at + 1]]
            threading.Thread(target=self._probe, args=(command,), daemon=True).start()

    def _probe(self, command: list[str]) -> None:
        import subprocess

        reader = self._reader
        try:
            done = subprocess.run(
                command,
                cwd=self.settings.folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_PROBE_LIMIT,
                check=True,
            )
            reader.duration = reader.duration or float(done.stdout)
        except (OSError, ValueError, subprocess.SubprocessError):
            pass  # then there is no percentage

    # Stopping it

    def stop(self, reason: str, number: int = signal.SIGTERM) -> None:
        """Send a signal to all processes of the command, and SIGKILL after the grace.

        A second call sends SIGKILL at once. It may be called in any thread or signal handler.

        Args:
            reason: Why the command is stopped.
            number: The signal.
        """
        with self._lock:
            is_first, self._was_stopped = not self._was_stopped, True
            was_over, self._is_over = self._is_over, True
            if was_over and is_first:
                return  # it has ended by itself
            self._stop_reason = self._stop_reason or reason
            if self._process is not None:
                self._process.stop(number) if is_first else self._process.kill()

    def _time_out(self) -> None:
        with self._lock:
            if self._process is not None and not self._process.has_ended:
                self._stop_reason = (
                    self._stop_reason or f"timed out after {self.settings.timeout:g} s"
                )
                self._process.stop()

    def send(self, number: int) -> None:
        """Send a signal to the process group of the command."""
        if self._process is not None:
            self._process.send(number)

    def copy_size(self) -> None:
        """Give the terminals of the command the size of those of this process."""
        for own, its in self._terminals.items():
            copy_size(own, its)
        self.send(signal.SIGWINCH)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _limit_in(arguments: Sequence[str]) -> float | None:
    """Return the length that the arguments of ffmpeg set with ``-t``, in seconds, if any."""
    for option, value in pairwise(arguments):
        if option == "-t":
            parts = value.split(":")
            try:
                return sum(float(part) * 60.0**place for place, part in enumerate(parts[::-1]))
            except ValueError:
                return None
    return None
