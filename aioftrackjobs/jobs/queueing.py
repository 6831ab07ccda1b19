"""Jobs of an engine's tasks: queued where a task is sent, and run by each worker that gets it.

The engine decides which worker runs a task. So a worker that gets it takes the Job from a former
one, whose lease may be good for a while although it was killed. The former one, if it lives after
all, notices that at its next read, and writes the Job no more.

Nothing is stored about which Job belongs to a task, because the id of the Job is made from that of
the task: see :mod:`aioftrackjobs.jobs.keys`. The first of them creates the Job.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any
from uuid import UUID

import anyio

from aioftrackjobs.commit.unit_of_work import UnitOfWork
from aioftrackjobs.entities.context import EntityContext
from aioftrackjobs.entities.queries import fetch_entity
from aioftrackjobs.errors import (
    CommitUncertainError,
    FtrackJobsError,
    JobOwnedError,
    NoResultFoundError,
    ServerError,
    SessionStateError,
)
from aioftrackjobs.jobs.block import GivenJob, find_user
from aioftrackjobs.jobs.claims import Beginning
from aioftrackjobs.jobs.context import JobsContext
from aioftrackjobs.jobs.data import JobData, parse_given_data
from aioftrackjobs.jobs.ending import End
from aioftrackjobs.jobs.existing import RepeatedLifecycle
from aioftrackjobs.jobs.final_report import FinalReport
from aioftrackjobs.jobs.keys import REDELIVERY, JobKey, queued_note
from aioftrackjobs.jobs.lifecycle import JobLifecycle
from aioftrackjobs.jobs.stopping import stop_request_in, stopped_error
from aioftrackjobs.models import Entity, Job, JobStatus, parse_job_data, remote_value

#: Seconds between two looks whether the attempt before has been reported.
_END_PAUSE = 0.02


async def queue_job(
    jobs: JobsContext,
    key: JobKey | UUID | None,
    *,
    user: Entity | str | UUID | None,
    description: str | None,
    data: Mapping[str, Any] | str | None,
) -> Job:
    """Create a Job as queued; return it, or the one with this key that is there already.

    Raises:
        NoResultFoundError: There is no such user.
        FtrackJobsError: It could not be created.
    """
    entities = jobs.entities
    owner = await (entities.current_user() if user is None else find_user(entities, user))
    extra = dict(parse_given_data(data) if isinstance(data, str) else data or {})
    if isinstance(key, JobKey):
        extra[REDELIVERY] = queued_note(key.note(), jobs.server.server_time())
    content = JobData(None if description is None else str.__str__(description))
    content.adopt_description(extra)
    values: dict[str, Any] = {
        "status": JobStatus.QUEUED,
        "data": content.compose(None, extra),
        "user_id": owner["id"],
    }
    if key is not None:
        values["id"] = str(key)
    unit = entities.new_unit()
    leave = await _enter_turn(jobs, str(key or unit))
    try:
        job = entities.create(Job, values, unit=unit)
        await unit.commit()
    except (ServerError, CommitUncertainError):
        unit.drop()
        found = await _find(entities, job) if key is not None else None
        if found is None:
            raise
        return found
    except BaseException:
        unit.drop()
        raise
    finally:
        _leave_soon(jobs, unit, leave)
    return job


async def _enter_turn(jobs: JobsContext, job_id: str) -> Callable[[], None]:
    """Wait until no other task of the session creates this Job; return what ends the turn."""
    while (other := jobs.creating.get(job_id)) is not None:
        await other.wait()
    ended = jobs.creating[job_id] = anyio.Event()

    def leave() -> None:
        del jobs.creating[job_id]
        ended.set()

    return leave


def _leave_soon(jobs: JobsContext, unit: UnitOfWork, leave: Callable[[], None]) -> None:
    """End a turn when its commit has: that of a cancelled call may still be on its way."""
    if not unit.is_settled:
        with suppress(SessionStateError):  # it is closed: nothing is created any more
            jobs.background.spawn(_leave_when_settled, unit, leave)
            return
    leave()


async def _leave_when_settled(unit: UnitOfWork, leave: Callable[[], None]) -> None:
    try:
        await unit.settled()
    finally:
        leave()


async def _find(entities: EntityContext, job: Job) -> Job | None:
    """Return the Job with the id of *job* that another client has created; None if none has."""
    try:
        found = await fetch_entity(entities, job.__ftrack_reference__())
    except FtrackJobsError:
        return None
    return found if isinstance(found, Job) else None


class KeyedLifecycle(RepeatedLifecycle):
    """Runs the Job of a task, which is created if there is none.

    A description and a user are those of a new Job; one that is there keeps its own.
    """

    _key: JobKey

    async def begin(self, given: GivenJob) -> None:
        """Mark the Job running; for errors, see :meth:`JobLifecycle.begin`.

        Raises:
            JobStoppedError: The Job was stopped while it was queued, or in an earlier attempt.
        """
        assert isinstance(given.job, JobKey)  # noqa: S101 - for type checkers
        self._key, data = given.job, given.data
        self._note = self._key.note()
        values = parse_given_data(data) if isinstance(data, str) else data
        given = given._replace(data={**(values or {}), REDELIVERY: self._note}, take_over=True)
        self._text, self._data.description = self._data.description, None
        leave = await _enter_turn(self._jobs, str(self._key))
        try:
            await self._begin_again(given)
        except NoResultFoundError:
            if not await self._create_new(given):
                await self._begin_again(given)
        finally:
            leave()

    async def _begin_again(self, given: GivenJob) -> None:
        """Run the Job that is there, after the end of an attempt that this session reports."""
        while True:
            try:
                await super().begin(given)
            except JobOwnedError:
                if self._entity is not None or not self._jobs.active.is_ending(str(self._key)):
                    raise
            else:
                return
            await anyio.sleep(_END_PAUSE)

    async def _create_new(self, given: GivenJob) -> bool:
        """Create the Job as running; return False if another client has just created it."""
        self._data.description = self._text
        new = given._replace(job=None, take_over=False, new_id=self._key)
        try:
            await JobLifecycle.begin(self, new)
        except ServerError:
            made, unit = self._entity, self._beginning
            if made is None or unit is None or await _find(self._jobs.entities, made) is None:
                raise
            unit.rollback()
            self._jobs.journal.release_job(made.id)
            self._entity, self._beginning, self._is_new = None, None, False
            self._data.description = None
            return False
        return True

    def _look_at(self, found: Job) -> None:
        status, data = remote_value(found, "status"), parse_job_data(remote_value(found, "data"))
        request = stop_request_in(data)
        if status == JobStatus.FAILED and request is not None:
            raise stopped_error(found.id, request)  # the engine does not know of it
        promise = data.get(REDELIVERY)
        if self._key.redelivered_within is None and isinstance(promise, Mapping):
            within = promise.get("within")  # what the producer has said
            self._note.update({} if within is None else {"within": within})
        if self._data.description is None and not {"description", "base_description"} & set(data):
            self._data.description = self._text

    def _has_rivals(self, beginning: Beginning) -> bool:
        """Return whether the former owner may write the Job once more: it is waited for then."""
        return beginning.former is not None

    def _start_ending(self, end: End) -> FinalReport:
        if end.status is JobStatus.QUEUED:
            now = self._jobs.server.server_time()
            extra = {REDELIVERY: queued_note(self._note, now)}
            self._data.extra = {**(self._data.extra or {}), **extra}
        return super()._start_ending(end)


def repeated_kind(job: object) -> type[RepeatedLifecycle]:
    """Return what runs *job*, which may be a key: then it need not exist."""
    return KeyedLifecycle if isinstance(job, JobKey) else RepeatedLifecycle
