"""Writes of a Job's ``data``: each is made from a read, leaves soon after it, and is sent once.

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

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

from aioftrackjobs.commit.api_client import ServerStatus
from aioftrackjobs.commit.request import WithdrawnError
from aioftrackjobs.config.retry import RetryPolicy
from aioftrackjobs.config.timings import Timings
from aioftrackjobs.errors import (
    CommitUncertainError,
    FtrackJobsError,
    MalformedResponseError,
    ServerError,
    TransportError,
)

T = TypeVar("T")

#: HTTP status code: the server itself has responded, and no gateway on its behalf.
_OK = 200


class Writing(Protocol):
    """What a session knows about attempts: its connection."""

    retry: RetryPolicy
    server_status: ServerStatus
    timings: Timings


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
