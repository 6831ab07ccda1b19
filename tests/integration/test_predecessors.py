"""What a session finds of its predecessors in the journal, and cleans up at its start."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from uuid import uuid4

import anyio
import pytest

from aioftrackjobs import AsyncSession, JobStatus
from aioftrackjobs.config.settings import server_identity
from aioftrackjobs.devserver import ServerHandle
from aioftrackjobs.journal import Entry, Owner, Process, this_process
from aioftrackjobs.journal._file import JournalFile
from aioftrackjobs.journal._presence import PresenceLock, _is_locked
from aioftrackjobs.session import jobs_of

from .journals import journaled
from .test_process_ends import line
from .test_recovery import daemon, fetch, running_jobs
from .waiting import until

pytestmark = pytest.mark.skipif(not this_process().place, reason="the system does not tell")

HERE = this_process()
#: A boot of the kernel before, or of another one.
ANOTHER_BOOT = f"{uuid4()} pid:[4026531836]"

DAEMON = """
    import os, sys
    import anyio
    from aioftrackjobs import AsyncSession, job_context
    from aioftrackjobs.journal import _process

    async def main():
        async with AsyncSession() as session, job_context(session, description="x") as job:
            print(job.id, flush=True)
            FINALLY

    PLACE
    anyio.run(main, backend="BACKEND")
"""


def program(end: str, place: str = "pass", backend: str = "asyncio") -> str:
    return DAEMON.replace("FINALLY", end).replace("PLACE", place).replace("BACKEND", backend)


def in_container(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start Python in a namespace of process ids of its own, as containers have."""
    unshare = shutil.which("unshare")
    command = [str(unshare), "--pid", "--fork", "--mount-proc", "--kill-child"]
    if unshare is None or subprocess.run([*command, "true"], check=False).returncode:
        pytest.skip("namespaces are not permitted")
    python = sys.executable

    async def start(arguments: list[str], **options: object) -> anyio.abc.Process:
        return await open_process([*command, python, *arguments[1:]], **options)  # type: ignore[arg-type]

    open_process = anyio.open_process
    monkeypatch.setattr(anyio, "open_process", start)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
async def test_a_container_that_ended_is_cleaned_up_after_at_once(
    server: ServerHandle,
    session: AsyncSession,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    backend: str,
) -> None:
    in_container(monkeypatch)
    code = program("os._exit(9)", backend=backend)
    async with daemon(server, tmp_path / "journal", code=code) as process:
        job_id = await line(process)
        await process.wait()
    assert (await fetch(session, job_id)).status is JobStatus.RUNNING

    async with journaled(server, tmp_path / "journal") as later:
        await jobs_of(later).replay.deliver()
        assert (await fetch(session, job_id)).status is JobStatus.FAILED


async def test_a_container_that_lives_is_left_alone(
    server: ServerHandle, session: AsyncSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_container(monkeypatch)
    code = program("await anyio.sleep_forever()")
    async with daemon(server, tmp_path / "journal", code=code) as process:
        job_id = await line(process)
        async with journaled(server, tmp_path / "journal") as later:
            await jobs_of(later).replay.deliver()
            assert (await fetch(session, job_id)).status is JobStatus.RUNNING
            process.kill()
            await settled(later)
            assert (await fetch(session, job_id)).status is JobStatus.FAILED


async def test_a_reboot_is_cleaned_up_after_at_once(
    server: ServerHandle, session: AsyncSession, tmp_path: Path
) -> None:
    code = program("os._exit(9)", f"_process._read_place = lambda: {ANOTHER_BOOT!r}")
    async with daemon(server, tmp_path / "journal", code=code) as process:
        await process.wait()
    assert await running_jobs(session)

    async with journaled(server, tmp_path / "journal") as later:
        await jobs_of(later).replay.deliver()
        assert await running_jobs(session) == []


RESTARTED = """
import anyio
from aioftrackjobs import AsyncSession, job_context
from aioftrackjobs.session import jobs_of

async def main():
    async with AsyncSession() as session, job_context(session, description="again"):
        await jobs_of(session).replay.deliver()
        print("delivered", flush=True)
        await anyio.sleep_forever()

anyio.run(main)
"""


async def test_a_program_that_replaces_itself_cleans_up_after_its_former_self(
    server: ServerHandle, session: AsyncSession, tmp_path: Path
) -> None:
    """Such a restart keeps the process: its id and its start time."""
    end = f"os.execv(sys.executable, [sys.executable, '-c', {RESTARTED!r}])"
    async with daemon(server, tmp_path / "journal", code=program(end)) as process:
        job_id = await line(process)
        assert await line(process) == "delivered"
        assert (await fetch(session, job_id)).status is JobStatus.FAILED
        (left,) = await running_jobs(session)
        assert left.description == "again"
        process.kill()


async def settled(later: AsyncSession) -> None:
    """Wait until the journal has been delivered, which sees a death only after it."""

    async def is_settled() -> bool:
        await jobs_of(later).replay.deliver()
        return not await running_jobs(later)

    await until(is_settled)


# One journal, without a server


@contextmanager
def opened(
    path: Path,
    token: str,
    process: Process = HERE,
) -> Iterator[JournalFile]:
    with closing(JournalFile(path, Owner(token, process, "http://s", "maya"))) as file:
        lock = PresenceLock(token)
        lock.hold(file.log_path)
        yield file
        lock.release()


def claimed(path: Path) -> tuple[set[str], bool]:
    with opened(path, "me") as file:
        found, is_undecided = file.claim(time.time())
    return {entry.id for entry in found}, is_undecided


@pytest.mark.parametrize(
    ("one", "another", "is_same"),
    [
        ("http://127.0.0.1:8000", "HTTP://LocalHost:8000/", True),
        ("http://127.0.0.1:8000", "http://[::1]:8000", True),
        ("http://127.0.0.1:8000", "http://[0:0:0:0:0:0:0:1]:8000", True),
        ("http://127.0.0.1:8000", "http://127.1:8000", True),
        ("http://[2001:db8::1]", "http://[2001:DB8:0::0001]:80/", True),
        ("https://Studio.example", "https://studio.example.:443//", True),
        ("https://studio.example", "http://studio.example", True),
        ("https://studio.example/ftrack", "https://studio.example/ftrack/", True),
        ("https://b\xfccher.example", "https://xn--bcher-kva.example", True),
        ("https://studio.example", "https://studio.example:8443", False),
        ("http://studio.example:443", "http://studio.example", False),
        ("https://studio.example/a", "https://studio.example/A", False),
        ("https://studio.example", "https://other.example", False),
        ("http://127.0.0.1", "http://127.0.0.2", False),
    ],
)
def test_spellings_of_a_servers_address(one: str, another: str, is_same: bool) -> None:
    assert (server_identity(one) == server_identity(another)) is is_same


async def test_another_spelling_of_the_servers_address_is_the_same_server(
    server: ServerHandle, session: AsyncSession, tmp_path: Path
) -> None:
    async with daemon(server, tmp_path / "journal", code=program("os._exit(9)")) as process:
        await process.wait()
    assert await running_jobs(session)
    port = server.url.rpartition(":")[2]
    async with AsyncSession(
        f"HTTP://LocalHost:{port}/",
        server.api_key,
        server.api_user,
        journal=tmp_path / "journal",
    ) as later:
        await jobs_of(later).replay.deliver()
        assert await running_jobs(session) == []


def leave(path: Path, process: Process, *, age: float = 0.0) -> None:
    """Leave a Job in a journal, as a process that ends and closes nothing."""
    with opened(path, "them", process) as file:
        file.write(time.time() - age, [Entry("job", "a", "them", time.time())], [])


ANOTHER_CONTAINER = HERE._replace(place=f"{HERE.boot} pid:[1]")
ANOTHER_HOST = HERE._replace(host="farm07", place=ANOTHER_BOOT)


@pytest.mark.parametrize(
    ("process", "age", "is_gone"),
    [
        pytest.param(ANOTHER_CONTAINER, 0.0, True, id="container"),
        pytest.param(HERE._replace(place=ANOTHER_BOOT), 0.0, True, id="boot"),
        pytest.param(ANOTHER_HOST, 1e9, True, id="boot-under-another-name"),
        pytest.param(ANOTHER_HOST, 0.0, False, id="another-host"),
        pytest.param(HERE._replace(host="farm07", place="no boot"), 1e9, False, id="unknown"),
        pytest.param(HERE._replace(host="farm07", place=""), 1e9, False, id="another-system"),
    ],
)
def test_evidence_that_a_session_is_gone(
    tmp_path: Path, process: Process, age: float, is_gone: bool
) -> None:
    leave(tmp_path / "journal", process, age=age)

    assert claimed(tmp_path / "journal") == (({"a"}, False) if is_gone else (set(), True))


def test_a_lock_shows_a_session_in_another_container(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with opened(path, "them", ANOTHER_CONTAINER) as theirs:
        theirs.write(time.time() - 1e9, [Entry("job", "a", "them", time.time())], [])
        assert claimed(path) == (set(), True)
    assert claimed(path) == ({"a"}, False)


def test_where_no_lock_can_be_seen_silence_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aioftrackjobs.journal._presence._is_locked", lambda *_: False)
    leave(tmp_path / "journal", ANOTHER_CONTAINER)

    assert claimed(tmp_path / "journal") == (set(), True)


def test_a_lock_moves_with_the_file(tmp_path: Path) -> None:
    """A journal that was deleted is made anew, and its session writes to that one."""
    with opened(tmp_path / "old", "me") as old, opened(tmp_path / "new", "you") as new:
        lock = PresenceLock("them")
        lock.hold(old.log_path)
        assert (_is_locked(old._log, "them"), _is_locked(new._log, "them")) == (True, False)
        lock.hold(new.log_path)
        assert (_is_locked(old._log, "them"), _is_locked(new._log, "them")) == (False, True)
        lock.release()
        assert not _is_locked(new._log, "them")
