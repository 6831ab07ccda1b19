"""The log of requests: one line for each, and two for each connection to the event hub.

They are logged at the level INFO, which is not enabled by default. No key, signed address or
other query of an address is in a line. Operations are named by kind and type, without values; only
the text of a refusal may quote one.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any, Protocol

from pydantic_core import from_json

logger: logging.Logger = logging.getLogger(__name__)

#: Bytes of a body of which the operations are named.
LARGEST_LOGGED_BODY = 1024 * 1024
#: Kinds of operations that are named, and characters of a query, a name, and an error.
_MOST_KINDS, _READ, _LONGEST_NAME, _LONGEST_REFUSAL = 6, 2000, 60, 200
#: The entity type in a query.
_TYPE = re.compile(r"\s*(?:select\b.*?\bfrom\s+)?(\w+)", re.DOTALL)
_MIB, _KIB = 1024 * 1024, 1024


class Logged(Protocol):
    """What is known of a request."""

    name: str
    user: str
    status: int | None
    seconds: float | None
    fault: object
    refusal: str
    content: bytes
    size: int


def is_logging() -> bool:
    """Return whether requests are logged."""
    return logger.isEnabledFor(logging.INFO)


def log_connection(entry: Logged) -> None:
    """Log that a client has connected to the event hub."""
    if is_logging():
        _log(f"{_one_line(entry.user) or '-'}  event hub connected")


def log_end(entry: Logged) -> None:
    """Log a request whose response is sent, or a connection to the event hub that has ended."""
    if not is_logging():
        return
    parts = [_one_line(entry.user) or "-", _subject(entry), _ending(entry), _duration(entry)]
    _log("  ".join(part for part in parts if part))


def _log(line: str) -> None:
    try:
        logger.info("%s", line)
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001, S110 - a handler of the program must not end the server
        pass


def operations_in(content: bytes) -> str:
    """Return the operations of a batch in short, as "create Job x3, query Task".

    It is empty if *content* is no batch.
    """
    try:
        batch = from_json(content)
    except ValueError:
        return ""
    if not isinstance(batch, list):
        return ""
    counts = Counter(_name_of(each) for each in batch if isinstance(each, dict))
    kinds = [name if count == 1 else f"{name} x{count}" for name, count in counts.items()]
    more = [f"{len(kinds) - _MOST_KINDS} more kinds"] if len(kinds) > _MOST_KINDS else []
    return ", ".join([*kinds[:_MOST_KINDS], *more])


def _name_of(operation: Mapping[str, Any]) -> str:
    action, expression = operation.get("action"), operation.get("expression")
    if isinstance(expression, str):
        found = _TYPE.match(expression[:_READ])
        subject: object = found[1] if found else None
    else:
        subject = operation.get("entity_type") or operation.get("object_type")
    names = [_one_line(each)[:_LONGEST_NAME] for each in (action, subject) if isinstance(each, str)]
    return " ".join(names) or "?"


def _subject(entry: Logged) -> str:
    if entry.name.startswith("WS "):
        return "event hub disconnected" if entry.status == 101 else "event hub"
    if entry.name.startswith("POST /api") and entry.content:
        operations = operations_in(entry.content)
        if operations:
            return operations
    return f"{_one_line(entry.name)} {_size(entry.size)}".rstrip()


def _ending(entry: Logged) -> str:
    if entry.name.startswith("WS ") and entry.status == 101:
        status = ""
    else:
        status = str(entry.status or "no response")
    refusal = f"refused: {_one_line(entry.refusal)[:_LONGEST_REFUSAL]}" if entry.refusal else ""
    fault = f"injected: {_one_line(str(entry.fault))}" if entry.fault is not None else ""
    return "  ".join(part for part in (status, refusal, fault) if part)


def _duration(entry: Logged) -> str:
    seconds = entry.seconds or 0.0
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _size(size: int) -> str:
    if size < _KIB:
        return f"({size} bytes)" if size else ""
    return f"({size / _MIB:.1f} MiB)" if size >= _MIB else f"({size / _KIB:.1f} KiB)"


def _one_line(text: str) -> str:
    """Return *text* without what could begin a line or control a terminal."""
    return "".join(each if each.isprintable() else " " for each in text).strip()
