"""Why a block failed: one line for the jobs menu, and a traceback for a text file."""

from __future__ import annotations

import traceback

import anyio

from aioftrackjobs.transport import redact

#: Characters of a reason; the jobs menu shows one line.
_LONGEST_REASON = 300


def describe_failure(error: BaseException, *secrets: str) -> str:
    """Return in one line why a block ended by *error*, without any of *secrets*."""
    first, others = _first_leaf(error)
    match first:
        case KeyboardInterrupt():
            text = "interrupted"
        case SystemExit():
            text = f"the process exits with {first.code!r}"
        case _ if _is_cancellation(first):
            text = "cancelled"
        case _:
            text = ": ".join(part for part in (type(first).__name__, _text(first)) if part)
    if others:
        text += f" (and {others} more)"
    line = " ".join(redact(text, *secrets).split())
    return line if len(line) <= _LONGEST_REASON else f"{line[: _LONGEST_REASON - 1]}…"


def format_failure(error: BaseException, *secrets: str) -> str:
    """Return the traceback of *error*, with causes, groups and notes, without *secrets*."""
    return redact("".join(traceback.format_exception(error)), *secrets)


def _first_leaf(error: BaseException) -> tuple[BaseException, int]:
    """Return the first error inside nested groups, and how many others there are."""
    leaves = list(_leaves(error))
    return leaves[0], len(leaves) - 1


def _leaves(error: BaseException) -> list[BaseException]:
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [leaf for member in error.exceptions for leaf in _leaves(member)]


def _is_cancellation(error: BaseException) -> bool:
    return isinstance(error, anyio.get_cancelled_exc_class())


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - a broken __str__ must not hide that the block failed
        return ""
