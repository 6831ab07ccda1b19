"""procrastinate: a worker middleware that makes each of its jobs an ftrack Job.

::

    async with AsyncSession() as session, app.open_async():
        await app.run_worker_async(worker_middleware=[ftrack_jobs(session)])
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from aioftrackjobs.errors import MissingExtraError
from aioftrackjobs.integrations._tasks import next_attempt
from aioftrackjobs.jobs.keys import JobKey, job_key
from aioftrackjobs.running.running_job import RunningJob, job_context
from aioftrackjobs.session import AsyncSession

try:
    from procrastinate import JobContext, RetryStrategy
    from procrastinate.exceptions import JobAborted
    from procrastinate.job_context import AbortReason
    from procrastinate.jobs import Job
    from procrastinate.middleware import AsyncCallNext, WorkerMiddleware
    from procrastinate.retry import RetryDecision
    from procrastinate.worker import Worker
except ImportError as _error:
    raise MissingExtraError("procrastinate", "procrastinate") from _error


def task_key(
    job_id: int,
    *,
    database: str = "procrastinate",
    redelivered_within: timedelta | float | None = None,
) -> JobKey:
    """Return the key of the ftrack Job of one job of procrastinate: see :func:`ftrack_jobs`."""
    return job_key("procrastinate", database, job_id, redelivered_within=redelivered_within)


def ftrack_jobs(
    session: AsyncSession | Callable[[], AsyncSession],
    *,
    database: str = "procrastinate",
    description: Callable[[Job], str] | None = None,
    user: Callable[[Job], str | None] | None = None,
    redelivered_within: timedelta | float | None = None,
) -> WorkerMiddleware:
    """Return a worker middleware that runs each job as an ftrack Job.

    The task, which may be a plain function, finds it with :func:`current_job`. It is queued again
    if procrastinate tries the job again, and says why it was aborted.

    Args:
        session: An open session, or a function that returns it.
        database: Names the database of procrastinate, which numbers its jobs from 1 on.
        description: Returns the text of a new Job; the name of the task if None.
        user: Returns the user of a new Job, as an id or name; None for that of the session.
        redelivered_within: For how long a job whose worker was killed may be tried again, in
            seconds or as a timedelta: see :func:`job_key`.
    """

    async def run(call_next: AsyncCallNext, context: JobContext, _: Worker) -> Any:
        job = context.job
        key = task_key(job.id or 0, database=database, redelivered_within=redelivered_within)
        text = job.task_name if description is None else description(job)
        owner = None if user is None else user(job)
        async with job_context(session, job=key, user=owner, description=text) as running:
            try:
                return await call_next()
            except BaseException as error:
                _decide(running, context, error)
                raise

    return run


def _decide(running: RunningJob, context: JobContext, error: BaseException) -> None:
    """Decide how the Job ends, as the worker decides it for its job."""
    if running.stop_requested:
        return
    stops = context.abort_reason() is AbortReason.SHUTDOWN
    if stops or not isinstance(error, JobAborted):
        retry = context.task.get_retry_exception(exception=error, job=context.job)
        if retry is not None:
            running.requeue(_next_attempt(context, retry.retry_decision, error))
            return
    if isinstance(error, (JobAborted, asyncio.CancelledError)) and context.should_abort():
        running.fail("its worker was stopped" if stops else "aborted")


def _next_attempt(context: JobContext, decision: RetryDecision, error: BaseException) -> str:
    strategy, number = context.task.retry_strategy, context.job.attempts + 2
    most = strategy.max_attempts if isinstance(strategy, RetryStrategy) else None
    return next_attempt(number, retries=most or None, at=decision.retry_at, after=error)
