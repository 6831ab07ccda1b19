"""The journal: what is durable when, and how a session works on when its journal fails."""

from __future__ import annotations

import json
import logging
import os
import resource
import sqlite3
import stat
import threading
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import anyio.lowlevel
import pytest

from aioftrackjobs import AsyncSession, FileComponent, Job, JobStatus, job_context
from aioftrackjobs.config.retry import NO_RETRIES
from aioftrackjobs.config.timings import Timings
from aioftrackjobs.devserver import ServerHandle
from aioftrackjobs.errors import ConnectError
from aioftrackjobs.journal import Entry, Journal, Owner, this_process
from aioftrackjobs.journal import _journal as journal_module
from aioftrackjobs.journal._file import JournalFile
from aioftrackjobs.session import connection_of, jobs_of
from aioftrackjobs.transport import WireRequest, WireResponse

from .journals import DEAD, Watch, entries, journaled, opened
from .relay import Relay, Send
from .waiting import until


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.journal"


def journal_of(session: AsyncSession) -> str:
    return session.health.journal


def hang(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Let the disk hang from now on, until the event that is returned is set."""
    go_on = threading.Event()
    write = JournalFile.write

    def hanging(self: JournalFile, *args: Any) -> None:
        go_on.wait()
        write(self, *args)

    monkeypatch.setattr(JournalFile, "write", hanging)
    return go_on


@pytest.mark.other_client
async def test_each_step_is_durable_before_its_request(
    server: ServerHandle, other: AsyncSession, path: Path
) -> None:
    async with journaled(server, path) as session:
        user = await session.current_user()
        watch = Watch(session, path)
        async with job_context(session, user=user, description="x") as job:
            await job.attach(b"abc", name="a.txt")

        ((_, held),) = [
            (each, held) for each, held in watch.writes("create") if each["entity_type"] == "Job"
        ]
        assert held[job.id] is None
        ((each, held),) = watch.writes("get_upload_metadata")
        assert each["component_id"] in held
        (last,) = [held for each, held in watch.writes("update") if "status" in each["entity_data"]]
        assert json.loads(last[job.id] or "")["status"] == "done"

    assert entries(path) == {}
    found = await other.get(Job, job.id)
    assert found is not None
    assert found.status is JobStatus.DONE


@pytest.mark.skipif(os.name == "nt", reason="there are no such modes")
async def test_the_file_is_for_its_owner_and_without_the_key(
    server: ServerHandle, path: Path
) -> None:
    async with journaled(server, path) as session:
        watch = Watch(session, path)
        async with job_context(session, description=f"x {server.api_key}") as job:
            job.fail(f"refused {server.api_key}")
        assert watch.writes("update")
        for file in path.parent.iterdir():
            assert server.api_key.encode() not in file.read_bytes()
            assert stat.S_IMODE(file.stat().st_mode) == 0o600


async def test_the_environment_names_a_journal(
    server: ServerHandle, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FTRACK_JOBS_JOURNAL", str(path))
    async with AsyncSession(server.url, server.api_key, server.api_user) as session:
        async with job_context(session) as job:
            await until(lambda: entries(path) == {job.id: None})
            assert session.health.journal == "working"


async def test_a_job_that_never_began_leaves_nothing(server: ServerHandle, path: Path) -> None:
    async with journaled(server, path, retry=NO_RETRIES) as session:
        user = await session.current_user()
        watch = Watch(session, path)
        watch.away = True
        with pytest.raises(ConnectError):
            async with job_context(session, user=user):
                pytest.fail("it has not begun")
    assert entries(path) == {}


async def test_each_of_many_jobs_that_begin_together_is_written_before_it_goes_on(
    path: Path,
) -> None:
    async def begin(journal: Journal, job_id: str) -> None:
        assert await journal.record_job(job_id)
        assert job_id in entries(path)

    async with opened(path) as journal:
        for turn in range(3):
            async with anyio.create_task_group() as group:
                for number in range(50):
                    group.start_soon(begin, journal, f"{turn}-{number}")
        assert len(entries(path)) == 150


async def test_a_job_that_is_cancelled_before_it_has_an_entry_leaves_none(
    server: ServerHandle, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with journaled(server, path) as session:
        user = await session.current_user()
        async with job_context(session, user=user) as running:
            go_on = hang(monkeypatch)
            with anyio.move_on_after(0.05) as scope:
                async with job_context(session, user=user):
                    pytest.fail("it has not begun")
            assert scope.cancelled_caught
            go_on.set()
            async with job_context(session, user=user) as another:
                await until(lambda: entries(path).keys() == {running.id, another.id})


# An outage: see also test_outage.py


async def test_a_later_session_delivers_the_final_status(
    server: ServerHandle, other: AsyncSession, path: Path
) -> None:
    async with journaled(server, path, retry=NO_RETRIES) as session:
        user = await session.current_user()
        watch = Watch(session, path)
        async with job_context(session, user=user, description="x", grace=0.05) as job:
            job.fail("black frames")
            watch.away = True
        assert session.health.final_reports_pending == 1

    async with journaled(server, path) as later:
        await until(lambda: not entries(path))
        assert later.health.is_good
    found = await other.get(Job, job.id)
    assert found is not None
    assert (found.status, found.description) == (JobStatus.FAILED, "x - failed: black frames")


async def test_without_a_journal_a_final_status_that_is_not_delivered_raises(
    server: ServerHandle,
) -> None:
    async with AsyncSession(
        server.url, server.api_key, server.api_user, retry=NO_RETRIES
    ) as session:
        user = await session.current_user()

        async def away(_: WireRequest, __: Send) -> WireResponse:
            raise ConnectError("away")

        with pytest.raises(ConnectError):
            async with job_context(session, user=user, grace=0.05):
                Relay(session, away)
        assert session.health.journal == "off"


# Faults of the file


async def test_a_file_at_fault_is_one_warning_and_the_jobs_are_reported(
    server: ServerHandle,
    other: AsyncSession,
    path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with journaled(server, path) as session:
        for file in path.parent.glob(f"{path.name}*"):
            file.unlink()
        path.mkdir()
        await until(lambda: journal_of(session) == "failing")
        for _ in range(3):
            async with job_context(session, description="x") as job:
                await job.attach(b"abc", name="a.txt")
            found = await other.get(Job, job.id)
            assert found is not None
            assert found.status is JobStatus.DONE
        assert journal_of(session) == "failing"
        assert session.health.journal_problem

    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert str(path) in warnings[0].getMessage()
    assert server.api_key not in caplog.text


async def test_a_full_disk_is_one_warning_and_what_is_still_true_is_written_later(
    server: ServerHandle,
    path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, limits[1]))
    try:
        async with journaled(server, path, timings=Timings(journal_retry=0.05)) as session:
            async with job_context(session, description="x"):
                pass
            async with job_context(session, description="y") as job:
                assert journal_of(session) == "failing"
                resource.setrlimit(resource.RLIMIT_FSIZE, limits)
                await until(lambda: journal_of(session) == "working")
                await until(lambda: entries(path) == {job.id: None})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    texts = [record.getMessage() for record in caplog.records if record.name.endswith("journal")]
    assert len(texts) == 2
    assert "cannot be used" in texts[0]
    assert "works again" in texts[1]


async def test_a_locked_file_delays_no_job_for_long(
    server: ServerHandle, other: AsyncSession, path: Path
) -> None:
    async with journaled(server, path, timings=Timings(journal_busy_timeout=0.1)) as session:
        async with job_context(session):
            pass
        with closing(sqlite3.connect(path, isolation_level=None)) as database:
            database.execute("BEGIN EXCLUSIVE")
            with anyio.fail_after(8):
                async with job_context(session) as job:
                    pass
            assert journal_of(session) == "failing"
    found = await other.get(Job, job.id)
    assert found is not None
    assert found.status is JobStatus.DONE


async def test_entries_of_dead_processes_are_settled_once_a_locked_file_can_be_read(
    server: ServerHandle, other: AsyncSession, path: Path
) -> None:
    job = other.create(Job, {"status": "running"})
    await other.commit()
    file = JournalFile(path, Owner("dead", DEAD, server.url, server.api_user))
    file.write(time.time(), [Entry("job", job.id, "dead", time.time())], [])
    file.close()

    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        async with journaled(
            server,
            path,
            timings=Timings(journal_busy_timeout=0.05, journal_retry=0.05, replay_interval=0.05),
        ) as session:
            await until(lambda: journal_of(session) == "failing")
            database.execute("ROLLBACK")
            await until(lambda: server.inspector.job(job.id)["status"] == "failed")
    assert entries(path) == {}


async def test_a_disk_that_hangs_is_not_waited_for(
    server: ServerHandle, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = hang(monkeypatch)
    async with journaled(server, path, timings=Timings(journal_stall_limit=0.1)) as session:
        with anyio.fail_after(20):
            async with job_context(session):
                pass
        assert journal_of(session) == "failing"
        go_on.set()
        await until(lambda: journal_of(session) == "working")


async def test_jobs_that_began_while_a_disk_hung_are_written_as_soon_as_it_goes_on(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = hang(monkeypatch)
    async with opened(path, Timings(journal_stall_limit=0.1)) as journal:
        assert not await journal.record_job("late")
        assert not await journal.record_job("not asked for")
        go_on.set()
        with anyio.fail_after(20):  # well before a heartbeat is due
            await until(lambda: entries(path).keys() == {"late", "not asked for"})


async def test_jobs_that_ended_while_the_file_could_not_be_made_are_not_remembered(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: set[str] = set()
    forgotten: set[str] = set()
    write = JournalFile.write

    def note_forgotten(self: JournalFile, now: float, rows: Any, gone: Any) -> None:
        forgotten.update(id_ for _, id_ in gone)
        write(self, now, rows, gone)

    monkeypatch.setattr(JournalFile, "write", note_forgotten)
    path = path.parent / "later" / path.name
    async with opened(path, Timings(journal_retry=0.0)) as journal:
        for _ in range(5):
            job_id = str(uuid4())
            assert not await journal.record_job(job_id)
            assert not await journal.record_job("runs")
            journal.release_job(job_id)
            ended.add(job_id)
        path.parent.mkdir()
        assert await journal.record_job("runs")
    assert entries(path).keys() == {"runs"}
    assert forgotten.isdisjoint(ended)


async def test_a_file_that_fails_is_given_nothing_but_what_is_still_true(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    def fail(self: JournalFile, now: float, rows: Any, gone: Any) -> None:
        tried.append(len(rows))
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(JournalFile, "write", fail)
        async with opened(path, Timings(journal_retry=0.0)) as journal:
            for _ in range(3):
                assert not await journal.record_job("runs")
            assert tried[:3] == [1, 1, 1]
            patch.undo()
            assert await journal.record_job("runs")
            assert entries(path).keys() == {"runs"}


def deleted(path: Path) -> None:
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()


def replaced(path: Path) -> None:
    newer = path.with_name("newer")
    file = JournalFile(newer, Owner("t", this_process(), "u", "n"))
    file.close()
    newer.replace(path)


def linked_elsewhere(path: Path) -> None:
    """Let the path be a link, which is pointed to another folder."""
    other = path.with_name("other")
    other.mkdir()
    link = path.with_name("link")
    link.symlink_to(other / path.name)
    link.replace(path)


def without_its_log(path: Path) -> None:
    path.with_name(f"{path.name}-wal").unlink()


@pytest.mark.skipif(os.name == "nt", reason="files that are used cannot be deleted")
@pytest.mark.parametrize("fault", [deleted, replaced, linked_elsewhere, without_its_log])
async def test_a_file_that_goes_while_it_is_used_is_a_warning_and_written_anew(
    server: ServerHandle,
    path: Path,
    fault: Callable[[Path], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with (
        journaled(server, path, timings=Timings(journal_retry=0.05)) as session,
        job_context(session) as running,
    ):
        fault(path)
        async with job_context(session) as job:
            await until(lambda: journal_of(session) == "failing")
            await until(lambda: journal_of(session) == "working")
            await until(lambda: entries(path) == {running.id: None, job.id: None})
            async with job_context(session) as later:
                assert later.id in entries(path)
    assert entries(path) == {}
    texts = [record.getMessage() for record in caplog.records if record.name.endswith("journal")]
    assert len(texts) == 2
    assert "it was deleted, or replaced by another file" in texts[0]
    assert "works again" in texts[1]


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege")
async def test_a_link_that_is_pointed_elsewhere_counts_as_another_file(
    server: ServerHandle, path: Path
) -> None:
    for name in ("old", "new"):
        path.with_name(name).mkdir()
    folder = path.with_name("folder")  # a link on the way to the file
    folder.symlink_to(path.with_name("old"))
    journal = folder / path.name
    async with journaled(server, journal) as session, job_context(session) as job:
        assert entries(path.with_name("old") / path.name) == {job.id: None}
        newer = path.with_name("newer")
        newer.symlink_to(path.with_name("new"))
        newer.replace(folder)
        target = path.with_name("new") / path.name
        await until(lambda: target.exists() and entries(target) == {job.id: None})
        await until(lambda: journal_of(session) == "working")
    assert entries(target) == {}


@pytest.mark.every_loop
async def test_a_wait_ends_although_no_call_of_the_writer_arrives(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a forked process has left the event loop, and has closed what wakes the parent."""

    def lose() -> Callable[[Callable[[], None]], object]:
        return lambda _: None

    monkeypatch.setattr(journal_module, "loop_caller", lose)
    monkeypatch.setattr(journal_module, "_LOST_CALL", 0.02)
    with anyio.fail_after(20):
        async with opened(path, Timings(journal_stall_limit=60.0)) as journal:
            assert await journal.record_job("first")
            assert await journal.wait_until_written(journal.record_final_report("first", "{}"))
            assert not await journal.claim()
            assert journal.state == "working"


# What dead processes left


async def test_a_partial_upload_of_a_dead_process_is_removed(
    server: ServerHandle, path: Path
) -> None:
    async with journaled(server, path, timings=Timings(last_request_delay=0.05)) as session:
        kept = await session.create_component(b"abc", name="a.txt")
        file = JournalFile(path, Owner("dead", DEAD, server.url, server.api_user))
        rows = [Entry("upload", each, "dead", time.time()) for each in (kept.id, "0" * 32)]
        file.write(time.time(), rows, [])
        file.close()
        requests: list[str] = []

        async def note(request: WireRequest, send: Send) -> WireResponse:
            requests.append(request.url)
            return await send(request)

        Relay(session, note)
        assert await jobs_of(session).replay.deliver()

        removals = [url for url in requests if "remove" in url]
        assert len(removals) == 1
        assert "0" * 32 in removals[0]
        assert await session.get(FileComponent, kept.id) is not None
    assert entries(path) == {}


async def test_an_upload_of_a_process_that_just_died_holds_nothing_up(
    server: ServerHandle, path: Path
) -> None:
    """Its last request may be on its way for two minutes; other entries do not wait for that."""
    async with journaled(server, path) as session:
        jobs = [session.create(Job, {"status": "running"}) for _ in range(2)]
        await session.commit()
        removals: list[str] = []

        async def note(request: WireRequest, send: Send) -> WireResponse:
            removals.extend([request.url] if "remove" in request.url else [])
            return await send(request)

        Relay(session, note)
        for token, job in zip(("dead", "later"), jobs, strict=True):
            file = JournalFile(path, Owner(token, DEAD, server.url, server.api_user))
            rows = [
                Entry(*each, token, time.time()) for each in (("upload", token), ("job", job.id))
            ]
            file.write(time.time(), rows, [])
            file.close()
            jobs_of(session).replay.wake()
            await until(partial(_has_failed, server, job))

        assert removals == []
    assert entries(path).keys() == {"dead", "later"}


def _has_failed(server: ServerHandle, job: Job) -> bool:
    return bool(server.inspector.job(job.id)["status"] == "failed")


async def test_an_upload_whose_registration_arrives_after_its_process_died_stays(
    server: ServerHandle, other: AsyncSession, path: Path
) -> None:
    async with journaled(server, path, timings=Timings(last_request_delay=1.0)) as session:
        # As if the registration were on its way: the bytes are there, and nothing refers to them.
        late = await session.create_component(b"abc", name="a.txt")
        component = await other.get(FileComponent, late.id)
        assert component is not None
        values = {name: component[name] for name in ("name", "file_type", "size")}
        other.delete(component)
        await other.commit()
        file = JournalFile(path, Owner("dead", DEAD, server.url, server.api_user))
        file.write(time.time(), [Entry("upload", late.id, "dead", time.time())], [])
        file.close()
        removals: list[str] = []

        async def note(request: WireRequest, send: Send) -> WireResponse:
            removals.extend([request.url] if "remove" in request.url else [])
            return await send(request)

        Relay(session, note)
        async with anyio.create_task_group() as group:
            group.start_soon(jobs_of(session).replay.deliver)
            await until(lambda: bool(connection_of(session).journal.unsettled()))
            await anyio.sleep(0.2)  # so long it is on its way
            other.create(FileComponent, {"id": late.id, **values})
            await other.commit()
        assert removals == []
    assert entries(path) == {}


# Batches


async def test_many_writers_share_a_batch(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[int] = []
    write = JournalFile.write

    def count(self: JournalFile, now: float, rows: Any, gone: Any) -> None:
        batches.append(len(rows))
        write(self, now, rows, gone)

    monkeypatch.setattr(JournalFile, "write", count)
    async with opened(path) as journal:
        async with anyio.create_task_group() as group:
            for number in range(1000):
                group.start_soon(journal.record_job, str(number))
        assert len(batches) <= 10
        assert len(entries(path)) == 1000


async def test_a_job_does_not_wait_for_the_sync_of_the_disk(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the process that may die at any moment: what is written outlives that."""
    syncs: list[float] = []
    go_on = threading.Event()

    def sync(_: JournalFile) -> None:
        syncs.append(time.monotonic())
        assert go_on.wait(20)

    monkeypatch.setattr(JournalFile, "sync", sync)
    async with opened(path) as journal:
        assert await journal.record_job("a")
        assert not syncs
        assert entries(path) == {"a": None}
        await until(lambda: bool(syncs))
        go_on.set()


async def test_entries_that_came_together_are_synced_together(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncs: list[set[str]] = []
    monkeypatch.setattr(JournalFile, "sync", lambda _: syncs.append(set(entries(path))))
    async with opened(path) as journal:
        started = time.monotonic()
        for number in range(200):
            await journal.record_job(str(number))
    lasted = time.monotonic() - started
    assert len(syncs) <= lasted / 0.1 + 2
    assert len(syncs[-1]) == 200, "what is left is synced at the end"


async def test_a_disk_that_does_not_keep_what_it_took_is_one_warning(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    is_broken = True
    attempts: list[bool] = []

    def sync(_: JournalFile) -> None:
        attempts.append(is_broken)
        if is_broken:
            raise OSError("no space left")

    monkeypatch.setattr(JournalFile, "sync", sync)
    async with opened(path, Timings(journal_retry=0.05)) as journal:
        assert await journal.record_job("a")
        await until(lambda: len(attempts) > 3)
        assert journal.state == "failing"
        assert journal.problem == "no space left"
        is_broken = False
        await until(lambda: journal.state == "working")
    texts = [record.getMessage() for record in caplog.records]
    assert len(texts) == 2
    assert "no space left" in texts[0]
    assert "works again" in texts[1]
