"""The event hub of a session: ``session.events``."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from functools import partial
from typing import Any, TypeVar, overload

import anyio.lowlevel

from aioftrackjobs.config.settings import require, require_count, require_flag
from aioftrackjobs.connection.health import EventHubHealth
from aioftrackjobs.entities.context import EntityContext
from aioftrackjobs.errors import EventTimeoutError
from aioftrackjobs.events.arguments import metadata_of, selection_of
from aioftrackjobs.events.cursor import EventCursor
from aioftrackjobs.events.handlers import Handler
from aioftrackjobs.events.models import Event, Gap, Lagged
from aioftrackjobs.events.queue import EventQueue, Overflow
from aioftrackjobs.events.runtime import HubRuntime
from aioftrackjobs.events.streams import EventStream, ReplyStream
from aioftrackjobs.events.subscriptions import Subscription
from aioftrackjobs.protocol import events
from aioftrackjobs.protocol.subscription import parse

#: What a subscription with a cursor can be for.
_CURSOR_ONLY = "an expression with topic=ftrack.update, and no function, for a cursor"

E = TypeVar("E", bound=Event)
H = TypeVar("H", bound=Callable[..., object])


class EventHub:
    """Listens to events of the server, and publishes events. See ``session.events``.

    ::

        @session.events.on(UpdateEvent, concurrency=4)
        async def note(event: UpdateEvent) -> None:
            for change in event.changes:
                print(change.entity_type, change.id, change.action)

        async with session.events.subscribe("topic=studio.*") as events:
            async for event in events:
                print(event.topic, event.data)

        await session.events.publish("studio.published", {"version": version_id})
        reply = await session.events.request("studio.which_farm", {"shot": "sh010"}, timeout=5)

    It connects when it is first used, and again after each loss, for as long as the session is
    open. Handlers run in the background of the session.

    Raises:
        MissingExtraError: The package websockets is not installed.
    """

    def __init__(self, entities: EntityContext) -> None:
        self._runtime = HubRuntime(entities)
        self._handlers: dict[Callable[..., object], list[Subscription]] = {}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.health().state}>"

    @property
    def id(self) -> str:
        """The id of this hub, which is in the source of what it publishes."""
        return self._runtime.publisher.replies.id

    @property
    def is_started(self) -> bool:
        """Whether the hub is connected, or connects again and again."""
        return self._runtime.is_started

    # Listening

    @overload
    def subscribe(
        self,
        what: type[E],
        *,
        where: str | Callable[[E], bool] | None = None,
        queue: int = 1000,
        overflow: Overflow = "drop_oldest",
        cursor: EventCursor | None = None,
        subscriber: Mapping[str, Any] | None = None,
    ) -> EventStream[E]: ...
    @overload
    def subscribe(
        self,
        what: str,
        *,
        where: str | Callable[[Event], bool] | None = None,
        queue: int = 1000,
        overflow: Overflow = "drop_oldest",
        cursor: EventCursor | None = None,
        subscriber: Mapping[str, Any] | None = None,
    ) -> EventStream[Event]: ...
    def subscribe(
        self,
        what: str | type[Event],
        *,
        where: str | Callable[[Any], bool] | None = None,
        queue: int = 1000,
        overflow: Overflow = "drop_oldest",
        cursor: EventCursor | None = None,
        subscriber: Mapping[str, Any] | None = None,
    ) -> EventStream[Any]:
        """Listen inside an ``async with`` block, which begins when the server knows of it.

        ::

            expression = "topic=ftrack.update and source.user.username=maya"
            async with session.events.subscribe(expression) as events:
                async for event in events:
                    match event:
                        case UpdateEvent():
                            print([change.id for change in event.changes])
                        case Gap(since=since) | Lagged():
                            print("events are missing")

        While the server cannot be reached, the block does not begin.

        Args:
            what: An expression (docs/protocol.md, section 7.6), or a class of events.
            where: A further expression; or a function of the event, which only this host calls.
            queue: Events that may wait to be taken.
            overflow: What becomes of more: the oldest is dropped, and the loop gets a
                :class:`Lagged`; or "raise" for an error in the loop.
            cursor: Read update events from the table ``Event``, at least once, see
                :class:`EventCursor`. While *queue* are not taken, no more are read.
            subscriber: What targets of other clients may test besides the id, such as
                ``{"applicationId": "studio.service"}``.

        Raises:
            ArgumentError: *what* or *where* is no expression.
            AuthenticationError: When the block begins: the server refuses the credentials.
            ConfigurationError: When the block begins: the HTTP client can open no WebSocket.
            ServerError: When the block begins: the server refuses the expression.
        """
        expression, kind, test = selection_of(what, where)
        require_count("queue", queue)
        require(
            overflow in ("drop_oldest", "raise"), "overflow", '"drop_oldest" or "raise"', overflow
        )
        waiting = EventQueue[Any](queue, overflow, expression, self._runtime.new_waiter)
        if cursor is not None:
            require(isinstance(cursor, EventCursor), "cursor", "an EventCursor", cursor)
            is_update = parse(expression).equal.get("topic") == events.UPDATE
            require(is_update and test is None, "what", _CURSOR_ONLY, expression)
            return self._runtime.follow_table(waiting, expression, cursor)
        subscription = Subscription(
            expression, kind, waiting, where=test, metadata=metadata_of(subscriber)
        )

        return EventStream(
            waiting,
            partial(self._runtime.add, subscription),
            partial(self._runtime.leave, subscription),
        )

    @overload
    def on(
        self,
        what: type[E],
        *,
        where: str | Callable[[E], bool] | None = None,
        concurrency: int = 4,
        key: Callable[[E], Hashable] | None = None,
        queue: int = 1000,
        on_gap: Callable[[Gap], object] | None = None,
        on_lag: Callable[[Lagged], object] | None = None,
        subscriber: Mapping[str, Any] | None = None,
    ) -> Callable[[Callable[[E], object]], Callable[[E], object]]: ...
    @overload
    def on(
        self,
        what: str,
        *,
        where: str | Callable[[Event], bool] | None = None,
        concurrency: int = 4,
        key: Callable[[Event], Hashable] | None = None,
        queue: int = 1000,
        on_gap: Callable[[Gap], object] | None = None,
        on_lag: Callable[[Lagged], object] | None = None,
        subscriber: Mapping[str, Any] | None = None,
    ) -> Callable[[H], H]: ...
    def on(
        self,
        what: str | type[Event],
        *,
        where: str | Callable[[Any], bool] | None = None,
        concurrency: int = 4,
        key: Callable[[Any], Hashable] | None = None,
        queue: int = 1000,
        on_gap: Callable[[Gap], object] | None = None,
        on_lag: Callable[[Lagged], object] | None = None,
        subscriber: Mapping[str, Any] | None = None,
    ) -> Callable[[Any], Any]:
        """Call the decorated function for each event, before or after the session is opened.

        ::

            @session.events.on(UpdateEvent, concurrency=8, key=lambda event: event.user.id)
            async def note(event: UpdateEvent) -> None:
                ...

        What it returns is published as the reply, unless it is None. An error of it is logged, and
        the next event is handled. When the session closes, events that have arrived are handled,
        for a second; then handlers are cancelled.

        Args:
            what: As for :meth:`subscribe`.
            where: As for :meth:`subscribe`.
            concurrency: Events that are handled at the same time; 1 to keep their order.
            key: Events with the same key are handled one after the other, in their order.
            queue: Events that may wait; if there are more, the oldest ones are dropped.
            on_gap: Called with each :class:`Gap`; without it, a warning is logged.
            on_lag: Called with each :class:`Lagged`; without it, a warning is logged.
            subscriber: As for :meth:`subscribe`.

        Raises:
            ArgumentError: An argument has a wrong type or value.
        """
        expression, kind, test = selection_of(what, where)
        require_count("concurrency", concurrency)
        require_count("queue", queue)
        for name, function in (("key", key), ("on_gap", on_gap), ("on_lag", on_lag)):
            require(function is None or callable(function), name, "a function", function)
        metadata = metadata_of(subscriber)

        def register(function: Callable[[Any], object]) -> Callable[[Any], object]:
            require(callable(function), "the handler", "a function", function)
            handler = Handler[Any](
                self._runtime,
                function,
                concurrency=concurrency,
                key=key,
                limit=queue,
                on_gap=on_gap,
                on_lag=on_lag,
            )
            subscription = Subscription(expression, kind, handler, where=test, metadata=metadata)
            self._handlers.setdefault(function, []).append(subscription)
            self._runtime.add_handler(subscription)
            return function

        return register

    def off(self, function: Callable[..., object]) -> None:
        """Call a decorated *function* no more; events that it is handling are handled to the end.

        Raises:
            ArgumentError: It is no handler of this hub.
        """
        require(function in self._handlers, "function", "a handler of this hub", function)
        for subscription in self._handlers.pop(function):
            subscription.is_ended = True
            self._runtime.remove(subscription)

    async def ready(self) -> None:
        """Wait until the hub is connected, and the server has made all subscriptions.

        Raises:
            AuthenticationError: The server refuses the credentials.
            ServerError: The server refuses a subscription.
            ConfigurationError: The HTTP client can open no WebSocket.
        """
        await self._runtime.wait_ready()

    async def run(self) -> None:
        """Listen until the session closes, or the caller is cancelled: the end of a service.

        ::

            async with AsyncSession() as session:
                @session.events.on(UpdateEvent)
                async def note(event: UpdateEvent) -> None: ...

                await session.events.run()

        Raises:
            AuthenticationError: The server refuses the credentials at the beginning.
            ServerError: The server refuses a subscription at the beginning.
            ConfigurationError: The HTTP client can open no WebSocket.
        """
        await self.ready()
        while not self._runtime.is_closing:
            await self._runtime.wait_change()

    # Publishing

    async def publish(
        self,
        topic: str,
        data: Any = None,
        target: str = "",
        *,
        wait: bool = True,
        timeout: float = 30.0,
    ) -> str:
        """Publish an event, and return its id when the server has acknowledged it.

        ::

            await session.events.publish("studio.published", {"version": version_id})

        While the hub is not connected, the event waits, and is sent on the next connection. An
        event that was sent and not acknowledged is not sent again: the server may have it.

        Args:
            topic: For example ``studio.published``.
            data: What JSON can hold; an object, as a rule.
            target: An expression, for the subscribers that are to get it: ``id=...``.
            wait: False to return when the event is queued, without an acknowledgement.
            timeout: Seconds for all of it.

        Raises:
            EventTimeoutError: It was not sent, or not acknowledged, in time.
            ConnectError: *wait* is False, and too many events wait already.
            TransportError: The connection was lost after it was sent.
            ServerError: The server refuses it.
            UnserialisableValueError: JSON cannot hold the data.
        """
        require_flag("wait", wait)
        payload, event_id = self._prepare(topic, data, target, timeout)
        publisher = self._runtime.publisher
        await (publisher.send(topic, payload, timeout) if wait else publisher.send_soon(payload))
        return event_id

    async def request(
        self, topic: str, data: Any = None, target: str = "", *, timeout: float = 5.0
    ) -> Event:
        """Publish an event, and return the first reply: an event, whose ``data`` is the result.

        ::

            reply = await session.events.request("studio.which_farm", {"shot": "sh010"})
            print(reply.data)

        Args:
            topic: As for :meth:`publish`.
            data: As for :meth:`publish`.
            target: As for :meth:`publish`.
            timeout: Seconds until the reply, at most.

        Raises:
            EventTimeoutError: There is no reply in time.
            ServerError: The server refuses the event.
            UnserialisableValueError: JSON cannot hold the data.
        """
        async for reply in self.request_many(topic, data, target, timeout=timeout, count=1):
            return reply
        raise EventTimeoutError(topic, timeout, was_sent=True, problem=self.health().problem)

    def request_many(
        self,
        topic: str,
        data: Any = None,
        target: str = "",
        *,
        timeout: float = 5.0,
        count: int | None = None,
    ) -> ReplyStream:
        """Publish an event, and iterate over the replies until the time is over.

        ::

            async for reply in session.events.request_many("studio.who_is_there", timeout=1):
                print(reply.data)

        Args:
            topic: As for :meth:`publish`.
            data: As for :meth:`publish`.
            target: As for :meth:`publish`.
            timeout: Seconds in which replies count.
            count: End after so many replies.

        Raises:
            EventTimeoutError: When the loop begins: the event could not be sent in time.
            ServerError: When the loop begins: the server refuses the event.
            UnserialisableValueError: JSON cannot hold the data.
        """
        if count is not None:
            require_count("count", count)
        payload, event_id = self._prepare(topic, data, target, timeout)
        return self._runtime.publisher.request(topic, payload, event_id, timeout, count)

    async def reply(self, event: Event, data: Any) -> None:
        """Publish *data* as a reply to *event*; a handler may do so several times.

        Raises:
            ArgumentError: The event says not by whom it was published.
            ConnectError: Too many events wait to be sent.
            UnserialisableValueError: JSON cannot hold the data.
        """
        self._runtime.require_open()
        self._runtime.start_hub()
        was_queued = self._runtime.publisher.reply(event, data)
        require(was_queued, "event", "an event whose source has an id", event)
        await anyio.lowlevel.checkpoint()

    def _prepare(self, topic: str, data: Any, target: str, timeout: float) -> tuple[str, str]:
        self._runtime.require_open()
        prepared = self._runtime.publisher.prepare(topic, data, target, timeout)
        self._runtime.start_hub()
        return prepared

    def health(self) -> EventHubHealth:
        """Return a snapshot of the hub, which ``session.health.events`` is, too."""
        return self._runtime.health()
