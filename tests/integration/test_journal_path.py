"""Where a journal can be: paths that are wrong, and file systems that lack something."""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from aioftrackjobs import AsyncSession, ConfigurationError, job_context
from aioftrackjobs.config.timings import Timings
from aioftrackjobs.devserver import ServerHandle
from aioftrackjobs.journal import Journal
from aioftrackjobs.journal._file import JournalFile

from .journals import entries, journaled, opened
from .waiting import until

# Wrong paths


def no_folder(folder: Path) -> Path:
    return folder / "missing" / "jobs.journal"


def folder(folder: Path) -> Path:
    return folder


def in_a_file(folder: Path) -> Path:
    (folder / "file").write_text("")
    return folder / "file" / "jobs.journal"


def long_name(folder: Path) -> Path:
    return folder / ("j" * 300)


def name_too_long_for_sqlite(folder: Path) -> Path:
    return folder / ("j" * 250)


def path_too_long_for_sqlite(folder: Path) -> Path:
    deep = folder.joinpath(*["d" * 120] * 6)
    deep.mkdir(parents=True)
    return deep / "jobs.journal"


def device(_: Path) -> Path:
    return Path(os.devnull)


def pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pipe")
    return folder / "pipe"


def loop(folder: Path) -> Path:
    (folder / "loop").symlink_to(folder / "loop")
    return folder / "loop"


def link_into_nothing(folder: Path) -> Path:
    (folder / "link").symlink_to(folder / "missing" / "jobs.journal")
    return folder / "link"


def null_byte(folder: Path) -> Path:
    return folder / "jobs\0.journal"


def of_nobody(_: Path) -> Path:
    return Path("~no such user/jobs.journal")


@pytest.mark.parametrize(
    "make",
    [
        no_folder,
        folder,
        in_a_file,
        long_name,
        name_too_long_for_sqlite,
        path_too_long_for_sqlite,
        device,
        pipe,
        loop,
        link_into_nothing,
        null_byte,
        of_nobody,
    ],
)
async def test_a_path_that_can_hold_no_journal_is_named(
    server: ServerHandle, tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    path = make(place)
    before = set(place.rglob("*"))

    with pytest.raises(ConfigurationError, match="journal") as caught:
        async with journaled(server, path):
            pytest.fail("it was opened")

    assert str(path) in str(caught.value) or repr(str(path)) in str(caught.value)
    if make is not path_too_long_for_sqlite:
        assert set(place.rglob("*")) == before, "something was left"


async def test_the_error_says_which_folder_is_missing(server: ServerHandle, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=f"there is no folder {tmp_path / 'missing'}"):
        async with journaled(server, no_folder(tmp_path)):
            pass


async def test_a_session_whose_journal_was_wrong_can_be_opened_later(
    server: ServerHandle, tmp_path: Path
) -> None:
    path = no_folder(tmp_path)
    session = AsyncSession(server.url, server.api_key, server.api_user, journal=path)
    with pytest.raises(ConfigurationError):
        await session.__aenter__()
    path.parent.mkdir()
    async with session, job_context(session) as job:
        assert entries(path) == {job.id: None}


@pytest.fixture
def as_nobody() -> Iterator[None]:
    """Have the rights of a user that is not root."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield
    os.seteuid(user)


def protected_folder(folder: Path) -> Path:
    folder.chmod(0o755)
    return folder / "jobs.journal"


def protected_file(folder: Path) -> Path:
    (folder / "jobs.journal").write_bytes(b"")
    folder.chmod(0o777)
    (folder / "jobs.journal").chmod(0o444)
    return folder / "jobs.journal"


def writable_file_in_protected_folder(folder: Path) -> Path:
    (folder / "jobs.journal").write_bytes(b"")
    (folder / "jobs.journal").chmod(0o666)
    folder.chmod(0o555)
    return folder / "jobs.journal"


def hidden_folder(folder: Path) -> Path:
    (folder / "hidden").mkdir(mode=0o000)
    folder.chmod(0o755)
    return folder / "hidden" / "jobs.journal"


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that every user can reach."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        (Path(name) / "place").mkdir()
        yield Path(name) / "place"


@pytest.mark.skipif(os.name == "nt", reason="there are no such modes")
@pytest.mark.parametrize(
    "make", [protected_folder, protected_file, writable_file_in_protected_folder, hidden_folder]
)
async def test_a_journal_that_may_not_be_written_is_named(
    server: ServerHandle,
    public: Path,
    make: Callable[[Path], Path],
    request: pytest.FixtureRequest,
) -> None:
    path = make(public)
    request.getfixturevalue("as_nobody")

    with pytest.raises(ConfigurationError, match="journal") as caught:
        async with journaled(server, path):
            pytest.fail("it was opened")

    assert str(path) in str(caught.value)


def fail_with(number: int) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> Any:
        raise OSError(number, os.strerror(number))

    return fail


async def test_a_read_only_file_system_is_named(
    server: ServerHandle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "mkstemp", fail_with(errno.EROFS))
    with pytest.raises(ConfigurationError, match="Read-only file system"):
        async with journaled(server, tmp_path / "jobs.journal"):
            pass


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
async def test_a_disk_that_is_full_or_fails_is_a_warning_and_tried_again(
    server: ServerHandle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    number: int,
) -> None:
    path = tmp_path / "jobs.journal"
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "mkstemp", fail_with(number))
        async with journaled(server, path, timings=Timings(journal_retry=0.05)) as session:
            async with job_context(session) as job:
                await until(lambda: session.health.journal == "failing")
                patch.undo()
                await until(lambda: entries(path) == {job.id: None})
    assert os.strerror(number) in caplog.text


async def test_a_disk_that_hangs_delays_the_opening_for_a_limited_time(
    server: ServerHandle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    hung: list[bool] = []

    def hang(_: Path) -> None:
        hung.append(not go_on.wait(20))

    monkeypatch.setattr("aioftrackjobs.journal._place.find_problem", hang)
    async with journaled(
        server, tmp_path / "jobs.journal", timings=Timings(journal_stall_limit=0.1)
    ):
        go_on.set()

    await until(lambda: hung)
    assert hung == [False], "the opening waited for the disk"


# Paths that mean something else later


async def test_a_relative_path_stays_the_same(
    server: ServerHandle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    monkeypatch.chdir(first)
    session = AsyncSession(server.url, server.api_key, server.api_user, journal="jobs.journal")
    monkeypatch.chdir(second)
    async with session, job_context(session) as job:
        assert entries(first / "jobs.journal") == {job.id: None}
    assert list(second.iterdir()) == []


async def test_a_tilde_is_the_home_directory(
    server: ServerHandle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    async with journaled(server, Path("~/jobs.journal")) as session, job_context(session) as job:
        assert entries(tmp_path / "jobs.journal") == {job.id: None}


@pytest.mark.parametrize("value", ["", "  "])
async def test_an_empty_variable_is_no_journal(
    server: ServerHandle, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("FTRACK_JOBS_JOURNAL", value)
    async with AsyncSession(server.url, server.api_key, server.api_user) as session:
        assert session.health.journal == "off"


async def test_a_link_to_a_file_that_is_not_there_makes_that_file(
    server: ServerHandle, tmp_path: Path
) -> None:
    target = tmp_path / "target.journal"
    (tmp_path / "link").symlink_to(target)
    async with journaled(server, tmp_path / "link") as session, job_context(session) as job:
        assert entries(target) == {job.id: None}
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


# File systems that lack something


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EPERM, "Operation not permitted"),
        OSError(errno.EOPNOTSUPP, "Operation not supported"),
        OSError(errno.ENOSYS, "Function not implemented"),
        PermissionError(errno.EACCES, "Permission denied"),
        NotImplementedError("os.link"),
    ],
    ids=lambda error: type(error).__name__ + str(getattr(error, "errno", "")),
)
async def test_a_journal_needs_no_hard_links(
    server: ServerHandle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    path = tmp_path / "jobs.journal"

    def link(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(os, "link", link)
    async with journaled(server, path) as session:
        async with job_context(session) as job:
            assert entries(path) == {job.id: None}
        async with journaled(server, path) as other, job_context(other) as second:
            assert second.id in entries(path)
        assert session.health.journal == "working"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["jobs.journal"]


async def test_a_file_system_without_shared_memory_is_a_warning(
    server: ServerHandle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    connect: Callable[..., sqlite3.Connection] = sqlite3.connect

    def connect_without(path: Path | str, **options: Any) -> sqlite3.Connection:
        if not isinstance(path, Path) or path.name != "jobs.journal":  # it is only made, or read
            return connect(path, **options)
        return connect(f"{path.as_uri()}?vfs=unix-dotfile", uri=True, **options)

    monkeypatch.setattr(sqlite3, "connect", connect_without)
    async with journaled(server, tmp_path / "jobs.journal") as session, job_context(session):
        assert session.health.journal == "failing"
    assert "use a local disk" in caplog.text


# Wake-ups


async def test_wake_ups_of_the_writer_do_not_pile_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer is never idle: while it writes, there is always a task that waits for the next."""
    write = JournalFile.write
    batches = 0

    def count(self: JournalFile, *args: Any) -> None:
        nonlocal batches
        batches += 1
        write(self, *args)

    monkeypatch.setattr(JournalFile, "write", count)
    most = 0

    async def run(journal: Journal, name: str) -> None:
        nonlocal most
        number = 0
        while batches < 200:
            number += 1
            assert await journal.record_job(f"{name} {number}")
            journal.release_job(f"{name} {number}")
            most = max(most, journal._ledger._wakeups.qsize())

    with anyio.fail_after(30):
        async with opened(tmp_path / "jobs.journal") as journal:
            async with anyio.create_task_group() as group:
                for name in "abcdefgh":
                    group.start_soon(run, journal, name)

    assert most <= 3
