"""The active Jobs of a session, and the renewal of their leases.

The session that runs a Job renews the Job's lease for as long as its process lives. If the process
dies, or loses the server, the lease ends, and any other session may then fail the Job.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Protocol

import anyio

from aioftrackjobs.background import BackgroundTasks
from aioftrackjobs.commit.api_client import ServerStatus
from aioftrackjobs.errors import SessionStateError
from aioftrackjobs.jobs.ownership import Lease
from aioftrackjobs.journal import Process, this_process
from aioftrackjobs.models import Job

logger = logging.getLogger(__name__)

#: How often a lease is renewed before it would end.
RENEWALS = 3


class ActiveJob(Protocol):
    """A Job that runs."""

    @property
    def entity(self) -> Job:
        """The Job itself."""
        ...

    def lose(self) -> None:
        """Leave the Job to another owner, which has taken it over."""
        ...

    def renew_lease(self, older_than: float) -> None:
        """Have the lease written again soon, if it was written more than some seconds ago."""
        ...

    def cancel(self, keep: Collection[int]) -> None:
        """Cancel the task of the block, unless the Job ends already, or *keep* has the task."""
        ...

    async def close(self) -> None:
        """Record that the Job failed, in limited time, although its block goes on."""
        ...


class ActiveJobs:
    """The Jobs that a session runs: renews their leases, and cancels them at a shutdown.

    Args:
        background: Where leases are renewed.
        server: Knows the time of the server.
        holder: Names the session in leases.
        seconds: How long a lease lasts; 0 for no leases.

    Attributes:
        shutdown_reason: Why all Jobs are being cancelled; None if they are not.
        shutdown_deadline: When the process is going to end, in the time of the event loop.
        is_closing: Whether the session is being closed, or is closed.
    """

    def __init__(
        self, background: BackgroundTasks, server: ServerStatus, holder: str, *, seconds: float
    ) -> None:
        self._background = background
        self._server = server
        self._holder = holder
        self._seconds = seconds
        self._interval = seconds / RENEWALS
        self._jobs: dict[ActiveJob, None] = {}
        self._guests: dict[ActiveJob, None] = {}
        self._lease: Mapping[str, Any] | None = None
        self._lease_made_at: tuple[int, timedelta] | None = None
        self._process: Process | None = None
        self._is_renewing = False
        self._blocks = 0
        self._all_left: anyio.Event | None = None
        server.on_clock_step = self._handle_clock_step
        self.shutdown_reason: str | None = None
        self.shutdown_deadline = math.inf
        self.is_closing = False
        self._reports = 0
        self._all_reported: anyio.Event | None = None

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
            self._lease = Lease(self._holder, self._process, until).encode()
            self._lease_made_at = made_at
        return self._lease

    def add(self, job: ActiveJob, *, renew_now: bool) -> None:
        """Renew the lease of *job* from now on.

        Args:
            job: A Job that has just begun.
            renew_now: Renew at once, because the clock of the server was not known well enough
                when the first lease was written.
        """
        self._jobs[job] = None
        if not self._seconds:
            return
        if renew_now:
            job.renew_lease(0.0)
        if not self._is_renewing:
            try:
                self._background.spawn(self._renew_leases)
            except SessionStateError:
                return  # the session is closed: it writes nothing any more
            self._is_renewing = True

    def add_guest(self, job: ActiveJob) -> None:
        """Only cancel *job* at a shutdown from now on: another owner renews its lease, and ends it.

        Args:
            job: A Job that was taken over, or that its block has joined.
        """
        self._jobs.pop(job, None)
        self._guests[job] = None

    def discard(self, job: ActiveJob) -> None:
        """Stop renewing the lease of *job*: it ends, or has never begun."""
        self._jobs.pop(job, None)
        self._guests.pop(job, None)

    def find(self, job_id: str) -> ActiveJob | None:
        """Return the Job with this id that this session owns; None if it owns none."""
        return next((job for job in self._jobs if job.entity.id == job_id), None)

    async def _renew_leases(self) -> None:
        """Renew all leases from time to time, for as long as there are any."""
        try:
            while self._jobs:
                await anyio.sleep(self._interval)
                self.renew_all(older_than=self._interval / 2)
        finally:
            self._is_renewing = False

    def renew_all(self, *, older_than: float) -> None:
        """Renew all leases that were written more than *older_than* seconds ago."""
        for job in tuple(self._jobs):
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
    def count_report(self) -> Iterator[None]:
        """Count the report of a final status, which closing waits for."""
        self._reports += 1
        try:
            yield
        finally:
            self._reports -= 1
            if not self._reports and self._all_reported is not None:
                self._all_reported.set()

    async def close(self) -> None:
        """End the Jobs that still run, all together, and wait for those that end by themselves."""
        self.is_closing = True
        running = tuple(self._jobs)
        if running:
            names = ", ".join(map(repr, running))
            logger.warning("the session is closed while Jobs are running, which fail: %s", names)
            async with anyio.create_task_group() as group:
                for job in running:
                    group.start_soon(job.close)
        while self._reports:
            self._all_reported = anyio.Event()
            await self._all_reported.wait()

    def cancel_all(self, *, keep: Collection[int]) -> None:
        """Cancel the blocks of all Jobs that do not end yet, except in the tasks of *keep*."""
        for job in (*self._jobs, *self._guests):
            job.cancel(keep)
