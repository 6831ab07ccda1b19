"""taskiq: a dependency that is the running Job of a task. See docs/engines.md."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from typing import Annotated, Any, TypeAlias

import anyio

from aioftrackjobs.background import SafeLogger
from aioftrackjobs.errors import FtrackJobsError, MissingExtraError
from aioftrackjobs.jobs.ending import describe_failure
from aioftrackjobs.jobs.keys import JobKey, job_key
from aioftrackjobs.running.running_job import RunningJob, job_context
from aioftrackjobs.session import AsyncSession

try:
    from taskiq import (
        Context,
        SimpleRetryMiddleware,
        SmartRetryMiddleware,
        TaskiqDepends,
        TaskiqMessage,
        TaskiqMiddleware,
    )
    from taskiq.exceptions import NoResultError
except ImportError as _error:
    raise MissingExtraError("taskiq", "taskiq") from _error

logger: SafeLogger = SafeLogger(__name__)

#: Seconds that a producer waits for ftrack; otherwise the worker of its task creates the Job.
_QUEUEING = 5.0

#: The label in which taskiq counts ``context.requeue()``.
_REQUEUES = "X-Taskiq-requeue"


class FtrackJobs(TaskiqMiddleware):
    """Opens a session with the broker, and queues the Jobs of tasks that are sent.

    The label ``ftrack_job`` of a task is the text of its Job, with arguments as ``{shot}``: it has
    one from when it is sent. ``ftrack_user`` names the user.

    Args:
        session: A new session, which the broker opens at its start-up, and closes in the end.
        queue: Names the broker if several have tasks with the same ids.
        redelivered_within: For how long the broker may deliver a task again whose worker was
            killed or stopped, in seconds or as a timedelta: see :func:`job_key`.
    """

    def __init__(
        self,
        session: AsyncSession,
        *,
        queue: str = "taskiq",
        redelivered_within: timedelta | float | None = None,
    ) -> None:
        super().__init__()
        self.session: AsyncSession = session
        self.queue: str = queue
        self.within: timedelta | float | None = redelivered_within
        self.running: dict[RunningJob, None] = {}

    def key(self, task_id: str) -> JobKey:
        """Return the key of the Job of a task."""
        return job_key("taskiq", self.queue, task_id, redelivered_within=self.within)

    async def startup(self) -> None:  # noqa: D102
        await self.session.open()

    async def shutdown(self) -> None:  # noqa: D102
        for job in self.running:  # closing the session ends them
            (job.fail if self.within is None else job.requeue)("its worker was stopped")
        await self.session.aclose()

    async def pre_send(self, message: TaskiqMessage) -> TaskiqMessage:  # noqa: D102
        if "ftrack_job" in message.labels and "_retries" not in message.labels:
            with anyio.move_on_after(_QUEUEING):
                try:
                    await self.session.queue_job(self.key(message.task_id), **_values(message))
                except FtrackJobsError as exc:
                    logger.warning("task %s is sent without a Job: %s", message.task_id, exc)
        return message


async def running_job(context: Annotated[Context, TaskiqDepends()]) -> AsyncIterator[RunningJob]:
    """Run a task as its Job; the broker has :class:`FtrackJobs` as a middleware."""
    message, has_begun = context.message, False
    before = message.labels.get(_REQUEUES)
    jobs = next(each for each in context.broker.middlewares if isinstance(each, FtrackJobs))
    key, values = jobs.key(message.task_id), _values(message)
    try:
        async with job_context(jobs.session, job=key, **values) as job:
            has_begun, jobs.running[job] = True, None
            try:
                yield job
            except NoResultError:  # it is to have no result, or has requeued itself
                if message.labels.get(_REQUEUES) != before:
                    job.requeue()
            except BaseException as error:
                _decide(job, context, error)
                raise
            finally:
                del jobs.running[job]
    except FtrackJobsError as exc:
        if not has_begun:
            raise
        logger.info("%r: %s", job, exc)  # the result of the task has its own error


#: The annotation of a task's parameter that is its running Job.
FtrackJob: TypeAlias = Annotated[RunningJob, TaskiqDepends(running_job)]


def _values(message: TaskiqMessage) -> dict[str, Any]:
    text = str(message.labels.get("ftrack_job", message.task_name))
    with suppress(LookupError, ValueError, AttributeError, TypeError):
        text = text.format(*message.args, **message.kwargs)
    return {"description": text, "user": message.labels.get("ftrack_user")}


def _decide(job: RunningJob, context: Context, error: BaseException) -> None:
    """Decide how a Job ends, as the middlewares decide whether its task is tried again."""
    labels, why = context.message.labels, describe_failure(error)
    if isinstance(error, TimeoutError) and (timeout := labels.get("timeout")) is not None:
        why = f"timed out after {float(timeout):g} s"
    for each in context.broker.middlewares:
        if isinstance(each, (SimpleRetryMiddleware, SmartRetryMiddleware)):
            kinds = each._get_types_of_exceptions(context.message)
            tries = str(labels.get("retry_on_error", each.default_retry_label)).lower() == "true"
            attempt = int(labels.get("_retries", 0)) + 2
            most = int(labels.get("max_retries", each.default_retry_count))
            if tries and attempt <= most and (kinds is None or isinstance(error, tuple(kinds))):
                job.requeue(f"attempt {attempt} of {most}, after {why}")
    if why.startswith("timed out"):
        job.fail(why)
