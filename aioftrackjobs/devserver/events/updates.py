"""``ftrack.update``: one event for what a batch has changed (docs/protocol.md, section 7.7)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import chain, pairwise
from math import isclose
from typing import Any, Final
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
#: Rows of the type Event that are kept.
_KEPT: Final = 50_000
#: Share of the largest frame that the entities of one event take.
_SHARE: Final = 0.8

Row = Mapping[str, Any]
#: Attributes, each with its column.
Columns = list[tuple[str, str]]


class UpdateEvents:
    """Makes the events about the changes of transactions, and keeps them as entities."""

    def __init__(self, model: Model, hub: EventHub, largest: int) -> None:
        self._model = model
        self._hub = hub
        self._largest = int(largest * _SHARE)
        self._hub_id = uuid4().hex
        self._columns: dict[str, Columns] = {}

    def collect(self, transaction: Transaction, changes: list[Change]) -> Callable[[], None] | None:
        """Return what publishes the events about *transaction* once it is committed."""
        if not changes:
            return None
        entities = _Describer(self._model, self._columns, transaction, changes).entities()
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
        for number, entity in enumerate(entities, last + 1):
            project = entity["parents"][-1]["entityId"] if entity["parents"] else None
            row = {
                "id": number,
                "action": f"{entity['action']}.{entity['entityType']}",
                "created_at": now,
                "data": to_json(entity).decode(),
                "parent_type": entity["entityType"],
                "parent_id": entity["entityId"],
                "project_id": None if entity["action"] == "remove" else project,
                "user_id": user and user["id"],
            }
            known = {name: row[name] for name in row.keys() & event_type.attributes.keys()}
            transaction.insert(event_type.root, {TYPE: event_type.name, **known})
            if number % 1000 == 0:
                transaction.forget(event_type.root, "id", number - _KEPT)


def _is_same(one: Any, other: Any) -> bool:
    """Return whether two numbers differ by no more than their text in the log does."""
    return type(one) is float and type(other) is float and isclose(one, other, rel_tol=1e-12)


def _columns(entity_type: EntityType) -> Iterator[tuple[str, str]]:
    """Yield the attributes of a type but its key, each with its column, its name in events."""
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
        columns: dict[str, Columns],
        transaction: Transaction,
        changes: list[Change],
    ) -> None:
        self._model = model
        self._columns = columns
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
        if entity_type.name not in self._columns:
            self._columns[entity_type.name] = list(_columns(entity_type))
        for name, column in self._columns[entity_type.name]:
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
        configuration = self._read(_CONFIGURATION, row.get("configuration_id"))
        owners = (self._read(owner, row.get("entity_id")) for owner in _OWNERS)
        owner = next(filter(None, owners), None)
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
        for name in _UPWARDS:
            attribute = entity_type.attributes.get(name)
            if attribute is None or row[name] is None:
                continue
            # The first one mostly is what it belongs to: the others are not looked for.
            related = (each.target for each in entity_type.relations.values() if each.key == name)
            for target in filter(None, chain([attribute.references], related, _OWNERS)):
                found = self._read(target, row[name])
                if found is not None:
                    return found
        return None

    def _read(self, name: str, own_id: Any) -> Row | None:
        if name not in self._model.types or "id" not in self._model.root(name).attributes:
            return None
        place = (self._model.types[name].root, own_id)
        if place not in self._rows:
            self._rows[place] = self._transaction.read(place[0], {"id": own_id})
        return self._rows[place]
