"""run_command: a command as a Job, which starts at once, also if ftrack cannot be reached."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import TYPE_CHECKING, cast
from uuid import UUID, uuid4

from aioftrackjobs.config.settings import require
from aioftrackjobs.models import Entity, Job
from aioftrackjobs.running.running_job import job_context
from aioftrackjobs.session import AsyncSession, jobs_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike
    from re import Pattern

    from aioftrackjobs.commands.execution import CommandResult
    from aioftrackjobs.commands.reporting import (
        CommandExecution,
        CommandJob,
        LogWhen,
        ReportedJob,
        ReportOptions,
    )


async def run_command(
    session: AsyncSession,
    arguments: Sequence[str | PathLike[str]],
    *,
    job: Entity | str | UUID | None = None,
    user: Entity | str | UUID | None = None,
    description: str | None = None,
    progress: str | Pattern[str] | None = None,
    frames: str | None = None,
    duration: float | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | PathLike[str] | None = None,
    timeout: float | None = None,
    grace: float = 10.0,
    retries: int = 0,
    attach: Sequence[str] = (),
    log: LogWhen = "failure",
    quiet: bool = False,
    require_ftrack: bool = False,
) -> CommandResult:
    """Run a command as a Job, and return how it ended. ``aioftrackjobs run`` is made of this.

    The command starts at once, also if ftrack cannot be reached; the journal of the session then
    keeps the Job until it can. A command that fails is no error: look at ``result.exit_code``.

    Example: ``await run_command(session, ["rsync", "-a", "plates/", "/mnt/show"])``

    Args:
        session: An open session.
        arguments: The program and its arguments; no shell reads them.
        job: A Job that exists, or its id, to run it: the command then waits until it has begun.
        user: The user that sees a new Job, or its id or name; the session's own user if None.
        description: The text in the jobs menu; the name of the program if None.
        progress: Which lines of the output say how far it is: see :meth:`RunningJob.run`.
        frames: The frames that it renders, as "1001-1100", if a percentage is that of one.
        duration: Seconds of the film that ffmpeg writes, if its output does not say it.
        env: Variables that it gets besides those of this process.
        cwd: Its current directory.
        timeout: Seconds after which it is stopped.
        grace: Seconds from SIGTERM to SIGKILL, and seconds that ftrack may take after the end.
        retries: How often it is started again after a failure.
        attach: Patterns of files that are attached when the command has succeeded, as
            ``"out/*.mov"``.
        log: When the end of the output is attached: "always", "failure" or "never".
        quiet: Drop its output.
        require_ftrack: Do not start the command before its Job is running.

    Raises:
        ArgumentError: An argument has a wrong type or value.
        JobStoppedError: The Job was stopped by another client, and the command with it.
        FtrackJobsError: The command has to wait for its Job, and that could not begin.
        UnsupportedPlatformError: This is Windows.
    """
    from aioftrackjobs.commands.in_python import execution_of, start
    from aioftrackjobs.commands.reporting import ReportedJob, ReportOptions

    require(isinstance(session, AsyncSession), "session", "an AsyncSession", session)
    jobs_of(session).require_open()
    job_id = str(uuid4()) if job is None else job.id if isinstance(job, Job) else str(job)
    execution = execution_of(
        arguments,
        job_id=job_id,
        progress=progress,
        frames=frames,
        duration=duration,
        env=jobs_of(session).environment(env),
        cwd=cwd,
        timeout=timeout,
        grace=grace,
        retries=retries,
        quiet=quiet,
        log=log,
        attach=attach,
    )
    text = description if description or job is not None else execution.settings.name
    reported = ReportedJob(job_id, user, text, exists=job is not None)
    waits = require_ftrack or job is not None
    options = ReportOptions(tuple(attach), log, grace, waits_for_job=waits)
    if not waits:
        start(execution)
    return await report_execution(session, execution, reported, options)


async def report_execution(
    session: AsyncSession, execution: CommandExecution, job: ReportedJob, options: ReportOptions
) -> CommandResult:
    """Report a command that runs, or is to run, as a Job; see :func:`run_command`.

    :meta private:
    """
    from aioftrackjobs.commands.reporting import ExecutionReporter

    def open_job(exists: bool) -> AbstractAsyncContextManager[CommandJob]:  # noqa: FBT001
        make = partial(job_context, session, grace=options.grace)
        if job.is_joined:
            block = make(job=job.id, join=True)
        elif exists:
            block = make(job=job.id, description=job.description)
        else:
            block = make(user=job.user, new_id=job.id, description=job.description)
        return cast("AbstractAsyncContextManager[CommandJob]", block)

    reporter = ExecutionReporter(jobs_of(session), job, open_job, execution, options)
    return await reporter.run()
