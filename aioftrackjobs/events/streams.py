"""What programs iterate over: the events of a subscription, and the replies to an event."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Generic, Self, TypeVar

import anyio

from aioftrackjobs.errors import SessionStateError
from aioftrackjobs.events.models import Event, Gap, Lagged
from aioftrackjobs.events.queue import EventQueue

E = TypeVar("E", bound=Event)


class EventStream(Generic[E]):
    """The events of one subscription: ``async with ... as events: async for event in events``.

    The block begins when the server has made the subscription. Iteration gives events, and a
    :class:`Gap` or :class:`Lagged` where events may be, or were, lost. It ends when the session
    closes. Several tasks may iterate over one stream; each event goes to one of them.

    Args:
        queue: The events that wait.
        open_subscription: Makes the subscription.
        close_subscription: Ends it.
        note_taken: Called when the program asks for another event after one that it got.
    """

    def __init__(
        self,
        queue: EventQueue[E],
        open_subscription: Callable[[], Awaitable[None]],
        close_subscription: Callable[[], Awaitable[None]],
        note_taken: Callable[[E], None] | None = None,
    ) -> None:
        self._queue = queue
        self._open = open_subscription
        self._close = close_subscription
        self._note_taken = note_taken
        self._taken: E | None = None
        self._state = "new"

    async def __aenter__(self) -> Self:
        if self._state != "new":
            raise SessionStateError("a subscription is entered once; subscribe again")
        self._state = "open"
        try:
            await self._open()
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._end()

    async def _end(self) -> None:
        self._state = "closed"
        with anyio.CancelScope(shield=True):  # it waits for no more than a small file
            await self._close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> E | Gap | Lagged:
        if self._state == "new":
            raise SessionStateError("write: async with session.events.subscribe(...) as events")
        if self._taken is not None and self._note_taken is not None:
            taken, self._taken = self._taken, None
            self._note_taken(taken)
        item = await self._queue.get()
        if item is None:
            raise StopAsyncIteration
        if not isinstance(item, Gap | Lagged):
            self._taken = item
        return item


class ReplyStream:
    """The replies to one event, as they arrive, until the time is over.

    Args:
        begin: Publishes the event, and returns the queue of its replies and the time when to end.
        end: Forgets the queue.
        count: Replies after which to end; None for no number.
    """

    def __init__(
        self,
        begin: Callable[[], Awaitable[tuple[EventQueue[Event], float]]],
        end: Callable[[], None],
        count: int | None,
    ) -> None:
        self._begin = begin
        self._end = end
        self._left = count
        self._queue: EventQueue[Event] | None = None
        self._deadline = 0.0
        self._has_ended = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        if self._has_ended:
            raise StopAsyncIteration
        if self._queue is None:
            self._queue, self._deadline = await self._begin()
        reply: Event | Gap | Lagged | None = None
        if self._left != 0:
            with anyio.CancelScope(deadline=self._deadline):
                while isinstance(reply := await self._queue.get(), Gap | Lagged):
                    pass
        if not isinstance(reply, Event):
            self._has_ended = True
            self._end()
            raise StopAsyncIteration
        if self._left is not None:
            self._left -= 1
        return reply
