"""Leaving in good order when the system asks a daemon to: SIGTERM, or SIGINT by Ctrl-C."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NoReturn

import anyio
import anyio.lowlevel

from aioftrackjobs.session import AsyncSession, workspace_of

logger = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)

#: Shells know an exit by a signal as that much more than its number.
_BY_SIGNAL = 128

#: Turns of the event loop in which a task that was just cancelled comes to end its Job.
_CANCELLING_TURNS = 10


@asynccontextmanager
async def shutdown_on_signals(session: AsyncSession, *, grace: float = 10.0) -> AsyncIterator[None]:
    """End the block, and all running Jobs of *session*, when SIGTERM or SIGINT comes.

    The block is cancelled, and so is every task that runs a Job (asyncio's own tasks too): each
    Job fails with the signal as its reason, uploads are aborted, and the process exits with 128
    plus the number of the signal. Whatever is not over after *grace* seconds, or when a second
    signal comes, is left to the journal, or to :func:`recover`: the process ends at once.

    Enter it in the main thread, inside the session's block. On Windows it leaves Ctrl-C to
    Python, which cancels the main task too.

    Args:
        session: An open session.
        grace: Seconds from the signal to the end of the process, at most.

    Raises:
        SystemExit: After a signal.
    """
    if sys.platform == "win32":
        yield
        return
    departure = _Departure(session, grace)
    error: BaseException | None = None
    try:
        with anyio.open_signal_receiver(*_SIGNALS) as signals:
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
        if departure.signal is None:
            raise
    if departure.signal is not None:
        raise SystemExit(_BY_SIGNAL + departure.signal) from error
    if error is not None:
        raise error


class _Departure:
    """How a process leaves after a signal."""

    def __init__(self, session: AsyncSession, grace: float) -> None:
        workspace = workspace_of(session)
        self._connection = workspace.connection
        self._running = workspace.running
        self._grace = grace
        self._task = anyio.get_current_task().id
        self.block = anyio.CancelScope()
        self.signal: int | None = None

    async def watch(self, signals: AsyncIterator[signal.Signals]) -> None:
        """Wait for a signal, and see to it that the process ends in time."""
        self.signal = number = await anext(signals)
        logger.warning("%s: all Jobs end, within %g s", number.name, self._grace)
        # A thread: whatever the event loop, or the end of the interpreter, then waits for.
        timer = threading.Timer(self._grace, _leave, (number,))
        timer.daemon = True
        timer.start()
        self._running.leaving = f"stopped by {number.name}"
        self._running.leaves_at = anyio.current_time() + self._grace
        self.block.cancel()
        for _ in range(_CANCELLING_TURNS):
            await anyio.lowlevel.checkpoint()
        # What the block does not reach; inside it, what is shielded ends in its own time.
        self._running.cancel_all(keep=self._tasks_of_block())
        await anext(signals)
        _leave(number)

    def _tasks_of_block(self) -> set[int]:
        found, tasks = set[int](), {self._task}
        while tasks:
            found |= tasks
            running = anyio.get_running_tasks()
            tasks = {each.id for each in running if each.parent_id in tasks} - found
        return found

    async def finish(self) -> None:
        """Wait until all Jobs have had their last word; the rest of the time is for closing."""
        if self.signal is not None:
            await self._running.over()
            left = self._running.leaves_at - anyio.current_time()
            self._connection.closing_grace = max(left, 0.0)


def _leave(number: int) -> NoReturn:
    logger.warning("leaving at once; what is not reported is left to the journal")
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(_BY_SIGNAL + number)
