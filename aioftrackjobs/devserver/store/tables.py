"""Tables for a model: one for each family of entity types, built with SQLAlchemy Core.

Column names are the API's attribute names. Two columns are added: ``_row`` keeps the order of
creation, which is the order of queries that name none, and ``_type`` the concrete type.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.types import UserDefinedType

from aioftrackjobs.devserver.schema.model import Attribute, EntityType, Model
from aioftrackjobs.devserver.schema.quirks import CASCADING_KEYS
from aioftrackjobs.devserver.store.custom_attributes import add_custom_attribute_values
from aioftrackjobs.devserver.store.triggers import add_triggers, targets_of

ROW = "_row"
TYPE = "_type"
#: Attributes that queries, but no relations, use for look-ups.
_LOOKED_UP = frozenset({"name", "username", "status", "parent_id", "key", "created_at"})


class Untyped(UserDefinedType[Any]):
    """A column that stores values as they are, for attributes of type ``variable``."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """Return the only column type for which SQLite converts no values."""
        return "BLOB"


_COLUMN_TYPES: Mapping[str, type[sa.types.TypeEngine[Any]]] = {
    "string": sa.Text,
    "boolean": sa.Integer,
    "integer": sa.Integer,
    "number": sa.Float,
    "variable": Untyped,
}


def build_tables(model: Model) -> tuple[sa.MetaData, dict[str, sa.Table]]:
    """Return the tables of *model*, by the name of the family's root type."""
    metadata = sa.MetaData()
    followed = _join_columns(model)
    tables = {}
    for entity_type in model.types.values():
        if entity_type.root == entity_type.name:
            family = model.family(entity_type.name)
            tables[entity_type.name] = _table(metadata, model, family, followed[entity_type.name])
    tables |= _hidden_tables(metadata, model)
    add_triggers(model, tables)
    add_custom_attribute_values(model, tables)
    return metadata, tables


def _join_columns(model: Model) -> Mapping[str, set[str]]:
    """Return the columns by which relations look up rows, for each table."""
    followed = defaultdict[str, set[str]](set)
    for entity_type in model.types.values():
        for relation in entity_type.relations.values():
            for here, there in relation.pairs:
                followed[entity_type.root].add(here)
                followed[model.root(relation.target).name].add(there)
            if relation.link is not None:
                ends = {relation.link.here, relation.link.there}
                followed[model.link_table(relation.link)] |= ends
    return followed


def _hidden_tables(metadata: sa.MetaData, model: Model) -> dict[str, sa.Table]:
    """Return the hidden tables that join entities where no type of the model does."""
    tables: dict[str, sa.Table] = {}
    for entity_type in model.types.values():
        for relation in entity_type.relations.values():
            link = relation.link
            if link is not None and link.hidden and link.entity_type not in tables:
                tables[link.entity_type] = sa.Table(
                    link.entity_type,
                    metadata,
                    sa.Column(ROW, sa.Integer, primary_key=True),
                    _end(link.here, entity_type.root),
                    _end(link.there, model.root(relation.target).name),
                    sa.UniqueConstraint(link.here, link.there),
                )
    return tables


def _end(name: str, target: str) -> sa.Column[Any]:
    constraint = sa.ForeignKey(
        f"{target}.id", ondelete="CASCADE", deferrable=True, initially="DEFERRED"
    )
    return sa.Column(name, sa.Text, constraint, nullable=False, index=True)


def _table(
    metadata: sa.MetaData, model: Model, family: list[EntityType], followed: set[str]
) -> sa.Table:
    root = model.root(family[0].name)
    attributes: dict[str, Attribute] = {}
    required = set(root.primary_key)
    for entity_type in family:
        for name, attribute in entity_type.attributes.items():
            known = attributes.get(name)
            if known is None or (attribute.references and not known.references):
                attributes[name] = attribute
        required |= _cascading_keys(entity_type)
    for name, targets in targets_of(model, family).items():
        if len(targets) > 1:  # no constraint of SQL can express that; triggers do
            attributes[name] = replace(attributes[name], references=None)
    indexed_for_queries = (followed | _LOOKED_UP) - {root.primary_key[0]}
    return sa.Table(
        root.name,
        metadata,
        sa.Column(ROW, sa.Integer, primary_key=True),
        sa.Column(TYPE, sa.Text, nullable=False),
        *(
            _column(model, root, each, each.name in required, each.name in indexed_for_queries)
            for each in attributes.values()
        ),
        sa.UniqueConstraint(*root.primary_key),
    )


def _cascading_keys(entity_type: EntityType) -> set[str]:
    """Return the foreign keys that delete the entity when their target is deleted.

    These are required keys, those in every response (system projections), the parent in a tree,
    and the note that a reply is for. Others are cleared. This is assumed: the real rules are not
    known.
    """
    return {*entity_type.required, *entity_type.system_projections, *CASCADING_KEYS}


def _column(
    model: Model,
    root: EntityType,
    attribute: Attribute,
    cascades: bool,  # noqa: FBT001
    indexed_for_queries: bool,  # noqa: FBT001
) -> sa.Column[Any]:
    name = attribute.name
    indexed = (attribute.references or indexed_for_queries) and root.primary_key[0] != name
    constraints: list[sa.ForeignKey | sa.Computed] = []
    target = model.root(attribute.references) if attribute.references else None
    # A subtype's key also names its base, which is the same row: no constraint is needed.
    own_key = target is root and name in root.primary_key
    if target is not None and len(target.primary_key) == 1 and not own_key:
        constraints.append(
            sa.ForeignKey(
                f"{target.name}.{target.primary_key[0]}",
                ondelete="CASCADE" if cascades else "SET NULL",
                deferrable=True,
                initially="DEFERRED",
            )
        )
    if attribute.formula is not None:
        constraints.append(sa.Computed(attribute.formula, persisted=False))
    return sa.Column(
        name,
        _COLUMN_TYPES[attribute.type],
        *constraints,
        index=bool(indexed),
        server_default=sa.text("0") if attribute.derived and attribute.formula is None else None,
    )
