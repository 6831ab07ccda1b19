"""Relations as SQL, in both directions: from entities to related ones, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import sqlalchemy as sa

from aioftrackjobs.devserver.api_errors import ValidationError
from aioftrackjobs.devserver.query.binder import Hop
from aioftrackjobs.devserver.schema.model import EntityType, Model, Relation
from aioftrackjobs.devserver.store.tables import ROW, TYPE

Tables: TypeAlias = Mapping[str, sa.TableClause]
Condition: TypeAlias = sa.ColumnElement[Any]


class Scope:
    """The entities that a part of a query is about.

    Attributes:
        source: Table of the type's family, with an alias of its own in the statement.
    """

    def __init__(self, model: Model, tables: Tables, entity_type: EntityType) -> None:
        self._model = model
        self._tables = tables
        self.entity_type = entity_type
        self.source: sa.FromClause = tables[entity_type.root].alias()

    def is_of_type(self) -> Condition:
        """Return the condition that a row of the family's table is of the scope's type."""
        entity_type = self.entity_type
        if entity_type.member_key is not None:
            key, target = entity_type.member_key
            other = Scope(self._model, self._tables, self._model.type(target))
            named = other.source.c[other.entity_type.primary_key[0]]
            return self.source.c[key].in_(sa.select(named).where(other.is_of_type()))
        if entity_type.shared or entity_type.name == entity_type.root:
            return sa.true()
        return self.source.c[TYPE].in_(sorted(entity_type.concrete))

    def leads_to(self, hops: Sequence[Hop], build: Callable[[Scope], Condition]) -> Condition:
        """Return the condition that some entity at the end of *hops* meets what *build* returns.

        Behind a hop it is true or false, never unknown, so that ``not`` negates it. For a
        relation with one key it is a list of keys, which SQLite can compute first and look up by
        an index.
        """
        if not hops:
            return build(self)
        relation, inner = hops[0].relation, Scope(self._model, self._tables, hops[0].target)
        if not relation.resolved:
            return sa.false()
        # Nested conditions come first: SQLite's parser keeps all that stands before them.
        conditions = [inner.leads_to(hops[1:], build), *self._narrowing(hops[0], inner)]
        if len(relation.pairs) > 1:
            statement = sa.select(sa.literal(1)).select_from(inner.source)
            statement = statement.where(*self._joined(relation, inner), *conditions)
            return statement.correlate(self.source).exists()
        here, keys = self._starting_keys(relation, inner.source, conditions)
        column = self.source.c[here]
        return sa.and_(column.in_(keys), column.is_not(None))

    def value_beyond(self, hops: Sequence[Hop], build: Callable[[Scope], Condition]) -> Condition:
        """Return what *build* returns for the one entity at the end of *hops*, as a value."""
        if not hops:
            return build(self)
        relation, inner = hops[0].relation, Scope(self._model, self._tables, hops[0].target)
        if relation.many or not relation.pairs:
            raise ValidationError(f"'{relation.name}' does not lead to one single value.")
        statement = sa.select(inner.value_beyond(hops[1:], build))
        narrowing = self._narrowing(hops[0], inner)
        statement = statement.where(*self._joined(relation, inner), *narrowing)
        return statement.correlate(self.source).scalar_subquery()

    def _joined(self, relation: Relation, inner: Scope) -> list[Condition]:
        return [self.source.c[here] == inner.source.c[there] for here, there in relation.pairs]

    def _narrowing(self, hop: Hop, inner: Scope) -> list[Condition]:
        """Return the conditions on *inner* that do not depend on where the relation starts."""
        relation, member_key = hop.relation, inner.entity_type.member_key
        ends = [there for _, there in relation.pairs]
        belongs = member_key is not None and ends == [member_key[0]]
        typed = hop.is_cast or (relation.many and not belongs)
        conditions = [inner.is_of_type()] if typed else []
        table = self._tables[inner.entity_type.root]
        return [*conditions, *membership_conditions(relation, inner.source, table)]

    def _starting_keys(
        self, relation: Relation, found: sa.FromClause, conditions: Sequence[Condition]
    ) -> tuple[str, sa.Select[Any]]:
        """Return the attribute that a relation starts from, and its values that lead to *found*."""
        if relation.link is not None:
            link = self._tables[self._model.link_table(relation.link)].alias()
            ends = sa.select(found.c.id).where(*conditions)
            keys = sa.select(link.c[relation.link.here])
            return "id", keys.where(link.c[relation.link.there].in_(ends))
        if relation.tree is not None:
            table = self._tables[self._model.types[relation.target].root]
            back = "down" if relation.tree == "up" else "up"
            ends = sa.select(found.c.id).where(*conditions)
            walk = _walk(back, table, ends, with_start=False)
            return "id", sa.select(walk.c.id).where(walk.c.id.is_not(None))
        ((here, there),) = relation.pairs
        column = found.c[there]
        return here, sa.select(column).where(*conditions, column.is_not(None))


def start_columns(relation: Relation) -> tuple[str, ...]:
    """Return the attributes whose values are the start key of a relation."""
    return tuple(here for here, _ in relation.pairs) or ("id",)


def membership_conditions(
    relation: Relation, found: sa.FromClause, table: sa.TableClause
) -> list[sa.ColumnElement[bool]]:
    """Return the conditions on related rows, *found* in *table*, besides their keys."""
    conditions: list[sa.ColumnElement[bool]] = []
    if relation.only is not None:
        name, value = relation.only
        conditions.append(found.c[name] == value)
    if relation.latest_by is not None:
        ((_, there),) = relation.pairs
        other = table.alias()
        # Of equal ones the youngest; SQLite sorts missing values as the lowest.
        best = (
            sa.select(other.c[ROW])
            .where(other.c[there] == found.c[there])
            .order_by(other.c[relation.latest_by].desc(), other.c[ROW].desc())
            .limit(1)
        )
        conditions.append(found.c[ROW] == best.correlate(found).scalar_subquery())
    return conditions


def reached(
    relation: Relation, model: Model, tables: Tables, target: sa.TableClause
) -> tuple[list[Condition], sa.FromClause, Condition]:
    """Return the start keys of a relation as columns, the join with *target*, and a condition.

    The parameter ``keys`` is the JSON list of the start keys, which are lists themselves if they
    have several parts.
    """
    wanted = sa.func.json_each(sa.bindparam("keys")).table_valued("value")
    keys = sa.select(wanted.c.value)
    if relation.link is not None:
        link = tables[model.link_table(relation.link)].alias()
        here, there = link.c[relation.link.here], link.c[relation.link.there]
        pairs = sa.select(here.label("start"), there.label("id")).where(here.in_(keys))
        pair = pairs.distinct().subquery()
        return [pair.c.start], pair.join(target, target.c.id == pair.c.id), sa.true()
    if relation.tree is not None:
        walk = _walk(relation.tree, target, keys, with_start=True)
        return [walk.c.start], walk.join(target, target.c.id == walk.c.id), sa.true()
    ends = [target.c[there] for _, there in relation.pairs]
    if len(ends) == 1:
        return [*ends], target, ends[0].in_(keys)
    parts = [sa.func.json_extract(wanted.c.value, f"$[{n}]") for n in range(len(ends))]
    return [*ends], target, sa.tuple_(*ends).in_(sa.select(*parts))


def _walk(tree: str, table: sa.TableClause, keys: sa.Select[Any], *, with_start: bool) -> sa.CTE:
    """Return the ids of all rows above or below those with *keys*, each with its own if wanted."""
    here, there = ("id", "parent_id") if tree == "up" else ("parent_id", "id")
    node, further = table.alias(), table.alias()
    starts = [node.c[here].label("start")] if with_start else []
    first = sa.select(*starts, node.c[there].label("id")).where(node.c[here].in_(keys))
    walk = first.cte(recursive=True)
    kept = [walk.c.start] if with_start else []
    return walk.union(sa.select(*kept, further.c[there]).where(further.c[here] == walk.c.id))
