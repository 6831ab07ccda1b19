"""Termination: writes the end of Jobs whose owner does not, because its process has died.

Jobs are read together and written together, and yet an error about one Job does not affect the
others. :mod:`aioftrackjobs.jobs.journal_replay` and :mod:`aioftrackjobs.running.recovery` decide
which Jobs, and how they end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeAlias

from aioftrackjobs.commit.request import Applied, Outcome, PendingRequest, WithdrawnError
from aioftrackjobs.entities.context import EntityContext
from aioftrackjobs.errors import (
    DuplicateEntryError,
    EntityError,
    FtrackJobsError,
    JobDeletedError,
    PermissionDeniedError,
    QuerySyntaxError,
    TransportError,
    ValidationError,
)
from aioftrackjobs.jobs.writing import may_pass, retry_after_of
from aioftrackjobs.journal import this_process
from aioftrackjobs.models import Job, JobStatus, remote_value
from aioftrackjobs.protocol.query import key_criteria, select
from aioftrackjobs.protocol.values import Reference

#: Statuses that only the owner of a Job may change again.
END_STATUSES = (JobStatus.DONE, JobStatus.FAILED)

#: Refusals that concern the Job, and rarely pass by themselves.
_FINAL_REFUSALS = (
    DuplicateEntryError,
    JobDeletedError,
    PermissionDeniedError,
    QuerySyntaxError,
    ValidationError,
)

#: The new status and data of some Jobs; None for those that they have.
Ends: TypeAlias = Mapping[Job, tuple[JobStatus, Mapping[str, Any] | None]]

_PROJECTIONS = ("id", "status", "data", "created_at", "user.username")


def lost_reason(host: str, at: datetime) -> str:
    """Return why a Job failed whose process was last known to live *at* some time."""
    return f"worker process ended unexpectedly on {host} at {at:%Y-%m-%d %H:%M:%S} UTC"


def recovery_note(holder: str | None, now: datetime) -> dict[str, Any]:
    """Return what a failed Job's data say about who failed it.

    Args:
        holder: The owner that seems to be dead; if it lives after all, it may overrule the note.
        now: The time of the server.
    """
    by = this_process()
    at = now.isoformat(timespec="seconds")
    return {"holder": holder, "at": at, "by": f"{by.host}:{by.pid}"}


async def fetch_jobs(entities: EntityContext, ids: Sequence[str]) -> dict[str, Job]:
    """Return the Jobs with *ids*, up to 500, that the server has, in their present state."""
    if not ids:
        return {}
    criteria = key_criteria([Reference("Job", (("id", each),)) for each in ids])
    rows, _ = await entities.fetch_page(select(_PROJECTIONS, "Job", criteria), is_urgent=True)
    return {job.id: job for job in rows if isinstance(job, Job)}


async def terminate_jobs(
    entities: EntityContext, ids: Sequence[str], decide: Callable[[Mapping[str, Job]], Ends]
) -> dict[str, FtrackJobsError | None]:
    """Write the end of some Jobs, and return the error of each that was written, if any.

    They share requests, but not outcomes: each Job is a commit of its own. Those whose commit may
    be repeated are read again before, and what is written is decided anew.

    Args:
        entities: The entities of the session that writes.
        ids: The ids of the Jobs.
        decide: Gets those of the Jobs that the server has, as they are now, and returns the new
            status and data of each that it does not leave alone.

    Raises:
        ServerError: The server refused the query of the Jobs.
        SessionStateError: The session is closed.
        TransportError: No complete response to this query arrived.
    """
    connection = entities.connection
    backoff, send_within = connection.retry.backoff(), connection.timings.data_send_limit
    errors: dict[str, FtrackJobsError | None] = {}
    left, written = ids, dict[str, JobStatus]()
    while True:
        found = await fetch_jobs(entities, left)
        ends = decide(found)
        for each in left:
            error = errors.pop(each, None)
            if isinstance(error, TransportError) and each in found:
                status = remote_value(found[each], "status")
                if found[each] not in ends and status == written[each]:
                    errors[each] = None  # only the response was lost
        errors |= await _write_ends(entities, ends, send_within)
        written |= {job.id: status for job, (status, _) in ends.items()}
        passing = {each: error for each, error in errors.items() if may_pass(error)}
        left = list(passing)
        pause = max((retry_after_of(error) or 0.0 for error in passing.values()), default=0.0)
        if not left or not await connection.server_status.pauses.wait(backoff, pause):
            return errors
        send_within *= 1 + any(isinstance(error, WithdrawnError) for error in passing.values())


async def _write_ends(
    entities: EntityContext, ends: Ends, send_within: float
) -> dict[str, FtrackJobsError | None]:
    errors: dict[str, FtrackJobsError | None] = {}
    requests: list[PendingRequest] = []
    for job, (status, data) in ends.items():

        def settle(outcome: Outcome, job: Job = job) -> None:
            errors[job.id] = None if isinstance(outcome, Applied) else outcome.error

        unit = entities.new_unit(is_urgent=True, send_within=send_within)
        try:
            unit.set(job, status=status, **({} if data is None else {"data": data}))
        except (EntityError, ValueError):  # others keep in it what cannot be sent: leave it alone
            unit.set(job, status=status)
        requests.append(unit.post(settle))
    for request in requests:
        await request.ended()
    return errors


def is_final_refusal(error: Exception) -> bool:
    """Return whether the caller has to know of *error*, although it may pass after hours."""
    return isinstance(error, _FINAL_REFUSALS) or not may_pass_later(error)


def may_pass_later(error: Exception) -> bool:
    """Return whether there is any use in trying again, after minutes or hours.

    A user that may not do it now may do so tomorrow; and what a server says that is not well may
    not be meant.
    """
    return isinstance(error, FtrackJobsError) and not isinstance(error, JobDeletedError)
