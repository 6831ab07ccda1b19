"""Reports the execution of a command as a Job, whether ftrack can be reached or not.

The command does not wait for the Job. While ftrack does not respond, the Job is tried again; from
then on it shows how far the command is. If ftrack has not responded when the command has ended, the
journal keeps how it ended, and a later session creates the Job.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from contextvars import copy_context
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias
from uuid import UUID

import anyio
from anyio.to_thread import run_sync

from aioftrackjobs.background import loop_caller
from aioftrackjobs.commands.execution import CommandResult, CommandSettings
from aioftrackjobs.commands.progress import Reading
from aioftrackjobs.errors import (
    CommitUncertainError,
    DuplicateEntryError,
    EntityError,
    FtrackJobsError,
    NoResultFoundError,
    ServerError,
    SessionStateError,
    TransportError,
)
from aioftrackjobs.jobs.context import JobsContext
from aioftrackjobs.jobs.data import JobData
from aioftrackjobs.jobs.late_creation import Log, report_to_create
from aioftrackjobs.jobs.progress import one_line
from aioftrackjobs.models import Entity, JobStatus

#: When the end of the output is attached.
LogWhen: TypeAlias = Literal["always", "failure", "never"]
LOG_WHEN: tuple[LogWhen, ...] = ("always", "failure", "never")

#: Seconds between two attempts to reach ftrack: at first, and at most.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 10.0

#: Seconds from the end of a command until the journal takes a Job that has not begun.
_KEPT_GRACE = 2.0

#: Files that one pattern may attach.
_MOST_FILES = 100


class CommandJob(Protocol):
    """What a command needs of a running Job."""

    message: str | None

    @property
    def stop_requested(self) -> object:
        """Why the Job is to stop, as text."""
        ...

    def progress(self, done: float, message: str | float | None = None) -> None:
        """Report how far the command is."""
        ...

    def fail(self, reason: str) -> None:
        """Let the Job fail."""
        ...

    async def attach(self, source: Any, *, name: str | None = None) -> object:
        """Attach a file."""
        ...


class CommandExecution(Protocol):
    """What a report needs of the execution of a command: see :class:`Execution`."""

    settings: CommandSettings
    warn: Callable[[str], object]
    result: CommandResult | None

    def start(self) -> None:
        """Start the command."""
        ...

    def stop(self, reason: str) -> None:
        """Stop it."""
        ...

    def on_end(self, notify: Callable[[], object]) -> None:
        """Have *notify* called when it has ended, in any thread."""
        ...

    def follow(self, listener: Callable[[Reading], object] | None) -> None:
        """Have *listener* called with its progress, in any thread."""
        ...


class ReportedJob(NamedTuple):
    """The Job that reports a command.

    Attributes:
        id: Its id.
        user: Whose Job it is; None for the user of the session.
        description: Its text in the jobs menu.
        exists: Whether there is such a Job, which the command runs for or joins.
        is_joined: Whether another process runs the Job, and decides how it ends.
    """

    id: str
    user: Entity | str | UUID | None = None
    description: str | None = None
    exists: bool = False
    is_joined: bool = False


class ReportOptions(NamedTuple):
    """What is reported, and when.

    Attributes:
        attach: Patterns of files that are attached when the command has succeeded.
        log: When the end of the output is attached.
        grace: Seconds that the Job may take after the end of the command.
        waits_for_job: Whether the command starts only when the Job is running.
    """

    attach: Sequence[str] = ()
    log: LogWhen = "failure"
    grace: float = 10.0
    waits_for_job: bool = False


#: Opens the block of a Job: of one that exists, or of a new one.
OpenJob: TypeAlias = Callable[[bool], AbstractAsyncContextManager[CommandJob]]


async def wait_for_end(execution: CommandExecution) -> CommandResult:
    """Wait for the end of the command, and return how it ended."""
    ended, call = anyio.Event(), loop_caller()

    def notify() -> None:
        with suppress(RuntimeError):  # the event loop has ended; nothing waits any more
            call(ended.set)

    execution.on_end(notify)
    await ended.wait()
    assert execution.result is not None  # noqa: S101 - for type checkers
    return execution.result


async def run_in_block(job: CommandJob, execution: CommandExecution) -> CommandResult:
    """Show the progress of a command in *job* until it ends, and return how it ended.

    If the task is cancelled, the command is stopped, and its end is waited for.
    """
    context = copy_context()  # with the stage that the task is in

    def show(reading: Reading) -> None:
        context.run(_show, job, reading)

    execution.follow(show)
    try:
        return await wait_for_end(execution)
    except anyio.get_cancelled_exc_class():
        requested = job.stop_requested
        execution.stop(str(requested) if requested else "cancelled")
        with anyio.CancelScope(shield=True):
            await wait_for_end(execution)
        raise
    finally:
        execution.follow(None)


async def attach_log(
    job: CommandJob, execution: CommandExecution, when: LogWhen, redact: Callable[[str], str]
) -> None:
    """Attach the end of the output to *job*, if it is to be attached.

    Args:
        job: The Job.
        execution: The command, which has ended.
        when: When it is to be attached.
        redact: Removes the API key from a text.

    Raises:
        FtrackJobsError: That did not succeed.
    """
    if (log := _log_of(execution, when, redact)) is not None:
        await job.attach(log.text.encode("utf-8", "replace"), name=log.name)


def _log_of(execution: CommandExecution, when: LogWhen, redact: Callable[[str], str]) -> Log | None:
    """Return the end of the output, if it is to be attached."""
    result = execution.result
    if result is None or when == "never" or not result.log.strip():
        return None
    if when == "always" or (result.reason is not None and not result.was_stopped):
        return Log(f"{execution.settings.name}.log", redact(result.log))
    return None


class ExecutionReporter:
    """Reports one execution as a Job.

    Args:
        jobs: The Jobs of the session.
        job: The Job.
        open_job: Opens its block.
        execution: The command, which runs already unless it waits for the Job.
        options: What is reported.
    """

    def __init__(
        self,
        jobs: JobsContext,
        job: ReportedJob,
        open_job: OpenJob,
        execution: CommandExecution,
        options: ReportOptions,
    ) -> None:
        self._jobs = jobs
        self._job = job
        self._open_job = open_job
        self._execution = execution
        self._options = options
        self._warn = execution.warn
        self._exists = job.exists
        self._has_begun = False
        self._has_ended = anyio.Event()
        self._scope = anyio.CancelScope()
        self._deadline = float("inf")  # of the beginning of the Job

    async def run(self) -> CommandResult:
        """Report the command until it has ended.

        Raises:
            FtrackJobsError: The command was to wait for the Job, which cannot run.
            JobStoppedError: The Job was stopped by another client.
        """
        if self._options.waits_for_job:
            await self._report()
            return await wait_for_end(self._execution)
        self._record_start()
        try:
            return await self._run_beside()
        finally:
            self._jobs.journal.release_start(self._job.id)

    def _record_start(self) -> None:
        """Let the journal have what a Job is created with if this process is killed before that."""
        if self._job.exists or self._job.is_joined:
            return
        data = JobData(self._job.description).compose(None)
        report = report_to_create(self._job.user, JobStatus.FAILED, data)
        self._jobs.journal.record_start(self._job.id, report)

    async def _run_beside(self) -> CommandResult:
        error: FtrackJobsError | None = None
        async with anyio.create_task_group() as group:
            group.start_soon(self._watch)
            try:
                await self._report_at_last()
            except FtrackJobsError as exc:
                error = exc  # raised below, not in a group
            group.cancel_scope.cancel()
        result = await wait_for_end(self._execution)
        if error is not None:
            raise error
        return result

    async def _watch(self) -> None:
        """Limit the time for the Job once the command has ended."""
        await wait_for_end(self._execution)
        keeps_jobs = self._jobs.journal.state == "working"
        grace = min(self._options.grace, _KEPT_GRACE) if keeps_jobs else self._options.grace
        self._deadline = anyio.current_time() + grace
        if not self._has_begun:
            self._scope.deadline = self._deadline
        self._has_ended.set()

    async def _report_at_last(self) -> None:
        pause, has_warned = _FIRST_PAUSE, False
        error: Exception | None = None
        while not self._has_begun:
            is_reported = False
            with anyio.CancelScope(deadline=self._deadline) as self._scope:
                try:
                    await self._report()
                    is_reported = True
                except FtrackJobsError as exc:
                    if self._has_begun:
                        raise
                    error = exc
            if is_reported:
                return
            if error is not None and not self._may_begin_later(error):
                self._warn(f"ftrack refuses the Job: {error}")
                await self._has_ended.wait()
                return
            if anyio.current_time() >= self._deadline:
                break
            if not has_warned and error is not None:
                has_warned = True
                self._warn(f"ftrack cannot be reached, the command goes on: {error}")
            with anyio.move_on_after(min(pause, self._deadline - anyio.current_time())):
                # One more attempt at the end, but not at once, and again and again.
                await (anyio.sleep(pause) if self._has_ended.is_set() else self._has_ended.wait())
            pause = min(2 * pause, _LONGEST_PAUSE)
        if not self._has_begun:
            await self._keep_for_later()

    def _may_begin_later(self, error: Exception) -> bool:
        """Return whether *error* may pass, and note what it says about the Job."""
        if isinstance(error, CommitUncertainError | DuplicateEntryError):
            was_known, self._exists = self._exists, True
            return isinstance(error, CommitUncertainError) or not was_known
        if self._job.is_joined:  # the one that runs it may not have begun it yet
            return isinstance(error, TransportError | NoResultFoundError | EntityError) or (
                isinstance(error, ServerError) and error.is_retryable
            )
        if isinstance(error, NoResultFoundError) and self._exists and not self._job.exists:
            self._exists = False  # it was not created after all
            return True
        if isinstance(error, SessionStateError):
            return False
        return isinstance(error, TransportError) or (
            isinstance(error, ServerError) and error.is_retryable
        )

    async def _report(self) -> None:
        async with self._open_job(self._exists) as job:
            self._has_begun, self._scope.deadline = True, float("inf")
            self._jobs.journal.release_start(self._job.id)
            if self._options.waits_for_job:
                with suppress(OSError):  # its result says so
                    self._execution.start()
            result = await run_in_block(job, self._execution)
            await self._conclude(job, result)

    async def _conclude(self, job: CommandJob, result: CommandResult) -> None:
        if result.reason is not None and not self._job.is_joined:
            job.fail(result.reason)
        try:
            if result.reason is None:
                for file in await run_sync(self._files):
                    await job.attach(file)
        except FtrackJobsError as exc:
            self._warn(f"a file was not attached: {exc}")
            if not self._job.is_joined:
                job.fail(f"a file was not attached: {exc}")
        try:
            redact = self._jobs.entities.redact
            await attach_log(job, self._execution, self._options.log, redact)
        except FtrackJobsError as exc:
            self._warn(f"the log was not attached: {exc}")

    def _files(self) -> list[str]:
        """Return the files to attach, in the order of their patterns and names."""
        files: dict[str, None] = {}
        for pattern in self._options.attach:
            found = sorted(glob.glob(pattern, recursive=True))
            if not found:
                self._warn(f"no file matches {pattern}")
            elif len(found) > _MOST_FILES:
                self._warn(f"{len(found)} files match {pattern}; {_MOST_FILES} are attached")
            files |= dict.fromkeys(map(os.path.abspath, found[:_MOST_FILES]))
        return list(files)

    async def _keep_for_later(self) -> None:
        """Let the journal keep the Job, which a later session creates."""
        result = self._execution.result
        if self._job.is_joined or result is None:
            return
        status = JobStatus.DONE if result.reason is None else JobStatus.FAILED
        reason = result.reason and one_line(result.reason, self._jobs.api_key)
        data = JobData(self._job.description, failure_reason=reason).compose(None)
        log = _log_of(self._execution, self._options.log, self._jobs.entities.redact)
        if await self._keep(report_to_create(self._job.user, status, data, log)):
            self._warn("ftrack cannot be reached; the journal keeps the Job, to be delivered later")
        else:
            self._warn(
                "ftrack cannot be reached, and no Job shows this command; a journal that can be "
                "written (--journal FILE, or FTRACK_JOBS_JOURNAL) would keep it for later"
            )

    async def _keep(self, report: str) -> bool:
        """Record a final report in the journal; return whether it outlives the process."""
        journal = self._jobs.journal
        if journal.state == "off":
            return False
        receipt = journal.record_final_report(self._job.id, report)
        self._jobs.replay.wake()
        return await journal.wait_until_written(receipt)


def _show(job: CommandJob, reading: Reading) -> None:
    if reading.fraction is not None:
        job.progress(reading.fraction, reading.message)
    elif reading.message is not None:
        job.message = reading.message
