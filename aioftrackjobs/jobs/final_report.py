"""FinalReport: records the final status of a Job, whatever happens to the task that ran it.

The final status is sent in the background of the session, where no cancellation reaches it, within
a bounded time: :mod:`aioftrackjobs.jobs.delivery` sends it until the server has applied it.

With a journal, the final status is durable there before it is sent, and stays until the server has
it. If it cannot be delivered in time, the replay of the journal delivers it later, and that is no
error.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import anyio

from aioftrackjobs.background import SafeLogger
from aioftrackjobs.errors import JobDeletedError
from aioftrackjobs.jobs.channels import Channels
from aioftrackjobs.jobs.context import JobsContext
from aioftrackjobs.jobs.data import JobData
from aioftrackjobs.jobs.delivery import Delivery, EndingJob
from aioftrackjobs.jobs.ending import End
from aioftrackjobs.jobs.termination import is_final_refusal
from aioftrackjobs.journal import Receipt
from aioftrackjobs.models import JobStatus
from aioftrackjobs.transport import redact

if TYPE_CHECKING:
    from aioftrackjobs.jobs.job_log import JobLog

logger: SafeLogger = SafeLogger(__name__)


class FinalReport:
    """The final status of one Job, on its way to the server.

    Args:
        jobs: What the Jobs of the session share.
        running: The Job.
        data: What it reports.
        channels: What may still be writing the Job's data.
        end: How it ended.
        grace: Seconds that the delivery may take.
        log: What the block has logged, to be attached; None for nothing.

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
        end: End,
        *,
        grace: float,
        log: JobLog | None = None,
    ) -> None:
        self._jobs = jobs
        self._log = log
        self._running = running
        self._job = running.entity
        self._data = data
        self._channels = channels
        self._status = end.status
        self._grace = grace
        self.error: Exception | None = None

    async def deliver_or_log(
        self, deadline: float = math.inf, error: Exception | None = None
    ) -> None:
        """Do as :meth:`deliver`, and log why that was not possible.

        Args:
            deadline: In the time of the event loop; it is not later than the grace from now on.
            error: What a Job that has failed gets attached, with its traceback; None for nothing.
        """
        await self.deliver(deadline)
        if self.error is not None:
            logger.warning(
                "%(job)r: its failure was not reported: %(error)s", job=self._job, error=self.error
            )
        else:
            await self.attach(deadline, error if self._status is JobStatus.FAILED else None)

    async def attach(self, deadline: float = math.inf, error: Exception | None = None) -> None:
        """Attach what the block has logged, and the traceback of *error*, if there are any.

        Args:
            deadline: In the time of the event loop.
            error: By what the block was left.
        """
        log = "" if self._log is None else self._log.text(self._jobs.entities.redact)
        if error is None and not log:
            return
        if self._log is not None:  # an upload after a success has no other deadline
            deadline = min(deadline, anyio.current_time() + self._grace)
        with anyio.CancelScope(deadline=deadline) as scope:
            await self._running.attachments.add_report(self._job, error, log)
        if scope.cancelled_caught:
            logger.warning(
                "%(job)r: there was no time to attach its traceback or log", job=self._job
            )

    async def deliver(self, deadline: float = math.inf) -> None:
        """Record the final status of the Job; to be run in the background.

        Args:
            deadline: In the time of the event loop; it is not later than the grace from now on.
        """
        journal, job_id = self._jobs.journal, self._job.id
        self._data.lease = None  # a Job that has ended has no owner
        deadline = min(deadline, anyio.current_time() + self._grace)
        receipt: Receipt | None = None
        if journal.state != "off":
            with self._jobs.background.surviving("the record of a final status"):
                receipt = journal.record_final_report(job_id, self._encode())
        with self._jobs.server.pauses.expedite():
            is_quiet = False
            with self._jobs.background.surviving("the end of the progress reports"):
                is_quiet = await self._stop_reports(deadline)  # while the journal is written
            began = anyio.current_time()
            is_kept = receipt is not None and await journal.wait_until_written(receipt)
            deadline += anyio.current_time() - began  # the grace is for the server alone
            await self._send(deadline, is_quiet=is_quiet)
        if self.error is None or isinstance(self.error, JobDeletedError):
            journal.release_job(job_id)
            self._jobs.poll.wake([job_id])
        elif receipt is not None:
            self._jobs.replay.wake()
            # Otherwise it may be lost, and the caller has to know.
            if is_kept and not is_final_refusal(self.error):
                logger.warning(
                    "%(job)r: its final status waits in the journal: %(error)s",
                    job=self._job,
                    error=self.error,
                )
                self.error = None

    def _encode(self) -> str:
        """Return the final report as the journal keeps it, without the API key."""
        key = self._jobs.api_key
        # Each value is redacted by itself: in JSON text, a replaced key could take a quote along.
        data = {
            name: redact(value, key) if isinstance(value, str) else value
            for name, value in self._data.compose(None).items()
        }
        # If it has begun and the server has no such Job later, it was deleted.
        has_begun = self._running.has_begun
        return json.dumps({"status": self._status.value, "data": data, "has_begun": has_begun})

    async def _stop_reports(self, deadline: float) -> bool:
        """Stop all reports; return whether none is in progress any more."""
        if not self._channels.are_used:
            return True
        quarter = anyio.current_time() + self._grace / 4
        with anyio.CancelScope(deadline=self._limit(min(deadline, quarter))) as scope:
            await self._channels.stop()
        return not scope.cancelled_caught

    def _limit(self, deadline: float) -> float:
        return min(deadline, self._jobs.active.shutdown_deadline)

    async def _send(self, deadline: float, *, is_quiet: bool) -> None:
        delivery = Delivery(self._jobs, self._running, self._data, self._status, grace=self._grace)
        delivery.is_suspicious = not is_quiet
        await delivery.run(self._limit(deadline))
        self.error = delivery.error
        if self.error is None and (delivery.lacks_text or not is_quiet):
            # Without it, the reason is missing; and an older report may still overwrite it.
            self._jobs.background.spawn(self._write_text, delivery)

    async def _write_text(self, delivery: Delivery) -> None:
        with self._jobs.background.optional():
            await self._channels.stop()
            await delivery.write_text()
