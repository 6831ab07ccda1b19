"""JobReader: reads what the server has of Jobs that run here, for many of them in one query.

``data`` of a Job is one text that is written as a whole, and other clients write it, too. So each
write is preceded by a read, and keeps what they have written: :mod:`aioftrackjobs.jobs.writing`.

The same rows show that a Job was stopped, or deleted, by another client.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
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

logger: SafeLogger = SafeLogger(__name__)

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
        needs_new_connection: Whether the query takes no connection that was used before.
        ended: Set when they were read, or could not be read.
        error: Why they could not be read.
        waiting: How many tasks wait for it; when none does, it ends.
    """

    def __init__(self, *, needs_new_connection: bool) -> None:
        self.jobs: list[ReadableJob] = []
        self.needs_new_connection = needs_new_connection
        self.ended = anyio.Event()
        self.error: FtrackJobsError | None = TransportError("the read was interrupted")
        self.waiting = 0
        self.scope = anyio.CancelScope()


class JobReader:
    """Reads Jobs, and updates their entities.

    Args:
        entities: The entities of the session.

    Attributes:
        before_read: Awaited before each read; None as a rule. See
            :mod:`aioftrackjobs.jobs.blocked_loop`.
        blocks: How often the event loop was found to be blocked. A response that it has while it is
            blocked is old when the loop comes back.
    """

    def __init__(self, entities: EntityContext) -> None:
        self.before_read: Callable[[], Awaitable[None]] | None = None
        self.blocks = 0
        self._entities = entities
        self._connection = entities.connection
        # Those that need a new connection, and the others.
        self._gathering: dict[bool, _Round] = {}
        self._in_progress: dict[bool, _Round] = {}

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
                {
                    "is_urgent": True,
                    "needs_new_connection": needs_new_connection,
                    "is_dispensable": True,
                },
            )

    async def read_with_others(
        self, job: ReadableJob, *, needs_new_connection: bool = False
    ) -> None:
        """Read *job* together with others whose turn comes now, as when many Jobs end at once.

        While one query is in progress, the Jobs for the next one gather, but not for long.

        Args:
            job: A Job that runs here.
            needs_new_connection: Use no connection that was used before.

        Raises:
            FtrackJobsError: As :meth:`read`.
        """
        round_ = self._gathering.get(needs_new_connection)
        if round_ is None:
            round_ = _Round(needs_new_connection=needs_new_connection)
            self._connection.background.spawn(self._run, round_)
            self._gathering[needs_new_connection] = round_
        round_.jobs.append(job)
        round_.waiting += 1
        try:
            await round_.ended.wait()
        finally:
            round_.waiting -= 1
            if not round_.waiting:
                self._leave(round_, self._gathering)
                round_.scope.cancel()
        if round_.error is not None:
            raise copy(round_.error) from round_.error  # others raise it, too

    @staticmethod
    def _leave(round_: _Round, place: dict[bool, _Round]) -> None:
        if place.get(round_.needs_new_connection) is round_:
            del place[round_.needs_new_connection]

    async def _run(self, round_: _Round) -> None:
        timings, key = self._connection.timings, round_.needs_new_connection
        try:
            with round_.scope:
                if (before := self._in_progress.get(key)) is not None:
                    with anyio.move_on_after(timings.max_hold):
                        await before.ended.wait()
                # One response wakes many tasks.
                await self._connection.background.wait_turns(timings.batching_turns)
                self._leave(round_, self._gathering)
                self._in_progress[key] = round_
                await self.read(round_.jobs, needs_new_connection=key)
                round_.error = None
        except FtrackJobsError as exc:
            round_.error = exc
        finally:
            self._leave(round_, self._gathering)
            self._leave(round_, self._in_progress)
            round_.ended.set()

    async def _read(self, jobs: Sequence[ReadableJob], manner: Manner) -> None:
        if (wait := self.before_read) is not None:
            await wait()
        references = [job.entity.__ftrack_reference__() for job in jobs]
        query = {
            "action": "query",
            "expression": select(_ATTRIBUTES, "Job", key_criteria(references)),
        }
        with self._entities.reads.reading() as number:
            blocks = self.blocks
            (result,) = await self._connection.call([query], **manner)
            if self.blocks != blocks:
                (result,) = await self._connection.call([query], **manner)
            rows = _rows_by_id(result)
            changed = [row for job in jobs if (row := _changed_row(job.entity, rows)) is not None]
            if changed:  # few: decoding takes far longer than comparing
                await self._decode(changed, number)
        for job in jobs:
            try:
                job.note_read(rows.get(job.entity.id))
            except Exception:  # others may have written anything, which must not end other work
                logger.warning("%(job)r: what others have written is odd", job=job, exc_info=True)

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
