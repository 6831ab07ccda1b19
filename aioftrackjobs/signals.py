"""shutdown_on_signals: ends all Jobs and then the process on SIGTERM, or SIGINT by Ctrl-C."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from queue import Empty, SimpleQueue
from types import FrameType, TracebackType
from typing import NoReturn

import anyio
import anyio.lowlevel
import sniffio

from aioftrackjobs.background import SafeLogger
from aioftrackjobs.config import require, require_seconds
from aioftrackjobs.session import AsyncSession, connection_of, jobs_of

logger = SafeLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


#: Shells report an exit by a signal as this number plus that of the signal.
_EXIT_BY_SIGNAL = 128

#: Seconds that a process which exits at once takes for its log and its output, at most.
_FLUSH_TIMEOUT = 1.0

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
    numbers = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    if sys.platform == "win32" or not numbers:
        yield
        return
    with _Watchdog(numbers, grace) as watchdog:
        shutdown = ShutdownCoordinator(session, grace, watchdog)
        error: BaseException | None = None
        try:
            with anyio.open_signal_receiver(*numbers) as signals, watchdog.listening():
                async with anyio.create_task_group() as group:
                    group.start_soon(shutdown.watch, signals)
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
        exit_ = SystemExit(_EXIT_BY_SIGNAL + watchdog.signal)
        _exit_out_of_groups(exit_)
        raise exit_ from error
    if error is not None:
        raise error


class _Watchdog:
    """Exits the process when the grace after a signal is over, or when a second signal arrives.

    It receives signals in a Python handler, and waits in a thread of its own, so that neither a
    call that blocks the event loop nor the shutdown of the interpreter delays it.

    Args:
        numbers: The signals.
        grace: Seconds from the first signal.

    Attributes:
        signal: The first signal; None until one arrives.
    """

    def __init__(self, numbers: Sequence[signal.Signals], grace: float) -> None:
        self._numbers = numbers
        self._grace = grace
        self._process = os.getpid()
        # The only way to wake a thread that is safe in a signal handler: its put() is reentrant.
        self._received = SimpleQueue[int | None]()
        self.signal: signal.Signals | None = None

    def __enter__(self) -> _Watchdog:
        threading.Thread(target=self._wait, name="aioftrackjobs signals", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.signal is None:
            self._received.put(None)
            return
        for number in self._numbers:  # from now on, each signal is a second one
            signal.signal(number, self._receive)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Receive signals, and then pass them to the handlers that are installed already."""
        before = {number: signal.getsignal(number) for number in self._numbers}

        def handle(number: int, frame: FrameType | None) -> None:
            self._receive(number, frame)
            if callable(handler := before[signal.Signals(number)]):
                handler(number, frame)

        for number in self._numbers:
            signal.signal(number, handle)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _receive(self, number: int, _: FrameType | None) -> None:
        if os.getpid() != self._process:  # a fork, which has neither the thread nor the event loop
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.signal = self.signal or signal.Signals(number)
        self._received.put(number)

    def _wait(self) -> None:
        number = self._received.get()
        if number is None:
            return
        with suppress(Empty):
            self._received.get(timeout=self._grace)
        _exit_now(number)


class ShutdownCoordinator:
    """Ends the block and all Jobs after a signal.

    Args:
        session: The session whose Jobs are ended.
        grace: Seconds from the signal to the end of the process, at most.
        watchdog: Exits the process when that time is over.

    Attributes:
        block: The cancel scope of the user's block.
    """

    def __init__(self, session: AsyncSession, grace: float, watchdog: _Watchdog) -> None:
        self._connection = connection_of(session)
        self._active = jobs_of(session).active
        self._grace = grace
        self._watchdog = watchdog
        self._task = anyio.get_current_task().id
        self._jobs_cancelled = anyio.Event()
        self.block = anyio.CancelScope()

    async def watch(self, signals: AsyncIterator[signal.Signals]) -> None:
        """Wait for a signal, then cancel the block and the Jobs."""
        number = await anext(signals)
        while self._watchdog.signal is None:  # asyncio also delivers signals that its forks get
            number = await anext(signals)
        logger.warning("%s: all Jobs end, within %g s", number.name, self._grace)
        self._active.shutdown_reason = f"stopped by {number.name}"
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
        if self._watchdog.signal is not None:
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
    flush.start()
    flush.join(_FLUSH_TIMEOUT)
    os._exit(_EXIT_BY_SIGNAL + number)


def _flush() -> None:
    logger.warning("leaving at once; what is not reported is left to the journal, or to recover")
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
