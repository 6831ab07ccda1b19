"""What a query selects, as a tree of selections, and loading the rows of them.

Related rows are loaded with one statement for each relation, never one for each row.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import sqlalchemy as sa
from pydantic_core import to_json

from aioftrackjobs.devserver.api_errors import ValidationError
from aioftrackjobs.devserver.entities.computed import add_links, sources_of
from aioftrackjobs.devserver.query.ast import Aggregate, Path, Query, Step
from aioftrackjobs.devserver.query.binder import bound_step, cannot_be_cast, no_relation
from aioftrackjobs.devserver.query.joins import membership_conditions, reached, start_columns
from aioftrackjobs.devserver.schema.model import EntityType, Model, Relation
from aioftrackjobs.devserver.schema.quirks import NESTED_VALUES
from aioftrackjobs.devserver.store.custom_attributes import always_exist
from aioftrackjobs.devserver.store.database import Transaction
from aioftrackjobs.devserver.store.tables import ROW, TYPE

#: Values by column; and by the number of a selection the related rows that it selects.
Row = dict[Any, Any]
Key = tuple[Any, ...]

_LONGEST_PATH = 24
#: Numbers for selections; ``id()`` of a deleted selection may be used again.
_NUMBERS = count()


@dataclass(slots=True)
class Selection:
    """What a query selects of the entities at one point of its projections.

    Attributes:
        entity_type: The type that the projections name; the entities may be of subtypes.
        names: Attributes and computed values, in the order of the query.
        related: The selections of related entities, by relation.
        number: Unique for each selection of this process.
    """

    entity_type: EntityType
    relation: Relation | None = None
    names: dict[str, None] = field(default_factory=dict)
    related: dict[str, Selection] = field(default_factory=dict)
    number: int = field(default_factory=_NUMBERS.__next__, compare=False)

    def columns(self, model: Model) -> list[str]:
        """Return the columns to read, the type first, then the key."""
        root = model.types[self.entity_type.root]
        family = model.family(root.name)
        wanted = dict.fromkeys((TYPE, *root.primary_key))
        for name in self.names:
            for member in family:
                wanted |= dict.fromkeys(sources_of(member, name))
        for member in family:
            wanted |= dict.fromkeys(member.system_projections)
        for selection in self.related.values():
            if selection.relation is not None:
                wanted |= dict.fromkeys(start_columns(selection.relation))
        stored = {name for member in family for name in member.attributes} | {TYPE}
        return [name for name in wanted if name in stored]


def select(model: Model, query: Query) -> Selection:
    """Return what *query* selects; without projections, the defaults of the type."""
    entity_type = model.type(query.entity_type)
    selection = Selection(entity_type)
    if query.projections is None:
        for name in filter(entity_type.has, entity_type.default_projections):
            _add(model, selection, (Step(name),))
    for projection in query.projections or ():
        if isinstance(projection, Aggregate):
            raise ValidationError("Functions can only be selected together with 'group by'.")
        if len(projection) > _LONGEST_PATH:
            raise ValidationError(f"A projection has more than {_LONGEST_PATH} steps.")
        _add(model, selection, projection)
    return selection


def _add(model: Model, selection: Selection, path: Path) -> None:
    step, *rest = path
    entity_type = model.type_with(selection.entity_type, step.name)
    if not entity_type.has(step.name):
        if step.name in entity_type.default_projections:
            return  # documents of links list attributes they do not have, and clients select them
        if step.name == "id" and not rest:
            return  # a type with another key, such as Setting; keys are always sent
        raise entity_type.unknown(step.name)
    if entity_type.document["properties"].get(step.name, {}).get("restricted_projection"):
        raise ValidationError(f"'{step.name}' of {entity_type.name} cannot be selected.")
    relation = entity_type.relations.get(step.name)
    if relation is None:
        if step.cast is not None:
            raise cannot_be_cast(entity_type, step)
        plain = (entity_type.name, step.name) in NESTED_VALUES
        if rest and not plain and step.name not in entity_type.computed:
            raise no_relation(entity_type, step)
        selection.names[step.name] = None  # a key inside a computed object selects all of it
        return
    below = selection.related.setdefault(
        step.name, Selection(model.types[relation.target], relation)
    )
    if step.cast is not None:
        below.entity_type = bound_step(model, entity_type, step).target
    if rest:
        _add(model, below, tuple(rest))
    elif always_exist(below.entity_type):
        below.names["value"] = None  # a custom attribute is nothing without it


def load(model: Model, transaction: Transaction, selection: Selection, rows: Sequence[Row]) -> None:
    """Add to *rows* of *selection* their links, and the rows that its relations lead to."""
    add_links(model, transaction, selection.entity_type, selection.names, rows)
    for below in selection.related.values():
        relation = below.relation
        if relation is None or not relation.resolved:
            continue
        starts = start_columns(relation)
        keys = [tuple(row[start] for start in starts) for row in rows]
        whole = [key for key in {*keys} if None not in key]
        found = _fetch(model, transaction, below, relation, whole) if whole else []
        load(model, transaction, below, [row for _, row in found])
        by_key = defaultdict[Key, list[Row]](list)
        for key, row in found:
            by_key[key].append(row)
        for key, row in zip(keys, rows, strict=True):
            row[below.number] = by_key[key]


def _fetch(
    model: Model,
    transaction: Transaction,
    selection: Selection,
    relation: Relation,
    keys: list[Key],
) -> list[tuple[Key, Row]]:
    tables, entity_type = transaction.tables, selection.entity_type
    table = tables[entity_type.root]
    columns = selection.columns(model)
    starts, source, condition = reached(relation, model, tables, table)
    statement = (
        sa.select(*starts, *(table.c[name] for name in columns))
        .select_from(source)
        .where(condition, *membership_conditions(relation, table, table))
        .order_by(table.c[ROW])
    )
    if not entity_type.shared and entity_type.name != entity_type.root:
        statement = statement.where(table.c[TYPE].in_(sorted(entity_type.concrete)))
    wanted = [key[0] if len(key) == 1 else key for key in keys]
    rows = transaction.fetch(statement, keys=to_json(wanted).decode())
    size = len(starts)
    return [(tuple(row[:size]), dict(zip(columns, row[size:], strict=True))) for row in rows]
