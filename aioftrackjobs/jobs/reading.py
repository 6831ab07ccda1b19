"""JobReader: reads what the server has of Jobs that run here, for many of them in one query.

``data`` of a Job is one text that is written as a whole, and other clients write it, too. So each
write is preceded by a read, and keeps what they have written: :mod:`aioftrackjobs.jobs.writing`.

The same rows show that a Job was stopped, or deleted, by another client.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any, Protocol

import anyio
import anyio.lowlevel

from aioftrackjobs.background import SafeLogger
from aioftrackjobs.commit.request import Manner
from aioftrackjobs.entities.context import EntityContext
from aioftrackjobs.errors import FtrackJobsError, MalformedResponseError, TransportError
from aioftrackjobs.models import Job, remote_value
from aioftrackjobs.protocol.query import PAGE_SIZE, key_criteria, select

logger = SafeLogger(__name__)

#: What is read of a Job.
_ATTRIBUTES = ("id", "status", "data")


class ReadableJob(Protocol):
    """A Job that runs here."""

    @property
    def entity(self) -> Job:
        """The Job itself."""
        ...

    def note_read(self, row: Mapping[str, Any] | None) -> None:
        """Take note of the *row* that the server has for the Job; None if it has none."""
        ...


class _Round:
    """Jobs that are read in one query.

    Attributes:
        jobs: The Jobs.
        ended: Set when they were read, or could not be read.
        error: Why they could not be read.
        waiting: How many tasks wait for it; when none does, it ends.
    """

    def __init__(self) -> None:
        self.jobs: list[ReadableJob] = []
        self.ended = anyio.Event()
        self.error: FtrackJobsError | None = TransportError("the read was interrupted")
        self.waiting = 0
        self.scope = anyio.CancelScope()


class JobReader:
    """Reads Jobs, and updates their entities.

    Args:
        entities: The entities of the session.
    """

    def __init__(self, entities: EntityContext) -> None:
        self._entities = entities
        self._connection = entities.connection
        self._gathering: _Round | None = None
        self._in_progress: _Round | None = None

    async def read(
        self, jobs: Sequence[ReadableJob], *, needs_new_connection: bool = False
    ) -> None:
        """Read *jobs* now, in one query for each 500; nothing else of the session holds it up.

        Args:
            jobs: Jobs that run here.
            needs_new_connection: Use no connection that was used before.

        Raises:
            ServerError: The server refused the query.
            TransportError: No complete response arrived.
        """
        for start in range(0, len(jobs), PAGE_SIZE):
            await self._read(
                jobs[start : start + PAGE_SIZE],
                {"is_urgent": True, "needs_new_connection": needs_new_connection},
            )

    async def read_with_others(self, job: ReadableJob) -> None:
        """Read *job* together with others whose turn comes now, as when many Jobs end at once.

        While one query is in progress, the Jobs for the next one gather, but not for long.

        Raises:
            FtrackJobsError: As :meth:`read`.
        """
        if self._gathering is None:
            self._connection.background.spawn(self._run, round_ := _Round())
            self._gathering = round_
        round_ = self._gathering
        round_.jobs.append(job)
        round_.waiting += 1
        try:
            await round_.ended.wait()
        finally:
            round_.waiting -= 1
            if not round_.waiting:
                if self._gathering is round_:
                    self._gathering = None
                round_.scope.cancel()
        if round_.error is not None:
            raise copy(round_.error) from round_.error  # others raise it, too

    async def _run(self, round_: _Round) -> None:
        timings = self._connection.timings
        try:
            with round_.scope:
                if self._in_progress is not None:
                    with anyio.move_on_after(timings.max_hold):
                        await self._in_progress.ended.wait()
                # One response wakes many tasks.
                await self._connection.background.wait_turns(timings.batching_turns)
                self._gathering, self._in_progress = None, round_
                await self.read(round_.jobs)
                round_.error = None
        except FtrackJobsError as exc:
            round_.error = exc
        finally:
            if self._gathering is round_:
                self._gathering = None
            if self._in_progress is round_:
                self._in_progress = None
            round_.ended.set()

    async def _read(self, jobs: Sequence[ReadableJob], manner: Manner) -> None:
        references = [job.entity.__ftrack_reference__() for job in jobs]
        query = {
            "action": "query",
            "expression": select(_ATTRIBUTES, "Job", key_criteria(references)),
        }
        with self._entities.reads.reading() as number:
            (result,) = await self._connection.call([query], **manner)
            rows = _rows_by_id(result)
            changed = [row for job in jobs if (row := _changed_row(job.entity, rows)) is not None]
            if changed:  # few: decoding takes far longer than comparing
                await self._decode(changed, number)
        for job in jobs:
            try:
                job.note_read(rows.get(job.entity.id))
            except Exception:  # others may have written anything, which must not end other work
                logger.warning("%r: what others have written is odd", job, exc_info=True)

    async def _decode(self, rows: Sequence[Mapping[str, Any]], number: int) -> None:
        try:
            await self._entities.decode(rows, number)
        except FtrackJobsError:
            raise
        except Exception as exc:  # a row may have anything in it
            problem = f"a row is malformed: {type(exc).__name__}"
            raise MalformedResponseError(problem, status=200) from exc


def _rows_by_id(result: object) -> dict[str, Mapping[str, Any]]:
    match result:
        case {"data": list() as rows}:
            return {
                row["id"]: row
                for row in rows
                if isinstance(row, dict) and isinstance(row.get("id"), str)
            }
        case _:
            raise MalformedResponseError("a query's result has no list of data", status=200)


def _changed_row(job: Job, rows: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the row of *job* if the server has other values than are known here."""
    row = rows.get(job.id)
    if row is None:
        return None
    is_same_data = remote_value(job, "data") == row.get("data")
    return None if is_same_data and remote_value(job, "status") == row.get("status") else row
