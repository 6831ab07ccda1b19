"""A journal that is damaged while it is in use: a kill afterwards still loses no running Job."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioftrackjobs import AsyncSession, ConfigurationError, Job, JobStatus, job_context
from aioftrackjobs.config.timings import Timings
from aioftrackjobs.devserver import ServerHandle
from aioftrackjobs.journal import Entry, Owner, this_process
from aioftrackjobs.journal._damage import DamageWatch
from aioftrackjobs.journal._file import JournalFile
from aioftrackjobs.journal._place import DamagedJournalError
from aioftrackjobs.session import jobs_of
from aioftrackjobs.transport import WireRequest, WireResponse

from .journals import DEAD, entries, journaled
from .relay import Relay, Send
from .waiting import until


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.journal"


def log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def found_after_a_kill(path: Path) -> set[str]:
    """Return the Jobs that a process finds which opens the journal when all others are dead."""
    folder = path.with_name("copy")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for each in (path, log_of(path)):  # the index is made anew then
        with suppress(FileNotFoundError):
            # By another program: closing the file here would release locks of this process.
            os.spawnlp(os.P_WAIT, "cp", "cp", str(each), str(folder / each.name))
    with suppress(sqlite3.DatabaseError), closing(sqlite3.connect(folder / path.name)) as database:
        return {id_ for (id_,) in database.execute("SELECT id FROM entries")}
    return set()


# What is done to the file


def overwrite(path: Path, offset: int, content: bytes) -> None:
    """Write into a file in another process, so that no lock of this one is released."""
    code = "import sys; f = open(sys.argv[1], 'r+b'); f.seek(int(sys.argv[2]));"
    code += "f.write(bytes.fromhex(sys.argv[3]))"
    os.spawnlp(os.P_WAIT, "python3", "python3", "-c", code, str(path), str(offset), content.hex())


def cut_to_nothing(path: Path) -> None:
    os.truncate(path, 0)


def cut_in_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def log_cut_to_nothing(path: Path) -> None:
    os.truncate(log_of(path), 0)


def log_cut(path: Path) -> None:
    os.truncate(log_of(path), log_of(path).stat().st_size - 1000)


def log_header_overwritten(path: Path) -> None:
    overwrite(log_of(path), 0, bytes(32))


def log_overwritten_in_its_middle(path: Path) -> None:
    overwrite(log_of(path), log_of(path).stat().st_size // 2, random.randbytes(100))


def log_overwritten_at_its_end(path: Path) -> None:
    overwrite(log_of(path), log_of(path).stat().st_size - 2000, random.randbytes(200))


def log_overwritten_with_another(path: Path) -> None:
    overwrite(log_of(path), 0, random.randbytes(log_of(path).stat().st_size))


def overwritten_with_text(path: Path) -> None:
    overwrite(path, 0, b"this is no database" * 1000)


def overwritten_in_its_middle(path: Path) -> None:
    overwrite(path, 4096, random.randbytes(8192))


def by_sql(statement: str) -> Callable[[Path], None]:
    def run(path: Path) -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as database:
            database.execute(statement)

    run.__name__ = statement.partition(" WHERE")[0].replace(" ", "_").lower()
    return run


def moved_away(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))


def moved_away_with_its_log(path: Path) -> None:
    log_of(path).rename(path.with_name("elsewhere-wal"))
    path.rename(path.with_name("elsewhere"))


def replaced_by_an_empty_file(path: Path) -> None:
    path.unlink()
    path.touch()


FAULTS = [
    cut_to_nothing,
    cut_in_half,
    log_cut_to_nothing,
    log_cut,
    log_header_overwritten,
    log_overwritten_in_its_middle,
    log_overwritten_at_its_end,
    log_overwritten_with_another,
    overwritten_with_text,
    overwritten_in_its_middle,
    by_sql("DROP TABLE entries"),
    by_sql("DROP TABLE owners"),
    by_sql("DELETE FROM entries"),
    by_sql("UPDATE entries SET id = 'x' || id"),
    by_sql("ALTER TABLE entries RENAME COLUMN holder TO keeper"),
    moved_away,
    moved_away_with_its_log,
    replaced_by_an_empty_file,
]


@pytest.mark.skipif(os.name == "nt", reason="files that are used cannot be changed so")
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
async def test_damage_of_an_idle_journal_is_noticed_told_once_and_repaired(
    server: ServerHandle,
    path: Path,
    fault: Callable[[Path], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with (
        journaled(server, path) as session,
        job_context(session) as job,
        job_context(session) as second,
    ):
        ids = {job.id, second.id}
        assert found_after_a_kill(path) == ids
        if fault is overwritten_in_its_middle:
            with closing(sqlite3.connect(path)) as database:
                database.execute("PRAGMA wal_checkpoint(FULL)")
        states = set[str]()

        def is_repaired() -> bool:
            states.add(session.health.journal)
            return states >= {"working", "failing"} and session.health.journal == "working"

        fault(path)
        await until(is_repaired)
        assert found_after_a_kill(path) >= ids
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    texts = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert len(texts) == 2
    assert "cannot be used" in texts[0]
    assert "works again" in texts[1]


async def test_a_lock_on_an_idle_journal_is_noticed(server: ServerHandle, path: Path) -> None:
    timings = Timings(journal_retry=0.05, journal_busy_timeout=0.05)
    async with (
        journaled(server, path, timings=timings) as session,
        job_context(session) as job,
        closing_later(sqlite3.connect(path, isolation_level=None)) as database,
    ):
        database.execute("BEGIN EXCLUSIVE")
        await until(lambda: session.health.journal == "failing")
        assert "locked" in (session.health.journal_problem or "")
        database.execute("ROLLBACK")
        await until(lambda: session.health.journal == "working")
        assert found_after_a_kill(path) == {job.id}


@asynccontextmanager
async def closing_later(database: sqlite3.Connection) -> AsyncIterator[sqlite3.Connection]:
    with closing(database):
        yield database


async def test_a_folder_in_the_place_of_the_journal_is_waited_out(
    server: ServerHandle, path: Path
) -> None:
    async with (
        journaled(server, path, timings=Timings(journal_retry=0.05)) as session,
        job_context(session) as job,
    ):
        moved_away_with_its_log(path)
        path.mkdir()
        await until(lambda: "folder" in (session.health.journal_problem or ""))
        path.rmdir()
        await until(lambda: session.health.journal == "working")
        assert found_after_a_kill(path) == {job.id}


async def test_a_file_of_another_program_in_its_place_is_left_alone(
    server: ServerHandle, path: Path
) -> None:
    async with journaled(server, path, timings=Timings(journal_retry=0.05)) as session:
        async with job_context(session):
            moved_away_with_its_log(path)
            path.write_text("a letter")
            await until(lambda: "no SQLite" in (session.health.journal_problem or ""))
            assert path.read_text() == "a letter"


@pytest.mark.every_loop
async def test_all_sessions_go_on_with_the_new_file_and_entries_of_the_dead_are_saved(
    server: ServerHandle, other: AsyncSession, path: Path
) -> None:
    """One of them finds the damage, and the others find that the file was replaced."""
    dead = other.create(Job, {"status": "running"})
    await other.commit()
    async with (
        journaled(server, path) as first,
        journaled(server, path) as second,
        job_context(first) as job,
        job_context(second) as another,
    ):
        # Of a user whom these sessions do not look after.
        with closing(JournalFile(path, Owner("dead", DEAD, server.url, "another"))) as file:
            file.write(time.time(), [Entry("job", dead.id, "dead", time.time())], [])
        by_sql("PRAGMA wal_checkpoint(PASSIVE)")(path)
        log_header_overwritten(path)
        expected = {job.id, another.id, dead.id}
        await until(lambda: list(path.parent.glob("*.damaged-*")))
        await until(lambda: found_after_a_kill(path) == expected)
    assert set(entries(path)) == {dead.id}


# Rows


def row(**changes: object) -> dict[str, object]:
    values: dict[str, object] = {
        "server": "",
        "kind": "job",
        "id": "odd",
        "api_user": "",
        "owner": "odd owner",
        "holder": "h",
        "since": 1e9,
        "final_report": None,
        "lost_host": None,
        "lost_at": None,
    }
    return {**values, **changes}


def put(path: Path, server: ServerHandle, *rows: dict[str, object], **owner: object) -> None:
    """Write rows as another program may."""
    with closing(JournalFile(path, Owner("t", this_process(), server.url, "n"))):
        pass
    process = {"host": "h", "pid": DEAD.pid, "place": DEAD.place, "started": "1", "seen": 1.0}
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        (address,) = {_address(server)}
        for each in rows:
            each["server"] = each["server"] or address
            each["api_user"] = each["api_user"] or server.api_user
            marks = ", ".join("?" for _ in each)
            database.execute(
                f"INSERT OR REPLACE INTO entries ({', '.join(each)}) VALUES ({marks})",
                tuple(each.values()),
            )
        values = {"token": "odd owner", **process, "ended": 0, **owner}
        marks = ", ".join("?" for _ in values)
        database.execute(
            f"INSERT OR REPLACE INTO owners ({', '.join(values)}) VALUES ({marks})",
            tuple(values.values()),
        )


def _address(server: ServerHandle) -> str:
    from aioftrackjobs.config.settings import server_identity

    return server_identity(server.url)


ODD_TEXT = sqlite3.Binary(b"\xff\xfe odd")

ODD_ROWS = [
    row(id=b"\xff\x00"),
    row(id=""),
    row(id="x" * 10_000),
    row(id='x" or id like "%'),
    row(id="line\nbreak"),
    row(id="nul\0"),
    row(kind="picture"),
    row(kind=b"job", id="odd kind"),
    row(id="since", since=b"x"),
    row(id="since 2", since=1e300),
    row(id="since 3", since="yesterday"),
    row(id="holder", holder=b"\x00"),
    row(id="report", final_report="{"),
    row(id="report 2", final_report=b"\xff"),
    row(id="report 3", final_report="[" * 100_000),
    row(id="report 4", final_report=json.dumps({"status": "done", "data": 7})),
    row(id="report 5", final_report=json.dumps({"status": 10**400, "data": {}})),
    row(id="report 6", final_report=json.dumps({"status": "odd", "data": None})),
    row(id="lost", lost_host=b"h", lost_at="never"),
    row(id="lost 2", lost_host="h", lost_at=-1e300),
    row(id="\U0001f600 no id of ftrack"),
]


@pytest.mark.every_loop
async def test_odd_rows_are_set_aside_with_one_warning_and_the_others_delivered(
    server: ServerHandle, other: AsyncSession, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = [other.create(Job, {"status": "running"}) for _ in range(3)]
    await other.commit()
    reports = [None, json.dumps({"status": "done", "data": {}}), json.dumps({"status": "odd"})]
    good = [row(id=job.id, final_report=report) for job, report in zip(jobs, reports, strict=True)]
    put(path, server, *ODD_ROWS, *good)
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("INSERT INTO owners VALUES (?, '', -1, '', '', 'x', 7)", (b"\xff",))
        database.execute(
            "UPDATE entries SET id = CAST(? AS TEXT) WHERE id = 'report 6'", (ODD_TEXT,)
        )
    async with journaled(server, path) as session:
        await until(lambda: server.inspector.job(jobs[0].id)["status"] == "failed")
        await until(lambda: server.inspector.job(jobs[1].id)["status"] == "done")
        await until(lambda: server.inspector.job(jobs[2].id)["status"] == "failed")
        async with job_context(session) as job:
            assert job.id in entries(path)
        assert session.health.journal == "working"
    warnings = [each for each in caplog.records if "set_aside" in each.getMessage()]
    assert len(warnings) == 1
    with closing(sqlite3.connect(path)) as database:
        (count,) = database.execute("SELECT count(*) FROM set_aside").fetchone()
    assert count >= 9


@pytest.mark.parametrize(
    "owner",
    [
        {"pid": "no number"},
        {"pid": 2**62},
        {"pid": -1},
        {"pid": 0},
        {"pid": "../self"},
        {"pid": b"\xff"},
        {"host": b"h"},
        {"started": b"1"},
        {"seen": "never"},
        {"ended": "perhaps"},
    ],
    ids=str,
)
async def test_an_odd_owner_ends_nothing(
    server: ServerHandle, path: Path, owner: dict[str, object]
) -> None:
    put(path, server, row(), **owner)
    async with journaled(server, path) as session:
        async with job_context(session) as job:
            assert job.id in entries(path)
        assert session.health.journal == "working"


async def test_a_job_that_the_server_refuses_to_look_for_holds_up_no_other(
    server: ServerHandle, other: AsyncSession, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = [other.create(Job, {"status": "running"}) for _ in range(5)]
    await other.commit()
    refused = jobs[2].id
    asked = 0

    async def refuse(request: WireRequest, send: Send) -> WireResponse:
        nonlocal asked
        if isinstance(request.body, bytes) and refused.encode() in request.body:
            asked += 1
            content = {"exception": "ParseError", "content": "no id", "error_code": "x"}
            return WireResponse(200, json.dumps(content).encode())
        return await send(request)

    async with journaled(server, path) as session:
        Relay(session, refuse)
        put(path, server, *(row(id=job.id) for job in jobs), row(id="'"), row(id="%"))
        assert await jobs_of(session).replay.deliver()
        found = [server.inspector.job(job.id)["status"] for job in jobs]
        assert found == ["failed", "failed", "running", "failed", "failed"]
        assert refused in entries(path)
        assert asked <= 8
    assert len([text for text in caplog.messages if "cannot be delivered" in text]) == 1


VALUES = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=True),
    st.text(max_size=20),
    st.binary(max_size=20),
    st.sampled_from(["job", "upload", "{}", "[", '{"status": "done", "data": {}}']),
)


@pytest.mark.slow
@given(
    changes=st.dictionaries(st.sampled_from(list(row())), VALUES, max_size=4),
    owner=st.dictionaries(
        st.sampled_from(["token", "host", "pid", "place", "started", "seen", "ended"]),
        VALUES,
        max_size=3,
    ),
)
def test_no_row_keeps_the_others_from_being_claimed(
    tmp_path_factory: pytest.TempPathFactory, changes: dict[str, object], owner: dict[str, object]
) -> None:
    path = tmp_path_factory.mktemp("rows") / "jobs.journal"
    with closing(JournalFile(path, Owner("dead", DEAD, "http://s", "maya"))) as file:
        file.write(1e9, [Entry("job", "good", "h", 1e9)], [])
    values = {**row(server="http://s", api_user="maya"), **changes}
    process = {"host": "h", "pid": 1, "place": "p", "started": "1", "seen": 1.0, "ended": 0}
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        for table, found in (("entries", values), ("owners", {"token": "o", **process, **owner})):
            marks = ", ".join("?" for _ in found)
            with suppress(sqlite3.IntegrityError, OverflowError, UnicodeEncodeError):
                database.execute(
                    f"INSERT INTO {table} ({', '.join(found)}) VALUES ({marks})",
                    tuple(found.values()),
                )
    with closing(JournalFile(path, Owner("me", this_process(), "http://s", "maya"))) as file:
        found_entries, _ = file.claim(time.time())
        assert "good" in {entry.id for entry in found_entries}
        assert file.claim(time.time())[0] == []


# Files that are no journals


def make_text(path: Path) -> None:
    path.write_text("a letter")


def make_short(path: Path) -> None:
    path.write_bytes(b"x")


def make_zeros(path: Path) -> None:
    path.write_bytes(bytes(100_000))


def make_foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE theirs (id)")


def make_foreign_with_our_names(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.executescript("CREATE TABLE entries (id); CREATE TABLE owners (id)")


def make_foreign_in_wal_mode(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE theirs (id)")


def make_foreign_without_tables(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA application_id = 7")


def make_newer(path: Path) -> None:
    with closing(JournalFile(path, Owner("t", this_process(), "u", "n"))):
        pass
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 99")


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (make_text, "no SQLite database"),
        (make_short, "no SQLite database"),
        (make_zeros, "no SQLite database"),
        (make_foreign, "another program"),
        (make_foreign_with_our_names, "another program"),
        (make_foreign_in_wal_mode, "another program"),
        (make_foreign_without_tables, "another program"),
        (make_newer, "version 99"),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
@pytest.mark.parametrize("is_linked", [False, True])
async def test_a_file_that_is_no_journal_is_refused_by_name_and_left_as_it_is(
    server: ServerHandle, path: Path, make: Callable[[Path], None], problem: str, is_linked: bool
) -> None:
    target = path.with_name("target") if is_linked else path
    make(target)
    target.chmod(0o644)
    if is_linked:
        path.symlink_to(target)
    before = _state(path.parent)
    with pytest.raises(ConfigurationError, match=problem) as caught:
        async with journaled(server, path):
            pytest.fail("it was opened")
    assert str(path) in str(caught.value)
    assert _state(path.parent) == before


def _state(folder: Path) -> dict[str, Any]:
    return {
        each.name: (each.read_bytes(), each.stat().st_mode, each.stat().st_mtime_ns)
        for each in folder.iterdir()
    }


@pytest.mark.skipif(os.name == "nt", reason="there are no such modes")
@pytest.mark.parametrize("is_empty", [True, False])
async def test_a_journal_that_others_could_read_is_for_its_owner_alone(
    server: ServerHandle, path: Path, is_empty: bool
) -> None:
    if is_empty:
        path.touch()
    else:
        with closing(JournalFile(path, Owner("t", this_process(), server.url, "n"))):
            pass
    path.chmod(0o644)
    async with journaled(server, path) as session, job_context(session) as job:
        assert job.id in entries(path)
        for file in path.parent.iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600


async def test_the_log_of_a_journal_that_others_could_read_is_for_its_owner_alone(
    server: ServerHandle, path: Path
) -> None:
    async with journaled(server, path) as first, job_context(first):
        for file in path.parent.iterdir():
            file.chmod(0o644)
        async with journaled(server, path) as second, job_context(second):
            for file in path.parent.iterdir():
                assert stat.S_IMODE(file.stat().st_mode) == 0o600


async def test_a_damaged_journal_of_before_is_moved_and_what_can_be_read_is_delivered(
    server: ServerHandle, other: AsyncSession, path: Path
) -> None:
    jobs = [other.create(Job, {"status": "running"}) for _ in range(60)]
    await other.commit()
    with closing(JournalFile(path, Owner("dead", DEAD, server.url, server.api_user))) as file:
        file.write(1e9, [Entry("job", job.id, "dead", 1e9) for job in jobs], [])
    size = path.stat().st_size
    overwrite(path, size - 3000, random.Random(1).randbytes(1500))
    async with journaled(server, path, timings=Timings(replay_interval=0.05)) as session:
        async with job_context(session) as job:
            await until(lambda: session.health.journal == "working" and job.id in entries(path))

        def failed() -> int:
            found = (server.inspector.job(job.id)["status"] for job in jobs)
            return sum(status == JobStatus.FAILED for status in found)

        await until(lambda: failed() > 0)
    assert len(list(path.parent.glob("*.damaged-1"))) == 1


# What looks like damage, and is none

DIES_IN_A_TRANSACTION = """
import os, sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("PRAGMA cache_size = 1")  # so that the log gets pages before the end
database.execute("BEGIN IMMEDIATE")
for number in range(2000):
    database.execute("INSERT INTO entries VALUES (?)", (f"{number:0100}",))
os._exit(0)
"""


def test_what_a_dead_process_has_not_committed_may_be_overwritten(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE entries (id TEXT)")
        log = os.open(log_of(path), os.O_RDONLY)
        try:
            watch = DamageWatch(path, log)
            watch.check_log()
            committed = os.fstat(log).st_size
            subprocess.run([sys.executable, "-c", DIES_IN_A_TRANSACTION, path], check=True)
            assert os.fstat(log).st_size > committed, "it has written a part of its transaction"
            watch.check_log()
            for number in range(5):
                database.execute("INSERT INTO entries VALUES (?)", (f"of the living {number}",))
                watch.check_log()
            overwrite(log_of(path), committed + 100, random.randbytes(100))
            with pytest.raises(DamagedJournalError, match="its log is damaged"):
                watch.check_log()
        finally:
            os.close(log)
