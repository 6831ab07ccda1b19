"""What becomes of Jobs whose process was killed, and of those that only seem lost.

``AIOFTRACKJOBS_KILLS`` sets how many random moments a daemon is killed at.
"""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from aioftrackjobs import (
    ArgumentError,
    AsyncSession,
    Job,
    JobStatus,
    Verdict,
    job_context,
    recover,
)
from aioftrackjobs.config.retry import NO_RETRIES
from aioftrackjobs.config.timings import Timings
from aioftrackjobs.devserver import ServerHandle
from aioftrackjobs.jobs.ownership import LEASE, Lease
from aioftrackjobs.journal import Process, this_process
from aioftrackjobs.session import connection_of, jobs_of
from aioftrackjobs.transport import WireRequest, WireResponse

from ..amounts import amount
from .journals import DEAD, ELSEWHERE, journaled
from .relay import Relay, Send
from .waiting import until

KILLS = amount(2, 20)

#: What a process that died has sent to a server of this host arrives soon.
HERE = Timings(last_request_delay=0.5)


def now() -> datetime:
    return datetime.now(UTC)


async def running_job(
    session: AsyncSession, process: Process, *, left: float = 100.0, text: str = "Render (50 %)"
) -> Job:
    """Make a running Job whose owner is *process*, and whose lease has some seconds left."""
    lease = Lease("them", process, now() + timedelta(seconds=left))
    data = {"description": text, "base_description": "Render", "theirs": 1, LEASE: lease.encode()}
    job = session.create(Job, {"status": "running", "data": data})
    await session.commit()
    return job


async def fetch(session: AsyncSession, job_id: str) -> Job:
    found = await session.get(Job, job_id)
    assert found is not None
    return found


# Leases


@pytest.mark.other_client
async def test_a_running_job_has_a_lease_until_it_ends(
    session: AsyncSession, other: AsyncSession
) -> None:
    async with job_context(session, description="x", data={"kept": 1}) as job:
        data = json.loads((await fetch(other, job.id))["data"])
        lease = Lease.of(data)
        assert lease is not None
        assert lease.process == this_process()
        assert 170 < (lease.until - now()).total_seconds() < 190
        assert data["kept"] == 1
    assert json.loads((await fetch(other, job.id))["data"]) == {"kept": 1, "description": "x"}


async def test_leases_of_all_jobs_are_renewed_in_shared_requests(server: ServerHandle) -> None:
    async with (
        AsyncSession(server.url, server.api_key, server.api_user, lease=0.3) as session,
        anyio.create_task_group() as group,
    ):
        user = await session.current_user()
        renewals: list[list[str]] = []
        renewed = anyio.Event()
        release = anyio.Event()

        async def note(request: WireRequest, send: Send) -> WireResponse:
            assert isinstance(request.body, bytes)
            sent = [
                each["entity_key"][0]
                for each in json.loads(request.body)
                if each["action"] == "update" and "status" not in each["entity_data"]
            ]
            if sent:
                renewals.append(sent)
                renewed.set()
            return await send(request)

        Relay(session, note)

        async def work() -> None:
            async with job_context(session, user=user):
                await release.wait()

        for _ in range(20):
            group.start_soon(work)
        with anyio.fail_after(10):
            await renewed.wait()
        release.set()
    assert len(renewals[0]) == 20


async def test_without_leases_nothing_is_added(server: ServerHandle, other: AsyncSession) -> None:
    async with AsyncSession(server.url, server.api_key, server.api_user, lease=0) as session:
        async with job_context(session, description="x") as job:
            assert json.loads((await fetch(other, job.id))["data"]) == {"description": "x"}


async def test_leases_are_in_the_servers_time(
    server: ServerHandle, other: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host whose clock is an hour slow neither loses its Jobs nor fails those of others."""

    class Slow(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) - timedelta(hours=1)

    monkeypatch.setattr("aioftrackjobs.commit.api_client.datetime", Slow)
    async with AsyncSession(server.url, server.api_key, server.api_user) as session:
        async with job_context(session) as job:
            lease = Lease.of(json.loads((await fetch(other, job.id))["data"]))
            assert lease is not None
            assert (lease.until - now()).total_seconds() > 100
            lost = await running_job(other, ELSEWHERE, left=-100)
            assert [each.id for each in (await recover(session)).failed] == [lost.id]


# Recovery


async def test_exactly_the_lost_jobs_fail(session: AsyncSession, other: AsyncSession) -> None:
    lost = await running_job(session, DEAD)
    expired = await running_job(session, ELSEWHERE, left=-100)
    alive = [
        await running_job(session, ELSEWHERE, left=1),
        await running_job(session, ELSEWHERE, left=-20),  # within the grace
        await running_job(session, this_process(), left=1),
    ]
    unowned = session.create(Job, {"status": "running", "data": {"description": "theirs"}})
    queued = session.create(Job, {"status": "queued"})
    await session.commit()

    recovery = await recover(other)

    assert {job.id for job in recovery.failed} == {lost.id, expired.id}
    for job in (lost, expired):
        found = await fetch(session, job.id)
        data = json.loads(found["data"])
        assert found.status is JobStatus.FAILED
        assert data["theirs"] == 1
        assert data["base_description"] == "Render"
        assert data["recovered"]["holder"] == "them"
        assert LEASE not in data
        assert found.description is not None
        assert found.description.startswith(
            "Render (50 %) - failed: worker process ended unexpectedly on "
        )
    for job in (*alive, unowned):
        assert (await fetch(session, job.id)).status is JobStatus.RUNNING
    assert (await fetch(session, queued.id)).status is JobStatus.QUEUED
    verdicts = {job.id: job.verdict for job in recovery.jobs}
    assert verdicts[unowned.id] is Verdict.UNOWNED
    assert {verdicts[job.id] for job in alive} == {Verdict.ALIVE}
    assert (await recover(other)).failed == (), "a second time finds nothing"


async def test_a_dry_run_changes_nothing(session: AsyncSession) -> None:
    lost = await running_job(session, DEAD)

    recovery = await recover(session, dry_run=True)

    assert [job.id for job in recovery.failed] == [lost.id]
    assert recovery.is_dry
    assert (await fetch(session, lost.id)).status is JobStatus.RUNNING


async def test_jobs_without_a_lease_fail_on_request_and_by_age(session: AsyncSession) -> None:
    old = session.create(Job, {"status": "running"})
    await session.commit()

    assert (await recover(session, without_lease=True, older_than=3600)).failed == ()
    assert (await recover(session, older_than=timedelta(0))).failed == ()
    recovery = await recover(session, without_lease=True, older_than=timedelta(0))
    assert [job.id for job in recovery.failed] == [old.id]
    assert (await fetch(session, old.id)).status is JobStatus.FAILED


async def test_the_jobs_of_other_programs_do_not_fail_at_any_age(
    session: AsyncSession, server: ServerHandle
) -> None:
    live = session.create(Job, {"status": "running"})
    await session.commit()

    with pytest.raises(ArgumentError, match="older_than must be an age"):
        await recover(session, without_lease=True)
    dry = await recover(session, without_lease=True, dry_run=True)

    assert server.inspector.job(live.id)["status"] == "running"
    assert [job.id for job in dry.failed] == [live.id]


@pytest.mark.parametrize(
    "options",
    [
        {"older_than": -1},
        {"older_than": timedelta(seconds=-1)},
        {"older_than": math.nan},
        {"older_than": "2h"},
        {"older_than": True},
        {"grace": -3600},
        {"grace": math.nan},
        {"grace": None},
        {"user": ""},
        {"dry_run": "no"},
        {"without_lease": "false", "older_than": 1},
    ],
    ids=str,
)
async def test_an_argument_that_could_fail_live_jobs_is_refused(
    session: AsyncSession, server: ServerHandle, options: dict[str, Any]
) -> None:
    lost = await running_job(session, DEAD)

    with pytest.raises(ArgumentError):
        await recover(session, **options)

    assert server.inspector.job(lost.id)["status"] == "running"


async def test_an_age_may_be_longer_than_the_calendar(session: AsyncSession) -> None:
    await running_job(session, DEAD)

    assert (await recover(session, older_than=timedelta.max)).jobs == ()


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(None, id="none"),
        pytest.param("", id="empty"),
        pytest.param("not JSON", id="no JSON"),
        pytest.param('[1, "b"]', id="list"),
        pytest.param('{"a":' * 100_000, id="deep"),
        pytest.param(json.dumps({"description": "x" * 1_000_000}), id="huge"),
        pytest.param('{"description": "\\ud800"}', id="half a character"),
        pytest.param('{"description": {"a": [NaN, 1e999]}}', id="odd description"),
        pytest.param('{"lease": "mine", "recovered": 1}', id="no lease of ours"),
    ],
)
async def test_foreign_data_keeps_nothing_from_being_failed_on_request(
    server: ServerHandle, session: AsyncSession, text: str | None
) -> None:
    job = session.create(Job, {"status": "running", "data": text})
    await session.commit()

    assert (await recover(session)).failed == ()
    recovery = await recover(session, without_lease=True, older_than=0)
    assert [each.id for each in recovery.failed] == [job.id]

    after = server.inspector.job(job.id)
    assert after["status"] == "failed"
    if text and text[0] != "{":
        assert after["data"]["previous_data"] == text


@pytest.mark.parametrize(
    "change", [{"pid": -1}, {"pid": 10**30}, {"until": "0001-01-01T00:00+23:00"}]
)
async def test_an_unusual_lease_that_ended_is_a_lease(
    server: ServerHandle, session: AsyncSession, change: dict[str, Any]
) -> None:
    lease = Lease("them", this_process(), now() - timedelta(hours=1)).encode()
    job = session.create(Job, {"status": "running", "data": {LEASE: lease | change}})
    await session.commit()

    assert [each.id for each in (await recover(session)).failed] == [job.id]
    assert server.inspector.job(job.id)["status"] == "failed"


async def test_only_the_jobs_of_a_user(session: AsyncSession) -> None:
    user = await session.current_user()
    mine = await running_job(session, DEAD)
    mine["user"] = user
    theirs = await running_job(session, DEAD)
    other_user = session.create("User", {"username": "o'brien"})
    theirs["user"] = other_user
    await session.commit()

    recovery = await recover(session, user="o'brien")

    assert [(job.id, job.user) for job in recovery.jobs] == [(theirs.id, "o'brien")]
    assert (await fetch(session, mine.id)).status is JobStatus.RUNNING


async def test_a_renewal_between_the_read_and_the_write_saves_a_job(
    session: AsyncSession, other: AsyncSession
) -> None:
    job = await running_job(session, ELSEWHERE, left=-100)

    async def renew_before(request: WireRequest, send: Send) -> WireResponse:
        if isinstance(request.body, bytes) and job.id.encode() in request.body:
            lease = Lease("them", ELSEWHERE, now() + timedelta(seconds=100))
            job["data"] = {"description": "Render", LEASE: lease.encode()}
            await session.commit()
        return await send(request)

    Relay(other, renew_before)
    recovery = await recover(other)

    assert [each.verdict for each in recovery.jobs] == [Verdict.CHANGED]
    assert (await fetch(session, job.id)).status is JobStatus.RUNNING


async def test_jobs_that_end_during_the_read_hide_no_others(
    session: AsyncSession, other: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Job that ends takes itself out of the pages that are not read yet."""
    monkeypatch.setattr("aioftrackjobs.entities.paging.PAGE_SIZE", 2)
    ending = [await running_job(session, ELSEWHERE) for _ in range(2)]
    lost = [await running_job(session, DEAD) for _ in range(3)]

    async def end_before_the_second_page(request: WireRequest, send: Send) -> WireResponse:
        if isinstance(request.body, bytes) and b"order by id" in request.body:
            for job in ending:
                job["status"] = "done"
            await session.commit()
        return await send(request)

    Relay(other, end_before_the_second_page)
    recovery = await recover(other)

    assert {job.id for job in recovery.failed} == {job.id for job in lost}


async def test_two_recoveries_at_once_with_clocks_apart_fail_no_live_job(
    server: ServerHandle, session: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither relies on its own clock; if the server does not send its own, there is the grace."""
    lost = [await running_job(session, DEAD) for _ in range(120)]
    live = [await running_job(session, ELSEWHERE, left=5) for _ in range(20)]
    async with (
        AsyncSession(server.url, server.api_key, server.api_user) as early,
        AsyncSession(server.url, server.api_key, server.api_user) as late,
    ):
        found = []
        monkeypatch.setattr("aioftrackjobs.commit.api_client.decode_date", lambda _: None)
        connection_of(early).server_status.clock_offset = timedelta(seconds=-30)
        connection_of(late).server_status.clock_offset = timedelta(seconds=30)

        async def run(one: AsyncSession) -> None:
            found.append(await recover(one))

        async with anyio.create_task_group() as group:
            group.start_soon(run, early)
            group.start_soon(run, late)

    for job in live:
        assert (await fetch(session, job.id)).status is JobStatus.RUNNING
    for job in lost:
        after = await fetch(session, job.id)
        assert after.status is JobStatus.FAILED
        assert (after.description or "").count("failed") == 1
    assert {job.id for one in found for job in one.failed} == {job.id for job in lost}


async def test_an_owner_that_was_cut_off_overrules_a_recovery(
    session: AsyncSession, other: AsyncSession
) -> None:
    async with job_context(session, description="x") as job:
        mine = await fetch(other, job.id)
        data = json.loads(mine["data"])
        data[LEASE] |= ELSEWHERE._asdict() | {"until": (now() - timedelta(hours=1)).isoformat()}
        mine["data"] = data  # as another host sees it if it was not renewed
        await other.commit()
        assert len((await recover(other)).failed) == 1
        assert (await fetch(other, job.id)).status is JobStatus.FAILED
    after = await fetch(other, job.id)
    assert (after.status, after.description) == (JobStatus.DONE, "x")
    assert "recovered" not in json.loads(after["data"])


# Processes that die

DAEMON = """
    import asyncio, os, sys, random
    from aioftrackjobs import AsyncSession, job_context
    from aioftrackjobs.session import connection_of

    seed, moment = int(sys.argv[1]), sys.argv[2]
    chance = random.Random(seed)

    def die(*_):
        os.kill(os.getpid(), 9)

    async def work(session, user, number):
        async with job_context(
            session, user=user, description=f"daemon {number}", interval=0
        ) as job:
            print("begun", flush=True)
            if moment == "running":
                die()
            for step in range(chance.randint(1, 5)):
                job.progress(step / 5)
                await asyncio.sleep(chance.random() / 100)
            if number % 2:
                await job.attach(b"x" * 100_000, name="a.bin")
            if number % 5 == 0:
                job.fail("on purpose")

    async def main():
        async with AsyncSession() as session:
            user = await session.current_user()
            transport = connection_of(session).transport
            send = transport.send

            async def dying(request):
                body = request.body if isinstance(request.body, bytes) else b""
                about = {
                    "create": b'"create"' in body and b'"Job"' in body,
                    "progress": b"progress" in body and b"status" not in body,
                    "upload": request.method == "PUT",
                    "final": b'"status"' in body and b'"update"' in body,
                }
                if about.get(moment.partition("-")[0]):
                    if moment.endswith("-after"):
                        await send(request)
                    die()
                return await send(request)

            if moment == "journal":
                from aioftrackjobs.journal._file import JournalFile
                write = JournalFile.write
                def dying_write(self, now, entries, gone):
                    if any(entry.final_report for entry in entries):
                        die()
                    write(self, now, entries, gone)
                JournalFile.write = dying_write
            transport.send = dying
            number = 0
            while True:
                async with asyncio.TaskGroup() as group:
                    for _ in range(10):
                        number += 1
                        group.create_task(work(session, user, number))

    asyncio.run(main())
"""


@asynccontextmanager
async def daemon(
    server: ServerHandle, journal: Path, seed: int = 0, moment: str = "", code: str = DAEMON
) -> AsyncIterator[anyio.abc.Process]:
    environment = {
        **os.environ,
        "FTRACK_SERVER": server.url,
        "FTRACK_API_KEY": server.api_key,
        "FTRACK_API_USER": server.api_user,
        "FTRACK_JOBS_JOURNAL": str(journal),
    }
    process = await anyio.open_process(
        [sys.executable, "-c", textwrap.dedent(code), str(seed), moment],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    async with process:
        try:
            with anyio.fail_after(60):
                yield process
                if process.returncode is None:
                    await process.wait()
        finally:
            if process.returncode is None:  # otherwise a failed test would wait for it
                process.kill()


async def running_jobs(session: AsyncSession) -> list[Job]:
    return await session.query('Job where status is "running"').of(Job).all()


async def settled(session: AsyncSession) -> None:
    """Wait until what the journal of *session* holds is delivered, as far as possible."""
    await jobs_of(session).replay.deliver()

    async def is_settled() -> bool:
        return not await running_jobs(session)

    await until(is_settled)


@pytest.mark.parametrize(
    "moment",
    [
        "create",
        "create-after",
        "running",
        "progress",
        "upload",
        "upload-after",
        "final",
        "final-after",
        "journal",
    ],
)
async def test_a_daemon_that_is_killed_leaves_no_job_running(
    server: ServerHandle, session: AsyncSession, tmp_path: Path, moment: str
) -> None:
    journal = tmp_path / "journal"
    live = await running_job(session, this_process(), left=-1000)
    async with daemon(server, journal, moment=moment) as process:
        await process.wait()
    assert process.returncode == -9

    async with journaled(server, journal, timings=HERE) as later:
        await jobs_of(later).replay.deliver()
        left = await running_jobs(session)
        found = await session.query("Job").of(Job).all()

    assert [job.id for job in left] == [live.id]
    jobs = [job for job in found if job.id != live.id]
    assert bool(jobs) == (moment != "create")
    for job in jobs:
        name, _, reason = str(job.description).partition(" - failed: ")
        if job.status is JobStatus.DONE:
            assert reason == ""
        else:
            assert job.status is JobStatus.FAILED
            is_own = int(name.split()[1]) % 5 == 0 and reason == "on purpose"
            assert is_own or reason.startswith("worker process ended unexpectedly on ")
        assert LEASE not in json.loads(job["data"])


@pytest.mark.slow
@pytest.mark.long
async def test_a_daemon_that_is_killed_again_and_again(
    server: ServerHandle, session: AsyncSession, tmp_path: Path
) -> None:
    journal = tmp_path / "journal"
    for seed in range(KILLS):
        async with daemon(server, journal, seed) as process:
            assert process.stdout is not None
            await process.stdout.receive()
            await anyio.sleep(random.Random(seed).random() / 2)  # the moment is the point
            process.kill()
    async with journaled(server, journal, timings=HERE) as later:
        await settled(later)
    for job in await session.query("Job").of(Job).all():
        assert job.status in (JobStatus.DONE, JobStatus.FAILED)


async def test_a_kill_without_a_journal_is_seen_by_recover(
    server: ServerHandle, session: AsyncSession, tmp_path: Path
) -> None:
    code = DAEMON.replace("AsyncSession()", "AsyncSession(journal='')")
    async with daemon(server, tmp_path / "unused", moment="running", code=code) as process:
        await process.wait()
    lost = await running_jobs(session)
    assert lost

    recovery = await recover(session)

    assert {job.id for job in recovery.failed} == {job.id for job in lost}
    assert await running_jobs(session) == []


async def test_nothing_of_a_live_daemon_is_touched(
    server: ServerHandle, session: AsyncSession, tmp_path: Path
) -> None:
    code = """
        import asyncio
        from aioftrackjobs import AsyncSession, job_context

        async def main():
            async with AsyncSession() as session, job_context(session, description="live"):
                print("begun", flush=True)
                await asyncio.sleep(3600)

        asyncio.run(main())
    """
    journal = tmp_path / "journal"
    async with daemon(server, journal, code=code) as process:
        assert process.stdout is not None
        await process.stdout.receive()
        async with AsyncSession(
            server.url, server.api_key, server.api_user, journal=journal
        ) as later:
            await jobs_of(later).replay.deliver()
            assert (await recover(later, grace=0)).failed == ()
            (job,) = await running_jobs(session)
            process.kill()
            await process.wait()
            await settled(later)
    assert (await fetch(session, job.id)).status is JobStatus.FAILED


SUSPENDED = """
    import asyncio, sys
    from aioftrackjobs import AsyncSession, job_context

    async def main():
        async with AsyncSession(lease=2) as session, job_context(session) as job:
            print(job.id, flush=True)
            await asyncio.to_thread(sys.stdin.read)

    asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no process can be stopped")
@pytest.mark.parametrize("is_elsewhere", [False, True])
async def test_a_daemon_that_is_suspended_lives_as_far_as_that_can_be_seen(
    server: ServerHandle,
    session: AsyncSession,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_elsewhere: bool,
) -> None:
    """Another host sees only that its leases end; the daemon overrules what that one does."""
    journal = tmp_path / "journal"
    async with daemon(server, journal, code=SUSPENDED) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        job_id = (await process.stdout.receive()).decode().strip()
        process.send_signal(signal.SIGSTOP)
        async with journaled(server, journal) as later:
            assert await jobs_of(later).replay.deliver()
            lease = Lease.of(json.loads((await fetch(session, job_id))["data"]))
            assert lease is not None
            await until(lambda: lease.is_over(connection_of(later).server_status.server_time(), 0))
            if is_elsewhere:
                monkeypatch.setattr(
                    "aioftrackjobs.journal._process.this_process", lambda: ELSEWHERE
                )
            (found,) = (await recover(later, grace=0)).jobs
            assert found.verdict is (Verdict.FAILED if is_elsewhere else Verdict.ALIVE)
            monkeypatch.undo()
        process.send_signal(signal.SIGCONT)
        await process.stdin.aclose()
        await process.wait()
    assert process.returncode == 0
    assert (await fetch(session, job_id)).status is JobStatus.DONE


@pytest.mark.parametrize(
    ("left", "is_claim", "verdict"),
    [
        pytest.param(-3600, False, Verdict.ALIVE, id="an-hour"),
        pytest.param(-90_000, False, Verdict.FAILED, id="more-than-a-day"),
        pytest.param(-3600, True, Verdict.FAILED, id="a-claim"),
    ],
)
@pytest.mark.skipif(not this_process().place, reason="the system does not tell")
async def test_a_live_process_of_this_host_keeps_its_job_for_a_day(
    session: AsyncSession, left: float, is_claim: bool, verdict: Verdict
) -> None:
    here = this_process()
    async with await anyio.open_process([sys.executable, "-c", "input()"]) as child:
        started = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19]
        lease = Lease("them", here._replace(pid=child.pid, started=started), now(), is_claim)
        lease = lease._replace(until=now() + timedelta(seconds=left))
        job = session.create(Job, {"status": "running", "data": {LEASE: lease.encode()}})
        await session.commit()
        (found,) = (await recover(session, dry_run=True)).jobs
        assert (found.id, found.verdict) == (job.id, verdict)
        child.kill()
        await child.wait()
        assert [each.id for each in (await recover(session)).failed] == [job.id]


async def test_a_session_of_this_process_keeps_the_jobs_that_it_runs(
    server: ServerHandle, session: AsyncSession, other: AsyncSession
) -> None:
    async with job_context(session, description="x") as job:
        mine = await fetch(other, job.id)
        data = json.loads(mine["data"])
        data[LEASE] |= {"until": (now() - timedelta(hours=1)).isoformat()}
        mine["data"] = data  # as if its event loop had not renewed it
        await other.commit()
        assert [each.verdict for each in (await recover(other, grace=0)).jobs] == [Verdict.ALIVE]
    assert (await fetch(other, job.id)).status is JobStatus.DONE


async def test_a_job_that_was_taken_over_is_left_to_its_new_owner(
    server: ServerHandle, session: AsyncSession, tmp_path: Path
) -> None:
    journal = tmp_path / "journal"
    async with daemon(server, journal, moment="running") as process:
        await process.wait()
    jobs = await running_jobs(session)
    async with job_context(session, job=jobs[0].id):
        async with AsyncSession(
            server.url, server.api_key, server.api_user, journal=journal, retry=NO_RETRIES
        ) as later:
            await jobs_of(later).replay.deliver()
            assert [job.id for job in await running_jobs(session)] == [jobs[0].id]
    assert (await fetch(session, jobs[0].id)).status is JobStatus.DONE
