"""Waiting for Jobs, wherever they run: one poll for all that wait in a session.

That ftrack sends events about Jobs is not proven (docs/protocol.md, section 7.7). So Jobs are read
from time to time: after a second, then less and less often, and again after a second when one of
them has changed. All Jobs that any task waits for share a query, up to 500 of them. Nothing is read
while no task waits. An event, or the end of a Job in this session, makes the read earlier:
:meth:`JobPoll.wake`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from typing import Any, Self, cast
from uuid import UUID

import anyio

from aioftrackjobs.background import SafeLogger
from aioftrackjobs.config.settings import is_id, require, require_seconds
from aioftrackjobs.entities.arguments import check_owned
from aioftrackjobs.entities.context import EntityContext
from aioftrackjobs.entities.queries import key_reference
from aioftrackjobs.errors import ServerError, SessionStateError, TransportError
from aioftrackjobs.jobs.reading import JobReader
from aioftrackjobs.models import Entity, Job, JobState, known_state, state_in
from aioftrackjobs.protocol.query import PAGE_SIZE, key_criteria
from aioftrackjobs.protocol.values import ENTITY_TYPE

logger: SafeLogger = SafeLogger(__name__)

#: Seconds between two reads, at least, however many tasks begin to wait.
_SHORTEST = 0.1

#: How much longer each pause is than the one before.
_GROWTH = 1.5

#: Reads of a Job that are refused, one after the other, before this ends the waiting for it.
_REFUSALS = 3

_CLOSED = "the session is closed, so that the end of the Job is not known"


def jobs_of_session(entities: EntityContext, jobs: object) -> list[Job]:
    """Return the Jobs that *jobs* are, or whose ids they are: one or several.

    Raises:
        ArgumentError: They are something else, or an id is empty.
        EntityError: One of them belongs to another session.
        QueryParameterError: An id is no valid Unicode.
    """
    is_one = isinstance(jobs, Job | str | UUID)
    is_several = isinstance(jobs, Iterable) and not isinstance(jobs, Entity | Mapping | bytes)
    require(is_one or is_several, "jobs", "a Job, its id, or several of them", jobs)
    found = []
    for job in [jobs] if is_one else cast("Iterable[object]", jobs):
        is_job = isinstance(job, Job | UUID) or is_id(job)
        require(is_job, "each of jobs", "a Job, or its id", job)
        if isinstance(job, Job):
            check_owned(entities, job, "each of jobs")
            found.append(job)
            continue
        reference = key_reference(Job, job)
        key_criteria([reference])
        row = {ENTITY_TYPE: Job.entity_type, "id": reference.key[0][1]}
        found.append(entities.identity.decode(row))
    return found


async def require_created(entities: EntityContext, jobs: Iterable[Job]) -> None:
    """Wait for commits in progress that create *jobs*.

    Raises:
        EntityError: The creation of one of them is recorded, and not yet committed.
    """
    for job in jobs:
        await entities.require_created(job.__ftrack_reference__())


class _Waiter:
    """One task that waits for a change of some Jobs.

    Attributes:
        left: The Jobs that have not ended, by id.
        known: The latest states of all Jobs, by id.
        changed: What the task has not seen yet.
    """

    def __init__(self, left: dict[str, Job], known: dict[str, JobState]) -> None:
        self.left = left
        self.known = known
        self.changed: dict[str, JobState] = {}
        self._error: Exception | None = None
        self._event = anyio.Event()

    def note(self, state: JobState) -> None:
        """Take note of a *state*, and wake the task if it is new."""
        if self.known.get(state.id) != state:
            self.known[state.id] = self.changed[state.id] = state
            self._event.set()

    def fail(self, error: Exception) -> None:
        """End the waiting by *error*."""
        self._error = error
        self._event.set()

    async def wait(self) -> list[JobState]:
        """Wait for changes; return the latest state of each Job that has changed."""
        await self._event.wait()
        if self._error is not None:
            raise copy(self._error) from self._error  # others raise it, too
        self._event = anyio.Event()
        changes, self.changed = list(self.changed.values()), {}
        return changes


class _Watched:
    """A Job that some tasks wait for.

    Attributes:
        entity: The Job.
        waiters: The tasks.
        refusals: How many of its latest reads were refused, one after the other.
    """

    def __init__(self, entity: Job, poll: JobPoll) -> None:
        self.entity = entity
        self.waiters: dict[_Waiter, None] = {}
        self.refusals = 0
        self._poll = poll
        self._state: JobState | None = None

    def note_read(self, row: Mapping[str, Any] | None) -> None:
        """Take note of the *row* that the server has for the Job; None if it has none."""
        state = state_in(self.entity, row)
        if self._state not in (None, state):
            self._poll.note_change()
        self._state, self.refusals = state, 0
        for waiter in tuple(self.waiters):
            waiter.note(state)

    def fail(self, error: Exception) -> None:
        """End the waiting for it by *error*."""
        for waiter in tuple(self.waiters):
            waiter.fail(error)


class JobPoll:
    """Reads the Jobs that tasks of one session wait for.

    Args:
        entities: The entities of the session.
        reader: Reads Jobs.
        listen: Listens for events about Jobs, if that is possible by now.
    """

    def __init__(
        self, entities: EntityContext, reader: JobReader, *, listen: Callable[[], None]
    ) -> None:
        self._background = entities.connection.background
        self._require_open = entities.connection.require_open
        self._entities = entities
        self._reader, self._listen = reader, listen
        timings = entities.connection.timings
        self._first, self._longest = timings.job_poll_first, timings.job_poll_longest
        self._limit = timings.job_poll_limit
        self._interval = self._first
        self._watched: dict[str, _Watched] = {}
        self._soon: set[str] = set()  # ids of Jobs to read before the next round
        self._woken = anyio.Event()
        self._due = self._last_read = -math.inf  # in the time of the event loop
        self._is_running = self._is_closed = False
        self._failures = 0

    # For those who wait

    async def wait_for(self, jobs: Sequence[Job], timeout: float | None) -> list[JobState]:
        """Wait until all *jobs* have ended; return the state of each, in the same order.

        Args:
            jobs: Entities of the session.
            timeout: Seconds after which those that have not ended are returned as they are.

        Raises:
            ArgumentError: *timeout* is no number of seconds above 0.
        """
        if timeout is not None:
            require_seconds("timeout", timeout, above=True)
        left = {job.id: job for job in jobs}
        known: dict[str, JobState] = {}
        with (
            anyio.move_on_after(math.inf if timeout is None else timeout),
            self.waiting(left, known) as waiter,
        ):
            while left:
                for state in await waiter.wait():
                    if state.has_ended:
                        self._release(waiter, state.id)
        return [known.get(job.id) or known_state(job) for job in jobs]

    async def wait_for_one(self, job: Job, timeout: float | None) -> JobState:
        """Wait until *job* has ended, for *timeout* seconds at most, and return its state.

        Raises:
            EntityError: The Job is not yet committed.
        """
        self._require_open()
        await require_created(self._entities, [job])
        (state,) = await self.wait_for([job], timeout)
        return state

    @contextmanager
    def waiting(self, left: dict[str, Job], known: dict[str, JobState]) -> Iterator[_Waiter]:
        """Read the Jobs *left* for the task that is in this block.

        Raises:
            SessionStateError: The session is closed.
        """
        if self._is_closed:
            raise SessionStateError(_CLOSED)
        waiter = _Waiter(left, known)
        for job_id, job in left.items():
            watched = self._watched.get(job_id)
            if watched is None:
                watched = self._watched[job_id] = _Watched(job, self)
            watched.waiters[waiter] = None
        if new := left.keys() - known.keys():
            self.wake(new)
        try:
            if left and not self._is_running:
                self._background.spawn(self._run)
                self._is_running = True
            yield waiter
        finally:
            for job_id in tuple(left):
                self._release(waiter, job_id)

    def _release(self, waiter: _Waiter, job_id: str) -> None:
        waiter.left.pop(job_id, None)
        watched = self._watched.get(job_id)
        if watched is None:
            return
        watched.waiters.pop(waiter, None)
        if not watched.waiters:
            del self._watched[job_id]
            if not self._watched:
                self._woken.set()  # the poll ends

    # For those who know that something has changed

    def wake(self, ids: Iterable[str] | None) -> None:
        """Read those of the Jobs with *ids* soon that a task waits for; all if that is None."""
        soon = set(self._watched) if ids is None else self._watched.keys() & set(ids)
        if soon:
            self._soon |= soon
            self.note_change()
            self._woken.set()

    def note_change(self) -> None:
        """Poll often again."""
        self._interval = self._first
        self._due = min(self._due, anyio.current_time() + self._first)

    def close(self) -> None:
        """End all waiting, because the session closes."""
        self._is_closed = True
        self._fail_all()
        self._woken.set()

    def _fail_all(self) -> None:
        for watched in tuple(self._watched.values()):
            watched.fail(SessionStateError(_CLOSED))

    # The poll

    async def _run(self) -> None:
        try:
            while self._watched and not self._is_closed:
                self._listen()
                await self._wait_until_due()
                now = anyio.current_time()
                is_round = now >= self._due
                ids = self._watched.keys() if is_round else self._watched.keys() & self._soon
                jobs, self._soon = [self._watched[each] for each in ids], set()
                self._last_read = now
                if is_round:
                    self._interval = min(_GROWTH * self._interval, self._longest)
                    self._due = now + self._interval
                for start in range(0, len(jobs), PAGE_SIZE):
                    await self._read(jobs[start : start + PAGE_SIZE])
        finally:
            self._is_running = False
            self._fail_all()  # if there are any left, the event loop is shut down

    async def _wait_until_due(self) -> None:
        while self._watched and not self._is_closed:
            self._woken = anyio.Event()
            soon = self._last_read + _SHORTEST if self._soon else math.inf
            until = min(self._due, soon) - anyio.current_time()
            if until <= 0:
                return
            with anyio.move_on_after(until):
                await self._woken.wait()

    async def _read(self, jobs: Sequence[_Watched]) -> None:
        try:
            with anyio.fail_after(self._limit):
                await self._reader.read(jobs, needs_new_connection=self._failures > 0)
        except (TransportError, TimeoutError) as exc:
            self._note_failure(exc)
        except SessionStateError:
            raise
        except ServerError as exc:
            self._note_failure(exc)
            for job in jobs:
                job.refusals += not exc.is_retryable
                if job.refusals >= _REFUSALS:
                    job.fail(exc)
        except Exception as exc:  # noqa: BLE001 - each task that waits raises it
            for job in jobs:
                job.fail(exc)
        else:
            self._failures = 0

    def _note_failure(self, error: Exception) -> None:
        self._failures += 1
        if self._failures == _REFUSALS:
            why = str(error) or f"no response in {self._limit:g} s"
            logger.warning("the Jobs that are waited for cannot be read: %(error)s", error=why)


class JobWatch:
    """The changes of some Jobs, until all have ended: to be used with ``async for``.

    It is no generator, which would have to be closed when a loop ends early.
    """

    def __init__(self, poll: JobPoll, entities: EntityContext, jobs: object) -> None:
        self._poll = poll
        self._entities = entities
        self._jobs = jobs_of_session(entities, jobs)
        self._left: dict[str, Job] | None = None  # before they are known to exist
        self._known: dict[str, JobState] = {}
        self._changes: dict[str, JobState] = {}

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> JobState:
        if self._left is None:
            await require_created(self._entities, self._jobs)
            self._left = {job.id: job for job in self._jobs}
        while not self._changes:
            if not self._left:
                raise StopAsyncIteration
            # Copies: a task that is woken and cancelled at once has not seen what it was woken for.
            with self._poll.waiting(dict(self._left), dict(self._known)) as waiter:
                for state in await waiter.wait():
                    self._changes[state.id] = self._known[state.id] = state
                    if state.has_ended:
                        self._left.pop(state.id, None)
        return self._changes.pop(next(iter(self._changes)))
