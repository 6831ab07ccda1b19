"""An event loop that is blocked for longer than a lease keeps its Jobs."""

from __future__ import annotations

import json
import signal
from datetime import datetime
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from aioftrackjobs import AsyncSession, JobStatus, job_context, recover
from aioftrackjobs.devserver import ServerHandle
from aioftrackjobs.jobs.ownership import LEASE, Lease
from aioftrackjobs.session import jobs_of

from ..amounts import amount
from .journals import ELSEWHERE
from .settings import connected
from .test_process_ends import line, rest
from .test_recovery import daemon, fetch
from .waiting import until

DAEMON = """
    import os, sys, time
    import anyio
    from aioftrackjobs import AsyncSession, job_context

    FLAG = os.environ["FTRACK_JOBS_JOURNAL"] + ".flag"

    def goes_on():
        return not os.path.exists(FLAG)

    async def main():
        async with AsyncSession(lease=SECONDS) as session:
            async with job_context(session, description="x", interval=0.01) as job:
                job.progress(0.5, "before")
                async with job_context(session) as another:
                    print(f"{job.id} {another.id}", flush=True)
                    BLOCK

    anyio.run(main, backend="BACKEND")
"""
#: The length of its leases.
SECONDS = 1.5
SLEEP = "while goes_on(): time.sleep(0.01)"
COMPUTE = "while goes_on(): sum(range(100))"


#: Before it is blocked, so that reports are written.
WAIT = "while not os.path.exists(FLAG + 'ged'): await anyio.sleep(0.01)"


def program(*steps: str, backend: str = "asyncio") -> str:
    block = f"\n{' ' * 20}".join(steps)
    return (
        DAEMON.replace("BLOCK", block).replace("BACKEND", backend).replace("SECONDS", f"{SECONDS}")
    )


async def jobs_in(process: anyio.abc.Process) -> list[str]:
    """Return the ids of the two Jobs that a daemon runs."""
    return (await line(process)).split()


async def data_of(session: AsyncSession, job_id: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((await fetch(session, job_id))["data"])
    return found


async def end_of_lease(session: AsyncSession, job_id: str) -> datetime:
    lease = Lease.of(await data_of(session, job_id))
    assert lease is not None
    return lease.until


async def renewed(session: AsyncSession, job_id: str, times: int = 1) -> None:
    """Wait until the lease of a Job was renewed for long enough."""
    before = await end_of_lease(session, job_id)

    async def is_renewed() -> bool:
        left = (await end_of_lease(session, job_id)) - before
        return left.total_seconds() > times * SECONDS

    await until(is_renewed)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize(
    ("backend", "block"),
    [("asyncio", SLEEP), ("trio", COMPUTE), ("asyncio", COMPUTE), ("trio", SLEEP)][: amount(2, 4)],
)
async def test_a_blocked_event_loop_keeps_its_leases_and_what_others_write(
    server: ServerHandle, session: AsyncSession, tmp_path: Path, backend: str, block: str
) -> None:
    async with daemon(
        server, tmp_path / "journal", code=program(block, backend=backend)
    ) as process:
        job_id, _ = await jobs_in(process)
        await renewed(session, job_id)

        async def is_kept() -> bool:
            theirs = await fetch(session, job_id)
            theirs["data"] = {**json.loads(theirs["data"]), "theirs": 2}
            await session.commit()
            await renewed(session, job_id)
            return "theirs" in await data_of(session, job_id)

        await until(is_kept)  # at once, unless a renewal was under way
        (tmp_path / "journal.flag").touch()
        errors = await rest(process)
        await process.wait()

    assert process.returncode == 0, errors
    assert "the event loop was blocked" in errors
    job = await fetch(session, job_id)
    assert (job.status, job.description) == (JobStatus.DONE, "x")
    expected = {"description": "x", "theirs": 2, "progress": 0.5}
    assert await data_of(session, job_id) == expected


@pytest.mark.slow
async def test_a_job_that_was_taken_over_is_not_renewed_by_a_blocked_owner(
    server: ServerHandle, session: AsyncSession, tmp_path: Path
) -> None:
    async with daemon(server, tmp_path / "journal", code=program(SLEEP)) as process:
        job_id, another = await jobs_in(process)
        await renewed(session, job_id)
        async with job_context(session, job=job_id, take_over=True, description="mine"):
            lease = (await data_of(session, job_id))[LEASE]
            await renewed(session, another, times=2)
            assert (await data_of(session, job_id))[LEASE] == lease
        (tmp_path / "journal.flag").touch()
        await process.wait()
    assert (await fetch(session, job_id)).description == "mine"


@pytest.mark.slow
async def test_jobs_that_were_deleted_keep_no_others_from_being_renewed(
    server: ServerHandle, session: AsyncSession, tmp_path: Path
) -> None:
    async with daemon(server, tmp_path / "journal", code=program(SLEEP)) as process:
        job_id, another = await jobs_in(process)
        session.delete(await fetch(session, job_id))
        await session.commit()
        await renewed(session, another, times=2)
        (tmp_path / "journal.flag").touch()
        await process.wait()
    assert (await fetch(session, another)).status is JobStatus.DONE


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
async def test_an_owner_that_was_blocked_sets_a_mistaken_recovery_right(
    server: ServerHandle, session: AsyncSession, tmp_path: Path, backend: str
) -> None:
    """Status, text, values and lease are again as if nothing had been."""
    code = program(WAIT, SLEEP, "await anyio.sleep_forever()", backend=backend)
    async with daemon(server, tmp_path / "journal", code=code) as process:
        job_id, _ = await jobs_in(process)
        await until(lambda: data_contains(session, job_id, "before"))
        (tmp_path / "journal.flagged").touch()
        await renewed(session, job_id, times=2)

        async def is_failed() -> bool:
            theirs = await fetch(session, job_id)
            data = json.loads(theirs["data"])
            over = {**data[LEASE], **ELSEWHERE._asdict(), "until": "2020-01-01T00:00:00+00:00"}
            theirs["data"] = {**data, "theirs": 2, LEASE: over}  # as another host sees it
            await session.commit()
            return len((await recover(session)).failed) == 1

        await until(is_failed)  # at once, unless a renewal was under way
        assert (await fetch(session, job_id)).status is JobStatus.FAILED
        (tmp_path / "journal.flag").touch()

        async def is_right() -> bool:
            return (await fetch(session, job_id)).status is JobStatus.RUNNING

        await until(is_right)
        data = await data_of(session, job_id)
        assert (data["description"], data["theirs"]) == ("x (50 %, before)", 2)
        assert Lease.of(data) is not None
        assert "recovered" not in data
        process.send_signal(signal.SIGKILL)
        await process.wait()


async def data_contains(session: AsyncSession, job_id: str, text: str) -> bool:
    return text in (await fetch(session, job_id))["data"]


async def test_a_loop_that_has_ended_keeps_nothing(server: ServerHandle, tmp_path: Path) -> None:
    """The process lives on, but nothing will ever end the Job."""
    code = """
        import asyncio, sys, threading, time
        from aioftrackjobs import AsyncSession, job_context

        async def main():
            session = await AsyncSession(lease=3).__aenter__()
            job = await job_context(session, grace=0).__aenter__()
            keep.append((session, job))
            loop.stop()
            await asyncio.sleep(3600)

        def guards():
            return [each for each in threading.enumerate() if each.name == "aioftrackjobs leases"]

        keep = []
        loop = asyncio.new_event_loop()
        task = loop.create_task(main())
        loop.run_forever()
        print(len(guards()), flush=True)
        loop.close()
        while guards():
            time.sleep(0.01)
        print("ended", flush=True)
        sys.stdin.read()
    """
    async with daemon(server, tmp_path / "journal", code=code) as process:
        assert await line(process) == "1"
        assert await line(process) == "ended"
        process.kill()


async def test_a_client_of_the_callers_is_not_circumvented(server: ServerHandle) -> None:
    async with httpx.AsyncClient() as client, connected(server, client=client) as session:
        async with job_context(session):
            assert not jobs_of(session).active._guard._is_running
