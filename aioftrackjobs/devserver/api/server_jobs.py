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

logger: logging.Logger = logging.getLogger(__name__)

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

    def __init__(
        self, services: Services, username: str, job_id: str, data: str, stopping: threading.Event
    ) -> None:
        self.services = services
        self.rollback: ExitStack = ExitStack()
        self.after_commit: list[Callable[[], object]] = []
        self._username = username
        self._job_id = job_id
        self._data = data
        self._stopping = stopping

    def check_stop(self) -> None:
        """Check whether the server is stopping; long work calls this between steps."""
        if self._stopping.is_set():
            raise WorkFailedError("The server was stopped.")

    def run(self, task: Task) -> None:
        """Run *task* and write the Job's final status, unless the Job was deleted meanwhile."""
        try:
            reason = self._failure(task)
            if reason is not None:
                self._write("failed", error=reason)
        except EntityNotFoundError:
            logger.debug("job %s was deleted while it ran", self._job_id)

    def _failure(self, task: Task) -> str | None:
        """Do the work, and return why it has failed; None if it has not."""
        try:
            with self.rollback:
                self.check_stop()
                self._write("running")
                self._write("done", task(self))
                self.rollback.pop_all()
            for action in self.after_commit:
                action()
        except EntityNotFoundError:
            raise
        except (WorkFailedError, ApiError) as error:
            return str(error)
        except Exception as error:
            logger.exception("job %s failed", self._job_id)
            return f"{type(error).__name__}: {error}"
        return None

    def _write(
        self, status: str, write_result: WriteResult | None = None, error: str | None = None
    ) -> None:
        values: dict[str, Any] = {"status": status}
        if error is not None:
            values["data"] = _with_error(self._data, error)
        with self.services.store.transaction() as transaction:
            batch = self.services.batch(transaction, self._username)
            if write_result is not None:
                write_result(batch)
            batch.set("Job", self._job_id, values)
            batch.finish()


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
    entity = request.batch.add("Job", values)
    services, username = request.services, request.caller.username

    def work(stopping: threading.Event) -> None:
        JobRun(services, username, job_id, text, stopping).run(task)

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
            batch.set("Job", row.id, values)


def _with_error(text: str, reason: str) -> str:
    """Return a Job's data with the reason of its failure; data that is not JSON is replaced."""
    try:
        data = from_json(text)
    except ValueError:
        data = None
    known = data if isinstance(data, dict) else {}
    return to_json({**known, "error": reason}).decode()
