"""What integrations of engines have in common: Jobs of tasks that are sent or lost, and texts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import anyio

from aioftrackjobs.background import SafeLogger
from aioftrackjobs.errors import FtrackJobsError
from aioftrackjobs.jobs.ending import describe_failure
from aioftrackjobs.jobs.keys import JobKey
from aioftrackjobs.models import Job, JobStatus
from aioftrackjobs.running.running_job import job_context
from aioftrackjobs.session import AsyncSession

logger: SafeLogger = SafeLogger(__name__)

#: Seconds that a producer waits for ftrack; otherwise the worker of its task creates the Job.
_QUEUEING = 5.0


async def queue_sent(session: AsyncSession, key: JobKey, values: Mapping[str, Any]) -> None:
    """Create the Job of a task that is being sent. If ftrack is away, its worker does so."""
    with anyio.move_on_after(_QUEUEING):
        try:
            await session.queue_job(key, **values)
        except FtrackJobsError as exc:
            logger.warning(
                "a task is sent without its Job %(job_id)s: %(error)s", job_id=key, error=exc
            )


def values_of(
    text: str, user: str | None, args: Iterable[Any] | None, kwargs: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return the description and the user of a Job; *text* may have arguments as ``{shot}``."""
    with suppress(LookupError, ValueError, AttributeError, TypeError):
        text = text.format(*(args or ()), **(kwargs or {}))
    return {"description": text, "user": user}


def next_attempt(
    number: int,
    *,
    retries: int | None = None,
    at: datetime | float | None = None,
    after: BaseException | str | None = None,
) -> str:
    """Return the text of a Job whose task is tried again: "attempt 2 of 4 in 3 s, after OSError".

    Args:
        number: Of the attempt that follows.
        retries: How many there are at most after the first one.
        at: When, or in how many seconds.
        after: Why the latest one has failed.
    """
    if isinstance(at, datetime):
        at = (at.astimezone(UTC) - datetime.now(UTC)).total_seconds()
    limit = "" if retries is None else f" of {retries + 1}"
    delay = "" if at is None else f" in {max(at, 0):.0f} s"
    why = describe_failure(after) if isinstance(after, BaseException) else after
    return f"attempt {number}{limit}{delay}" + (f", after {why}" if why else "")


async def fail_lost(session: AsyncSession, key: JobKey, reason: str) -> None:
    """Fail the Job of a task whose process cannot do it any more, unless the Job has ended."""
    try:
        job = await session.get(Job, key)
        if job is not None and job.status in (JobStatus.QUEUED, JobStatus.RUNNING):
            async with job_context(session, job=key, stop_on="never") as running:
                running.fail(reason)
    except FtrackJobsError as exc:
        logger.warning(
            "the Job %(job_id)s of a task (%(reason)s) is left to recover: %(error)s",
            job_id=key,
            reason=reason,
            error=exc,
        )
