"""The course of a Job on the server: it begins, reports, and always gets its last word.

The last word is sent by the session's host, where no cancellation reaches it, within a bounded
time, and repeated while the server is away, which is safe: it sets absolute values. The error of
the block wins over an error of the reporting.

With a journal, it is durable there before it is sent, and stays until the server has it: what
cannot be delivered in time is delivered later, and is no error.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import sniffio

from aioftrackjobs.commit.request import PendingRequest, Settle
from aioftrackjobs.commit.unit_of_work import UnitOfWork
from aioftrackjobs.entities.queries import fetch_entity
from aioftrackjobs.errors import (
    CommitUncertainError,
    EntityError,
    FtrackJobsError,
    NoResultFoundError,
    ServerError,
    SessionStateError,
    TransportError,
)
from aioftrackjobs.jobs.data import JobData, describe_failure, format_failure, read_data
from aioftrackjobs.jobs.progress import Progress
from aioftrackjobs.journal import Receipt
from aioftrackjobs.models import Entity, Job, JobComponent, JobStatus, User, remote_value
from aioftrackjobs.session import AsyncSession, context_of, journal_replay_of
from aioftrackjobs.transport import redact

if TYPE_CHECKING:
    import asyncio

logger = logging.getLogger(__name__)

#: A difference of clocks that is more than the delay of an answer.
_CLOCK_STEP = timedelta(seconds=5)

#: Seconds between two rounds of renewals.
_RENEWAL_ROUND = 1.0


class JobLifecycle:
    """Takes a Job from its beginning to its end.

    Args:
        session: Where it is reported.
        description: The base text of its reports; None to leave what the Job has.
        grace: Seconds that its last word may take.
        interval: Seconds from one progress report to the next.

    Attributes:
        report: What is reported next.
    """

    def __init__(
        self, session: AsyncSession, *, description: str | None, grace: float, interval: float
    ) -> None:
        self.report = JobData(description)
        self._session = session
        self._workspace = context_of(session)
        # Its own unit: nothing half-done by others is sent with a report, nor the other way.
        self._unit = self._workspace.new_unit()
        self._host = self._workspace.connection.host
        self._journal = self._workspace.connection.journal
        self._running = self._workspace.running
        self._grace = grace
        self._line = self._workspace.progress.board(interval).line(self._post_progress)
        # Of its own: progress may be written more seldom than leases run out.
        self._renewal = self._workspace.progress.board(_RENEWAL_ROUND).line(self._post_progress)
        self._leased_at = 0.0
        self._task: asyncio.Task[Any] | None = None
        self._ending = False
        self._entity: Job | None = None
        self._begun = False
        self._problem: Exception | None = None

    def __repr__(self) -> str:
        return repr(self._entity)

    @property
    def entity(self) -> Job:
        """The Job itself."""
        if self._entity is None:
            raise LookupError("the Job has not begun")
        return self._entity

    async def begin(
        self,
        job: Entity | str | None,
        user: Entity | str | None,
        data: Mapping[str, Any] | str | None,
    ) -> None:
        """Mark the Job running: a new one, or one that exists already.

        Raises:
            NoResultFoundError: There is no such Job or user.
            CommitUncertainError: No answer tells whether the Job is running.
        """
        more = read_data(data)
        contact = self._workspace.connection.contact
        if job is None:
            user_id = (await self._find_user(user))["id"]
            values = {"user_id": user_id, "data": self._compose(None, more)}
            running = {"status": JobStatus.RUNNING, **values}
            key = await self._journal.own_new()
            try:
                self._entity = self._workspace.create(Job, running, unit=self._unit, new_key=key)
            except BaseException:
                self._journal.release_job(key)
                raise
        else:
            entity = await self._find_job(job)
            before = remote_value(entity, "data")
            self.report.take_over(before)
            composed = self._compose(before, more)
            self._unit.set(entity, status=JobStatus.RUNNING, data=composed)
            self._entity = entity
            await self._journal.own(entity.id)
        ahead = contact.ahead
        try:
            await self._unit.commit()
        except CommitUncertainError as exc:
            if not await self._has_begun():
                settle = partial(self._settle_beginning, self._unit)
                raise CommitUncertainError(exc.operations, settle) from exc.__cause__
            self._unit.accept_uncertain()
        self._begun = True
        if sniffio.current_async_library() == "asyncio":
            import asyncio

            self._task = asyncio.current_task()
        # Leases are in the server's time, which only an answer tells: it may be the first.
        self._running.add(self, renew_now=abs(contact.ahead - ahead) > _CLOCK_STEP)

    async def _settle_beginning(self, unit: UnitOfWork) -> None:
        """Settle what *unit* has left unknown of a Job whose block was never entered.

        Raises:
            FtrackJobsError: It is still not known, or that it failed could not be delivered.
        """
        await unit.resolve()
        await self._host.finish(self._last_word, JobStatus.FAILED)
        if self._problem is not None:
            raise self._problem

    async def _find_user(self, user: Entity | str | None) -> User:
        if isinstance(user, User):
            return user
        if isinstance(user, Entity):
            raise TypeError(f"{user!r} is no User")
        if user is None:
            return await self._session.current_user()
        query = self._session.query("User where username is {name}", name=user)
        return await query.of(User).one()

    async def _find_job(self, job: Entity | str) -> Job:
        if isinstance(job, str):
            found = await self._session.get(Job, job)
            if found is None:
                raise NoResultFoundError(f'Job where id is "{job}"')
            return found
        if not isinstance(job, Job):
            raise TypeError(f"{job!r} is no Job")
        await self._session.populate(job, Job.default_projections)
        return job

    async def _has_begun(self) -> bool:
        """Ask the server whether a commit with an unknown end was applied."""
        try:
            found = await fetch_entity(self._workspace, self.entity.__ftrack_reference__())
        except FtrackJobsError:
            return False
        return isinstance(found, Job) and remote_value(found, "status") == JobStatus.RUNNING

    def _post_progress(self, settle: Settle) -> PendingRequest:
        return self._recorded_progress().post(settle)

    def _recorded_progress(self) -> UnitOfWork:
        unit = self._workspace.new_unit()
        unit.set(self.entity, data=self._compose(remote_value(self.entity, "data")))
        return unit

    def _compose(self, data: object, more: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
        """Return the new content of *data*, with a lease that begins now."""
        self.report.lease = None if self._ending else self._running.lease()
        self._leased_at = time.monotonic()
        return self.report.compose(data, more)

    # As one of the session's running Jobs

    def renew(self, older_than: float) -> None:
        """Have the lease written again soon, if it was written more than some seconds ago."""
        if time.monotonic() - self._leased_at >= older_than:
            self._renewal.touch()

    def cancel(self, keep: Collection[int]) -> None:
        """Cancel the block's task, unless it is ending already, or its id is to be kept."""
        if self._task is not None and not self._ending and id(self._task) not in keep:
            self._task.cancel()
            self._task = None  # once: a second time would disturb its cleaning up

    # Reporting

    def show_progress(self, progress: Progress) -> None:
        """Let *progress* be written soon. Never waits."""
        self.report.progress = progress
        self._line.touch()

    async def end(self) -> None:
        """Mark the Job done, or failed if the report has a reason.

        Raises:
            FtrackJobsError: That could not be delivered.
        """
        status = JobStatus.DONE if self.report.reason is None else JobStatus.FAILED
        self._ending = True
        await self._host.finish(self._last_word, status)
        if self._problem is not None:
            raise self._problem

    async def end_failed(self, error: BaseException, *, attach_traceback: bool) -> None:
        """Report that the block was left by *error*; what goes wrong here is only logged."""
        self._ending = True
        self._running.discard(self)
        key = self._workspace.connection.credentials.api_key.reveal()
        text = None
        if attach_traceback and isinstance(error, Exception):
            text = format_failure(error, key)
        try:
            reason = describe_failure(error, key)
            if self._running.leaving is not None and not isinstance(error, Exception):
                reason = self._running.leaving
            await self._host.finish(self._report_failure, reason, text)
        except (SessionStateError, sniffio.AsyncLibraryNotFoundError) as exc:
            logger.warning("%r: its failure was not reported: %s", self, exc)
        except anyio.get_cancelled_exc_class():
            if isinstance(error, Exception):
                raise  # else the block is being left for good already

    async def _report_failure(self, reason: str, traceback: str | None) -> None:
        deadline = anyio.current_time() + self._grace
        with anyio.CancelScope(deadline=deadline):
            if not await self._may_exist():
                if self._entity is not None:
                    self._journal.release_job(self._entity.id)
                return
        self.report.reason = reason
        await self._last_word(JobStatus.FAILED, deadline)
        if self._problem is not None:
            logger.warning("%r: its failure was not reported: %s", self, self._problem)
        elif traceback is not None:
            with anyio.CancelScope(deadline=deadline) as scope:
                await self._attach_traceback(traceback)
            if scope.cancelled_caught:
                logger.warning("%r: there was no time to attach its traceback", self)

    async def _may_exist(self) -> bool:
        """Tell whether the server may have heard of the Job; an unsent beginning is dropped."""
        if self._entity is None:
            return False
        await self._unit.settled()
        if not self._begun and self._unit.recorded_operations:
            self._unit.rollback()
            return False
        return True

    async def _last_word(self, status: JobStatus, deadline: float | None = None) -> None:
        """Report the end; keep why it could be delivered neither until *deadline* nor later."""
        self._running.discard(self)
        ends = deadline or anyio.current_time() + self._grace
        kept: Receipt | None = None
        if self._journal.state != "off":
            kept = self._journal.keep_word(self.entity.id, self._word(status))
        with self._workspace.connection.contact.pauses.expedite():
            is_silent = await self._stop_reports(ends)  # while the journal is written
            asked = anyio.current_time()
            is_kept = kept is not None and await self._journal.written(kept)
            ends += anyio.current_time() - asked  # the server had no part in that
            await self._deliver_last_word(status, ends, is_silent=is_silent)
        if self._problem is None:
            self._journal.release_job(self.entity.id)
        elif kept is not None and _may_pass(self._problem):
            journal_replay_of(self._session).wake()
            if is_kept:  # else it may be lost, and who waits for it has to know
                logger.warning("%r: its last word waits in the journal: %s", self, self._problem)
                self._problem = None

    def _word(self, status: JobStatus) -> str:
        """Return the last word as the journal keeps it."""
        key = self._workspace.connection.credentials.api_key.reveal()
        self.report.lease = None
        said = {  # each by itself: in JSON, what hides a secret could take a quote along
            name: redact(value, key) if isinstance(value, str) else value
            for name, value in self.report.compose(None).items()
        }
        return json.dumps({"status": status.value, "data": said})

    async def _stop_reports(self, deadline: float) -> bool:
        """Report no more; return whether no report is under way any more, too."""
        ends = min(deadline, self._running.leaves_at, anyio.current_time() + self._grace / 2)
        with anyio.CancelScope(deadline=ends) as scope:
            await self._line.stop()
            await self._renewal.stop()
        return not scope.cancelled_caught

    async def _deliver_last_word(
        self, status: JobStatus, deadline: float, *, is_silent: bool
    ) -> None:
        self._problem = TransportError(f"no answer within {self._grace:g} s")
        pauses = self._workspace.connection.contact.pauses
        ends = min(deadline, self._running.leaves_at)
        with anyio.CancelScope(deadline=ends) as scope:
            patience = replace(self._workspace.connection.retry, budget=math.inf).patience()
            while self._problem is not None:
                try:
                    await self._send_status(status)
                except Exception as exc:  # noqa: BLE001 - kept, and raised or logged at the end
                    self._problem = exc
                    if not _may_pass(exc):
                        return
                    await pauses.take(patience, getattr(exc, "retry_after", None))
                else:
                    self._problem = None
            if not is_silent:  # an old report may yet arrive, and say less
                self._host.spawn(self._write_again)
        if scope.cancelled_caught and self._unit.trouble is not None:
            self._problem = self._unit.trouble

    async def _send_status(self, status: JobStatus) -> None:
        # It need not wait for a report that hangs; that sets no status.
        self._unit = unit = self._workspace.new_unit(overtakes=True)
        data = remote_value(self.entity, "data")
        try:
            unit.set(self.entity, status=status, data=self._compose(data))
        except (EntityError, ValueError):  # what others keep in it cannot travel: leave it alone
            unit.set(self.entity, status=status)
        await unit.commit()

    async def _write_again(self) -> None:
        with self._host.hold():
            await self._line.stop()
            await self._renewal.stop()
            try:
                await self._recorded_progress().commit()
            except FtrackJobsError as exc:
                logger.warning("%r: its last text was not written again: %s", self, exc)

    async def _attach_traceback(self, text: str) -> None:
        """Attach *text*; not as the user's attachment, so without a warning if it is a second."""
        try:
            component = await self._session.create_component(
                text.encode(errors="replace"), name="traceback.txt"
            )
            unit = self._workspace.new_unit()
            link = {"component_id": component.id, "job_id": self.entity.id}
            self._workspace.create(JobComponent, link, unit=unit)
            await unit.commit()
        except Exception as exc:  # noqa: BLE001 - the block's own error must come out
            logger.warning("%r: its traceback was not attached: %s", self, exc)


def _may_pass(problem: Exception) -> bool:
    """Tell whether a word that was not delivered for *problem* may be delivered later."""
    if isinstance(problem, ServerError):
        return problem.is_retryable
    return isinstance(problem, (TransportError, CommitUncertainError))
