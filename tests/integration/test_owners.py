"""Two owners: a Job that is running is taken over on purpose, or joined, or left alone."""

from __future__ import annotations

import asyncio
import copy
import itertools
import json
import os
import pickle
import sys
import textwrap
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import anyio
import pytest
from anyio.abc import TaskStatus

from aioftrackjobs import (
    ArgumentError,
    AsyncSession,
    EntityError,
    FtrackJobsError,
    Job,
    JobOwnedError,
    JobStatus,
    JobStoppedError,
    RunningJob,
    ValidationError,
    job_context,
    recover,
)
from aioftrackjobs.config.timings import DEFAULT_TIMINGS
from aioftrackjobs.devserver import ServerHandle
from aioftrackjobs.jobs.ownership import LEASE, TAKEN_OVER, Lease
from aioftrackjobs.journal import Process, this_process
from aioftrackjobs.session import jobs_of
from aioftrackjobs.transport import WireRequest, WireResponse

from .journals import DEAD, ELSEWHERE
from .relay import Relay, Send
from .settings import QUICK, connected
from .waiting import until


async def stored(session: AsyncSession, job: Job | RunningJob) -> tuple[str, dict[str, Any]]:
    found = await session.get(Job, job.id)
    assert found is not None
    return found.status, json.loads(found["data"])


async def job_of(
    session: AsyncSession, process: Process | None, *, left: float = 100.0, status: str = "running"
) -> Job:
    """Make a Job with a lease of *process* that has some seconds left; without one if None."""
    data: dict[str, Any] = {"description": "Render"}
    if process is not None:
        data[LEASE] = Lease("them", process, now() + timedelta(seconds=left)).encode()
    job = session.create(Job, {"status": status, "data": data})
    await session.commit()
    return job


def now() -> datetime:
    return datetime.now(UTC)


async def hold(
    session: AsyncSession,
    job_id: str,
    release: anyio.Event,
    options: dict[str, Any],
    *,
    task_status: TaskStatus[RunningJob],
) -> None:
    """Run a block for a Job, until it is released."""
    async with job_context(session, job=job_id, **options) as job:
        task_status.started(job)
        await release.wait()


# A good lease


@pytest.mark.every_loop
async def test_a_job_that_another_session_runs_is_left_alone(
    session: AsyncSession, other: AsyncSession
) -> None:
    async with job_context(session, description="x") as job:
        before = await stored(other, job)
        with pytest.raises(JobOwnedError) as caught:
            async with job_context(other, job=job.id, description="y", data={"z": 1}):
                pytest.fail("it has an owner")
        assert await stored(other, job) == before
        lease = Lease.of(before[1])
        assert lease is not None
        error = caught.value
        assert (error.job_id, error.until) == (job.id, lease.until)
        assert (error.host, error.pid) == (this_process().host, os.getpid())
        assert error.holder == jobs_of(session).journal.holder == lease.holder
        for way in ("wait", "take_over=True", "join=True", job.id, this_process().host):
            assert way in str(error)
        assert isinstance(error, FtrackJobsError)
    assert await stored(other, job) == ("done", {"description": "x"})


@pytest.mark.parametrize(
    ("process", "left", "status", "is_owned"),
    [
        pytest.param(ELSEWHERE, 100, "running", True, id="another-host"),
        pytest.param(ELSEWHERE, 100, "queued", True, id="queued-with-lease"),
        pytest.param(ELSEWHERE, -1, "running", False, id="lease-over"),
        pytest.param(DEAD, 100, "running", False, id="dead"),
        pytest.param(this_process(), 100, "running", True, id="this-process"),
        pytest.param(this_process(), -1, "running", False, id="alive-but-over"),
        pytest.param(None, 0, "running", False, id="no-lease"),
        pytest.param(None, 0, "queued", False, id="queued"),
        pytest.param(ELSEWHERE, 100, "done", False, id="done-with-lease"),
        pytest.param(ELSEWHERE, 100, "failed", False, id="failed-with-lease"),
    ],
)
async def test_what_counts_as_an_owner(
    session: AsyncSession,
    other: AsyncSession,
    process: Process | None,
    left: float,
    status: str,
    *,
    is_owned: bool,
) -> None:
    made = await job_of(other, process, left=left, status=status)
    before = await stored(other, made)
    if is_owned:
        with pytest.raises(JobOwnedError):
            async with job_context(session, job=made.id):
                pytest.fail("it has an owner")
        assert await stored(other, made) == before
    else:
        async with job_context(session, job=made.id):
            assert (await stored(other, made))[0] == "running"
        ended, data = await stored(other, made)
        assert (ended, data["description"]) == ("done", "Render")
        assert LEASE not in data


async def test_an_owner_that_was_cut_off_leaves_a_job_alone_that_was_run_again(
    server: ServerHandle, other: AsyncSession, caplog: pytest.LogCaptureFixture
) -> None:
    """Its lease was over, so that it did not have to be taken over on purpose."""
    async with connected(server, lease=1) as session:
        with suppress(ZeroDivisionError):
            async with job_context(session, description="x") as job:
                found = await other.get(Job, job.id)
                assert found is not None
                data = json.loads(found["data"])
                lease = Lease("theirs", ELSEWHERE, now() - timedelta(seconds=1))
                holder = data[LEASE]["holder"]
                found["data"] = {**data, LEASE: lease._replace(holder=holder).encode()}
                await other.commit()
                async with job_context(other, job=job.id):
                    pass
                raise ZeroDivisionError
    assert (await stored(other, job))[0] == "done"
    assert "taken over" in caplog.text


async def test_a_lease_of_another_shape_is_none(session: AsyncSession) -> None:
    job = session.create(Job, {"status": "running", "data": {LEASE: {"until": "tomorrow"}}})
    await session.commit()

    async with job_context(session, job=job):
        pass

    assert await stored(session, job) == ("done", {})


async def test_time_is_that_of_the_server(
    session: AsyncSession, other: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host whose clock is an hour fast does not take a good lease for one that is over."""

    class Fast(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + timedelta(hours=1)

    made = await job_of(other, ELSEWHERE)
    monkeypatch.setattr("aioftrackjobs.commit.api_client.datetime", Fast)

    with pytest.raises(JobOwnedError):
        async with job_context(session, job=made.id):
            pytest.fail("it has an owner")


@pytest.mark.every_loop
async def test_the_same_session_cannot_run_a_job_twice(session: AsyncSession) -> None:
    async with job_context(session, description="x") as job:
        with pytest.raises(JobOwnedError, match="another block of this session"):
            async with job_context(session, job=job.entity):
                pytest.fail("it runs")
        assert (await stored(session, job))[0] == "running"
    async with job_context(session, job=job.entity):
        pass  # it has ended


async def test_without_leases_the_same_session_cannot_run_a_job_twice_either(
    server: ServerHandle,
) -> None:
    async with connected(server, lease=0) as session, anyio.create_task_group() as group:
        made = await job_of(session, None, status="queued")
        outcomes: list[str] = []

        async def run() -> None:
            try:
                async with job_context(session, job=made.id):
                    outcomes.append("ran")
                    await until(lambda: len(outcomes) == 5)
            except JobOwnedError:
                outcomes.append("owned")

        for _ in range(5):
            group.start_soon(run)
    assert sorted(outcomes) == ["owned"] * 4 + ["ran"]


@pytest.mark.parametrize("take_over", [False, True])
async def test_a_job_whose_end_is_being_reported_is_not_run_again_yet(
    session: AsyncSession, *, take_over: bool
) -> None:
    """Otherwise its final status would come while it runs again."""
    release, reporting = anyio.Event(), anyio.Event()

    async def delay(request: WireRequest, send: Send) -> WireResponse:
        if b'"done"' in (request.body or b""):  # type: ignore[operator]
            reporting.set()
            await release.wait()
        return await send(request)

    made = await job_of(session, None)
    Relay(session, delay)
    left = anyio.Event()
    left.set()
    async with anyio.create_task_group() as group:
        await group.start(hold, session, made.id, left, {})
        await reporting.wait()
        with pytest.raises(JobOwnedError):
            async with job_context(session, job=made.id, take_over=take_over):
                pytest.fail("it has not ended")
        release.set()
    async with job_context(session, job=made.id):
        assert (await stored(session, made))[0] == "running"


async def test_sessions_that_begin_the_same_job_at_once_do_not_both_run_it(
    server: ServerHandle, session: AsyncSession
) -> None:
    timings = replace(QUICK, claim_wait=DEFAULT_TIMINGS.claim_wait)
    outcomes: dict[str, list[str]] = {status: [] for status in ("queued", "running", "done")}
    jobs = {status: await job_of(session, None, status=status) for status in outcomes}

    async def run(status: str) -> None:
        async with connected(server, timings=timings) as another:
            try:
                async with job_context(another, job=jobs[status].id):
                    outcomes[status].append("ran")
                    await until(lambda: len(outcomes[status]) == 3)
            except JobOwnedError:
                outcomes[status].append("owned")

    async with anyio.create_task_group() as group:
        for status in list(outcomes) * 3:
            group.start_soon(run, status)
    ends = {status: " ".join(sorted(each)) for status, each in outcomes.items()}
    assert ends == dict.fromkeys(outcomes, "owned owned ran")
    assert {(await stored(session, job))[0] for job in jobs.values()} == {"done"}


async def test_a_job_that_somebody_runs_and_ends_while_it_begins_is_not_run_again(
    server: ServerHandle, session: AsyncSession, other: AsyncSession
) -> None:
    made = await job_of(other, None, status="queued")
    outcomes: list[str] = []

    async def run_quickly(request: WireRequest, send: Send) -> WireResponse:
        response = await send(request)
        if b'"running"' in (request.body or b""):  # type: ignore[operator]
            relay.end()
            async with job_context(other, job=made.id, take_over=True):
                outcomes.append("other")
        return response

    relay = Relay(session, run_quickly)
    with pytest.raises(JobOwnedError):
        async with job_context(session, job=made.id):
            outcomes.append("session")
    assert outcomes == ["other"]
    assert (await stored(other, made))[0] == "done"


async def test_a_beginning_that_lost_to_another_session_writes_nothing_more(
    server: ServerHandle, other: AsyncSession
) -> None:
    made = await job_of(other, None, status="queued")
    release, writes = anyio.Event(), 0

    async def interfere(request: WireRequest, send: Send) -> WireResponse:
        nonlocal writes
        assert isinstance(request.body, bytes)
        response = await send(request)
        if b'"update"' in request.body:
            writes += 1
            if writes == 1:
                await group.start(hold, other, made.id, release, {"take_over": True})
        elif writes and b"from Job where" in request.body:
            jobs_of(session).active.renew_all(older_than=0.0)  # as after a step of the clock
        return response

    async with anyio.create_task_group() as group:
        async with connected(server) as session:
            Relay(session, interfere)
            with pytest.raises(JobOwnedError):
                async with job_context(session, job=made.id):
                    pytest.fail("it has another owner")
            writer = jobs_of(session).progress._writers[1.0]
            await until(
                lambda: (
                    not (
                        writer._touched
                        or any(each._is_waiting or each._request for each in writer._channels)
                    )
                )
            )
        assert writes == 1
        lease = Lease.of((await stored(other, made))[1])
        assert lease is not None
        release.set()


async def test_a_beginning_that_another_program_overwrites_is_written_again(
    session: AsyncSession, other: AsyncSession
) -> None:
    """A claim that comes too late, or a program that knows nothing of leases."""
    made = await job_of(other, None, status="queued")

    async def overwrite(request: WireRequest, send: Send) -> WireResponse:
        response = await send(request)
        if b'"running"' in (request.body or b""):  # type: ignore[operator]
            relay.end()
            theirs = await other.get(Job, made.id)
            assert theirs is not None
            theirs["data"] = {"theirs": 1}
            await other.commit()
        return response

    relay = Relay(session, overwrite)
    async with job_context(session, job=made.id, data={"mine": 1}):
        status, data = await stored(other, made)
        assert (status, data["theirs"], data["mine"]) == ("running", 1, 1)
        assert Lease.of(data) is not None


async def test_the_error_survives_pickle_and_copy() -> None:
    error = JobOwnedError("j1", "farm07", 4711, "them", now())
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert str(again) == str(error)
        assert again.until == error.until


async def test_a_refused_beginning_leaves_nothing_behind(
    session: AsyncSession, other: AsyncSession, caplog: pytest.LogCaptureFixture
) -> None:
    made = await job_of(other, ELSEWHERE)
    with suppress(JobOwnedError):
        async with job_context(session, job=made.id):
            pytest.fail("it has an owner")
    assert session.health.is_good
    assert session.recorded_operations == ()
    assert caplog.records == []


@pytest.mark.parametrize("is_recovered", [False, True])
async def test_a_beginning_that_the_server_refuses_writes_nothing_more(
    server: ServerHandle,
    other: AsyncSession,
    caplog: pytest.LogCaptureFixture,
    is_recovered: bool,
) -> None:
    made = await job_of(other, ELSEWHERE, left=-100.0, status="running")
    if is_recovered:
        assert (await recover(other)).failed
    else:
        made["status"] = "failed"
        await other.commit()
    caplog.clear()
    writes = 0

    async def refuse(request: WireRequest, send: Send) -> WireResponse:
        nonlocal writes
        assert isinstance(request.body, bytes)
        if b'"update"' in request.body:
            writes += 1
            return WireResponse(200, b'{"exception": "ValidationError", "content": "no"}')
        return await send(request)

    async with connected(server) as session:
        Relay(session, refuse)
        with pytest.raises(ValidationError):
            async with job_context(session, job=made.id):
                pytest.fail("it was refused")
        assert len(jobs_of(session).progress) == 0, "no report is under way"
    assert writes == 1
    assert caplog.records == []


# Taking over


@pytest.mark.every_loop
async def test_a_job_is_taken_over_on_purpose(session: AsyncSession, other: AsyncSession) -> None:
    made = await job_of(other, ELSEWHERE)

    async with job_context(session, job=made.id, take_over=True):
        status, data = await stored(other, made)
        lease = Lease.of(data)
        assert status == "running"
        assert lease is not None
        assert lease.process == this_process()
        assert data[TAKEN_OVER]["holder"] == "them"

    status, data = await stored(other, made)
    assert status == "done"
    assert data[TAKEN_OVER]["holder"] == "them"
    async with job_context(session, job=made.id):  # a new run
        assert TAKEN_OVER not in (await stored(other, made))[1]


async def test_another_block_of_the_same_session_loses_its_job_at_once(
    session: AsyncSession, caplog: pytest.LogCaptureFixture
) -> None:
    with suppress(ZeroDivisionError):
        async with job_context(session, description="x", interval=0.01) as job:
            async with job_context(session, job=job.id, take_over=True) as taken:
                job.progress(0.25)
                taken.progress(0.5)
            assert await stored(session, job) == ("done", {"description": "x", "progress": 0.5})
            job.progress(0.75)
            raise ZeroDivisionError
    assert (await stored(session, job))[0] == "done"
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 1
    assert "taken over" in messages[0]


async def test_a_former_owner_writes_neither_progress_nor_lease_nor_end(
    server: ServerHandle, other: AsyncSession, caplog: pytest.LogCaptureFixture
) -> None:
    async with connected(server, lease=0.6) as former:
        async with job_context(former, description="x", interval=0.01) as job:
            async with job_context(other, job=job.id, take_over=True) as taken:
                job.progress(0.1)
                await until(lambda: job.stop_requested)
                assert job.stop_requested.kind == "taken over"
                job.progress(0.2)
                taken.progress(0.5)
                await anyio.sleep(0.7)  # longer than the former owner's lease
                lease = Lease.of((await stored(other, job))[1])
                assert lease is not None
                assert lease.holder == jobs_of(other).journal.holder
            after = await stored(other, job)
            assert after[0] == "done"
            job.fail("no")
    assert await stored(other, job) == after
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 1
    assert "taken over" in messages[0]


async def test_a_late_write_of_the_former_owner_does_not_take_the_job_back(
    server: ServerHandle, other: AsyncSession, caplog: pytest.LogCaptureFixture
) -> None:
    held, release = anyio.Event(), anyio.Event()

    async def hold_reports(request: WireRequest, send: Send) -> WireResponse:
        if isinstance(request.body, bytes) and b"halfway" in request.body:
            held.set()
            await release.wait()
        return await send(request)

    async with connected(server) as former:
        Relay(former, hold_reports)
        async with job_context(former, description="x", interval=0.01) as job:
            job.progress(0.5, "halfway")
            await held.wait()
            async with job_context(
                other, job=job.id, take_over=True, description="y", interval=0.01
            ) as taken:
                release.set()
                await until(lambda: _is_held_by(other, job, former))
                taken.progress(0.9)
                await until(lambda: _is_held_by(other, job, other))
                assert not taken.stop_requested
            assert (await stored(other, job))[0] == "done"
            assert (await stored(other, job))[1]["description"] == "y"
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 1
    assert "taken over" in messages[0]


async def _is_held_by(session: AsyncSession, job: RunningJob, holder: AsyncSession) -> bool:
    lease = Lease.of((await stored(session, job))[1])
    return lease is not None and lease.holder == jobs_of(holder).journal.holder


async def test_what_a_former_owner_has_set_on_the_entity_is_not_sent_later(
    server: ServerHandle, other: AsyncSession
) -> None:
    async with connected(server) as former:
        async with job_context(former, description="x", interval=0.01) as job:
            job.entity.status = JobStatus.FAILED
            async with job_context(other, job=job.id, take_over=True):
                job.progress(0.1)
                await until(lambda: job.stop_requested)
        assert former.recorded_operations == ()
        await former.commit()
    assert (await stored(other, job))[0] == "done"


@pytest.mark.parametrize("error", [None, ZeroDivisionError()])
async def test_a_former_owner_that_never_looked_before_its_end_does_not_end_the_job(
    session: AsyncSession,
    other: AsyncSession,
    error: Exception | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    release = anyio.Event()
    async with anyio.create_task_group() as group:
        with suppress(ZeroDivisionError):
            async with job_context(session, description="x") as job:
                await group.start(hold, other, job.id, release, {"take_over": True})
                if error is not None:
                    raise error
        assert (await stored(other, job))[0] == "running"
        release.set()
    assert (await stored(other, job))[0] == "done"
    assert len(caplog.records) == 1


async def test_a_former_owner_finds_out_although_the_new_one_has_ended_the_job(
    session: AsyncSession, other: AsyncSession
) -> None:
    with suppress(ZeroDivisionError):
        async with job_context(session, description="x") as job:
            async with job_context(other, job=job.id, take_over=True):
                pass
            raise ZeroDivisionError
    assert (await stored(other, job))[0] == "done"


async def test_a_job_is_taken_over_although_its_owner_reports_all_the_time(
    server: ServerHandle, session: AsyncSession
) -> None:
    """It overwrites a claim, unless that has stood for a while before it is read back."""
    slow = replace(QUICK, claim_wait=DEFAULT_TIMINGS.claim_wait)
    async with (
        connected(server, timings=slow) as other,
        job_context(session, description="x", interval=0.001) as job,
    ):

        async def report() -> None:
            for number in itertools.count():
                job.progress(number % 100, total=100)
                await anyio.sleep(0.001)

        async with anyio.create_task_group() as group:
            group.start_soon(report)
            await until(lambda: _has_progress(other, job))
            async with job_context(other, job=job.id, take_over=True):
                await until(lambda: job.stop_requested)
                lease = Lease.of((await stored(other, job))[1])
                assert lease is not None
                assert lease.holder == jobs_of(other).journal.holder
            group.cancel_scope.cancel()
    assert (await stored(session, job))[0] == "done"


async def _has_progress(session: AsyncSession, job: RunningJob) -> bool:
    return "progress" in (await stored(session, job))[1]


async def test_stop_on_any_ends_the_block_of_a_former_owner(
    server: ServerHandle, other: AsyncSession
) -> None:
    release = anyio.Event()
    async with connected(server, lease=0.6) as former, anyio.create_task_group() as group:
        with pytest.raises(JobOwnedError) as caught:
            async with job_context(former, description="x", stop_on="any") as job:
                with anyio.CancelScope(shield=True):  # it would not begin if this were cancelled
                    await group.start(hold, other, job.id, release, {"take_over": True})
                await anyio.sleep_forever()
        assert caught.value.holder == jobs_of(other).journal.holder
        assert (await stored(other, job))[0] == "running"
        release.set()
    assert (await stored(other, job))[0] == "done"


async def test_stop_on_any_ends_the_block_although_the_new_owner_has_ended_the_job(
    server: ServerHandle, other: AsyncSession
) -> None:
    release = anyio.Event()
    release.set()
    async with connected(server, lease=0.6) as former, anyio.create_task_group() as group:
        with anyio.fail_after(20), pytest.raises(JobOwnedError):
            async with job_context(former, description="x", stop_on="any") as job:
                with anyio.CancelScope(shield=True):  # it would not begin if this were cancelled
                    await group.start(hold, other, job.id, release, {"take_over": True})
                await anyio.sleep_forever()
    assert (await stored(other, job))[0] == "done"


# Joining


@pytest.mark.every_loop
async def test_a_joined_block_reports_for_the_owner_and_does_not_end_the_job(
    session: AsyncSession, other: AsyncSession
) -> None:
    async with job_context(session, description="x") as job:
        lease = (await stored(other, job))[1][LEASE]
        async with job_context(other, job=job.id, join=True) as joined:
            assert joined.id == job.id
            joined.progress(0.5, "frame 12")
            await joined.attach(b"log", name="log.txt")
        assert await stored(other, job) == (
            "running",
            {
                "description": "x (50 %, frame 12)",
                "base_description": "x",
                "progress": 0.5,
                LEASE: lease,
            },
        )
    assert (await stored(other, job))[0] == "done"
    found = await other.get(Job, job.id)
    assert found is not None
    await other.populate(found, "job_components.component.name")
    assert [link["component"]["name"] for link in found["job_components"]] == ["log"]


@pytest.mark.every_loop
async def test_an_error_in_a_joined_block_does_not_end_the_job(
    session: AsyncSession, other: AsyncSession
) -> None:
    async with job_context(session, description="x") as job:
        for another in (session, other):
            with pytest.raises(ZeroDivisionError):
                async with job_context(another, job=job.id, join=True):
                    raise ZeroDivisionError
            with anyio.move_on_after(0.01):
                async with job_context(another, job=job.id, join=True):
                    await anyio.sleep_forever()
        assert (await stored(other, job))[0] == "running"
    assert (await stored(other, job))[0] == "done"


async def test_a_block_joined_in_the_same_session_reports_through_the_owner(
    session: AsyncSession,
) -> None:
    async with job_context(session, description="x") as job:
        async with job_context(session, job=job.entity, join=True) as joined:
            joined.progress(0.5)
            joined.fail("2 of 120 shots failed")
    status, data = await stored(session, job)
    assert (status, data["progress"]) == ("failed", 0.5)
    assert "2 of 120 shots failed" in data["description"]


async def test_a_block_joined_in_a_stage_reports_about_the_stage(session: AsyncSession) -> None:
    async with job_context(session, description="x") as job:
        first, second = job.stage("one"), job.stage("two")
        async with first, job_context(session, job=job.id, join=True) as joined:
            joined.progress(0.5)
        assert first.fraction == 1
        async with second, job_context(session, job=job.id, join=True) as joined:
            joined.progress(0.5)
            await until(lambda: _has_progress(session, job))
            assert second.fraction == 0.5
    assert (await stored(session, job))[0] == "done"


async def test_a_joined_block_elsewhere_cannot_let_the_job_fail(
    session: AsyncSession, other: AsyncSession, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        job_context(session, description="x") as job,
        job_context(other, job=job.id, join=True) as joined,
    ):
        joined.fail("no")
    assert (await stored(session, job))[0] == "done"
    assert "only its owner decides" in caplog.text


async def test_a_joined_block_writes_nothing_once_the_job_has_ended(
    session: AsyncSession, other: AsyncSession
) -> None:
    release = anyio.Event()
    async with anyio.create_task_group() as group:
        async with job_context(session, description="x") as job:
            joined = await group.start(hold, other, job.id, release, {"join": True})
        after = await stored(session, job)
        joined.progress(0.5)
        release.set()
    assert await stored(session, job) == after


@pytest.mark.parametrize("status", ["queued", "done", "failed"])
async def test_only_a_running_job_can_be_joined(session: AsyncSession, status: str) -> None:
    made = await job_of(session, None, status=status)
    with pytest.raises(EntityError, match=status):
        async with job_context(session, job=made.id, join=True):
            pytest.fail("there is nothing to join")
    assert (await stored(session, made))[0] == status


@pytest.mark.parametrize(
    "arguments",
    [
        {"join": True},
        {"take_over": True},
        {"job": "j1", "join": True, "take_over": True},
        {"job": "j1", "join": "yes"},
        {"job": "j1", "take_over": None},
    ],
)
def test_arguments_that_do_not_fit_together_are_refused(arguments: dict[str, Any]) -> None:
    session = AsyncSession("https://ftrack.test", "SECRET", "maya")
    with pytest.raises(ArgumentError, match=r"join|take_over"):
        job_context(session, **arguments)


async def test_closing_a_session_ends_neither_joined_nor_lost_jobs(
    server: ServerHandle,
    session: AsyncSession,
    other: AsyncSession,
    caplog: pytest.LogCaptureFixture,
) -> None:
    release = anyio.Event()
    async with anyio.create_task_group() as group:
        async with job_context(session, description="x") as job:
            async with connected(server) as child:
                await group.start(hold, child, job.id, release, {"join": True})
            assert (await stored(other, job))[0] == "running"
            release.set()
    assert (await stored(other, job))[0] == "done"
    assert caplog.records == []


async def test_a_job_without_a_lease_can_be_joined(
    session: AsyncSession, other: AsyncSession
) -> None:
    made = await job_of(other, None)
    async with job_context(session, job=made.id, join=True, data={"child": 1}) as joined:
        joined.progress(0.5)
    status, data = await stored(other, made)
    assert (status, data["description"], data["child"]) == ("running", "Render (50 %)", 1)
    assert LEASE not in data


CHILD = """
    import anyio, sys
    from aioftrackjobs import AsyncSession, job_context

    async def main():
        async with AsyncSession() as session:
            async with job_context(session, job=sys.argv[1], join=True) as job:
                job.progress(0.5, "child")
                await job.attach(b"log", name="child.txt")
                raise SystemExit(3)

    anyio.run(main)
"""


async def test_the_owner_neither_adopts_nor_removes_what_a_joined_block_reports(
    server: ServerHandle, other: AsyncSession
) -> None:
    async def check(text: str | None) -> None:
        shown = "x (50 %)" if text else "50 %"
        async with connected(server) as owner:
            async with job_context(owner, description=text) as job:
                async with job_context(other, job=job.id, join=True) as joined:
                    joined.progress(0.5)
                lease = (await stored(other, job))[1][LEASE]

                async def is_renewed() -> bool:
                    jobs_of(owner).active.renew_all(older_than=0.0)
                    return await _has_another_lease(other, job, lease)

                await until(is_renewed)
                assert (await stored(other, job))[1]["description"] == shown
            assert (await stored(other, job))[1].get("description") == text

    async with anyio.create_task_group() as group:
        group.start_soon(check, "x")
        group.start_soon(check, None)


async def test_a_job_without_a_text_runs_again_without_its_old_progress(
    session: AsyncSession, other: AsyncSession
) -> None:
    with pytest.raises(OSError, match="disk full"):
        async with job_context(session, attach_traceback=False) as job:
            job.progress(0.4, "loading")
            raise OSError("disk full")
    assert (await stored(other, job))[1][
        "description"
    ] == "40 %, loading - failed: OSError: disk full"
    with pytest.raises(OSError, match="disk full"):
        async with job_context(other, job=job.id, attach_traceback=False) as again:
            assert "description" not in (await stored(session, job))[1]
            again.progress(0.2)
            raise OSError("disk full")
    assert (await stored(session, job))[1]["description"] == "20 % - failed: OSError: disk full"


async def _has_another_lease(session: AsyncSession, job: RunningJob, lease: object) -> bool:
    found: object = (await stored(session, job))[1][LEASE]
    return found != lease


async def test_a_stop_request_ends_a_joined_block_too(
    session: AsyncSession, server: ServerHandle
) -> None:
    timings = replace(QUICK, job_read_interval=0.05)
    async with (
        connected(server, timings=timings) as child,
        job_context(session, description="x", stop_on="never") as job,
    ):
        with pytest.raises(JobStoppedError, match="maya: wrong shot"):
            async with job_context(child, job=job.id, join=True):
                data = (await stored(session, job))[1]
                found = await child.get(Job, job.id)
                assert found is not None
                found["data"] = {**data, "stop": {"by": "maya", "reason": "wrong shot"}}
                await child.commit()
                await anyio.sleep_forever()
        assert (await stored(session, job))[0] == "running"


async def test_a_joined_block_goes_on_after_a_mistaken_recovery(
    session: AsyncSession, other: AsyncSession, server: ServerHandle
) -> None:
    async with (
        connected(server, timings=replace(QUICK, job_read_interval=60.0)) as owner,
        job_context(owner, description="x") as job,
        job_context(other, job=job.id, join=True, interval=0, stop_on="any") as joined,
    ):
        data = (await stored(session, job))[1]
        over = {**data[LEASE], **ELSEWHERE._asdict(), "until": "2020-01-01T00:00:00+00:00"}
        found = await session.get(Job, job.id)
        assert found is not None
        found["data"] = {**data, LEASE: over}
        await session.commit()
        assert (await recover(session)).failed
        joined.progress(0.2)
        await until(lambda: joined.entity["status"] == "failed")
        assert (await stored(session, job))[0] == "failed"

        jobs_of(owner).active.renew_all(older_than=0.0)
        await until(partial(_is_running, session, job))
        assert not joined.stop_requested
        joined.progress(0.5)
        await until(partial(_shows, session, job, "x (50 %)"))
    assert (await stored(session, job))[0] == "done"


async def _is_running(session: AsyncSession, job: RunningJob) -> bool:
    return (await stored(session, job))[0] == "running"


async def _shows(session: AsyncSession, job: RunningJob, text: str) -> bool:
    shown: object = (await stored(session, job))[1]["description"]
    return shown == text


@pytest.mark.parametrize("status", ["done", "failed", "recovered"])
async def test_a_real_end_of_the_job_ends_a_joined_block_on_request(
    session: AsyncSession, server: ServerHandle, status: str
) -> None:
    job = await job_of(session, ELSEWHERE, left=-100.0)
    timings = replace(QUICK, job_read_interval=0.02)
    async with connected(server, timings=timings) as child:
        with anyio.fail_after(20), pytest.raises(JobStoppedError):
            async with job_context(child, job=job.id, join=True, stop_on="any"):
                if status == "recovered":
                    assert (await recover(session)).failed
                else:
                    job["status"] = status
                    await session.commit()
                await anyio.sleep_forever()


async def test_a_child_process_works_on_the_job_of_its_parent(
    server: ServerHandle, session: AsyncSession
) -> None:
    async with job_context(session, description="x") as job:
        child = await anyio.run_process(
            [sys.executable, "-c", textwrap.dedent(CHILD), job.id],
            env={
                **os.environ,
                "FTRACK_SERVER": server.url,
                "FTRACK_API_KEY": server.api_key,
                "FTRACK_API_USER": server.api_user,
            },
            check=False,
        )
        assert child.returncode == 3
        status, data = await stored(session, job)
        assert (status, data["description"]) == ("running", "x (50 %, child)")
        lease = Lease.of(data)
        assert lease is not None
        assert lease.process == this_process()
    assert (await stored(session, job))[0] == "done"


@pytest.mark.asyncio_only
async def test_a_joined_block_whose_task_is_cancelled_writes_its_latest_progress(
    session: AsyncSession, other: AsyncSession
) -> None:
    inside = anyio.Event()
    async with job_context(session, description="x") as job:

        async def work() -> None:
            async with job_context(other, job=job.id, join=True, interval=30) as joined:
                joined.progress(0.25)
                await until(lambda: _progress_is(0.25))
                joined.progress(0.5)
                inside.set()
                await anyio.sleep_forever()

        async def _progress_is(value: float) -> bool:
            return (await stored(session, job))[1].get("progress") == value

        task = asyncio.create_task(work())
        await inside.wait()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        assert await _progress_is(0.5)
