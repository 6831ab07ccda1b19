"""The journal's file: a SQLite database that any number of processes of one host write to.

In WAL mode. A transaction that has ended is with the operating system: it outlives the process,
whatever ends that, and the next process sees it. A power cut it outlives only once it is synced to
the disk, which is a step of its own, as it takes so much longer; the file is whole in any case.

A batch of changes is one transaction of as few statements as can be, whatever its size: after each
the thread has to wait for its turn, which a busy event loop gives every 5 ms.
"""

from __future__ import annotations

import json
import math
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from aioftrackjobs.journal._entry import Entry, Key, Owner
from aioftrackjobs.journal._process import Process

#: Seconds to wait for others who write, and between two looks where SQLite does not wait itself.
_BUSY_TIMEOUT, _POLL = 2.0, 0.02

#: Written into the file; one with a higher number is of a later version of this package.
_VERSION = 1

#: Seconds between two signs of life, at least: most batches need none.
_SIGN_EVERY = 5.0

#: Seconds without a sign of life after which a process that cannot be looked at counts as dead;
#: and for how many of them that has to be seen, by a clock that nobody sets.
_SILENCE, _SEEN_SILENT = 120.0, 45.0

_TABLES = """
CREATE TABLE IF NOT EXISTS owners (
    token TEXT PRIMARY KEY,
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    place TEXT NOT NULL,
    started TEXT NOT NULL,
    seen REAL NOT NULL,
    ended INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS entries (
    server TEXT NOT NULL,
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    api_user TEXT NOT NULL,
    owner TEXT NOT NULL,
    holder TEXT NOT NULL,
    since REAL NOT NULL,
    final_report TEXT,
    lost_host TEXT,
    lost_at REAL,
    PRIMARY KEY (server, kind, id)
) WITHOUT ROWID;
"""


def _fields(number: int) -> str:
    return ", ".join(f"json_extract(value, '$[{index}]')" for index in range(number))


_REPLACE = (
    "INSERT OR REPLACE INTO entries (server, api_user, owner, kind, id, holder, since,"
    " final_report, lost_host, lost_at) "
)
_INSERT_ONE = f"{_REPLACE} VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_INSERT_ALL = f"{_REPLACE} SELECT ?, ?, ?, {_fields(7)} FROM json_each(?)"


class UnusableJournalError(Exception):
    """The file cannot be used as a journal."""


class JournalFile:
    """An open journal.

    Args:
        path: The file; it is made if it is not there, for its owner's eyes only.
        owner: The session that writes.

    Raises:
        OSError: It cannot be made.
        sqlite3.Error: It cannot be used.
        UnusableJournalError: It is of a later version.
    """

    def __init__(self, path: Path, owner: Owner) -> None:
        self._owner = owner
        self._signed_at = -math.inf
        self._wal: int | None = None
        # The sign of life of those that cannot be looked at, and since when it is the same.
        self._seen: dict[str, tuple[float, float]] = {}
        _create(path)
        self._database = sqlite3.connect(
            path, isolation_level=None, check_same_thread=False, timeout=_BUSY_TIMEOUT
        )
        try:
            self._prepare()
            self._note_place()
        except BaseException:
            self.close()
            raise

    def _prepare(self) -> None:
        execute = self._database.execute
        self._use_wal()
        execute("PRAGMA synchronous = NORMAL")  # see sync()
        (version,) = execute("PRAGMA user_version").fetchone()
        if version > _VERSION:
            raise UnusableJournalError(f"it is of version {version}, and this is {_VERSION}")
        if version < _VERSION:
            self._database.executescript(_TABLES)
            execute(f"PRAGMA user_version = {_VERSION}")

    def _use_wal(self) -> None:
        """Switch to WAL, which fails at once where another process is just doing so."""
        deadline = time.monotonic() + _BUSY_TIMEOUT
        while True:
            try:
                self._database.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as exc:
                is_busy = exc.sqlite_errorcode == sqlite3.SQLITE_BUSY
                if not is_busy or time.monotonic() > deadline:
                    raise
                time.sleep(_POLL)
            else:
                return

    def _note_place(self) -> None:
        """Remember which files are written to, whatever their names mean later on."""
        (row,) = self._database.execute("PRAGMA database_list")
        self._path = Path(row[2])  # without symbolic links: SQLite names the other file after it
        self._wal_path = Path(f"{row[2]}-wal")
        self._place = self._path.stat()
        self._wal = os.open(self._wal_path, os.O_RDWR)

    def _check_place(self) -> None:
        """Raise unless others who open the journal see what is written.

        A file that somebody deleted, or replaced, takes what is written, and shows it to nobody.
        """
        assert self._wal is not None  # noqa: S101 - for type checkers
        try:
            is_there = os.path.samestat(self._path.stat(), self._place) and os.path.samestat(
                self._wal_path.stat(), os.fstat(self._wal)
            )
        except FileNotFoundError:
            is_there = False
        if not is_there:
            raise UnusableJournalError("it was deleted, or replaced by another file")

    def sync(self) -> None:
        """Have all that was written outlive a power cut, where others look for it.

        Raises:
            OSError: The disk does not take it.
            UnusableJournalError: The file is not where it was.
        """
        assert self._wal is not None  # noqa: S101 - for type checkers
        os.fsync(self._wal)
        self._check_place()

    def close(self) -> None:
        """Close the file."""
        if self._wal is not None:  # first: the last who closes the database deletes it
            os.close(self._wal)
            self._wal = None
        self._database.close()

    @contextmanager
    def _transaction(self) -> Iterator[Callable[..., sqlite3.Cursor]]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield self._database.execute
            self._database.execute("COMMIT")
        except BaseException:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise

    def write(self, now: float, entries: Sequence[Entry], gone: Iterable[Key]) -> None:
        """Write *entries*, delete those with the keys *gone*, and give a sign of life.

        Raises:
            sqlite3.Error: That was not possible.
        """
        deleted = tuple(gone)
        if not deleted and not self._owes_sign(now):
            if entries:
                self._insert(self._database.execute, entries)  # a transaction of its own
            return
        with self._transaction() as execute:
            self._sign(execute, now)
            if entries:
                self._insert(execute, entries)
            if deleted:
                execute(
                    "DELETE FROM entries WHERE owner = ? AND server = ? AND (kind, id) IN"
                    f" (SELECT {_fields(2)} FROM json_each(?))",
                    (self._owner.token, self._owner.server_url, json.dumps(deleted)),
                )

    def _insert(self, execute: Callable[..., Any], entries: Sequence[Entry]) -> None:
        owner = self._owner
        ours = (owner.server_url, owner.api_user, owner.token)
        if len(entries) == 1:
            execute(_INSERT_ONE, (*ours, *entries[0]))
        else:  # tuples travel as lists, in the order of their fields
            execute(_INSERT_ALL, (*ours, json.dumps(entries)))

    def _owes_sign(self, now: float) -> bool:
        return abs(now - self._signed_at) >= _SIGN_EVERY

    def _sign(self, execute: Callable[..., Any], now: float) -> None:
        if not self._owes_sign(now):
            return
        self._signed_at = now
        process = self._owner.process
        execute(
            "INSERT INTO owners (token, host, pid, place, started, seen) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (token) DO UPDATE SET seen = excluded.seen",
            (
                self._owner.token,
                process.host,
                process.pid,
                process.place,
                process.started,
                now,
            ),
        )

    def claim(self, now: float) -> tuple[list[Entry], bool]:
        """Take over what the dead have left, and the last words of sessions that have ended.

        Whoever calls first gets an entry, and nobody else while that one lives.

        Returns:
            All that was taken over, the oldest first; and whether there is more, of processes
            that cannot be looked at and may yet turn out to be dead.
        """
        me = self._owner
        with self._transaction() as execute:
            self._sign(execute, now)
            undecided = False
            keys = set[Key]()
            owners = execute("SELECT * FROM owners WHERE token != ?", (me.token,)).fetchall()
            self._seen = {row[0]: self._seen[row[0]] for row in owners if row[0] in self._seen}
            for token, host, pid, place, started, seen, ended in owners:
                alive = Process(host, pid, place, started).is_alive()
                if alive is None and self._is_silent(token, seen, now):
                    alive = False
                undecided |= alive is None
                if alive is not False and not ended:
                    continue
                only = "" if alive is False else " AND final_report IS NOT NULL"
                taken = (
                    f"owner = ?{only} AND server = ? AND api_user = ?",
                    (token, me.server_url, me.api_user),
                )
                keys.update(execute(f"SELECT kind, id FROM entries WHERE {taken[0]}", taken[1]))
                execute(
                    "UPDATE entries SET owner = ?, lost_host = coalesce(lost_host, ?),"
                    f" lost_at = coalesce(lost_at, ?) WHERE {taken[0]}",
                    (me.token, host, seen, *taken[1]),
                )
                self._forget(execute, token)
            mine = execute(
                "SELECT kind, id, holder, since, final_report, lost_host, lost_at FROM entries"
                " WHERE owner = ? ORDER BY since",
                (me.token,),
            ).fetchall()
        entries = (Entry(*row) for row in mine)
        return [entry for entry in entries if entry.key in keys], undecided

    def _is_silent(self, token: str, seen: float, now: float) -> bool:
        """Tell whether an owner gave no sign for long.

        One look does not tell: the clock may have been set, or the host just woken up.
        """
        watched = time.monotonic()
        before, since = self._seen.get(token, (None, watched))
        if before != seen:
            self._seen[token], since = (seen, watched), watched
        return now - seen > _SILENCE and watched - since >= _SEEN_SILENT

    def end(self) -> None:
        """Tell that the session has ended."""
        with self._transaction() as execute:
            execute("UPDATE owners SET ended = 1 WHERE token = ?", (self._owner.token,))
            self._forget(execute, self._owner.token)

    @staticmethod
    def _forget(execute: Callable[..., Any], token: str) -> None:
        """Delete an owner who has nothing left."""
        execute(
            "DELETE FROM owners WHERE token = ?"
            " AND NOT EXISTS (SELECT 1 FROM entries WHERE owner = owners.token)",
            (token,),
        )


def _create(path: Path) -> None:
    """Make the file, for its owner's eyes only, unless it is there.

    Nothing here ever opens the file itself: to close it again would take the locks away that other
    sessions of this process have on it, and any other process could then throw their entries away
    (sqlite.org/howtocorrupt.html, 2.2).
    """
    if path.exists():
        return
    descriptor, made = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")
    os.close(descriptor)
    try:
        with suppress(FileExistsError):  # somebody was faster
            os.link(made, path)
    finally:
        Path(made).unlink()
