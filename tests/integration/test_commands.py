"""Commands that a Python program runs: as a part of a Job, and as a Job of their own."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from aioftrackjobs import (
    ArgumentError,
    AsyncSession,
    CommandFailedError,
    Job,
    JobStoppedError,
    NoResultFoundError,
    TransferError,
    TransportError,
    job_context,
    run_command,
)
from aioftrackjobs.devserver import ServerHandle

from .outages import relayed
from .settings import connected
from .waiting import until


async def _job(session: AsyncSession) -> tuple[str, dict[str, Any]]:
    """Return the status and the data of the one Job that there is."""
    (job,) = await session.query("select status, data from Job").of(Job).all()
    assert job.data is not None
    return str(job["status"]), json.loads(job.data)


async def _attached(session: AsyncSession) -> list[str]:
    links = await session.query(
        "select component.name, component.file_type from JobComponent"
    ).all()
    return sorted(link["component"]["name"] + link["component"]["file_type"] for link in links)


def _sh(script: str) -> list[str]:
    return ["sh", "-c", script]


@pytest.mark.every_loop
async def test_command_is_a_part_of_a_job(session: AsyncSession) -> None:
    """Its progress is that of the stage that it runs in; it gets the id, and the variables."""
    async with job_context(session, description="Publish") as job:
        encode, _ = job.stage("encode", weight=3), job.stage("upload")
        async with encode:
            result = await job.run(
                _sh('echo "$FTRACK_JOB_ID $SHOW"; pwd; echo step 1 of 2'),
                progress=re.compile(r"step (\d+) of (\d+)"),
                env={"SHOW": "x"},
                cwd="/",
                quiet=True,
                log="always",
            )
            assert encode.fraction == 0.5

    assert (result.exit_code, result.reason, result.attempts) == (0, None, 1)
    assert result.log == f"{job.id} x\n/\nstep 1 of 2\n"
    assert (await _job(session))[0] == "done"
    assert await _attached(session) == ["sh.log"]


async def test_failed_command_fails_the_job(session: AsyncSession) -> None:
    """The log is attached, and no traceback: it would say nothing more."""
    with pytest.raises(CommandFailedError, match=r"^sh: exit code 7: no license$") as caught:
        async with job_context(session, description="Render") as job:
            await job.run(_sh("echo no license >&2; exit 7"), quiet=True)

    assert (caught.value.command, caught.value.exit_code) == ("sh", 7)
    status, data = await _job(session)
    assert status == "failed"
    assert data["description"].endswith("failed: CommandFailedError: sh: exit code 7: no license")
    assert await _attached(session) == ["sh.log"]


async def test_failures_of_all_kinds(session: AsyncSession) -> None:
    expected = {
        ("no-such-program",): (127, "no-such-program: not found"),
        ("/etc/passwd/x",): (127, "/etc/passwd/x: not found"),
        ("/etc/passwd",): (126, "/etc/passwd: Permission denied"),
        ("/",): (126, "/: Permission denied"),
        ("sh", "-c", "exit 255"): (255, "exit code 255"),
        ("sh", "-c", "kill -SEGV $$"): (139, "killed by SIGSEGV"),
        ("sleep", "60"): (143, "timed out after 0.1 s"),
        ("sh", "-c", "exec >&- 2>&-; sleep 60"): (143, "timed out after 0.1 s"),
    }
    found = {}
    async with job_context(session) as job:
        for command in expected:
            timeout = 0.1 if "sleep" in " ".join(command) else None
            result = await job.run(command, timeout=timeout, grace=9, check=False, log="never")
            found[command] = result.exit_code, result.reason
        missing = await job.run(["true"], cwd="/no/such/folder", check=False)

    assert found == expected
    assert (missing.exit_code, missing.reason) == (127, "/no/such/folder: not found")


@pytest.mark.every_loop
async def test_cancelled_task_ends_the_command(session: AsyncSession, tmp_path: Path) -> None:
    """It ends before the block does, with all its processes, even if it ignores SIGTERM."""
    pids = tmp_path / "pids"
    script = f"trap '' TERM; sleep 60 & echo $! $$ > {pids}; sleep 60; sleep 60"

    async def run() -> None:
        async with job_context(session, description="Cancelled") as job:
            await job.run(_sh(script), grace=0.2)

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        await until(lambda: pids.exists() and pids.read_text().endswith("\n"))
        group.cancel_scope.cancel()

    for pid in pids.read_text().split():
        assert not _runs(int(pid))
    assert (await _job(session))[0] == "failed"


def _runs(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


async def test_stop_request_ends_the_command(session: AsyncSession, other: AsyncSession) -> None:
    async def stop() -> None:
        await until(lambda: other.query('Job where status is "running"').all())
        (job,) = await other.query("Job").of(Job).all()
        await other.stop_job(job, "wrong shot", by="maya")

    command = _sh("while :; do echo openjd_progress: 5; sleep 0.01; done")
    async with anyio.create_task_group() as group:
        group.start_soon(stop)
        with pytest.raises(JobStoppedError, match="stopped by maya: wrong shot"):
            await run_command(session, command, quiet=True)
    assert (await _job(session))[0] == "failed"


@pytest.mark.every_loop
async def test_command_as_a_job_of_its_own(session: AsyncSession, tmp_path: Path) -> None:
    target = tmp_path / "result.txt"

    result = await run_command(
        session,
        _sh(f"echo openjd_progress: 100; echo x > {target}"),
        description="Deliver",
        attach=[str(tmp_path / "*.txt")],
        quiet=True,
    )

    assert result.exit_code == 0
    assert await _job(session) == ("done", {"description": "Deliver", "progress": 1.0})
    assert await _attached(session) == ["result.txt"]


async def test_no_shell_reads_the_arguments(session: AsyncSession) -> None:
    words = ["$HOME", "; exit 7", "`id`", "*", "a b", "> x"]
    code = "import sys; print(sys.argv[1:])"

    result = await run_command(session, [sys.executable, "-c", code, *words], log="always")

    assert (result.exit_code, result.log) == (0, f"{words}\n")


async def test_retries_until_it_succeeds(session: AsyncSession, tmp_path: Path) -> None:
    tries = tmp_path / "tries"

    result = await run_command(
        session, _sh(f"echo x >> {tries}; [ $(wc -l < {tries}) = 3 ]"), retries=5, quiet=True
    )

    assert (result.exit_code, result.attempts) == (0, 3)
    assert (await _job(session))[0] == "done"


async def test_job_is_delivered_later(server: ServerHandle, tmp_path: Path) -> None:
    """The server cannot be reached while the command runs; a later session creates its Job."""
    journal = tmp_path / "journal"
    async with anyio.create_task_group() as group, relayed(server.url) as line:
        await line.begin("refuses")
        async with connected(server, line.url, journal=journal) as session:
            result = await run_command(
                session, _sh("echo bad >&2; exit 9"), description="Kept", grace=0.1, quiet=True
            )
        assert result.exit_code == 9
        assert server.inspector.jobs() == []

        await line.end(group)
        async with connected(server, line.url, journal=journal):
            await until(server.inspector.jobs)
        assert len(server.inspector.jobs()) == 1
        group.cancel_scope.cancel()
    async with connected(server) as session:
        status, data = await _job(session)
        assert status == "failed"
        assert data["description"] == "Kept - failed: exit code 9: bad"
        assert await _attached(session) == ["sh.log"]
        (link,) = await session.query("select component from JobComponent").all()
        await session.download(link["component"], tmp_path / "log")
        assert (tmp_path / "log").read_text() == "bad\n"


async def test_job_is_delivered_later_without_its_log(
    server: ServerHandle,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A server that does not take the file gets the Job all the same."""

    async def refuse(*_: Any, **__: Any) -> None:
        raise TransferError("the disk is full")

    journal = tmp_path / "journal"
    async with anyio.create_task_group() as group, relayed(server.url) as line:
        await line.begin("refuses")
        async with connected(server, line.url, journal=journal) as session:
            await run_command(session, _sh("echo bad; exit 9"), grace=0.1, quiet=True)
        await line.end(group)
        monkeypatch.setattr("aioftrackjobs.transfers.upload.upload", refuse)
        async with connected(server, line.url, journal=journal):
            await until(server.inspector.jobs)
        group.cancel_scope.cancel()

    assert [job["status"] for job in server.inspector.jobs()] == ["failed"]
    assert "its log was not attached: the disk is full" in caplog.text


async def test_job_begins_when_the_server_is_back(server: ServerHandle, tmp_path: Path) -> None:
    """The command runs meanwhile; then the Job shows what it has reported."""
    ready, go = tmp_path / "ready", tmp_path / "go"
    script = f"echo openjd_progress: 60; touch {ready}; until [ -e {go} ]; do sleep 0.02; done"
    async with anyio.create_task_group() as group, relayed(server.url) as line:
        await line.begin("refuses")
        async with connected(server, line.url) as session, anyio.create_task_group() as running:
            running.start_soon(lambda: run_command(session, _sh(script), quiet=True))
            await until(ready.exists)
            await line.end(group)
            await until(lambda: "'progress': 0.6" in str(server.inspector.jobs()))
            go.touch()
        group.cancel_scope.cancel()
    async with connected(server) as session:
        assert (await _job(session))[0] == "done"


async def test_command_that_must_not_run_without_a_job(
    server: ServerHandle, session: AsyncSession, tmp_path: Path
) -> None:
    started = tmp_path / "started"
    with pytest.raises(NoResultFoundError):
        await run_command(
            session, ["touch", str(started)], job="7a0e1a10-0000-4000-8000-00000000000a"
        )
    async with relayed(server.url) as line:
        await line.begin("refuses")
        async with connected(server, line.url, timeout=1) as cut_off:
            with anyio.move_on_after(0.2), pytest.raises(TransportError):
                await run_command(cut_off, ["touch", str(started)], require_ftrack=True)

    assert not started.exists()
    assert server.inspector.jobs() == []


async def test_child_waits_for_its_job(
    session: AsyncSession, other: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command starts before its Job is created, and may join it at once."""
    job_id = "7a0e1a10-0000-4000-8000-00000000000b"
    monkeypatch.setenv("FTRACK_JOB_ID", job_id)
    joined = anyio.Event()

    async def join() -> None:
        async with job_context(other, job=job_id, join=True):
            joined.set()

    async with anyio.create_task_group() as group:
        group.start_soon(join)
        await anyio.lowlevel.checkpoint()
        async with job_context(session, new_id=job_id):
            await joined.wait()


@pytest.mark.parametrize(
    ("arguments", "options", "problem"),
    [
        ("ls -l", {}, "arguments must be a program and its arguments"),
        ([], {}, "arguments must be a program and its arguments"),
        (["ls", 5], {}, "arguments must be texts or paths"),
        (["ls", "a\0b"], {}, "without the character NUL"),
        (["ls"], {"env": {"A=B": "c"}}, "env must be a mapping of texts"),
        (["ls"], {"env": {"A": 1}}, "env must be a mapping of texts"),
        (["ls"], {"progress": "blender"}, "no preset; there are alfred"),
        (["ls"], {"progress": re.compile("x")}, "has 0 groups"),
        (["ls"], {"frames": "9-1"}, "no range of frames"),
        (["ls"], {"timeout": 0}, "timeout must be"),
        (["ls"], {"grace": -1}, "grace must be"),
        (["ls"], {"retries": -1}, "retries must be"),
        (["ls"], {"duration": 0}, "duration must be"),
        (["ls"], {"log": "sometimes"}, "log must be 'always' or 'failure' or 'never'"),
        (["ls"], {"attach": "*.mov"}, "attach must be a list of patterns"),
    ],
)
async def test_wrong_argument_starts_nothing(
    session: AsyncSession,
    server: ServerHandle,
    arguments: Any,
    options: dict[str, Any],
    problem: str,
) -> None:
    with pytest.raises(ArgumentError, match=problem):
        await run_command(session, arguments, **options)
    assert server.inspector.jobs() == []


async def test_output_is_bounded_and_passes_on(
    session: AsyncSession, capfd: pytest.CaptureFixture[str]
) -> None:
    """A line of many megabytes, no end of a line, and bytes that are no text."""
    code = "import os\nfor n in range(64): os.write(1, b'x' * 65536)\nos.write(2, b'\\xff\\xfe\\n')"

    result = await run_command(session, [sys.executable, "-c", code], log="always")

    out, err = capfd.readouterr()
    assert (result.exit_code, len(out), err) == (0, 64 * 65536, "\ufffd\ufffd\n")
    assert 65536 <= len(result.log) < 3 * 65536
    assert await _attached(session) == [f"{Path(sys.executable).name}.log"]
