"""job_context: a Job is running inside the block, and always gets its last word."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping, Sized
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from aioftrackjobs.jobs.lifecycle import JobLifecycle
from aioftrackjobs.jobs.progress import Progress
from aioftrackjobs.models import Entity, FileComponent, Job, JobComponent
from aioftrackjobs.session import AsyncSession, context_of
from aioftrackjobs.transfers.content import Uploadable

T = TypeVar("T")

#: Seconds between progress updates of one Job.
INTERVAL = 1.0

_KIB = 1024

#: Sizes from here on are shown without a decimal place.
_EXACT = 100

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
        grace: Seconds that the last word may take, also after a cancellation; with a journal,
            it is then delivered in the background, or by a later session.
        attach_traceback: Attach the traceback of an exception as a text file; one that cannot be
            attached within *grace* is not kept, also not by a journal, which has the reason only.
        interval: Seconds between progress updates.

    Raises:
        NoResultFoundError: There is no such Job or user.
        FtrackJobsError: The Job could not be marked running, or, after a clean exit, not done,
            and no journal keeps its last word for later.
    """
    context = context_of(session)
    course = JobLifecycle(session, description=description, grace=grace, interval=interval)
    running = RunningJob(session, course)
    before = _running.get()
    with context.connection.host.hold_for_block(), context.running.inside():
        try:
            await course.begin(job, user, data)
            _running.set(running)
            yield running
        except BaseException as error:
            await course.end_failed(error, attach_traceback=attach_traceback)
            raise
        finally:
            _running.set(before)
        await course.end()


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

    def __init__(self, session: AsyncSession, course: JobLifecycle) -> None:
        self._session = session
        self._course = course

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._course!r}>"

    @property
    def entity(self) -> Job:
        """The Job itself."""
        return self._course.entity

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
        self._course.show_progress(Progress.of(done, message, total))

    def track(
        self, items: Iterable[T] | AsyncIterable[T], *, total: float | None = None
    ) -> AsyncIterator[T]:
        """Iterate over *items*, and report after each how many are done.

        Args:
            items: Anything to iterate over, with ``for`` or ``async for``.
            total: How many there are, where they have no length to ask.
        """
        if total is None and isinstance(items, Sized):
            total = len(items)
        return _Tracked(self, items, total)

    async def attach(
        self,
        source: Uploadable,
        *,
        name: str | None = None,
        data: Mapping[str, Any] | None = None,
        report_progress: bool = False,
    ) -> FileComponent:
        """Upload *source*, and attach it to the Job.

        Args:
            source: A path, bytes, a binary file object (its `read` may be async) or an async
                iterator of bytes. A directory (``plates``), or a sequence of paths, becomes a
                zip archive (``plates.zip``).
            name: File name with extension; needed where *source* has no path.
            data: Attributes of the component.
            report_progress: Report the progress of the upload as that of the Job.

        Raises:
            TransferError: The file could not be read, or the server did not take it.
            TransportError: The server could not be reached.
        """
        component = await self._session.create_component(
            source, data, name=name, progress=self._show_upload if report_progress else None
        )
        async with self._session.unit_of_work():
            link = {"component_id": component.id, "job_id": self.id}
            self._session.create(JobComponent, link)
        return component

    def _show_upload(self, done: int, total: int | None) -> None:
        if total:
            self.progress(done, f"uploaded {_size(done)} of {_size(total)}", total=total)

    def fail(self, reason: str) -> None:
        """Let the Job end as failed, with *reason*, though the block ends without an error."""
        self._course.report.reason = reason


def _size(count: int) -> str:
    """Return a number of bytes as people read it."""
    size, units = float(count), ["bytes", "KiB", "MiB", "GiB"]
    while size >= _KIB and len(units) > 1:
        size /= _KIB
        del units[0]
    digits = 0 if count < _KIB or size >= _EXACT else 1
    return f"{size:.{digits}f} {units[0]}"


class _Tracked(AsyncIterator[T]):
    """Items, and a report after each. No generator: one that is left half-way is never closed."""

    def __init__(
        self, job: RunningJob, items: Iterable[T] | AsyncIterable[T], total: float | None
    ) -> None:
        self._job = job
        self._items = aiter(items) if isinstance(items, AsyncIterable) else iter(items)
        self._total = total
        self._given = 0

    async def __anext__(self) -> T:
        if self._given and self._total:
            told = f"{self._given} of {self._total:g}"
            self._job.progress(self._given, told, total=self._total)
        if isinstance(self._items, AsyncIterator):
            item = await anext(self._items)
        else:
            try:
                item = next(self._items)
            except StopIteration:
                raise StopAsyncIteration from None
        self._given += 1
        return item
