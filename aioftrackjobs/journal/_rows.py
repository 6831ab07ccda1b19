"""The rows of the journal's file, which are checked when they are read.

Any program can write to the file, and a disk can damage it: a value may have any type, and any
content. What can be repaired without a loss is repaired here: without its final report, a Job of a
dead process is one that was lost. What cannot be used is *set aside*: moved into a table of its
own, where people can look at it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from aioftrackjobs.journal._entry import Entry
from aioftrackjobs.journal._process import Process

_KINDS = ("job", "upload", "start")

#: Characters of an id, and of the names in a row, at most.
_LONGEST = 255

#: Seconds since 1970 that are a time: until the year 3000.
_LATEST = 32_503_680_000.0

#: Process ids are lower than this on every system.
_PIDS = 2**31

#: The host of a process, if no row says it.
UNKNOWN_HOST = "an unknown host"

ENTRY_COLUMNS = "server, kind, id, api_user, owner, holder, since, final_report, lost_host, lost_at"
OWNER_COLUMNS = "token, host, pid, place, started, seen, ended"


class EntryRow(NamedTuple):
    """A row of the table of entries that can be used.

    Attributes:
        server: The server that it is about.
        api_user: The user that can change it there.
        owner: The session that it belongs to.
        entry: The rest of it.
    """

    server: str
    api_user: str
    owner: str
    entry: Entry


class OwnerRow(NamedTuple):
    """A row of the table of owners that can be used.

    Attributes:
        token: Identifies the owner.
        process: Its process; None if the row does not say that.
        host: The host of the process, for people.
        seen: Its last heartbeat.
        ended: Whether the session has ended.
    """

    token: str
    process: Process | None
    host: str
    seen: float
    ended: bool


def decode_text(raw: bytes) -> str:
    """Return a text of the file; bytes that are no text become lone surrogates."""
    return raw.decode(errors="surrogateescape")


def as_bytes(value: object) -> bytes | None:
    """Return the bytes of a text or a blob of the file, as ``CAST(... AS BLOB)`` does."""
    if isinstance(value, str):
        return value.encode(errors="surrogateescape")
    return value if isinstance(value, bytes) else None


def check_entry(row: Sequence[Any]) -> EntryRow | None:
    """Return the row with the columns of :data:`ENTRY_COLUMNS`; None if it cannot be used."""
    server, kind, id_, api_user, owner, holder, since, report, lost_host, lost_at = row
    if kind not in _KINDS or not all(map(_is_name, (server, id_, api_user, owner, holder))):
        return None
    if report is not None and not (isinstance(report, str) and _is_utf8(report)):
        report = ""  # which is no report: see journal_replay
    if lost_host is not None and not _is_name(lost_host):
        lost_host = UNKNOWN_HOST
    since, lost_at = _time(since) or 0.0, _time(lost_at)
    entry = Entry(kind, id_, holder, since, report, lost_host, lost_at)
    return EntryRow(server, api_user, owner, entry)


def check_owner(row: Sequence[Any]) -> OwnerRow | None:
    """Return the row with the columns of :data:`OWNER_COLUMNS`; None if it cannot be used.

    If only its process is unknown, the heartbeats show whether it lives.
    """
    token, host, pid, place, started, seen, ended = row
    if not _is_name(token):
        return None
    is_process = all(isinstance(each, str) for each in (host, place, started))
    is_process = is_process and type(pid) is int and 0 < pid < _PIDS
    process = Process(host, pid, place, started) if is_process else None
    shown = host if _is_name(host) else UNKNOWN_HOST
    return OwnerRow(token, process, shown, _time(seen) or 0.0, ended == 1)


def show_row(row: Sequence[Any]) -> str:
    """Return a row as JSON, for people."""
    return json.dumps([each if isinstance(each, (int, float, str)) else repr(each) for each in row])


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _LONGEST and value.isprintable()


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _time(value: object) -> float | None:
    if isinstance(value, (int, float)) and math.isfinite(value) and 0 <= value <= _LATEST:
        return float(value)
    return None
