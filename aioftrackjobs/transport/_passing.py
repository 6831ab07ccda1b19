"""What a request needs so that its body can pass h11 by: see ``_direct.py``."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Protocol

from aioftrackjobs.transport._base import DirectBody


class BodySender(Protocol):
    """A connection that takes bodies past h11."""

    async def send(self, body: DirectBody) -> None:
        """Send all of *body*."""
        ...


class Follower(Protocol):
    """Who wants to know which connection its request is written to."""

    stream: BodySender | None


#: Who follows the request of this task.
written_to: ContextVar[Follower | None] = ContextVar("written_to", default=None)


class SentBytes(bytes):
    """Stands for bytes of a body that h11 is to count, and not to send: they are sent."""

    _count: int

    def __new__(cls, count: int) -> SentBytes:
        """Stand for *count* bytes."""
        placeholder = super().__new__(cls)
        placeholder._count = count
        return placeholder

    def __len__(self) -> int:
        return self._count


def is_of_connection(error: Exception) -> bool:
    """Return whether *error* is one of a network stream."""
    import httpcore

    return isinstance(error, (httpcore.NetworkError, httpcore.TimeoutException))
