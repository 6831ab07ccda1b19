"""Values of custom attributes, one for each entity and each configuration that applies to it.

Clients never create them: they expect that all exist, with the configuration's default, and only
send updates. So triggers add them with the entity or the configuration, whichever is later.

According to the official client's documentation, hierarchical ones have no value until one is
set, for that entity alone: clients search for the first value upwards. A changed default applies
to entities that are created afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from aioftrackjobs.devserver.schema.model import EntityType, Model
from aioftrackjobs.devserver.store.triggers import add_trigger

_CONFIGURATION, _VALUE = "CustomAttributeConfiguration", "CustomAttributeValue"
#: Attributes that decide to which entities a configuration applies.
_CRITERIA = ("entity_type", "object_type_id", "project_id", "is_hierarchical")
#: The key of a value.
_KEY = {"configuration_id", "entity_id"}
_PROJECT_OF_ASSET = (
    '(SELECT coalesce("project_id", "id") FROM "Context" WHERE "Context"."id" = {context})'
)


@dataclass(frozen=True, slots=True)
class _Kind:
    """Entities that have custom attributes.

    Attributes:
        name: Their name in a configuration.
        entity_type: Their entity type.
        project: SQL for the project of the entity in ``o``.
        criteria: Attributes that decide which configurations apply to one of them.
    """

    name: str
    entity_type: str
    project: str
    criteria: tuple[str, ...] = ()


_KINDS = (
    _Kind("task", "TypedContext", 'o."project_id"', ("project_id", "object_type_id")),
    _Kind("show", "Project", 'o."id"'),
    _Kind("user", "User", "NULL"),
    _Kind("list", "List", 'o."project_id"', ("project_id",)),
    _Kind("asset", "Asset", _PROJECT_OF_ASSET.format(context='o."context_id"'), ("context_id",)),
    _Kind(
        "assetversion",
        "AssetVersion",
        _PROJECT_OF_ASSET.format(
            context='(SELECT "context_id" FROM "Asset" WHERE "Asset"."id" = o."asset_id")'
        ),
        ("asset_id",),
    ),
)


def always_exist(entity_type: EntityType) -> bool:
    """Return whether clients expect that entities of a type exist: values of custom attributes.

    So a create may find one that exists, and an update one that does not: for an entity that the
    configuration does not apply to.
    """
    return entity_type.shared and set(entity_type.primary_key) == _KEY


def add_custom_attribute_values(model: Model, tables: Mapping[str, sa.Table]) -> None:
    """Add triggers that create the values to the creation of *tables*, if schemas have them."""
    configuration, value = tables.get(_CONFIGURATION), tables.get(_VALUE)
    if configuration is None or value is None:
        return
    if not {"id", "default", *_CRITERIA} <= set(configuration.c.keys()):
        return
    if not {"configuration_id", "entity_id", "value"} <= set(value.c.keys()):
        return
    for kind in _KINDS:
        if _is_known(model, tables, kind):
            _add(model, tables, kind)


def _is_known(model: Model, tables: Mapping[str, sa.Table], kind: _Kind) -> bool:
    known = model.types.get(kind.entity_type)
    if known is None or not {"id", *kind.criteria} <= set(tables[known.root].c.keys()):
        return False
    needs = {"asset": {"Context"}, "assetversion": {"Asset", "Context"}}.get(kind.name, set())
    return needs <= tables.keys() and (
        "Context" not in needs or "project_id" in tables["Context"].c
    )


def _add(model: Model, tables: Mapping[str, sa.Table], kind: _Kind) -> None:
    owner = tables[model.types[kind.entity_type].root]
    statement = _statement(model, owner, kind)
    of_owner = f'{statement} AND o."_row" = NEW."_row"'
    of_configuration = f'{statement} AND c."_row" = NEW."_row"'
    criteria = ", ".join(f'"{name}"' for name in _CRITERIA)
    changed = ", ".join(f'"{name}"' for name in kind.criteria)
    for table, event, each in (
        (owner, "INSERT", of_owner),
        (owner, f"UPDATE OF {changed}" if changed else "", of_owner),
        (tables[_CONFIGURATION], "INSERT", of_configuration),
        (tables[_CONFIGURATION], f"UPDATE OF {criteria}", of_configuration),
    ):
        if event:
            name = f"{table.name}_adds_values_of_{kind.name}_on_{event[:6].lower()}"
            add_trigger(table, name, f'AFTER {event} ON "{table.name}"', each)
    add_trigger(
        tables[_VALUE],
        f"{_VALUE}_is_added_again_to_{kind.name}",
        f'AFTER DELETE ON "{_VALUE}"',
        f'{statement} AND c."id" = OLD."configuration_id" AND o."id" = OLD."entity_id"',
    )


def _statement(model: Model, owner: sa.Table, kind: _Kind) -> str:
    """Return SQL that adds missing values; conditions can be appended to it."""
    names = sorted(model.types[kind.entity_type].concrete)
    types = ", ".join("'" + name.replace("'", "''") + "'" for name in names)
    matches = f"c.\"entity_type\" = '{kind.name}'"
    if kind.name == "task":
        matches += ' AND (c."object_type_id" IS NULL OR c."object_type_id" = o."object_type_id")'
    if kind.name != "user":
        matches += ' OR c."is_hierarchical"'
    project = 'c."project_id" IS NULL'
    if kind.project != "NULL":
        project = f'({project} OR c."project_id" = {kind.project})'
    return (
        f'INSERT OR IGNORE INTO "{_VALUE}" ("_type", "configuration_id", "entity_id", "value") '
        f'SELECT \'{_VALUE}\', c."id", o."id", '
        'CASE WHEN c."is_hierarchical" THEN NULL ELSE c."default" END '
        f'FROM "{_CONFIGURATION}" AS c, "{owner.name}" AS o '
        f'WHERE o."_type" IN ({types}) AND ({matches}) AND {project}'
    )
