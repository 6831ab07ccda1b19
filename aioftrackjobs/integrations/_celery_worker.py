"""What a worker of Celery does beside its tasks: sessions after a fork, and Jobs of lost tasks.

What a process cannot report that was killed, the main process of the worker reports.
"""

from __future__ import annotations

import threading
from typing import Any

from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery import current_app, signals

from aioftrackjobs.blocking import Session, default_session
from aioftrackjobs.blocking._loop import call
from aioftrackjobs.blocking._proxies import target_of
from aioftrackjobs.integrations._tasks import fail_lost

#: Seconds by which a worker's timer for the hard time limit may be ahead of the task.
TIMER = 1.0

#: The exit codes of a child by a signal, as its pool makes them.
TERMINATED = range(-255, -190)


def _session_of(task: Any) -> Session | None:
    """Return the session of a task; None if it has no Job."""
    if not hasattr(task, "ftrack_session"):
        return None
    return task.ftrack_session or default_session()


def limits_of(task: Any) -> tuple[float | None, float | None]:
    """Return the hard and the soft time limit of a running task, in seconds."""
    hard, soft = task.request.timelimit or (None, None)
    hard = hard or task.time_limit or task.app.conf.task_time_limit
    return hard, soft or task.soft_time_limit or task.app.conf.task_soft_time_limit


def _sessions() -> set[Session]:
    return {each for each in map(_session_of, current_app.tasks.values()) if each is not None}


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
    """Fail the Job of a task in a thread, as the worker must go on."""

    def end() -> None:
        call(fail_lost, target_of(_session_of(task)), task.ftrack_key(task_id), reason)

    if _session_of(task) is not None:
        threading.Thread(target=end, name="aioftrackjobs celery").start()
