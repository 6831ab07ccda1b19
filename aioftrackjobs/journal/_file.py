"""The journal's file: a SQLite database that any number of processes of one host write to.

It is in WAL mode. The operating system has every transaction that has ended: it outlives the
process, whatever ends that, and the next process sees it. It outlives a power cut only when it is
synced to the disk. That takes much longer, and is a step of its own; the file stays valid in any
case.

A batch of changes is one transaction of as few statements as possible, whatever its size: after
each statement the thread waits for the GIL, which a busy event loop releases every 5 ms.
"""

from __future__ import annotations

import json
import math
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from aioftrackjobs.config.settings import server_identity
from aioftrackjobs.config.timings import DEFAULT_TIMINGS
from aioftrackjobs.journal._damage import DamageWatch, salvage
from aioftrackjobs.journal._entry import Entry, Key, Owner
from aioftrackjobs.journal._place import (
    DamagedJournalError,
    UnusableJournalError,
    create,
    fill,
    make_private,
    require_ordinary,
    require_own,
    set_aside,
)
from aioftrackjobs.journal._presence import is_present, note_opened
from aioftrackjobs.journal._rows import (
    ENTRY_COLUMNS,
    OWNER_COLUMNS,
    UNKNOWN_HOST,
    EntryRow,
    OwnerRow,
    as_bytes,
    check_entry,
    check_owner,
    decode_text,
    show_row,
)

#: Seconds between two attempts if another process writes and SQLite does not wait by itself.
_POLL = 0.02

#: Seconds between two heartbeats, at least: most batches need none.
_HEARTBEAT_INTERVAL = 5.0

#: Seconds without a heartbeat after which a process of which this host knows nothing counts as
#: dead; and for how many seconds that has to be observed, by a clock that cannot be set.
_SILENCE, _OBSERVED_SILENCE = 120.0, 45.0


def _fields(number: int) -> str:
    return ", ".join(f"json_extract(value, '$[{index}]')" for index in range(number))


_REPLACE = (
    "INSERT OR REPLACE INTO entries (server, api_user, owner, kind, id, holder, since,"
    " final_report, lost_host, lost_at) "
)
_INSERT_ONE = f"{_REPLACE} VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_INSERT_ALL = f"{_REPLACE} SELECT ?, ?, ?, {_fields(7)} FROM json_each(?)"

#: Owners that are not in the file any more: their last heartbeat.
_NEVER = 0.0


class JournalFile:
    """An open journal.

    Args:
        path: The file. If it is not there, it is made, so that only its owner can read it.
        owner: The session that writes.
        busy_timeout: Seconds to wait for other processes that write.

    Attributes:
        set_aside_rows: How many rows that cannot be used were moved to another table.

    Raises:
        OSError: It cannot be made.
        sqlite3.Error: It cannot be used, or is damaged.
        UnusableJournalError: It is no journal, or one of a later version.
    """

    def __init__(
        self,
        path: Path,
        owner: Owner,
        *,
        busy_timeout: float = DEFAULT_TIMINGS.journal_busy_timeout,
    ) -> None:
        note_opened(owner.token)
        self._given = path
        self._owner = owner
        self._server = server_identity(owner.server_url)
        self._busy_timeout = busy_timeout
        self._heartbeat_at = -math.inf
        self._wal: int | None = None
        self.set_aside_rows = 0
        # The last heartbeat of owners that may be dead or alive, and since when it is the same.
        self._seen: dict[str, tuple[float, float]] = {}
        create(path)
        require_ordinary(path)
        require_own(path)
        make_private(path)
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
        self._database.text_factory = decode_text
        fill(self._database)
        self._use_wal()
        execute("PRAGMA synchronous = NORMAL")  # see sync()
        try:
            for columns, table in ((ENTRY_COLUMNS, "entries"), (OWNER_COLUMNS, "owners")):
                execute(f"SELECT {columns} FROM {table} LIMIT 0")
        except sqlite3.OperationalError as exc:
            if exc.sqlite_errorcode != sqlite3.SQLITE_ERROR:
                raise
            raise DamagedJournalError(str(exc)) from exc

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
        self._watch = DamageWatch(self._path, self._wal)

    def _check_place(self) -> None:
        """Raise unless other processes that open the journal see what is written.

        A file that was deleted, or replaced, can still be written, but no other process reads it;
        nor does one look for it where a symbolic link has led to before.
        """
        path = Path(os.path.realpath(self._given))
        log = path.with_name(f"{path.name}-wal")
        try:
            is_there = os.path.samestat(path.stat(), self._place)
            is_there = is_there and os.path.samestat(log.stat(), os.fstat(self._log))
        except (FileNotFoundError, NotADirectoryError):
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

    def inspect(self, expected: Mapping[Key, str | None]) -> None:
        """Check that another process would find what was written, if it has changed since.

        Args:
            expected: The final reports of this session's entries by their keys.

        Raises:
            UnusableJournalError: It would not.
        """
        self._check_place()
        if self._watch.has_changed():
            self._watch.check_log()
            self._watch.check_rows(self._owner, self._server, expected)

    def require_unlocked(self) -> None:
        """Raise sqlite3.OperationalError if another process does not let this one write."""
        with self._transaction():
            pass

    def set_aside(self) -> Path | None:
        """Move the file to another name; return that, or None if another one is in its place."""
        with suppress(FileNotFoundError):
            if os.path.samestat(self._path.stat(), self._place):
                return set_aside(self._path)
        return None

    def salvage(self, damaged: Path) -> int:
        """Copy the entries of other sessions that can be read in a file that was moved."""
        return salvage(damaged, self._database, self._owner.token)

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
                self._watch.note_write()
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
        self._watch.note_write()

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
            " ON CONFLICT (token) DO UPDATE SET host = excluded.host, pid = excluded.pid, place ="
            " excluded.place, started = excluded.started, seen = excluded.seen",
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
            owners, rows = self._read(execute, now)
            of_owner: dict[str, list[EntryRow]] = {row.token: [] for row in owners}
            for row in rows:
                if row.server == self._server and row.api_user == me.api_user:
                    of_owner.setdefault(row.owner, []).append(row)
            of_owner.pop(me.token, None)
            self._seen = {key: each for key, each in self._seen.items() if key in of_owner}
            known = {row.token: row for row in owners}
            undecided = False
            taken: list[Entry] = []
            for token, theirs in of_owner.items():
                # The row of an owner may be lost by damage; if it lives, it writes it again.
                owner = known.get(token) or OwnerRow(token, None, UNKNOWN_HOST, _NEVER, ended=False)
                is_alive = self._is_alive(owner, now)
                undecided |= is_alive is None
                if is_alive is False or owner.ended:
                    # What a session leaves to others when it ends: its Jobs may still run, in the
                    # same process.
                    taken += self._take(execute, owner, theirs, all_=is_alive is False)
        return sorted(taken, key=lambda entry: entry.since), undecided

    def _read(
        self, execute: Callable[..., Any], now: float
    ) -> tuple[list[OwnerRow], list[EntryRow]]:
        """Return all rows that can be used, and move the others into a table of their own."""
        owners: list[OwnerRow] = []
        entries: list[EntryRow] = []
        odd: list[tuple[str, Sequence[Any]]] = []
        for row in execute(f"SELECT {OWNER_COLUMNS} FROM owners").fetchall():
            if (owner := check_owner(row)) is None:
                odd.append(("owners", row))
            else:
                owners.append(owner)
        for row in execute(f"SELECT {ENTRY_COLUMNS} FROM entries").fetchall():
            if (entry := check_entry(row)) is None:
                odd.append(("entries", row))
            else:
                entries.append(entry)
        for table, row in odd:
            execute("INSERT INTO set_aside VALUES (?, ?, ?)", (now, table, show_row(row)))
            key = row[:1] if table == "owners" else row[:3]
            names = ("token",) if table == "owners" else ("server", "kind", "id")
            # By their bytes: what is no text cannot be compared as one.
            where = " AND ".join(f"CAST({name} AS BLOB) IS ?" for name in names)
            execute(f"DELETE FROM {table} WHERE {where}", tuple(map(as_bytes, key)))
        self.set_aside_rows += len(odd)
        return owners, entries

    def _is_alive(self, owner: OwnerRow, now: float) -> bool | None:
        alive: bool | None = None
        if owner.process is not None:
            mine = self._owner.token
            alive = is_present(
                owner.token, owner.process, owner.seen, now, log=self._log, own_token=mine
            )
        if alive is None and self._is_silent(owner.token, owner.seen, now):
            return False
        return alive

    def _take(
        self,
        execute: Callable[..., Any],
        owner: OwnerRow,
        theirs: Sequence[EntryRow],
        *,
        all_: bool,
    ) -> list[Entry]:
        """Take over all of an owner's entries, or those that its session has left at its end."""
        taken = [
            row.entry._replace(
                lost_host=row.entry.lost_host or owner.host,
                lost_at=row.entry.lost_at or owner.seen or row.entry.since,
            )
            for row in theirs
            if all_ or row.entry.final_report is not None or row.entry.kind == "upload"
        ]
        if taken:
            self._insert(execute, taken)
        self._forget(execute, owner.token)
        return taken

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
