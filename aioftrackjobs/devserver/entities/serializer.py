"""Serializing rows as entities of a response.

An entity is sent once in a response, and later as a reference (docs/protocol.md, section 3.5).
If a later projection selects more of it, that is added there.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from aioftrackjobs.devserver.entities.computed import FileUrls
from aioftrackjobs.devserver.entities.loader import Row, Selection
from aioftrackjobs.devserver.limits import Meter
from aioftrackjobs.devserver.schema.model import EntityType, Model, Relation
from aioftrackjobs.devserver.schema.values import encode
from aioftrackjobs.devserver.store.tables import TYPE

Entity = dict[str, Any]

#: About the bytes of an entity besides its texts: names, numbers and punctuation.
_BARE = 100


class Serializer:
    """Serializes the entities of one response, each of them once.

    Attributes:
        denormalize: Whether repeated entities are sent whole every time.

    Args:
        written: Counts the bytes of entities as they are serialized.
    """

    def __init__(
        self,
        model: Model,
        addresses: FileUrls,
        *,
        denormalize: bool = False,
        written: Meter = lambda _: None,
    ) -> None:
        self._model = model
        self._written = written
        self._addresses = addresses
        self.denormalize = denormalize
        self._sent: dict[tuple[Any, ...], set[Any]] = {}

    def entity(self, selection: Selection, row: Row) -> Entity:
        """Return the wire form of one *row*: type, key, and values that were not sent yet."""
        entity_type = self._model.types[row[TYPE]]
        if entity_type.shared:
            entity_type = selection.entity_type
        key = tuple(row[name] for name in entity_type.primary_key)
        entity = reference(entity_type, row)
        first, sent = self._first_time(entity_type, key)
        if first:
            self._write(entity, sent, entity_type, row, entity_type.system_projections)
        self._write(entity, sent, entity_type, row, selection.names)
        self._written(_size_of(entity))
        for name, below in selection.related.items():
            token = (name, below.number)
            if token not in sent and name in entity_type.relations and below.relation:
                sent.add(token)
                entity[name] = self._related(below.relation, below, row)
        return entity

    def _first_time(self, entity_type: EntityType, key: tuple[Any, ...]) -> tuple[bool, set[Any]]:
        if self.denormalize:
            return True, set()
        identity = (entity_type.root, *key)
        sent = self._sent.get(identity)
        if sent is None:
            sent = self._sent[identity] = set(entity_type.primary_key)
            return True, sent
        return False, sent

    def _write(
        self,
        entity: Entity,
        sent: set[Any],
        entity_type: EntityType,
        row: Row,
        names: Iterable[str],
    ) -> None:
        for name in names:
            if name in sent or not entity_type.has(name):
                continue
            sent.add(name)
            attribute = entity_type.attributes.get(name)
            if attribute is None:
                entity[name] = self._addresses.compute(entity_type, name, row)
            else:
                entity[name] = encode(attribute, row[name])

    def _related(
        self, relation: Relation, below: Selection, row: Row
    ) -> list[Entity] | Entity | None:
        rows: list[Row] = row.get(below.number, [])
        if relation.many:
            return [self.entity(below, each) for each in rows]
        return self.entity(below, rows[0]) if rows else None

    def changed(self, entity_type: EntityType, row: Row, names: Iterable[str]) -> Entity:
        """Return the wire form of an entity after a write, with the values of *names*."""
        entity = reference(entity_type, row)
        key = tuple(row[name] for name in entity_type.primary_key)
        _, sent = self._first_time(entity_type, key)
        system = [name for name in entity_type.system_projections if row.get(name) is not None]
        names = {*system, *names}.difference(entity_type.primary_key)
        # The database fills these in later; clients query them when they need them.
        names -= {name for name in entity_type.copied if row.get(name) is None}
        self._write(entity, set(), entity_type, row, sorted(names))
        sent.update(names)
        return entity


def _size_of(entity: Entity) -> int:
    size = _BARE
    for value in entity.values():
        if type(value) is str:
            size += len(value)
    return size


def reference(entity_type: EntityType, row: Row) -> Entity:
    """Return type and key of the entity in *row*."""
    return {
        "__entity_type__": entity_type.name,
        **{name: row[name] for name in entity_type.primary_key},
    }
