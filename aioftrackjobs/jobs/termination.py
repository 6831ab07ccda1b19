"""Ending Jobs that their owner does not end: read together, written together, each on its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from aioftrackjobs.commit.request import Applied, Outcome, PendingRequest
from aioftrackjobs.entities.context import EntityContext
from aioftrackjobs.entities.queries import Query
from aioftrackjobs.errors import EntityError, FtrackJobsError
from aioftrackjobs.journal import this_process
from aioftrackjobs.models import Entity, Job, JobStatus
from aioftrackjobs.protocol.query import key_criteria, select
from aioftrackjobs.protocol.values import Reference

#: States that only a word of the owner may follow.
END_STATUSES = (JobStatus.DONE, JobStatus.FAILED)

_PROJECTIONS = ("id", "status", "data", "created_at", "user.username")


def lost_reason(host: str, at: datetime) -> str:
    """Return why a Job failed whose process was last known to live *at* some time."""
    return f"worker process ended unexpectedly on {host} at {at:%Y-%m-%d %H:%M:%S} UTC"


def recovery_note(holder: str | None, now: datetime) -> dict[str, Any]:
    """Return what a failed Job's data says of who failed it: *holder*, if alive, may overrule."""
    by = this_process()
    at = now.isoformat(timespec="seconds")
    return {"holder": holder, "at": at, "by": f"{by.host}:{by.pid}"}


async def fetch_jobs(workspace: EntityContext, ids: Sequence[str]) -> dict[str, Job]:
    """Return those of some Jobs that the server has, as it has them now."""
    if not ids:
        return {}
    criteria = key_criteria([Reference("Job", (("id", each),)) for each in ids])
    query: Query[Entity] = Query(workspace, select(_PROJECTIONS, "Job", criteria))
    return {job.id: job for job in await query.of(Job).all()}


async def end_jobs(
    workspace: EntityContext, ends: Mapping[Job, tuple[JobStatus, Mapping[str, Any]]]
) -> dict[Job, FtrackJobsError | None]:
    """Write the end of some Jobs, in their order; return what went wrong with each.

    They share requests, and yet none suffers from the refusal of another.

    Args:
        workspace: Of the session that writes.
        ends: The new status and data.

    Raises:
        SessionStateError: The session is closed.
    """
    errors: dict[Job, FtrackJobsError | None] = {}
    tickets: list[PendingRequest] = []
    for job, (status, data) in ends.items():

        def settle(outcome: Outcome, job: Job = job) -> None:
            errors[job] = None if isinstance(outcome, Applied) else outcome.error

        unit = workspace.new_unit()
        try:
            unit.set(job, status=status, data=data)
        except (EntityError, ValueError):  # what others keep in it cannot travel: leave it alone
            unit.set(job, status=status)
        tickets.append(unit.post(settle))
    for ticket in tickets:
        await ticket.ended()
    return errors
