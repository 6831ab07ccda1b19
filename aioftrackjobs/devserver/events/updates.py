"""``ftrack.update``: one event for what a batch has changed (docs/protocol.md, section 7.7)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise
from math import isclose
from typing import Any, Final, NamedTuple
from uuid import uuid4

from pydantic_core import to_json

from aioftrackjobs.devserver.events.hub import Event, EventHub
from aioftrackjobs.devserver.schema.model import EntityType, Model
from aioftrackjobs.devserver.schema.values import now_text
from aioftrackjobs.devserver.store.change_log import Change
from aioftrackjobs.devserver.store.database import Transaction
from aioftrackjobs.devserver.store.tables import TYPE

_EVENT: Final = "Event"
_VALUE: Final = "CustomAttributeValue"
_CONFIGURATION: Final = "CustomAttributeConfiguration"
#: Types that hold no data of a studio.
UNNOTED: Final = frozenset({_EVENT, "Feed", "StatusChange"})
#: Attributes that lead from an entity to what it belongs to; the first that has a value does.
_UPWARDS: Final = (
    *("parent_id", "container_id", "asset_id", "version_id", "context_id", "list_id"),
    *("review_session_id", "project_id"),
)
#: Types of which something can be a part without saying so in the schema: notes and metadata.
_OWNERS: Final = ("Context", "AssetVersion", "Asset", "List", "ReviewSession", "Component", "User")
_HIGHEST: Final = 50
#: What the entity of an event has.
_EVENT_VALUES: Final = (
    *("id", "action", "created_at", "data", "parent_type", "parent_id", "project_id", "user_id"),
)
#: Rows of the type Event that are kept.
_KEPT: Final = 50_000
#: Share of the largest frame that the entities of one event take.
_SHARE: Final = 0.8

Row = Mapping[str, Any]


class _Shape(NamedTuple):
    """What the descriptions of a type's entities need.

    Attributes:
        columns: The attributes but the key, each with its column, its name in events.
        upwards: The attributes that lead to what an entity belongs to, each with the roots of the
            types that it may name.
    """

    columns: list[tuple[str, str]]
    upwards: list[tuple[str, list[str]]]


class UpdateEvents:
    """Makes the events about the changes of transactions, and keeps them as entities."""

    def __init__(self, model: Model, hub: EventHub, largest: int) -> None:
        self._model = model
        self._hub = hub
        self._largest = int(largest * _SHARE)
        self._hub_id = uuid4().hex
        self._shapes: dict[str, _Shape] = {}

    def collect(self, transaction: Transaction, changes: list[Change]) -> Callable[[], None] | None:
        """Return what publishes the events about *transaction* once it is committed."""
        if not changes:
            return None
        entities = _Describer(self._model, self._shapes, transaction, changes).entities()
        if not entities:
            return None
        user = self._user(transaction)
        self._keep(transaction, entities, user)
        if not self._hub.has_listeners("ftrack.update"):
            return None
        events = [self._event(part, user, transaction.username) for part in self._parts(entities)]
        return lambda: self._hub.publish_soon(events)

    def _parts(self, entities: list[Event]) -> Iterator[list[Event]]:
        """Yield *entities* in parts that fit into a frame: in one, unless a batch is very big."""
        part, left = list[Event](), self._largest
        for entity in entities:
            left -= len(to_json(entity))
            if part and left < 0:
                yield part
                part, left = [], self._largest
            part.append(entity)
        yield part

    def _event(self, entities: list[Event], user: Row | None, username: str) -> Event:
        name = (
            " ".join(filter(None, (user.get("first_name"), user.get("last_name")))) if user else ""
        )
        ids = dict.fromkeys(each["entityId"] for entity in entities for each in entity["parents"])
        return {
            "topic": "ftrack.update",
            "id": uuid4().hex,
            "sent": None,
            "source": {
                "id": self._hub_id,
                "applicationId": "aioftrackjobs.devserver",
                "user": {"username": username, "id": user and user["id"]},
            },
            "target": "",
            "inReplyToEvent": None,
            "data": {
                "entities": entities,
                "user": {"userid": user and user["id"], "name": name or username},
                "parents": list(ids),
            },
        }

    def _user(self, transaction: Transaction) -> Row | None:
        user = self._model.types.get("User")
        if user is None or not {"id", "username"} <= user.attributes.keys():
            return None
        return transaction.read(user.root, {"username": transaction.username})

    def _keep(self, transaction: Transaction, entities: list[Event], user: Row | None) -> None:
        event_type = self._model.types.get(_EVENT)
        own_id = None if event_type is None else event_type.attributes.get("id")
        if event_type is None or own_id is None or own_id.type != "integer":
            return
        last, now = transaction.highest(event_type.root, {}, "id") or 0, now_text()
        if not isinstance(last, int):  # the schemas have types with texts as ids in this table
            return
        user_id, highest = user and user["id"], last + len(entities)
        names = [name for name in _EVENT_VALUES if name in event_type.attributes]
        rows = (_row_of(last + n, each, now, user_id) for n, each in enumerate(entities, 1))
        values = ([event_type.name, *(row[name] for name in names)] for row in rows)
        transaction.insert_many(event_type.root, [TYPE, *names], values)
        if last // 1000 != highest // 1000:
            transaction.forget(event_type.root, "id", highest - _KEPT)


def _row_of(number: int, entity: Event, now: str, user_id: Any) -> dict[str, Any]:
    """Return the row about *entity*."""
    project = entity["parents"][-1]["entityId"] if entity["parents"] else None
    return {
        "id": number,
        "action": f"{entity['action']}.{entity['entityType']}",
        "created_at": now,
        "data": to_json(entity).decode(),
        "parent_type": entity["entityType"],
        "parent_id": entity["entityId"],
        "project_id": None if entity["action"] == "remove" else project,
        "user_id": user_id,
    }


def _is_same(one: Any, other: Any) -> bool:
    """Return whether two numbers differ by no more than their text in the log does."""
    return type(one) is float and type(other) is float and isclose(one, other, rel_tol=1e-12)


def _shape_of(model: Model, entity_type: EntityType) -> _Shape:
    upwards = list[tuple[str, list[str]]]()
    for name in _UPWARDS:
        attribute = entity_type.attributes.get(name)
        if attribute is None:
            continue
        related = [each.target for each in entity_type.relations.values() if each.key == name]
        upwards.append((name, _roots(model, (attribute.references, *related, *_OWNERS))))
    return _Shape(list(_columns(entity_type)), upwards)


def _roots(model: Model, names: Iterable[str | None]) -> list[str]:
    """Return the roots of the types called *names* that there are, if they have ids."""
    roots = dict.fromkeys(model.types[name].root for name in names if name in model.types)
    return [root for root in roots if "id" in model.types[root].attributes]


def _columns(entity_type: EntityType) -> Iterator[tuple[str, str]]:
    properties = entity_type.document["properties"]
    for name in entity_type.attributes:
        if name in properties and name not in entity_type.primary_key:
            alias = properties[name].get("alias_for")
            yield name, alias if isinstance(alias, str) else name


class _Describer:
    """Describes the entities that one transaction has changed."""

    def __init__(
        self,
        model: Model,
        shapes: dict[str, _Shape],
        transaction: Transaction,
        changes: list[Change],
    ) -> None:
        self._model = model
        self._shapes = shapes
        self._transaction = transaction
        self._found: dict[tuple[str, str], Event] = {}
        #: Rows by root type and id; those that were deleted are parents of others.
        self._rows: dict[tuple[str, Any], Row | None] = {
            (change.table, change.before["id"]): change.before
            for change in changes
            if change.after is None and change.before is not None and "id" in change.before
        }
        values = model.types.get(_VALUE)
        for change in changes:
            before, after = change.before, change.after
            if values is not None and change.table == values.root:
                self._add_value(before, after)
            elif before and after and self._key(before) != self._key(after):
                # Another entity has the row of one that was deleted.
                self._add(before, None)
                self._add(None, after)
            else:
                self._add(before, after)

    def entities(self) -> list[Event]:
        return [each for each in self._found.values() if each["keys"] or each["action"] != "update"]

    def _key(self, row: Row) -> str:
        return "/".join(str(row[name]) for name in self._model.types[row[TYPE]].primary_key)

    def _add(self, before: Row | None, after: Row | None) -> None:
        row = after or before or {}  # a change has one of them
        entity_type = self._model.types[row[TYPE]]
        changes = {}
        for name, column in self._shape(entity_type).columns:
            old, new = before and before.get(name), after and after.get(name)
            if old != new and not _is_same(old, new):
                if entity_type.attributes[name].type == "boolean":
                    old, new = (each if each is None else bool(each) for each in (old, new))
                changes[column] = {"old": old, "new": new}
        action = "add" if before is None else "remove" if after is None else "update"
        if before and after and before.get("parent_id") != after.get("parent_id"):
            action = "move"
        entity = self._entity(row, action)
        entity["changes"] |= changes
        entity["keys"] = list(entity["changes"])

    def _add_value(self, before: Row | None, after: Row | None) -> None:
        row = after or before or {}
        configuration = self._first(
            _roots(self._model, [_CONFIGURATION]), row.get("configuration_id")
        )
        owner = self._first(_roots(self._model, _OWNERS), row.get("entity_id"))
        old, new = (each and each.get("value") for each in (before, after))
        if configuration is None or owner is None or old == new:
            return
        entity = self._entity(owner, "update")
        entity["changes"][str(configuration.get("key"))] = {"old": old, "new": new}
        entity["keys"] = list(entity["changes"])

    def _entity(self, row: Row, action: str) -> Event:
        """Return the description of the entity in *row*, which has no changes yet if it is new."""
        chain = self._chain(row)
        own = chain[0]
        known = self._found.get((own["entityType"], own["entityId"]))
        if known is not None and action == "update":
            return known
        entity = self._found[own["entityType"], own["entityId"]] = {
            **own,
            "objectTypeId": row.get("object_type_id"),
            "action": action,
            "keys": [],
            "changes": {} if known is None else known["changes"],
            "parents": chain if chain[-1]["entity_type"] == "Project" else [],
        }
        return entity

    def _chain(self, start: Row) -> list[Event]:
        """Return an entity and all that it belongs to, up to its project."""
        chain = list[Event]()
        row: Row | None = start
        while row is not None and len(chain) < _HIGHEST:
            entity_type = self._model.types[row[TYPE]]
            chain.append(
                {
                    "entityId": self._key(row),
                    "entityType": entity_type.table_name,
                    "entity_type": entity_type.name,
                    "parentId": None,
                }
            )
            row = None if entity_type.name == "Project" else self._above(entity_type, row)
        for each, above in pairwise(chain):
            each["parentId"] = above["entityId"]
        return chain

    def _above(self, entity_type: EntityType, row: Row) -> Row | None:
        ways = ((roots, row.get(name)) for name, roots in self._shape(entity_type).upwards)
        found = (self._first(roots, own_id) for roots, own_id in ways if own_id is not None)
        return next(filter(None, found), None)

    def _first(self, roots: Iterable[str], own_id: Any) -> Row | None:
        return next(filter(None, (self._read(root, own_id) for root in roots)), None)

    def _shape(self, entity_type: EntityType) -> _Shape:
        shape = self._shapes.get(entity_type.name)
        if shape is None:
            shape = self._shapes[entity_type.name] = _shape_of(self._model, entity_type)
        return shape

    def _read(self, root: str, own_id: Any) -> Row | None:
        place = (root, own_id)
        if place not in self._rows:
            self._rows[place] = self._transaction.read(root, {"id": own_id})
        return self._rows[place]
