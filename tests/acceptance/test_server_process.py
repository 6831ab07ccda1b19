"""A server in a process of its own: after a crash it has all the data that it had committed."""

from __future__ import annotations

import socket
import subprocess
import sys
import textwrap
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from anyio.to_thread import run_sync

from aioftrackjobs import CommitUncertainError, Job, job_context
from aioftrackjobs.config.retry import NO_RETRIES
from aioftrackjobs.testing import ServerProcess, ServerProcessError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")


async def test_committed_data_survives_kill_and_restart(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "server") as server:
        credentials = server.credentials
        async with server.session() as session:
            async with job_context(session, description="Before") as before:
                await before.attach(b"bytes that stay", name="kept.txt")
            await run_sync(server.kill)
            assert not server.is_alive
            await run_sync(server.start)
            async with job_context(session, description="After") as after:
                await run_sync(server.restart)
            jobs = {job.id: str(job.status) for job in await session.query("Job").of(Job).all()}

        assert server.credentials == credentials
        assert jobs == {before.id: "done", after.id: "done"}
    assert not server.is_alive


async def test_power_is_lost_by_a_fault_after_the_commit(tmp_path: Path) -> None:
    options = ["lose-power-after:1x:on=writes"]
    with ServerProcess(tmp_path, faults=options, seed=3, api_user="farm") as server:
        async with server.session(retry=NO_RETRIES) as session:
            session.create("Job", {"user": await session.current_user(), "status": "done"})
            with pytest.raises(CommitUncertainError):
                await session.commit()
            await run_sync(server.wait)
            assert not server.is_alive
            await run_sync(server.start)

            assert len(await session.query("Job").all()) == 1
            assert session.api_user == "farm"
    assert server.seed == 3


async def test_entities_are_read_without_network_and_faults(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "server", faults=["hang:1.0:on=downloads"]) as server:
        async with server.session() as session:
            async with job_context(session) as job:
                await job.attach(b"all of it", name="kept.txt")
        await run_sync(server.restart)

        (held,) = server.jobs()
        assert (held["id"], held["status"]) == (job.id, "done")
        assert server.job(job) == held
        (file,) = held["attachments"]
        assert server.content(file["id"]) == b"all of it"
        assert held["created_at"].tzinfo is not None
        with pytest.raises(LookupError, match="holds no Job missing"):
            server.job("missing")
        with pytest.raises(ServerProcessError, match="line 1, column 16"):
            server.find("Job where where")
        with pytest.raises(ServerProcessError, match="no file"):
            server.content(job.id)

        server.kill()
        with pytest.raises(ServerProcessError, match=r"call start\(\)"):
            server.jobs()


def test_it_ends_with_the_process_that_made_it(tmp_path: Path) -> None:
    code = f"""
        import os
        from aioftrackjobs.testing import ServerProcess
        server = ServerProcess({str(tmp_path)!r})
        server.start()
        print(server.url, flush=True)
        os._exit(0)
    """
    program = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(program, stdout=subprocess.PIPE, text=True, check=True)
    address = urlsplit(done.stdout.strip())
    assert address.port is not None
    deadline = time.monotonic() + 20
    with pytest.raises(ConnectionRefusedError):
        while time.monotonic() < deadline:
            with suppress(ConnectionResetError):  # it ends at this very moment
                socket.create_connection(("127.0.0.1", address.port)).close()


def test_process_that_was_never_started_says_so() -> None:
    with pytest.raises(ServerProcessError, match=r"call start\(\)"):
        _ = ServerProcess("nowhere").url


def test_start_that_fails_says_why(tmp_path: Path) -> None:
    (tmp_path / "ftrack.db").write_text("this is no database, and long enough to be sure" * 20)

    for options, reason in [({}, "not a database"), ({"faults": ["dorp"]}, "did you mean drop")]:
        server = ServerProcess(tmp_path, **options)  # type: ignore[arg-type]
        with pytest.raises(ServerProcessError, match=reason):
            server.start()
        assert not server.is_alive


def test_process_that_dies_before_it_is_ready_shows_its_last_message(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, colour="blue")

    with pytest.raises(ServerProcessError, match="colour"):
        server.start()
    assert "Traceback" in server.log


def test_key_is_neither_shown_nor_in_a_command_line(tmp_path: Path) -> None:
    with ServerProcess(tmp_path, api_key="a-chosen-key") as server:
        assert server.api_key == "a-chosen-key"
        assert server._process is not None
        assert "a-chosen-key" not in repr(server) + str(server._process.args)
