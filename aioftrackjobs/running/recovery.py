"""Recovery: fails the running Jobs that have no owner any more, on any host, from any host.

It fails exactly the Jobs whose owner is dead, as far as that can be seen from here, or whose lease
has ended, unless their owner is seen to live on this host. Right before it writes, it reads the
Jobs again, and leaves those alone that have changed. So it may run twice, and on two hosts at once.
An owner that was only cut off from the server overrules it with the final status.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from aioftrackjobs.config.settings import require, require_flag, require_name, require_seconds
from aioftrackjobs.entities.queries import Query
from aioftrackjobs.errors import FtrackJobsError
from aioftrackjobs.jobs.data import compose_recovered_data
from aioftrackjobs.jobs.keys import REDELIVERY, Redelivery, is_left_to_engine, redelivery_of
from aioftrackjobs.jobs.leases import is_lost
from aioftrackjobs.jobs.ownership import CLOCK_GRACE, Lease
from aioftrackjobs.jobs.termination import Ends, lost_reason, recovery_note, terminate_jobs
from aioftrackjobs.models import Entity, Job, JobStatus, parse_job_data, remote_value
from aioftrackjobs.protocol.query import bind
from aioftrackjobs.session import AsyncSession, context_of, jobs_of

#: Jobs that are read again and written together: few, so that little time passes in between.
_CHUNK = 50

_JOBS = "select id, status, data, created_at, user.username from Job where "

_RUNNING = 'status is "running"'

#: Jobs that an engine has queued: see :mod:`aioftrackjobs.jobs.keys`.
_QUEUED = f'status is "queued" and data like "%\\"{REDELIVERY}\\"%"'


#: The statuses of Jobs that can be lost.
_OPEN = (JobStatus.QUEUED, JobStatus.RUNNING)


class Verdict(StrEnum):
    """What a recovery found out about a Job.

    Example: ``[lost for lost in recovery.jobs if lost.verdict is Verdict.FAILED]``
    """

    FAILED = "failed"
    """It was lost, and has failed now; in a dry run, it would have failed."""
    ALIVE = "alive"
    """Its lease has not ended, or its owner is seen to live on this host."""
    UNOWNED = "unowned"
    """It has no lease, and *without_lease* was not given."""
    REDELIVERED = "redelivered"
    """Its engine may still deliver its task to another worker; see :func:`job_key`."""
    CHANGED = "changed"
    """It seemed to be lost, and then it got another lease, or ended."""
    REFUSED = "refused"
    """It is lost, and the server refused the change, or did not respond."""


@dataclass(frozen=True, slots=True)
class RecoveredJob:
    """A Job that has not ended, and what a recovery did about it.

    Example: ``for lost in (await recover(session)).failed: print(lost.description, lost.owner)``

    Attributes:
        id: The id of the Job.
        user: The name of its user, if it has one.
        description: The text in the jobs menu before the recovery.
        created_at: When it was created.
        owner: Host and process id of its owner, as ``host:pid``; None without a lease.
        until: When its lease ends, or ended; of a Job that its engine has queued, until when that
            is waited for.
        verdict: What was found out.
        reason: Why it failed, or why it could not be failed.
    """

    id: str
    user: str | None
    description: str | None
    created_at: datetime | None
    owner: str | None
    until: datetime | None
    verdict: Verdict
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Recovery:
    """What a recovery did.

    Example: ``recovery = await recover(session, dry_run=True); print(len(recovery.failed))``

    Attributes:
        jobs: All Jobs that it looked at: running ones, and those that an engine has queued and
            that are lost.
        is_dry: Whether it only looked.
    """

    jobs: tuple[RecoveredJob, ...]
    is_dry: bool

    @property
    def failed(self) -> tuple[RecoveredJob, ...]:
        """The Jobs that were lost, and have failed now; in a dry run, that would have failed."""
        return self._of(Verdict.FAILED)

    @property
    def refused(self) -> tuple[RecoveredJob, ...]:
        """The Jobs that are lost and could not be failed."""
        return self._of(Verdict.REFUSED)

    def _of(self, verdict: Verdict) -> tuple[RecoveredJob, ...]:
        return tuple(job for job in self.jobs if job.verdict is verdict)


async def recover(
    session: AsyncSession,
    *,
    dry_run: bool = False,
    older_than: timedelta | float | None = None,
    user: str | None = None,
    without_lease: bool = False,
    grace: float = CLOCK_GRACE,
) -> Recovery:
    """Fail the running Jobs that have no owner any more.

    Example: ``recovery = await recover(session, dry_run=True)``

    A Job of an engine's task is left alone for as long as its engine may deliver the task again, as
    :func:`job_key` was given; after that it fails, also while it is queued. If the session has a
    journal, what that keeps is delivered first.

    Args:
        session: An open session; its user must be allowed to change the Jobs.
        dry_run: Only return what would be done. A session with a journal delivers all the same
            what that keeps, as soon as it is opened.
        older_than: Consider only Jobs that were created longer ago, in seconds or as a timedelta.
        user: Consider only the Jobs of the user with this name.
        without_lease: Fail Jobs without a lease, too. Other programs than this package run Jobs
            without a lease, so that this needs *older_than*, unless it is a dry run: a Job that
            was created longer ago than those ever take is not running any more.
        grace: Seconds that a lease must be over, because clocks may differ.

    Raises:
        ArgumentError: An argument has a wrong type or value, or *older_than* is missing.
        ServerError: The server refused to return the Jobs.
        SessionStateError: The session is not open.
        TransportError: It did not respond.
    """
    require(isinstance(session, AsyncSession), "session", "an AsyncSession", session)
    require_flag("dry_run", dry_run)
    require_flag("without_lease", without_lease)
    require_name("user", user, "a user's name", optional=True)
    require_seconds("grace", grace)
    age = _seconds(older_than)
    if without_lease and not dry_run:
        require(
            older_than is not None,
            "older_than",
            "an age if without_lease is true, as other programs run Jobs without a lease",
            older_than,
        )
    jobs_of(session).require_open()
    if not dry_run:
        await jobs_of(session).replay.deliver()
    run = _RecoveryRun(session, grace=grace, without_lease=without_lease)
    found = await run.find_jobs(user, age)
    if dry_run:
        return Recovery(tuple(found.values()), is_dry=True)
    lost = [job.id for job in found.values() if job.verdict is Verdict.FAILED]
    for start in range(0, len(lost), _CHUNK):
        chunk = {key: found[key] for key in lost[start : start + _CHUNK]}
        found.update({job.id: job for job in await run.fail(chunk)})
    return Recovery(tuple(found.values()), is_dry=False)


def _seconds(time: timedelta | float | None) -> float:
    seconds = time.total_seconds() if isinstance(time, timedelta) else time
    if seconds is None:
        return 0.0
    require_seconds("older_than", seconds)
    return seconds


class _RecoveryRun:
    """One run of a recovery."""

    def __init__(self, session: AsyncSession, *, grace: float, without_lease: bool) -> None:
        self._entities = context_of(session)
        self._server = self._entities.connection.server_status
        self._grace = grace
        self._without_lease = without_lease

    async def find_jobs(self, user: str | None, older_than: float) -> dict[str, RecoveredJob]:
        """Return the running Jobs of *user* that are older than some seconds, with a verdict."""
        by_user = "" if user is None else bind(" and user.username is {name}", {"name": user})
        running: Query[Entity] = Query(self._entities, f"{_JOBS}{_RUNNING}{by_user}")
        queued: Query[Entity] = Query(self._entities, f"{_JOBS}{_QUEUED}{by_user}")
        jobs = await running.of(Job).all()
        waiting = await queued.of(Job).all()
        now = self._server.server_time()
        judged = {
            job.id: self._judge(job)
            for job in (*jobs, *waiting)
            if not older_than or _is_older(job, older_than, now)
        }
        queued_ids = {job.id for job in waiting}
        return {
            key: job
            for key, job in judged.items()
            if key not in queued_ids or job.verdict is Verdict.FAILED
        }

    def _judge(self, job: Job) -> RecoveredJob:
        data = parse_job_data(remote_value(job, "data"))
        lease = Lease.of(data)
        text = data.get("description")
        owner = None if lease is None else f"{lease.process.host}:{lease.process.pid}"
        until = None if lease is None else lease.until
        if remote_value(job, "status") == JobStatus.RUNNING:
            verdict, reason = self._verdict(job, lease)
        else:
            redelivery = redelivery_of(JobStatus.QUEUED, data)
            until = None if redelivery is None else redelivery.until
            verdict, reason = self._verdict_in_queue(redelivery)
        user = job.get("user")
        return RecoveredJob(
            id=job.id,
            user=user["username"] if isinstance(user, Entity) else None,
            description=text if isinstance(text, str) else None,
            created_at=job.created_at,
            owner=owner,
            until=until,
            verdict=verdict,
            reason=reason,
        )

    def _verdict(self, job: Job, lease: Lease | None) -> tuple[Verdict, str | None]:
        now = self._server.server_time()
        if lease is None:
            if not self._without_lease:
                return Verdict.UNOWNED, None
            return Verdict.FAILED, f"no owner is known at {now:%Y-%m-%d %H:%M:%S} UTC"
        if not is_lost(job.id, lease, now, self._grace):
            return Verdict.ALIVE, None
        data = parse_job_data(remote_value(job, "data"))
        if is_left_to_engine(JobStatus.RUNNING, data, now - timedelta(seconds=self._grace)):
            return Verdict.REDELIVERED, None
        return Verdict.FAILED, lost_reason(lease.process.host, min(lease.until, now))

    def _verdict_in_queue(self, redelivery: Redelivery | None) -> tuple[Verdict, str | None]:
        if redelivery is None or redelivery.until is None:
            return Verdict.UNOWNED, None
        until = redelivery.until
        if (self._server.server_time() - until).total_seconds() <= self._grace:
            return Verdict.REDELIVERED, None
        reason = f"{redelivery.engine} has not delivered it until {until:%Y-%m-%d %H:%M:%S} UTC"
        return Verdict.FAILED, reason

    async def fail(self, lost: Mapping[str, RecoveredJob]) -> Iterator[RecoveredJob]:
        """Fail some Jobs, unless they have changed since they were judged."""

        def decide(found: Mapping[str, Job]) -> Ends:
            ends: dict[Job, tuple[JobStatus, Mapping[str, Any]]] = {}
            for job in found.values():
                before, again = lost[job.id], self._judge(job)
                is_open = remote_value(job, "status") in _OPEN
                if is_open and again.verdict is Verdict.FAILED and again.until == before.until:
                    ends[job] = JobStatus.FAILED, self._failure_data(job, before)
            return ends

        by_id = await terminate_jobs(self._entities, list(lost), decide)
        return (_with_outcome(job, by_id) for job in lost.values())

    def _failure_data(self, job: Job, judged: RecoveredJob) -> Mapping[str, Any]:
        data = remote_value(job, "data")
        lease = Lease.of(parse_job_data(data))
        holder = None if lease is None else lease.holder
        note = recovery_note(holder, self._server.server_time())
        return compose_recovered_data(data, judged.reason or "", note)


def _is_older(job: Job, seconds: float, now: datetime) -> bool:
    return job.created_at is not None and (now - job.created_at).total_seconds() >= seconds


def _with_outcome(job: RecoveredJob, errors: Mapping[str, FtrackJobsError | None]) -> RecoveredJob:
    if job.id not in errors:
        return replace(job, verdict=Verdict.CHANGED, reason=None)
    error = errors[job.id]
    return job if error is None else replace(job, verdict=Verdict.REFUSED, reason=str(error))
