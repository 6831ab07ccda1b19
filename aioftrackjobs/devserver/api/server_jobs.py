"""Jobs that the server itself works on: queued in the request, then run in the background.

Each ends as done or failed, also when the server stops (protocol reference, section 2.6).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, TypeAlias

import sqlalchemy as sa
from pydantic_core import from_json, to_json

from aioftrackjobs.devserver.api.request import ApiRequest, Services
from aioftrackjobs.devserver.api_errors import (
    ApiError,
    EntityNotFoundError,
    UnsupportedOperationError,
)
from aioftrackjobs.devserver.mutations.batch import Batch

logger = logging.getLogger(__name__)

#: Key in a Job's data by which a server knows those it works on from those of clients.
_MARK = "worked_on_by_server"
_UNDER_WAY = ("queued", "running")

#: Writes the outcome, in the transaction that says that the Job is done.
Outcome: TypeAlias = Callable[[Batch], None]


class WorkFailedError(Exception):
    """The work cannot be done; the text is for the user whose Job it is."""


class Attempt:
    """One Job while it is worked on.

    Attributes:
        afterwards: What to do once the Job is done; it must not fail.
        undone: What to take back unless the Job gets done.
    """

    def __init__(self, services: Services, stopping: threading.Event, undone: ExitStack) -> None:
        self.services = services
        self.undone = undone
        self.afterwards: list[Callable[[], object]] = []
        self._stopping = stopping

    def check_stop(self) -> None:
        """Give up if the server is stopping; long work calls this now and then.

        Raises:
            WorkFailedError: If it is.
        """
        if self._stopping.is_set():
            raise WorkFailedError("The server was stopped.")


#: Does the work, and returns how to write down what came of it.
Task: TypeAlias = Callable[[Attempt], Outcome]


def queue_job(request: ApiRequest, job_id: str, data: Mapping[str, Any], task: Task) -> Any:
    """Create the Job of the acting user, have *task* done when it is saved, and return it."""
    if "Job" not in request.services.model.types:
        raise UnsupportedOperationError("The served schemas have no Job.")
    text = to_json({**data, _MARK: True}).decode()
    values: dict[str, Any] = {"id": job_id, "data": text}
    if request.user is not None:
        values["user_id"] = request.user["id"]
    entity = request.batch.create({"entity_type": "Job", "entity_data": values})
    services, username = request.services, request.caller.username

    def work(stopping: threading.Event) -> None:
        _Run(services, username, job_id, text).run(task, stopping)

    request.afterwards.append(lambda: services.background.start(work))
    return entity


def fail_abandoned(services: Services, username: str) -> None:
    """Fail the Jobs that a server was working on which did not live to do so itself."""
    job = services.model.types.get("Job")
    if job is None or not {"id", "status", "data"} <= job.attributes.keys():
        return
    with services.store.transaction() as transaction:
        columns = transaction.tables[job.root].c
        marked = columns.data.contains(f'"{_MARK}":true', autoescape=True)
        statement = sa.select(columns.id, columns.data).where(
            columns.status.in_(_UNDER_WAY), marked
        )
        batch = services.batch(transaction, username)
        for row in transaction.fetch(statement):
            values = {"status": "failed", "data": _with_error(row.data, "The server was killed.")}
            batch.update({"entity_type": "Job", "entity_key": [row.id], "entity_data": values})


def _with_error(text: str, reason: str) -> str:
    """Return a Job's data with the reason of its failure, for what it is worth if it is broken."""
    try:
        data = from_json(text)
    except ValueError:
        data = None
    known = data if isinstance(data, dict) else {}
    return to_json({**known, "error": reason}).decode()


class _Run:
    """One Job from running to its end."""

    def __init__(self, services: Services, username: str, job_id: str, data: str) -> None:
        self._services = services
        self._username = username
        self._job_id = job_id
        self._data = data

    def run(self, task: Task, stopping: threading.Event) -> None:
        """Do *task* and say how it ended; a Job that was deleted meanwhile is let go."""
        try:
            with ExitStack() as undone:
                self._do(task, Attempt(self._services, stopping, undone))
        except EntityNotFoundError:
            logger.debug("job %s was deleted while it ran", self._job_id)
        except (WorkFailedError, ApiError) as error:
            self._fail(str(error))
        except Exception as error:
            logger.exception("job %s failed", self._job_id)
            self._fail(f"{type(error).__name__}: {error}")

    def _do(self, task: Task, attempt: Attempt) -> None:
        attempt.check_stop()
        self._write("running")
        outcome = task(attempt)
        self._write("done", outcome)
        attempt.undone.pop_all()
        for action in attempt.afterwards:
            action()

    def _fail(self, reason: str) -> None:
        try:
            self._write("failed", error=reason)
        except EntityNotFoundError:
            logger.debug("job %s was deleted before it failed", self._job_id)

    def _write(self, status: str, outcome: Outcome | None = None, error: str | None = None) -> None:
        values: dict[str, Any] = {"status": status}
        if error is not None:
            values["data"] = _with_error(self._data, error)
        with self._services.store.transaction() as transaction:
            batch = self._services.batch(transaction, self._username)
            if outcome is not None:
                outcome(batch)
            batch.update(
                {"entity_type": "Job", "entity_key": [self._job_id], "entity_data": values}
            )
            batch.finish()
