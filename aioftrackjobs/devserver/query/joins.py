"""Relations as SQL, in both directions: from entities to related ones, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from aioftrackjobs.devserver.schema.model import Model, Relation
from aioftrackjobs.devserver.store.tables import ROW


def start_columns(relation: Relation) -> tuple[str, ...]:
    """Return the attributes whose values are the start key of a relation."""
    return tuple(here for here, _ in relation.pairs) or ("id",)


def starting_keys(
    relation: Relation,
    model: Model,
    tables: Mapping[str, sa.TableClause],
    found: sa.FromClause,
    conditions: Sequence[sa.ColumnElement[Any]],
) -> tuple[str, sa.Select[Any]]:
    """Return the attribute that a relation starts from, and its values that lead to *found*."""
    if relation.link is not None:
        link = tables[model.link_table(relation.link)].alias()
        ends = sa.select(found.c.id).where(*conditions)
        keys = sa.select(link.c[relation.link.here]).where(link.c[relation.link.there].in_(ends))
        return "id", keys
    if relation.tree is not None:
        return "id", _within_tree(relation, model, tables, found, conditions)
    ((here, there),) = relation.pairs
    column = found.c[there]
    return here, sa.select(column).where(*conditions, column.is_not(None))


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


def _within_tree(
    relation: Relation,
    model: Model,
    tables: Mapping[str, sa.TableClause],
    found: sa.FromClause,
    conditions: Sequence[sa.ColumnElement[Any]],
) -> sa.Select[Any]:
    """Return the keys of all rows below *found* for a relation upwards, else of all above."""
    node = tables[model.root(relation.target).name].alias()
    if relation.tree == "up":
        ends = sa.select(found.c.id).where(*conditions)
        first = sa.select(node.c.id.label("id")).where(node.c.parent_id.in_(ends))
        reached = first.cte(recursive=True)
        further = tables[model.root(relation.target).name].alias()
        reached = reached.union(sa.select(further.c.id).where(further.c.parent_id == reached.c.id))
    else:
        first = sa.select(found.c.parent_id.label("id")).where(*conditions)
        reached = first.cte(recursive=True)
        reached = reached.union(sa.select(node.c.parent_id).where(node.c.id == reached.c.id))
    return sa.select(reached.c.id).where(reached.c.id.is_not(None))


def reached(
    relation: Relation, model: Model, tables: Mapping[str, sa.TableClause], target: sa.TableClause
) -> tuple[list[sa.ColumnElement[Any]], sa.FromClause, sa.ColumnElement[bool]]:
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
        walk = _walk(relation.tree, target, keys)
        return [walk.c.start], walk.join(target, target.c.id == walk.c.id), sa.true()
    ends = [target.c[there] for _, there in relation.pairs]
    if len(ends) == 1:
        return [*ends], target, ends[0].in_(keys)
    parts = [sa.func.json_extract(wanted.c.value, f"$[{n}]") for n in range(len(ends))]
    return [*ends], target, sa.tuple_(*ends).in_(sa.select(*parts))


def _walk(tree: str, target: sa.TableClause, keys: sa.Select[Any]) -> sa.CTE:
    node, further = target.alias(), target.alias()
    if tree == "up":
        first = sa.select(node.c.id.label("start"), node.c.parent_id.label("id"))
        walk = first.where(node.c.id.in_(keys)).cte(recursive=True)
        step = sa.select(walk.c.start, further.c.parent_id).where(further.c.id == walk.c.id)
    else:
        first = sa.select(node.c.parent_id.label("start"), node.c.id.label("id"))
        walk = first.where(node.c.parent_id.in_(keys)).cte(recursive=True)
        step = sa.select(walk.c.start, further.c.id).where(further.c.parent_id == walk.c.id)
    return walk.union(step)
