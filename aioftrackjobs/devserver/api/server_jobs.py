"""Jobs that the server itself runs: queued by a request, then run in the background.

Each ends as done or failed, also when the server stops (docs/protocol.md, section 2.6).
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

#: Key in a Job's data that distinguishes the server's own Jobs from those of clients.
_MARK = "worked_on_by_server"
_UNDER_WAY = ("queued", "running")

#: Writes the result, in the transaction that marks the Job done.
WriteResult: TypeAlias = Callable[[Batch], None]


class WorkFailedError(Exception):
    """The work cannot be done; the text is for the user of the Job."""


class JobRun:
    """One Job while it runs.

    Attributes:
        after_commit: Functions to call once the Job is done; they must not fail.
        rollback: Undoes side effects unless the Job gets done.
    """

    def __init__(self, services: Services, stopping: threading.Event, rollback: ExitStack) -> None:
        self.services = services
        self.rollback = rollback
        self.after_commit: list[Callable[[], object]] = []
        self._stopping = stopping

    def check_stop(self) -> None:
        """Check whether the server is stopping; long work calls this between steps.

        Raises:
            WorkFailedError: If it is stopping.
        """
        if self._stopping.is_set():
            raise WorkFailedError("The server was stopped.")


#: Does the work, and returns the function that writes its result.
Task: TypeAlias = Callable[[JobRun], WriteResult]


def queue_job(request: ApiRequest, job_id: str, data: Mapping[str, Any], task: Task) -> Any:
    """Create a Job of the acting user, run *task* after the commit, and return the Job."""
    if "Job" not in request.services.model.types:
        raise UnsupportedOperationError("The served schemas have no Job.")
    text = to_json({**data, _MARK: True}).decode()
    values: dict[str, Any] = {"id": job_id, "data": text}
    if request.user is not None:
        values["user_id"] = request.user["id"]
    entity = request.batch.create({"entity_type": "Job", "entity_data": values})
    services, username = request.services, request.caller.username

    def work(stopping: threading.Event) -> None:
        _JobRunner(services, username, job_id, text).run(task, stopping)

    request.after_commit.append(lambda: services.background.start(work))
    return entity


def fail_abandoned(services: Services, username: str) -> None:
    """Mark the Jobs failed that a killed server left running."""
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
    """Return a Job's data with the reason of its failure; data that is not JSON is replaced."""
    try:
        data = from_json(text)
    except ValueError:
        data = None
    known = data if isinstance(data, dict) else {}
    return to_json({**known, "error": reason}).decode()


class _JobRunner:
    """Runs one Job to its end."""

    def __init__(self, services: Services, username: str, job_id: str, data: str) -> None:
        self._services = services
        self._username = username
        self._job_id = job_id
        self._data = data

    def run(self, task: Task, stopping: threading.Event) -> None:
        """Run *task* and write the Job's final status, unless the Job was deleted meanwhile."""
        try:
            with ExitStack() as rollback:
                self._do(task, JobRun(self._services, stopping, rollback))
        except EntityNotFoundError:
            logger.debug("job %s was deleted while it ran", self._job_id)
        except (WorkFailedError, ApiError) as error:
            self._fail(str(error))
        except Exception as error:
            logger.exception("job %s failed", self._job_id)
            self._fail(f"{type(error).__name__}: {error}")

    def _do(self, task: Task, run: JobRun) -> None:
        run.check_stop()
        self._write("running")
        write_result = task(run)
        self._write("done", write_result)
        run.rollback.pop_all()
        for action in run.after_commit:
            action()

    def _fail(self, reason: str) -> None:
        try:
            self._write("failed", error=reason)
        except EntityNotFoundError:
            logger.debug("job %s was deleted before it failed", self._job_id)

    def _write(
        self, status: str, write_result: WriteResult | None = None, error: str | None = None
    ) -> None:
        values: dict[str, Any] = {"status": status}
        if error is not None:
            values["data"] = _with_error(self._data, error)
        with self._services.store.transaction() as transaction:
            batch = self._services.batch(transaction, self._username)
            if write_result is not None:
                write_result(batch)
            batch.update(
                {"entity_type": "Job", "entity_key": [self._job_id], "entity_data": values}
            )
            batch.finish()
