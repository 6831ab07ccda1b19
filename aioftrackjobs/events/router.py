"""Brings events to the subscriptions that they are for, and subscriptions to the server."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from typing import Any
from uuid import uuid4

from aioftrackjobs.background import SafeLogger, Surviving
from aioftrackjobs.errors import ServerError
from aioftrackjobs.events.models import KINDS, Event, make_event
from aioftrackjobs.events.outbox import Outbox, Outgoing
from aioftrackjobs.events.subscriptions import Subscription, SubscriptionIndex
from aioftrackjobs.protocol import events, socketio
from aioftrackjobs.protocol.changes import NO_NAMES, EntityNames

logger: SafeLogger = SafeLogger(__name__)

#: Ids of events that are remembered, so that an event that comes twice is delivered once.
_REMEMBERED = 10_000


class Router:
    """The subscriptions of one hub, over all its connections.

    Args:
        outbox: Numbers what the server is to acknowledge.
        source: Describes the hub as a publisher.
        surviving: Guards the delivery of one event.
        note_change: Called when the server has accepted or refused a subscription.
        observe: Called with the topic of each event.

    Attributes:
        subscriptions: Those that exist.
        names: Names of entity types and attributes.
        send: Sends a frame on the present connection; None while there is none.
        received: Events that have arrived.
        repeated: Events that have arrived once more.
    """

    def __init__(
        self,
        outbox: Outbox,
        source: Mapping[str, Any],
        surviving: Callable[[str], Surviving],
        note_change: Callable[[], None],
        observe: Callable[[str], object] | None = None,
    ) -> None:
        self._outbox = outbox
        self._source = source
        self._guard = surviving("the delivery of an event")
        self._note_change, self._observe = note_change, observe
        self._seen: dict[str, None] = {}
        self._unmade: set[Subscription] = set()  # those that the server has not accepted or refused
        self.subscriptions: SubscriptionIndex = SubscriptionIndex()
        self.names: EntityNames = NO_NAMES
        self.send: Callable[[str], None] | None = None
        self.received: int = 0
        self.repeated: int = 0

    # To the server

    def subscribe(self, subscription: Subscription) -> None:
        """Add a subscription, also on the server if there is a connection."""
        self.subscriptions.add(subscription)
        self._unmade.add(subscription)
        if self.send is not None:
            self.send(self._frame(subscription))

    @property
    def is_settled(self) -> bool:
        """Whether the server has accepted or refused all subscriptions."""
        return not self._unmade

    def unsubscribe(self, subscription: Subscription) -> None:
        """Remove a subscription, also on the server if there is a connection."""
        if subscription in self.subscriptions:
            self.subscriptions.remove(subscription)
            self._unmade.discard(subscription)
            data = events.unsubscription_data(subscription.id)
            if self.send is not None:
                self.send(socketio.event_frame(self._encode(events.UNSUBSCRIBE, data)))
        subscription.consumer.close()

    def first_frames(self, send: Callable[[str], None]) -> list[str]:
        """Return the frames that make all subscriptions on a new connection.

        Args:
            send: Sends further frames on it.
        """
        self.send = send
        return [self._frame(each) for each in self.subscriptions]

    def _frame(self, subscription: Subscription) -> str:
        data = events.subscription_data(subscription.expression, subscription.metadata)
        outgoing = Outgoing(
            self._encode(events.SUBSCRIBE, data), on_end=partial(self._note_end, subscription)
        )
        return self._outbox.frame_of(outgoing)

    def _encode(self, topic: str, data: Mapping[str, Any]) -> str:
        return events.encode_event(topic, data, event_id=uuid4().hex, source=self._source)

    def _note_end(self, subscription: Subscription, outgoing: Outgoing) -> None:
        error = outgoing.error
        if error is None:
            subscription.refusal = None
            subscription.activate()
        elif isinstance(error, ServerError):
            subscription.refusal = error.detail
            expression = subscription.expression
            logger.warning(
                "the event hub refuses the subscription %(subscription)r: %(error)s",
                subscription=expression,
                error=error.detail,
            )
        else:
            return  # the connection is lost; the next one makes it again
        self._unmade.discard(subscription)
        self._note_change()

    def activate_all(self) -> None:
        """Let all subscriptions count as made: the server does not acknowledge any."""
        late = [each for each in self.subscriptions if not each.is_active and not each.refusal]
        if late:
            logger.warning(
                "the event hub has not acknowledged %(count)d subscription(s)", count=len(late)
            )
        for subscription in late:
            subscription.activate()
        self._unmade.clear()
        self._note_change()

    def note_loss(self, since: datetime) -> None:
        """Take note that the connection is lost, and when the server was last heard."""
        self.send = None
        self._unmade.update(self.subscriptions)
        for subscription in self.subscriptions:
            subscription.note_loss(since)

    # From the server

    def receive(self, kind: str, data: str) -> None:
        """Take the data of a frame; whatever they are, this raises no error."""
        with self._guard:
            if kind == socketio.EVENT:
                self._receive_event(data)
            elif (found := socketio.read_acknowledgement(data)) is not None:
                self._outbox.acknowledge(found)

    def _receive_event(self, data: str) -> None:
        payload = events.read_event(data)
        if payload is None:
            logger.debug("a frame with no event is ignored: %(frame)s", frame=data[:200])
            return
        self.received += 1
        if self._observe is not None:
            self._observe(str(payload["topic"]))
        if self._is_repeated(payload.get("id")):
            self.repeated += 1
        else:
            self.deliver(payload)

    def _is_repeated(self, event_id: object) -> bool:
        if type(event_id) is not str or not event_id:
            return False
        seen = self._seen
        if event_id in seen:
            return True
        seen[event_id] = None
        if len(seen) > _REMEMBERED:
            del seen[next(iter(seen))]
        return False

    def deliver(self, payload: dict[str, Any]) -> None:
        """Bring an event to the subscriptions that it is for."""
        by_topic: type[Event] = KINDS.get(payload["topic"], Event)
        made: dict[type[Event], Event] = {}
        for subscription in self.subscriptions.matching(payload):
            kind = subscription.kind or by_topic
            event = made.get(kind)
            if event is None:
                event = made[kind] = make_event(payload, kind, self.names)
            self._hand_over(subscription, event)

    def _hand_over(self, subscription: Subscription, event: Event) -> None:
        if subscription.where is not None:
            try:
                if not subscription.where(event):
                    return
            except Exception as exc:  # noqa: BLE001 - a function of the user's may raise anything
                logger.error(  # noqa: TRY400 - the user's code
                    "where= of the subscription %(subscription)r failed: %(error)s",
                    subscription=subscription.expression,
                    error=exc,
                )
                return
        subscription.consumer.put(event)
