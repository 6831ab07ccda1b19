"""JobLifecycle: marks a Job running, reports its progress, and records its final status.

Changes of the Job are recorded in units of work of their own, so that nothing that the user's code
has recorded is sent with a report. :mod:`aioftrackjobs.jobs.final_report` records how the Job
ended. An error of the block wins over an error of a report.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

import anyio
import sniffio

from aioftrackjobs.commit.request import PendingRequest, Settle
from aioftrackjobs.commit.unit_of_work import UnitOfWork
from aioftrackjobs.entities.queries import Query, fetch_entity, key_reference, populate
from aioftrackjobs.errors import (
    CommitUncertainError,
    FtrackJobsError,
    NoResultFoundError,
    SessionStateError,
)
from aioftrackjobs.jobs.attachments import attach_traceback, format_traceback
from aioftrackjobs.jobs.context import JobsContext
from aioftrackjobs.jobs.data import JobData, describe_failure, parse_given_data
from aioftrackjobs.jobs.final_report import FinalReport
from aioftrackjobs.jobs.progress import Channel, Progress
from aioftrackjobs.models import Entity, Job, JobStatus, User, remote_value
from aioftrackjobs.protocol.query import bind

if TYPE_CHECKING:
    import asyncio

logger = logging.getLogger(__name__)

#: A change of the server's clock, as seen from here, that the delay of a response cannot explain.
_CLOCK_STEP = timedelta(seconds=5)

#: Why a Job fails that runs when its session is closed.
_CLOSED = "the session was closed while the Job was running"

#: Seconds between two rounds of lease renewals.
_RENEWAL_ROUND = 1.0


class JobLifecycle:
    """Takes one Job from its beginning to its end.

    Args:
        jobs: What the Jobs of the session share.
        description: The base text of its reports; None to keep the text that the Job has.
        grace: Seconds that recording the final status may take.
        interval: Seconds from one progress report to the next.
    """

    def __init__(
        self, jobs: JobsContext, *, description: str | None, grace: float, interval: float
    ) -> None:
        self._jobs = jobs
        self._data = JobData(description)
        self._grace = grace
        self._interval = interval
        self._channels: dict[float, Channel] = {}  # by their interval, opened when first used
        self._lease_made_at = 0.0
        self._task: asyncio.Task[Any] | None = None
        self._is_ending = False
        self._has_begun = False
        self._is_closed = False
        self._beginning: UnitOfWork | None = None
        self._entity: Job | None = None

    def __repr__(self) -> str:
        return repr(self._entity)

    @property
    def entity(self) -> Job:
        """The Job itself."""
        if self._entity is None:
            raise LookupError("the Job has not begun")
        return self._entity

    # The beginning

    async def begin(
        self,
        job: Entity | str | UUID | None,
        user: Entity | str | None,
        data: Mapping[str, Any] | str | None,
    ) -> None:
        """Mark the Job running: a new one, or one that exists already.

        Raises:
            NoResultFoundError: There is no such Job or user.
            CommitUncertainError: It is not known whether the Job is running.
            SessionStateError: The session is not open, or is closed meanwhile.
        """
        extra = parse_given_data(data) if isinstance(data, str) else data
        if job is None:
            job_user = await self._find_user(user)
            self._beginning = unit = self._jobs.entities.new_unit()
            self._entity = self._create(job_user, extra, unit)
        else:
            entity = await self._find_job(job)
            self._beginning = unit = self._jobs.entities.new_unit()
            self._entity = self._restart(entity, extra, unit)
        # Before the request leaves: whenever this process dies, a later one can fail the Job.
        await self._jobs.journal.record_job(self._entity.id)
        self._jobs.require_open()
        server = self._jobs.server
        ahead = server.clock_offset
        try:
            await unit.commit()
        except CommitUncertainError as exc:
            if not await self._is_running():
                settle = partial(self._settle_beginning, unit)
                raise CommitUncertainError(exc.operations, settle) from exc.__cause__
            unit.accept_uncertain()
        self._has_begun = True
        self._jobs.require_open()  # it would not be among the Jobs that closing ends
        if sniffio.current_async_library() == "asyncio":
            import asyncio  # here, as in background: it is loaded already, or not needed

            self._task = asyncio.current_task()
        # Leases are in the server's time, known from its responses: this one may be the first.
        self._jobs.active.add(self, renew_now=abs(server.clock_offset - ahead) > _CLOCK_STEP)

    def _create(self, user: User, extra: Mapping[str, Any] | None, unit: UnitOfWork) -> Job:
        values = {
            "status": JobStatus.RUNNING,
            "data": self._compose(None, extra),
            "user_id": user["id"],
        }
        return self._jobs.entities.create(Job, values, unit=unit)

    def _restart(self, job: Job, extra: Mapping[str, Any] | None, unit: UnitOfWork) -> Job:
        data = remote_value(job, "data")
        self._data.adopt_description(data)
        unit.set(job, status=JobStatus.RUNNING, data=self._compose(data, extra))
        return job

    async def _find_user(self, user: Entity | str | None) -> User:
        if isinstance(user, User):
            return user
        if isinstance(user, Entity):
            raise TypeError(f"{user!r} is no User")
        if user is None:
            return await self._jobs.entities.current_user()
        expression = bind("User where username is {name}", {"name": user})
        query: Query[Entity] = Query(self._jobs.entities, expression)
        return await query.of(User).one()

    async def _find_job(self, job: Entity | str | UUID) -> Job:
        entities = self._jobs.entities
        if isinstance(job, str | UUID):
            found = await fetch_entity(entities, key_reference(entities.model(Job), str(job)))
            if not isinstance(found, Job):
                raise NoResultFoundError(f'Job where id is "{job}"')
            return found
        if not isinstance(job, Job):
            raise TypeError(f"{job!r} is no Job")
        await populate(entities, [job], Job.default_projections)
        return job

    async def _is_running(self) -> bool:
        """Ask the server whether it applied a commit whose outcome is uncertain."""
        try:
            found = await fetch_entity(self._jobs.entities, self.entity.__ftrack_reference__())
        except FtrackJobsError:
            return False
        return isinstance(found, Job) and remote_value(found, "status") == JobStatus.RUNNING

    async def _settle_beginning(self, unit: UnitOfWork) -> None:
        """Settle what is uncertain about a Job whose block was never entered: the Job fails.

        Raises:
            FtrackJobsError: It is still uncertain, or the failure could not be delivered.
        """
        await unit.resolve()
        await self._finish(JobStatus.FAILED)

    # Reports

    def show_progress(self, progress: Progress) -> None:
        """Have *progress* written soon. Never waits."""
        self._data.progress = progress
        self._write_soon(self._interval)

    def set_failure(self, reason: str) -> None:
        """Let the Job fail with *reason* when the block ends without an error."""
        self._data.failure_reason = reason

    def _write_soon(self, interval: float) -> None:
        """Have the Job's data written in the next round of writes with *interval*."""
        if self._is_ending:
            return  # the final report writes them, and nothing may be written after it
        if interval not in self._channels:
            channel = self._jobs.progress.open_channel(interval, self._post_data)
            self._channels[interval] = channel
        self._channels[interval].touch()

    def _post_data(self, settle: Settle) -> PendingRequest:
        unit = self._jobs.entities.new_unit()
        unit.set(self.entity, data=self._compose(remote_value(self.entity, "data")))
        return unit.post(settle)

    def _compose(self, data: object, extra: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
        """Return the new content of *data*, with a lease that begins now."""
        self._data.lease = None if self._is_ending else self._jobs.active.new_lease()
        self._lease_made_at = time.monotonic()
        return self._data.compose(data, extra)

    # As one of the session's active Jobs

    def renew_lease(self, older_than: float) -> None:
        """Have the lease written again soon, if it was written more than some seconds ago."""
        if time.monotonic() - self._lease_made_at >= older_than:
            # At an interval of its own: progress may be written less often than leases end.
            self._write_soon(_RENEWAL_ROUND)

    def cancel(self, keep: Collection[int]) -> None:
        """Cancel the task of the block, unless the Job ends already, or *keep* has the task."""
        if self._task is not None and not self._is_ending and id(self._task) not in keep:
            self._task.cancel()
            self._task = None  # once: a second cancellation would disturb its cleaning up

    async def close(self) -> None:
        """Record that the Job failed, because its session closes; its block then ends nothing."""
        self._is_closed = True
        if self._data.failure_reason is None:
            self._data.failure_reason = self._jobs.active.shutdown_reason or _CLOSED
        report = self._start_ending()
        await report.deliver(JobStatus.FAILED)
        if report.error is not None:
            logger.warning("%r: its failure was not reported: %s", self, report.error)

    # The end

    async def end(self) -> None:
        """Mark the Job done, or failed if a reason was set.

        Raises:
            FtrackJobsError: That could not be delivered.
        """
        if self._is_closed:
            return
        is_failed = self._data.failure_reason is not None
        await self._finish(JobStatus.FAILED if is_failed else JobStatus.DONE)

    async def _finish(self, status: JobStatus) -> None:
        report = self._start_ending()
        with self._jobs.active.count_report():
            await self._jobs.background.finish(report.deliver, status)
        if report.error is not None:
            raise report.error

    def _start_ending(self) -> FinalReport:
        self._is_ending = True
        self._jobs.active.discard(self)
        channels = tuple(self._channels.values())
        return FinalReport(self._jobs, self.entity, self._data, channels, grace=self._grace)

    async def end_failed(self, error: BaseException, *, with_traceback: bool) -> None:
        """Report that the block was left by *error*; an error of the report is only logged."""
        if self._is_closed:
            return
        self._is_ending = True
        self._jobs.active.discard(self)
        key = self._jobs.api_key
        text = None
        if with_traceback and isinstance(error, Exception):
            text = format_traceback(error, key)
        try:
            reason = describe_failure(error, key)
            shutdown = self._jobs.active.shutdown_reason
            if shutdown is not None and not isinstance(error, Exception):
                reason = shutdown
            if self._jobs.active.is_closing and isinstance(error, SessionStateError):
                reason = _CLOSED
            with self._jobs.active.count_report():
                await self._jobs.background.finish(self._report_failure, reason, text)
        except (SessionStateError, sniffio.AsyncLibraryNotFoundError) as exc:
            logger.warning("%r: its failure was not reported: %s", self, exc)
        except anyio.get_cancelled_exc_class():
            if isinstance(error, Exception):
                raise  # otherwise the block is being left by a cancellation already

    async def _report_failure(self, reason: str, traceback: str | None) -> None:
        deadline = anyio.current_time() + self._grace
        with anyio.CancelScope(deadline=deadline):
            if not await self._may_exist():
                if self._entity is not None:
                    self._jobs.journal.release_job(self._entity.id)
                return
        self._data.failure_reason = reason
        report = self._start_ending()
        await report.deliver(JobStatus.FAILED, deadline)
        if report.error is not None:
            logger.warning("%r: its failure was not reported: %s", self, report.error)
        elif traceback is not None:
            with anyio.CancelScope(deadline=deadline) as scope:
                await attach_traceback(self._jobs.entities, self.entity, traceback)
            if scope.cancelled_caught:
                logger.warning("%r: there was no time to attach its traceback", self)

    async def _may_exist(self) -> bool:
        """Return whether the server may know the Job; a beginning that was not sent is dropped."""
        if self._entity is None or self._beginning is None:
            return False
        await self._beginning.settled()
        if not self._has_begun and self._beginning.recorded_operations:
            self._beginning.rollback()
            return False
        return True
