"""Room in the queue: who has something to send waits while too much is queued already."""

from __future__ import annotations

from contextlib import AbstractContextManager
from math import inf

import anyio

#: Operations that may be queued before who commits has to wait.
QUEUE_OPERATIONS = 10_000


class Room:
    """Lets in who waits, in the order they came, as what is queued becomes less.

    Args:
        hold: Entered by each who waits, for as long as they do.

    Attributes:
        queued: Operations that are queued.
    """

    def __init__(self, hold: AbstractContextManager[None]) -> None:
        self._hold = hold
        self.queued = 0
        self._waiting: dict[anyio.Event, int] = {}
        self._admitted = 0  # operations that are awaited from who was let in
        self._bound: float = QUEUE_OPERATIONS

    @property
    def is_free(self) -> bool:
        """Whether something may be queued without waiting."""
        return not self._waiting and self.queued + self._admitted < self._bound

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits, or was let in and has queued nothing yet."""
        return bool(self._waiting or self._admitted)

    async def wait(self, operations: int = 1) -> None:
        """Wait while too much is queued; then queue them, without another wait.

        Args:
            operations: Number of those that are to be queued.
        """
        if self.is_free:
            return
        event = anyio.Event()
        self._waiting[event] = operations
        try:
            with self._hold:
                await event.wait()
        except BaseException:
            if self._waiting.pop(event, None) is None:
                self._admitted -= operations
                self._admit()  # somebody else
            raise
        self._admitted -= operations
        if not self._admitted:
            # Those who were let in may have nothing left to queue, and nobody else would be. Most
            # do queue it, and then there is one commit more than there should be.
            self._admit()

    def free(self, operations: int) -> None:
        """Note that so many *operations* are not queued any more."""
        self.queued -= operations
        if self._waiting:
            self._admit()

    def lift(self) -> None:
        """Let in whoever waits, and will: what they queue now ends at once."""
        self._bound = inf
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self.queued + self._admitted < self._bound:
            event = next(iter(self._waiting))
            self._admitted += self._waiting.pop(event)
            event.set()
