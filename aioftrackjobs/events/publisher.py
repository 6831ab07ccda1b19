"""Publishes the events of a hub, and brings replies to the requests that wait for them."""

from __future__ import annotations

import socket as sockets
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from uuid import uuid4

import anyio
import anyio.lowlevel

from aioftrackjobs.background import SafeLogger, Waiter
from aioftrackjobs.config.settings import require_name, require_seconds, require_text
from aioftrackjobs.errors import ConnectError, EventTimeoutError
from aioftrackjobs.events.arguments import require_expression
from aioftrackjobs.events.models import Event, Gap
from aioftrackjobs.events.outbox import Outbox, Outgoing
from aioftrackjobs.events.queue import EventQueue
from aioftrackjobs.events.streams import ReplyStream
from aioftrackjobs.events.subscriptions import Subscription
from aioftrackjobs.protocol import events

logger: SafeLogger = SafeLogger(__name__)

#: Replies to one event that wait to be read.
_REPLIES = 1000


class Publisher:
    """The publishing side of a hub.

    Args:
        outbox: What is to be sent.
        username: The user as whom the session acts.
        new_waiter: Makes what a task waits for.
        problem: Returns why the hub is not connected; None if it is.
        raise_failure: Raises the reason why there will be no connection.

    Attributes:
        source: Describes the hub in what it publishes.
        replies: The subscription to replies.
    """

    def __init__(
        self,
        outbox: Outbox,
        username: str,
        *,
        new_waiter: Callable[[], Waiter],
        problem: Callable[[], str | None],
        raise_failure: Callable[[], None],
    ) -> None:
        self._outbox = outbox
        self._new_waiter = new_waiter
        self._problem = problem
        self._raise_failure = raise_failure
        self._waiting: dict[str, EventQueue[Event]] = {}
        own_id = uuid4().hex
        self.source: Mapping[str, Any] = {
            "id": own_id,
            "applicationId": "aioftrackjobs",
            "user": {"username": username},
            "host": sockets.gethostname(),
        }
        self.replies: Subscription = Subscription(
            f"topic={events.REPLY}", Event, _Replies(self._waiting), subscriber_id=own_id
        )

    def prepare(self, topic: str, data: Any, target: str, timeout: float) -> tuple[str, str]:
        """Return an event in JSON, and its id.

        Raises:
            ArgumentError: An argument has a wrong type or value.
            UnserialisableValueError: JSON cannot hold the data.
        """
        require_name("topic", topic)
        require_text("target", target)
        require_seconds("timeout", timeout, above=True)
        if target.strip():
            require_expression("target", target)
        event_id = uuid4().hex
        payload = events.encode_event(
            topic,
            {} if data is None else data,
            event_id=event_id,
            source=self.source,
            target=target,
        )
        return payload, event_id

    async def send(self, topic: str, payload: str, timeout: float) -> None:
        """Send an event, and wait until it is acknowledged.

        Raises:
            EventTimeoutError: It was not sent, or not acknowledged, in time.
            TransportError: The connection was lost after it was sent.
            ServerError: The server refuses it.
        """
        self._raise_failure()
        done = self._new_waiter()
        outgoing = Outgoing(payload, on_end=partial(_wake, done))
        with anyio.move_on_after(timeout) as scope:
            await self._outbox.wait_for_room(self._new_waiter)
            self._outbox.add(outgoing)
            try:
                await done
            finally:
                self._outbox.withdraw(outgoing)
        if outgoing.error is not None:
            raise outgoing.error
        if scope.cancelled_caught and outgoing.state != "done":
            raise EventTimeoutError(
                topic, timeout, was_sent=outgoing.state == "sent", problem=self._problem()
            )

    async def send_soon(self, payload: str) -> None:
        """Queue an event that needs no acknowledgement.

        Raises:
            ConnectError: Too many events wait already.
        """
        self._raise_failure()
        self._put(payload)
        await anyio.lowlevel.checkpoint()

    def _put(self, payload: str) -> None:
        if self._outbox.is_full:
            why = self._problem() or "the server does not read them"
            raise ConnectError(f"{len(self._outbox)} events wait to be sent already: {why}")
        self._outbox.add(Outgoing(payload, needs_acknowledgement=False))

    def reply(self, event: Event, data: Any) -> bool:
        """Queue *data* as the reply to *event*; False if that says not by whom it was published.

        Raises:
            ConnectError: Too many events wait already.
            UnserialisableValueError: JSON cannot hold the data.
        """
        target = events.address_of({"source": event.source})
        if target is None:
            return False
        self._put(
            events.encode_event(
                events.REPLY,
                data,
                event_id=uuid4().hex,
                source=self.source,
                target=target,
                in_reply_to=event.id,
            )
        )
        return True

    def request(
        self, topic: str, payload: str, event_id: str, timeout: float, count: int | None
    ) -> ReplyStream:
        """Return the replies to an event, which is sent when the iteration begins."""

        async def begin() -> tuple[EventQueue[Event], float]:
            deadline = anyio.current_time() + timeout
            queue = EventQueue[Event](_REPLIES, "drop_oldest", topic, self._new_waiter)
            self._waiting[event_id] = queue
            try:
                await self.send(topic, payload, timeout)
            except BaseException:
                end()
                raise
            return queue, deadline

        def end() -> None:
            self._waiting.pop(event_id, None)

        return ReplyStream(begin, end, count)


class _Replies:
    """Brings replies to the requests that wait for them.

    Args:
        queues: The queues of these requests, by the ids of their events.
    """

    dropped = 0

    def __init__(self, queues: Mapping[str, EventQueue[Event]]) -> None:
        self._queues = queues

    def __len__(self) -> int:
        return 0

    def put(self, event: Event) -> None:
        """Bring a reply to its request."""
        queue = self._queues.get(event.in_reply_to or "")
        if queue is not None:
            queue.put(event)

    def put_gap(self, gap: Gap) -> None:
        """Do nothing: what waits for replies has a time limit."""

    def close(self) -> None:
        """End the wait for replies."""
        for queue in self._queues.values():
            queue.close()


def _wake(waiter: Waiter, _: object) -> None:
    if not waiter.done():
        waiter.set_result(None)
