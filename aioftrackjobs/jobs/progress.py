"""Progress of Jobs: its text in the jobs menu. No I/O.

:mod:`aioftrackjobs.jobs.data` puts the text into the ``data`` of the Job, and
:mod:`aioftrackjobs.jobs.channels` has it written.
"""

from __future__ import annotations

from typing import NamedTuple

from aioftrackjobs.config.secret import Secret
from aioftrackjobs.transport import redact

#: Characters of a message or of a reason; the jobs menu shows one line.
LONGEST_LINE = 300

#: What stands before the reason of a failure.
FAILURE = "failed: "

_KIB = 1024

#: Sizes from here on are shown without a decimal place.
_EXACT = 100


def one_line(text: str, *secrets: Secret[str]) -> str:
    """Return *text* in one line of limited length, without any of *secrets*."""
    # A text of many megabytes is cut before it is searched. Secrets are removed from the rest of
    # it before that is cut to its final length, which could leave a part of one.
    line = " ".join(redact(text[: 10 * LONGEST_LINE], *secrets).split())
    return line if len(line) <= LONGEST_LINE else f"{line[: LONGEST_LINE - 1]}…"


class Progress(NamedTuple):
    """How far a Job is.

    Attributes:
        fraction: From 0 to 1; None if that is not known.
        message: What the Job is doing.
    """

    fraction: float | None
    message: str | None = None

    def __str__(self) -> str:
        parts = []
        if self.fraction is not None:
            percent = round(self.fraction * 100)
            parts.append(f"{percent if self.fraction >= 1 else min(percent, 99)} %")
        if self.message and (message := one_line(self.message)):
            parts.append(message)
        return ", ".join(parts)


def compose_description(
    base: str | None, progress: Progress | None, result: str | None, failure_reason: str | None
) -> str:
    """Return the text in the jobs menu.

    It is the base text with the progress, and then with what was done, or why the Job failed. For
    example ``Render sh010 (40 %, frame 12 of 30) - failed: OSError: disk full``.
    """
    text = base or ""
    if result:
        text = f"{text} - {result}" if text else result
    elif progress is not None and (shown := str(progress)):
        text = f"{text} ({shown})" if text else shown
    if failure_reason is not None:
        text = add_failure(text, failure_reason)
    return text


def add_failure(text: object, reason: str) -> str:
    """Return *text*, if there is any, followed by why the Job failed."""
    return f"{text} - {FAILURE}{reason}" if text else f"{FAILURE}{reason}"


def size_text(count: int) -> str:
    """Return a number of bytes as people read it."""
    size, units = float(count), ["bytes", "KiB", "MiB", "GiB"]
    while size >= _KIB and len(units) > 1:
        size /= _KIB
        del units[0]
    digits = 0 if count < _KIB or size >= _EXACT else 1
    return f"{size:.{digits}f} {units[0]}"
