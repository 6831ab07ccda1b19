"""claim_job: each queued Job goes to one of many daemons."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from aioftrackjobs import (
    ArgumentError,
    AsyncSession,
    ConnectError,
    Job,
    JobOwnedError,
    JobStatus,
    QuerySyntaxError,
    ServerError,
    TransportError,
    job_context,
)
from aioftrackjobs.config.retry import NO_RETRIES, RetryPolicy
from aioftrackjobs.devserver import ServerHandle
from aioftrackjobs.jobs.ownership import LEASE, Lease
from aioftrackjobs.journal import Process, this_process
from aioftrackjobs.session import jobs_of
from aioftrackjobs.testing import Delay, Drop, ServerProcess
from aioftrackjobs.transport import WireRequest, WireResponse
from tests.tables import Tables, Wire

from ..amounts import amount
from .journals import DEAD, ELSEWHERE
from .relay import Relay, Send
from .settings import QUICK, connected
from .waiting import until

QUEUED = 'Job where status is "queued" order by created_at'


async def queue(session: AsyncSession, *contents: Any, **values: Any) -> list[Job]:
    """Queue Jobs with these contents of their data, created one second after the other."""
    jobs = [session.create(Job, {"data": content, **values}) for content in contents]
    await session.commit()
    return jobs


async def stored(session: AsyncSession, job: Job) -> tuple[str, dict[str, Any]]:
    found = await session.get(Job, job.id)
    assert found is not None
    return found.status, json.loads(found["data"] or "{}")


def claim_of(process: Process, *, left: float = 100.0) -> dict[str, Any]:
    until = datetime.now(UTC) + timedelta(seconds=left)
    return {LEASE: Lease("them", process, until, is_claim=True).encode()}


# What is claimed


@pytest.mark.every_loop
async def test_a_claimed_job_is_queued_until_its_block_begins(
    session: AsyncSession, other: AsyncSession
) -> None:
    (made,) = await queue(session, {"shot": "sh010", "description": "Render"})

    job = await other.claim_job(QUEUED)

    assert job is not None
    assert job.id == made.id
    status, data = await stored(session, job)
    assert status == "queued"
    lease = Lease.of(data)
    assert lease is not None
    assert lease.is_claim
    assert data == {"shot": "sh010", "description": "Render", LEASE: lease.encode()}

    async with job_context(other, job=job):
        status, data = await stored(session, job)
        assert status == "running"
        running = Lease.of(data)
        assert running is not None
        assert not running.is_claim
    assert await stored(session, job) == ("done", {"shot": "sh010", "description": "Render"})


@pytest.mark.every_loop
async def test_there_is_none_to_claim(session: AsyncSession) -> None:
    assert await session.claim_job(QUEUED) is None


async def test_only_queued_jobs_are_claimed_whatever_the_query_finds(
    session: AsyncSession,
) -> None:
    for status in ("running", "done", "failed"):
        await queue(session, *[{}] * 40, status=status)
    (made,) = await queue(session, {})

    claimed = await session.claim_job("Job")

    assert claimed is not None
    assert claimed.id == made.id
    assert await session.claim_job("Job") is None


@pytest.mark.parametrize(
    "text", ["Job", "select id from Job", "select status, user.username from Job"]
)
async def test_a_query_may_be_a_text_or_an_object_and_select_anything(
    session: AsyncSession, text: str
) -> None:
    made = await queue(session, {"n": 1}, {"n": 2}, {"n": 3}, None)
    query = session.query(text + " where status in {some}", some=["queued", "running"])

    claimed = [await session.claim_job(each) for each in (query, query.of(Job), text)]
    claimed.append(await session.claim_job(text + " limit 4"))

    assert {job.id for job in claimed if job} == {job.id for job in made}
    assert await session.claim_job(query) is None


async def test_a_claimed_job_has_what_the_query_selects(session: AsyncSession) -> None:
    await queue(session, {"n": 1}, user=await session.current_user())

    text = "select user.username from Job where data like '%n%' or status is \"done\""
    job = await session.claim_job(text + " order by created_at limit 1")

    assert job is not None
    assert job["user"]["username"] == session.api_user
    assert job["created_at"] is not None


async def test_a_query_for_something_else_is_refused(session: AsyncSession) -> None:
    for text in ("User", "select username from User limit 3"):
        with pytest.raises(ArgumentError, match="User"):
            await session.claim_job(text)
    with pytest.raises(QuerySyntaxError):
        await session.claim_job("Job where where")
    for spread in (0, -1, 1.5, True, "8"):
        with pytest.raises(ArgumentError, match="spread"):
            await session.claim_job("Job", spread=spread)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="query"):
        await session.claim_job(Job)  # type: ignore[arg-type]


async def test_without_spread_jobs_are_claimed_in_the_order_of_the_query(
    session: AsyncSession,
) -> None:
    for number in (3, 1, 2):
        await queue(session, {"n": number}, created_at=datetime(2026, 3, number, tzinfo=UTC))

    claimed = [await session.claim_job(QUEUED, spread=1) for _ in range(3)]

    assert [json.loads(job["data"])["n"] for job in claimed if job] == [1, 2, 3]


async def test_daemons_that_begin_at_once_do_not_all_try_the_same_job(
    server: ServerHandle, session: AsyncSession
) -> None:
    await queue(session, *[{}] * 20)
    tried: list[str] = []

    async def note(request: WireRequest, send: Send) -> WireResponse:
        assert isinstance(request.body, bytes)
        writes = [each for each in json.loads(request.body) if each["action"] == "update"]
        tried.extend(each["entity_key"][0] for each in writes if "claim" in str(each))
        return await send(request)

    async with AsyncExitStack() as stack, anyio.create_task_group() as group:
        for _ in range(10):
            daemon = await stack.enter_async_context(connected(server))
            Relay(daemon, note)
            group.start_soon(daemon.claim_job, QUEUED)
    assert max(Counter(tried[:10]).values()) < 8


@pytest.mark.parametrize("content", [None, "", "not JSON", "[1]", '{"a": NaN}', "{}"])
async def test_what_others_have_in_the_data_outlives_a_claim_that_is_lost(
    session: AsyncSession, other: AsyncSession, content: str | None
) -> None:
    (made,) = await queue(session, content)
    with anyio.CancelScope() as scope:

        async def cancel(request: WireRequest, send: Send) -> WireResponse:
            response = await send(request)
            if b'"update"' in (request.body or b""):  # type: ignore[operator]
                relay.end()
                scope.cancel()
            return response

        relay = Relay(session, cancel)
        await session.claim_job(QUEUED)
    assert scope.cancelled_caught

    async def is_free() -> bool:
        found = await other.get(Job, made.id)
        return found is not None and found["data"] == content

    await until(is_free)
    assert await other.claim_job(QUEUED) is not None


# Who may begin it


async def test_nobody_else_may_begin_a_claimed_job_or_claim_it_again(
    session: AsyncSession, other: AsyncSession
) -> None:
    await queue(session, {})
    job = await session.claim_job(QUEUED)
    assert job is not None

    assert await other.claim_job(QUEUED) is None
    with pytest.raises(JobOwnedError) as caught:
        async with job_context(other, job=job.id):
            pytest.fail("it is not theirs")

    assert caught.value.host == this_process().host
    assert caught.value.holder == jobs_of(session).journal.holder
    assert (await stored(other, job))[0] == "queued"


async def test_two_tasks_of_one_session_get_different_jobs(session: AsyncSession) -> None:
    made = await queue(session, *[{}] * 5)
    claimed: list[Job | None] = []

    async def claim() -> None:
        claimed.append(await session.claim_job(QUEUED))

    async with anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(claim)

    assert sorted(job.id for job in claimed if job) == sorted(job.id for job in made)


@pytest.mark.parametrize(
    ("content", "is_free"),
    [
        pytest.param(lambda: claim_of(DEAD), True, id="dead"),
        pytest.param(lambda: claim_of(ELSEWHERE, left=-1), True, id="over"),
        pytest.param(lambda: claim_of(ELSEWHERE), False, id="elsewhere"),
        pytest.param(lambda: claim_of(this_process()), False, id="here"),
        pytest.param(lambda: {LEASE: "nonsense"}, True, id="nonsense"),
    ],
)
async def test_the_claim_of_a_daemon_that_died_or_waited_too_long_is_free(
    session: AsyncSession, content: Callable[[], dict[str, Any]], *, is_free: bool
) -> None:
    await queue(session, content())

    assert (await session.claim_job(QUEUED) is not None) is is_free


async def test_a_claim_that_ran_out_cannot_be_begun_after_somebody_has_run_the_job(
    server: ServerHandle, other: AsyncSession
) -> None:
    async with connected(server, lease=0.3) as slow:
        (made,) = await queue(slow, {})
        job = await slow.claim_job(QUEUED)
        assert job is not None
        claimed: list[Job] = []

        async def is_free() -> bool:
            claimed.extend(each for each in [await other.claim_job(QUEUED)] if each)
            return bool(claimed)

        await until(is_free)
        async with job_context(other, job=claimed[0]):
            with pytest.raises(JobOwnedError, match="join=True"):
                async with job_context(slow, job=job):
                    pytest.fail("it is not theirs any more")

    async with connected(server, lease=0.3) as slow:
        (made,) = await queue(slow, {})
        job = await slow.claim_job(QUEUED)
        assert job is not None
        made.status = JobStatus.DONE
        await slow.commit()
        with pytest.raises(JobOwnedError, match="meanwhile"):
            async with job_context(slow, job=job):
                pytest.fail("it was run")


async def test_claims_that_were_never_begun_are_forgotten_when_they_have_ended(
    server: ServerHandle, other: AsyncSession
) -> None:
    async with connected(server, lease=0.6) as session:
        claims = jobs_of(session).claims
        made = await queue(session, *({} for _ in range(4)))
        held = await session.claim_job(QUEUED)
        assert held is not None
        for _ in range(2):
            assert await session.claim_job(QUEUED)
        await until(
            lambda: all(each.end < anyio.current_time() for each in claims._claimed.values())
        )
        for job in made:
            if job.id != held.id:
                job.status = JobStatus.DONE
        await session.commit()
        made += await queue(session, {})
        held.status = JobStatus.DONE
        await session.commit()

        assert await session.claim_job(QUEUED) == made[-1]
        assert list(claims._claimed) == [made[-1].id]
        with pytest.raises(JobOwnedError, match="meanwhile"):
            async with job_context(session, job=held.id):
                pytest.fail("it was run by another session")


async def test_a_session_that_closes_takes_out_its_claims(
    server: ServerHandle, other: AsyncSession
) -> None:
    made = await queue(other, "not JSON", {"n": 2})
    async with connected(server) as session:
        assert await session.claim_job(QUEUED) is not None
        assert await session.claim_job(QUEUED) is not None
        assert await other.claim_job(QUEUED) is None

    for job, content in zip(made, ["not JSON", '{"n": 2}'], strict=True):
        found = await other.get(Job, job.id)
        assert found is not None
        assert found["data"] == content


async def test_the_last_one_that_writes_has_the_job(
    session: AsyncSession, other: AsyncSession
) -> None:
    """What another session writes until the waiting time is over counts."""
    (made,) = await queue(session, {"n": 1})

    async def overwrite(request: WireRequest, send: Send) -> WireResponse:
        response = await send(request)
        if b'"update"' in (request.body or b""):  # type: ignore[operator]
            relay.end()
            job = await other.get(Job, made.id)
            assert job is not None
            job["data"] = {"n": 1, **claim_of(ELSEWHERE)}
            await other.commit()
        return response

    relay = Relay(session, overwrite)
    assert await session.claim_job(QUEUED) is None

    lease = Lease.of((await stored(other, made))[1])
    assert lease is not None
    assert lease.holder == "them"


async def test_a_claim_that_comes_after_the_job_has_begun_disturbs_nothing(
    session: AsyncSession, other: AsyncSession
) -> None:
    await queue(session, {"n": 1})
    job = await session.claim_job(QUEUED)
    assert job is not None
    async with job_context(session, job=job, description="x", interval=0.01) as running:
        theirs = await other.get(Job, job.id)
        assert theirs is not None
        theirs["data"] = {"n": 1, **claim_of(ELSEWHERE)}
        await other.commit()
        with pytest.raises(JobOwnedError):
            async with job_context(other, job=job.id):
                pytest.fail("it runs")
        running.progress(0.5)
    assert (await stored(other, job))[0] == "done"


# Faults


async def test_a_claim_whose_response_is_lost_is_found(
    server: ServerHandle, session: AsyncSession
) -> None:
    await queue(session, {})
    server.faults.inject(Drop(applied=True), on="writes")

    assert await session.claim_job(QUEUED) is not None


@pytest.mark.parametrize("applied", [True, False])
async def test_a_claim_whose_outcome_is_unknown_is_read_back(
    server: ServerHandle, other: AsyncSession, *, applied: bool
) -> None:
    async with connected(server, retry=NO_RETRIES) as session:
        await queue(other, {})
        server.faults.inject(Drop(applied=applied), on="writes")

        if not applied:
            with pytest.raises(TransportError):
                await session.claim_job(QUEUED)
        claimed: list[Job] = []

        async def is_claimed() -> bool:
            claimed.extend(each for each in [await session.claim_job(QUEUED)] if each)
            return bool(claimed)

        await until(is_claimed)
        async with job_context(session, job=claimed[0]):
            assert (await stored(other, claimed[0]))[0] == "running"


async def test_while_the_server_is_away_a_claim_raises_and_leaves_the_job_free(
    server: ServerHandle, other: AsyncSession
) -> None:
    async with connected(server, retry=NO_RETRIES) as session:
        await queue(other, {})
        server.faults.inject(Drop(applied=True), times=3, on="calls")
        with pytest.raises(TransportError):
            await session.claim_job(QUEUED)
        server.faults.clear()

        async def is_claimed() -> bool:
            return await other.claim_job(QUEUED) is not None

        await until(is_claimed)


async def test_a_job_whose_claim_is_refused_does_not_keep_others_from_being_claimed() -> None:
    tables = Queue(3)
    tables.refuses = lambda each: each["entity_key"][0] == "job-0"
    async with tables.session(timings=QUICK) as session:
        claimed = [await session.claim_job(QUEUED, spread=1) for _ in range(2)]
        assert [job.id for job in claimed if job] == ["job-1", "job-2"]
        with pytest.raises(ServerError, match="refused"):
            await session.claim_job(QUEUED)


# Many daemons


class Queue(Tables):
    """Tables with queued Jobs; requests take a random time, before and after they are applied."""

    def __init__(self, count: int, slowness: float = 0.0) -> None:
        super().__init__()
        self.slowness = slowness
        self.random = random.Random(7)
        for number in range(count):
            key = f"job-{number}"
            values = {"id": key, "status": "queued", "data": json.dumps({"n": number})}
            self.rows[key] = {"__entity_type__": "Job", "user_id": None, **values}

    async def send(self, request: WireRequest) -> WireResponse:
        await anyio.sleep(self.random.random() * self.slowness)
        response = await super().send(request)
        await anyio.sleep(self.random.random() * self.slowness)
        return response

    def _apply_one(self, operation: Wire, created: list[str]) -> Wire:
        expression = operation.get("expression", "")
        if 'status is "queued"' not in expression:
            return super()._apply_one(operation, created)
        limit = int(re.findall(r"limit (\d+)", expression)[-1])
        queued = [dict(row) for row in self.rows.values() if row.get("status") == "queued"]
        return {"action": "query", "data": queued[:limit]}


async def work(session: AsyncSession, ran: Counter[str], count: int) -> None:
    """Run claimed Jobs until all have been run."""
    while ran.total() < count:
        job = await session.claim_job(QUEUED)
        if job is None:
            await anyio.sleep(0.02)
            continue
        try:
            async with job_context(session, job=job):
                ran[job.id] += 1
                await anyio.sleep(0.001)
        except JobOwnedError:
            continue


@pytest.mark.long
async def test_twenty_daemons_run_each_job_once() -> None:
    count = amount(100, 500)
    tables, ran = Queue(count, slowness=0.01), Counter[str]()
    async with AsyncExitStack() as stack:
        daemons = [
            await stack.enter_async_context(tables.session(timings=QUICK, timeout=60))
            for _ in range(20)
        ]
        with anyio.fail_after(amount(50, 600)):
            async with anyio.create_task_group() as group:
                for daemon in daemons:
                    group.start_soon(work, daemon, ran, count)

    assert len(ran) == count
    assert set(ran.values()) == {1}
    assert {row["status"] for row in tables.rows.values()} == {"done"}
    assert all("lease" not in row["data"] for row in tables.rows.values())


@pytest.mark.long
async def test_twenty_daemons_on_a_real_server_that_is_slow_at_random(
    server: ServerHandle, other: AsyncSession
) -> None:
    count = amount(20, 500)
    await queue(other, *[{"n": number} for number in range(count)])
    for seconds in (0.02, 0.05, 0.1):
        server.faults.inject(Delay(seconds), probability=0.1, on="calls")
    ran = Counter[str]()
    async with AsyncExitStack() as stack:
        daemons = [await stack.enter_async_context(connected(server)) for _ in range(20)]
        with anyio.fail_after(amount(50, 600)):
            async with anyio.create_task_group() as group:
                for daemon in daemons:
                    group.start_soon(work, daemon, ran, count)

    assert len(ran) == count
    assert set(ran.values()) == {1}
    assert {job.status for job in await other.query("Job").of(Job).all()} == {JobStatus.DONE}


DAEMON = """
    import anyio
    from dataclasses import replace
    from aioftrackjobs import AsyncSession, job_context
    from aioftrackjobs.config.timings import DEFAULT_TIMINGS

    async def main():
        timings = replace(DEFAULT_TIMINGS, claim_wait=0.1)
        async with AsyncSession(timings=timings) as session:
            while (job := await session.claim_job('Job where status is "queued"')) is not None:
                print(job.id, flush=True)
                async with job_context(session, job=job):
                    pass

    anyio.run(main)
"""


CLAIMER = """
    import anyio
    from aioftrackjobs import AsyncSession

    async def main():
        async with AsyncSession() as session:
            print((await session.claim_job('Job where status is "queued"')).id, flush=True)
            await anyio.sleep_forever()

    anyio.run(main)
"""


async def test_a_job_is_free_as_soon_as_the_process_that_claimed_it_is_killed(
    server: ServerHandle, session: AsyncSession
) -> None:
    (made,) = await queue(session, {})
    environment = {
        "FTRACK_SERVER": server.url,
        "FTRACK_API_KEY": server.api_key,
        "FTRACK_API_USER": server.api_user,
    }
    async with await anyio.open_process(
        [sys.executable, "-c", textwrap.dedent(CLAIMER)], env={**os.environ, **environment}
    ) as claimer:
        assert claimer.stdout is not None
        with anyio.fail_after(30):
            assert (await claimer.stdout.receive()).decode().strip() == made.id
        assert await session.claim_job(QUEUED) is None
        claimer.kill()
        await claimer.wait()

    job = await session.claim_job(QUEUED)

    assert job is not None
    async with job_context(session, job=job):
        assert (await stored(session, job))[0] == "running"


@pytest.mark.slow
@pytest.mark.long
async def test_daemons_in_processes_of_their_own_run_each_job_once(tmp_path: Path) -> None:
    count, processes = amount(6, 500), amount(2, 20)
    with ServerProcess(tmp_path) as server:
        async with server.session() as session:
            await queue(session, *[{"n": number} for number in range(count)])
        ran: list[str] = []

        async def run() -> None:
            ended = await anyio.run_process(
                [sys.executable, "-c", textwrap.dedent(DAEMON)],
                env={**os.environ, **server.credentials.environment},
                stderr=subprocess.PIPE,
            )
            ran.extend(ended.stdout.decode().split())

        with anyio.fail_after(amount(50, 600)):
            async with anyio.create_task_group() as group:
                for _ in range(processes):
                    group.start_soon(run)

        async with server.session() as session:
            jobs = await session.query("Job").of(Job).all()
            assert {job.status for job in jobs} == {JobStatus.DONE}
            assert sorted(ran) == sorted(job.id for job in jobs)


async def test_a_claim_that_never_leaves_raises_what_says_so(server: ServerHandle) -> None:
    timings = replace(QUICK, data_send_limit=-1.0)  # each request waits too long for its turn
    retry = RetryPolicy(first_delay=0.001, longest_delay=0.001, budget=0.05)
    async with connected(server) as producer, connected(server, timings=timings, retry=retry) as s:
        producer.create(Job, {"status": "queued"})
        await producer.commit()
        with pytest.raises(ConnectError, match="not sent in time"):
            await s.claim_job("Job")
