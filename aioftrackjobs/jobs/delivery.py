"""Delivery: sends the final status of a Job until the server has applied it, or the grace is over.

A Job whose final status is lost stays running for ever. So nothing that goes wrong is taken for
final, except that the Job was deleted or has another owner:

- **A refusal** may pass, whatever it says: a server that restarts, or a proxy in front of it, may
  refuse anything for a moment.
- **A text that the server cannot keep** may be what is refused: it is too long, or has a character
  that its database does not know. So after two refusals a short text in ASCII is sent, then the
  status alone, and then it begins again. A text that was left out is written once more afterwards.
- **A request without a response** may have been swallowed, by a firewall for example, and with it
  all that is sent over the same connections. So after a few seconds the next request takes a new
  one. The former may still succeed: if the server is only slow, nothing is lost by waiting.

Repeated attempts are safe, because they set absolute values. Before each one, the Job is read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import anyio

from aioftrackjobs.background import SafeLogger
from aioftrackjobs.commit.request import (
    Applied,
    Manner,
    Outcome,
    PendingRequest,
    WithdrawnError,
)
from aioftrackjobs.config.retry import Backoff
from aioftrackjobs.errors import (
    ConnectError,
    FtrackJobsError,
    JobDeletedError,
    MalformedResponseError,
    ServerError,
    SessionStateError,
    TransportError,
)
from aioftrackjobs.jobs.attachments import Attachments
from aioftrackjobs.jobs.context import JobsContext
from aioftrackjobs.jobs.data import NOTHING, PLAIN, JobData, level_after
from aioftrackjobs.jobs.interventions import Interventions
from aioftrackjobs.jobs.leases import ActiveJob
from aioftrackjobs.jobs.writing import allows_no_read, retry_after_of, write_anew
from aioftrackjobs.models import JobStatus, remote_value
from aioftrackjobs.protocol.wire import is_foreign

logger: SafeLogger = SafeLogger(__name__)

#: Seconds until an attempt gets company, and the shortest such time for a short grace.
_ATTEMPT, _SHORTEST_ATTEMPT = 3.0, 0.5

#: Seconds between two attempts, at most, whatever the server asks for.
_LONGEST_PAUSE = 2.0

#: Seconds until another attempt if one could not be made.
_FAULT_PAUSE = 0.05

#: Requests whose response is lost count as a refusal, if there are so many: a firewall may look
#: into a text.
_LOSSES = 3


class EndingJob(ActiveJob, Protocol):
    """A Job that ends."""

    @property
    def interventions(self) -> Interventions:
        """What others do to it."""
        ...

    @property
    def attachments(self) -> Attachments:
        """What is attached to it."""
        ...

    @property
    def has_begun(self) -> bool:
        """Whether the server is known to have had the Job."""
        ...


class Delivery:
    """The final status of one Job, on its way to the server.

    Args:
        jobs: What the Jobs of the session share.
        running: The Job.
        data: What it reports.
        status: How it ended.
        grace: Seconds that the delivery may take.

    Attributes:
        error: Why the status was not applied; None if it was, or if the Job has another owner.
        lacks_text: Whether it was applied without a text, although there is one.
        is_suspicious: Whether requests over connections that were used before may be swallowed.
    """

    def __init__(
        self,
        jobs: JobsContext,
        running: EndingJob,
        data: JobData,
        status: JobStatus,
        *,
        grace: float,
    ) -> None:
        self._jobs, self._running, self._data, self._status = jobs, running, data, status
        self._job = running.entity
        self._grace = grace
        self._attempt_limit = max(_SHORTEST_ATTEMPT, min(_ATTEMPT, grace / 3))
        self._send_within = jobs.send_within  # see Manner.send_within
        self._requests: list[PendingRequest] = []
        self._awaited: PendingRequest | None = None  # the latest, while nothing else is done
        self._refusals = self._losses = 0
        self._scope = anyio.CancelScope()
        self._is_over = False
        self.error: Exception | None = TransportError(f"no response within {grace:g} s")
        self.lacks_text: bool = False
        self.is_suspicious: bool = False

    async def run(self, deadline: float) -> None:
        """Send the status until the server has applied it; raises no error of it.

        Args:
            deadline: When to give up, in the time of the event loop.
        """
        backoff: Backoff | None = None
        self._scope.deadline = deadline
        with self._scope:
            while not self._is_over:
                error: Exception | None
                try:
                    error = await self._attempt()
                except (SessionStateError, JobDeletedError) as exc:
                    self._end(exc)
                    continue
                except Exception as exc:  # noqa: BLE001 - kept, and raised or logged at the end
                    error = exc
                if error is None:  # there is no response yet
                    self.is_suspicious = True
                    continue
                self._note_failure(error)
                if not isinstance(error, (ServerError, TransportError, WithdrawnError)):
                    await anyio.sleep(_FAULT_PAUSE)  # nothing was sent
                else:
                    backoff = backoff or replace(self._jobs.retry, budget=math.inf).backoff()
                    await self._pause(backoff, retry_after_of(error))
        if isinstance(self.error, WithdrawnError):
            self.error = ConnectError(f"not sent within {self._grace:g} s")
        for request in self._requests:  # what has left may still be applied
            if self.error is None or request.needs_new_connection:  # others need these workers
                request.withdraw()
        if self.lacks_text:  # as a rule, another moment is enough
            quarter = anyio.current_time() + self._grace / 4
            with anyio.CancelScope(deadline=min(deadline, quarter)):
                await self.write_text()

    async def _pause(self, backoff: Backoff, retry_after: float | None) -> None:
        try:
            with anyio.move_on_after(_LONGEST_PAUSE):
                await self._jobs.server.pauses.wait(backoff, retry_after)
        except Exception:  # a function of the user's retry policy has raised
            logger.warning("a retry policy has failed", exc_info=True)
            await anyio.sleep(_FAULT_PAUSE)

    def _end(self, error: Exception | None) -> None:
        self.error, self._is_over = error, True

    async def _attempt(self) -> FtrackJobsError | None:
        """Send the status once; return why it was not applied, None if that is not known yet.

        Raises:
            JobDeletedError: The Job was deleted.
            SessionStateError: The session is closed.
            Exception: The data cannot be sent.
        """
        is_known = await self._read()
        if self._running.interventions.is_deleted:
            raise JobDeletedError(self._job.id)
        if self._running.interventions.is_taken_over:
            self._end(None)
            return None
        request = self._post(is_known=is_known)
        self._awaited = request
        with anyio.move_on_after(self._attempt_limit):
            await request.ended()
        self._awaited = None
        if request.outcome is None or isinstance(request.outcome, Applied):
            return None
        self._requests.remove(request)
        return request.outcome.error

    async def _read(self) -> bool:
        """Read what others hold in the Job's data, unless that takes too long or is not possible.

        The final status is more important than that.

        Returns:
            Whether the data may be written: nothing in it is unknown that could be read.
        """
        reader = self._jobs.reader
        eighth = (self._scope.deadline - anyio.current_time()) / 8  # the status is to follow
        for _ in range(2):
            with anyio.move_on_after(eighth) as scope:
                try:
                    await reader.read_with_others(
                        self._running, needs_new_connection=self.is_suspicious
                    )
                except FtrackJobsError as exc:
                    self.error = exc
                    return allows_no_read(exc)
                return True
            if not scope.cancelled_caught:
                break
            self.is_suspicious = True
        return False

    def _post(self, *, is_known: bool) -> PendingRequest:
        """Queue a commit of the status, and of as much text as may be sent."""
        unit = self._jobs.entities.new_unit(
            unordered=True,  # it need not wait for a report that hangs; that sets no status
            is_urgent=True,
            needs_new_connection=self.is_suspicious,
            is_dispensable=True,
            send_within=self._send_within,
        )
        values: dict[str, Any] = {"status": self._status}
        level = level_after(self._refusals) if is_known else NOTHING
        if level != NOTHING:
            values["data"] = self._compose(is_plain=level == PLAIN)
        unit.set(self._job, **values)
        request = unit.post(partial(self._settle, level))
        if request.outcome is None:
            self._requests.append(request)
        return request

    def _compose(self, *, is_plain: bool) -> Mapping[str, Any]:
        self._data.is_plain = is_plain
        return self._data.compose(remote_value(self._job, "data"))

    def _settle(self, level: int, outcome: Outcome) -> None:
        """Take note of the end of an attempt, perhaps not of the latest one."""
        if isinstance(outcome, Applied) and not self._is_over:
            self._end(None)
            self.lacks_text = level == NOTHING
            if self._awaited is None or self._awaited.outcome is not outcome:
                self._scope.cancel()

    def _note_failure(self, error: Exception) -> None:
        """Decide what the next attempt is like after this *error*."""
        self.error = error
        if isinstance(error, WithdrawnError):
            self._send_within *= 2
        elif isinstance(error, ServerError):
            self._refusals += not error.is_retryable
            if self._refusals > 1 and not is_foreign(error):  # not once, by a proxy
                self._running.interventions.note_refusal(error)
        elif isinstance(error, MalformedResponseError):
            self._refusals += 1
        elif isinstance(error, TransportError):
            self._losses += not isinstance(error, ConnectError)
            self._refusals += self._losses % _LOSSES == 0 and not isinstance(error, ConnectError)
        else:  # what others keep in the data cannot be sent
            self._refusals = level_after(self._refusals) + 2  # the next level

    async def write_text(self) -> None:
        """Write the text that the status was applied without; an error is only logged."""
        for is_plain in (False, True):
            try:
                write = partial(self._write_text, is_plain=is_plain)
                await write_anew(self._jobs.entities.connection, write)
            except Exception as exc:  # noqa: BLE001 - the Job has ended, and that is said
                if is_plain or isinstance(exc, SessionStateError):
                    logger.warning(
                        "%(job)r: its last text was not written: %(error)s",
                        job=self._job,
                        error=exc,
                    )
                    break
            else:
                break
        self.lacks_text = False

    async def _write_text(self, send_within: float, *, is_plain: bool) -> None:
        manner: Manner = {
            "is_urgent": True,
            "needs_new_connection": self.is_suspicious,
            "is_dispensable": True,
            "send_within": send_within,
        }
        await self._jobs.reader.read_with_others(
            self._running, needs_new_connection=self.is_suspicious
        )
        if not self._running.interventions.forbid_writes:
            unit = self._jobs.entities.new_unit(**manner)
            unit.set(self._job, data=self._compose(is_plain=is_plain))
            await unit.commit()
