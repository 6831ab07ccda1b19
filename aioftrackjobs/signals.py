"""Leaving in good order when the system asks a daemon to: SIGTERM, or SIGINT by Ctrl-C."""

from __future__ import annotations

import logging
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

from aioftrackjobs.session import AsyncSession, connection_of, jobs_of

logger = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)

#: Shells know an exit by a signal as that much more than its number.
_BY_SIGNAL = 128

#: Seconds that a process which leaves at once takes for its log and its output, at most.
_PARTING = 1.0

#: Turns of the event loop in which a task that was just cancelled comes to end its Job.
_CANCELLING_TURNS = 10


@asynccontextmanager
async def shutdown_on_signals(session: AsyncSession, *, grace: float = 10.0) -> AsyncIterator[None]:
    """End the block, and all running Jobs of *session*, when SIGTERM or SIGINT comes.

    The block is cancelled, and so is every task that runs a Job (asyncio's own tasks too): each
    Job fails with the signal as its reason, uploads are aborted, and the process exits with 128
    plus the number of the signal. Whatever is not over after *grace* seconds, or when a second
    signal comes, is left to the journal, or to :func:`recover`: the process ends at once, also
    where a call blocks the event loop.

    A signal that is ignored when the block is entered stays ignored, as it does in Python and in
    shells: a shell starts what runs in its background, ``nohup python daemon.py &``, with SIGINT
    ignored, and Ctrl-C is then meant for what runs in its foreground. SIGTERM ends such a daemon.

    Enter it in the main thread, inside the session's block. On Windows it leaves Ctrl-C to
    Python, which cancels the main task too.

    Args:
        session: An open session.
        grace: Seconds from the signal to the end of the process, at most.

    Raises:
        SystemExit: After a signal.
    """
    heeded = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    if sys.platform == "win32" or not heeded:
        yield
        return
    with _Watchdog(grace, heeded) as watchdog:
        departure = ShutdownCoordinator(session, grace, watchdog)
        error: BaseException | None = None
        try:
            with anyio.open_signal_receiver(*heeded) as signals, watchdog.listening():
                async with anyio.create_task_group() as group:
                    group.start_soon(departure.watch, signals)
                    with departure.block:
                        try:
                            yield
                        except (GeneratorExit, anyio.get_cancelled_exc_class()):
                            raise
                        except BaseException as exc:  # noqa: BLE001 - raised below, not in a group
                            error = exc
                    await departure.finish()
                    group.cancel_scope.cancel()
        except anyio.get_cancelled_exc_class():
            if watchdog.signal is None:
                raise
    if watchdog.signal is not None:
        leaving = SystemExit(_BY_SIGNAL + watchdog.signal)
        _unwrap(leaving)
        raise leaving from error
    if error is not None:
        raise error


class _Watchdog:
    """Ends the process at once when the grace after a signal is over, or a second signal comes.

    It hears of signals in a handler of Python's, and waits in a thread of its own: a call that
    blocks the event loop, or the end of the interpreter, holds up neither.

    Args:
        grace: Seconds from the first signal.
        signals: Those that it hears of.

    Attributes:
        signal: The first one; None before.
    """

    def __init__(self, grace: float, signals: Sequence[signal.Signals]) -> None:
        self._grace = grace
        self._signals = signals
        self._process = os.getpid()
        # Of all that wakes a thread, this alone may be used in a handler of signals.
        self._heard = SimpleQueue[int | None]()
        self.signal: signal.Signals | None = None

    def __enter__(self) -> _Watchdog:
        threading.Thread(target=self._wait, name="aioftrackjobs signals", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.signal is None:
            self._heard.put(None)
            return
        for number in self._signals:  # the next one is the second, until the very end
            signal.signal(number, self._hear)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hear of signals before those whose handlers are in place."""
        before = {number: signal.getsignal(number) for number in self._signals}

        def hear(number: int, frame: FrameType | None) -> None:
            self._hear(number, frame)
            if callable(handler := before[signal.Signals(number)]):
                handler(number, frame)

        for number in self._signals:
            signal.signal(number, hear)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _hear(self, number: int, _: FrameType | None) -> None:
        if os.getpid() != self._process:  # a fork of it, which has neither thread nor event loop
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.signal = self.signal or signal.Signals(number)
        self._heard.put(number)

    def _wait(self) -> None:
        number = self._heard.get()
        if number is None:
            return
        with suppress(Empty):
            self._heard.get(timeout=self._grace)
        _leave(number)


class ShutdownCoordinator:
    """How a process leaves after a signal."""

    def __init__(self, session: AsyncSession, grace: float, watchdog: _Watchdog) -> None:
        self._connection = connection_of(session)
        self._active = jobs_of(session).active
        self._grace = grace
        self._watchdog = watchdog
        self._task = anyio.get_current_task().id
        self._told = anyio.Event()
        self.block = anyio.CancelScope()

    async def watch(self, signals: AsyncIterator[signal.Signals]) -> None:
        """Wait for a signal, and let all come to its end."""
        number = await anext(signals)
        while self._watchdog.signal is None:  # asyncio hears of those to its forks, too
            number = await anext(signals)
        logger.warning("%s: all Jobs end, within %g s", number.name, self._grace)
        self._active.shutdown_reason = f"stopped by {number.name}"
        self._active.shutdown_deadline = anyio.current_time() + self._grace
        self.block.cancel()
        for _ in range(_CANCELLING_TURNS):
            await anyio.lowlevel.checkpoint()
        # What the block does not reach; inside it, what is shielded ends in its own time.
        self._active.cancel_all(keep=self._tasks_of_block())
        self._told.set()

    def _tasks_of_block(self) -> set[int]:
        found, tasks = set[int](), {self._task}
        while tasks:
            found |= tasks
            running = anyio.get_running_tasks()
            tasks = {each.id for each in running if each.parent_id in tasks} - found
        return found

    async def finish(self) -> None:
        """Wait until all Jobs have had their last word; the rest of the time is for closing."""
        if self._watchdog.signal is not None:
            await self._told.wait()
            # The block is over: who is left was started outside of it, if by the same task.
            self._active.cancel_all(keep=())
            if sniffio.current_async_library() == "asyncio":
                await self._active.wait_until_all_left()
            # Trio's tasks are ended by nothing but the groups that they are in, when this exits.
            left = self._active.shutdown_deadline - anyio.current_time()
            self._connection.closing_grace = max(left, 0.0)


def _unwrap(leaving: SystemExit) -> None:
    """Let an exit be one though a task group around the block makes a group of errors of it."""
    show = sys.excepthook

    def look_inside(
        kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        if isinstance(error, BaseExceptionGroup):
            exits, others = error.split(SystemExit)
            if exits is not None:
                if others is not None:
                    show(type(others), others, others.__traceback__)
                raise leaving  # out of the hook, this is what the interpreter exits by
        show(kind, error, trace)

    sys.excepthook = look_inside


def _leave(number: int) -> NoReturn:
    # The program may hold a lock of what is written to, or nobody may read it.
    parting = threading.Thread(target=_part, daemon=True)
    parting.start()
    parting.join(_PARTING)
    os._exit(_BY_SIGNAL + number)


def _part() -> None:
    logger.warning("leaving at once; what is not reported is left to the journal, or to recover")
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
