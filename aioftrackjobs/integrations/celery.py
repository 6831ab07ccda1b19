"""Celery: a base class whose tasks run as Jobs, in prefork workers too. See docs/engines.md."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any, ClassVar

from aioftrackjobs.blocking import RunningJob, Session, default_session, job_context
from aioftrackjobs.blocking._loop import call
from aioftrackjobs.blocking._proxies import target_of
from aioftrackjobs.errors import MissingExtraError
from aioftrackjobs.integrations._tasks import next_attempt, queue_sent, values_of
from aioftrackjobs.jobs.keys import JobKey, job_key
from aioftrackjobs.transport import client  # noqa: F401 - once, before a worker forks

try:
    from billiard.exceptions import SoftTimeLimitExceeded
    from celery import Task
    from celery.exceptions import Ignore, Reject, Retry
    from kombu.utils.uuid import uuid

    from aioftrackjobs.integrations._celery_worker import TERMINATED, TIMER, limits_of
except ImportError as _error:
    raise MissingExtraError("celery", "celery") from _error


class FtrackTask(Task):  # type: ignore[misc]  # Celery has no types
    """A task that runs as a Job: ``@app.task(base=FtrackTask)``, or ``task_cls`` of ``Celery``.

    These are options of ``app.task``, too; a class derived from this one sets them for all tasks.

    Attributes:
        ftrack_job: The text of the Job, with arguments as ``{shot}``: it is created as queued when
            the task is sent. If None, it is created when the task begins, with the task's name.
        ftrack_user: Name of the user that sees the Job; that of the session if None.
        ftrack_session: The session; that of the environment if None.
        ftrack_queue: Names the broker if several have tasks with the same ids.
        redelivered_within: For how long the broker may deliver a task again whose worker was
            killed, in seconds or as a timedelta: see :func:`job_key`.
    """

    abstract = True
    ftrack_job: ClassVar[str | None] = None
    ftrack_user: ClassVar[str | None] = None
    ftrack_session: ClassVar[Session | None] = None
    ftrack_queue: ClassVar[str] = "celery"
    redelivered_within: ClassVar[timedelta | float | None] = None

    def ftrack_key(self, task_id: str) -> JobKey:
        """Return the key of the Job of a task."""
        within = self.redelivered_within
        return job_key("celery", self.ftrack_queue, task_id, redelivered_within=within)

    def _job_of(self, task_id: str, args: Any, kwargs: Any) -> tuple[Session, JobKey, Any]:
        values = values_of(self.ftrack_job or self.name, self.ftrack_user, args, kwargs)
        return self.ftrack_session or default_session(), self.ftrack_key(task_id), values

    def apply_async(  # noqa: D102
        self, args: Any = None, kwargs: Any = None, task_id: str | None = None, **options: Any
    ) -> Any:
        task_id = task_id or uuid()
        if self.ftrack_job is not None and not options.get("retries"):
            session, key, values = self._job_of(task_id, args, kwargs)
            call(queue_sent, target_of(session), key, values)
        return super().apply_async(args, kwargs, task_id, **options)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: D102
        if self.request.called_directly:
            return super().__call__(*args, **kwargs)
        begun_at = time.monotonic()
        session, key, values = self._job_of(self.request.id, args, kwargs)
        with job_context(session, job=key, **values) as job:
            try:
                return self.run(*args, **kwargs)
            except Ignore as exc:
                ignored = exc
            except BaseException as exc:
                self._decide(job, exc, time.monotonic() - begun_at)
                raise
        raise ignored

    def _decide(self, job: RunningJob, error: BaseException, seconds: float) -> None:
        """Decide how the Job ends, as Celery decides it for its task."""
        if isinstance(error, Retry):
            number, most = self.request.retries + 2, self.max_retries
            job.requeue(next_attempt(number, retries=most, at=error.when, after=error.exc))
        elif isinstance(error, Reject) and error.requeue:
            job.requeue("rejected, to be delivered again")
        elif isinstance(error, SoftTimeLimitExceeded):
            job.fail(f"timed out after {limits_of(self)[1]} s")
        elif isinstance(error, SystemExit) and error.code in TERMINATED:
            limit = limits_of(self)[0]
            is_late = limit is not None and seconds > limit - TIMER
            job.fail(f"timed out after {limit} s" if is_late else "terminated")
