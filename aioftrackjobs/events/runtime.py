"""The life of a hub: it starts when it is first used, and ends with the session."""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import anyio
import anyio.abc
import anyio.lowlevel

from aioftrackjobs.background import BackgroundTasks, SafeLogger, Waiter
from aioftrackjobs.connection.health import EventHubHealth
from aioftrackjobs.entities.context import EntityContext
from aioftrackjobs.errors import FtrackJobsError, ServerError, SessionStateError
from aioftrackjobs.events.cursor import EventCursor, TableFeed
from aioftrackjobs.events.handlers import Handler
from aioftrackjobs.events.models import KINDS, Event, Gap, UpdateEvent
from aioftrackjobs.events.outbox import Outbox
from aioftrackjobs.events.publisher import Publisher
from aioftrackjobs.events.queue import EventQueue
from aioftrackjobs.events.router import Router
from aioftrackjobs.events.streams import EventStream
from aioftrackjobs.events.subscriptions import Subscription
from aioftrackjobs.protocol.changes import NO_NAMES, EntityNames
from aioftrackjobs.protocol.subscription import parse

logger: SafeLogger = SafeLogger(__name__)

#: Seconds that the schemas may take before the hub connects without them.
_NAMES_LIMIT = 15.0


class HubRuntime:
    """What runs behind an event hub: its connection, its subscriptions and its handlers.

    A task of its own holds the handlers. They may run Jobs, whose ends the background tasks of the
    session send; when the event loop shuts down, these must not wait for the handlers meanwhile.

    Args:
        entities: The entities of the session, and its connection.

    Attributes:
        publisher: Sends events.
        router: Receives events.
        is_started: Whether it is connected, or connects.
        is_closing: Whether the session is being closed.

    Raises:
        MissingExtraError: The package websockets is not installed.
    """

    def __init__(self, entities: EntityContext) -> None:
        from aioftrackjobs.events.link import Link  # here, as it needs websockets

        connection = entities.connection
        self._entities = entities
        self._connection = connection
        self._timings = connection.timings
        self._outbox = Outbox(self._timings.event_outbox)
        self.publisher: Publisher = Publisher(
            self._outbox,
            connection.credentials.api_user,
            new_waiter=self.new_waiter,
            problem=lambda: self._link.problem,
            raise_failure=self._raise_failure,
        )
        self.router: Router = Router(
            self._outbox,
            self.publisher.source,
            connection.background.surviving,
            self._note_change,
            None if connection.observer is None else connection.observer.event_received,
        )
        self._link = Link(
            connection,
            self._outbox,
            first_frames=self.router.first_frames,
            receive=self.router.receive,
            note_loss=self.router.note_loss,
            note_state=self._note_state,
        )
        self.router.subscribe(self.publisher.replies)
        self._tasks = BackgroundTasks(anyio.lowlevel.checkpoint, connection.redact)
        self._group: anyio.abc.TaskGroup | None = None
        self.is_started: bool = False
        self.is_closing: bool = False
        self._reported_gap: datetime | None = None  # the beginning of the latest one
        self._announcing = 0  # handlers that the router is about to get
        self._dropped = 0  # by subscriptions that have ended
        self._changed: list[Waiter] = []
        self._wants_names = False
        self._has_tried_names = False  # since the hub was connected
        self._names_lock = anyio.Lock()
        connection.start_events = self._start_if_needed
        connection.end_events = self._close

    def new_waiter(self) -> Waiter:
        """Return what one task waits for."""
        return self._connection.background.new_waiter()

    def require_open(self) -> None:
        """Raise SessionStateError unless the session is open, and is not being closed."""
        self._connection.require_open()
        if self.is_closing:
            raise SessionStateError("the session is being closed; open a new one")

    # Start

    def _start_if_needed(self) -> None:
        """Start when the session opens, if the program has made subscriptions before."""
        if len(self.router.subscriptions) > 1:
            self.start_hub()

    def start_hub(self) -> None:
        """Connect, unless that was begun already."""
        if not self.is_started:
            self.is_started = True
            self._connection.background.spawn(self._begin)

    async def _begin(self) -> None:
        await self._tasks.start()
        self._tasks.spawn(self._run)

    async def _run(self) -> None:
        async with anyio.create_task_group() as group:
            self._group = group
            for subscription in self.router.subscriptions:
                if isinstance(handler := subscription.consumer, Handler):
                    handler.begin()
            if any(map(_needs_names, self.router.subscriptions)):
                await self._load_names()
            try:
                await self._link.run()
            except FtrackJobsError as exc:
                if not isinstance(exc, SessionStateError):
                    logger.error("the event hub ends: %(error)s", error=exc)  # noqa: TRY400 - it says all
                self._outbox.abandon(exc)
            await anyio.sleep_forever()

    async def _load_names(self) -> None:
        """Load the schemas, for the names in update events; without them, columns stay columns.

        It is tried once, and again when the hub is connected.
        """
        self._wants_names = True
        async with self._names_lock:
            if self._has_tried_names or self.router.names is not NO_NAMES:
                return
            problem = "they take too long"
            with anyio.move_on_after(_NAMES_LIMIT):
                try:
                    documents = await self._entities.schemas()
                except FtrackJobsError as exc:
                    problem = str(exc)
                else:
                    self.router.names = EntityNames(documents)
                    return
            self._has_tried_names = True
            logger.warning(
                "events have the names of columns, without schemas: %(error)s", error=problem
            )

    async def _retry_names(self) -> None:
        self._has_tried_names = False
        await self._load_names()

    # Subscriptions

    def add_handler(self, subscription: Subscription) -> None:
        """Make the subscription of a handler: when the session opens, or soon if it is open."""
        if self._connection.background.event_loop is None:
            self.router.subscribe(subscription)
        else:
            self.require_open()
            self._announcing += 1
            self._connection.background.spawn(self._announce_handler, subscription)

    async def _announce_handler(self, subscription: Subscription) -> None:
        try:
            await self._announce(subscription)
        finally:
            self._announcing -= 1
            self._note_change()

    async def _announce(self, subscription: Subscription) -> None:
        self.start_hub()
        if _needs_names(subscription):
            await self._load_names()
        if not self.is_closing and not subscription.is_ended:
            self.router.subscribe(subscription)

    async def add(self, subscription: Subscription) -> None:
        """Make a subscription, and wait until the server has it.

        Raises:
            ServerError: The server refuses it.
            AuthenticationError: The server refuses the credentials.
            ConfigurationError: The HTTP client can open no WebSocket.
        """
        self.require_open()
        await self._announce(subscription)
        while not subscription.is_active:
            self._raise_failure()
            _raise_refusal(subscription)
            await self.wait_change()

    def follow_table(
        self, queue: EventQueue[Any], expression: str, cursor: EventCursor
    ) -> EventStream[Any]:
        """Return the update events of the table ``Event`` as a stream."""
        feed = TableFeed(
            cursor,
            parse(expression),
            queue,
            call=self._connection.call,
            names=lambda: self.router.names,
            new_waiter=self.new_waiter,
            interval=self._timings.event_cursor_interval,
        )
        # The server wakes it for all updates, because rows have less to compare than events.
        subscription = Subscription(UpdateEvent.subscription, UpdateEvent, feed)

        is_open = False

        async def begin() -> None:
            nonlocal is_open
            self.require_open()
            await cursor.open(self._connection.credentials.server_url)
            is_open = True
            await self.add(subscription)
            await feed.begin()
            self.start(feed.run, "event cursor")

        async def end() -> None:
            self.remove(subscription)
            if is_open:
                await feed.end()

        return EventStream(queue, begin, end, feed.note_handled)

    async def leave(self, subscription: Subscription) -> None:
        """End the subscription of a stream."""
        self.remove(subscription)

    def remove(self, subscription: Subscription) -> None:
        """End a subscription."""
        self.router.unsubscribe(subscription)
        consumer: Any = subscription.consumer
        self._dropped += consumer.dropped

    async def wait_ready(self) -> None:
        """Wait until the server has made all subscriptions; raises as :meth:`add`."""
        self.require_open()
        self.start_hub()
        while not self._is_ready():
            self._raise_failure()
            await self.wait_change()
        for subscription in self.router.subscriptions:
            _raise_refusal(subscription)

    def _is_ready(self) -> bool:
        return self._link.state == "connected" and not self._announcing and self.router.is_settled

    def _raise_failure(self) -> None:
        """Raise the reason why there is no connection, unless that may pass."""
        if self.is_closing:
            raise SessionStateError("the session is being closed; open a new one")
        failure = self._link.failure or self._link.refusal
        if failure is not None:
            raise copy.copy(failure)

    def _note_state(self) -> None:
        if self._link.refusal is not None and self._link.state == "refused":
            self._outbox.abandon(self._link.refusal)
        if self._link.state == "connected" and self._group is not None:
            self._group.start_soon(self._activate_late, self._link.reconnects)
            if self._wants_names and self.router.names is NO_NAMES:
                self._group.start_soon(self._retry_names)
        self._note_change()

    async def _activate_late(self, reconnects: int) -> None:
        """Let subscriptions count as made that the server has not acknowledged for long."""
        await anyio.sleep(self._timings.event_acknowledgement)
        if self._link.state == "connected" and self._link.reconnects == reconnects:
            self.router.activate_all()

    def _note_change(self) -> None:
        changed, self._changed = self._changed, []
        for waiter in changed:
            if not waiter.done():
                waiter.set_result(None)

    async def wait_change(self) -> None:
        """Wait until the connection or a subscription has changed."""
        waiter = self.new_waiter()
        self._changed.append(waiter)
        await waiter

    # As the host of the handlers

    def start(self, function: Callable[[], Awaitable[None]], name: str) -> bool:
        """Run *function* in a task; False before the hub is started, and after its end."""
        if self._group is None:
            return False

        async def guarded() -> None:
            try:
                await function()
            except BaseException as exc:
                if not self._connection.background.survives(exc, name):
                    raise

        self._group.start_soon(guarded, name=name)
        return True

    def reply_with(self, event: Event, data: Any) -> None:
        """Publish *data* as the reply to *event*, if that says by whom it was published."""
        if not self.publisher.reply(event, data):
            logger.debug("there is no reply to %(topic)s, which has no source", topic=event.topic)

    def report_gap(self, gap: Gap) -> None:
        """Log a gap, once for all handlers."""
        if gap.since != self._reported_gap:
            self._reported_gap = gap.since
            since, until = (each.isoformat(" ", "seconds") for each in (gap.since, gap.until))
            logger.warning(
                "handlers may have missed events from %(since)s to %(until)s, without a connection",
                since=since,
                until=until,
            )

    def redact(self, text: str) -> str:
        """Return *text* without secrets."""
        return self._connection.redact(text)

    def end_turn(self, name: str) -> None:
        """Drop what the running task has recorded and not committed, with a warning."""
        self._entities.tasks.end_turn(name)

    # End

    async def _close(self) -> None:
        """End the handlers, then the connection; both in limited time."""
        self.is_closing = True
        self._note_change()
        for subscription in self.router.subscriptions:
            subscription.consumer.close()
        if not self.is_started:
            return
        await self._end_handlers()
        await self._link.leave(self._timings.closing_linger)
        self._outbox.abandon(SessionStateError("the session is closed"))
        self._group = None
        self._tasks.stop()

    async def _end_handlers(self) -> None:
        """Wait a moment for the handlers, then cancel them, and wait for their ends."""
        consumers = [each.consumer for each in self.router.subscriptions]
        handlers: list[Handler[Any]] = [each for each in consumers if isinstance(each, Handler)]
        with anyio.move_on_after(self._timings.closing_wait):
            for handler in handlers:
                await handler.wait_idle()
        for handler in handlers:
            handler.cancel()
        with anyio.move_on_after(self._timings.closing_grace):
            for handler in handlers:
                await handler.wait_idle()
        if names := sorted({each.name for each in handlers if each.is_busy}):
            logger.warning(
                "the session closes while handlers are busy: %(handlers)s",
                handlers=", ".join(names),
            )

    def health(self) -> EventHubHealth:
        """Return a snapshot of the hub."""
        link, router = self._link, self.router
        consumers: list[Any] = [each.consumer for each in router.subscriptions]
        return EventHubHealth(
            state=link.state if self.is_started else "off",
            problem=link.problem,
            connected_since=link.connected_since,
            last_heartbeat=link.last_heartbeat,
            reconnects=link.reconnects,
            subscriptions=len(consumers) - 1,
            received=router.received,
            lag=sum(map(len, consumers)),
            dropped=self._dropped + sum(each.dropped for each in consumers),
            pending=len(self._outbox),
        )


def _raise_refusal(subscription: Subscription) -> None:
    if subscription.refusal is not None:
        detail = f"the subscription {subscription.expression!r}: {subscription.refusal}"
        raise ServerError("EventRefused", detail)


def _needs_names(subscription: Subscription) -> bool:
    """Return whether its events name types and columns."""
    topic = subscription.parsed.equal.get("topic")
    return subscription.kind in KINDS.values() or topic is None or topic in KINDS
