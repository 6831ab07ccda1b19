"""taskiq: a dependency that is the running Job of a task. See docs/engines.md."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Annotated, TypeAlias

from aioftrackjobs.background import SafeLogger
from aioftrackjobs.errors import FtrackJobsError, MissingExtraError
from aioftrackjobs.integrations._tasks import queue_sent
from aioftrackjobs.jobs.keys import JobKey, job_key
from aioftrackjobs.running.running_job import RunningJob, job_context
from aioftrackjobs.session import AsyncSession

try:
    from taskiq import Context, TaskiqDepends, TaskiqMessage, TaskiqMiddleware
    from taskiq.exceptions import NoResultError

    from aioftrackjobs.integrations._taskiq_messages import decide_end, job_values
except ImportError as _error:
    raise MissingExtraError("taskiq", "taskiq") from _error

logger: SafeLogger = SafeLogger(__name__)

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
            await queue_sent(self.session, self.key(message.task_id), job_values(message))
        return message


async def running_job(context: Annotated[Context, TaskiqDepends()]) -> AsyncIterator[RunningJob]:
    """Run a task as its Job; the broker has :class:`FtrackJobs` as a middleware."""
    message, has_begun = context.message, False
    before = message.labels.get(_REQUEUES)
    jobs = next(each for each in context.broker.middlewares if isinstance(each, FtrackJobs))
    key, values = jobs.key(message.task_id), job_values(message)
    try:
        async with job_context(jobs.session, job=key, **values) as job:
            has_begun, jobs.running[job] = True, None
            try:
                yield job
            except NoResultError:  # it is to have no result, or has requeued itself
                if message.labels.get(_REQUEUES) != before:
                    job.requeue()
            except BaseException as error:
                decide_end(job, context, error)
                raise
            finally:
                del jobs.running[job]
    except FtrackJobsError as exc:
        if not has_begun:
            raise
        logger.info(
            "%(job)r: %(error)s", job=job, error=exc
        )  # the result of the task has its own error


#: The annotation of a task's parameter that is its running Job.
FtrackJob: TypeAlias = Annotated[RunningJob, TaskiqDepends(running_job)]
