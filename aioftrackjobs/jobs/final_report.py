"""FinalReport: records the final status of a Job, whatever happens to the task that ran it.

The final status is sent in the background of the session, where no cancellation reaches it, within
a bounded time. While the server is away, it is written again and again; before each attempt the Job
is read, because others may have written its data since. If it cannot be read, the status is written
without a text, and the text follows in the background.

With a journal, the final status is durable there before it is sent, and stays until the server has
it. If it cannot be delivered in time, the replay of the journal delivers it later, and that is no
error.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import anyio

from aioftrackjobs.commit.unit_of_work import UnitOfWork
from aioftrackjobs.errors import (
    CommitUncertainError,
    EntityError,
    FtrackJobsError,
    JobDeletedError,
    ServerError,
    TransportError,
)
from aioftrackjobs.jobs.channels import Channels
from aioftrackjobs.jobs.context import JobsContext
from aioftrackjobs.jobs.data import JobData
from aioftrackjobs.jobs.interventions import Interventions
from aioftrackjobs.jobs.leases import ActiveJob
from aioftrackjobs.jobs.termination import is_final_refusal
from aioftrackjobs.jobs.writing import allows_no_read, may_pass, write_anew
from aioftrackjobs.journal import Receipt
from aioftrackjobs.models import JobStatus, remote_value
from aioftrackjobs.transport import redact

logger = logging.getLogger(__name__)


class EndingJob(ActiveJob, Protocol):
    """A Job that ends."""

    @property
    def interventions(self) -> Interventions:
        """What others do to it."""
        ...

    @property
    def has_begun(self) -> bool:
        """Whether the server is known to have had the Job."""
        ...


class FinalReport:
    """The final status of one Job, on its way to the server.

    Args:
        jobs: What the Jobs of the session share.
        running: The Job.
        data: What it reports.
        channels: What may still be writing the Job's data.
        grace: Seconds that the delivery may take.

    Attributes:
        error: Why the final status could be delivered neither in time nor later; None if it was,
            or if the replay of the journal delivers it.
    """

    def __init__(
        self,
        jobs: JobsContext,
        running: EndingJob,
        data: JobData,
        channels: Channels,
        *,
        grace: float,
    ) -> None:
        self._jobs = jobs
        self._running = running
        self._job = running.entity
        self._data = data
        self._channels = channels
        self._grace = grace
        self._unit: UnitOfWork | None = None  # of the latest attempt
        self._last_error: Exception | None = None  # of the attempt before
        self._is_text_known = True
        self.error: Exception | None = None

    async def deliver(self, status: JobStatus, deadline: float | None = None) -> None:
        """Record that the Job ended with *status*; to be run in the background.

        Args:
            status: How the Job ended.
            deadline: In the time of the event loop; the grace from now on if None.
        """
        journal, job_id = self._jobs.journal, self._job.id
        self._data.lease = None  # a Job that has ended has no owner
        deadline = deadline or anyio.current_time() + self._grace
        receipt: Receipt | None = None
        if journal.state != "off":
            receipt = journal.record_final_report(job_id, self._encode(status))
        with self._jobs.server.pauses.expedite():
            is_quiet = await self._stop_reports(deadline)  # while the journal is written
            began = anyio.current_time()
            is_kept = receipt is not None and await journal.wait_until_written(receipt)
            deadline += anyio.current_time() - began  # the grace is for the server alone
            await self._send(status, deadline, is_quiet=is_quiet)
        if self.error is None or is_final_refusal(self.error):
            journal.release_job(job_id)
        elif receipt is not None:
            self._jobs.replay.wake()
            if is_kept:  # otherwise it may be lost, and the caller has to know
                logger.warning(
                    "%r: its final status waits in the journal: %s", self._job, self.error
                )
                self.error = None

    def _encode(self, status: JobStatus) -> str:
        """Return the final report as the journal keeps it, without the API key."""
        key = self._jobs.api_key
        # Each value is redacted by itself: in JSON text, a replaced key could take a quote along.
        data = {
            name: redact(value, key) if isinstance(value, str) else value
            for name, value in self._data.compose(None).items()
        }
        # If it has begun and the server has no such Job later, it was deleted.
        has_begun = self._running.has_begun
        return json.dumps({"status": status.value, "data": data, "has_begun": has_begun})

    async def _stop_reports(self, deadline: float) -> bool:
        """Stop all reports; return whether none is in progress any more."""
        if not self._channels.are_used:
            return True
        half = anyio.current_time() + self._grace / 2
        with anyio.CancelScope(deadline=self._limit(min(deadline, half))) as scope:
            await self._channels.stop()
        return not scope.cancelled_caught

    def _limit(self, deadline: float) -> float:
        return min(deadline, self._jobs.active.shutdown_deadline)

    async def _send(self, status: JobStatus, deadline: float, *, is_quiet: bool) -> None:
        """Write *status* again and again until the server has applied it, or the deadline comes."""
        self.error = TransportError(f"no response within {self._grace:g} s")
        retry = replace(self._jobs.retry, budget=math.inf)
        with anyio.CancelScope(deadline=self._limit(deadline)) as scope:
            try:
                write = partial(self._write, status, deadline)
                connection = self._jobs.entities.connection
                await write_anew(connection, write, retry=retry, may_repeat=_may_succeed_soon)
                self.error = None
            except Exception as exc:  # noqa: BLE001 - kept, and raised or logged at the end
                self.error = exc
                if isinstance(exc, ServerError) and not exc.is_retryable:
                    self.error = await self._explain(exc, deadline)
        if scope.cancelled_caught:
            last_error = None if self._unit is None else self._unit.last_error
            self.error = last_error or self._last_error or self.error
        elif self.error is None and not (self._is_text_known and is_quiet):
            # Without a read, only the status was written; and an older report may still arrive.
            self._jobs.background.spawn(self._write_text)

    async def _write(self, status: JobStatus, deadline: float, patience: float) -> None:
        # Unordered: it need not wait for a report that hangs; that sets no status.
        unit = self._jobs.entities.new_unit(unordered=True, patience=patience)
        try:
            self._is_text_known = await self._read(deadline)
            self._unit = unit
            if self._running.interventions.is_taken_over:
                return
            values = {"data": self._compose()} if self._is_text_known else {}
            try:
                unit.set(self._job, status=status, **values)
            except (EntityError, ValueError):  # others keep in it what cannot be sent: leave it
                unit.set(self._job, status=status)
            await unit.commit()
        except Exception as exc:
            # Not how to settle a commit: that would send it as it was.
            cause = exc.__cause__ if isinstance(exc, CommitUncertainError) else None
            self._last_error = cause if isinstance(cause, TransportError) else exc
            raise

    async def _read(self, deadline: float) -> bool:
        """Read what others hold in the Job's data, unless that takes too long or is not possible.

        The final status is more important than that.

        Returns:
            Whether the data may be written: nothing in it is unknown that could be read.

        Raises:
            JobDeletedError: The Job was deleted.
        """
        now, is_known = anyio.current_time(), False
        quarter = now + (self._limit(deadline) - now) / 4  # the status and a traceback follow
        with anyio.CancelScope(deadline=quarter):
            try:
                await self._jobs.reader.read_with_others(self._running)
                is_known = True
            except FtrackJobsError as exc:
                is_known = allows_no_read(exc)
        if self._running.interventions.is_deleted:
            raise JobDeletedError(self._job.id)
        return is_known

    async def _explain(self, refusal: ServerError, deadline: float) -> Exception:
        """Return JobDeletedError if there is no such Job any more, otherwise the *refusal*."""
        try:
            await self._read(deadline)
            self._running.interventions.note_refusal(refusal)
        except JobDeletedError as exc:
            return exc
        return JobDeletedError(self._job.id) if self._running.interventions.is_deleted else refusal

    def _compose(self) -> Mapping[str, Any]:
        return self._data.compose(remote_value(self._job, "data"))

    async def _write_text(self) -> None:
        with self._jobs.background.optional():
            await self._channels.stop()
            try:
                await write_anew(self._jobs.entities.connection, self._write_data)
            except (FtrackJobsError, ValueError) as exc:
                logger.warning("%r: its last text was not written again: %s", self._job, exc)

    async def _write_data(self, patience: float) -> None:
        await self._jobs.reader.read_with_others(self._running)
        if not self._running.interventions.forbid_writes:
            unit = self._jobs.entities.new_unit(patience=patience)
            unit.set(self._job, data=self._compose())
            await unit.commit()


def _may_succeed_soon(error: object) -> bool:
    """Return whether a status that was not delivered because of *error* may be delivered soon."""
    return may_pass(error) or isinstance(error, (TransportError, CommitUncertainError))
