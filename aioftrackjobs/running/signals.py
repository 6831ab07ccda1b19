"""shutdown_on_signals: ends all Jobs and then the process on SIGTERM, or SIGINT by Ctrl-C."""

from __future__ import annotations

import math
import os
import select
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from types import FrameType, TracebackType
from typing import NoReturn

import anyio
import anyio.lowlevel
import sniffio

from aioftrackjobs.background import SafeLogger
from aioftrackjobs.config.settings import require, require_seconds
from aioftrackjobs.errors import SessionStateError
from aioftrackjobs.session import AsyncSession, connection_of, jobs_of

logger: SafeLogger = SafeLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


#: Shells report an exit by a signal as this number plus that of the signal.
EXIT_BY_SIGNAL = 128

#: Seconds that a process which exits at once takes for its log and its output, at most.
_FLUSH_TIMEOUT = 1.0

#: Wakes the thread of a watchdog: no signal has this number; and bytes that it reads at once.
_WAKE, _PIECE = b"\0", 4096

#: Turns of the event loop in which a task that was just cancelled begins to end its Job.
_CANCELLING_TURNS = 10


@asynccontextmanager
async def shutdown_on_signals(session: AsyncSession, *, grace: float = 10.0) -> AsyncIterator[None]:
    """End the block, and all running Jobs of *session*, when SIGTERM or SIGINT arrives.

    The block is cancelled, and so is every task that runs a Job, also if asyncio started it. Each
    Job fails with the signal as its reason, uploads are aborted, and the process exits with 128
    plus the number of the signal. After *grace* seconds, or at a second signal, the process exits
    at once, even if a call blocks the event loop. Jobs that have not ended by then are left to the
    journal, or to :func:`recover`.

    Enter it in the main thread, inside the session's block. On Windows it does nothing: Python
    handles Ctrl-C there, and cancels the main task, too.

    A signal that is ignored when the block is entered stays ignored, as it does in Python and in
    shells. A shell starts background programs, as with ``nohup python daemon.py &``, with SIGINT
    ignored, because Ctrl-C is meant for the program in the foreground. SIGTERM ends such a daemon.

    Example:
        A daemon that ends its Jobs when it is stopped::

            async with AsyncSession() as session, shutdown_on_signals(session):
                await serve(session)

    Args:
        session: An open session.
        grace: Seconds from the signal to the end of the process, at most.

    Raises:
        ArgumentError: An argument has a wrong type or value.
        SessionStateError: The session is not open.
        SystemExit: After a signal.
    """
    require(isinstance(session, AsyncSession), "session", "an AsyncSession", session)
    require_seconds("grace", grace)
    connection_of(session).require_open()
    if not (numbers := signals_to_handle()):
        yield
        return
    shutdown = ShutdownCoordinator(session, grace)
    error: BaseException | None = None
    with Watchdog(numbers, grace, shutdown.note, shutdown.begin_soon) as watchdog:
        shutdown.watchdog = watchdog
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(shutdown.watch)
                with shutdown.block:
                    try:
                        yield
                    except (GeneratorExit, anyio.get_cancelled_exc_class()):
                        raise
                    except BaseException as exc:  # noqa: BLE001 - raised below, not in a group
                        error = exc
                await shutdown.finish()
                group.cancel_scope.cancel()
        except anyio.get_cancelled_exc_class():
            if watchdog.signal is None:
                raise
    if watchdog.signal is not None:
        exit_ = SystemExit(EXIT_BY_SIGNAL + watchdog.signal)
        _exit_out_of_groups(exit_)
        raise exit_ from error
    if error is not None:
        raise error


def signals_to_handle() -> list[signal.Signals]:
    """Return the signals that end the program; none on Windows, and none that are ignored."""
    if sys.platform == "win32":
        return []
    return [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]


class Watchdog:
    """Exits the process when the grace after a signal is over, or when a second signal arrives.

    It waits in a thread of its own, and the system wakes that directly (``signal.set_wakeup_fd``):
    a call that blocks the event loop does not delay it, nor does the shutdown of the interpreter.
    Two signals count as two even if the main thread comes to handle them only once. What handles
    signals is the same from the first to the last moment, so that none gets lost in between.

    Args:
        numbers: The signals.
        grace: Seconds from the first signal.
        note: Called with each signal, in the main thread, before that goes on. It may raise what
            interrupts that thread.
        notify: Called in the thread when the first signal has arrived.

    Attributes:
        signal: The first signal; None until one arrives.
    """

    def __init__(
        self,
        numbers: Sequence[signal.Signals],
        grace: float,
        note: Callable[[signal.Signals], object],
        notify: Callable[[], object],
    ) -> None:
        self._numbers = numbers
        self._grace = grace
        self._note, self._notify = note, notify
        self._process = os.getpid()
        self._handled = 0
        self._is_over = False
        self.signal: signal.Signals | None = None

    def __enter__(self) -> Watchdog:
        self._before = {number: signal.getsignal(number) for number in self._numbers}
        self._pipe, self._wakeup = os.pipe()
        os.set_blocking(self._wakeup, False)
        _wakeups.add(self._wakeup)
        outer = signal.set_wakeup_fd(self._wakeup, warn_on_full_buffer=False)
        self._outer, self._others = outer, None if outer < 0 else os.dup(outer)
        for number in self._numbers:
            signal.signal(number, self._receive)
        threading.Thread(target=self._wait, name="aioftrackjobs signals", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.signal is None:
            for number, handler in self._before.items():
                signal.signal(number, handler)  # which handles first what has arrived
        if self.signal is not None:  # each further signal is a second one, to the very end
            for number in self._numbers:
                signal.signal(number, self._receive)
            return
        if (current := signal.set_wakeup_fd(self._outer)) != self._wakeup:
            signal.set_wakeup_fd(current)
        self._is_over = True
        os.write(self._wakeup, _WAKE)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a fork, which has neither the thread nor the event loop
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        self.signal = self.signal or signal.Signals(number)
        self._handled += 1
        with suppress(BlockingIOError):  # it is full, so that the thread is awake
            os.write(self._wakeup, _WAKE)
        handler = self._before[signal.Signals(number)]
        try:
            self._note(self.signal)
        finally:
            if isinstance(getattr(handler, "__self__", None), Watchdog) and callable(handler):
                handler(number, frame)  # that of another session

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._pipe, select.POLLIN)
        deadline, arrived = math.inf, 0
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or not poll.poll(None if left == math.inf else left * 1000):
                break
            received = os.read(self._pipe, _PIECE)
            if self._is_over:
                self._close()
                return
            numbers = [number for number in received if number in self._numbers]
            self._pass_on(bytes(set(received) - set(numbers)))
            arrived += len(numbers)
            count = max(arrived, self._handled)  # the event loop may have taken the wake-ups away
            if count and deadline == math.inf:
                self.signal = self.signal or signal.Signals(numbers[0])
                deadline = time.monotonic() + self._grace
                self._notify()
            if count > 1:
                break
        _exit_now(self.signal or self._numbers[0])

    def _pass_on(self, received: bytes) -> None:
        """Wake the event loop for other signals, as the system would without this."""
        if self._others is not None:
            with suppress(OSError):
                os.write(self._others, received)

    def _close(self) -> None:
        _wakeups.discard(self._wakeup)
        for file in (self._pipe, self._wakeup, self._others):
            if file is not None:
                os.close(file)


#: Where the system announces signals to the watchdogs.
_wakeups = set[int]()


def _note_fork() -> None:
    """Let a forked process announce its signals no more to the watchdog of the one that forked."""
    if _wakeups and (current := signal.set_wakeup_fd(-1)) not in _wakeups:
        signal.set_wakeup_fd(current)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


class ShutdownCoordinator:
    """Ends the block and all Jobs after a signal.

    Args:
        session: The session whose Jobs are ended.
        grace: Seconds from the signal to the end of the process, at most.

    Attributes:
        block: The cancel scope of the user's block.
        watchdog: Exits the process when the grace is over.
    """

    watchdog: Watchdog

    def __init__(self, session: AsyncSession, grace: float) -> None:
        self._connection = connection_of(session)
        self._active = jobs_of(session).active
        self._grace = grace
        self._begin = anyio.Event()
        self._task = anyio.get_current_task().id
        self._jobs_cancelled = anyio.Event()
        self.block: anyio.CancelScope = anyio.CancelScope()

    def note(self, number: signal.Signals) -> None:
        """Give the Jobs that end from now on the signal as their reason.

        Another session, whose block is around this one, may cancel them first.
        """
        self._active.shutdown_reason = f"stopped by {number.name}"

    def begin_soon(self) -> None:
        """Have the Jobs ended; in any thread."""
        with suppress(SessionStateError):  # the event loop has ended
            self._connection.background.call_in_loop(self._begin.set)

    async def watch(self) -> None:
        """Wait for a signal, then cancel the block and the Jobs."""
        await self._begin.wait()
        number = self.watchdog.signal or _SIGNALS[0]
        logger.warning(
            "%(signal)s: all Jobs end, within %(seconds)g s",
            signal=number.name,
            seconds=self._grace,
        )
        self.note(number)
        self._active.shutdown_deadline = anyio.current_time() + self._grace
        self.block.cancel()
        for _ in range(_CANCELLING_TURNS):
            await anyio.lowlevel.checkpoint()
        # The tasks outside of the block. Inside, its scope does that, and respects shields.
        self._active.cancel_all(keep=self._tasks_of_block())
        self._jobs_cancelled.set()

    def _tasks_of_block(self) -> set[int]:
        found, tasks = set[int](), {self._task}
        while tasks:
            found |= tasks
            running = anyio.get_running_tasks()
            tasks = {each.id for each in running if each.parent_id in tasks} - found
        return found

    async def finish(self) -> None:
        """Wait until the final status of all Jobs is recorded; the session may use what is left."""
        if self.watchdog.signal is not None:
            await self._jobs_cancelled.wait()
            # The block is over: the tasks that are left were started outside of it.
            self._active.cancel_all(keep=())
            if sniffio.current_async_library() == "asyncio":
                await self._active.wait_until_all_left()
            # Trio's tasks can only be cancelled by their nurseries, when this one exits.
            left = self._active.shutdown_deadline - anyio.current_time()
            self._connection.closing_grace = max(left, 0.0)


def _exit_out_of_groups(exit_: SystemExit) -> None:
    """Make *exit_* end the process even if a task group of the user wraps it in an error group."""
    show = sys.excepthook

    def look_inside(
        kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        if isinstance(error, BaseExceptionGroup):
            exits, others = error.split(SystemExit)
            if exits is not None:
                if others is not None:
                    show(type(others), others, others.__traceback__)
                raise exit_  # the interpreter exits by what its hook raises
        show(kind, error, trace)

    sys.excepthook = look_inside


def _exit_now(number: int) -> NoReturn:
    # In a thread with a time limit: another thread may hold a lock of the log, or a pipe be full.
    flush = threading.Thread(target=_flush, daemon=True)
    with suppress(RuntimeError):  # the interpreter shuts down, and starts no threads any more
        flush.start()
        flush.join(_FLUSH_TIMEOUT)
    os._exit(EXIT_BY_SIGNAL + number)


def _flush() -> None:
    logger.warning("leaving at once; what is not reported is left to the journal, or to recover")
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
