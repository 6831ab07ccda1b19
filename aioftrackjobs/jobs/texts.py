"""Texts that users see in the jobs menu: one line, of a limited length, made of any value."""

from __future__ import annotations

from aioftrackjobs.transport import redact

#: Characters of a message or of a reason; the jobs menu shows one line.
LONGEST_LINE = 300


def one_line(text: str, *secrets: str) -> str:
    """Return *text* in one line of limited length, without any of *secrets*."""
    # A text of many megabytes is cut before it is searched. Secrets are removed from the rest of
    # it before that is cut to its final length, which could leave a part of one.
    line = " ".join(redact(text[: 10 * LONGEST_LINE], *secrets).split())
    return line if len(line) <= LONGEST_LINE else f"{line[: LONGEST_LINE - 1]}…"


def text_of(value: object) -> str | None:
    """Return ``str(value)``; None for None, and if that raises an error."""
    try:
        return None if value is None else str(value)
    except Exception:  # noqa: BLE001 - a broken __str__ is no reason to end the work
        return None
