"""``aioftrackjobs recover``: its options and its output."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import typer
from anyio.to_thread import run_sync

from aioftrackjobs import AsyncSession, Job, JobStatus
from aioftrackjobs.cli.arguments import parse_duration
from aioftrackjobs.devserver import ServerHandle
from aioftrackjobs.jobs.ownership import LEASE, Lease
from aioftrackjobs.journal import Entry, Owner, Process, this_process
from aioftrackjobs.journal._file import JournalFile

CLI = ("-m", "aioftrackjobs.cli", "recover")


async def test_lost_jobs_are_shown_then_failed(
    command: Callable[..., Any], server: ServerHandle, session: AsyncSession
) -> None:
    async def recover(*options: str) -> Any:
        ended = await run_sync(partial(command, "recover", *options, *where))
        assert ended.code == 0, ended.err
        return ended

    until = datetime.now(UTC) - timedelta(hours=1)
    lease = Lease("them", Process("farm07", 4711, "elsewhere", "1"), until).encode()
    data = {"description": "Render [red]\x1b[2J \x00" + 1000 * "x", LEASE: lease}
    lost = session.create(Job, {"status": "running", "data": data})
    unowned = session.create(Job, {"status": "running"})
    await session.commit()
    where = [
        *("--server", server.url),
        *("--api-user", server.api_user),
        *("--api-key", server.api_key),
    ]

    program = await recover("--dry-run")
    assert "2 running Jobs, 1 lost and would be marked failed." in program.out
    for text in ("[red]", "farm07", "unowned"):
        assert text in program.out
    assert "\x1b[2J" not in program.out
    assert program.out.count("x") < 400
    assert await _status(session, lost) is JobStatus.RUNNING

    program = await recover()
    assert "2 running Jobs, 1 lost and marked failed." in program.out
    assert await _status(session, lost) is JobStatus.FAILED
    assert await _status(session, unowned) is JobStatus.RUNNING

    program = await recover("--without-lease", "--older-than", "2h")
    assert await _status(session, unowned) is JobStatus.RUNNING
    program = await recover("--without-lease", "--older-than", "0s", "--user", "nobody")
    assert await _status(session, unowned) is JobStatus.RUNNING
    program = await recover("--without-lease", "--dry-run")
    assert "1 running Jobs, 1 lost and would be marked failed." in program.out
    program = await recover("--without-lease", "--older-than", "0s")
    assert await _status(session, unowned) is JobStatus.FAILED
    assert server.api_key not in program.out + program.err


async def test_a_dry_run_leaves_the_journal_alone(
    launch: Callable[..., Any],
    command: Callable[..., Any],
    server: ServerHandle,
    session: AsyncSession,
    ftrack: dict[str, str],
    tmp_path: Path,
) -> None:
    """Although the environment names a journal, which another session would deliver."""
    journal = tmp_path / "jobs.journal"
    dead = Process(this_process().host, 2**22 + 1, this_process().place, "1")
    lost = session.create(Job, {"status": "running"})
    await session.commit()
    file = JournalFile(journal, Owner("dead", dead, server.url, server.api_user))
    file.write(time.time(), [Entry("job", lost.id, "dead", time.time())], [])
    file.close()
    before = journal.read_bytes()
    environment = {**ftrack, "FTRACK_JOBS_JOURNAL": str(journal)}

    dry = await run_sync(partial(command, "recover", "--dry-run", env=environment))
    assert dry.code == 0, dry.err
    assert await _status(session, lost) is JobStatus.RUNNING
    assert journal.read_bytes() == before

    program = launch(*CLI, env=environment)
    assert await program.end() == 0, program.err
    assert await _status(session, lost) is JobStatus.FAILED


async def _status(session: AsyncSession, job: Job) -> JobStatus | str:
    found = await session.get(Job, job.id)
    assert found is not None
    return found.status


def test_an_invalid_duration_is_misuse(command: Callable[..., Any]) -> None:
    ended = command("recover", "--older-than", "soon")

    assert ended.code == 2
    assert "soon" in ended.err


def test_jobs_of_other_programs_fail_only_above_an_age(command: Callable[..., Any]) -> None:
    ended = command("recover", "--without-lease")

    assert ended.code == 2
    assert "--older-than" in ended.err


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("1.5h", 5400), ("30 m", 1800), ("2D", 172_800)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration("--grace", text).total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "5", "h", "-1h", "1h30m", "9999999999d", f"1{'0' * 400}s"])
def test_invalid_durations(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        parse_duration("--grace", text)
