"""What a Job's ``data`` says while it runs: pure composition of text, no I/O.

``data`` is one JSON text that is rewritten as a whole, and others keep things in it too. So each
report starts from what the server holds, and changes only keys of ours:

- ``description``: what the jobs menu shows, the base text with progress or failure behind it;
- ``base_description``: the base text, as long as the description says more than it, so that a
  Job that runs again starts from the text it had;
- ``progress``: from 0 to 1, once there is any;
- ``lease``: who runs it, and until when that holds, as long as it runs;
- ``recovered``: who found that its owner was gone, and when; only the owner overrules that;
- ``previous_data``: what stood in ``data`` if that was no JSON object.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Mapping
from typing import Any

import anyio

from aioftrackjobs.jobs.leases import LEASE
from aioftrackjobs.jobs.progress import Progress
from aioftrackjobs.models import parse_job_data
from aioftrackjobs.transport import redact

#: The key that a recovery leaves, see :func:`compose_recovery`.
RECOVERED = "recovered"

#: What a last word says anew, or takes away.
_OURS = ("description", "base_description", LEASE, RECOVERED)


class JobData:
    """The state of a Job, as text.

    Args:
        description: The base text; None to leave what the Job has.

    Attributes:
        lease: Who runs it, as it stands in data; None for nobody.
    """

    def __init__(self, description: str | None) -> None:
        self.description = description
        self.progress: Progress | None = None
        self.reason: str | None = None
        self.lease: Mapping[str, Any] | None = None

    def take_over(self, data: object) -> Mapping[str, Any]:
        """Return what *data*, of a Job that exists, holds; go on with its description."""
        kept = _read(data)
        if self.description is None:
            base = kept.get("base_description", kept.get("description"))
            self.description = base if isinstance(base, str) else None
        return kept

    def compose(self, data: object, more: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
        """Return the new content of *data*, which is what the server holds.

        Args:
            data: JSON text, or what else a server may have there.
            more: Values to keep in it from now on.
        """
        composed = {**_read(data), **(more or {})}
        base, text = self.description, self._text()
        for key in ("base_description", LEASE, RECOVERED):
            composed.pop(key, None)
        if text:
            composed["description"] = _encodable(text)
        if base and text != base:
            composed["base_description"] = _encodable(base)
        if self.progress is not None:
            composed["progress"] = self.progress.fraction
        if self.lease is not None:
            composed[LEASE] = self.lease
        return composed

    def _text(self) -> str:
        text = self.description or ""
        if self.progress is not None:
            text = f"{text} ({self.progress})" if text else str(self.progress)
        if self.reason is not None:
            text = f"{text} - failed: {self.reason}" if text else f"failed: {self.reason}"
        return text


def compose_word(data: object, said: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the content of *data* with what a last word *said*, which was composed from none."""
    kept = {key: value for key, value in _read(data).items() if key not in _OURS}
    return {**kept, **said}


def compose_recovery(data: object, reason: str, recovered: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the content of *data* of a Job that fails because its owner is gone.

    Args:
        data: What the server holds: the text that the owner left, with its progress.
        reason: What the text says from now on, too.
        recovered: Who found it, and when.
    """
    kept = _read(data)
    text, base = kept.get("description"), kept.get("base_description")
    failed = f"{text} - failed: {reason}" if text else f"failed: {reason}"
    if text:
        kept["base_description"] = base or text
    kept.pop(LEASE, None)
    return {**kept, "description": failed, RECOVERED: recovered}


def read_data(data: Mapping[str, Any] | str | None) -> Mapping[str, Any]:
    """Return what a user gave as a Job's data.

    Raises:
        ValueError: It is text, but not that of a JSON object.
    """
    if not isinstance(data, str):
        return data or {}
    try:
        parsed = json.loads(data)
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        raise ValueError("data is no JSON object")  # noqa: TRY004 - it is text, of another kind
    return parsed


def _read(data: object) -> dict[str, Any]:
    kept = parse_job_data(data)
    if not kept and isinstance(data, str) and data.strip() not in ("", "{}", "null"):
        return {"previous_data": data}
    return kept


def _encodable(text: str) -> str:
    """Return *text* without lone surrogates, as file names that are no UTF-8 have them."""
    return text.encode(errors="replace").decode()


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
