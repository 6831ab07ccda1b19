"""The events that wait for one consumer: bounded, and never silent about what is dropped."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, Literal, TypeAlias, TypeVar

from aioftrackjobs.background import Waiter
from aioftrackjobs.errors import EventQueueFullError
from aioftrackjobs.events.models import Event, Gap, Lagged

E = TypeVar("E", bound=Event)

#: What becomes of an event for which there is no room: the oldest one goes, or the consumer fails.
Overflow: TypeAlias = Literal["drop_oldest", "raise"]


class EventQueue(Generic[E]):
    """Events and gaps in their order, and how many events were dropped before them.

    Args:
        limit: Events that may wait.
        overflow: What happens when there are more.
        expression: Names the subscription in an error.
        new_waiter: Makes what a task waits for.

    Attributes:
        dropped: Events that were dropped so far.
    """

    def __init__(
        self,
        limit: int,
        overflow: Overflow,
        expression: str,
        new_waiter: Callable[[], Waiter],
    ) -> None:
        self._limit = limit
        self._overflow = overflow
        self._expression = expression
        self._new_waiter = new_waiter
        self._items: deque[E | Gap] = deque()
        self._events = 0  # in _items
        self._lagged = 0  # dropped before the first of _items, and not reported
        self._gap: Gap | None = None  # before these
        self._waiting: deque[Waiter] = deque()
        self._for_room: Waiter | None = None
        self._is_closed = False
        self.dropped: int = 0

    def __len__(self) -> int:
        return self._events

    def put(self, event: E) -> None:
        """Add *event*; if there is no room, the oldest one is dropped."""
        if self._is_closed:
            return
        self._items.append(event)
        self._events += 1
        if self._events > self._limit:
            self._drop()
        if self._waiting:
            self._wake()

    def _drop(self) -> None:
        while isinstance(oldest := self._items.popleft(), Gap):
            self._gap = oldest if self._gap is None else self._gap.joined(oldest)
        self._events -= 1
        self._lagged += 1
        self.dropped += 1

    def put_gap(self, gap: Gap) -> None:
        """Add a gap; one that follows another one at once makes that longer."""
        if self._is_closed:
            return
        if self._items and isinstance(last := self._items[-1], Gap):
            self._items[-1] = last.joined(gap)
        else:
            self._items.append(gap)
        self._wake()

    def _wake(self) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def close(self) -> None:
        """Let consumers end when they have got what waits."""
        self._is_closed = True
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)
        self._waiting.clear()

    def get_now(self) -> E | Gap | Lagged | None:
        """Return the next item; None if there is none.

        Raises:
            EventQueueFullError: Events were dropped, and the consumer is to fail then.
        """
        if self._gap is not None:
            gap, self._gap = self._gap, None
            return gap
        if self._lagged:
            lagged, self._lagged = Lagged(self._lagged), 0
            if self._overflow == "raise":
                raise EventQueueFullError(self._expression, self._limit, lagged.count)
            return lagged
        if not self._items:
            return None
        item = self._items.popleft()
        if not isinstance(item, Gap):
            self._events -= 1
            if self._for_room is not None and not self._for_room.done():
                self._for_room.set_result(None)
        return item

    async def get(self) -> E | Gap | Lagged | None:
        """Return the next item as soon as there is one; None if there is none after the end.

        Raises:
            EventQueueFullError: See :meth:`get_now`.
        """
        while (item := self.get_now()) is None and not self._is_closed:
            waiter = self._new_waiter()
            self._waiting.append(waiter)
            try:
                await waiter
            except BaseException:
                if waiter in self._waiting:
                    self._waiting.remove(waiter)
                elif self._items:
                    self._wake()  # its turn goes to another one
                raise
        return item

    async def wait_for_room(self) -> None:
        """Wait until another event may be put without one being dropped; for one task."""
        while self._events >= self._limit and not self._is_closed:
            self._for_room = self._new_waiter()
            await self._for_room
