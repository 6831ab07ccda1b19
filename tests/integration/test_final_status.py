"""Final statuses that cannot be delivered at once, or that compete with what others write."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import anyio.lowlevel
import pytest

from aioftrackjobs import AsyncSession, Health, Job, job_context, recover
from aioftrackjobs.config.retry import NO_RETRIES, RetryPolicy
from aioftrackjobs.config.timings import Timings
from aioftrackjobs.devserver import ServerHandle
from aioftrackjobs.devserver.faults.kinds import Drop, TooManyRequests
from aioftrackjobs.errors import (
    AuthenticationError,
    CommitUncertainError,
    ConnectError,
    FtrackJobsError,
    TransportError,
)
from aioftrackjobs.jobs.ownership import LEASE, Lease
from aioftrackjobs.journal import Entry, Owner
from aioftrackjobs.journal._file import JournalFile
from aioftrackjobs.session import connection_of, jobs_of
from aioftrackjobs.transport import WireRequest, WireResponse

from .journals import DEAD, ELSEWHERE, journaled
from .relay import Relay, Send
from .waiting import until


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.journal"


def held(server: ServerHandle, job_id: str) -> dict[str, Any]:
    return server.inspector.job(job_id)


class Link:
    """The connection between a session and its server.

    Attributes:
        error: What every request fails with; None if they arrive.
        count: How many failed.
    """

    def __init__(self, session: AsyncSession) -> None:
        self.error: FtrackJobsError | None = None
        self.count = 0
        Relay(session, self.send)

    async def send(self, request: WireRequest, send: Send) -> WireResponse:
        if self.error is not None:
            self.count += 1
            raise self.error
        return await send(request)


# A server that does not accept it


async def test_a_final_status_is_sent_again_while_the_server_takes_no_more_requests(
    server: ServerHandle,
) -> None:
    async with AsyncSession(
        server.url, server.api_key, server.api_user, retry=NO_RETRIES
    ) as session:
        async with job_context(session, description="x") as job:
            server.faults.inject(TooManyRequests(), on="writes", times=2)
    assert held(server, job.id)["status"] == "done"


async def test_a_final_status_waits_until_the_server_takes_requests_again(
    server: ServerHandle, path: Path
) -> None:
    async with journaled(server, path, retry=NO_RETRIES) as session:
        async with job_context(session, description="x", grace=0.05) as job:
            server.faults.inject(TooManyRequests(0), on="calls", probability=1.0)
        assert session.health.final_reports_pending == 1
        assert held(server, job.id)["status"] == "running"
        server.faults.clear()
        await until(lambda: not session.health.final_reports_pending)
        assert held(server, job.id)["status"] == "done"


async def test_health_is_good_while_a_final_status_is_sent_but_not_while_it_waits_long(
    server: ServerHandle, path: Path
) -> None:
    async with journaled(server, path) as session:
        seen: list[Health] = []

        async def look(request: WireRequest, send: Send) -> WireResponse:
            seen.append(session.health)
            return await send(request)

        async with job_context(session, description="x"):
            Relay(session, look)

    health = seen[-1]
    assert health.final_reports_pending == 1
    assert health.is_good
    assert health.final_reports_since is not None
    earlier = health.final_reports_since - timedelta(minutes=1)
    assert not replace(health, final_reports_since=earlier).is_good


async def test_a_final_status_in_the_journal_waits_as_the_server_asks_but_for_a_minute_at_most(
    server: ServerHandle, path: Path
) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        await (anyio.sleep_forever() if seconds == 60 else anyio.lowlevel.checkpoint())

    retry = RetryPolicy(budget=0, sleep=sleep)
    async with journaled(server, path, retry=retry) as session:
        async with job_context(session, description="x", grace=0.5):
            server.faults.inject(TooManyRequests(3600), on="calls", probability=1.0)
        await until(lambda: len(pauses) > 1)
    assert pauses == [60, 60], "one within the grace, and then that of the journal"


async def test_a_final_status_is_kept_without_what_looks_like_a_secret_in_it(
    server: ServerHandle, path: Path
) -> None:
    """Values are redacted one by one: in the JSON text, the quote behind a secret would go, too."""
    description = 'fetch "http://store/file?token=abc"'
    async with journaled(server, path, retry=NO_RETRIES) as session:
        link = Link(session)
        async with job_context(session, description=description, grace=0.05) as job:
            link.error = ConnectError("away")
        assert session.health.final_reports_pending == 1
        link.error = None
        await until(lambda: not session.health.final_reports_pending)
    assert held(server, job.id)["status"] == "done"
    assert held(server, job.id)["description"] == 'fetch "http://store/file?token=***"'


async def test_final_statuses_are_sent_again_later_if_the_server_refuses_all_requests(
    server: ServerHandle, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """For example if a user may not log in: tomorrow it may, and a daemon may run for months."""
    timings = Timings(replay_interval=0.01)
    async with journaled(server, path, retry=NO_RETRIES, timings=timings) as session:
        link = Link(session)
        async with job_context(session, description="x", grace=0.05) as job:
            link.error = ConnectError("away")
        link.error = AuthenticationError("AuthenticationError", "no such user")
        before = link.count
        await until(lambda: link.count > before + 2)
        link.error = None
        await until(lambda: not session.health.final_reports_pending)
    assert held(server, job.id)["status"] == "done"
    warnings = [text for text in caplog.messages if "no such user" in text]
    assert len(warnings) == 1


async def test_a_final_status_that_cannot_be_kept_raises_and_is_delivered_all_the_same(
    server: ServerHandle, path: Path
) -> None:
    async with journaled(server, path, retry=NO_RETRIES) as session:
        path.unlink()
        path.mkdir()  # now no journal can be there
        link = Link(session)
        with pytest.raises(ConnectError):
            async with job_context(session, description="x", grace=0.05) as job:
                link.error = ConnectError("away")
        link.error = None
        await until(lambda: not session.health.final_reports_pending)
    assert held(server, job.id)["status"] == "done"


@pytest.mark.parametrize("applied", [False, True])
async def test_to_settle_a_beginning_leaves_no_job_running(
    server: ServerHandle, applied: bool
) -> None:
    """Its block was never entered, so that nothing else would ever end it."""
    async with AsyncSession(
        server.url, server.api_key, server.api_user, retry=NO_RETRIES
    ) as session:
        await session.current_user()
        server.faults.inject(Drop(applied=applied), on="writes")
        server.faults.inject(Drop(), on="calls", probability=1.0)
        with pytest.raises(CommitUncertainError) as caught:
            async with job_context(session, description="x", grace=0.5):
                pass
        server.faults.clear()

        async def resolved() -> bool:
            """Settle it, again where a busy machine takes longer than the grace."""
            with suppress(TransportError):
                await caught.value.resolve()
                return True
            return False

        await until(resolved)
    (job,) = server.inspector.jobs()
    assert job["status"] == "failed"


# What others write meanwhile


async def test_the_owners_reports_and_final_status_win_over_a_recovery_that_failed_the_job(
    server: ServerHandle, other: AsyncSession, path: Path
) -> None:
    async with journaled(server, path, retry=NO_RETRIES) as session:
        link = Link(session)
        async with job_context(session, description="x", grace=0.05, interval=0) as job:
            mine = await other.get(Job, job.id)
            assert mine is not None
            data = json.loads(mine["data"])
            late = datetime.now(UTC) - timedelta(hours=1)
            mine["data"] = data | {LEASE: data[LEASE] | ELSEWHERE._asdict() | {"until": f"{late}"}}
            await other.commit()
            assert [each.id for each in (await recover(other)).failed] == [job.id]
            job.progress(0.5)
            await until(lambda: "recovered" not in held(server, job.id)["data"])
            assert held(server, job.id)["status"] == "running"
            link.error = ConnectError("away")
        assert session.health.final_reports_pending == 1
        link.error = None
        await until(lambda: not session.health.final_reports_pending)
    found = held(server, job.id)
    assert (found["status"], found["description"]) == ("done", "x")
    assert LEASE not in found["data"]


@pytest.mark.parametrize("report", ["{", "[]", '"done"', "{}", '{"status": "?", "data": {}}'])
async def test_an_entry_without_a_valid_final_status_does_no_harm(
    server: ServerHandle, session: AsyncSession, path: Path, report: str
) -> None:
    job = session.create(Job, {"status": "running", "data": {"description": "x"}})
    await session.commit()
    file = JournalFile(path, Owner("dead", DEAD, server.url, server.api_user))
    file.write(time.time(), [Entry("job", job.id, "dead", time.time(), report)], [])
    file.close()

    async with journaled(server, path) as later:
        assert await jobs_of(later).replay.deliver()
        await later.query("User").first()
    assert held(server, job.id)["status"] == "failed"


# Clocks that are set


async def test_leases_are_written_again_when_a_clock_was_set(
    server: ServerHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a host whose clock was put back would seem to hold none for a while."""
    shift = timedelta(0)

    class Shifted(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + shift

    def left() -> float:
        lease = Lease.of(held(server, job.id)["data"])
        assert lease is not None
        return (lease.until - datetime.now(UTC)).total_seconds()

    monkeypatch.setattr("aioftrackjobs.commit.api_client.datetime", Shifted)
    async with AsyncSession(server.url, server.api_key, server.api_user) as session:
        async with job_context(session, description="x") as job:
            assert left() > 170
            for hours in (-1, 1):
                shift = timedelta(hours=hours)
                await session.query("User").first()
                await until(lambda: 170 < left() < 190)
                # And if a renewal finds it out, by the read before it.
                shift = timedelta(0)
                jobs_of(session).active.renew_all(older_than=0.0)
                await until(lambda: 170 < left() < 190)


async def test_a_lease_is_not_over_though_the_clock_was_put_back(
    server: ServerHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Late(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) - timedelta(hours=1)

    written: list[Lease | None] = []
    async with AsyncSession(server.url, server.api_key, server.api_user) as session:
        async with job_context(session, description="x", interval=0) as job:

            async def note(request: WireRequest, send: Send) -> WireResponse:
                response = await send(request)
                written.append(Lease.of(held(server, job.id)["data"]))
                return response

            Relay(session, note)
            monkeypatch.setattr("aioftrackjobs.commit.api_client.datetime", Late)
            jobs_of(
                session
            ).active._lease_made_at = None  # otherwise the lease of this second is written
            job.progress(0.5)
            await until(lambda: written)
    assert written[0] is not None
    assert (written[0].until - datetime.now(UTC)).total_seconds() > 170


@pytest.mark.parametrize("hours", [-1, 1])
async def test_a_job_that_the_server_does_not_have_is_forgotten_whatever_the_clock_says(
    server: ServerHandle, path: Path, hours: int
) -> None:
    since = time.time() + hours * 3600
    file = JournalFile(path, Owner("dead", DEAD, server.url, server.api_user))
    file.write(since, [Entry("job", "no such job", "dead", since)], [])
    file.close()

    async with journaled(server, path) as session:
        assert await jobs_of(session).replay.deliver()
        assert connection_of(session).journal.unsettled() == []


async def test_a_job_whose_entry_is_old_may_still_appear_when_its_process_has_just_died(
    server: ServerHandle, other: AsyncSession, path: Path
) -> None:
    """The entry is made before its Job, whose creation may be on its way for a while."""
    job_id, now = str(uuid4()), time.time()
    file = JournalFile(path, Owner("dead", DEAD, server.url, server.api_user))
    file.write(now, [Entry("job", job_id, "dead", now - 3600)], [])
    file.close()

    async with journaled(server, path) as session:
        assert not await jobs_of(session).replay.deliver()
        other.create(Job, {"id": job_id, "status": "running"})
        await other.commit()
        assert await jobs_of(session).replay.deliver()
        assert connection_of(session).journal.unsettled() == []
    assert held(server, job_id)["status"] == "failed"
