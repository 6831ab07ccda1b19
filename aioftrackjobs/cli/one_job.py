"""What is done to one Job: ``attach``, ``finish``, ``fail``, ``stop`` and ``open``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from aioftrackjobs import AsyncSession, JobOwnedError, JobStatus, job_context
from aioftrackjobs.cli.arguments import RefusedError, UsageError
from aioftrackjobs.cli.jobs import find_job
from aioftrackjobs.cli.texts import plain
from aioftrackjobs.jobs.attachments import Attachments, Caller
from aioftrackjobs.session import context_of


async def attach_files(session: AsyncSession, given: str, files: Sequence[Path]) -> None:
    """Upload files, and attach them to a Job, even if another program runs it.

    Raises:
        UsageError: One of them is not there. Nothing is uploaded.
    """
    missing = [str(file) for file in files if not file.exists()]
    if missing:
        raise UsageError(f"there is no file {missing[0]}")
    job = await find_job(session, given)
    attachments = Attachments(context_of(session), job_is_new=False)
    for file in files:
        component = await attachments.add(job, file, Caller.find())
        print(component.id)


async def end_job(
    session: AsyncSession, given: str, status: JobStatus, text: str | None, *, take_over: bool
) -> None:
    """Let a Job end which nothing else runs.

    Raises:
        RefusedError: Something else runs it.
    """
    job = await find_job(session, given)
    try:
        async with job_context(session, job=job, take_over=take_over) as running:
            if status is JobStatus.DONE:
                running.finish(text)
            else:
                running.fail(text or "failed by hand")
    except JobOwnedError as error:
        where = f"process {error.pid} on {error.host}" if error.host else "another program"
        raise RefusedError(f"{where} runs the Job: stop it, or use --take-over") from None
    print(plain(f"{job.id}  {status.value}"))


async def stop_job(session: AsyncSession, given: str, reason: str | None, *, wait: bool) -> int:
    """Stop a Job, and return the exit code: 1 if it had ended already."""
    job = await find_job(session, given)
    had_ended = job.status in (JobStatus.DONE, JobStatus.FAILED)
    state = await session.stop_job(job, reason)
    if wait and not state.has_ended:
        (state,) = await session.wait_for(job)
    print(plain(f"{state.id}  {state}"))
    if had_ended:
        raise RefusedError("the Job had ended already")
    return 0


async def open_job(session: AsyncSession, given: str | None, *, browser: bool) -> None:
    """Print the address of ftrack's interface, and open it: its jobs menu shows all Jobs.

    ftrack has no address for a single Job.
    """
    if given is not None:
        job = await find_job(session, given)
        print(plain(f"{job.id}  {job.status}  {job.description or '-'}"))
    print(session.server_url)
    if browser:
        import webbrowser

        webbrowser.open(session.server_url)
