"""JoinedLifecycle: a block that works on a Job for its owner, which is elsewhere.

The owner writes the whole ``data`` with each report, and so does a joined block. Therefore a
joined block reads the Job right before it writes, keeps the owner's lease as it is, and writes
nothing once the Job has ended. The text in the jobs menu shows what was reported last, by
whichever of them.

If the owner is a block of the same session, the joined one reports through it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import anyio
import sniffio

from aioftrackjobs.errors import EntityError, FtrackJobsError, SessionStateError
from aioftrackjobs.jobs.data import parse_given_data
from aioftrackjobs.jobs.lifecycle import JobLifecycle, current_asyncio_task
from aioftrackjobs.jobs.ownership import LEASE, TAKEN_OVER
from aioftrackjobs.jobs.termination import fetch_jobs
from aioftrackjobs.models import Entity, JobStatus, parse_job_data, remote_value

logger = logging.getLogger(__name__)


class JoinedLifecycle(JobLifecycle):
    """Reports the progress of a Job, and leaves its lease and its end to its owner."""

    _owner: JobLifecycle | None = None
    _is_touched = False
    _has_reports = False
    _written: anyio.Event | None = None  # not None while the writer runs
    _extra: Mapping[str, Any] | None = None

    @property
    def reporter(self) -> JobLifecycle:
        """The owner, if it is in this session."""
        return self._owner or self

    async def begin(
        self,
        job: Entity | str | UUID | None,
        user: Entity | str | UUID | None,
        data: Mapping[str, Any] | str | None,
        *,
        take_over: bool = False,
    ) -> None:
        """Join a Job that runs.

        Raises:
            NoResultFoundError: There is no such Job.
            EntityError: It is not running.
        """
        self._left = anyio.Event()
        self._extra = parse_given_data(data) if isinstance(data, str) else data
        found = await self._find_job(job or "")
        status = remote_value(found, "status")
        if status != JobStatus.RUNNING:
            raise EntityError(f"{found!r} is {status}; only a Job that is running can be joined")
        owner = self._jobs.active.find(found.id)
        self._owner = owner if isinstance(owner, JobLifecycle) else None
        self._data.adopt_description(remote_value(found, "data"))
        self._entity = found
        self._task = current_asyncio_task()
        self._jobs.require_open()
        self._jobs.active.add_guest(self)
        if self._extra:
            self._start_writing()

    def decide(self, status: JobStatus, text: str | None) -> bool:
        """Log that this has no effect: the owner decides how the Job ends."""
        logger.warning("%r: only its owner decides that it is %s: %s", self, status.value, text)
        return True

    # Reports

    def _write_soon(self, interval: float) -> None:
        self._has_reports = True
        self._start_writing()

    def _start_writing(self) -> None:
        self._is_touched = True
        if self._written is not None or self._is_ending:
            return
        try:
            self._jobs.background.spawn(self._write_all)
        except SessionStateError as exc:
            logger.warning("%r: progress is not written any more: %s", self, exc)
        else:
            self._written = anyio.Event()

    async def _write_all(self) -> None:
        """Write the latest report, then wait for an interval, until there is none."""
        written = self._written
        try:
            while self._is_touched:
                self._is_touched = False
                await self._write()
                if not self._left.is_set():
                    with anyio.move_on_after(self._interval):
                        await self._left.wait()
        finally:
            self._written = None
            if written is not None:
                written.set()

    async def _write(self) -> None:
        try:
            await fetch_jobs(self._jobs.entities, [self.entity.id])
            if remote_value(self.entity, "status") != JobStatus.RUNNING:
                return
            unit = self._jobs.entities.new_unit()
            unit.set(self.entity, data=self._compose_joined(remote_value(self.entity, "data")))
            await unit.commit()
        except (FtrackJobsError, ValueError) as exc:
            logger.warning("%r: progress was not written; the work goes on: %s", self, exc)

    def _compose_joined(self, data: object) -> Mapping[str, Any]:
        kept = parse_job_data(data)
        if not self._has_reports:
            return {**kept, **(self._extra or {})}
        self._data.lease, self._data.taken_over = kept.get(LEASE), kept.get(TAKEN_OVER)
        return self._data.compose(data, self._extra)

    # The end

    async def end(self) -> None:
        """Write the latest report, and leave the Job to its owner."""
        await self._leave_to_owner()

    async def end_failed(self, error: BaseException, *, with_traceback: bool) -> None:
        """Do as :meth:`end`: the owner may find out about *error*, and decides what it means."""
        try:
            await self._leave_to_owner()
        except anyio.get_cancelled_exc_class():
            if isinstance(error, Exception):
                raise  # otherwise the block is being left by a cancellation already

    async def _leave_to_owner(self) -> None:
        self._is_ending = True
        self._jobs.active.discard(self)
        self._left.set()
        if self._written is not None:
            try:
                await self._jobs.background.finish(self._wait_until_written, self._written)
            except (SessionStateError, sniffio.AsyncLibraryNotFoundError) as exc:
                logger.warning("%r: its latest progress was not written: %s", self, exc)

    async def _wait_until_written(self, written: anyio.Event) -> None:
        with anyio.move_on_after(self._grace):
            await written.wait()
