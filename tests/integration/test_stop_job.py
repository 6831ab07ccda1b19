"""Stopping Jobs from outside: those that run, wait, have ended, or have no owner any more."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import anyio
import pytest

from aioftrackjobs import (
    ArgumentError,
    AsyncSession,
    Job,
    JobOwnedError,
    JobStoppedError,
    NoResultFoundError,
    job_context,
)
from aioftrackjobs.config.timings import DEFAULT_TIMINGS
from aioftrackjobs.devserver import ServerHandle
from aioftrackjobs.jobs.ownership import Lease
from aioftrackjobs.journal import Process

from .settings import QUICK, connected
from .waiting import until

#: Reads that are too seldom to be waited for.
SELDOM = replace(QUICK, job_read_interval=3600.0)


@pytest.fixture
async def session(server: ServerHandle) -> AsyncIterator[AsyncSession]:
    async with connected(server, timings=replace(QUICK, job_read_interval=0.05)) as opened:
        yield opened


async def data_of(session: AsyncSession, job: Job) -> dict[str, Any]:
    found = await session.get(Job, job.id)
    assert found is not None
    assert isinstance(found["data"], str)
    data: dict[str, Any] = json.loads(found["data"])
    return data


def lease_of(*, minutes: float) -> dict[str, Any]:
    until = datetime.now(UTC) + timedelta(minutes=minutes)
    return Lease("other", Process("elsewhere", 1, "", ""), until).encode()


@pytest.mark.every_loop
async def test_a_job_of_another_session_fails_with_who_and_why(
    session: AsyncSession, other: AsyncSession
) -> None:
    running: list[Job] = []

    async def run() -> None:
        with pytest.raises(JobStoppedError, match="stopped by developer: wrong shot") as caught:
            async with job_context(session, description="Render", data={"frames": 24}) as job:
                running.append(job.entity)
                await anyio.sleep_forever()
        assert caught.value.by == "developer"

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        await until(lambda: running)
        state = await other.stop_job(running[0].id, "wrong\n shot")
        if not state.has_ended:
            (state,) = await other.wait_for(running[0].id)

    assert state.is_failed
    assert state.description == "Render - failed: stopped by developer: wrong shot"
    data = await data_of(other, running[0])
    assert data["frames"] == 24
    assert data["stop"].keys() == {"by", "at", "reason"}


async def test_a_job_of_the_same_session_stops_at_once(server: ServerHandle) -> None:
    async with connected(server, timings=SELDOM) as session:
        with pytest.raises(JobStoppedError, match="stopped by maya"):
            async with job_context(session) as job, anyio.create_task_group() as group:
                group.start_soon(lambda: session.stop_job(job.entity, by="maya"))
                await anyio.sleep_forever()


@pytest.mark.own_client
async def test_an_event_stops_a_job_of_another_session_at_once(server: ServerHandle) -> None:
    patient = replace(SELDOM, job_read_interval=0.05)
    async with (
        connected(server, timings=patient) as session,
        connected(server, timings=SELDOM) as other,
    ):
        await session.events.ready()
        await other.events.ready()
        with pytest.raises(JobStoppedError, match="stopped by maya"):
            async with job_context(session) as job, anyio.create_task_group() as group:
                await until(lambda: session._jobs.events._is_listening)
                await session.events.ready()
                session._jobs.active._period = 3600.0
                group.start_soon(lambda: other.stop_job(job.id, by="maya"))
                await anyio.sleep_forever()


async def test_a_request_that_the_owner_overwrites_is_written_again(
    server: ServerHandle, other: AsyncSession
) -> None:
    """The owner reads, we write, and the owner writes what it has read before we read it back."""
    job = other.create(Job, {"status": "running", "data": {"lease": lease_of(minutes=3)}})
    await other.commit()
    old = job["data"]
    timings = replace(QUICK, claim_wait=DEFAULT_TIMINGS.claim_wait)
    async with connected(server, timings=timings) as session, anyio.create_task_group() as group:
        group.start_soon(session.stop_job, job.id, "enough")
        await until(lambda: _has_stop(other, job))
        job["data"] = {**json.loads(old), "n": 1}
        await other.commit()

    data = await data_of(other, job)
    assert (data["n"], data["stop"]["reason"], data["lease"]["holder"]) == (1, "enough", "other")


async def _has_stop(session: AsyncSession, job: Job) -> bool:
    return "stop" in await data_of(session, job)


@pytest.mark.parametrize(
    ("status", "data", "after", "description"),
    [
        ("queued", {"description": "a"}, "failed", "a - failed: stopped by developer: no"),
        ("queued", None, "failed", "failed: stopped by developer: no"),
        ("running", {"lease": lease_of(minutes=-9)}, "failed", "failed: stopped by developer: no"),
        ("running", {"lease": lease_of(minutes=900), "description": "a"}, "running", "a"),
        ("running", {"description": "a program in Go"}, "running", "a program in Go"),
        ("done", {"description": "a"}, "done", "a"),
        ("failed", {"description": "a - failed: x"}, "failed", "a - failed: x"),
    ],
    ids=["queued", "empty", "dead owner", "owner elsewhere", "other program", "done", "failed"],
)
async def test_what_becomes_of_a_job_that_this_package_does_not_run_here(
    session: AsyncSession,
    other: AsyncSession,
    status: str,
    data: dict[str, Any] | None,
    after: str,
    description: str,
) -> None:
    job = other.create(Job, {"status": status, "data": data and {**data, "mine": 1}})
    await other.commit()

    state = await session.stop_job(job.id, "no")

    assert (state.status, state.description) == (after, description)
    found = await other.get(Job, job.id)
    assert found is job
    kept = json.loads(job["data"] or "{}")
    assert kept.get("mine") == (data and 1)
    assert ("stop" in kept) == (status in ("queued", "running"))
    if after == "running":
        assert kept["stop"]["by"] == "developer"
        assert kept.get("lease") == (data or {}).get("lease")
    elif status in ("queued", "running"):
        assert "lease" not in kept


async def test_a_daemon_does_not_begin_what_was_stopped_in_the_queue(
    session: AsyncSession, other: AsyncSession
) -> None:
    other.create(Job, {"status": "queued"})
    await other.commit()
    claimed = await session.claim_job("Job")
    assert claimed is not None

    assert (await other.stop_job(claimed.id)).is_failed

    with pytest.raises(JobOwnedError):
        async with job_context(session, job=claimed):
            pass
    assert await session.claim_job("Job") is None


async def test_wrong_arguments_and_missing_jobs_are_typed_errors(session: AsyncSession) -> None:
    user: Any = await session.current_user()
    for wrong in (None, "", 3, [user], b"x", user):
        with pytest.raises(ArgumentError):
            await session.stop_job(wrong)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError):
        await session.stop_job(uuid4(), reason=3)  # type: ignore[arg-type]
    with pytest.raises(NoResultFoundError):
        await session.stop_job(uuid4(), "gone")
