"""Stopping a Job from outside: the request in its ``data``, or its end if it has no owner.

The other side is :mod:`aioftrackjobs.jobs.stopping`: how a block notices the request, and ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import anyio

from aioftrackjobs.background import SafeLogger
from aioftrackjobs.entities.context import EntityContext
from aioftrackjobs.errors import JobStoppedError, NoResultFoundError
from aioftrackjobs.jobs.block import find_job
from aioftrackjobs.jobs.context import JobsContext
from aioftrackjobs.jobs.data import add_stop, compose_stopped_data
from aioftrackjobs.jobs.leases import is_lost
from aioftrackjobs.jobs.ownership import CLOCK_GRACE, Lease
from aioftrackjobs.jobs.progress import one_line
from aioftrackjobs.jobs.stopping import stop_request_in
from aioftrackjobs.jobs.termination import END_STATUSES, fetch_jobs
from aioftrackjobs.jobs.writing import write_anew
from aioftrackjobs.models import (
    Entity,
    Job,
    JobState,
    JobStatus,
    known_state,
    parse_job_data,
    remote_value,
)

logger: SafeLogger = SafeLogger(__name__)

#: How often a request is written again that the owner of the Job has overwritten.
_REPETITIONS = 20


async def stop_job(
    jobs: JobsContext, job: Entity | str | UUID, reason: str | None, by: str | None
) -> JobState:
    """Ask the owner of *job* to stop it, or fail it if it has none; return its state.

    ftrack only writes ``data`` as a whole, and the owner may write it between our read and our
    write. So the Job is read back, and written again if the request is gone.

    Raises:
        NoResultFoundError: There is no such Job.
        FtrackJobsError: As :func:`write_anew`.
    """
    found = await find_job(jobs.entities, job)
    by = by or jobs.entities.connection.credentials.api_user
    stop = _Stop(jobs, found, one_line(by, jobs.api_key), reason and one_line(reason, jobs.api_key))
    for _ in range(_REPETITIONS):
        if await write_anew(jobs.entities.connection, stop.write):
            break
        jobs.active.wake([found.id])
        jobs.poll.wake([found.id])
        await jobs.events.publish(found.id)
        await anyio.sleep(jobs.entities.connection.timings.claim_wait)
    else:
        logger.warning(
            "%(job)r: its owner overwrites the request to stop it again and again", job=found
        )
    return known_state(found)


class _Stop:
    """One request to stop a Job.

    Args:
        jobs: What the Jobs of the session share.
        job: The Job.
        by: Who stops it.
        reason: Why.
    """

    def __init__(self, jobs: JobsContext, job: Job, by: str, reason: str | None) -> None:
        self._entities: EntityContext = jobs.entities
        self._server = jobs.server
        self._job = job
        self._text = str(JobStoppedError(job.id, by, reason or None))
        at = self._server.server_time().isoformat(timespec="seconds")
        self._request = {"by": by, "at": at, **({"reason": reason} if reason else {})}

    async def write(self, send_within: float) -> bool:
        """Read the Job, and write what it lacks; return whether it lacked nothing.

        Raises:
            NoResultFoundError: The Job is deleted.
        """
        job = self._job
        if not await fetch_jobs(self._entities, [job.id]):
            raise NoResultFoundError(f'Job where id is "{job.id}"')
        status, data = remote_value(job, "status"), remote_value(job, "data")
        parsed = parse_job_data(data)
        if status in END_STATUSES:
            return True
        values: dict[str, Any]
        if self._has_owner(status, parsed):
            if stop_request_in(parsed) is not None:
                return True
            values = {"data": add_stop(data, self._request)}
        else:
            ended = compose_stopped_data(data, self._text, self._request)
            values = {"status": JobStatus.FAILED, "data": ended}
        unit = self._entities.new_unit(is_urgent=True, send_within=send_within)
        unit.set(job, **values)
        await unit.commit()
        return False

    def _has_owner(self, status: object, data: Mapping[str, Any]) -> bool:
        """Return whether a program may run the Job, and thus read the request.

        A daemon that has claimed it, and not begun it, finds it failed and leaves it alone.
        """
        if status != JobStatus.RUNNING:
            return False
        lease = Lease.of(data)
        now = self._server.server_time()
        return lease is None or not is_lost(self._job.id, lease, now, CLOCK_GRACE)
