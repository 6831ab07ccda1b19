"""Damage of a journal that is in use: it is noticed, and what is left of the file is saved.

SQLite does not look again at what it has written, and the sessions that have the file open share
an index of its log in memory. So damage shows when all of them have died, which is when the journal
is needed. :class:`DamageWatch` looks at the files as a process would that opens them after that: at
their sizes, and at the checksums of the log.

Source:
    sqlite.org/fileformat2.html, section 4 (the write-ahead log); sqlite.org/walformat.html.
"""

from __future__ import annotations

import os
import sqlite3
import struct
import sys
import time
import zlib
from array import array
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Literal, NamedTuple

from aioftrackjobs.journal._entry import Key, Owner
from aioftrackjobs.journal._place import DamagedJournalError, UnusableJournalError, is_damage
from aioftrackjobs.journal._rows import (
    ENTRY_COLUMNS,
    OWNER_COLUMNS,
    check_entry,
    check_owner,
    decode_text,
)

#: The header of the log, and that of each frame in it.
_HEADER, _FRAME = struct.Struct(">8I"), struct.Struct(">6I")
_MAGIC, _MASK = 0x377F0682, 0xFFFFFFFF
#: Where the index of the log has the number of its frames.
_FRAMES_AT = 16

#: Frames whose checksum is computed at a time, each in a tenth of a millisecond. Of others, only
#: the header is looked at.
_MOST = 16

#: Seconds in which two changes of a file may have the same time; and that a write takes.
_CLOCK, _WRITE = 0.05, 0.02

#: Looks at a log of which others write a part, or begin it anew, while it is read.
_LOOKS = 6


class _Read(NamedTuple):
    """What was read of the log.

    Attributes:
        header: Its header.
        frames: How many frames follow that are in use. Later ones may be of a process that has died
            before its transaction was committed, and are overwritten.
        checksum: A checksum of all these bytes.
    """

    header: bytes = b""
    frames: int = 0
    checksum: int = 0


class DamageWatch:
    """Looks at the files of an open journal from time to time.

    Args:
        path: The database.
        log: Its write-ahead log, an open file.
    """

    def __init__(self, path: Path, log: int) -> None:
        self._path, self._log = path, log
        self._sizes = 0, 0
        self._seen: object = None
        self._read = _Read()

    def note_write(self) -> None:
        """Take note that the log has what was just written."""
        self._sizes = self._sizes[0], max(self._sizes[1], os.fstat(self._log).st_size)

    def has_changed(self) -> bool:
        """Return whether the files have changed since the last call that returned False.

        Raises:
            DamagedJournalError: One of them is shorter than before.
            OSError: One of them is not there.
        """
        now = time.time()
        main, log = self._path.stat(), os.fstat(self._log)
        if main.st_size < self._sizes[0] or log.st_size < self._sizes[1]:
            raise DamagedJournalError("it was cut off")
        self._sizes = main.st_size, log.st_size
        seen = (main.st_mtime_ns, main.st_size, log.st_mtime_ns, log.st_size)
        if seen == self._seen:
            return False
        is_recent = now - max(main.st_mtime, log.st_mtime) < _CLOCK
        self._seen = None if is_recent else seen
        return True

    def check_log(self) -> None:
        """Check the log as far as it has changed.

        Raises:
            DamagedJournalError: Another process could not read all of it.
        """
        for _ in range(_LOOKS):
            if self._is_whole():
                return
            time.sleep(_WRITE)  # another process may have been writing
        raise DamagedJournalError("its log is damaged")

    def _is_whole(self) -> bool:
        # Before the content: what is in use by now stays as it is until the log begins anew.
        in_use = _frames_in_use(self._path)
        content = os.pread(self._log, os.fstat(self._log).st_size, 0)
        before, header = self._read, content[: _HEADER.size]
        if not content:
            return not before.frames
        if (layout := _layout_of(header)) is None:
            return False
        byte_order, page, salts, first, second = layout
        size = _FRAME.size + page
        start, done = _HEADER.size, 0
        if header == before.header:
            done = before.frames
            start += done * size
            if zlib.crc32(content[:start]) != before.checksum:
                return False
        kept = done
        if done:
            first, second = _FRAME.unpack_from(content, start - size)[4:]
        limit = done + _MOST
        while start + size <= len(content):
            _, is_commit, one, other, found, found_too = _FRAME.unpack_from(content, start)
            if [one, other] != salts:
                break
            if done < limit:
                frame = content[start : start + 8] + content[start + _FRAME.size : start + size]
                if _sum(frame, first, second, byte_order) != (found, found_too):
                    break
            first, second, start, done = found, found_too, start + size, done + 1
            if is_commit if in_use is None else done <= in_use:
                kept = done
        # Others may be of a process that has died while it wrote them.
        if done < in_use if in_use is not None else _has_frames(content[start:], size, salts):
            return False
        self._read = _Read(header, kept, zlib.crc32(content[: _HEADER.size + kept * size]))
        return True

    def check_rows(self, owner: Owner, server: str, expected: Mapping[Key, str | None]) -> None:
        """Check that another process finds what this session has written.

        Args:
            owner: The session.
            server: What its entries are about.
            expected: The final reports of its entries by their keys.

        Raises:
            UnusableJournalError: It does not.
        """
        try:
            with closing(sqlite3.connect(self._path, timeout=_WRITE)) as database:
                database.text_factory = decode_text
                (verdict,) = database.execute("PRAGMA quick_check(1)").fetchone()
                rows = database.execute(
                    "SELECT kind, id, owner, final_report FROM entries WHERE server = ?", (server,)
                ).fetchall()
                for columns, table in ((ENTRY_COLUMNS, "entries"), (OWNER_COLUMNS, "owners")):
                    database.execute(f"SELECT {columns} FROM {table} LIMIT 1").fetchone()
        except sqlite3.DatabaseError as exc:
            code = getattr(exc, "sqlite_errorcode", 0)
            if is_damage(exc):
                raise DamagedJournalError(str(exc)) from exc
            if code & 0xFF == sqlite3.SQLITE_ERROR:
                raise UnusableJournalError(str(exc)) from exc
            return  # it is busy, or the disk fails, which the next write shows
        if verdict != "ok":
            raise DamagedJournalError(f"its content is damaged: {verdict}")
        found = {(kind, id_): (token, report) for kind, id_, token, report in rows}
        for key, report in expected.items():
            token, kept = found.get(key, (owner.token, key))
            if token == owner.token and kept != report:
                raise UnusableJournalError("entries were deleted or altered by another program")


def _has_frames(content: bytes, size: int, salts: list[int]) -> bool:
    """Return whether *content* has frames of the log with these *salts*."""
    places = range(0, len(content) - _FRAME.size + 1, size)
    return any(list(_FRAME.unpack_from(content, place)[2:4]) == salts for place in places)


def _layout_of(header: bytes) -> tuple[Literal["big", "little"], int, list[int], int, int] | None:
    """Return byte order, page size, salts and checksum in a log's *header*; None if damaged."""
    if len(header) < _HEADER.size:
        return None
    magic, _, page, _, *salts, first, second = _HEADER.unpack(header)
    byte_order: Literal["big", "little"] = "big" if magic & 1 else "little"
    if magic & ~1 != _MAGIC or _sum(header[:24], 0, 0, byte_order) != (first, second):
        return None
    return byte_order, page, salts, first, second


def _frames_in_use(path: Path) -> int | None:
    """Return how many frames the log has according to its index; None if that is not known.

    The index is read in the memory of this process. To open its file and close it again would
    release the locks on it that other sessions of this process hold.
    """
    if sys.platform == "linux":
        with suppress(OSError, ValueError), open("/proc/self/maps") as maps:  # noqa: PTH123
            for line in maps:
                if line.rstrip("\n").endswith(f"{path}-shm"):
                    place = int(line.partition("-")[0], 16) + _FRAMES_AT
                    with open("/proc/self/mem", "rb", buffering=0) as memory:  # noqa: PTH123
                        memory.seek(place)
                        return int.from_bytes(memory.read(4), sys.byteorder)
    return None


def _sum(content: bytes, first: int, second: int, byte_order: str) -> tuple[int, int]:
    """Return the checksum of the log's format, continued from another one."""
    words = array("I", content)
    if byte_order != sys.byteorder:
        words.byteswap()
    for one, other in zip(words[::2], words[1::2], strict=True):
        first = (first + one + second) & _MASK
        second = (second + other + first) & _MASK
    return first, second


def salvage(damaged: Path, database: sqlite3.Connection, token: str) -> int:
    """Copy what can be read of a *damaged* journal; return how many entries that were.

    Args:
        damaged: The file, under the name that it was moved to.
        database: The new journal.
        token: The owner whose entries are not copied, because it writes them itself.
    """
    count = 0
    with suppress(sqlite3.Error), closing(sqlite3.connect(damaged, isolation_level=None)) as old:
        old.text_factory = decode_text
        # In both directions: rows that stand behind a damaged page can be read from the end.
        for order in ("ASC", "DESC"):
            count += _copy(old, database, "owners", OWNER_COLUMNS, f"token {order}", token)
            key = f"server {order}, kind {order}, id {order}"
            count += _copy(old, database, "entries", ENTRY_COLUMNS, key, token)
    return count


def _copy(
    old: sqlite3.Connection,
    new: sqlite3.Connection,
    table: str,
    columns: str,
    order: str,
    token: str,
) -> int:
    marks = ", ".join("?" for _ in columns.split(","))
    count = 0
    with suppress(sqlite3.DatabaseError):
        for row in old.execute(f"SELECT {columns} FROM {table} ORDER BY {order}"):
            if table == "owners":
                is_wanted = check_owner(row) is not None and row[0] != token
            else:
                checked = check_entry(row)
                is_wanted = checked is not None and checked.owner != token
            if is_wanted:
                insert = f"INSERT OR IGNORE INTO {table} ({columns}) VALUES ({marks})"
                added = new.execute(insert, row).rowcount
                count += added if table == "entries" else 0
    return count
