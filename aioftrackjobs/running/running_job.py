"""job_context and RunningJob: run a block as a Job, whose final status is always recorded."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

from aioftrackjobs.background import SafeLogger, text_of
from aioftrackjobs.config.settings import require_flag
from aioftrackjobs.errors import CommandFailedError, ServerError
from aioftrackjobs.jobs.attachments import Caller
from aioftrackjobs.jobs.block import GivenJob, block_context, session_from
from aioftrackjobs.jobs.context import JobsContext
from aioftrackjobs.jobs.ending import QUEUED_AGAIN
from aioftrackjobs.jobs.existing import JoinedLifecycle
from aioftrackjobs.jobs.lifecycle import JobLifecycle
from aioftrackjobs.jobs.progress import size_text
from aioftrackjobs.jobs.queueing import repeated_kind
from aioftrackjobs.jobs.reports import Reporter, current_work
from aioftrackjobs.jobs.stages import Work
from aioftrackjobs.jobs.stopping import StopOn, StopRequest
from aioftrackjobs.models import Entity, FileComponent, Job, JobStatus, bar_html
from aioftrackjobs.session import AsyncSession, jobs_of

if TYPE_CHECKING:
    from os import PathLike
    from re import Pattern

    from aioftrackjobs.commands.execution import CommandResult
    from aioftrackjobs.commands.reporting import (
        CommandJob,
        LogWhen,
    )
    from aioftrackjobs.transfers.content import Uploadable

logger: SafeLogger = SafeLogger(__name__)

#: Seconds between progress updates of one Job.
INTERVAL = 1.0

_NOT_WATCHED = nullcontext()

_running: ContextVar[RunningJob | None] = ContextVar("aioftrackjobs_running", default=None)


@block_context(AsyncSession)
async def job_context(
    session: AsyncSession | Callable[[], AsyncSession],
    *,
    job: Entity | str | UUID | None = None,
    user: Entity | str | UUID | None = None,
    description: str | None = None,
    data: Mapping[str, Any] | str | None = None,
    grace: float = 10.0,
    attach_traceback: bool = True,
    interval: float = INTERVAL,
    stop_on: StopOn = "request",
    take_over: bool = False,
    join: bool = False,
    new_id: str | UUID | None = None,
    retry_on: type[BaseException] | tuple[type[BaseException], ...] = (),
    attach_log: bool = False,
) -> AsyncIterator[RunningJob]:
    """Run the block as a Job: running inside, done after it, failed if it ends by an error.

    The Job also fails when the block is cancelled. It can be used as a decorator of a coroutine
    function, too: each call is a Job, which the function finds with :func:`current_job`.

    Example:
        Report the progress of a loop, and attach a file::

            async with job_context(session, description="Transcode sh010") as job:
                async for frame in job.track(frames):
                    await encode(frame)
                await job.attach("report.pdf")

    Args:
        session: An open session; any number of Jobs may share it. Or a function without arguments
            that returns it: it is called when the block is entered, so that a module can decorate
            functions before there is a session.
        job: A Job that exists already, or its id; None to create one. Or the key of the task of an
            engine, from :func:`job_key`: its Job is taken from the one that ran the task before,
            or created if there is none, with *user* and *description*.
        user: The user that sees the new Job, or its id or name; the session's own user if None.
        description: The text in the jobs menu.
        data: More values to keep in the Job's ``data``, as a mapping or JSON text.
        grace: Seconds that recording the final status may take, also after a cancellation. With a
            journal, the status is delivered after that in the background, or by a later session.
        attach_traceback: Attach the traceback of an exception as a text file. If that does not
            succeed within *grace*, the traceback is lost; a journal keeps only the reason.
        interval: Seconds between progress updates.
        stop_on: What ends the block from outside: "request" for a stop request in the Job's
            ``data``, "any" also for a status that another client sets, or a deletion, and "never"
            for nothing. A block that goes on decides how the Job ends.
        take_over: Take *job* from an owner that may still run it. That one notices it within
            seconds, and from then on does not write the Job any more.
        join: Work on *job* for its owner, as a child process or a nested block: progress and
            attachments go to the Job, but the block does not end it, whatever happens inside.
            If it is the one in ``FTRACK_JOB_ID``, the block waits some seconds until it runs.
        new_id: The id that a new Job gets, for example because another process knows it already;
            a random one if None.
        retry_on: Errors of the block after which its work is tried again, such as that by which a
            task asks its engine for another attempt: the Job is queued again, and the error
            raised.
        attach_log: Attach what the code of the block logs, in its tasks and threads, as
            ``log.txt``, with the traceback at its end.

    Raises:
        ArgumentError: An argument has a wrong type or value.
        TypeError: As a decorator: the function is no coroutine function.
        NoResultFoundError: There is no such Job or user.
        JobStoppedError: The block was cancelled because of a stop request; or the Job of a key
            was stopped before.
        JobDeletedError: The Job was deleted, and the block ended without an error.
        JobOwnedError: *job* is run, or claimed, by another session or block; or, with *stop_on*
            "any", another one has taken the Job over.
        EntityError: The Job to *join* is not running; or *job* or *user* is recorded, and not yet
            committed.
        FtrackJobsError: The Job could not be marked running; or, after a block without an error,
            not done, and no journal keeps its final status for later.
    """
    if not isinstance(session, AsyncSession):
        session = session_from(session, AsyncSession)
    jobs = jobs_of(session)
    jobs.entities.connection.require_open()
    kind = JobLifecycle if job is None else JoinedLifecycle if join else repeated_kind(job)
    lifecycle = kind(
        jobs,
        description=description,
        grace=grace,
        interval=interval,
        stop_on=stop_on,
        retry_on=retry_on if isinstance(retry_on, tuple) else (retry_on,),
    )
    outer = _running.get()
    running: RunningJob | None = None
    watch: AbstractContextManager[None] = _NOT_WATCHED
    if attach_log or jobs.observer is not None:
        from aioftrackjobs.jobs.watching import Watch

        watch = Watch(lifecycle, jobs.observer, is_joined=join, keeps_log=attach_log)
    with jobs.active.count_block(), jobs.background.keep_alive_for_block(), watch:
        try:
            with jobs.background.keep_alive():  # closing waits for it, and then ends the Job
                await lifecycle.begin(GivenJob(job, user, data, take_over, new_id))
            running = RunningJob(jobs, lifecycle.reporter, outer)
            _running.set(running)
            with lifecycle.interventions.stoppable():
                yield running
        except BaseException as error:
            # The log of a command says more. By its type, as except does.
            is_own = not issubclass(type(error), CommandFailedError)
            await lifecycle.end_failed(error, with_traceback=attach_traceback and is_own)
            raise
        finally:
            # Not that of another block, which may have begun in this task and not ended: in an
            # async generator.
            if running is not None and _running.get() is running:
                _running.set(outer and outer.innermost_active())
        await lifecycle.end()


def current_job() -> RunningJob:
    """Return the innermost Job whose block the calling code runs in.

    Example: ``current_job().progress(0.5)``

    Tasks and ``asyncio.to_thread`` inherit it, and so do callbacks of the event loop and of
    transfers. Code that outlives the blocks of all its Jobs still gets the innermost one, on which
    reports have no effect then.

    Raises:
        LookupError: It runs in none.
    """
    running = _running.get()
    if running is None:
        raise LookupError("no job_context is entered here")
    return running.innermost_active() or running


class JobLogFilter(logging.Filter):
    """Adds to each log record the Job whose block the code runs in; it filters nothing.

    A record gets ``ftrack_job_id`` and ``ftrack_job``, the id and the description of the Job; both
    are empty outside of a block. A record of this package that is about another Job keeps its id::

        handler.addFilter(JobLogFilter())
        handler.setFormatter(logging.Formatter("%(ftrack_job_id)s %(message)s"))
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Add both attributes to *record*."""
        job = _running.get()
        job = None if job is None else job.innermost_active()
        own_id = "" if job is None else job.id
        is_this = vars(record).setdefault("ftrack_job_id", own_id) == own_id
        record.ftrack_job = job.description or "" if job is not None and is_this else ""
        return True


class RunningJob(Reporter):
    """A Job while its block runs: reports progress, takes attachments, decides how the Job ends.

    Example: ``job.progress(3, "frame 1003", total=96)``

    All but :meth:`attach` may be called from any thread, callback or signal handler, never waits,
    and has no effect after the end of the block.
    """

    __slots__ = ("_jobs", "_lifecycle", "_outer")

    def __init__(
        self, jobs: JobsContext, lifecycle: JobLifecycle, outer: RunningJob | None = None
    ) -> None:
        super().__init__(lifecycle.reports)
        self._jobs = jobs
        self._lifecycle = lifecycle
        self._outer = outer

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._lifecycle!r}>"

    def _repr_html_(self) -> str:
        """Return a progress bar, for a notebook."""
        shown = self._reports.work.shown()
        text = self._lifecycle.description or shown.message
        return bar_html(str(self.entity.status), text, shown.fraction)

    def _ipython_display_(self) -> None:
        """Show a progress bar that moves, for a notebook."""
        from aioftrackjobs.running.notebook import show_live  # late: few programs are notebooks

        show_live(self._jobs, self._repr_html_, lambda: self.entity.status == "running")

    def innermost_active(self) -> RunningJob | None:
        """Return this Job, or the first one around it whose block has not ended; None if all have.

        :meta private:
        """
        job: RunningJob | None = self
        while job is not None and job._lifecycle.has_ended:
            job = job._outer
        return job

    def _work(self) -> Work:
        return current_work(self._reports)

    @property
    def entity(self) -> Job:
        """The Job itself.

        A status or a description that you set on it inside the block is respected, also if you do
        not commit it: the Job ends with this status, and goes on with this text.
        """
        return self._lifecycle.entity

    @property
    def id(self) -> str:
        """The Job's id."""
        return self.entity.id

    @property
    def stop_requested(self) -> StopRequest:
        """Whether the Job is to stop: a flag, in any thread, that can be awaited."""
        return self._lifecycle.interventions.stop_requested

    @property
    def description(self) -> str | None:
        """The text in the jobs menu, without progress. It can be set at any moment."""
        return self._lifecycle.description

    @description.setter
    def description(self, text: str | None) -> None:
        self._lifecycle.description = text_of(text) or ""

    def attach(
        self,
        source: Uploadable,
        *,
        name: str | None = None,
        data: Mapping[str, Any] | None = None,
        report_progress: bool = False,
    ) -> Coroutine[Any, Any, FileComponent]:
        """Upload *source*, and attach it to the Job.

        Example: ``await job.attach("report.pdf", report_progress=True)``

        A second attachment is attached, too, but warns: ftrack's web interface offers only one of
        them for download.

        Args:
            source: A path, bytes, a binary file object (its `read` may be async) or an async
                iterator of bytes. A directory (``plates``), or a sequence of paths, becomes a
                zip archive (``plates.zip``).
            name: File name with extension; needed if *source* has no path.
            data: Attributes of the component.
            report_progress: Report the progress of the upload as that of the Job.

        Raises:
            ArgumentError: An argument has a wrong type or value.
            InvalidValueError: An attribute cannot have its value in *data*.
            TransferError: The file could not be read, or the server did not accept it.
            TransportError: The server could not be reached.
            JobDeletedError: The Job was deleted.
        """
        caller = Caller.find()  # a coroutine cannot see who has made it
        return self._attach(source, caller, name=name, data=data, report_progress=report_progress)

    async def _attach(
        self,
        source: Uploadable,
        caller: Caller,
        *,
        name: str | None,
        data: Mapping[str, Any] | None,
        report_progress: bool,
    ) -> FileComponent:
        require_flag("report_progress", report_progress)
        self._jobs.require_open()
        progress = self._show_upload if report_progress else None
        try:
            return await self._lifecycle.attachments.add(
                self.entity, source, caller, name=name, data=data, progress=progress
            )
        except ServerError as exc:
            await self._lifecycle.require_existence(exc)
            raise

    def _show_upload(self, done: int, total: int | None) -> None:
        if total:
            self.progress(done, f"uploaded {size_text(done)} of {size_text(total)}", total=total)

    async def run(
        self,
        arguments: Sequence[str | PathLike[str]],
        *,
        progress: str | Pattern[str] | None = None,
        frames: str | None = None,
        duration: float | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | PathLike[str] | None = None,
        timeout: float | None = None,
        grace: float = 5.0,
        retries: int = 0,
        log: LogWhen = "failure",
        quiet: bool = False,
        check: bool = True,
    ) -> CommandResult:
        """Run a command, show its progress as that of the Job, and wait for its end.

        It gets the Job's id as ``FTRACK_JOB_ID``. Its output goes to that of this process. If the
        task is cancelled, or the Job stopped, the command and all its descendants are ended.

        Example: ``await job.run(["ffmpeg", "-i", "in.mov", "out.mp4"], progress="ffmpeg")``

        Args:
            arguments: The program and its arguments; no shell reads them.
            progress: Which lines of the output say how far it is: the name of a preset (see
                docs/commands.md), or a compiled regular expression with one group for a percentage,
                or two for what is done and the total. Lines of OpenJD always do.
            frames: The frames that it renders, as "1001-1100", if a percentage is that of one.
            duration: Seconds of the film that ffmpeg writes, if its output does not say it.
            env: Variables that it gets besides those of this process.
            cwd: Its current directory.
            timeout: Seconds after which it is stopped.
            grace: Seconds from SIGTERM to SIGKILL when it is stopped.
            retries: How often it is started again after a failure.
            log: When the end of its output is attached: "always", "failure" or "never".
            quiet: Drop its output.
            check: Raise an error if it fails.

        Raises:
            ArgumentError: An argument has a wrong type or value.
            CommandFailedError: It failed, timed out, or could not be started.
            FtrackJobsError: The log was to be attached always, and that failed.
            UnsupportedPlatformError: This is Windows.
        """
        from aioftrackjobs.commands.in_python import execution_of, run_in_job

        execution = execution_of(
            arguments,
            job_id=self.id,
            progress=progress,
            frames=frames,
            duration=duration,
            env=self._jobs.environment(env),
            cwd=cwd,
            timeout=timeout,
            grace=grace,
            retries=retries,
            quiet=quiet,
            log=log,
        )
        redact = self._jobs.entities.redact
        result = await run_in_job(cast("CommandJob", self), execution, log, redact)
        if check and result.reason is not None:
            raise CommandFailedError(execution.settings.name, result.exit_code, result.reason)
        return result

    def finish(self, result: str | None = None) -> None:
        """Let the Job end as done, with a text that says what was done.

        The first call of ``finish``, :meth:`fail` or :meth:`requeue` decides the end. A
        cancellation that comes later does not change it; an error that leaves the block still fails
        the Job.

        Example: ``job.finish("3 files delivered")``

        Args:
            result: Follows the description in the jobs menu.
        """
        self._decide(JobStatus.DONE, result)

    def fail(self, reason: str) -> None:
        """Let the Job end as failed, with *reason*, although the block ends without an error.

        The first call of :meth:`finish`, ``fail`` or :meth:`requeue` decides the end.
        """
        self._decide(JobStatus.FAILED, reason)

    def requeue(self, reason: str | None = None) -> None:
        """Let the Job be queued again, because its work is to be tried again.

        What was attached stays. An error or a cancellation of the block does not change it: the
        Job belongs to the next one that begins it, and ends then. See :func:`job_key`.

        Example: ``job.requeue("attempt 2 of 3 in 4 s")``

        Args:
            reason: Follows the description in the jobs menu; "queued again" if None.
        """
        self._decide(JobStatus.QUEUED, QUEUED_AGAIN if reason is None else reason)

    def _decide(self, status: JobStatus, text: object) -> None:
        line = text_of(text)
        with self._reports.lock:
            is_first = self._lifecycle.decide(status, line)
        if not (is_first or self._lifecycle.has_ended):
            logger.warning(
                "%(job)r: its end was decided before; it is not changed to %(status)s",
                job=self,
                status=status.value,
                stacklevel=3,
            )
