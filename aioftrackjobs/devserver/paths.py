"""The way from a project down to an entity, which clients read as its ``link``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa
from pydantic_core import to_json

from aioftrackjobs.devserver.model import EntityType, Model
from aioftrackjobs.devserver.store import Transaction
from aioftrackjobs.devserver.tables import TYPE

#: Names of the database columns that documents give such attributes.
_COLUMNS = frozenset({"_api_link", "api_link"})
#: Trees this deep are circles.
_DEEPEST = 100


def link_names(entity_type: EntityType, names: Iterable[str]) -> list[str]:
    """Return which of *names* are links, for types that are arranged in a tree."""
    if not {"id", "name", "parent_id"} <= entity_type.attributes.keys():
        return []
    properties = entity_type.document["properties"]
    return [name for name in names if properties.get(name, {}).get("alias_for") in _COLUMNS]


def read_links(
    model: Model, transaction: Transaction, entity_type: EntityType, ids: Sequence[str]
) -> dict[str, list[dict[str, Any]]]:
    """Return the links of the entities with the given *ids*, from the top down."""
    table = transaction.tables[entity_type.root]
    node = table.alias()
    wanted = sa.func.json_each(sa.bindparam("keys")).table_valued("value")
    first = sa.select(
        node.c.id.label("start"), node.c.id.label("id"), sa.literal(0).label("height")
    ).where(node.c.id.in_(sa.select(wanted.c.value)))
    walk = first.cte(recursive=True)
    further = table.alias()
    walk = walk.union_all(
        sa.select(walk.c.start, further.c.parent_id, walk.c.height + 1).where(
            further.c.id == walk.c.id, further.c.parent_id.is_not(None), walk.c.height < _DEEPEST
        )
    )
    statement = (
        sa.select(walk.c.start, table.c[TYPE], table.c.id, table.c.name)
        .select_from(walk.join(table, table.c.id == walk.c.id))
        .order_by(walk.c.start, walk.c.height.desc())
    )
    links: dict[str, list[dict[str, Any]]] = {}
    for row in transaction.fetch(statement, keys=to_json(ids).decode()):
        start, name, own_id, label = tuple(row)
        lineage = model.types[name].lineage
        part = {"id": own_id, "name": label, "type": lineage[-2:][0]}
        links.setdefault(start, []).append(part)
    return links
