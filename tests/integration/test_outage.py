"""An hour without the server, by an injected clock: memory bounded, order kept, all delivered."""

from __future__ import annotations

import gc
import json
import logging
import random
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from aioftrackjobs import AsyncSession, ConnectError, Job, JobStatus, job_context, recover
from aioftrackjobs.config.retry import NO_RETRIES, RetryPolicy
from aioftrackjobs.devserver import ServerHandle
from aioftrackjobs.devserver.faults.kinds import TooManyRequests
from aioftrackjobs.running.recovery import RecoveredJob

from .journals import Watch, entries, journaled
from .waiting import until

#: Jobs that run when the outage begins, and how many of them end in it, one every so many seconds.
JOBS, ENDING, EVERY = 24, 20, 150
HOUR = 3600


class Clock:
    """A clock that only moves when a task sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def time(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await anyio.sleep(0.001)


def live_objects() -> int:
    gc.collect()
    return len(gc.get_objects())


@pytest.mark.slow
@pytest.mark.asyncio_only  # on trio, blocks are left in the reverse order of their beginning
async def test_an_hour_of_outage_loses_nothing(
    server: ServerHandle,
    other: AsyncSession,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock, chance, path = Clock(), random.Random(5), tmp_path / "jobs.journal"
    # pytest keeps all records, and these hold errors with all that they passed through.
    caplog.set_level(logging.CRITICAL, "aioftrackjobs")
    policy = RetryPolicy(clock=clock.time, sleep=clock.sleep, chance=chance.random)
    async with journaled(server, path, retry=policy) as session:
        user = await session.current_user()
        watch = Watch(session, path)
        running = []
        for _ in range(JOBS):
            context = job_context(session, user=user, description="x", grace=0.05, interval=0.01)
            running.append((context, await context.__aenter__()))
        ids = [job.id for _, job in running]

        watch.away = True
        steps, early = 0, 0
        while clock.now < HOUR:
            steps += 1
            for _, job in running:
                job.progress(min(0.9, steps / 1000))
            await anyio.sleep(0.002)
            ended = JOBS - len(running)
            if ended < ENDING and clock.now > EVERY * (ended + 1):
                context, job = running.pop(0)
                if ended % 3 == 0:
                    job.fail("black frames")
                await context.__aexit__(
                    None, None, None
                )  # raises nothing, because the journal has it
            health = session.health
            assert health.commits_queued + health.commits_sent <= JOBS
            watch.seen.clear()
            if not early and clock.now > HOUR / 3:
                early = live_objects()
        assert live_objects() - early < 2_000, "over forty minutes, and thousands of reports"
        assert len(running) == JOBS - ENDING
        assert health.final_reports_pending == ENDING
        assert health.final_reports_since is not None
        assert health.failing_since is not None
        assert health.failing_since <= health.final_reports_since
        assert not health.is_good
        await until(lambda: entries(path).keys() == set(ids))

        watch.away = False
        await until(lambda: not session.health.final_reports_pending)
        said = [
            each["entity_key"][0]
            for each, _ in watch.writes("update")
            if each["entity_data"].get("status") in ("done", "failed")
        ]
        assert list(dict.fromkeys(said)) == ids[:ENDING], "in order"
        assert session.health.failing_since is None
        for context, _ in running:
            await context.__aexit__(None, None, None)

    for number, job_id in enumerate(ids):
        found = await other.get(Job, job_id)
        assert found is not None
        assert found.description is not None
        is_failed = number < ENDING and number % 3 == 0
        assert found.status is (JobStatus.FAILED if is_failed else JobStatus.DONE)
        assert found.description.endswith(" %) - failed: black frames" if is_failed else "x")
        assert "lease" not in json.loads(found["data"])
    shown = [json.loads(job["data"])["progress"] for job in await other.query("Job").all()]
    assert max(shown) == min(0.9, round(steps / 1000, 4)), "the latest of all"
    assert entries(path) == {}


async def test_a_final_status_is_kept_while_the_server_refuses_more_requests(
    server: ServerHandle, other: AsyncSession, tmp_path: Path
) -> None:
    async with journaled(server, tmp_path / "jobs.journal") as session:
        async with job_context(session, description="x", grace=0.2) as job:
            server.faults.inject(TooManyRequests(retry_after=30), on="writes")
        await until(lambda: not session.health.final_reports_pending)
    found = await other.get(Job, job.id)
    assert found is not None
    assert found.status is JobStatus.DONE


async def test_without_a_journal_a_lost_final_status_is_left_to_recover(
    server: ServerHandle, other: AsyncSession, tmp_path: Path
) -> None:
    credentials = server.url, server.api_key, server.api_user
    async with AsyncSession(*credentials, retry=NO_RETRIES, lease=1) as session:
        watch = Watch(session, tmp_path / "none")
        with pytest.raises(ConnectError):
            async with job_context(session, description="x", grace=0.05) as job:
                watch.away = True
        watch.away = False  # it has given up, and renews the lease no more
        failed: list[RecoveredJob] = []

        async def is_found() -> bool:
            failed[:] = (await recover(other, grace=0)).failed
            return bool(failed)

        await until(is_found)

    assert [lost.id for lost in failed] == [job.id]
    found = await other.get(Job, job.id)
    assert found is not None
    assert found.status is JobStatus.FAILED
