"""The journal's file: a SQLite database that any number of processes of one host write to.

It is in WAL mode. The operating system has every transaction that has ended: it outlives the
process, whatever ends that, and the next process sees it. It outlives a power cut only when it is
synced to the disk. That takes much longer, and is a step of its own; the file stays valid in any
case.

A batch of changes is one transaction of as few statements as possible, whatever its size: after
each statement the thread waits for the GIL, which a busy event loop releases every 5 ms.
"""

from __future__ import annotations

import errno
import json
import math
import os
import sqlite3
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from aioftrackjobs.config import server_identity
from aioftrackjobs.journal._entry import Entry, Key, Owner
from aioftrackjobs.journal._presence import is_present, note_opened
from aioftrackjobs.journal._process import Process
from aioftrackjobs.timings import DEFAULT_TIMINGS

#: Seconds between two attempts if another process writes and SQLite does not wait by itself.
_POLL = 0.02

#: Written into the file; a file with a higher number is of a later version of this package.
_VERSION = 1

#: Seconds between two heartbeats, at least: most batches need none.
_HEARTBEAT_INTERVAL = 5.0

#: Seconds without a heartbeat after which a process of which this host knows nothing counts as
#: dead; and for how many seconds that has to be observed, by a clock that cannot be set.
_SILENCE, _OBSERVED_SILENCE = 120.0, 45.0

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

#: Errors of the operating system that say that a path is wrong, and not that a disk fails.
_WRONG_PATH = frozenset(
    {
        errno.EACCES,
        errno.EINVAL,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENOENT,
        errno.ENAMETOOLONG,
        errno.ENOTDIR,
        errno.EPERM,
        errno.EROFS,
    }
)

#: Characters of the file's name that the name of a temporary file beside it begins with.
_PREFIX = 32

#: What a session leaves to others when it ends. Its Jobs may still run, in the same process.
_LEFT_AT_THE_END = " AND (final_report IS NOT NULL OR kind = 'upload')"


class UnusableJournalError(Exception):
    """The file cannot be used as a journal."""


class JournalFile:
    """An open journal.

    Args:
        path: The file. If it is not there, it is made, so that only its owner can read it.
        owner: The session that writes.
        busy_timeout: Seconds to wait for other processes that write.

    Raises:
        OSError: It cannot be made.
        sqlite3.Error: It cannot be used.
        UnusableJournalError: It is of a later version.
    """

    def __init__(
        self,
        path: Path,
        owner: Owner,
        *,
        busy_timeout: float = DEFAULT_TIMINGS.journal_busy_timeout,
    ) -> None:
        note_opened(owner.token)
        self._owner = owner
        self._server = server_identity(owner.server_url)
        self._busy_timeout = busy_timeout
        self._heartbeat_at = -math.inf
        self._wal: int | None = None
        # The last heartbeat of owners that may be dead or alive, and since when it is the same.
        self._seen: dict[str, tuple[float, float]] = {}
        _create(path)
        self._database = sqlite3.connect(
            path, isolation_level=None, check_same_thread=False, timeout=busy_timeout
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
        """Switch to WAL mode, which fails at once while another process does the same."""
        deadline = time.monotonic() + self._busy_timeout
        while True:
            try:
                (mode,) = self._database.execute("PRAGMA journal_mode = WAL").fetchone()
            except sqlite3.OperationalError as exc:
                is_busy = exc.sqlite_errorcode == sqlite3.SQLITE_BUSY
                if not is_busy or time.monotonic() > deadline:
                    raise
                time.sleep(_POLL)
            else:
                if mode != "wal":
                    raise UnusableJournalError("the file system cannot share it; use a local disk")
                return

    def _note_place(self) -> None:
        """Remember which files are written to, whatever their names mean later on."""
        (row,) = self._database.execute("PRAGMA database_list")
        self._path = Path(row[2])  # without symbolic links: SQLite names the other file after it
        self._wal_path = Path(f"{row[2]}-wal")
        self._place = self._path.stat()
        self._wal = os.open(self._wal_path, os.O_RDWR)

    def _check_place(self) -> None:
        """Raise unless other processes that open the journal see what is written.

        A file that was deleted, or replaced, can still be written, but no other process reads it.
        """
        try:
            is_there = os.path.samestat(self._path.stat(), self._place) and os.path.samestat(
                self._wal_path.stat(), os.fstat(self._log)
            )
        except FileNotFoundError:
            is_there = False
        if not is_there:
            raise UnusableJournalError("it was deleted, or replaced by another file")

    @property
    def log_path(self) -> Path:
        """The write-ahead log."""
        return self._wal_path

    @property
    def _log(self) -> int:
        assert self._wal is not None  # noqa: S101 - for type checkers
        return self._wal

    def sync(self) -> None:
        """Make what was written outlive a power cut, in the file that other processes open.

        Raises:
            OSError: The disk does not accept it.
            UnusableJournalError: The file was deleted, or replaced.
        """
        os.fsync(self._log)
        self._check_place()

    def close(self) -> None:
        """Close the file."""
        if self._wal is not None:  # first: the last process that closes the database deletes it
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
        """Write *entries*, delete those with the keys *gone*, and write a heartbeat if it is due.

        Raises:
            sqlite3.Error: That was not possible.
        """
        deleted = tuple(gone)
        if not deleted and not self._is_heartbeat_due(now):
            if entries:
                self._insert(self._database.execute, entries)  # a transaction of its own
            return
        with self._transaction() as execute:
            self._beat(execute, now)
            if entries:
                self._insert(execute, entries)
            if deleted:
                execute(
                    "DELETE FROM entries WHERE owner = ? AND server = ? AND (kind, id) IN"
                    f" (SELECT {_fields(2)} FROM json_each(?))",
                    (self._owner.token, self._server, json.dumps(deleted)),
                )

    def _insert(self, execute: Callable[..., Any], entries: Sequence[Entry]) -> None:
        owner = self._owner
        ours = (self._server, owner.api_user, owner.token)
        if len(entries) == 1:
            execute(_INSERT_ONE, (*ours, *entries[0]))
        else:  # tuples travel as lists, in the order of their fields
            execute(_INSERT_ALL, (*ours, json.dumps(entries)))

    def _is_heartbeat_due(self, now: float) -> bool:
        return abs(now - self._heartbeat_at) >= _HEARTBEAT_INTERVAL

    def _beat(self, execute: Callable[..., Any], now: float) -> None:
        """Write that this owner lives, if that was not written just before."""
        if not self._is_heartbeat_due(now):
            return
        self._heartbeat_at = now
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
        """Take over the entries of dead owners, and of sessions that have ended what they left.

        The first owner that claims an entry gets it, and no other one while that one lives.

        Returns:
            All that was taken over, the oldest first; and whether there may be more, of owners
            that may be dead or alive, because this host cannot see their process.
        """
        me = self._owner
        with self._transaction() as execute:
            self._beat(execute, now)
            undecided = False
            keys = set[Key]()
            owners = execute("SELECT * FROM owners WHERE token != ?", (me.token,)).fetchall()
            self._seen = {row[0]: self._seen[row[0]] for row in owners if row[0] in self._seen}
            for token, host, pid, place, started, seen, ended in owners:
                process = Process(host, pid, place, started)
                alive = is_present(token, process, seen, now, log=self._log, own_token=me.token)
                if alive is None and self._is_silent(token, seen, now):
                    alive = False
                undecided |= alive is None
                if alive is not False and not ended:
                    continue
                only = "" if alive is False else _LEFT_AT_THE_END
                taken = (
                    f"owner = ?{only} AND server = ? AND api_user = ?",
                    (token, self._server, me.api_user),
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
        """Return whether an owner has written no heartbeat for long.

        One look is not enough: the clock may have been set, or the host may just have woken up.
        """
        watched = time.monotonic()
        before, since = self._seen.get(token, (None, watched))
        if before != seen:
            self._seen[token], since = (seen, watched), watched
        return now - seen > _SILENCE and watched - since >= _OBSERVED_SILENCE

    def end(self) -> None:
        """Write that the session has ended."""
        with self._transaction() as execute:
            execute("UPDATE owners SET ended = 1 WHERE token = ?", (self._owner.token,))
            self._forget(execute, self._owner.token)

    @staticmethod
    def _forget(execute: Callable[..., Any], token: str) -> None:
        """Delete an owner that has no entries left."""
        execute(
            "DELETE FROM owners WHERE token = ?"
            " AND NOT EXISTS (SELECT 1 FROM entries WHERE owner = owners.token)",
            (token,),
        )


def find_problem(path: Path) -> str | None:
    """Make the file unless it is there; return why *path* can hold no journal, None if it may.

    A disk that fails or is full is no such reason, as it may work later.
    """
    try:
        folder = Path(os.path.realpath(path)).parent
        with suppress(FileNotFoundError):  # SQLite needs a file whose name is longer
            path.with_name(f"{path.name}-journal").stat()
        _create(path)
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            return "it is a folder" if stat.S_ISDIR(mode) else "it is no ordinary file"
        if not _is_permitted(path, os.R_OK | os.W_OK):
            return "this process may not write to it"
        if not _is_permitted(folder, os.W_OK | os.X_OK):
            return f"this process may not write to its folder {folder}, where SQLite needs files"
        sqlite3.connect(path).close()
    except OSError as exc:
        if exc.errno == errno.ENOENT and not folder.is_dir():
            return f"there is no folder {folder}"
        return exc.strerror if exc.errno in _WRONG_PATH else None
    except (ValueError, sqlite3.OperationalError) as exc:
        return str(exc)
    return None


def _is_permitted(path: Path, mode: int) -> bool:
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def _create(path: Path) -> None:
    """Make the file unless it is there, so that only its owner can read it.

    This package never opens a file that others may have opened. If it did, closing it again would
    release the locks that other sessions of this process hold on it, and another process could
    then delete their entries (sqlite.org/howtocorrupt.html, 2.2).
    """
    if path.exists():
        return
    path = Path(os.path.realpath(path))  # it may be a symbolic link to a file that is not there
    descriptor, made = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name[:_PREFIX]}.")
    os.close(descriptor)
    try:
        os.link(made, path)
    except FileExistsError:
        pass  # another process was faster
    except (OSError, NotImplementedError, AttributeError):  # a file system without hard links
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    finally:
        Path(made).unlink()
