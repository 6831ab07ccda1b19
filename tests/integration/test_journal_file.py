"""The journal's file: which process may claim which entries, and that no entry gets lost."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from aioftrackjobs.journal import Entry, Owner, Process, this_process
from aioftrackjobs.journal._file import JournalFile

from .journals import DEAD

ELSEWHERE = Process("elsewhere", 1, "another place", "1")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.journal"


@contextmanager
def opened(
    path: Path,
    token: str,
    process: Process | None = None,
    *,
    api_user: str = "maya",
    server: str = "http://s",
) -> Iterator[JournalFile]:
    file = JournalFile(path, Owner(token, process or this_process(), server, api_user))
    with closing(file):
        yield file


def write(file: JournalFile, *ids: str, seen: float | None = None) -> None:
    """Note Jobs as running."""
    rows = [Entry("job", each, "them", time.time()) for each in ids]
    file.write(time.time() if seen is None else seen, rows, [])


def written_by(path: Path, process: Process, *ids: str, seen: float | None = None) -> None:
    """Leave Jobs in a journal, as a process that runs them does."""
    with opened(path, f"{process}", process) as file:
        write(file, *ids, seen=seen)


def claimed(
    path: Path, token: str, *, api_user: str = "maya", server: str = "http://s"
) -> set[str]:
    with opened(path, token, api_user=api_user, server=server) as file:
        found, _ = file.claim(time.time())
    return {entry.id for entry in found}


class Clock:
    """Replaces :mod:`time`: the test sets the time."""

    def __init__(self) -> None:
        self.wall, self.steady = 1e9, 1e3

    def time(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.steady

    def pass_(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds


# Claims


def test_only_one_process_claims_the_entries_of_a_dead_one(path: Path) -> None:
    written_by(path, DEAD, "a", "b")

    assert claimed(path, "one") == {"a", "b"}
    assert claimed(path, "two") == set()


def test_nothing_of_a_live_process_is_claimed(path: Path) -> None:
    written_by(path, this_process(), "a", seen=0.0)

    assert claimed(path, "one") == set()


def test_a_pid_that_is_used_again_is_another_process(path: Path) -> None:
    here = this_process()
    written_by(path, Process(here.host, here.pid, here.place, "1"), "a")

    assert claimed(path, "one") == ({"a"} if here.place else set())


def test_entries_of_other_users_are_left_alone(path: Path) -> None:
    written_by(path, DEAD, "a")

    assert claimed(path, "one", api_user="ada") == set()
    assert claimed(path, "two") == {"a"}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("aioftrackjobs.journal._file.time", clock)
    return clock


def test_a_process_that_cannot_be_seen_lives_as_long_as_it_writes_heartbeats(
    path: Path, clock: Clock
) -> None:
    with opened(path, "them", ELSEWHERE) as theirs, opened(path, "me") as mine:
        write(theirs, "a", seen=clock.wall)
        for _ in range(5):
            clock.pass_(100)
            theirs.write(clock.wall, [], [])
            assert mine.claim(clock.wall) == ([], True)
        clock.pass_(100)
        assert mine.claim(clock.wall) == ([], True)
        clock.pass_(100)
        found, is_undecided = mine.claim(clock.wall)
        assert [entry.id for entry in found] == ["a"]
        assert not is_undecided


def test_a_clock_that_is_set_makes_no_process_silent(path: Path, clock: Clock) -> None:
    """After a host was asleep, its other processes look the same to the first one that claims."""
    with opened(path, "them", ELSEWHERE) as theirs, opened(path, "me") as mine:
        write(theirs, "a", seen=clock.wall)
        assert mine.claim(clock.wall) == ([], True)
        clock.pass_(10)
        clock.wall += 3600
        assert mine.claim(clock.wall) == ([], True)
        clock.pass_(10)
        theirs.write(clock.wall, [], [])
        clock.pass_(60)
        assert mine.claim(clock.wall) == ([], True)
        clock.wall -= 7200
        assert mine.claim(clock.wall) == ([], True)


# One file for all sessions


def test_sessions_of_one_process_do_not_unlock_the_file_for_others(path: Path) -> None:
    """Otherwise another process that closes it would delete their log, as if it were the last."""
    look = "import sqlite3, sys; d = sqlite3.connect(sys.argv[1]);"
    look += "print(*(row[0] for row in d.execute('select id from entries order by id'))); d.close()"

    def seen_by_another_process() -> list[str]:
        command = [sys.executable, "-c", look, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return done.stdout.split()

    with opened(path, "one") as first:
        write(first, "a")
        with opened(path, "two") as second:
            write(second, "b")
            assert seen_by_another_process() == ["a", "b"]
            write(first, "c")
        assert seen_by_another_process() == ["a", "b", "c"]
        write(first, "d")
        assert seen_by_another_process() == ["a", "b", "c", "d"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no process forks")
def test_a_session_that_is_made_before_a_fork_has_an_owner_in_each_child(path: Path) -> None:
    """As in a server that loads the program and then forks its workers."""
    code = """
        import asyncio, os, sys
        from aioftrackjobs import AsyncSession
        from aioftrackjobs.session import connection_of

        session = AsyncSession("http://localhost:1", "key", "maya", journal=sys.argv[1])

        async def main():
            async with session:
                assert await connection_of(session).journal.record_job(f"job of {os.getpid()}")
                print("owns", flush=True)
                sys.stdin.read()
                os._exit(0)

        for _ in range(2):
            if os.fork() == 0:
                asyncio.run(main())
        os.wait()
        os.wait()
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == program.stdout.readline() == b"owns\n"
        with closing(sqlite3.connect(path)) as database:
            rows = database.execute(
                "SELECT pid, entries.id FROM entries JOIN owners ON owners.token = entries.owner"
            ).fetchall()
    assert len(rows) == 2
    assert all(job_id == f"job of {pid}" for pid, job_id in rows)
    assert claimed(path, "one", server="http://localhost:1") == {job_id for _, job_id in rows}
