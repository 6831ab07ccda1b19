"""Who runs a Job, and until when that holds: the lease in its ``data``.

The owner renews it for as long as it lives, in the time of the server, so that the clocks of hosts
need not agree. Pure: no I/O, no clock.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, NamedTuple, Protocol

import anyio

from aioftrackjobs.background import BackgroundTasks
from aioftrackjobs.commit.api_client import ServerStatus
from aioftrackjobs.errors import SessionStateError
from aioftrackjobs.journal import Process, this_process

#: The key in a Job's data.
LEASE = "lease"

#: Seconds that a lease lasts if nothing else is said, and after it for clocks that differ.
LEASE_SECONDS, CLOCK_GRACE = 180.0, 60.0

#: How many renewals there are in the life of a lease.
RENEWALS = 3


class Lease(NamedTuple):
    """A claim to a Job.

    Attributes:
        holder: Names the session that holds it.
        process: Where that session is.
        until: When it runs out unless it is renewed.
    """

    holder: str
    process: Process
    until: datetime

    def encode(self) -> dict[str, Any]:
        """Return it as it stands in a Job's data."""
        until = self.until.isoformat(timespec="seconds")
        return {"holder": self.holder, **self.process.encode(), "until": until}

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Lease | None:
        """Return the lease in a Job's *data*; None if there is none that can be read."""
        match data.get(LEASE):
            case {"holder": str() as holder, "until": str() as text}:
                process, until = Process.decode(data[LEASE]), _moment(text)
                if process is not None and until is not None:
                    return cls(holder, process, until)
        return None

    def is_over(self, now: datetime, grace: float) -> bool:
        """Tell whether nobody holds it: its owner is dead, or it ran out *grace* seconds ago.

        Whose process lives loses it too when it runs out: it may be cut off, but it may as well
        have given up its Job, and it looks the same from any other host.

        Args:
            now: The time of the server.
            grace: Seconds by which clocks may differ.
        """
        if (now - self.until).total_seconds() > grace:
            return True
        return self.process.is_alive() is False


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None


class ActiveJob(Protocol):
    """A Job that runs."""

    def renew(self, older_than: float) -> None:
        """Have the lease written again soon, if it was written more than some seconds ago."""
        ...

    def cancel(self, keep: Collection[int]) -> None:
        """Cancel the block's task, unless it is ending already, or its id is to be kept."""
        ...


class ActiveJobs:
    """Keeps the running Jobs of a session.

    Args:
        host: Where leases are renewed.
        contact: Tells the time of the server.
        holder: Names the session in leases.
        seconds: How long a lease lasts; 0 for no leases.

    Attributes:
        leaving: Why all of them are being cancelled, if they are.
        leaves_at: When the process is going to end, in the time of the event loop.
    """

    def __init__(
        self, host: BackgroundTasks, contact: ServerStatus, holder: str, *, seconds: float
    ) -> None:
        self._host = host
        self._contact = contact
        self._holder = holder
        self._seconds = seconds
        self._pause = seconds / RENEWALS
        self._courses: dict[ActiveJob, None] = {}
        self._lease: Mapping[str, Any] | None = None
        self._made_for: tuple[int, timedelta] | None = None
        self._renews = False
        self._inside = 0
        self._over: anyio.Event | None = None
        contact.on_step = self._note_step
        self.leaving: str | None = None
        self.leaves_at = math.inf

    def lease(self) -> Mapping[str, Any] | None:
        """Return a lease from now on, as it stands in data; None if there are to be none."""
        if not self._seconds:
            return None
        made_for = int(time.monotonic()), self._contact.ahead  # leases are told to the second
        if self._lease is None or made_for != self._made_for:
            until = self._contact.server_time() + timedelta(seconds=self._seconds)
            self._lease = Lease(self._holder, this_process(), until).encode()
            self._made_for = made_for
        return self._lease

    def add(self, course: ActiveJob, *, renew_now: bool) -> None:
        """Renew the lease of *course* from now on; at once if that of its beginning is odd."""
        self._courses[course] = None
        if not self._seconds:
            return
        if renew_now:
            course.renew(0.0)
        if not self._renews:
            try:
                self._host.spawn(self._renew)
            except SessionStateError:
                return  # the session is closed: nothing is written any more
            self._renews = True

    def discard(self, course: ActiveJob) -> None:
        """Forget *course*: it has ended, or has never begun."""
        self._courses.pop(course, None)

    async def _renew(self) -> None:
        """Renew all leases now and then, for as long as there are any."""
        try:
            while self._courses:
                await anyio.sleep(self._pause)
                self._renew_all(self._pause / 2)
        finally:
            self._renews = False

    def _renew_all(self, older_than: float) -> None:
        for course in tuple(self._courses):
            course.renew(older_than)

    def _note_step(self, change: timedelta) -> None:
        """Renew all leases if they are wrong by so much that they may be over before their turn."""
        if self._seconds and change.total_seconds() > self._pause:
            self._renew_all(0.0)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Count a block, from before its Job begins until after its last word."""
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1
            if not self._inside and self._over is not None:
                self._over.set()

    async def over(self) -> None:
        """Wait until there is no block any more."""
        while self._inside:
            self._over = anyio.Event()
            await self._over.wait()

    def cancel_all(self, *, keep: Collection[int]) -> None:
        """Cancel the blocks of all Jobs that are not ending yet, but for the tasks to *keep*."""
        for course in tuple(self._courses):
            course.cancel(keep)
