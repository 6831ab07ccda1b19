"""Waiting for Jobs, wherever they run: outcomes, time-outs, one poll for all, outages, closing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import anyio
import pytest

from aioftrackjobs import (
    ArgumentError,
    AsyncSession,
    EntityError,
    Job,
    JobState,
    JobStatus,
    ServerError,
    SessionStateError,
    job_context,
)
from aioftrackjobs.config.retry import NO_RETRIES
from aioftrackjobs.devserver import ServerHandle
from aioftrackjobs.testing import Refuse

from .outages import OUTAGES, Outage, relayed
from .settings import QUICK, connected
from .waiting import until

#: Polls that are too seldom to be waited for.
NEVER = 3600.0

SELDOM = replace(QUICK, job_poll_first=NEVER, job_poll_longest=NEVER)


async def new_job(session: AsyncSession, **data: Any) -> Job:
    job = session.create(Job, {"status": "running", "data": data})
    await session.commit()
    return job


async def end(session: AsyncSession, job: Job, status: str = "done", **data: Any) -> None:
    found = await session.get(Job, job.id)
    assert found is not None
    found["status"], found["data"] = status, {**json.loads(found["data"] or "{}"), **data}
    await session.commit()


async def delete(session: AsyncSession, job: Job) -> None:
    found = await session.get(Job, job.id)
    assert found is not None
    session.delete(found)
    await session.commit()


@asynccontextmanager
async def counted(session: AsyncSession) -> AsyncIterator[list[int]]:
    """Give a list with the number of Jobs in each query of Jobs that the session sends."""
    connection = session._connection
    call, sizes = connection.call, list[int]()

    async def counting(operations: Any, **manner: Any) -> Any:
        text = str(operations[0].get("expression"))
        if text.startswith("select id, status, data from Job"):
            sizes.append(text.count('"') // 2)
        return await call(operations, **manner)

    connection.call = counting  # type: ignore[method-assign]
    try:
        yield sizes
    finally:
        connection.call = call  # type: ignore[method-assign]


@pytest.mark.every_loop
async def test_each_job_ends_as_done_failed_deleted_or_goes_on(
    session: AsyncSession, other: AsyncSession
) -> None:
    done, failed, deleted, running = [await new_job(session) for _ in range(4)]
    missing = str(uuid4())
    mixed: list[Job | str | UUID] = [done, failed.id, UUID(deleted.id), missing, done]
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: end(other, done, description="Render - 3 files"))
        group.start_soon(lambda: end(other, failed, "failed", description="Render - failed: x"))
        group.start_soon(delete, other, deleted)
        states = await session.wait_for(mixed)
    (late,) = await session.wait_for([running], timeout=0.05)

    assert [str(state) for state in states] == [
        "Render - 3 files (done)",
        "Render - failed: x (failed)",
        "deleted",
        "deleted",
        "Render - 3 files (done)",
    ]
    assert [state.id for state in states] == [str(getattr(each, "id", each)) for each in mixed]
    assert all(state.has_ended for state in states)
    assert (str(late), late.has_ended) == ("running", False)
    assert (done.status, failed.status, failed.description) == (
        JobStatus.DONE,
        JobStatus.FAILED,
        "Render - failed: x",
    )
    assert states[1].entity is failed


async def test_an_entity_waits_by_itself(session: AsyncSession, other: AsyncSession) -> None:
    job = await new_job(session)
    assert (await job.wait(timeout=0.05)).status == "running"
    async with anyio.create_task_group() as group:
        group.start_soon(end, other, job)
        assert (await job.wait()).is_done
    assert (await job.wait(timeout=5)).is_done


async def test_a_job_of_the_same_session_wakes_its_waiters_at_once(server: ServerHandle) -> None:
    async with connected(server, timings=SELDOM) as session:
        async with anyio.create_task_group() as group, job_context(session) as running:
            states: list[JobState] = []

            async def wait() -> None:
                states.append(await running.entity.wait())

            group.start_soon(wait)
            await until(lambda: session._jobs.poll._last_read > 0)
            running.finish("3 files")
        assert states[0].is_done
        assert states[0].description == "3 files"


@pytest.mark.every_loop
@pytest.mark.own_client
async def test_an_event_wakes_waiters_before_the_next_poll(
    server: ServerHandle, other: AsyncSession
) -> None:
    async with connected(server, timings=SELDOM) as session:
        await session.events.ready()
        job = await new_job(session)
        states: list[JobState] = []

        async def wait() -> None:
            states.append(await job.wait())

        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            await until(lambda: session._jobs.events._is_listening)
            await session.events.ready()
            await end(other, job)  # the wait ends by nothing else
        assert states[0].is_done


@pytest.mark.every_loop
async def test_a_watch_gives_each_change_until_all_have_ended(
    session: AsyncSession, other: AsyncSession
) -> None:
    first, second = await new_job(session, description="a"), await new_job(session)
    seen = []
    async for job in session.watch([first, second.id]):
        seen.append((job.id == first.id, job.status, job.description, job.progress))
        match len(seen):
            case 2:
                await end(other, first, "running", description="a (50 %)", progress=0.5)
            case 3:
                await end(other, first, "failed", description="a - failed: x")
            case 4:
                await delete(other, second)

    assert sorted(seen[:2]) == [(False, "running", None, None), (True, "running", "a", None)]
    assert seen[2:] == [
        (True, "running", "a (50 %)", 0.5),
        (True, "failed", "a - failed: x", 0.5),
        (False, None, None, None),
    ]


@pytest.mark.asyncio_only
async def test_a_cancelled_step_of_a_watch_loses_no_change(
    server: ServerHandle, other: AsyncSession
) -> None:
    """A cancellation by asyncio itself reaches a task that was just woken; anyio spares it."""
    async with connected(server, timings=SELDOM) as session, anyio.create_task_group() as group:
        job, poll = await new_job(session), session._jobs.poll
        watch = session.watch(job)
        assert (await anext(watch)).status == "running"
        step = asyncio.ensure_future(anext(watch))
        await until(lambda: poll._watched)
        await end(other, job)
        poll._watched[job.id].note_read({"status": "done", "data": None})
        step.cancel()
        with pytest.raises(asyncio.CancelledError):
            await step

        async def wake() -> None:
            await until(lambda: poll._watched)
            poll.wake([job.id])

        group.start_soon(wake)
        assert [state.status async for state in watch] == ["done"]


async def test_a_loop_that_ends_early_leaves_no_poll(session: AsyncSession) -> None:
    job = await new_job(session)
    async for _ in session.watch(job):
        break
    await until(lambda: not session._jobs.poll._is_running)
    assert not session._jobs.poll._watched
    assert [state async for state in session.watch([])] == []
    assert await session.wait_for([]) == []


async def test_a_thousand_tasks_share_one_query(server: ServerHandle, other: AsyncSession) -> None:
    async with connected(server, timings=SELDOM) as session:
        jobs = [session.create(Job, {"status": "running"}) for _ in range(1000)]
        await session.commit()
        ended: list[JobState] = []

        async def wait(job: Job) -> None:
            ended.append(await job.wait())

        async with counted(session) as sizes, anyio.create_task_group() as group:
            cancelled = anyio.CancelScope()

            async def wait_in_vain() -> None:
                with cancelled:
                    await session.wait_for(jobs)

            group.start_soon(wait_in_vain)
            for job in jobs:
                group.start_soon(wait, job)
            await until(lambda: sum(sizes) >= 1000)
            cancelled.cancel()
            for job in await other.query("Job").of(Job).all():
                job.status = JobStatus.DONE
            await other.commit()
            session._jobs.poll.wake(job.id for job in jobs)

    assert len(ended) == 1000
    assert all(state.is_done for state in ended)
    assert sizes == [500] * 4


async def test_pauses_grow_until_a_change(server: ServerHandle, other: AsyncSession) -> None:
    pauses = replace(QUICK, job_poll_first=0.01, job_poll_longest=0.04)
    async with connected(server, timings=pauses) as session, counted(session) as sizes:
        poll = session._jobs.poll
        job = await new_job(session)
        async with anyio.create_task_group() as group:
            group.start_soon(job.wait)
            await until(lambda: poll._interval == 0.04)
            before = len(sizes)
            await end(other, job, "queued")
            await until(lambda: poll._interval < 0.04)
            assert len(sizes) > before
            await end(other, job)
        await until(lambda: not poll._is_running)


@pytest.mark.parametrize("outage", OUTAGES)
async def test_waiters_outlast_an_outage(
    server: ServerHandle, other: AsyncSession, outage: Outage
) -> None:
    timings = replace(QUICK, job_poll_limit=0.3)
    async with (
        relayed(server.url) as line,
        connected(server, line.url, timings=timings, retry=NO_RETRIES) as session,
    ):
        job = await new_job(session)
        async with anyio.create_task_group() as group, anyio.create_task_group() as waiting:
            states: list[JobState] = []

            async def wait() -> None:
                states.append(await job.wait())

            waiting.start_soon(wait)
            await until(lambda: session._jobs.poll._last_read > 0)
            await line.begin(outage)
            await until(lambda: session._jobs.poll._failures)
            assert (await job.wait(timeout=0.05)).status == "running"
            await end(other, job)
            await line.end(group)
            await until(lambda: states)
            group.cancel_scope.cancel()

    assert states[0].is_done


@pytest.mark.every_loop
async def test_closing_ends_all_waiting_by_a_typed_error(server: ServerHandle) -> None:
    errors: list[Exception] = []
    async with anyio.create_task_group() as group:
        async with connected(server) as session:
            job = await new_job(session)

            async def wait() -> None:
                try:
                    await session.wait_for([job])
                except SessionStateError as exc:
                    errors.append(exc)

            async def watch() -> None:
                try:
                    async for _ in session.watch(job):
                        pass
                except SessionStateError as exc:
                    errors.append(exc)

            group.start_soon(wait)
            group.start_soon(watch)
            await until(lambda: session._jobs.poll._last_read > 0)
    assert len(errors) == 2
    assert "the session is closed" in str(errors[0])
    with pytest.raises(SessionStateError):
        await job.wait()


async def test_a_refusal_ends_the_waiting_when_it_does_not_pass(
    server: ServerHandle, session: AsyncSession
) -> None:
    job = await new_job(session)
    server.faults.inject(Refuse(), on="reads", times=2)  # passes
    assert (await job.wait(timeout=0.3)).status == "running"
    server.faults.inject(Refuse(), on="reads", probability=1.0)
    with pytest.raises(ServerError):
        await job.wait()
    assert not session._jobs.poll._watched


async def test_odd_data_of_others_ends_no_waiting(
    session: AsyncSession, other: AsyncSession
) -> None:
    texts = ["", "null", "[1]", "{", '{"description": 3, "progress": true}', '{"progress": "x"}']
    jobs = [await new_job(session) for _ in texts]
    for job, text in zip(jobs, texts, strict=True):
        found = await other.get(Job, job.id)
        assert found is not None
        found["data"], found["status"] = text, "failed"
    await other.commit()

    states = await session.wait_for(jobs)

    assert {(state.status, state.description, state.progress) for state in states} == {
        ("failed", None, None)
    }


async def test_what_is_no_job_is_refused_before_anything_is_sent(
    session: AsyncSession, other: AsyncSession
) -> None:
    job, foreign = await new_job(session), await new_job(other)
    user = await session.current_user()
    for wrong in (None, 3, [3], [None], user, [user], b"x", {"a": 1}.values()):
        with pytest.raises(ArgumentError):
            await session.wait_for(wrong)  # type: ignore[arg-type]
        with pytest.raises(ArgumentError):
            session.watch(wrong)  # type: ignore[arg-type]
    for timeout in (0, -1, "3", True, float("nan")):
        with pytest.raises(ArgumentError):
            await job.wait(timeout)  # type: ignore[arg-type]
    for id_ in ("", "  "):
        with pytest.raises(ArgumentError):
            await session.wait_for(id_)
    with pytest.raises(ArgumentError, match="surrogate"):
        await session.wait_for([job, "\ud800"])
    with pytest.raises(EntityError, match="does not belong to this session"):
        await session.wait_for(foreign)
    with pytest.raises(EntityError, match="belongs to no session"):
        await Job().wait()
    with pytest.raises(EntityError, match="not yet created"):
        await session.create(Job, {}).wait()
    with pytest.raises(EntityError, match="not yet created"):
        async for _ in session.watch(session.create(Job, {})):
            pass
    session.rollback()
