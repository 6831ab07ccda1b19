"""Waits for conditions that send no notification, and cancels at a moment of choice."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel

from aioftrackjobs import AsyncSession, Job, RunningJob


async def until(condition: Callable[[], object]) -> None:
    """Wait until *condition* returns a true value, which may be awaitable.

    It sleeps between two calls, each time longer: a busy loop would keep the interpreter's lock
    from the threads of the embedded server, and many conditions send a request to it.

    Raises:
        TimeoutError: It is not true after 20 seconds.
    """
    pause = 0.002
    with anyio.fail_after(20):
        while not await _outcome(condition()):
            await anyio.sleep(pause)
            pause = min(1.2 * pause, 0.02)


async def _outcome(value: object) -> object:
    return await value if isinstance(value, Awaitable) else value


async def description_of(session: AsyncSession, job: Job | RunningJob) -> str | None:
    """Return the description that the server has of a Job."""
    found = await session.get(Job, job.id)
    assert found is not None
    return found.description


async def shows(session: AsyncSession, job: Job | RunningJob, text: str) -> bool:
    """Wait until the server has *text* as the description of *job*; return that it has.

    Raises:
        AssertionError: It has another one after 20 seconds.
    """
    seen: list[str | None] = []

    async def is_shown() -> bool:
        seen[:] = [await description_of(session, job)]
        return seen == [text]

    try:
        await until(is_shown)
    except TimeoutError:
        assert seen == [text]
        raise
    return True


@asynccontextmanager
async def cancelled_after(checkpoints: int) -> AsyncIterator[None]:
    """Cancel the block after so many checkpoints, unless it has ended by then."""
    with anyio.CancelScope() as scope:

        async def cancel() -> None:
            for _ in range(checkpoints):
                await anyio.lowlevel.checkpoint()
            scope.cancel()

        async with anyio.create_task_group() as group:
            group.start_soon(cancel)
            yield
