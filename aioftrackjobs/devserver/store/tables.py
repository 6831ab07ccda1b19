"""Tables for a model: one for each family of entity types.

Column names are the API's attribute names. Two columns are added: ``_row`` keeps the order of
creation, which is the order of queries that name none, and ``_type`` the concrete type. Names of
types and attributes are words, so that quotes are all that SQL needs around them.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final

import sqlalchemy as sa

from aioftrackjobs.devserver.schema.model import Attribute, EntityType, Model
from aioftrackjobs.devserver.schema.quirks import CASCADING_KEYS
from aioftrackjobs.devserver.store.custom_attributes import custom_attribute_triggers
from aioftrackjobs.devserver.store.triggers import index, targets_of, triggers_of
from aioftrackjobs.protocol.schemas import schema_hash

ROW: Final = "_row"
TYPE: Final = "_type"
#: Attributes that queries, but no relations, use for look-ups.
_LOOKED_UP = frozenset({"name", "username", "status", "parent_id", "key", "created_at"})
#: SQLite converts no values of the last one.
_TYPES: Mapping[str, tuple[str, sa.types.TypeEngine[Any]]] = {
    "string": ("TEXT", sa.Text()),
    "boolean": ("INTEGER", sa.Integer()),
    "integer": ("INTEGER", sa.Integer()),
    "number": ("FLOAT", sa.Float()),
    "variable": ("BLOB", sa.types.NullType()),
}


class Snapshot(sqlite3.Connection):
    """The content of a database at some time; closed when it is garbage."""

    def __del__(self) -> None:
        self.close()


class Tables:
    """The tables of one model.

    Attributes:
        clauses: The tables in queries, by the name of the family's root type.
        columns: The names of their columns, in order.
        references: For each table, the columns with a foreign key: its table and column.
        creating: The statements that create all tables, in order.
        schema_hash: The hash of the model's documents.
        made: A database with these tables and nothing in them, if this process has made one: to
            copy it takes a tenth of the time.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self.clauses: dict[str, sa.TableClause] = {}
        self.references: defaultdict[str, dict[str, tuple[str, str]]] = defaultdict(dict)
        self.creating: list[str] = []
        followed = _join_columns(model)
        for entity_type in model.types.values():
            if entity_type.root == entity_type.name:
                self._add_family(entity_type, followed[entity_type.name])
        for entity_type, relation in model.relations():
            link = relation.link
            if link is not None and link.hidden and link.entity_type not in self.clauses:
                ends = {link.here: entity_type.root, link.there: model.types[relation.target].root}
                self._add_hidden(link.entity_type, ends)
        self.columns: dict[str, tuple[str, ...]] = {
            name: tuple(table.c.keys()) for name, table in self.clauses.items()
        }
        columns = {name: frozenset(each) for name, each in self.columns.items()}
        self.creating += triggers_of(model, columns, self.references)
        self.creating += custom_attribute_triggers(model, columns)
        self.schema_hash: str = schema_hash(list(model.documents))
        self.made: Snapshot | None = None

    def _add_family(self, root: EntityType, followed: set[str]) -> None:
        family = self._model.family(root.name)
        attributes: dict[str, Attribute] = {}
        # Keys that delete the entity when their target is deleted; others are cleared. This is
        # assumed: the real rules are not known.
        cascading = {*root.primary_key, *CASCADING_KEYS}
        for entity_type in family:
            for name, attribute in entity_type.attributes.items():
                known = attributes.get(name)
                if known is None or (attribute.references and not known.references):
                    attributes[name] = attribute
            cascading |= {*entity_type.required, *entity_type.system_projections}
        # Keys that lead to several tables: no constraint of SQL can express that; triggers do.
        several = {name for name, ends in targets_of(self._model, family).items() if len(ends) > 1}
        columns = [f'"{TYPE}" TEXT NOT NULL']
        for name, attribute in attributes.items():
            constraint = ""
            if attribute.references and name not in several:
                constraint = self._foreign_key(root, attribute, cascades=name in cascading)
            columns.append(_column(attribute) + constraint)
        indexed = {name for name, each in attributes.items() if each.references}
        indexed |= attributes.keys() & (followed | _LOOKED_UP)
        types = {name: _TYPES[each.type][1] for name, each in attributes.items()}
        self._add(
            root.name,
            columns,
            root.primary_key,
            sorted(indexed - {root.primary_key[0]}),
            {TYPE: sa.Text(), **types},
        )

    def _foreign_key(self, owner: EntityType, attribute: Attribute, *, cascades: bool) -> str:
        """Return the constraint of a column, an empty text if there can be none."""
        target = self._model.root(attribute.references or "")
        # A subtype's key also names its base, which is the same row: no constraint is needed.
        own_key = target is owner and attribute.name in owner.primary_key
        if len(target.primary_key) != 1 or own_key:
            return ""
        self.references[owner.name][attribute.name] = (target.name, target.primary_key[0])
        return _references(
            target.name, target.primary_key[0], "CASCADE" if cascades else "SET NULL"
        )

    def _add_hidden(self, name: str, ends: dict[str, str]) -> None:
        """Add a table that joins entities where no type of the model does, by its *ends*."""
        columns = [
            f'"{end}" TEXT NOT NULL{_references(target, "id", "CASCADE")}'
            for end, target in ends.items()
        ]
        self.references[name] = {end: (target, "id") for end, target in ends.items()}
        self._add(name, columns, ends, ends, dict.fromkeys(ends, sa.Text()))

    def _add(
        self,
        name: str,
        columns: list[str],
        key: Iterable[str],
        indexed: Iterable[str],
        types: Mapping[str, sa.types.TypeEngine[Any]],
    ) -> None:
        unique = ", ".join(f'"{each}"' for each in key)
        content = ", ".join([f'"{ROW}" INTEGER PRIMARY KEY', *columns, f"UNIQUE ({unique})"])
        self.creating.append(f'CREATE TABLE "{name}" ({content})')
        self.creating += (index(name, each) for each in indexed)
        named = (sa.column(each, kind) for each, kind in types.items())
        self.clauses[name] = sa.table(name, sa.column(ROW, sa.Integer()), *named)


def _join_columns(model: Model) -> Mapping[str, set[str]]:
    """Return the columns by which relations look up rows, for each table."""
    followed = defaultdict[str, set[str]](set)
    for entity_type, relation in model.relations():
        for here, there in relation.pairs:
            followed[entity_type.root].add(here)
            followed[model.types[relation.target].root].add(there)
        if relation.link is not None:
            ends = {relation.link.here, relation.link.there}
            followed[model.link_table(relation.link)] |= ends
    return followed


def _column(attribute: Attribute) -> str:
    column = f'"{attribute.name}" {_TYPES[attribute.type][0]}'
    if attribute.formula is not None:
        return f"{column} GENERATED ALWAYS AS ({attribute.formula}) VIRTUAL"
    return f"{column} DEFAULT 0" if attribute.derived else column


def _references(table: str, column: str, on_delete: str) -> str:
    return f' REFERENCES "{table}" ("{column}") ON DELETE {on_delete} DEFERRABLE INITIALLY DEFERRED'
