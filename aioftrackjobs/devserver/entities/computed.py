"""Values that are computed when they are read: addresses of files, and links.

A link is the path from a project down to an entity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from pydantic_core import to_json

from aioftrackjobs.devserver.schema.model import EntityType, Model, Relation
from aioftrackjobs.devserver.schema.quirks import FILE_URLS
from aioftrackjobs.devserver.store.database import Transaction
from aioftrackjobs.devserver.store.tables import TYPE

#: Makes the signature that permits reading the file of one component.
Signer = Callable[[str], str]
Links = dict[str, list[dict[str, Any]]]

#: Database columns of links in schema documents.
_LINK_COLUMNS = frozenset({"_api_link", "api_link"})
#: Trees deeper than this are cycles.
_DEEPEST = 100


def sources_of(entity_type: EntityType, name: str) -> tuple[str, ...]:
    """Return the stored attributes that *name* needs: itself, or those it is computed from."""
    if name not in entity_type.computed or name in entity_type.attributes:
        return (name,)
    key, *_ = FILE_URLS.get(name, ("",))
    return (key,) if key in entity_type.attributes else ()


class FileUrls:
    """Makes the addresses of files for one request.

    They have a signature for the one component, never an API key.
    """

    def __init__(self, base_url: str, sign: Signer) -> None:
        self.base_url: str = base_url.rstrip("/")
        self._sign = sign

    def compute(self, entity_type: EntityType, name: str, row: Mapping[str, Any]) -> Any:
        """Return the computed value *name* of the entity in *row*; None where there is none."""
        key, action, entry = FILE_URLS.get(name, ("", "", ""))
        component_id = row.get(key) if key in entity_type.attributes else None
        return None if component_id is None else {entry: self.address(action, component_id)}

    def address(self, action: str, component_id: str) -> str:
        """Return the address that does *action*, ``get`` or ``thumbnail``, with one file."""
        signature = self._sign(component_id)
        return (
            f"{self.base_url}/component/{action}"
            f"?id={quote(component_id, safe='')}&signature={signature}"
        )


def add_links(
    model: Model,
    transaction: Transaction,
    entity_type: EntityType,
    names: Iterable[str],
    rows: Sequence[dict[Any, Any]],
) -> None:
    """Add the links among *names* to *rows*, from the top down; only types in trees have them."""
    properties, is_in_tree = entity_type.document["properties"], _is_in_tree(entity_type)
    if not rows or not (is_in_tree or _context_of_series(model, entity_type)):
        return
    wanted = [each for each in names if properties.get(each, {}).get("alias_for") in _LINK_COLUMNS]
    if wanted:
        read = _read_tree if is_in_tree else _read_series
        links = read(model, transaction, entity_type, [row["id"] for row in rows])
        for row in rows:
            row |= dict.fromkeys(wanted, links.get(row["id"]))


def _is_in_tree(entity_type: EntityType) -> bool:
    return {"id", "name", "parent_id"} <= entity_type.attributes.keys()


def _context_of_series(model: Model, entity_type: EntityType) -> Relation | None:
    """Return the relation from the owner of a series to its context, as an asset has one."""
    if entity_type.series is None:
        return None
    owner = model.types[entity_type.series.owner_type]
    place = owner.relations.get("parent")
    if place is None or place.key is None or "name" not in owner.attributes:
        return None
    return place if _is_in_tree(model.types[place.target]) else None


def _read_tree(
    model: Model, transaction: Transaction, entity_type: EntityType, ids: Sequence[str]
) -> Links:
    table = transaction.tables[entity_type.root]
    node = table.alias()
    first = sa.select(
        node.c.id.label("start"), node.c.id.label("id"), sa.literal(0).label("height")
    ).where(_is_one_of(node.c.id))
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
    links: Links = {}
    for row in transaction.fetch(statement, keys=to_json(ids).decode()):
        start, name, own_id, label = tuple(row)
        part = {"id": own_id, "name": label, "type": _kind(model.types[name])}
        links.setdefault(start, []).append(part)
    return links


def _read_series(
    model: Model, transaction: Transaction, entity_type: EntityType, ids: Sequence[str]
) -> Links:
    """Return links that end with owner and number, such as ``plate v1``."""
    series, place = entity_type.series, _context_of_series(model, entity_type)
    if series is None or place is None or place.key is None:
        return {}
    table = transaction.tables[entity_type.root]
    owner = transaction.tables[model.types[series.owner_type].root]
    statement = (
        sa.select(table.c.id, table.c[series.number], owner.c.name, owner.c[place.key])
        .select_from(table.join(owner, owner.c.id == table.c[series.owner]))
        .where(_is_one_of(table.c.id))
    )
    rows = [tuple(row) for row in transaction.fetch(statement, keys=to_json(ids).decode())]
    places = sorted({place_id for *_, place_id in rows if place_id is not None})
    above = _read_tree(model, transaction, model.types[place.target], places)
    links: Links = {}
    for own_id, number, name, place_id in rows:
        part = {"id": own_id, "name": f"{name} v{number}", "type": entity_type.name}
        links[own_id] = [*above.get(place_id, []), part]
    return links


def _is_one_of(column: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
    """Return the condition that a column is in the parameter ``keys``."""
    wanted = sa.func.json_each(sa.bindparam("keys")).table_valued("value")
    return column.in_(sa.select(wanted.c.value))


def _kind(entity_type: EntityType) -> str:
    """Return the type just below the root of the family; links show no other, not even Shot."""
    lineage = entity_type.lineage
    return lineage[-2] if len(lineage) > 1 else entity_type.name
