"""Claims: who may begin a Job that exists already, although many may try at the same time.

The API has no conditional updates. So a session writes its claim, waits, and reads it back: the
last one that wrote has the Job (Fischer's algorithm). A Job passes through these states::

    status queued, no good lease       free
        │  write a lease that is marked as a claim
        ▼
    status queued, claim of A          A waits for a while. If B found the Job free, too,
        │                              B has written its claim by then, and A finds that of B.
        │  read back: still queued, and still the claim of A?
        ├─ no: A leaves the Job alone, and takes its own claim out if that is what stands there
        ▼
    status queued, claim of A          A has it; claim_job returns. If A dies, the claim ends.
        │  job_context(job=...) reads the Job, and checks that the claim is still that of A
        ▼
    status running, lease of A         a session whose claim is late finds that it runs

It fails only if one session is late twice: its claim arrives more than the waiting time after it
has read that the Job is free, right after the read with which another session begins the Job, and
that one's own write is late, too. Hence the waiting time is at least twice the time that the
session itself needed from reading to writing, and a beginning that was late is read back again.

A Job that was not claimed, and is begun by its id, is written as running at once, and then read
back after the same time.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from functools import partial
from typing import Any, NamedTuple
from weakref import WeakSet

import anyio

from aioftrackjobs.background import SafeLogger
from aioftrackjobs.commit.request import WithdrawnError
from aioftrackjobs.commit.unit_of_work import UnitOfWork
from aioftrackjobs.entities.context import EntityContext
from aioftrackjobs.entities.queries import Query
from aioftrackjobs.errors import (
    ArgumentError,
    CommitUncertainError,
    ConnectError,
    EntityError,
    FtrackJobsError,
    JobOwnedError,
    ServerError,
    SessionStateError,
)
from aioftrackjobs.jobs.data import add_lease, remove_lease
from aioftrackjobs.jobs.keys import redelivery_of
from aioftrackjobs.jobs.ownership import LEASE, LEASE_SECONDS, Lease, owned_error, owner_of
from aioftrackjobs.jobs.termination import fetch_jobs
from aioftrackjobs.jobs.writing import may_pass, retry_after_of, write_anew
from aioftrackjobs.journal import this_process
from aioftrackjobs.models import Entity, Job, JobStatus, parse_job_data, remote_value
from aioftrackjobs.protocol.paging import find_clauses, split_paging
from aioftrackjobs.protocol.query import has_projections

logger: SafeLogger = SafeLogger(__name__)

_IS_QUEUED = 'status is "queued"'

#: Rows that are read to find a free Job among them; eight times as many if there is none.
_ROWS = 32

#: Jobs whose claims are refused before the refusal is raised.
_REFUSALS = 20

#: Seconds for taking out claims when the session closes.
_CLOSING = 2.0

#: How often a Job is taken from an owner that has written it again before it noticed.
_REPETITIONS = 5


class Beginning(NamedTuple):
    """A Job that exists already, right before it is begun.

    Attributes:
        former: The lease of the owner that it is taken from, good or not; None if there is none.
        is_claimed: Whether this session has claimed it.
        began: When it was read, in the time of the event loop.
    """

    former: Lease | None
    is_claimed: bool
    began: float


class _Claim(NamedTuple):
    """What this session has written into a Job, and what was there before, until when it holds."""

    job: Job
    before: object
    lease: Mapping[str, Any]
    end: float
    unit: UnitOfWork


class Claims:
    """The claims of one session.

    Args:
        entities: The entities of the session.
        lease: Seconds that a claim lasts if its Job is not begun; 0 for the default.
    """

    def __init__(self, entities: EntityContext, *, lease: float) -> None:
        self._entities = entities
        self._background = entities.connection.background
        self._server = entities.connection.server_status
        self._pauses = entities.connection.server_status.pauses
        self._waiting_time = entities.connection.timings.claim_wait
        self._holder = entities.connection.journal.holder
        self._has_leases, self._seconds = lease > 0, lease or LEASE_SECONDS
        self._claimed: dict[str, _Claim] = {}  # by the id of the Job, which is not begun yet
        self._lapsed = WeakSet[Job]()  # whose claims have ended before that
        self._busy: set[str] = set()  # Jobs that a task of this session claims or begins now

    # Claiming one of many Jobs

    async def claim(self, expression: str, *, spread: int) -> Job | None:
        """Claim one of the queued Jobs that *expression* finds; return None if all are taken.

        Args:
            expression: A query of Jobs, in the order in which they are to be claimed.
            spread: The Job is one of the first so many free ones, at random; if that is not 1,
                twice as many after each Job that another session has got.

        Raises:
            ServerError: The server refused the query, or a claim, and no other Job was left.
            TransportError: It could not be reached.
        """
        size, unusable = _ROWS, set[str]()
        refusal: Exception | None = None
        backoff = self._entities.connection.retry.backoff()
        while True:
            began = anyio.current_time()
            rows = await self._read(expression, size)
            free = [job for job in rows if job.id not in unusable and self._is_free(job)]
            if not free and len(rows) >= size:
                size *= 8
            elif not free:
                if refusal is not None:
                    raise refusal
                return None
            else:
                job = random.choice(free[:spread])  # noqa: S311 - nothing secret
                try:
                    if await self._try(job, began):
                        return job
                    if spread > 1:
                        spread = min(2 * spread, _ROWS)
                except (FtrackJobsError, ValueError) as exc:  # about this Job, perhaps
                    if may_pass(exc) and await self._pauses.wait(backoff, retry_after_of(exc)):
                        continue  # the Jobs are read again: others may have written this one
                    if isinstance(exc, WithdrawnError):
                        raise ConnectError("not sent in time") from None
                    is_refusal = isinstance(exc, (ServerError, EntityError, ValueError))
                    if may_pass(exc) or not is_refusal:
                        raise
                    logger.warning("%(job)r cannot be claimed: %(error)s", job=job, error=exc)
                    unusable.add(job.id)
                    if len(unusable) >= _REFUSALS:
                        raise
                    refusal = exc

    async def _read(self, expression: str, size: int) -> list[Job]:
        """Return some of the queued Jobs that *expression* finds."""
        paged = split_paging(expression)
        text = paged.text.strip()
        clauses = find_clauses(text if has_projections(text) else f"select id from {text}")
        if clauses is not None:  # otherwise, the server says what is wrong with it
            if clauses.entity_type != Job.entity_type:
                kind = clauses.entity_type
                raise ArgumentError("query", "a query of Jobs", f"one of {kind}")
            given = (name.strip() for name in clauses.projections.split(","))
            both = [f"({each})" for each in (clauses.criteria, _IS_QUEUED) if each]
            names = tuple(dict.fromkeys((*given, *Job.default_projections)))
            text = clauses._replace(criteria=" and ".join(both)).keys(names)
        limit = size if paged.limit is None else min(size, paged.limit)
        offset = f" offset {paged.offset}" if paged.offset else ""
        query: Query[Entity] = Query(self._entities, f"{text}{offset} limit {limit}")
        return [row for row in await query.all() if isinstance(row, Job)]

    def _is_free(self, job: Job) -> bool:
        if job.id in self._busy or remote_value(job, "status") != JobStatus.QUEUED:
            return False
        claim = self._claimed.get(job.id)
        if claim is not None and claim.end > anyio.current_time():
            return False
        data = parse_job_data(remote_value(job, "data"))
        return self._owner_of(job) is None and redelivery_of(JobStatus.QUEUED, data) is None

    def _owner_of(self, job: Job) -> Lease | None:
        data = parse_job_data(remote_value(job, "data"))
        return owner_of(remote_value(job, "status"), data, self._server.server_time())

    async def _try(self, job: Job, began: float) -> bool:
        """Claim *job*, which was free when it was read; return whether this session has it."""
        claim = self._new_claim(job)
        claim.unit.set(job, data=add_lease(claim.before, claim.lease))
        self._busy.add(job.id)
        is_standing, uncertain = True, None
        try:
            try:
                await claim.unit.commit()
            except CommitUncertainError as exc:
                uncertain = exc  # what can be read counts
            except FtrackJobsError:
                is_standing = False  # it was not applied
                raise
            await self._wait_for_others(began)
            is_standing = await self._is_standing(claim)
            is_queued = remote_value(job, "status") == JobStatus.QUEUED
            if is_standing and is_queued:
                self._drop_lapsed()
                self._claimed[job.id] = claim
                is_standing = False
                return True
            if uncertain is not None and is_queued and self._owner_of(job) is None:
                raise uncertain.__cause__ or uncertain
            return False
        finally:
            self._busy.discard(job.id)
            if is_standing:
                self._withdraw_soon(claim)

    def _drop_lapsed(self) -> None:
        """Drop the claims that have ended; the program may still hold such a Job, and begin it."""
        now = anyio.current_time()
        for claim in [each for each in self._claimed.values() if each.end <= now]:
            del self._claimed[claim.job.id]
            self._lapsed.add(claim.job)

    def _new_claim(self, job: Job) -> _Claim:
        until = self._server.server_time() + timedelta(seconds=self._seconds)
        lease = Lease(self._holder, this_process(), until, is_claim=True).encode()
        end = anyio.current_time() + self._seconds
        unit = self._entities.new_unit(
            send_within=self._entities.connection.timings.data_send_limit
        )
        return _Claim(job, remote_value(job, "data"), lease, end, unit)

    async def _wait_for_others(self, began: float) -> None:
        """Wait until every session that has read the Job at the same time has written."""
        await anyio.sleep(max(self._waiting_time, 2 * (anyio.current_time() - began)))

    async def _is_standing(self, claim: _Claim) -> bool:
        """Read the Job again; return whether *claim* is what stands in its data."""
        found = await fetch_jobs(self._entities, [claim.job.id])
        data = parse_job_data(remote_value(claim.job, "data"))
        return bool(found) and data.get(LEASE) == claim.lease

    def _withdraw_soon(self, claim: _Claim) -> None:
        """Take a claim out again, in the background: its task may have been cancelled."""
        self._busy.add(claim.job.id)
        try:
            self._background.spawn(self._withdraw, claim)
        except SessionStateError:  # the claim ends by itself
            self._busy.discard(claim.job.id)

    async def _withdraw(self, claim: _Claim) -> None:
        try:
            with self._background.keep_alive(), anyio.move_on_after(self._seconds):
                await claim.unit.settled()
                await write_anew(self._entities.connection, partial(self._remove, claim))
        except Exception as exc:  # noqa: BLE001 - others may keep anything in its data
            logger.warning(
                "%(job)r stays claimed for %(seconds)g s: %(error)s",
                job=claim.job,
                seconds=self._seconds,
                error=exc,
            )
        finally:
            self._busy.discard(claim.job.id)

    async def _remove(self, claim: _Claim, send_within: float) -> None:
        if await self._is_standing(claim):
            data = remote_value(claim.job, "data")
            unit = self._entities.new_unit(send_within=send_within)
            unit.set(claim.job, data=remove_lease(data, claim.before, claim.lease))
            await unit.commit()

    async def close(self) -> None:
        """Take out the claims to Jobs that were not begun; the session closes."""
        claims, self._claimed = list(self._claimed.values()), {}
        with anyio.move_on_after(_CLOSING):
            async with anyio.create_task_group() as group:
                for claim in claims:
                    if claim.end > anyio.current_time():
                        group.start_soon(self._withdraw, claim)

    # Beginning a particular Job

    def enter(self, job: Job, began: float, *, take_over: bool) -> Beginning:
        """Check that *job* may be begun, and keep other tasks of this session from doing so.

        Args:
            job: A Job that was just read.
            began: When the read began, in the time of the event loop.
            take_over: Take it from its owner.

        Raises:
            JobOwnedError: It has an owner, and nothing was written.
        """
        owner = self._owner_of(job)
        if job.id in self._busy:
            raise self.owned_here(job)
        is_own = owner is not None and owner.holder == self._holder
        if owner is not None and not is_own and not take_over:
            raise owned_error(job.id, owner)
        claim = self._claimed.pop(job.id, None)
        was_claimed = claim is not None or job in self._lapsed
        self._lapsed.discard(job)
        is_queued = remote_value(job, "status") == JobStatus.QUEUED
        if was_claimed and not is_queued and not take_over:
            raise owned_error(job.id, None)
        is_claimed = is_own and is_queued and claim is not None
        self._busy.add(job.id)
        return Beginning(self._former_of(job), is_claimed, began)

    def _former_of(self, job: Job) -> Lease | None:
        """Return the lease of another session that runs *job*, or may be cut off and come back."""
        lease = Lease.of(parse_job_data(remote_value(job, "data")))
        if lease is None or remote_value(job, "status") != JobStatus.RUNNING:
            return None
        is_dead = lease.process.is_alive() is False
        return None if is_dead or lease.is_claim or lease.holder == self._holder else lease

    def exit(self, job: Job) -> None:
        """Note that *job* was begun, or could not be."""
        self._busy.discard(job.id)

    async def confirm(
        self, job: Job, beginning: Beginning, write: Callable[[], Awaitable[None]]
    ) -> None:
        """Make sure that no other session has begun *job* at the same time.

        Args:
            job: A Job that this session has written as running, with a lease.
            beginning: What :meth:`enter` has returned.
            write: Writes it again, if its former owner has overwritten it.

        Raises:
            JobOwnedError: Another session has it.
        """
        began = beginning.began
        former = None if beginning.former is None else beginning.former.holder
        if beginning.is_claimed and anyio.current_time() - began <= self._waiting_time:
            return
        for _ in range(_REPETITIONS):
            await self._wait_for_others(began)
            began = anyio.current_time()
            await fetch_jobs(self._entities, [job.id])
            owner = self._owner_of(job)
            if remote_value(job, "status") != JobStatus.RUNNING:
                raise owned_error(job.id, None)  # it has been run meanwhile
            if self._is_confirmed(owner):
                return
            if owner is not None and not owner.is_claim and owner.holder != former:
                break
            await write()
        raise owned_error(job.id, owner)

    def _is_confirmed(self, owner: Lease | None) -> bool:
        if owner is None:
            return not self._has_leases
        return owner.holder == self._holder and not owner.is_claim

    def owned_here(self, job: Job) -> JobOwnedError:
        """Return the error about a Job of another block of this session."""
        here = this_process()
        return JobOwnedError(job.id, here.host, here.pid, self._holder)
