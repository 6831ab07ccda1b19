"""Writes of a Job's ``data``: each is made from a read, leaves soon after it, and is sent once.

:class:`RunningWrites` makes those of a Job that runs, when :mod:`aioftrackjobs.jobs.channels` has
read it; :func:`write_anew` repeats all others.

``data`` is one text that others write, too. What may have been applied, or has waited for long, is
not sent again as it was, because others may have written since: the Job is read again, and its data
are composed anew. ftrack has no conditional update. So what others write is overwritten only if the
server applies it after it has read the Job for us and before it applies our write. That is:

- the time of about one request, as a rule, and :attr:`Timings.data_send_limit` at most until the
  request leaves; if the server refuses a group of commits that it is in, a few requests more;
- what a network or a slow server holds back of a request whose response was lost: it may be applied
  after the next read.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, TypeVar

from aioftrackjobs.commit.api_client import ServerStatus
from aioftrackjobs.commit.request import (
    Applied,
    NotApplied,
    Outcome,
    PendingRequest,
    Settle,
    WithdrawnError,
)
from aioftrackjobs.config.retry import RetryPolicy
from aioftrackjobs.config.timings import Timings
from aioftrackjobs.entities.context import EntityContext
from aioftrackjobs.errors import (
    CommitUncertainError,
    ConnectError,
    FtrackJobsError,
    MalformedResponseError,
    ServerError,
    TransportError,
)
from aioftrackjobs.jobs.data import NOTHING, WHOLE, JobData, Refusals, add_lease
from aioftrackjobs.models import Job, JobStatus, remote_value

T = TypeVar("T")

#: HTTP status code: the server itself has responded, and no gateway on its behalf.
_OK = 200


class Writing(Protocol):
    """What a session knows about attempts: its connection."""

    retry: RetryPolicy
    server_status: ServerStatus
    timings: Timings


class Observer(Protocol):
    """What has to know how the writes of a Job that runs end: its interventions."""

    is_mistaken: bool

    def note_written(self, *, had_lapsed: bool) -> None:
        """Take note that the server has applied one."""
        ...

    def note_refusal(self, error: Exception) -> None:
        """Take note that the server has refused one."""
        ...


class RunningWrites:
    """Writes what a Job reports, and its lease, while it runs.

    Args:
        entities: The entities of the session.
        job: The Job.
        data: What it reports.
        compose: Returns the new content of ``data``, made from what the server has, with a new
            lease.
        observer: What other clients do to the Job.
        write_soon: Has the Job read and written again soon.
    """

    def __init__(
        self,
        entities: EntityContext,
        job: Job,
        data: JobData,
        compose: Callable[[object], Mapping[str, Any]],
        observer: Observer,
        *,
        write_soon: Callable[[], None],
    ) -> None:
        self._entities, self._job, self._data = entities, job, data
        self._compose, self._observer, self._write_soon = compose, observer, write_soon
        self._send_limit = entities.connection.timings.data_send_limit
        self._send_within = self._send_limit
        self._refusals = Refusals()

    def post(self, settle: Settle) -> PendingRequest:
        """Queue a write of the current state, less of it after refusals."""
        unit = self._entities.new_unit(is_urgent=True, send_within=self._send_within)
        lease, remote = self._data.lease, remote_value(self._job, "data")
        self._data.is_plain = self._refusals.level != WHOLE
        values: dict[str, Any] = {"data": self._compose(remote)}
        if self._refusals.level == NOTHING and self._data.lease is not None:
            values["data"] = add_lease(remote, self._data.lease)
        if self._observer.is_mistaken:
            values["status"] = JobStatus.RUNNING
        unit.set(self._job, **values)

        def settle_write(outcome: Outcome) -> None:
            self._note(outcome, lease)
            settle(outcome)

        return unit.post(settle_write)

    def _note(self, outcome: Outcome, former: Mapping[str, Any] | None) -> None:
        """Decide what the next write is like; this one has replaced a *former* lease."""
        if isinstance(outcome, Applied):
            server = self._entities.connection.server_status
            now = server.server_time().isoformat(timespec="seconds")
            had_lapsed = former is not None and now >= former["until"]
            self._observer.note_written(had_lapsed=had_lapsed)
            self._send_within = self._send_limit
            self._refusals.note_success()
        elif isinstance(outcome, NotApplied):
            self._observer.note_refusal(outcome.error)
            if self._refusals.note(outcome.error):  # otherwise the lease ends
                self._write_soon()
            self._send_within *= 1 + isinstance(outcome.error, WithdrawnError)


async def write_anew(
    connection: Writing,
    write: Callable[[float], Awaitable[T]],
    *,
    retry: RetryPolicy | None = None,
    may_repeat: Callable[[object], bool] | None = None,
) -> T:
    """Await *write* until it succeeds, and return what it returns.

    Args:
        connection: The connection of the session.
        write: Reads a Job, and commits what it makes of that in a unit of work with the limit
            that it is given.
        retry: For how long, and how often, it is called again; that of the session if None.
        may_repeat: Whether it is called again after an error; :func:`may_pass` if None.

    Raises:
        ConnectError: No request could be sent in time.
        FtrackJobsError: As *write*, if no further attempt is allowed, or would help.
    """
    backoff = (retry or connection.retry).backoff()
    send_within = connection.timings.data_send_limit
    while True:
        try:
            return await write(send_within)
        except FtrackJobsError as exc:
            if not (may_repeat or may_pass)(exc):
                raise
            if not await connection.server_status.pauses.wait(backoff, retry_after_of(exc)):
                if isinstance(exc, WithdrawnError):
                    raise ConnectError("not sent in time") from None
                raise
            send_within *= 1 + isinstance(exc, WithdrawnError)


def may_pass(error: object) -> bool:
    """Return whether another attempt may succeed where one has ended with *error*."""
    if isinstance(error, CommitUncertainError) and isinstance(error.__cause__, TransportError):
        error = error.__cause__
    if isinstance(error, (ServerError, TransportError)):
        return error.is_retryable
    return isinstance(error, WithdrawnError)


def retry_after_of(error: object) -> float | None:
    """Return for how many seconds the server asked not to be called, if it did."""
    seconds: Any = getattr(error, "retry_after", None)
    return seconds if isinstance(seconds, float | int) else None


def allows_no_read(error: Exception) -> bool:
    """Return whether *error* shows that Jobs cannot be read, so that nothing can be kept in them.

    Some users may create Jobs that they may not query.
    """
    is_refusal = isinstance(error, ServerError) and not error.is_retryable
    return is_refusal or (isinstance(error, MalformedResponseError) and error.status == _OK)
