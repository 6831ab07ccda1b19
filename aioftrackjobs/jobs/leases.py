"""The active Jobs of a session: their leases are renewed, and they are read from time to time.

The session that runs a Job renews the Job's lease for as long as its process lives. If the process
dies, or loses the server, the lease ends, and any other session may then fail the Job.

In between, one query for all Jobs of the session shows which of them another client has stopped,
ended or deleted.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from typing import Any, Protocol
from weakref import WeakValueDictionary

import anyio

from aioftrackjobs.background import BackgroundTasks, SafeLogger
from aioftrackjobs.commit.api_client import ServerStatus
from aioftrackjobs.errors import FtrackJobsError, ServerError, SessionStateError
from aioftrackjobs.jobs.blocked_loop import BlockedLoopGuard
from aioftrackjobs.jobs.ownership import Lease
from aioftrackjobs.jobs.reading import JobReader, ReadableJob
from aioftrackjobs.journal import Journal, Process, this_process

logger: SafeLogger = SafeLogger(__name__)

#: How often a lease is renewed before it would end.
RENEWALS = 3

#: Seconds from the end of a lease for which its owner is waited for if its process lives on this
#: host: its event loop may be blocked, or the process be stopped. A process that has given up one
#: of its Jobs looks the same, so that this must end some time.
LIVING_GRACE = 86_400.0

#: Jobs that the warning of a session that closes names.
_MOST_NAMES = 10


class ActiveJob(ReadableJob, Protocol):
    """A Job that runs."""

    @property
    def read_at(self) -> float:
        """When it was last read, in monotonic seconds."""
        ...

    def is_job(self, job_id: str) -> bool:
        """Return whether it is the Job with this id."""
        ...

    def note_takeover(self) -> None:
        """Leave the Job to another block of this session, which has taken it over."""
        ...

    def renew_lease(self, older_than: float) -> None:
        """Have the lease written again soon, if it was written more than some seconds ago."""
        ...

    def cancel(self, keep: Collection[int]) -> None:
        """Cancel the task of the block, unless the Job ends already, or *keep* has the task."""
        ...

    async def close(self) -> None:
        """End the Job if it is owned here, in limited time, although its block goes on."""
        ...


class ThreadCalls(Protocol):
    """What of a connection can be used in a thread."""

    @property
    def may_call_in_thread(self) -> bool:
        """Whether :meth:`call_in_thread` reaches the server as the session does."""
        ...

    def call_in_thread(self, operations: Sequence[Mapping[str, Any]], /) -> Sequence[Any]:
        """Send *operations*, and return the result of each."""
        ...


#: What each session of this process runs, by its holder in leases.
_of_sessions = WeakValueDictionary[str, "ActiveJobs"]()


def is_lost(job_id: str, lease: Lease, now: datetime, grace: float) -> bool:
    """Return whether the running Job with a *lease* has no owner any more, as seen from here.

    That is stricter than :meth:`.Lease.is_over`, which decides who may run a Job: an owner on this
    host that lives keeps its Job although it has not renewed the lease in time.

    Args:
        job_id: The id of the Job.
        lease: What its data hold.
        now: The time of the server.
        grace: Seconds by which clocks may differ.
    """
    if not lease.is_over(now, grace):
        return False
    if lease.process == this_process():  # known, and not only likely
        session = _of_sessions.get(lease.holder)
        return session is None or not session.holds(job_id)
    if lease.is_claim or not lease.process.is_alive():
        return True
    return (now - lease.until).total_seconds() > LIVING_GRACE


class ActiveJobs:
    """The Jobs that a session runs: renews their leases, reads them, cancels them at a shutdown.

    Args:
        background: Where leases are renewed.
        server: Knows the time of the server.
        journal: Names the session in leases, and keeps final statuses that are not delivered.
        reader: Reads what others have written in the Jobs.
        connection: Reaches the server in a thread, while the event loop is blocked.
        seconds: How long a lease lasts; 0 for no leases.
        period: Seconds from one read of the Jobs to the next; less if leases are renewed more
            often.
        listen: Listens for events about the Jobs, if that is possible by now.

    Attributes:
        shutdown_reason: Why all Jobs are being cancelled; None if they are not.
        shutdown_deadline: When the process is going to end, in the time of the event loop.
        is_closing: Whether the session is being closed, or is closed.
    """

    def __init__(
        self,
        background: BackgroundTasks,
        server: ServerStatus,
        journal: Journal,
        reader: JobReader,
        connection: ThreadCalls,
        *,
        seconds: float,
        period: float,
        listen: Callable[[], None],
    ) -> None:
        self._background = background
        self._server = server
        self._journal = journal
        self._reader = reader
        self._seconds = seconds
        self._interval = seconds / RENEWALS
        self._period = min(self._interval, period) if seconds else period
        self._listen = listen
        self._connection = connection
        self._guard = BlockedLoopGuard(
            background, reader, self, connection.call_in_thread, interval=self._interval
        )
        self._jobs: dict[ActiveJob, None] = {}
        self._guests: dict[ActiveJob, bool] = {}
        self._lease: Mapping[str, Any] | None = None
        self._lease_made_at: tuple[int, timedelta] | None = None
        self._process: Process | None = None
        self._is_watching = self._is_reading = self._has_warned = False
        self._blocks = 0
        self._all_left: anyio.Event | None = None
        server.on_clock_step = self._handle_clock_step
        _of_sessions[journal.holder] = self
        self.shutdown_reason: str | None = None
        self.shutdown_deadline: float = math.inf
        self.is_closing: bool = False
        self._ending: dict[ActiveJob, None] = {}
        self._all_reported: anyio.Event | None = None

    @property
    def has_leases(self) -> bool:
        """Whether the Jobs of the session carry leases."""
        return bool(self._seconds)

    def new_lease(self) -> Mapping[str, Any] | None:
        """Return a lease that begins now, as a Job's data hold it; None without leases."""
        if not self._seconds:
            return None
        # The times in leases are whole seconds: all Jobs of the same second share one.
        made_at = int(time.monotonic()), self._server.clock_offset
        if self._lease is None or made_at != self._lease_made_at:
            # Found out late: a process may make a session and fork before it is opened.
            self._process = self._process or this_process()
            until = self._server.server_time() + timedelta(seconds=self._seconds)
            self._lease = Lease(self._journal.holder, self._process, until).encode()
            self._lease_made_at = made_at
        return self._lease

    def add(self, job: ActiveJob, *, renew_now: bool) -> None:
        """Renew the lease of *job*, and read it, from now on.

        Args:
            job: A Job that has just begun.
            renew_now: Renew at once, because the clock of the server was not known well enough
                when the first lease was written.
        """
        self._jobs[job] = None
        if self._seconds and renew_now:
            job.renew_lease(0.0)
        self._start_watching()
        if self._seconds and self._connection.may_call_in_thread:
            self._guard.start()

    def _start_watching(self) -> None:
        if not self._is_watching:
            try:
                self._background.spawn(self._watch)
            except SessionStateError:
                return  # the session is closed: it reads and writes nothing any more
            self._is_watching = True

    def add_guest(self, job: ActiveJob, *, is_read: bool) -> None:
        """Cancel *job* at a shutdown, but renew no lease: this session does not own it.

        Args:
            job: A Job that was taken over or deleted, or that its block has joined.
            is_read: Whether to read it from time to time.
        """
        self._jobs.pop(job, None)
        self._guests[job] = is_read
        if is_read:
            self._start_watching()

    def discard(self, job: ActiveJob) -> None:
        """Leave *job* alone: it ends, or has never begun."""
        self._jobs.pop(job, None)
        self._guests.pop(job, None)

    def owned_ids(self) -> list[str]:
        """Return the ids of the Jobs whose leases are renewed; in any thread."""
        return [job.entity.id for job in tuple(self._jobs)]

    def is_being_ended(self) -> bool:
        """Return whether the session or the process ends, and with it all Jobs; in any thread."""
        return self.is_closing or self.shutdown_reason is not None

    def find(self, job_id: str) -> ActiveJob | None:
        """Return the Job with this id that this session owns; None if it owns none."""
        return next((job for job in self._jobs if job.is_job(job_id)), None)

    def holds(self, job_id: str) -> bool:
        """Return whether this session runs the Job with this id, or is to end it; in any thread."""
        owned = (*tuple(self._jobs), *tuple(self._ending))
        return self._journal.keeps_job(job_id) or any(job.is_job(job_id) for job in owned)

    def is_ending(self, job_id: str) -> bool:
        """Return whether this session is reporting how the Job with this id ended."""
        return any(job.is_job(job_id) for job in self._ending)

    def _readable(self) -> list[ActiveJob]:
        return [*self._jobs, *(job for job, is_read in self._guests.items() if is_read)]

    async def _watch(self) -> None:
        """Renew leases and read Jobs from time to time, for as long as there are any."""
        try:
            while self._readable():
                await anyio.sleep(self._period)
                with self._background.surviving("a round of lease renewals"):
                    self._listen()
                    if self._seconds:
                        self.renew_all(older_than=self._interval - self._period / 2)
                    if not self._is_reading:  # a read that hangs must not hold up renewals
                        self._background.spawn(self._read_all)
                        self._is_reading = True
        except SessionStateError:
            pass  # it is closed
        finally:
            self._is_watching = False

    async def _read_all(self) -> None:
        """Read the Jobs that were not read lately, as before each report."""
        earlier = time.monotonic() - self._period / 2
        jobs = [job for job in self._readable() if job.read_at < earlier]
        try:
            await self._reader.read(jobs)
        except SessionStateError:
            pass  # it is closed
        except ServerError as exc:  # that does not pass: once is enough to say it
            if not self._has_warned:
                logger.warning("stop requests for Jobs cannot be read: %(error)s", error=exc)
            self._has_warned = True
        except FtrackJobsError as exc:
            logger.debug("the Jobs that run were not read: %(error)s", error=exc)
        finally:
            self._is_reading = False

    def wake(self, ids: Collection[str] | None) -> None:
        """Read those of the Jobs with *ids* now that the session runs; all if that is None."""
        readable = self._readable()
        jobs = (
            readable if ids is None else [each for each in readable if any(map(each.is_job, ids))]
        )
        if jobs:
            with suppress(SessionStateError):  # it is closed
                self._background.spawn(self._read_now, jobs)

    async def _read_now(self, jobs: Sequence[ActiveJob]) -> None:
        try:
            await self._reader.read(jobs)
        except FtrackJobsError as exc:  # the next round reads them, too
            logger.debug("Jobs that others have written were not read: %(error)s", error=exc)

    def renew_all(self, *, older_than: float) -> None:
        """Renew all leases that were written more than *older_than* seconds ago."""
        for job in tuple(self._jobs):
            with self._background.surviving("the renewal of a lease"):
                job.renew_lease(older_than)

    def _handle_clock_step(self, change: timedelta) -> None:
        """Renew all leases if the server's clock has moved so far that they may end too early."""
        if self._seconds and change.total_seconds() > self._interval:
            self.renew_all(older_than=0.0)

    @contextmanager
    def count_block(self) -> Iterator[None]:
        """Count a block, from before its Job begins until after its final status is recorded."""
        self._blocks += 1
        try:
            yield
        finally:
            self._blocks -= 1
            if not self._blocks and self._all_left is not None:
                self._all_left.set()

    async def wait_until_all_left(self) -> None:
        """Wait until no task is in the block of a Job."""
        while self._blocks:
            self._all_left = anyio.Event()
            await self._all_left.wait()

    @contextmanager
    def count_report(self, job: ActiveJob) -> Iterator[None]:
        """Count the report of the final status of *job*, which closing waits for."""
        self._ending[job] = None
        try:
            yield
        finally:
            self._ending.pop(job, None)
            if not self._ending and self._all_reported is not None:
                self._all_reported.set()

    async def close(self) -> None:
        """End the Jobs that still run, all together, and wait for those that end by themselves."""
        self.is_closing = True
        self._guard.end()
        running = tuple(self._jobs)
        if running:
            names = ", ".join(map(repr, running[:_MOST_NAMES]))
            if len(running) > _MOST_NAMES:
                names += f" and {len(running) - _MOST_NAMES} more"
            logger.warning(
                "the session is closed while Jobs are running; this ends them: %(jobs)s", jobs=names
            )

        async def close(job: ActiveJob) -> None:
            with self._background.surviving("the end of a Job when the session closes"):
                await job.close()

        async with anyio.create_task_group() as group:
            for job in (*running, *self._guests):
                group.start_soon(close, job)
        while self._ending:
            self._all_reported = anyio.Event()
            await self._all_reported.wait()

    def cancel_all(self, *, keep: Collection[int]) -> None:
        """Cancel the blocks of all Jobs that do not end yet, except in the tasks of *keep*."""
        for job in (*self._jobs, *self._guests):
            job.cancel(keep)
