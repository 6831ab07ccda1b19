"""job_context: a Job is running inside the block, and always gets its last word.

Done after a clean exit, failed after any exception, cancellation or exit. The last word is sent by
the session's host, where no cancellation reaches it, within a bounded time, and repeated while the
server is away, which is safe: it sets absolute values. The error of the block wins over an error
of the reporting.
"""

from __future__ import annotations

import logging
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Iterable,
    Iterator,
    Mapping,
    Sized,
)
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import anyio
import sniffio

from aioftrackjobs.content import Uploadable
from aioftrackjobs.errors import (
    CommitUncertainError,
    EntityError,
    FtrackJobsError,
    NoResultFoundError,
    SessionStateError,
    TransportError,
)
from aioftrackjobs.failure import describe_failure, format_failure
from aioftrackjobs.models import (
    Entity,
    FileComponent,
    Job,
    JobComponent,
    JobStatus,
    User,
    remote_value,
)
from aioftrackjobs.progress import CoalescingWriter, Progress
from aioftrackjobs.report import JobReport, read_data
from aioftrackjobs.results import fetch_entity
from aioftrackjobs.session import AsyncSession, workspace_of
from aioftrackjobs.unit_of_work import UnitOfWork

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: Seconds between progress updates of one Job.
INTERVAL = 1.0

#: Seconds before the first repetition of a last word, and the most between two.
_FIRST_DELAY, _LONGEST_DELAY = 0.1, 2.0

_running: ContextVar[RunningJob | None] = ContextVar("aioftrackjobs_running", default=None)


@asynccontextmanager
async def job_context(
    session: AsyncSession,
    *,
    job: Entity | str | None = None,
    user: Entity | str | None = None,
    description: str | None = None,
    data: Mapping[str, Any] | str | None = None,
    grace: float = 10.0,
    attach_traceback: bool = True,
    interval: float = INTERVAL,
) -> AsyncIterator[RunningJob]:
    """Run the block as a Job: running inside, done after it, failed if it is left otherwise.

    Usable as a decorator too; the function then finds its Job with :func:`current_job`.

    Args:
        session: An open session; any number of Jobs may share it.
        job: A Job that exists already, or its id; None to create one.
        user: Whom the new Job is shown to: a user, or a user name; the session's own if None.
        description: The text in the jobs menu.
        data: More to keep in the Job's ``data``, as a mapping or JSON text.
        grace: Seconds that the last word may take, also after a cancellation.
        attach_traceback: Attach the traceback of an exception as a text file.
        interval: Seconds between progress updates.

    Raises:
        NoResultFoundError: There is no such Job or user.
        FtrackJobsError: The Job could not be marked running, or, after a clean exit, not done.
    """
    running = RunningJob(session, description=description, grace=grace, interval=interval)
    before = _running.get()
    with workspace_of(session).connection.host.hold():
        try:
            await running._begin(job, user, data)
            _running.set(running)
            yield running
        except BaseException as error:
            await running._end_failed(error, attach_traceback=attach_traceback)
            raise
        finally:
            _running.set(before)
        await running._end()


def current_job() -> RunningJob:
    """Return the innermost Job that the running flow is in.

    Raises:
        LookupError: It is in none.
    """
    running = _running.get()
    if running is None:
        raise LookupError("no job_context is entered here")
    return running


class RunningJob:
    """A Job while its block runs: reports progress, takes attachments, can be failed."""

    def __init__(
        self, session: AsyncSession, *, description: str | None, grace: float, interval: float
    ) -> None:
        self._session = session
        self._workspace = workspace_of(session)
        # Its own unit: nothing half-done by others is sent with a report, nor the other way.
        self._unit = UnitOfWork(self._workspace)
        self._host = self._workspace.connection.host
        self._report = JobReport(description)
        self._grace = grace
        self._writer = CoalescingWriter(self._host, self._write_progress, interval=interval)
        self._entity: Job | None = None
        self._begun = False
        self._problem: Exception | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._entity!r}>"

    @property
    def entity(self) -> Job:
        """The Job itself."""
        if self._entity is None:
            raise LookupError("the Job has not begun")
        return self._entity

    @property
    def id(self) -> str:
        """The Job's id."""
        return self.entity.id

    def progress(
        self, done: float, message: str | None = None, *, total: float | None = None
    ) -> None:
        """Report how far the work is. Never waits; only the latest report is written.

        Args:
            done: From 0 to 1, or up to *total*.
            message: What the work is at.
            total: What *done* counts towards.

        Raises:
            ValueError: *done* is no number, or *total* is not above 0.
        """
        self._report.progress = Progress.of(done, message, total)
        self._writer.touch()

    async def track(
        self, items: Iterable[T] | AsyncIterable[T], *, total: float | None = None
    ) -> AsyncIterator[T]:
        """Iterate over *items*, and report after each how many are done.

        Args:
            items: Anything to iterate over, with ``for`` or ``async for``.
            total: How many there are, where they have no length to ask.
        """
        if total is None and isinstance(items, Sized):
            total = len(items)
        done = 0
        async for item in _each(items):
            yield item
            done += 1
            if total:
                self.progress(done, f"{done} of {total:g}", total=total)

    async def attach(
        self,
        source: Uploadable,
        *,
        name: str | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> FileComponent:
        """Upload *source*, and attach it to the Job.

        Args:
            source: A path, bytes, a binary file object or an async iterator of bytes.
            name: File name with extension, where *source* is no path.
            data: Attributes of the component.

        Raises:
            TransferError: The file could not be read, or the server did not take it.
        """
        component = await self._session.create_component(source, data, name=name)
        async with self._session.unit_of_work():
            link = {"component_id": component.id, "job_id": self.id}
            self._session.create(JobComponent, link)
        return component

    def fail(self, reason: str) -> None:
        """Let the Job end as failed, with *reason*, though the block ends without an error."""
        self._report.reason = reason

    # The course of a Job

    async def _begin(
        self,
        job: Entity | str | None,
        user: Entity | str | None,
        data: Mapping[str, Any] | str | None,
    ) -> None:
        more = read_data(data)
        if job is None:
            user_id = (await self._find_user(user))["id"]
            values = {"user_id": user_id, "data": self._report.compose(None, more)}
            running = {"status": JobStatus.RUNNING, **values}
            self._entity = self._workspace.create(Job, running, unit=self._unit)
        else:
            entity = await self._find_job(job)
            before = remote_value(entity, "data")
            self._report.take_over(before)
            composed = self._report.compose(before, more)
            self._unit.set(entity, status=JobStatus.RUNNING, data=composed)
            self._entity = entity
        try:
            await self._unit.commit()
        except CommitUncertainError:
            if not await self._has_begun():
                raise
            self._unit.accept_uncertain()
        self._begun = True

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

    async def _write_progress(self) -> None:
        unit = UnitOfWork(self._workspace)
        unit.set(self.entity, data=self._report.compose(remote_value(self.entity, "data")))
        await unit.commit()

    async def _end(self) -> None:
        status = JobStatus.DONE if self._report.reason is None else JobStatus.FAILED
        await self._host.finish(self._last_word, status)
        if self._problem is not None:
            raise self._problem

    async def _end_failed(self, error: BaseException, *, attach_traceback: bool) -> None:
        """Report that the block was left by *error*; what goes wrong here is only logged."""
        key = self._workspace.connection.credentials.api_key.get_secret_value()
        text = None
        if attach_traceback and isinstance(error, Exception):
            text = format_failure(error, key)
        try:
            reason = describe_failure(error, key)
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
                return
        self._report.reason = reason
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
        """Report the end; keep why it could not be delivered until *deadline*."""
        self._problem = TransportError(f"no answer within {self._grace:g} s")
        with anyio.CancelScope(deadline=deadline or anyio.current_time() + self._grace):
            with anyio.move_on_after(self._grace / 2) as patience:
                await self._writer.stop()
            for delay in _delays():
                try:
                    await self._send_status(status)
                except (TransportError, CommitUncertainError) as exc:
                    self._problem = exc
                    await anyio.sleep(delay)
                except Exception as exc:  # noqa: BLE001 - kept, and raised or logged at the end
                    self._problem = exc
                    return
                else:
                    self._problem = None
                    break
            if patience.cancelled_caught:  # an old report may yet arrive, and say less
                self._host.spawn(self._write_again)

    async def _send_status(self, status: JobStatus) -> None:
        # It need not wait for a report that hangs; that sets no status.
        unit = UnitOfWork(self._workspace, overtakes=True)
        data = remote_value(self.entity, "data")
        try:
            unit.set(self.entity, status=status, data=self._report.compose(data))
        except (EntityError, ValueError):  # what others keep in it cannot travel: leave it alone
            unit.set(self.entity, status=status)
        await unit.commit()

    async def _write_again(self) -> None:
        with self._host.hold():
            await self._writer.stop()
            try:
                await self._write_progress()
            except FtrackJobsError as exc:
                logger.warning("%r: its last text was not written again: %s", self, exc)

    async def _attach_traceback(self, text: str) -> None:
        """Attach *text*; not as the user's attachment, so without a warning if it is a second."""
        try:
            component = await self._session.create_component(
                text.encode(errors="replace"), name="traceback.txt"
            )
            unit = UnitOfWork(self._workspace)
            link = {"component_id": component.id, "job_id": self.id}
            self._workspace.create(JobComponent, link, unit=unit)
            await unit.commit()
        except Exception as exc:  # noqa: BLE001 - the block's own error must come out
            logger.warning("%r: its traceback was not attached: %s", self, exc)


async def _each(items: Iterable[T] | AsyncIterable[T]) -> AsyncIterator[T]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item


def _delays() -> Iterator[float]:
    delay = _FIRST_DELAY
    while True:
        yield delay
        delay = min(2 * delay, _LONGEST_DELAY)
