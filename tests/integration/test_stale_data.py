"""What is written into ``data`` of a Job while requests fail: values of others are never lost.

Each fault is a moment at which others write: right before and after the server applies a request
whose response is lost, and while a request waits for another attempt.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import replace
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import anyio
import pytest

from aioftrackjobs import (
    AsyncSession,
    ConnectError,
    Entity,
    Job,
    RetryPolicy,
    RunningJob,
    TransportError,
    job_context,
    recover,
)
from aioftrackjobs.commit.request import WithdrawnError
from aioftrackjobs.config.retry import NO_RETRIES
from aioftrackjobs.devserver import ServerHandle
from aioftrackjobs.session import context_of, jobs_of
from aioftrackjobs.transport import WireRequest, WireResponse

from .journals import ELSEWHERE, journaled
from .relay import Relay, Send
from .settings import QUICK, connected
from .waiting import until

SOON = RetryPolicy(first_delay=0.001, longest_delay=0.01)
OFTEN = replace(QUICK, job_read_interval=0.02)
FAULTS = ("lost before", "lost after", "not sent", "busy", "late")


def watching(server: ServerHandle, **options: Any) -> AbstractAsyncContextManager[AsyncSession]:
    return connected(server, **{"timings": OFTEN, "retry": SOON, **options})


class Others:
    """Other programs: they add a key of their own to the data of a Job, each time another one."""

    def __init__(self, server: ServerHandle, session: AsyncSession) -> None:
        self._server, self._session = server, session
        self.written: dict[str, set[str]] = {}

    async def write(self, *ids: str) -> None:
        """Write some Jobs, all at once."""
        jobs = await self._session.query("Job where id in {ids}", ids=list(ids)).of(Job).all()
        async with self._session.unit_of_work():
            for job in jobs:
                keys = self.written.setdefault(job.id, set())
                keys.add(key := f"theirs_{len(keys)}")
                job["data"] = json.dumps({**json.loads(job["data"] or "{}"), key: "x"})

    def lost(self) -> dict[str, set[str]]:
        """Return the keys that are not there any more, by Job."""
        missing = {
            each: keys - self._server.inspector.job(each)["data"].keys()
            for each, keys in self.written.items()
        }
        return {each: keys for each, keys in missing.items() if keys}


class Faults:
    """Lets requests fail that write data of existing Jobs, while others write these Jobs.

    Args:
        session: The session whose requests fail.
        others: Write at each fault.
        next_fault: Returns the fault of the next request, or None.
    """

    def __init__(
        self, session: AsyncSession, others: Others, next_fault: Callable[[], str | None]
    ) -> None:
        self._others, self._next_fault = others, next_fault
        self.happened: list[str] = []
        self.relay = Relay(session, self._handle)

    async def _handle(self, request: WireRequest, send: Send) -> WireResponse:
        body = request.body if isinstance(request.body, bytes) else b"[]"
        ids = [
            each["entity_key"][0]
            for each in json.loads(body)
            if each["action"] == "update" and "data" in each["entity_data"]
        ]
        fault = self._next_fault() if ids else None
        if fault is None:
            return await send(request)
        self.happened.append(fault)
        if fault == "lost after":
            await send(request)
        elif fault == "late":
            response = await send(request)
        await self._others.write(*ids)
        if fault == "late":
            return response
        if fault == "busy":
            return WireResponse(429, b"slow down", {})
        if fault == "not sent":
            raise ConnectError("refused")
        raise TransportError("the connection broke")


def in_turn(*faults: str | None) -> Callable[[], str | None]:
    left = list(faults)
    return lambda: left.pop(0) if left else None


def data_of(server: ServerHandle, job_id: str) -> dict[str, Any]:
    data: dict[str, Any] = server.inspector.job(job_id)["data"]
    return data


@pytest.mark.slow
@pytest.mark.every_loop
async def test_a_storm_of_faults_loses_no_values_of_others(
    server: ServerHandle, other: AsyncSession
) -> None:
    others = Others(server, other)
    faults = cycle([*FAULTS, None, *reversed(FAULTS), None])
    jobs: list[RunningJob] = []
    ended: dict[str, tuple[str, str]] = {}
    end = anyio.Event()

    def shows(job_id: str, progress: float) -> bool:
        return data_of(server, job_id).get("progress") == progress

    async def work(session: AsyncSession, number: int) -> None:
        text = "x"
        with suppress(ZeroDivisionError):
            async with job_context(
                session, description="x", interval=0, attach_traceback=False
            ) as job:
                jobs.append(job)
                await end.wait()
                if number % 3 == 0:
                    text = "x (100 %, step 5) - failed: ZeroDivisionError"
                    raise ZeroDivisionError
                if number % 3 == 1:
                    text = "x - all frames"
                    job.finish("all frames")
        ended[job.id] = "done" if number % 3 else "failed", text

    async with watching(server) as session:
        relay = Faults(session, others, lambda: next(faults))
        async with anyio.create_task_group() as group:
            for number in range(24):
                group.start_soon(work, session, number)
            await until(lambda: len(jobs) == 24)
            for step in range(6):
                for job in jobs:
                    job.progress(step, f"step {step}", total=5)
                for job in jobs:
                    await until(partial(shows, job.id, step / 5))
                jobs_of(session).active.renew_all(older_than=0.0)
            end.set()
    assert others.lost() == {}
    assert set(relay.happened) == {*FAULTS}
    found = {each: server.inspector.job(each) for each in ended}
    assert {each: (job["status"], job["description"]) for each, job in found.items()} == ended
    assert not any("lease" in job["data"] for job in found.values())


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_report_that_fails_is_made_anew(
    server: ServerHandle, other: AsyncSession, fault: str
) -> None:
    others = Others(server, other)
    async with watching(server) as session:
        faults = Faults(session, others, in_turn(fault, fault))
        async with job_context(session, description="x", interval=0) as job:
            job.progress(0.5)
            await until(lambda: data_of(server, job.id).get("progress") == 0.5)
            await until(lambda: faults.happened)
            job.progress(0.6)
            await until(lambda: data_of(server, job.id).get("progress") == 0.6)
            await until(lambda: len(faults.happened) == 2)
    assert others.lost() == {}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_lease_whose_renewal_fails_is_renewed_anew(
    server: ServerHandle, other: AsyncSession, fault: str
) -> None:
    others = Others(server, other)
    async with watching(server) as session:
        async with job_context(session, description="x") as job:
            until_before = data_of(server, job.id)["lease"]["until"]
            faults = Faults(session, others, in_turn(fault))

            def is_renewed() -> bool:
                jobs_of(session).active.renew_all(older_than=0.0)
                return bool(data_of(server, job.id)["lease"]["until"] != until_before)

            await until(is_renewed)
            await until(lambda: faults.happened)
    assert others.lost() == {}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("retry", [SOON, NO_RETRIES], ids=["retries", "no retries"])
async def test_a_final_status_that_fails_is_made_anew(
    server: ServerHandle, other: AsyncSession, fault: str, retry: RetryPolicy
) -> None:
    others = Others(server, other)
    async with watching(server, retry=retry) as session:
        async with job_context(session, description="x") as job:
            Faults(session, others, in_turn(fault, fault, fault))
            job.finish("3 files")
    found = server.inspector.job(job.id)
    assert (found["status"], found["description"]) == ("done", "x - 3 files")
    assert others.lost() == {}


async def test_a_final_status_before_which_the_job_cannot_be_read_leaves_the_data_alone(
    server: ServerHandle, other: AsyncSession
) -> None:
    """The status comes first; the text follows when the Job can be read."""
    others = Others(server, other)
    reads_fail = True

    async def handle(request: WireRequest, send: Send) -> WireResponse:
        if reads_fail and isinstance(request.body, bytes) and b"from Job where id" in request.body:
            raise TransportError("the connection broke")
        return await send(request)

    async with watching(server, retry=NO_RETRIES) as session:
        async with job_context(session, description="x") as job:
            await others.write(job.id)
            Relay(session, handle)
            job.finish("3 files")
        assert server.inspector.job(job.id)["status"] == "done"
        assert others.lost() == {}


async def created(server: ServerHandle, other: AsyncSession, status: str, **data: Any) -> Entity:
    """Create a Job of the user of the sessions."""
    job = other.create("Job", {"status": status, "data": json.dumps(data)})
    job["user"] = await other.query(f'User where username is "{server.api_user}"').one()
    await other.commit()
    return job


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_job_that_exists_begins_anew_if_that_fails(
    server: ServerHandle, other: AsyncSession, fault: str
) -> None:
    others = Others(server, other)
    job = await created(server, other, "queued", description="x")
    async with watching(server) as session:
        Faults(session, others, in_turn(fault, fault))
        async with job_context(session, job=job["id"]):
            assert server.inspector.job(job["id"])["status"] == "running"
    assert server.inspector.job(job["id"])["status"] == "done"
    assert others.lost() == {}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_claim_that_fails_is_made_anew(
    server: ServerHandle, other: AsyncSession, fault: str
) -> None:
    others = Others(server, other)
    job = await created(server, other, "queued", description="x")
    async with watching(server) as session:
        Faults(session, others, in_turn(fault, fault))
        claimed = await session.claim_job("Job")
        assert claimed is not None
        assert claimed.id == job["id"]
    assert "lease" not in data_of(server, job["id"])
    assert others.lost() == {}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_joined_block_writes_its_last_report_anew(
    server: ServerHandle, other: AsyncSession, fault: str
) -> None:
    others = Others(server, other)
    async with watching(server) as session, watching(server) as third:
        async with job_context(session, description="x") as job:
            async with job_context(third, job=job.id, join=True) as joined:
                Faults(third, others, in_turn(fault, fault, fault))
                joined.progress(0.5)
            assert data_of(server, job.id)["progress"] == 0.5
    assert others.lost() == {}


async def test_a_report_that_waits_for_a_commit_of_the_program_is_made_anew(
    server: ServerHandle,
) -> None:
    """The program changes data of its Job, while a report that was made before waits for that."""
    arrived, go_on = anyio.Event(), anyio.Event()

    async def handle(request: WireRequest, send: Send) -> WireResponse:
        if isinstance(request.body, bytes) and b"theirs" in request.body and not go_on.is_set():
            arrived.set()
            await go_on.wait()
        return await send(request)

    async with watching(server) as session:
        async with job_context(session, description="x", interval=0) as job:
            Relay(session, handle)
            async with anyio.create_task_group() as group:
                job.entity["data"] = json.dumps({**data_of(server, job.id), "theirs": 1})
                group.start_soon(session.commit)
                await arrived.wait()
                job.progress(0.5)
                await until(lambda: session.health.commits_queued)
                go_on.set()
            await until(lambda: data_of(server, job.id).get("progress"))
            assert data_of(server, job.id)["theirs"] == 1


async def test_a_write_that_could_not_leave_in_time_is_not_sent(
    server: ServerHandle, session: AsyncSession, other: AsyncSession
) -> None:
    async with job_context(other, description="x") as job:
        found = await session.get(Job, job.id)
        assert found is not None
        unit = context_of(session).new_unit(send_within=-1.0)
        unit.set(found, data="{}")
        with pytest.raises(WithdrawnError):
            await unit.commit()
        assert data_of(server, job.id)["description"] == "x"


async def test_a_late_report_of_a_joined_block_does_not_replace_the_final_text(
    server: ServerHandle, other: AsyncSession
) -> None:
    """Its request fails while the owner ends the Job: it reads again, and leaves it alone."""
    begun, ended = anyio.Event(), anyio.Event()

    async def handle(request: WireRequest, send: Send) -> WireResponse:
        if isinstance(request.body, bytes) and b"from the child" in request.body:
            begun.set()
            await ended.wait()
            raise TransportError("the connection broke")
        return await send(request)

    async with watching(server) as session, watching(server) as third:
        async with anyio.create_task_group() as group:

            async def join(job_id: str) -> None:
                async with job_context(third, job=job_id, join=True, interval=0) as joined:
                    Relay(third, handle)
                    joined.progress(0.5, "from the child")
                    await begun.wait()

            async with job_context(session, description="x") as job:
                group.start_soon(join, job.id)
                await begun.wait()
                job.finish("3 files")
            ended.set()
        assert server.inspector.job(job.id)["description"] == "x - 3 files"


@pytest.mark.parametrize("fault", FAULTS)
async def test_recover_fails_a_job_anew_and_says_that_it_has(
    server: ServerHandle, other: AsyncSession, fault: str
) -> None:
    others = Others(server, other)
    lease = {"holder": "h", **ELSEWHERE._asdict(), "until": "2020-01-01T00:00:00+00:00"}
    job = await created(server, other, "running", lease=lease)
    async with watching(server) as session:
        Faults(session, others, in_turn(fault, fault))
        recovery = await recover(session)
        assert [each.id for each in recovery.failed] == [job["id"]]
    assert server.inspector.job(job["id"])["status"] == "failed"
    assert others.lost() == {}


@pytest.mark.parametrize("fault", FAULTS)
async def test_the_journal_delivers_a_final_status_anew(
    server: ServerHandle, other: AsyncSession, tmp_path: Path, fault: str
) -> None:
    others = Others(server, other)
    path = tmp_path / "journal"
    async with journaled(server, path, timings=OFTEN, retry=SOON) as session:
        async with job_context(session, description="x", grace=0.0) as job:
            Faults(session, others, in_turn("not sent", *[fault] * 3))
            job.finish("3 files")
        await until(lambda: not session.health.final_reports_pending)
    found = server.inspector.job(job.id)
    assert (found["status"], found["description"]) == ("done", "x - 3 files")
    assert others.lost() == {}
