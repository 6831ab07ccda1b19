"""Renews the leases of a session whose event loop is blocked, in a thread.

A call that does not return to the event loop, such as ``time.sleep`` or a computation in C, keeps
it from renewing leases, and the Jobs of a live process would be taken for lost. So a thread asks
the event loop for a sign of life a few times in the life of a lease. If none comes, it renews the
leases itself, over a connection of its own. It needs the GIL: a call that holds that all the time
blocks it, too.

It changes nothing but the lease in what others hold. When the event loop comes back, it reads its
Jobs before it writes them, and waits there for a write that this thread has begun.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import anyio

from aioftrackjobs.background import BackgroundTasks, SafeLogger
from aioftrackjobs.errors import FtrackJobsError, ServerError, SessionStateError
from aioftrackjobs.jobs.ownership import LEASE, Lease
from aioftrackjobs.jobs.reading import JobReader
from aioftrackjobs.models import JobStatus, parse_job_data
from aioftrackjobs.protocol.operations import Update, encode_operation
from aioftrackjobs.protocol.query import key_criteria, select
from aioftrackjobs.protocol.values import Reference

logger: SafeLogger = SafeLogger(__name__)

#: Sends operations and returns their results, in a thread; raises FtrackJobsError.
Call = Callable[[Sequence[Mapping[str, Any]]], Sequence[Any]]

#: Seconds from one question to the next, at most.
_LONGEST_CHECK = 15.0

#: Jobs that are read and written together.
_CHUNK = 100

#: Seconds that an event loop waits for a write of the thread, at most.
_LONGEST_WAIT = 5.0

#: Seconds after which an event loop that is still blocked counts as dead: its leases end.
_LONGEST_BLOCK = 86_400.0


class RunningJobs(Protocol):
    """The Jobs whose leases are renewed; all of this is called in the thread."""

    def owned_ids(self) -> Sequence[str]:
        """Return the ids of the Jobs that the session runs now."""
        ...

    def is_being_ended(self) -> bool:
        """Return whether the session or the process ends, so that nothing is renewed."""
        ...

    def new_lease(self) -> Mapping[str, Any] | None:
        """Return a lease that begins now."""
        ...


class BlockedLoopGuard:
    """Renews leases while the event loop is blocked.

    Args:
        background: Knows the event loop.
        reader: Reads Jobs before the event loop writes them.
        jobs: The Jobs.
        call: Sends operations in the thread.
        interval: Seconds from one renewal to the next.
    """

    def __init__(
        self,
        background: BackgroundTasks,
        reader: JobReader,
        jobs: RunningJobs,
        call: Call,
        *,
        interval: float,
    ) -> None:
        self._background = background
        self._reader = reader
        self._jobs = jobs
        self._call = call
        self._interval = interval
        self._check = min(interval / 2, _LONGEST_CHECK)
        self._over = threading.Event()
        self._lock = threading.Lock()
        # The lock protects the following.
        self._is_running = False
        self._may_write = False
        self._is_writing = False
        self._written: anyio.Event | None = None
        # Written by the thread, or by the event loop when it answers.
        self._asked_at: float | None = None
        self._renewed = 0

    def start(self) -> None:
        """Start the thread unless it runs; it ends with the last Job. In the event loop."""
        with self._lock:
            if self._is_running:
                return
            self._is_running = True
        self._loop_thread = threading.current_thread()
        self._asked_at = None
        # A daemon thread: a program that does not close its session may end all the same.
        threading.Thread(target=self._run, name="aioftrackjobs leases", daemon=True).start()

    def end(self) -> None:
        """End the thread: the session is closed."""
        self._over.set()

    def _run(self) -> None:
        renewed_at: float | None = None
        while not self._over.wait(self._check) and self._loop_thread.is_alive():
            with self._lock:
                if not self._jobs.owned_ids():
                    self._is_running = False
                    return
            now, asked_at = time.monotonic(), self._asked_at
            if asked_at is None:
                renewed_at = None
                if not self._ask(now):
                    return
            elif now - asked_at > _LONGEST_BLOCK:
                return
            elif renewed_at is None or now - renewed_at >= self._interval - self._check:
                renewed_at = now if self._renew_all() else None

    def _ask(self, now: float) -> bool:
        """Ask the event loop for a sign of life; return whether there is one."""
        self._asked_at = now
        try:
            self._background.call_in_loop(self._answer)
        except SessionStateError:
            return False
        return True

    def _answer(self) -> None:
        asked_at, self._asked_at = self._asked_at, None
        if self._renewed and asked_at is not None:
            logger.warning(
                "the event loop was blocked for %(seconds).0f s; a thread has renewed the "
                "leases of its "
                "Jobs meanwhile; run what blocks it in a thread",
                seconds=time.monotonic() - asked_at,
            )
        self._renewed = 0

    def _renew_all(self) -> bool:
        """Renew all leases; return whether that is done."""
        ids = self._jobs.owned_ids()
        self._may_write, self._reader.before_read = True, self._interrupt
        self._reader.blocks += 1
        try:
            chunks = (ids[start : start + _CHUNK] for start in range(0, len(ids), _CHUNK))
            return all(self._renew(chunk) for chunk in chunks)
        except Exception as exc:  # noqa: BLE001 - there is no caller; the next check tries again
            logger.debug("leases were not renewed: %(error)s", error=type(exc).__name__)
            return False
        finally:
            self._reader.before_read = None

    def _renew(self, ids: Sequence[str]) -> bool:
        criteria = key_criteria([Reference("Job", (("id", each),)) for each in ids])
        query = {"action": "query", "expression": select(("id", "status", "data"), "Job", criteria)}
        (found,) = self._call([query])
        lease = self._jobs.new_lease()
        if lease is None or not self._begin_writing():
            return False
        try:
            updates = list(_renewals(found["data"], lease))
            if updates:
                _send(self._call, updates)
                self._renewed += len(updates)
        finally:
            self._end_writing()
        return True

    def _begin_writing(self) -> bool:
        """Return whether the thread may write, because the event loop has not come back."""
        with self._lock:
            self._is_writing = self._may_write and self._asked_at is not None
            self._is_writing = self._is_writing and not self._jobs.is_being_ended()
            return self._is_writing

    def _end_writing(self) -> None:
        with self._lock:
            self._is_writing, written, self._written = False, self._written, None
        if written is not None:
            self._background.call_in_loop(written.set)

    async def _interrupt(self) -> None:
        """Let the thread write no more, and wait for a write that it has begun. In the loop."""
        with self._lock:
            self._may_write = False
            if not self._is_writing:
                return
            self._written = self._written or anyio.Event()
            written = self._written
        with anyio.move_on_after(_LONGEST_WAIT) as scope:
            await written.wait()
        if scope.cancelled_caught:
            with self._lock:
                self._is_writing = False  # other reads do not wait for it again


def _renewals(rows: Iterable[Any], lease: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    """Return the operations that renew the lease of each Job that still has the same holder."""
    for row in rows:
        data = parse_job_data(row["data"])
        found = Lease.of(data)
        if row["status"] != JobStatus.RUNNING or found is None or found.is_claim:
            continue
        if found.holder == lease["holder"]:
            text = json.dumps({**data, LEASE: lease})
            yield encode_operation(Update(Reference("Job", (("id", row["id"]),)), {"data": text}))


def _send(call: Call, updates: Sequence[Mapping[str, Any]]) -> None:
    """Send *updates* together, and if the server refuses that, one by one."""
    try:
        call(updates)
    except ServerError:
        for update in updates if len(updates) > 1 else ():
            try:
                call([update])
            except FtrackJobsError as exc:
                logger.debug("a lease was not renewed: %(error)s", error=type(exc).__name__)
