"""From rows to entities on the wire.

Related entities are loaded with one statement for each relation of the projections, never one
for each row. An entity is sent once in an answer, later only as a reference (protocol
reference, section 3.5); should a later place ask for more of it, that is added there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from pydantic_core import to_json

from aioftrackjobs.devserver.computed import Addresses
from aioftrackjobs.devserver.encoding import encode
from aioftrackjobs.devserver.model import EntityType, Model, Relation
from aioftrackjobs.devserver.projections import Selection
from aioftrackjobs.devserver.store import Transaction
from aioftrackjobs.devserver.tables import ROW, TYPE

Row = Mapping[str, Any]
Entity = dict[str, Any]


class Loaded:
    """Rows of one selection, with what its relations lead to."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows
        self.related: dict[str, tuple[dict[Any, list[Row]], Loaded]] = {}


class Loader:
    """Reads what selections want, within one transaction."""

    def __init__(self, model: Model, transaction: Transaction) -> None:
        self._model = model
        self._transaction = transaction

    def load(self, selection: Selection, rows: Sequence[Row]) -> Loaded:
        """Return *rows* of *selection* with everything its relations lead to."""
        loaded = Loaded(rows)
        for name, below in selection.related.items():
            if below.relation is None or len(below.relation.pairs) != 1:
                loaded.related[name] = ({}, Loaded([]))
                continue
            ((here, there),) = below.relation.pairs
            keys = {row[here] for row in rows} - {None}
            found = self._fetch(below, below.relation, there, keys) if keys else []
            by_key: dict[Any, list[Row]] = {}
            for row in found:
                by_key.setdefault(row[there], []).append(row)
            loaded.related[name] = (by_key, self.load(below, found))
        return loaded

    def _fetch(
        self, selection: Selection, relation: Relation, there: str, keys: Iterable[Any]
    ) -> list[Row]:
        table = self._transaction.tables[selection.entity_type.root]
        columns = list(dict.fromkeys((*selection.columns(self._model), there)))
        wanted = sa.func.json_each(sa.bindparam("keys")).table_valued("value")
        statement = (
            sa.select(*(table.c[name] for name in columns))
            .where(table.c[there].in_(sa.select(wanted.c.value)))
            .order_by(table.c[ROW])
        )
        if relation.only:
            statement = statement.where(table.c[relation.only[0]] == relation.only[1])
        rows = self._transaction.fetch(statement, keys=to_json(list(keys)).decode())
        return [dict(zip(columns, row, strict=True)) for row in rows]


class Encoder:
    """Writes the entities of one answer, each of them once.

    Attributes:
        denormalize: Whether repeated entities are sent whole every time.
    """

    def __init__(self, model: Model, addresses: Addresses, *, denormalize: bool = False) -> None:
        self._model = model
        self._addresses = addresses
        self.denormalize = denormalize
        self._sent: dict[tuple[Any, ...], set[Any]] = {}
        self._selections: list[Selection] = []

    def entities(self, selection: Selection, loaded: Loaded) -> list[Entity]:
        """Return the wire form of all rows in *loaded*."""
        self._selections.append(selection)  # alive, so that no later one gets its identity
        return [self.entity(selection, row, loaded) for row in loaded.rows]

    def entity(self, selection: Selection, row: Row, loaded: Loaded) -> Entity:
        """Return the wire form of one *row*: type, key, and what was not sent of it yet."""
        entity_type = self._model.types[row[TYPE]]
        key = tuple(row[name] for name in entity_type.primary_key)
        entity = reference(entity_type, row)
        first, sent = self._first_time(entity_type, key)
        if first:
            self._write(entity, sent, entity_type, row, entity_type.system_projections)
        self._write(entity, sent, entity_type, row, selection.names)
        for name, below in selection.related.items():
            token = (name, id(below))
            if token not in sent and name in entity_type.relations:
                sent.add(token)
                entity[name] = self._related(entity_type.relations[name], below, row, loaded)
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
        self, relation: Relation, below: Selection, row: Row, loaded: Loaded
    ) -> list[Entity] | Entity | None:
        by_key, further = loaded.related[relation.name]
        rows = by_key.get(row[relation.pairs[0][0]], []) if relation.pairs else []
        if relation.many:
            return [self.entity(below, each, further) for each in rows]
        return self.entity(below, rows[0], further) if rows else None

    def changed(self, entity_type: EntityType, row: Row, names: Iterable[str]) -> Entity:
        """Return the wire form of an entity just written, with the values of *names*."""
        entity = reference(entity_type, row)
        key = tuple(row[name] for name in entity_type.primary_key)
        _, sent = self._first_time(entity_type, key)
        names = {*entity_type.system_projections, *names} - set(entity_type.primary_key)
        self._write(entity, set(), entity_type, row, sorted(names))
        sent.update(names)
        return entity


def reference(entity_type: EntityType, row: Row) -> Entity:
    """Return type and key of the entity in *row*."""
    return {
        "__entity_type__": entity_type.name,
        **{name: row[name] for name in entity_type.primary_key},
    }
