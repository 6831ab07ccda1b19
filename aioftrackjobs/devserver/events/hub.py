"""The event hub: who subscribes to what, and which event goes to which connection.

An event is delivered once to each connection that has a subscriber whose subscription matches it,
and whose own description matches the event's target; also to its publisher. Nothing is kept for
clients that are not connected.

All of it runs in the event loop of the server. Other threads use :meth:`EventHub.publish_soon`.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias

from aioftrackjobs.devserver.events import frames
from aioftrackjobs.devserver.events.expressions import Expression, parse, value_at
from aioftrackjobs.devserver.limits import Limits

logger: logging.Logger = logging.getLogger(__name__)

Event: TypeAlias = dict[str, Any]
#: Handshakes without a WebSocket that are remembered; the oldest is forgotten first.
_MOST_SESSIONS = 10_000
#: Seconds in which the event loop of a server that runs does what it is asked to.
_LONGEST_TURN = 10.0
#: Bytes of a waiting frame beside its text.
_BARE = 64
#: Conditions in the target of an event, which is tested against many subscribers.
_LONGEST_TARGET = 20


class Connection:
    """One connected client: what it subscribes to, and the frames that wait to be sent.

    Attributes:
        username: The user who has made the handshake.
        slow: Set when it did not read its frames in time, and is to be disconnected.
    """

    def __init__(self, username: str, limit: int) -> None:
        self.username = username
        self.subscribers: dict[str, Subscriber] = {}
        self.slow: asyncio.Event = asyncio.Event()
        self._waiting = asyncio.Queue[str]()
        self._room = limit
        self.put(frames.CONNECT)

    def put(self, frame: str) -> None:
        """Let *frame* wait until it is sent; a client that lets too many wait is slow."""
        self._room -= len(frame) + _BARE
        if self._room < 0:
            self.slow.set()
        if not self.slow.is_set():
            self._waiting.put_nowait(frame)

    async def take(self) -> str:
        """Return the next frame to be sent."""
        frame = await self._waiting.get()
        self._room += len(frame) + _BARE
        return frame


@dataclass(frozen=True, slots=True, eq=False)
class Subscriber:
    """One subscription of a client.

    Attributes:
        description: What the client says of it, with an ``id``; targets are tested against this.
    """

    connection: Connection
    description: Event
    subscription: Expression

    @property
    def cost(self) -> int:
        """About how many conditions of it an event is tested against."""
        return 1 + self.subscription.size - len(self.subscription.equal)


class _Index:
    """Subscribers, found by the values that their subscriptions need.

    A thousand subscriptions that each name a topic and a project cost one look-up, not a thousand
    tests.
    """

    def __init__(self) -> None:
        #: By the fields that must have certain values, and these values.
        self._shapes = defaultdict[tuple[str, ...], dict[tuple[Any, ...], set[Subscriber]]](dict)

    def add(self, subscriber: Subscriber) -> None:
        fields, values = self._place(subscriber)
        self._shapes[fields].setdefault(values, set()).add(subscriber)

    def remove(self, subscriber: Subscriber) -> None:
        fields, values = self._place(subscriber)
        groups = self._shapes[fields]
        groups[values].discard(subscriber)
        if not groups[values]:
            del groups[values]
        if not groups:
            del self._shapes[fields]

    def candidates(self, event: Event) -> Iterator[Subscriber]:
        for fields, groups in self._shapes.items():
            values = tuple(value_at(event, field) for field in fields)
            with suppress(TypeError):  # a list or an object equals no text
                yield from groups.get(values, ())

    @staticmethod
    def _place(subscriber: Subscriber) -> tuple[tuple[str, ...], tuple[str, ...]]:
        equal = sorted(subscriber.subscription.equal.items())
        return tuple(field for field, _ in equal), tuple(value for _, value in equal)


class EventHub:
    """The connections of one server, and the events between them."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._sessions: dict[str, str] = {}
        self._index = _Index()
        self._by_id = defaultdict[str, set[Subscriber]](set)
        self._costs = Counter[str]()
        self._observers = defaultdict[str, list[Callable[[Event], None]]](list)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connections = 0
        #: Is called with each event, as observers are, and with the number of its subscribers.
        self.watcher: Callable[[Event, int], None] | None = None

    def open_session(self, username: str) -> str:
        """Return the id of a new session, for which *username* may open one WebSocket."""
        session = secrets.token_hex(16)
        self._sessions[session] = username
        if len(self._sessions) > _MOST_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        return session

    def connect(self, session: str) -> Connection | None:
        """Return the connection of a session; None if there is no such one, or too many."""
        username = self._sessions.pop(session, None)
        if username is None or self._connections >= self._limits.event_connections:
            return None
        self._loop = asyncio.get_running_loop()
        self._connections += 1
        return Connection(username, self._limits.waiting_events)

    def disconnect(self, connection: Connection) -> None:
        """Remove a connection with its subscribers."""
        self._connections -= 1
        for subscriber in list(connection.subscribers.values()):
            self._remove(subscriber)

    def has_listeners(self, topic: str) -> bool:
        """Return whether an event of this topic may interest a client or an observer."""
        return self._connections > 0 or topic in self._observers or self.watcher is not None

    def observe(self, topic: str, observer: Callable[[Event], None]) -> None:
        """Call *observer* with each event of a topic, in the event loop; it must not fail."""
        self._observers[topic].append(observer)

    def receive(self, connection: Connection, text: str) -> None:
        """Do what a frame from a client says; what is wrong with it goes back to the client."""
        packet_id = ""
        try:
            # The number of the frame is read first, so that its sender learns which one is too big.
            kind, packet_id, data = frames.read_frame(text)
            if kind == "5":
                self._receive_event(connection, frames.read_event(data, self._limits.event))
        except (frames.FrameError, ValueError) as error:
            # The Python client itself repeats subscriptions when it starts.
            logger.info("an event of %s is refused: %s", connection.username, error)
            if packet_id:
                connection.put(frames.acknowledgement(packet_id, str(error)))
            elif isinstance(error, frames.FrameError):
                # Not for a subscription without a number: the JavaScript client would connect
                # anew, and subscribe again, without end.
                connection.put(frames.error_frame(str(error)))
        else:
            if packet_id and kind == "5":
                connection.put(frames.acknowledgement(packet_id))

    def publish(self, event: Event) -> list[Subscriber]:
        """Deliver *event*, and return the subscribers that it is for."""
        found = self._subscribers_for(event)
        connections = dict.fromkeys(subscriber.connection for subscriber in found)
        if connections:
            frame = frames.event_frame(event)
            for connection in connections:
                connection.put(frame)
        for observer in self._observers.get(event["topic"], ()):
            observer(event)
        if self.watcher is not None:
            self.watcher(event, len(found))
        return found

    def publish_soon(self, events: list[Event]) -> None:
        """Deliver *events* of the server's own from any thread, in order."""
        if self._loop is None:  # no client has been connected: only observers are interested
            self._publish_all(events)
        else:
            with suppress(RuntimeError):  # the server is stopping, and its loop is closed
                self._loop.call_soon_threadsafe(self._publish_all, events)

    def publish_from_thread(self, event: Event) -> int:
        """Deliver *event* from another thread, and return the number of its subscribers."""
        if self._loop is None:  # no client has been connected
            return 0
        found = Future[int]()
        self._loop.call_soon_threadsafe(lambda: found.set_result(len(self.publish(event))))
        return found.result(_LONGEST_TURN)

    def _publish_all(self, events: list[Event]) -> None:
        for event in events:
            self.publish(event)

    def _receive_event(self, connection: Connection, event: Event) -> None:
        match event:
            case {"topic": "ftrack.meta.subscribe", "data": data}:
                self._subscribe(connection, data)
            case {"topic": "ftrack.meta.unsubscribe", "data": {"subscriber": {"id": str(own_id)}}}:
                subscriber = connection.subscribers.get(own_id)
                if subscriber is None:
                    raise ValueError(f"There is no subscriber {own_id!r} on this connection.")
                self._remove(subscriber)
            case {"topic": "ftrack.meta.subscribe" | "ftrack.meta.unsubscribe"}:
                raise ValueError("The event needs 'data' with a 'subscriber' that has an 'id'.")
            case _:
                self.publish(event)

    def _subscribe(self, connection: Connection, data: Any) -> None:
        match data:
            case {"subscriber": {"id": str(own_id)} as description, "subscription": str(text)}:
                pass
            case _:
                raise ValueError(
                    "A subscription needs 'data' with a 'subscriber' that has an 'id', and a "
                    "'subscription' that is an expression."
                )
        if own_id in connection.subscribers:
            raise ValueError(f"There is a subscriber {own_id!r} on this connection already.")
        if len(connection.subscribers) >= self._limits.subscriptions:
            raise ValueError(f"A connection takes {self._limits.subscriptions} subscriptions.")
        subscriber = Subscriber(connection, description, parse(text))
        if self._costs[connection.username] + subscriber.cost > self._limits.conditions:
            raise ValueError(
                f"The subscriptions of a user take {self._limits.conditions} conditions."
            )
        self._costs[connection.username] += subscriber.cost
        connection.subscribers[own_id] = subscriber
        self._index.add(subscriber)
        self._by_id[own_id].add(subscriber)

    def _remove(self, subscriber: Subscriber) -> None:
        own_id = subscriber.description["id"]
        del subscriber.connection.subscribers[own_id]
        self._costs[subscriber.connection.username] -= subscriber.cost
        self._index.remove(subscriber)
        self._by_id[own_id].discard(subscriber)
        if not self._by_id[own_id]:
            del self._by_id[own_id]

    def _subscribers_for(self, event: Event) -> list[Subscriber]:
        text = event.get("target") or ""
        if not isinstance(text, str):
            raise ValueError("The 'target' of an event is an expression.")  # noqa: TRY004
        if not text.strip():
            found = self._index.candidates(event)
            return [each for each in found if each.subscription.matches(event)]
        target = parse(text)
        if target.size > _LONGEST_TARGET:
            raise ValueError(f"A target takes {_LONGEST_TARGET} conditions at most.")
        own_id = target.equal.get("id")
        # Replies name the one subscriber that they are for.
        some = self._index.candidates(event) if own_id is None else self._by_id.get(own_id, ())
        return [
            each
            for each in some
            if target.matches(each.description) and each.subscription.matches(event)
        ]
