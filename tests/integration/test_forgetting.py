"""Entities without references are freed, and so are the objects of their commits."""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable

import anyio
import anyio.lowlevel

from aioftrackjobs import AsyncSession, Job, JobStatus, job_context
from aioftrackjobs.commit.changes import InFlightCommit, RecordedChange
from aioftrackjobs.commit.dispatcher import Dispatcher
from aioftrackjobs.commit.request import PendingRequest
from aioftrackjobs.commit.unit_of_work import UnitOfWork
from aioftrackjobs.jobs.channels import Channel
from aioftrackjobs.jobs.lifecycle import JobLifecycle
from aioftrackjobs.session import connection_of, context_of, jobs_of

from .waiting import until

JOBS = 1_000
AT_ONCE = 50

#: The kinds of objects that exist while a Job runs.
KINDS = (Job, PendingRequest, InFlightCommit, RecordedChange, UnitOfWork, JobLifecycle, Channel)


def dispatcher_of(session: AsyncSession) -> Dispatcher:
    return connection_of(session).dispatcher


async def alive(session: AsyncSession) -> dict[str, int]:
    dispatcher, boards = dispatcher_of(session), jobs_of(session).progress._writers
    await dispatcher.drain()
    # Workers end a few turns later, because there is no more work.
    await until(
        lambda: (
            not dispatcher._ordinary._workers
            and not any(each._is_running for each in boards.values())
        )
    )
    gc.collect()
    kinds = [type(each) for each in gc.get_objects()]
    return {kind.__name__: kinds.count(kind) for kind in KINDS}


async def many(one: Callable[[], Awaitable[None]]) -> None:
    limiter = anyio.CapacityLimiter(AT_ONCE)

    async def limited() -> None:
        async with limiter:
            await one()

    async with anyio.create_task_group() as group:
        for _ in range(JOBS):
            group.start_soon(limited)


def assert_empty(session: AsyncSession) -> None:
    context, dispatcher = context_of(session), dispatcher_of(session)
    assert dispatcher.is_idle
    assert all(not each._touched for each in jobs_of(session).progress._writers.values())
    assert not context.connection.background._to_begin


async def test_jobs_that_were_committed_are_freed(session: AsyncSession) -> None:
    await session.current_user()
    before, known = await alive(session), len(context_of(session).identity)

    async def one() -> None:
        async with session.unit_of_work() as unit:
            job = session.create(Job, {"status": "running", "data": "{}"})
            await unit.commit()
            job.status = JobStatus.DONE

    await many(one)

    assert await alive(session) == before
    assert len(context_of(session).identity) == known
    assert_empty(session)


async def test_jobs_of_job_context_are_freed(session: AsyncSession) -> None:
    user = await session.current_user()
    before, known = await alive(session), len(context_of(session).identity)

    async def one() -> None:
        async with job_context(session, user=user, description="x", interval=0.01) as job:
            job.progress(0.5)

    await many(one)

    assert await alive(session) == before
    assert len(context_of(session).identity) == known
    assert_empty(session)


async def test_a_commit_is_freed_without_the_garbage_collector(session: AsyncSession) -> None:
    """A daemon must not depend on when the garbage collector visits its oldest generation."""
    await session.current_user()
    known = len(context_of(session).identity)
    gc.collect()
    gc.disable()
    try:
        for _ in range(20):
            async with session.unit_of_work():
                session.create(Job, {"data": "{}"})
        assert len(context_of(session).identity) - known <= 1, "the last may still be held"
    finally:
        gc.enable()


async def test_jobs_whose_commits_are_cancelled_or_refused_are_freed(
    session: AsyncSession,
) -> None:
    await session.current_user()
    before, known = await alive(session), len(context_of(session).identity)

    async def one() -> None:
        with anyio.move_on_after(0.001):
            async with session.unit_of_work():
                session.create(Job, {"data": "{}"})

    await many(one)

    assert await alive(session) == before
    assert len(context_of(session).identity) == known
    assert_empty(session)
