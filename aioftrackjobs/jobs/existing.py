"""Blocks about a Job that exists already: one runs it again, the other works on it for its owner.

A session that runs a Job again becomes its owner, unless the Job has one: see
:mod:`aioftrackjobs.jobs.claims`.

A joined block writes progress as the owner does, right after a read of the Job, and keeps the
owner's lease as it finds it. It writes nothing once the Job has ended. The text in the jobs menu
shows what was reported last, by the owner or by the joined block.

If the owner is a block of the same session, the joined one reports through it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from typing import Any

import anyio

from aioftrackjobs.background import SafeLogger
from aioftrackjobs.commit.request import PendingRequest, Settle
from aioftrackjobs.commit.unit_of_work import UnitOfWork
from aioftrackjobs.errors import (
    CommitUncertainError,
    EntityError,
    FtrackJobsError,
    JobOwnedError,
    NoResultFoundError,
    ServerError,
)
from aioftrackjobs.jobs.block import GivenJob, find_job
from aioftrackjobs.jobs.claims import Beginning
from aioftrackjobs.jobs.data import parse_given_data
from aioftrackjobs.jobs.ending import End
from aioftrackjobs.jobs.leases import ActiveJob
from aioftrackjobs.jobs.lifecycle import JobLifecycle
from aioftrackjobs.jobs.ownership import LEASE, TAKEN_OVER, takeover_note
from aioftrackjobs.jobs.stopping import current_task
from aioftrackjobs.jobs.termination import END_STATUSES
from aioftrackjobs.jobs.writing import write_anew
from aioftrackjobs.models import Job, JobStatus, parse_job_data, remote_value

logger: SafeLogger = SafeLogger(__name__)

#: The environment variable in which a command finds the Job that it is run as.
JOB_ID = "FTRACK_JOB_ID"

#: Seconds between two looks for a Job that is about to begin.
_JOIN_PAUSE = 0.1


class RepeatedLifecycle(JobLifecycle):
    """Runs a Job that exists already, unless it has an owner."""

    async def begin(self, given: GivenJob) -> None:
        """Mark the Job running; for errors, see :meth:`JobLifecycle.begin`."""
        extra = self._adopt(given.data)
        claims, ahead = self._jobs.claims, self._jobs.server.clock_offset
        try:
            write = partial(self._write_running, given, extra)
            former, beginning = await write_anew(self._jobs.entities.connection, write)
            try:
                self._note_beginning(self.entity, ahead)
                if former is not None:
                    former.note_takeover()
                if self._has_rivals(beginning):
                    write_again = partial(self._write_again, extra)
                    await claims.confirm(self.entity, beginning, write_again)
            finally:
                claims.exit(self.entity)
            self._jobs.require_open()
        except ServerError as exc:
            if self._entity is not None and not exc.is_retryable:
                await self.require_existence(exc)
            raise
        except CommitUncertainError as exc:
            raise CommitUncertainError(exc.operations, self._settle_running) from exc.__cause__
        except JobOwnedError:
            if self._entity is not None:  # otherwise nothing was written
                if self._is_closed:  # the session was closed meanwhile, and has ended the Job
                    self._jobs.require_open()
                self.interventions.is_taken_over = True
                self._leave()
            raise

    async def _write_running(
        self, given: GivenJob, extra: Mapping[str, Any] | None, send_within: float
    ) -> tuple[ActiveJob | None, Beginning]:
        """Read the Job, and set it running if it has no owner.

        Returns:
            The block of this session that it is taken from, if any, and its state before.
        """
        claims, active = self._jobs.claims, self._jobs.active
        began = anyio.current_time()
        entity = await find_job(self._jobs.entities, given.job or "")
        self._look_at(entity)
        former = active.find(entity.id)
        if active.is_ending(entity.id) or (former is not None and not given.take_over):
            raise claims.owned_here(entity)
        beginning = claims.enter(entity, began, take_over=given.take_over)
        try:
            note = takeover_note(beginning.former, self._jobs.server.server_time())
            self._data.taken_over = note
            self.interventions.former = beginning.former and beginning.former.holder
            if self._entity is None:
                self._data.adopt_description(remote_value(entity, "data"))
                if self.watch is not None:
                    self.watch.note_found(entity)
            self._entity = entity
            await self._record_in_journal(entity)
            self._beginning = unit = self._set_running(extra, send_within)
            try:
                await unit.commit()
            except CommitUncertainError:
                self._may_run = True
                if not await self._is_running():
                    raise
                unit.drop()  # by whom it was set running, confirm() finds out
        except BaseException:
            claims.exit(entity)
            raise
        return former, beginning

    def _look_at(self, found: Job) -> None:
        """Look at the Job as it was found, before it is begun."""

    def _has_rivals(self, _: Beginning) -> bool:
        """Return whether another session may have begun the Job at the same time."""
        return True

    async def _write_again(self, extra: Mapping[str, Any] | None) -> None:
        """Set the Job running again: its former owner has overwritten that."""
        self._jobs.require_open()
        is_read = True  # right before

        async def write(send_within: float) -> None:
            nonlocal is_read
            if not is_read:
                await find_job(self._jobs.entities, self.entity)
            is_read = False
            await self._set_running(extra, send_within).commit()

        await write_anew(self._jobs.entities.connection, write)

    def _set_running(self, extra: Mapping[str, Any] | None, send_within: float) -> UnitOfWork:
        """Return a unit of work in which the Job is set running."""
        unit = self._jobs.entities.new_unit(send_within=send_within)
        data = self._compose(remote_value(self.entity, "data"), extra)
        unit.set(self.entity, status=JobStatus.RUNNING, data=data)
        return unit

    async def _settle_running(self) -> None:
        """Let the Job fail, whether it was set running or not: its block was never entered.

        Raises:
            FtrackJobsError: That could not be delivered.
        """
        await self._finish(End(JobStatus.FAILED))


class JoinedLifecycle(JobLifecycle):
    """Reports the progress of a Job, and leaves its lease and its end to its owner."""

    _owner: JobLifecycle | None = None

    @property
    def reporter(self) -> JobLifecycle:
        """The owner, if it is in this session."""
        return self._owner or self

    async def begin(self, given: GivenJob) -> None:
        """Join a Job that runs.

        Raises:
            NoResultFoundError: There is no such Job.
            EntityError: It is not running.
        """
        data = given.data
        self._data.extra = parse_given_data(data) if isinstance(data, str) else data
        found = await self._find_running(given)
        owner = self._jobs.active.find(found.id)
        self._owner = owner if isinstance(owner, JobLifecycle) else None
        self._data.adopt_description(remote_value(found, "data"))
        self._data.description = self._data.description or None  # its owner may give it one yet
        self._data.is_running = True
        self._entity, self._has_begun = found, True
        if self.watch is not None:
            self.watch.note_found(found)
            self.watch.note_begun(found)
        self.interventions.is_owner = False
        self.interventions.begin(found)
        self._task = current_task()
        self._jobs.active.add_guest(self, is_read=True)
        if self._data.extra:
            self._channels.touch()

    async def _find_running(self, given: GivenJob) -> Job:
        """Return the Job, which runs.

        A command starts before its Job is created: see :mod:`aioftrackjobs.commands`.
        """
        wait = self._jobs.entities.connection.timings.join_wait
        may_come = os.environ.get(JOB_ID) == str(getattr(given.job, "id", given.job))
        deadline = anyio.current_time() + (wait if may_come else 0.0)
        while True:
            try:
                found = await find_job(self._jobs.entities, given.job or "")
            except NoResultFoundError:
                if anyio.current_time() >= deadline:
                    raise
                status = None
            else:
                status = remote_value(found, "status")
            self._jobs.require_open()
            if status == JobStatus.RUNNING:
                return found
            if status in END_STATUSES or anyio.current_time() >= deadline:
                raise EntityError(
                    f"{found!r} is {status}; only a Job that is running can be joined"
                )
            await anyio.sleep(_JOIN_PAUSE)

    def decide(self, status: JobStatus, text: str | None) -> bool:
        """Log that this has no effect: the owner decides how the Job ends."""
        logger.warning(
            "%(job)r: only its owner decides that it is %(status)s: %(text)s",
            job=self,
            status=status.value,
            text=text,
        )
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
            except Exception as exc:  # noqa: BLE001 - the block's own error must come out
                logger.warning(
                    "%(job)r: its latest progress was not written: %(error)s", job=self, error=exc
                )

    async def _write_last(self) -> None:
        with anyio.move_on_after(self._grace):
            await self._channels.stop()
            try:
                await write_anew(self._jobs.entities.connection, self._write_report)
            except (FtrackJobsError, ValueError) as exc:
                logger.warning(
                    "%(job)r: its latest progress was not written: %(error)s", job=self, error=exc
                )

    async def _write_report(self, send_within: float) -> None:
        await self._jobs.reader.read_with_others(self)
        if remote_value(self.entity, "status") == JobStatus.RUNNING:
            unit = self._jobs.entities.new_unit(send_within=send_within)
            unit.set(self.entity, data=self._compose(remote_value(self.entity, "data")))
            await unit.commit()
