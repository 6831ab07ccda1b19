"""Keys: the Job of a task of an engine, found without storing anything. No I/O.

An engine such as procrastinate, taskiq or Celery runs a task again after a failure, and delivers it
to another worker if one has died. All of them, and the producer of the task, find the same Job,
because its id is made from what they all know: see :func:`job_key`.

What the engine has promised stands in the ``data`` of the Job, under ``redelivery``::

    "redelivery": {"engine": "celery", "queue": "renders", "task": "7c2d...", "within": 3600,
                   "until": "2026-03-01T12:00:00+00:00"}

``within`` is in seconds; ``until`` is there while the Job is queued. A queued Job with this key
belongs to its engine, and a running one without a living owner does so for as long as that may
deliver its task again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID, uuid5

from aioftrackjobs.config.settings import is_id, require, require_seconds
from aioftrackjobs.jobs.ownership import LONGEST_LEASE, Lease
from aioftrackjobs.models import JobStatus

#: The namespace of the ids: the version 5 UUID of "aioftrackjobs" as a name in DNS.
NAMESPACE = UUID("f046fcfd-fda2-555b-945b-830d900ad848")

#: The key in a Job's data.
REDELIVERY = "redelivery"

#: Characters of a part of a key that are kept in the data.
_LONGEST_PART = 200


class JobKey(UUID):
    """The id of the Job of one task; :func:`job_key` makes it.

    Example: ``job_context(session, job=job_key("procrastinate", "renders", 42))``

    It can be used wherever an id can, as in ``session.wait_for(key)``.

    Attributes:
        engine: The engine.
        queue: Its queue, or whatever its task ids are unique in.
        task_id: The task.
        redelivered_within: Seconds for which the engine may still deliver the task again after
            the lease of its worker has ended; None if it has promised nothing.
    """

    __slots__ = ("engine", "queue", "redelivered_within", "task_id")

    engine: str
    queue: str
    task_id: str
    redelivered_within: float | None

    def __init__(
        self, engine: str, queue: str, task_id: str, redelivered_within: float | None
    ) -> None:
        """Make the key; :func:`job_key` checks what it is made of."""
        name = json.dumps([engine, queue, task_id], separators=(",", ":"))
        super().__init__(int=uuid5(NAMESPACE, name).int)
        object.__setattr__(self, "engine", engine)
        object.__setattr__(self, "queue", queue)
        object.__setattr__(self, "task_id", task_id)
        object.__setattr__(self, "redelivered_within", redelivered_within)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self} of {self.engine} {self.queue} {self.task_id}>"

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.engine, self.queue, self.task_id, self.redelivered_within)

    def note(self) -> dict[str, Any]:
        """Return what the data of the Job say about its engine while it runs."""
        parts = {"engine": self.engine, "queue": self.queue, "task": self.task_id}
        found: dict[str, Any] = {name: _shown(part) for name, part in parts.items()}
        if self.redelivered_within is not None:
            found["within"] = self.redelivered_within
        return found


def queued_note(note: Mapping[str, Any], now: datetime) -> Mapping[str, Any]:
    """Return what the data of a Job say that is queued now.

    Args:
        note: What they say while it runs.
        now: The time of the server.
    """
    if (seconds := _seconds_in(note)) is None:
        return note
    until = now + timedelta(seconds=seconds)
    return {**note, "until": until.isoformat(timespec="seconds")}


def _seconds_in(note: Mapping[str, Any]) -> float | None:
    seconds = note.get("within")
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        return None
    return min(seconds, LONGEST_LEASE) if seconds >= 0 else None


def job_key(
    engine: str,
    queue: str,
    task_id: str | int | UUID,
    *,
    redelivered_within: timedelta | float | None = None,
) -> JobKey:
    """Return the id of the Job of one task, the same in its producer and in each of its workers.

    ::

        key = job_key("celery", "renders", task.id, redelivered_within=3600)
        await session.queue_job(key, description="Render sh010")  # where the task is sent

        async with job_context(session, job=key):  # in each worker that the task is delivered to
            ...

    It is a version 5 UUID of the three texts as a JSON list without blanks, as in
    ``["celery","renders","42"]``, with non-ASCII characters as escapes.

    Args:
        engine: The engine, as "celery".
        queue: The queue, or whatever the ids of its tasks are unique in. If two databases number
            their tasks from 1 on, each needs a name of its own.
        task_id: The task; the same for each attempt.
        redelivered_within: For how long the engine may still deliver the task, in seconds or as a
            timedelta: of a Job that is queued, from then on; of one whose worker is gone, from the
            end of its lease. :func:`recover` leaves the Job alone until then, and fails it after
            that. None if the engine delivers no task again: then a Job fails as soon as its owner
            is gone, and a queued one is never failed.

    Raises:
        ArgumentError: An argument has a wrong type or value.
    """
    require(is_id(engine), "engine", "the name of an engine", engine)
    require(is_id(queue), "queue", "the name of a queue", queue)
    is_number = isinstance(task_id, int) and not isinstance(task_id, bool)
    is_task = is_number or isinstance(task_id, UUID) or is_id(task_id)
    require(is_task, "task_id", "the id of a task: a text, a number or a UUID", task_id)
    within = redelivered_within
    seconds = within.total_seconds() if isinstance(within, timedelta) else within
    if seconds is not None:
        require_seconds("redelivered_within", seconds, most=LONGEST_LEASE)
    return JobKey(str.__str__(engine), str.__str__(queue), str(task_id), seconds)


class Redelivery(NamedTuple):
    """What an engine has promised about a Job.

    Attributes:
        engine: Its name.
        until: When it will not deliver the task any more, in the time of the server; None if it
            has promised nothing.
    """

    engine: str
    until: datetime | None


def redelivery_of(status: object, data: Mapping[str, Any]) -> Redelivery | None:
    """Return what the engine of a Job with *data* has promised; None if the Job has no engine.

    Args:
        status: The status of the Job, which is queued or running.
        data: The content of its data.
    """
    promise = data.get(REDELIVERY)
    engine = promise.get("engine") if isinstance(promise, Mapping) else None
    if not (isinstance(promise, Mapping) and isinstance(engine, str)):
        return None
    return Redelivery(engine, _end_of(status, data, promise))


def _end_of(status: object, data: Mapping[str, Any], promise: Mapping[str, Any]) -> datetime | None:
    if (seconds := _seconds_in(promise)) is None:
        return None
    if status != JobStatus.RUNNING:
        return _time_of(promise.get("until"))
    if (lease := Lease.of(data)) is None:
        return None
    try:
        return lease.until + timedelta(seconds=seconds)
    except OverflowError:
        return lease.until


def _shown(part: str) -> str:
    """Return *part* as every server can keep it."""
    return part[:_LONGEST_PART].encode(errors="replace").decode()


def _time_of(text: object) -> datetime | None:
    try:
        time = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return None if time is None or time.tzinfo is None else time.astimezone(UTC)


def is_left_to_engine(status: object, data: Mapping[str, Any], now: datetime) -> bool:
    """Return whether a Job without a living owner is left alone: its engine may go on with it."""
    found = redelivery_of(status, data)
    return found is not None and found.until is not None and now <= found.until
