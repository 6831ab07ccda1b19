"""The subscriptions of a hub, and which of them an event is for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Protocol
from uuid import uuid4

from aioftrackjobs.events.models import Event, Gap
from aioftrackjobs.protocol.subscription import Expression, SubscriptionSyntaxError, parse, value_at


class Consumer(Protocol):
    """What a subscription delivers to: a stream, or the tasks of a handler."""

    def put(self, event: Any) -> None:
        """Take *event*; returns at once."""
        ...

    def put_gap(self, gap: Gap) -> None:
        """Take note that events may be lost."""
        ...

    def close(self) -> None:
        """Take no more."""
        ...


class Subscription:
    """One subscription, which stays the same over all connections.

    Args:
        expression: Which events it is for.
        kind: The class of these events; None to choose it by the topic.
        consumer: What it delivers to.
        where: A further condition, which only this host tests.
        metadata: What the targets of events may test, besides the id.
        subscriber_id: The id, if it must be a certain one.

    Attributes:
        expression: As above.
        metadata: With the id.
        consumer: As above.
        is_active: Whether the server has it on the present connection.
        refusal: Why the server does not accept it.
        is_ended: Whether the program has ended it.
    """

    def __init__(
        self,
        expression: str,
        kind: type[Event] | None,
        consumer: Consumer,
        *,
        where: Callable[[Any], bool] | None = None,
        metadata: Mapping[str, Any] | None = None,
        subscriber_id: str | None = None,
    ) -> None:
        self.expression = expression
        self.kind = kind
        self.consumer = consumer
        self.where = where
        self.metadata: dict[str, Any] = {
            **(metadata or {}),
            "id": subscriber_id or uuid4().hex,
        }
        self.parsed: Expression = parse(expression)
        self.is_active: bool = False
        self.is_ended = False
        self.refusal: str | None = None
        self._lost_since: datetime | None = None

    @property
    def id(self) -> str:
        """The id of the subscriber."""
        return str(self.metadata["id"])

    def note_loss(self, since: datetime) -> None:
        """Take note that the connection was lost, and when the server was last heard."""
        if self.is_active:
            self._lost_since = self._lost_since or since
        self.is_active = False

    def activate(self) -> None:
        """Take note that the server has it, and of the gap before."""
        self.is_active = True
        if self._lost_since is not None:
            gap, self._lost_since = Gap(self._lost_since, datetime.now(UTC)), None
            self.consumer.put_gap(gap)

    def is_target_of(self, target: str) -> bool:
        """Return whether an event with *target* is for this subscriber."""
        try:
            return parse(target).matches(self.metadata)
        except SubscriptionSyntaxError:
            return True  # the server has understood it


class SubscriptionIndex:
    """Subscriptions, found by the values that their expressions need.

    Ten thousand subscriptions that each name a topic and a project cost one look-up for an event,
    not ten thousand tests.
    """

    def __init__(self) -> None:
        self._all: dict[str, Subscription] = {}
        #: By the fields that must have certain values, and these values.
        self._shapes = defaultdict[tuple[str, ...], dict[tuple[str, ...], dict[str, Subscription]]](
            dict
        )

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Subscription]:
        return iter(tuple(self._all.values()))

    def __contains__(self, subscription: Subscription) -> bool:
        return subscription.id in self._all

    def add(self, subscription: Subscription) -> None:
        """Add a subscription."""
        fields, values = _place(subscription)
        self._all[subscription.id] = subscription
        self._shapes[fields].setdefault(values, {})[subscription.id] = subscription

    def remove(self, subscription: Subscription) -> None:
        """Remove a subscription, if it is there."""
        if self._all.pop(subscription.id, None) is None:
            return
        fields, values = _place(subscription)
        groups = self._shapes[fields]
        del groups[values][subscription.id]
        if not groups[values]:
            del groups[values]
        if not groups:
            del self._shapes[fields]

    def matching(self, event: dict[str, Any]) -> list[Subscription]:
        """Return the subscriptions that *event* is for, in the order of the wire."""
        found: list[Subscription] = []
        for fields, groups in self._shapes.items():
            values = tuple([value_at(event, field) for field in fields])
            with suppress(TypeError):  # a list or an object equals no text
                if (group := groups.get(values)) is not None:
                    found += [each for each in group.values() if each.parsed.matches(event)]
        target = event.get("target")
        if target and isinstance(target, str) and target.strip():
            return [each for each in found if each.is_target_of(target)]
        return found


def _place(subscription: Subscription) -> tuple[tuple[str, ...], tuple[str, ...]]:
    equal = sorted(subscription.parsed.equal.items())
    return tuple(field for field, _ in equal), tuple(value for _, value in equal)
