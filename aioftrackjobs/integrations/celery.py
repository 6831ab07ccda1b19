"""Celery: a base class whose tasks run as Jobs, in prefork workers too. See docs/engines.md."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import anyio

from aioftrackjobs.background import SafeLogger
from aioftrackjobs.blocking import RunningJob, Session, default_session, job_context
from aioftrackjobs.blocking._loop import call
from aioftrackjobs.errors import FtrackJobsError, MissingExtraError
from aioftrackjobs.jobs.ending import describe_failure
from aioftrackjobs.jobs.keys import JobKey, job_key
from aioftrackjobs.models import JobStatus
from aioftrackjobs.session import AsyncSession
from aioftrackjobs.transport import client  # noqa: F401 - once, before a worker forks

try:
    from billiard.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded, WorkerLostError
    from celery import Task, current_app, signals
    from celery.exceptions import Ignore, Reject, Retry
    from kombu.utils.uuid import uuid
except ImportError as _error:
    raise MissingExtraError("celery", "celery") from _error

logger: SafeLogger = SafeLogger(__name__)

#: Seconds that a producer waits for ftrack; otherwise the worker of its task creates the Job.
_QUEUEING = 5.0

#: Seconds by which a worker's timer for the hard time limit may be ahead of the task.
_TIMER = 1.0

#: The exit codes of a child by a signal, as its pool makes them.
_TERMINATED = range(-255, -190)


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

    def _values(self, args: Iterable[Any] | None, kwargs: dict[str, Any] | None) -> dict[str, Any]:
        text = self.ftrack_job or self.name
        with suppress(LookupError, ValueError, AttributeError, TypeError):
            text = text.format(*(args or ()), **(kwargs or {}))
        return {"description": text, "user": self.ftrack_user}

    def apply_async(  # noqa: D102
        self, args: Any = None, kwargs: Any = None, task_id: str | None = None, **options: Any
    ) -> Any:
        task_id = task_id or uuid()
        if self.ftrack_job is not None and not options.get("retries"):
            key, values = self.ftrack_key(task_id), self._values(args, kwargs)
            try:
                call(_queue, _session(self)._target(), key, values)
            except FtrackJobsError as exc:
                logger.warning("task %s is sent without a Job: %s", task_id, exc)
        return super().apply_async(args, kwargs, task_id, **options)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: D102
        if self.request.called_directly:
            return super().__call__(*args, **kwargs)
        key, values = self.ftrack_key(self.request.id), self._values(args, kwargs)
        begun_at = time.monotonic()
        with job_context(_session(self), job=key, **values) as job:
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
            most = "" if self.max_retries is None else f" of {self.max_retries + 1}"
            why = f", after {describe_failure(error.exc)}" if error.exc else ""
            job.requeue(f"attempt {self.request.retries + 2}{most}{_delay(error.when)}{why}")
        elif isinstance(error, Reject) and error.requeue:
            job.requeue("rejected, to be delivered again")
        elif isinstance(error, SoftTimeLimitExceeded):
            job.fail(f"timed out after {self._limits()[1]} s")
        elif isinstance(error, SystemExit) and error.code in _TERMINATED:
            limit = self._limits()[0]
            is_late = limit is not None and seconds > limit - _TIMER
            job.fail(f"timed out after {limit} s" if is_late else "terminated")

    def _limits(self) -> tuple[float | None, float | None]:
        hard, soft = self.request.timelimit or (None, None)
        hard = hard or self.time_limit or self.app.conf.task_time_limit
        return hard, soft or self.soft_time_limit or self.app.conf.task_soft_time_limit


async def _queue(session: AsyncSession, key: JobKey, values: dict[str, Any]) -> None:
    with anyio.move_on_after(_QUEUEING):
        await session.queue_job(key, **values)


def _delay(when: datetime | float | None) -> str:
    if isinstance(when, datetime):
        when = (when.astimezone(UTC) - datetime.now(UTC)).total_seconds()
    return "" if when is None else f" in {max(when, 0):.0f} s"


def _session(task: FtrackTask) -> Session:
    return task.ftrack_session or default_session()


@signals.worker_process_init.connect
def _open(**_: Any) -> None:
    """Open the sessions of a child after the fork: they deliver what dead ones have left.

    In a thread: Celery kills a child that is not ready within four seconds.
    """
    for session in _sessions():
        threading.Thread(target=session.open, name="aioftrackjobs open", daemon=True).start()


@signals.worker_process_shutdown.connect
def _close(**_: Any) -> None:
    for session in _sessions():
        session.close()


def _sessions() -> set[Session]:
    return {_session(each) for each in current_app.tasks.values() if isinstance(each, FtrackTask)}


@signals.task_revoked.connect
def _end_revoked(sender: Any, request: Any, **how: Any) -> None:
    reason = "terminated" if how["terminated"] else "expired" if how["expired"] else "revoked"
    _end(sender, request.id, reason)


@signals.task_failure.connect
def _end_lost(sender: Any, task_id: str, exception: BaseException, **_: Any) -> None:
    if isinstance(exception, TimeLimitExceeded):
        _end(sender, task_id, f"timed out after {exception.args[0]} s")
    elif isinstance(exception, WorkerLostError):
        _end(sender, task_id, "its worker process was lost")


def _end(task: Any, task_id: str, reason: str) -> None:
    """Fail the Job of a task whose process cannot: in a thread, as the worker must go on."""

    def end() -> None:
        session, key = _session(task), task.ftrack_key(task_id)
        try:
            job = session.get("Job", str(key))
            if job is not None and job["status"] in (JobStatus.QUEUED, JobStatus.RUNNING):
                with job_context(session, job=key, stop_on="never") as running:
                    running.fail(reason)
        except FtrackJobsError as exc:
            logger.warning("the Job of task %s (%s) is left to recover: %s", task_id, reason, exc)

    if isinstance(task, FtrackTask):
        threading.Thread(target=end, name="aioftrackjobs celery").start()
