"""JobLifecycle: marks a Job running, reports its progress, and records its final status.

Changes of the Job are recorded in units of work of their own, so that nothing that the user's code
has recorded is sent with a report. :mod:`aioftrackjobs.jobs.final_report` records how the Job
ended. An error of the block wins over an error of a report.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from datetime import timedelta
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

import anyio

from aioftrackjobs.background import SafeLogger
from aioftrackjobs.commit.request import PendingRequest, Settle
from aioftrackjobs.commit.unit_of_work import UnitOfWork
from aioftrackjobs.entities.queries import fetch_entity
from aioftrackjobs.errors import (
    CommitUncertainError,
    FtrackJobsError,
    JobDeletedError,
    ServerError,
)
from aioftrackjobs.jobs.attachments import Attachments
from aioftrackjobs.jobs.block import GivenJob, find_user
from aioftrackjobs.jobs.channels import Channels
from aioftrackjobs.jobs.context import JobsContext
from aioftrackjobs.jobs.data import Assignments, JobData, parse_given_data
from aioftrackjobs.jobs.ending import CLOSED, End, describe_interruption, end_of_block
from aioftrackjobs.jobs.final_report import FinalReport
from aioftrackjobs.jobs.interventions import Interventions
from aioftrackjobs.jobs.progress import Progress, one_line
from aioftrackjobs.jobs.reports import Reports
from aioftrackjobs.jobs.stopping import STOP, StopOn, current_task, without_stop_request
from aioftrackjobs.jobs.writing import RunningWrites
from aioftrackjobs.models import Job, JobStatus, User, remote_value

if TYPE_CHECKING:
    import asyncio

    from aioftrackjobs.jobs.watching import Watch

logger: SafeLogger = SafeLogger(__name__)

#: A change of the server's clock, as seen from here, that the delay of a response cannot explain.
_CLOCK_STEP = timedelta(seconds=5)


class JobLifecycle:
    """Takes one Job from its beginning to its end.

    Args:
        jobs: What the Jobs of the session share.
        description: The base text of its reports; None to keep the text that the Job has.
        grace: Seconds that recording the final status may take.
        interval: Seconds from one progress report to the next.
        stop_on: What ends the block from outside: see :func:`job_context`.
        retry_on: Errors of the block after which its work is tried again.
    """

    def __init__(
        self,
        jobs: JobsContext,
        *,
        description: str | None,
        grace: float,
        interval: float,
        stop_on: StopOn = "request",
        retry_on: tuple[type[BaseException], ...] = (),
    ) -> None:
        self._jobs = jobs
        # A subclass of str may have methods of its own, which would run in the background.
        self._data = JobData(None if description is None else str.__str__(description))
        self._grace = grace
        self._interval = interval
        self._decided: End | None = None
        self._own_statuses = set[object]()
        self._assignments: Assignments | None = None
        self._began_at = time.monotonic()
        self._lease_made_at = 0.0
        self._task: asyncio.Task[Any] | None = None
        self._is_ending = False
        self._has_begun = False
        self._is_closed = False
        self._is_new = False  # not a Job that existed already
        self._may_run = False  # an earlier attempt to begin it has an unknown outcome
        self._beginning: UnitOfWork | None = None
        self._entity: Job | None = None
        self._stop_on: StopOn = stop_on
        self._retry_on = retry_on
        self.watch: Watch | None = None

    def __repr__(self) -> str:
        return repr(self._entity)

    @property
    def entity(self) -> Job:
        """The Job itself."""
        if self._entity is None:
            raise LookupError("the Job has not begun")
        return self._entity

    # What the first request does not need is made after it.

    @cached_property
    def interventions(self) -> Interventions:
        """What other clients do to the Job."""
        return Interventions(
            self._jobs,
            self._stop_on,
            write_soon=self._channels.touch_for_lease,
            adopt_text=self._data.adopt_text,
            own_statuses=self._own_statuses,
            leave=self._leave,
        )

    @cached_property
    def _channels(self) -> Channels:
        return Channels(
            self._jobs.background,
            self._jobs.progress,
            self,
            self._post_data,
            self._may_write,
            interval=self._interval,
        )

    @cached_property
    def _writes(self) -> RunningWrites:
        return RunningWrites(
            self._jobs.entities,
            self.entity,
            self._data,
            self._compose,
            self.interventions,
            write_soon=self._channels.touch_for_lease,
        )

    @cached_property
    def attachments(self) -> Attachments:
        """What is attached to the Job."""
        return Attachments(self._jobs.entities, job_is_new=self._is_new)

    @cached_property
    def reports(self) -> Reports:
        """What is reported about the work."""
        return Reports(self)

    @property
    def reporter(self) -> JobLifecycle:
        """What reports of the block go to."""
        return self

    # The beginning

    async def begin(self, given: GivenJob) -> None:
        """Create the Job as running.

        Raises:
            NoResultFoundError: There is no such Job or user.
            JobOwnedError: Another session, or another block of this one, runs the Job.
            CommitUncertainError: It is not known whether the Job is running.
            SessionStateError: The session is not open, or is closed meanwhile.
        """
        extra, user = self._adopt(given.data), given.user
        entities = self._jobs.entities
        owner = await (entities.current_user() if user is None else find_user(entities, user))
        self._beginning = unit = entities.new_unit()
        self._entity = entity = self._create(owner, extra, unit, given.new_id)
        self._is_new = True
        await self._record_in_journal(entity)
        ahead = self._jobs.server.clock_offset
        try:
            await unit.commit()
        except CommitUncertainError as exc:
            if not await self._is_running():
                settle = partial(self._resolve_beginning, unit)
                raise CommitUncertainError(exc.operations, settle) from exc.__cause__
            unit.accept_uncertain()
        self._note_beginning(entity, ahead)

    def _adopt(self, data: Mapping[str, Any] | str | None) -> Mapping[str, Any] | None:
        """Continue with the description in the *data* that the program gives; return these."""
        extra = parse_given_data(data) if isinstance(data, str) else data
        if extra:
            self._data.adopt_description(extra)
        return extra if self.watch is None else self.watch.added_to(extra)

    async def _record_in_journal(self, entity: Job) -> None:
        # Before the request leaves: whenever this process dies, a later one can fail the Job.
        await self._jobs.journal.record_job(entity.id)
        if self._jobs.active.is_closing:
            self._jobs.require_open()

    def _note_beginning(self, entity: Job, ahead: timedelta) -> None:
        """Take note that the Job runs; the server's clock was known to be *ahead* before."""
        self._has_begun = self._data.is_running = True
        if self.watch is not None:
            self.watch.note_begun(entity)
        self.interventions.begin(entity)
        self._jobs.require_open()  # it would not be among the Jobs that closing ends
        self._assignments = Assignments(
            self._jobs.entities,
            entity,
            self._data,
            self._own_statuses,
            write_soon=self._channels.touch,
        )
        self._task = current_task()
        # Leases are in the server's time, known from its responses: this one may be the first.
        offset = self._jobs.server.clock_offset
        self._jobs.active.add(self, renew_now=abs(offset - ahead) > _CLOCK_STEP)

    def _create(
        self,
        user: User,
        extra: Mapping[str, Any] | None,
        unit: UnitOfWork,
        new_id: str | UUID | None,
    ) -> Job:
        values = {
            "status": JobStatus.RUNNING,
            "data": self._compose(None, extra),
            "user_id": user["id"],
        }
        if new_id is not None:
            values["id"] = str(UUID(str(new_id)))
        return self._jobs.entities.create(Job, values, unit=unit)

    async def require_existence(self, refusal: ServerError) -> None:
        """Find out whether *refusal*, perhaps of something else, came because the Job is gone.

        Raises:
            JobDeletedError: It is.
        """
        with suppress(FtrackJobsError):
            await self._jobs.reader.read_with_others(self)
            is_unclear = self._has_begun and self.interventions.is_missing
            if is_unclear and (request := self._post_data(lambda _: None)) is not None:
                await request.ended()  # it is there, but may not be read, or is refused, too
        if self.interventions.is_deleted or (self.interventions.is_missing and not self._has_begun):
            raise JobDeletedError(self.entity.id) from refusal

    async def _is_running(self) -> bool:
        """Ask the server whether it applied a commit whose outcome is uncertain."""
        try:
            found = await fetch_entity(self._jobs.entities, self.entity.__ftrack_reference__())
        except FtrackJobsError:
            return False
        return isinstance(found, Job) and remote_value(found, "status") == JobStatus.RUNNING

    async def _resolve_beginning(self, unit: UnitOfWork) -> None:
        """Settle what is uncertain about a Job whose block was never entered: the Job fails.

        Raises:
            FtrackJobsError: It is still uncertain, or the failure could not be delivered.
        """
        await unit.resolve()
        await self._finish(End(JobStatus.FAILED))

    # Reports, which may come from any thread, callback or signal handler

    @property
    def has_ended(self) -> bool:
        """Whether the block has ended, so that nothing is reported any more."""
        return self._is_ending

    @property
    def description(self) -> str | None:
        """The base text of the reports."""
        return self._data.description

    @description.setter
    def description(self, text: str) -> None:
        if not self._is_ending:
            self._data.description = text
            self._channels.touch()

    def show_progress(self, progress: Progress) -> None:
        """Have *progress* written soon. Never waits."""
        if not self._is_ending:
            self._data.progress = progress
            self._channels.touch()

    def decide(self, status: JobStatus, text: str | None) -> bool:
        """Decide how the Job ends, and return whether this was the first decision.

        Args:
            status: Its final status.
            text: What was done, or why it failed.
        """
        if self._decided is not None or self._is_ending:
            return False
        line = None if text is None else one_line(text, self._jobs.api_key)
        self._decided = End(status, line or None)
        return True

    def _may_write(self) -> bool:
        """Return whether anything may be written before the end: the final report comes last."""
        return not (self._is_ending or self.interventions.forbid_writes)

    def _post_data(self, settle: Settle) -> PendingRequest | None:
        return None if self.interventions.forbid_writes else self._writes.post(settle)

    def _compose(self, data: object, extra: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
        """Return the new content of *data*, with a lease that begins now."""
        self._data.lease = None if self._is_ending else self._jobs.active.new_lease()
        self._lease_made_at = time.monotonic()
        composed = self._data.compose(data, extra)
        if self._has_begun:
            self.interventions.note_text(composed.get("description"))
        elif STOP in composed:
            return without_stop_request(composed)
        return composed

    # As one of the session's active Jobs

    def is_job(self, job_id: str) -> bool:
        """Return whether it is the Job with this id."""
        return self._entity is not None and self._entity.id == job_id

    def note_takeover(self) -> None:
        """Leave the Job to another block of this session, which has taken it over."""
        self.interventions.note_takeover()

    @property
    def has_begun(self) -> bool:
        """Whether the server is known to have had the Job."""
        return self._has_begun

    @property
    def read_at(self) -> float:
        """When the Job was last read, in monotonic seconds."""
        return self.interventions.read_at

    def note_read(self, row: Mapping[str, Any] | None) -> None:
        """Take note of the *row* that the server has for the Job; None if it has none."""
        self.interventions.note_read(row)

    def _leave(self) -> None:
        """Leave the Job alone: it is gone, or has another owner."""
        active = self._jobs.active
        if not self._is_ending:
            active.add_guest(self, is_read=False)
        if active.find(self.entity.id) is None:  # otherwise another block here has taken it over
            self._jobs.journal.release_job(self.entity.id)
        self._channels.close()

    def renew_lease(self, older_than: float) -> None:
        """Have the lease written again soon, if it was written more than some seconds ago."""
        if time.monotonic() - self._lease_made_at >= older_than:
            self._channels.touch_for_lease()

    def cancel(self, keep: Collection[int]) -> None:
        """Cancel the task of the block, unless the Job ends already, or *keep* has the task."""
        if self._task is not None and not self._is_ending and id(self._task) not in keep:
            self._task.cancel()
            self._task = None  # once: a second cancellation would disturb its cleaning up

    async def close(self) -> None:
        """Record that the Job failed, because its session closes; its block then ends nothing."""
        self._is_closed = True
        if self.interventions.forbid_writes:
            self._stop_running()
            return
        reason = self._jobs.active.shutdown_reason or CLOSED
        end = self._end_decided() or End(JobStatus.FAILED, reason)
        await self._start_ending(end).deliver_or_log()

    # The end

    async def end(self) -> None:
        """Record how the Job ends whose block was left without an error: done, if not decided.

        Raises:
            JobDeletedError: The Job was deleted.
            FtrackJobsError: That could not be delivered.
        """
        if self._is_closed:
            return
        if not self.interventions.forbid_writes:
            await self._finish(self._end_decided() or End(JobStatus.DONE))
            return
        self._stop_running()
        if self.interventions.is_deleted:
            raise JobDeletedError(self.entity.id)

    def _end_decided(self) -> End | None:
        """Return how the program has decided that the Job ends, if it has."""
        if self._decided is None and self._assignments is not None:
            status = self._assignments.status
            self._decided = None if status is None else End(status)
        return self._decided

    async def _finish(self, end: End) -> None:
        report = self._start_ending(end)
        with self._jobs.active.count_report(self):
            await self._jobs.background.finish(report.deliver)
            if self.watch is not None and report.error is None:
                await self._jobs.background.finish(report.attach)
        if report.error is not None:
            raise report.error

    def _start_ending(self, end: End) -> FinalReport:
        self._stop_running()
        self._data.note_end(end, self._decided)
        if self.watch is not None:
            self.watch.note_end(end.status)
        log = None if self.watch is None else self.watch.log
        grace = self._grace
        return FinalReport(self._jobs, self, self._data, self._channels, end, grace=grace, log=log)

    def _stop_running(self) -> None:
        self._is_ending = True
        self.interventions.end()
        self._jobs.active.discard(self)
        if self._assignments is not None:
            self._assignments.end()
            self._assignments.take_over()

    async def end_failed(self, error: BaseException, *, with_traceback: bool) -> None:
        """Report that the block was left by *error*; an error of the report is only logged."""
        if self._is_closed:
            return
        if self.interventions.is_taken_over:
            self._stop_running()
            return
        seconds = time.monotonic() - self._began_at
        self._end_decided()
        self._stop_running()
        if self.interventions.is_deleted:
            return
        attached = None
        if isinstance(error, Exception) and not self.interventions.has_caused(error):
            attached = error if with_traceback else None
        try:
            self._jobs.background.require_here()  # says what is wrong in a forked process
            # In the background, while the task waits: see jobs.ending.
            find_end = partial(self._find_end, error, current_task(), seconds)
            with self._jobs.active.count_report(self):
                await self._jobs.background.finish(self._report_failure, find_end, attached)
        except Exception as exc:  # noqa: BLE001 - the block's own error must come out
            logger.warning("%(job)r: its failure was not reported: %(error)s", job=self, error=exc)
        except anyio.get_cancelled_exc_class():
            if isinstance(error, Exception):
                raise  # otherwise the block is being left by a cancellation already

    def _find_end(
        self, error: BaseException, task: asyncio.Task[Any] | None, seconds: float
    ) -> End:
        """Return how the Job ends whose block was left by *error*, in *task*, after *seconds*."""
        active = self._jobs.active
        end = end_of_block(
            error,
            self._decided,
            partial(describe_interruption, task=task, seconds=seconds),
            was_stopped=self.interventions.has_caused(error),
            retry_on=self._retry_on,
            shutdown_reason=active.shutdown_reason,
            is_closing=active.is_closing,
        )
        return End(end.status, end.text and one_line(end.text, self._jobs.api_key))

    async def _report_failure(
        self, find_end: Callable[[], End], attached: Exception | None
    ) -> None:
        deadline = anyio.current_time() + self._grace
        with anyio.CancelScope(deadline=deadline):
            if not await self._may_exist():
                if self._entity is not None:
                    self._jobs.journal.release_job(self._entity.id)
                return
        end = find_end()
        if self.interventions.imposed_status is not None:
            # Another client has set how it ends. Only what is ours is removed.
            self._data, end = JobData(None), End(self.interventions.imposed_status)
        await self._start_ending(end).deliver_or_log(deadline, attached)

    async def _may_exist(self) -> bool:
        """Return whether the server may know the Job; a beginning that was not sent is dropped."""
        if self._entity is None or self._beginning is None:
            return False
        await self._beginning.settled()
        may_run = self._has_begun or self._may_run
        if not may_run and self._beginning.recorded_operations:
            self._beginning.rollback()
            return False
        return True
