"""Events as programs see them, and what a subscription delivers besides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, ClassVar, NamedTuple, TypeVar

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from aioftrackjobs.protocol import events
from aioftrackjobs.protocol.changes import (
    NO_NAMES,
    EntityNames,
    read_changes,
    read_entities,
    read_entity,
)


class EventUser(NamedTuple):
    """The user as whom an event was published.

    Attributes:
        id: None if the event does not have it.
        username: None if the event does not have it.
    """

    id: str | None
    username: str | None


class Event(BaseModel):
    """An event. Keys that are not listed here are kept as attributes.

    ::

        async with session.events.subscribe("topic=studio.published") as events:
            async for event in events:
                print(event.topic, event.data)

    Attributes:
        subscription: What ``events.on(Event)`` subscribes to. A subclass has its own.
        topic: For example ``ftrack.update``.
        data: What the event says: an object, as a rule; ``{}`` if it says nothing.
        id: Made by the publisher; None if it has made none.
        target: Expression of the subscribers that it is for; empty for all.
        source: Who has published it: ``id`` of the hub, ``user``, and more.
        sent: As the publisher has set it: None, as a rule.
        in_reply_to: The id of the event that this one replies to.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="allow", frozen=True)

    subscription: ClassVar[str] = "topic=*"

    topic: str
    data: Any = Field(default_factory=dict)
    id: str | None = None
    target: str = ""
    source: dict[str, Any] = Field(default_factory=dict)
    sent: Any = None
    in_reply_to: str | None = Field(
        default=None, validation_alias=AliasChoices("inReplyToEvent", "in_reply_to")
    )

    @property
    def user(self) -> EventUser:
        """The user as whom it was published."""
        user = self.source.get("user")
        found: Mapping[str, Any] = user if isinstance(user, Mapping) else {}
        return EventUser(_text(found.get("id")), _text(found.get("username")))

    def _data(self, *names: str) -> Any:
        """Return the value at a path in the data; None if there is none."""
        found = self.data
        for name in names:
            found = found.get(name) if isinstance(found, Mapping) else None
        return found


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


class EntityReference(NamedTuple):
    """An entity that an event refers to.

    Attributes:
        entity_type: Name of its type, as far as the server's schemas or the event name it. Of an
            entity in a selection it may be the base type, ``TypedContext`` for a shot.
        id: Its id.
        table: What the event calls its type: ``task``, ``assetversion``.
    """

    entity_type: str
    id: str
    table: str = ""


@dataclass(frozen=True, slots=True)
class AttributeChange:
    """The change of one attribute.

    Attributes:
        name: Name in the API, ``status_id``; that of the column if the schemas do not know it.
        column: Name in the database, ``statusid``.
        old: The value before, as it is stored; None if the entity is new.
        new: The value after; None if the entity was deleted.
    """

    name: str
    column: str
    old: Any
    new: Any


class AttributeChanges(Mapping[str, AttributeChange]):
    """Changes by the names of attributes; the name of a column finds the same: ``statusid``."""

    __slots__ = ("_by_column", "_by_name")

    def __init__(self, changes: Mapping[str, AttributeChange]) -> None:
        self._by_name = changes
        self._by_column = {each.column: each for each in changes.values()}

    def __getitem__(self, name: str) -> AttributeChange:
        found = self._by_name.get(name) or self._by_column.get(name)
        if found is None:
            raise KeyError(name)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self._by_name)})"


@dataclass(frozen=True, slots=True)
class EntityChange:
    """What has happened to one entity.

    Attributes:
        entity_type: Name of its type in the API, ``Shot``.
        id: Its id.
        action: ``add``, ``update``, ``move`` or ``remove``; empty if the event does not say.
        attributes: The changes, by names of attributes and of columns.
        parents: What it belongs to, from its parent up to its project.
        table: What the event calls its type: ``task`` for every typed context.
        payload: The whole description in the event.
    """

    entity_type: str
    id: str
    action: str
    attributes: AttributeChanges
    parents: tuple[EntityReference, ...]
    table: str = ""
    payload: Mapping[str, Any] = field(default_factory=dict, repr=False)


class _NamingEvent(Event):
    """An event that refers to entities, whose names are in the schemas of the server."""

    _names: ClassVar[EntityNames] = NO_NAMES  # an event of a hub has its own, see make_event()


class UpdateEvent(_NamingEvent):
    """``ftrack.update``: entities were created, changed or deleted.

    ::

        @session.events.on(UpdateEvent)
        async def note_status(event: UpdateEvent) -> None:
            for change in event.changes:
                if change.entity_type == "Task" and "status_id" in change.attributes:
                    print(change.id, change.attributes["status_id"].new)
    """

    subscription: ClassVar[str] = f"topic={events.UPDATE}"

    @cached_property
    def changes(self) -> list[EntityChange]:
        """What has happened, one entry for each entity; what is no description is left out."""
        payloads = self._data("entities")
        found = payloads if isinstance(payloads, list) else []
        return [each for each in map(self._change, found) if each is not None]

    def _change(self, payload: Any) -> EntityChange | None:
        entity = read_entity(payload, self._names)
        if entity is None:
            return None
        changes = {
            name: AttributeChange(name, column, old, new)
            for name, column, old, new in read_changes(payload, entity, self._names)
        }
        parents = [EntityReference(*each) for each in self._parents(payload)]
        if parents and parents[0].id == entity.id:
            del parents[0]  # the chain begins with the entity itself
        return EntityChange(
            entity_type=entity.entity_type,
            id=entity.id,
            action=_text(payload.get("action")) or "",
            attributes=AttributeChanges(changes),
            parents=tuple(parents),
            table=entity.table,
            payload=payload,
        )

    def _parents(self, payload: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
        return read_entities(payload.get("parents"), self._names)


class _ActionEvent(_NamingEvent):
    """An event about actions, with the entities that the user has selected."""

    @property
    def selection(self) -> list[EntityReference]:
        """The entities that the user has selected, in order."""
        selected = self._data("selection")
        if selected is None:  # as the official list of events has it
            selected = self._data("context", "selection")
        return [EntityReference(*each) for each in read_entities(selected, self._names)]


class ActionDiscover(_ActionEvent):
    """``ftrack.action.discover``: a user has opened the menu of actions for a selection.

    The reply is ``{"items": [...]}`` (docs/protocol.md, section 7.8)::

        @session.events.on(ActionDiscover)
        async def offer(event: ActionDiscover) -> dict | None:
            if event.selection:
                return {"items": [{"label": "Deliver", "actionIdentifier": "deliver"}]}
    """

    subscription: ClassVar[str] = f"topic={events.DISCOVER}"


class ActionLaunch(_ActionEvent):
    """``ftrack.action.launch``: a user has chosen an action, or has filled in its form.

    The reply is ``{"success": ..., "message": ...}``, or a form (docs/protocol.md, section 7.8)::

        @session.events.on(ActionLaunch, where="data.actionIdentifier=deliver")
        async def deliver(event: ActionLaunch) -> dict:
            return {"success": True, "message": f"{len(event.selection)} delivered"}
    """

    subscription: ClassVar[str] = f"topic={events.LAUNCH}"

    @property
    def identifier(self) -> str:
        """The identifier of the action; empty if the event has none."""
        return _text(self._data("actionIdentifier")) or ""

    @property
    def values(self) -> dict[str, Any]:
        """What the user has entered into the form, by the names of its fields."""
        values = self._data("values")
        return dict(values) if isinstance(values, Mapping) else {}

    @property
    def has_values(self) -> bool:
        """Whether the user has filled in a form, possibly one without fields."""
        return isinstance(self._data("values"), Mapping)


@dataclass(frozen=True, slots=True)
class Lagged:
    """Events that a subscription has dropped, because too many waited.

    Attributes:
        count: Their number.
    """

    count: int


@dataclass(frozen=True, slots=True)
class Gap:
    """A time in which the hub was not connected: events of it may be lost.

    Attributes:
        since: When the server was last heard, by the clock of this host.
        until: When the subscription was made again.
    """

    since: datetime
    until: datetime

    def joined(self, later: Gap) -> Gap:
        """Return the time from the beginning of this one to the end of a *later* one."""
        return Gap(min(self.since, later.since), max(self.until, later.until))


E = TypeVar("E", bound=Event)

#: The class of the events of some topics.
KINDS: Mapping[str, type[Event]] = {
    events.UPDATE: UpdateEvent,
    events.DISCOVER: ActionDiscover,
    events.LAUNCH: ActionLaunch,
}


def make_event(payload: dict[str, Any], kind: type[E], names: EntityNames = NO_NAMES) -> E:
    """Return the event in *payload*, with defaults in place of values of wrong types.

    Args:
        payload: See :func:`.read_event`.
        kind: The class of the event.
        names: Names of types and attributes.
    """
    if payload.get("data", _ODD) is None:
        payload = {**payload, "data": {}}
    for name, expected in _EXPECTED:
        if type(payload.get(name, _ODD)) is not expected and name in payload:
            payload = {key: value for key, value in payload.items() if key != name}
    event = kind.model_validate(payload)
    if isinstance(event, _NamingEvent):
        event.__dict__["_names"] = (
            names  # as a private attribute, it would take as long as all else
        )
    return event


_ODD = object()
_EXPECTED = (("id", str), ("target", str), ("source", dict), ("inReplyToEvent", str))
