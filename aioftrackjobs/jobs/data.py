"""The ``data`` of a Job: what each report writes into it. Pure: no I/O.

``data`` is one JSON text that is always written as a whole, and others keep values in it too. So
each report starts from what the server holds, and changes only the keys of this package:

- ``description``: the text in the jobs menu: the base text, followed by progress or a failure;
- ``base_description``: the base text, for as long as the description is longer than it, so that a
  Job that runs again starts from the text that it had;
- ``progress``: from 0 to 1, once some was reported;
- ``lease``: who owns the Job, and until when, for as long as it runs;
- ``recovered``: who found that the owner was gone, and when; only the owner may overrule that;
- ``previous_data``: what stood in ``data`` before, if that was no JSON object.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import anyio

from aioftrackjobs.errors import ArgumentError
from aioftrackjobs.jobs.ownership import LEASE
from aioftrackjobs.jobs.progress import Progress, add_failure, compose_description
from aioftrackjobs.models import parse_job_data
from aioftrackjobs.transport import redact

#: The key that a recovery writes, see :func:`compose_recovered_data`.
RECOVERED = "recovered"

#: The keys that a final status sets anew, or removes.
_FINAL_KEYS = ("description", "base_description", LEASE, RECOVERED)

#: Characters of a failure's description; the jobs menu shows one line.
_LONGEST_FAILURE = 300


@dataclass(slots=True)
class JobData:
    """What a Job reports about itself.

    Attributes:
        description: The base text; None to keep the text that the Job has.
        progress: The latest progress; None if none was reported.
        failure_reason: Why the Job fails; None if it does not.
        lease: The owner of the Job, as ``data`` holds it; None for no lease.
    """

    description: str | None
    progress: Progress | None = None
    failure_reason: str | None = None
    lease: Mapping[str, Any] | None = None

    def adopt_description(self, data: object) -> None:
        """Continue with the description in the *data* of an existing Job, unless one is given."""
        if self.description is None:
            kept = _read(data)
            base = kept.get("base_description", kept.get("description"))
            self.description = base if isinstance(base, str) else None

    def compose(self, data: object, extra: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
        """Return the new content of *data*.

        Args:
            data: What the server holds: JSON text, or whatever else others have written.
            extra: Values to keep in it from now on.
        """
        composed = {**_read(data), **(extra or {})}
        base = self.description
        text = base or ""
        if self.progress is not None or self.failure_reason is not None:
            text = compose_description(base, self.progress, self.failure_reason)
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


def compose_final_data(data: object, final: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the content of *data* with that of a *final* report, which was composed from none."""
    kept = {key: value for key, value in _read(data).items() if key not in _FINAL_KEYS}
    return {**kept, **final}


def compose_recovered_data(
    data: object, reason: str, recovered: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Return the content of *data* of a Job that fails because its owner is gone.

    Args:
        data: What the server holds: the text that the owner left, with its progress.
        reason: Why the Job fails; it is added to the text.
        recovered: Who found it, and when.
    """
    kept = _read(data)
    text, base = kept.get("description"), kept.get("base_description")
    if text:
        kept["base_description"] = base or text
    kept.pop(LEASE, None)
    return {**kept, "description": add_failure(text, reason), RECOVERED: recovered}


def parse_given_data(data: str) -> Mapping[str, Any]:
    """Return the JSON object that a user gave as the text of a Job's data.

    Raises:
        ArgumentError: It is not the text of a JSON object.
    """
    try:
        parsed = json.loads(data)
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        raise ArgumentError("data", "a mapping, or the text of a JSON object", "another text")
    return parsed


def _read(data: object) -> dict[str, Any]:
    if not isinstance(data, str):  # a new Job, or one without data
        return {}
    kept = parse_job_data(data)
    if not kept and data.strip() not in ("", "{}", "null"):
        return {"previous_data": data}
    return kept


def _encodable(text: str) -> str:
    """Return *text* without lone surrogates, as file names that are no UTF-8 have them."""
    return text.encode(errors="replace").decode()


def describe_failure(error: BaseException, *secrets: str) -> str:
    """Return in one line why a block ended by *error*, without any of *secrets*."""
    leaves = _leaves(error)
    match leaves[0]:
        case KeyboardInterrupt():
            text = "interrupted"
        case SystemExit() as exit_:
            text = f"the process exits with {exit_.code!r}"
        case first if isinstance(first, anyio.get_cancelled_exc_class()):
            text = "cancelled"
        case first:
            text = ": ".join(part for part in (type(first).__name__, _message(first)) if part)
    if len(leaves) > 1:
        text += f" (and {len(leaves) - 1} more)"
    line = " ".join(redact(text, *secrets).split())
    return line if len(line) <= _LONGEST_FAILURE else f"{line[: _LONGEST_FAILURE - 1]}…"


def _leaves(error: BaseException) -> list[BaseException]:
    """Return the errors inside nested groups, or the error itself."""
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [leaf for member in error.exceptions for leaf in _leaves(member)]


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - a broken __str__ must not hide that the block failed
        return ""
