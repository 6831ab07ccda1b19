"""Blocks about a Job that exists already: one runs it again, the other works on it for its owner.

A session that runs a Job again becomes its owner, unless the Job has one: see
:mod:`aioftrackjobs.jobs.claims`.

A joined block writes progress as the owner does, right after a read of the Job, and keeps the
owner's lease as it finds it. It writes nothing once the Job has ended. The text in the jobs menu
shows what was reported last, by the owner or by the joined block.

If the owner is a block of the same session, the joined one reports through it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from typing import Any
from uuid import UUID

import anyio
import sniffio

from aioftrackjobs.commit.request import PendingRequest, Settle
from aioftrackjobs.commit.unit_of_work import UnitOfWork
from aioftrackjobs.errors import (
    EntityError,
    FtrackJobsError,
    JobOwnedError,
    ServerError,
    SessionStateError,
)
from aioftrackjobs.jobs.block import find_job
from aioftrackjobs.jobs.data import parse_given_data
from aioftrackjobs.jobs.lifecycle import JobLifecycle
from aioftrackjobs.jobs.ownership import LEASE, TAKEN_OVER, takeover_note
from aioftrackjobs.jobs.stopping import current_task
from aioftrackjobs.models import Entity, JobStatus, parse_job_data, remote_value

logger = logging.getLogger(__name__)


class RepeatedLifecycle(JobLifecycle):
    """Runs a Job that exists already, unless it has an owner."""

    async def begin(
        self,
        job: Entity | str | UUID | None,
        user: Entity | str | UUID | None,
        data: Mapping[str, Any] | str | None,
        *,
        take_over: bool = False,
    ) -> None:
        """Mark the Job running; for arguments and errors, see :meth:`JobLifecycle.begin`."""
        extra = self._adopt(data)
        began = anyio.current_time()
        entity = await find_job(self._jobs.entities, job or "")
        claims, active = self._jobs.claims, self._jobs.active
        former = active.find(entity.id)
        if active.is_ending(entity.id) or (former is not None and not take_over):
            raise claims.owned_here(entity)
        beginning = claims.enter(entity, began, take_over=take_over)
        try:
            note = takeover_note(beginning.former, self._jobs.server.server_time())
            self._data.taken_over = note
            self.others.former = beginning.former and beginning.former.holder
            self._entity = entity
            self._data.adopt_description(remote_value(entity, "data"))
            self._beginning = unit = self._set_running(extra)
            await self._commit_beginning(unit, entity)
            if former is not None:
                former.lose()
            await claims.confirm(entity, beginning, partial(self._write_again, extra))
            self._jobs.require_open()
        except ServerError as exc:
            if not exc.is_retryable:
                await self.require_existence(exc)
            raise
        except JobOwnedError:
            if self._is_closed:  # the session was closed meanwhile, and has ended the Job itself
                self._jobs.require_open()
            self.others.is_lost = True
            self._leave()
            raise
        finally:
            claims.leave(entity)

    async def _write_again(self, extra: Mapping[str, Any] | None) -> None:
        self._jobs.require_open()
        await self._set_running(extra).commit()

    def _set_running(self, extra: Mapping[str, Any] | None) -> UnitOfWork:
        """Return a unit of work in which the Job is set running."""
        unit = self._jobs.entities.new_unit()
        data = self._compose(remote_value(self.entity, "data"), extra)
        unit.set(self.entity, status=JobStatus.RUNNING, data=data)
        return unit


class JoinedLifecycle(JobLifecycle):
    """Reports the progress of a Job, and leaves its lease and its end to its owner."""

    _owner: JobLifecycle | None = None

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
        self._data.extra = parse_given_data(data) if isinstance(data, str) else data
        found = await find_job(self._jobs.entities, job or "")
        self._jobs.require_open()
        status = remote_value(found, "status")
        if status != JobStatus.RUNNING:
            raise EntityError(f"{found!r} is {status}; only a Job that is running can be joined")
        owner = self._jobs.active.find(found.id)
        self._owner = owner if isinstance(owner, JobLifecycle) else None
        self._data.adopt_description(remote_value(found, "data"))
        self._data.description = self._data.description or None  # its owner may give it one yet
        self._data.is_running = True
        self._entity, self._has_begun = found, True
        self.others.is_owner = False
        self.others.begin(found)
        self._task = current_task()
        self._jobs.active.add_guest(self, is_read=True)
        if self._data.extra:
            self._channels.touch()

    def decide(self, status: JobStatus, text: str | None) -> bool:
        """Log that this has no effect: the owner decides how the Job ends."""
        logger.warning("%r: only its owner decides that it is %s: %s", self, status.value, text)
        return True

    def _post_data(self, settle: Settle) -> PendingRequest | None:
        """Write nothing while the Job does not run; its owner may overrule a mistaken recovery."""
        if remote_value(self.entity, "status") != JobStatus.RUNNING:
            return None
        return super()._post_data(settle)

    def _compose(self, data: object, extra: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
        """Return the new content of *data*, with the lease of the owner."""
        kept = parse_job_data(data)
        self._data.lease, self._data.taken_over = kept.get(LEASE), kept.get(TAKEN_OVER)
        return self._data.compose(data, extra)

    # The end

    async def close(self) -> None:
        """Do as :meth:`end`, because the session closes; the block may go on."""
        await self._leave_to_owner()

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
        if self._is_closed:
            return
        self._is_closed = True
        self._stop_running()
        if self._channels.are_used:
            try:
                await self._jobs.background.finish(self._write_last)
            except (SessionStateError, sniffio.AsyncLibraryNotFoundError) as exc:
                logger.warning("%r: its latest progress was not written: %s", self, exc)

    async def _write_last(self) -> None:
        with anyio.move_on_after(self._grace):
            await self._channels.stop()
            try:
                await self._jobs.reader.read_with_others(self)
                if remote_value(self.entity, "status") == JobStatus.RUNNING:
                    unit = self._jobs.entities.new_unit()
                    unit.set(self.entity, data=self._compose(remote_value(self.entity, "data")))
                    await unit.commit()
            except (FtrackJobsError, ValueError) as exc:
                logger.warning("%r: its latest progress was not written: %s", self, exc)
