"""Texts for the terminal: what other programs have written, and ages."""

from __future__ import annotations

from datetime import UTC, datetime

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400


def plain(text: str) -> str:
    """Return *text* as one line without control codes, with which it could change the terminal."""
    line = "".join(each if each.isprintable() else " " for each in text)
    return line.rstrip()


def since(moment: str | None) -> str:
    """Return how long ago a *moment* of ISO 8601 was, as 5s, 12m, 3h or 9d."""
    if moment is None:
        return ""
    seconds = max((datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds(), 0)
    for size, unit in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "m")):
        if seconds >= size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"
