"""The journal's file: a SQLite database that any number of processes of one host write to.

In WAL mode, synced to the disk at the end of each transaction. A batch of changes is one
transaction of a few statements, whatever its size: each statement costs a change of threads.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from aioftrackjobs.processes import Process

if TYPE_CHECKING:
    import sqlite3

#: Seconds to wait for others who write, and between two looks where SQLite does not wait itself.
_BUSY_TIMEOUT, _POLL = 2.0, 0.02

#: Written into the file; one with a higher number is of a later version of this package.
_VERSION = 1

#: Seconds between two signs of life, at least: most batches need none.
_SIGN_EVERY = 5.0

#: Seconds without a sign of life after which a process that cannot be looked at counts as dead.
_SILENCE = 120.0

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
    word TEXT,
    lost_host TEXT,
    lost_at REAL,
    PRIMARY KEY (server, kind, id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS entries_by_owner ON entries (owner);
"""

#: What an entry is about: "job" or "upload", and its id.
Key: TypeAlias = tuple[str, str]


class UnusableJournalError(Exception):
    """The file cannot be used as a journal."""


class Entry(NamedTuple):
    """What is known of a Job, or of an upload.

    Attributes:
        kind: "job" or "upload".
        id: Of the Job, or of the component.
        holder: The session that it belonged to at first.
        since: When that was; of a last word, when it was said.
        word: The last word of a Job as JSON; None while it has none.
        lost_host: Where its process died, if it did.
        lost_at: When that process was last known to live.
    """

    kind: str
    id: str
    holder: str
    since: float
    word: str | None = None
    lost_host: str | None = None
    lost_at: float | None = None

    @property
    def key(self) -> Key:
        """What it is known by."""
        return self.kind, self.id


class Owner(NamedTuple):
    """The session that writes.

    Attributes:
        token: Names it.
        process: Where it is.
        server_url: What its entries are about.
        api_user: Who can do something about them.
    """

    token: str
    process: Process
    server_url: str
    api_user: str


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
        import sqlite3  # late: few sessions have a journal

        self._owner = owner
        self._signed_at = -math.inf
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        self._database = sqlite3.connect(
            path, isolation_level=None, check_same_thread=False, timeout=_BUSY_TIMEOUT
        )
        try:
            self._prepare()
        except BaseException:
            self._database.close()
            raise

    def _prepare(self) -> None:
        execute = self._database.execute
        self._use_wal()
        execute("PRAGMA synchronous = FULL")
        (version,) = execute("PRAGMA user_version").fetchone()
        if version > _VERSION:
            raise UnusableJournalError(f"it is of version {version}, and this is {_VERSION}")
        if version < _VERSION:
            self._database.executescript(_TABLES)
            execute(f"PRAGMA user_version = {_VERSION}")

    def _use_wal(self) -> None:
        """Switch to WAL, which fails at once where another process is just doing so."""
        import sqlite3

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

    def close(self) -> None:
        """Close the file."""
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
        """Write *entries*, delete those with the keys *gone*, and give a sign of life."""
        owner = self._owner
        written = [
            [each.kind, each.id, each.holder, each.since, each.word, each.lost_host, each.lost_at]
            for each in entries
        ]
        deleted = [list(key) for key in gone]
        with self._transaction() as execute:
            self._sign(execute, now)
            if written:
                execute(
                    "INSERT OR REPLACE INTO entries (server, api_user, owner, kind, id, holder,"
                    f" since, word, lost_host, lost_at) SELECT ?, ?, ?, {_fields(7)}"
                    " FROM json_each(?)",
                    (owner.server_url, owner.api_user, owner.token, json.dumps(written)),
                )
            if deleted:
                execute(
                    "DELETE FROM entries WHERE owner = ? AND server = ? AND (kind, id) IN"
                    f" (SELECT {_fields(2)} FROM json_each(?))",
                    (owner.token, owner.server_url, json.dumps(deleted)),
                )

    def _sign(self, execute: Callable[..., Any], now: float) -> None:
        if abs(now - self._signed_at) < _SIGN_EVERY:
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
            for token, host, pid, place, started, seen, ended in owners:
                alive = Process(host, pid, place, started).is_alive()
                if alive is None and now - seen > _SILENCE:
                    alive = False
                undecided |= alive is None
                if alive is not False and not ended:
                    continue
                only = "" if alive is False else " AND word IS NOT NULL"
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
                "SELECT kind, id, holder, since, word, lost_host, lost_at FROM entries"
                " WHERE owner = ? ORDER BY since",
                (me.token,),
            ).fetchall()
        entries = (Entry(*row) for row in mine)
        return [entry for entry in entries if entry.key in keys], undecided

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


def _fields(number: int) -> str:
    return ", ".join(f"json_extract(value, '$[{index}]')" for index in range(number))
