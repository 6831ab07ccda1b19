"""Values of custom attributes, one for each entity and each configuration that applies to it.

Clients never create them: they expect that all exist, with the configuration's default, and only
send updates. So triggers add them with the entity or the configuration, whichever is later.

According to the official client's documentation, hierarchical ones have no value until one is
set, for that entity alone: clients search for the first value upwards. A changed default applies
to entities that are created afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

from aioftrackjobs.devserver.schema.model import EntityType, Model
from aioftrackjobs.devserver.store.triggers import Columns, trigger

_CONFIGURATION, _VALUE = "CustomAttributeConfiguration", "CustomAttributeValue"
#: Attributes that decide to which entities a configuration applies.
_CRITERIA = ("entity_type", "object_type_id", "project_id", "is_hierarchical")
#: The key of a value.
_KEY = {"configuration_id", "entity_id"}
_PROJECT_OF_ASSET = (
    '(SELECT coalesce("project_id", "id") FROM "Context" WHERE "Context"."id" = {context})'
)


class _Kind(NamedTuple):
    """Entities that have custom attributes.

    Attributes:
        name: Their name in a configuration.
        entity_type: Their entity type.
        project: SQL for the project of the entity in ``o``.
        criteria: Attributes that decide which configurations apply to one of them.
        needs: Columns of other tables in *project*.
    """

    name: str
    entity_type: str
    project: str = ""
    criteria: tuple[str, ...] = ()
    needs: Mapping[str, set[str]] = MappingProxyType({})


_CONTEXT = {"Context": {"id", "project_id"}}
_KINDS = (
    _Kind("task", "TypedContext", 'o."project_id"', ("project_id", "object_type_id")),
    _Kind("show", "Project", 'o."id"'),
    _Kind("user", "User"),
    _Kind("list", "List", 'o."project_id"', ("project_id",)),
    _Kind(
        "asset",
        "Asset",
        _PROJECT_OF_ASSET.format(context='o."context_id"'),
        ("context_id",),
        _CONTEXT,
    ),
    _Kind(
        "assetversion",
        "AssetVersion",
        _PROJECT_OF_ASSET.format(
            context='(SELECT "context_id" FROM "Asset" WHERE "Asset"."id" = o."asset_id")'
        ),
        ("asset_id",),
        _CONTEXT | {"Asset": {"id", "context_id"}},
    ),
)


def always_exist(entity_type: EntityType) -> bool:
    """Return whether clients expect that entities of a type exist: values of custom attributes.

    So a create may find one that exists, and an update one that does not: for an entity that the
    configuration does not apply to.
    """
    return entity_type.shared and set(entity_type.primary_key) == _KEY


def custom_attribute_triggers(model: Model, columns: Columns) -> Iterator[str]:
    """Yield SQL that creates the triggers which add the values, if the schemas have them."""
    known, value = columns.get(_CONFIGURATION, frozenset()), columns.get(_VALUE, frozenset())
    if {"id", "default", *_CRITERIA} <= known and {*_KEY, "value"} <= value:
        for kind in _KINDS:
            owner = model.types.get(kind.entity_type)
            if owner is None:
                continue
            needs = {**kind.needs, owner.root: {"id", *kind.criteria}}
            if all(names <= columns.get(table, set()) for table, names in needs.items()):
                yield from _triggers(owner, kind)


def _triggers(owner: EntityType, kind: _Kind) -> Iterator[str]:
    statement = _statement(owner, kind)
    of_owner = f'{statement} AND o."_row" = NEW."_row"'
    of_configuration = f'{statement} AND c."_row" = NEW."_row"'
    criteria = ", ".join(f'"{name}"' for name in _CRITERIA)
    changed = ", ".join(f'"{name}"' for name in kind.criteria)
    deleted = f'{statement} AND c."id" = OLD."configuration_id" AND o."id" = OLD."entity_id"'
    for table, event, each in (
        (owner.root, "INSERT", of_owner),
        *([(owner.root, f"UPDATE OF {changed}", of_owner)] if changed else ()),
        (_CONFIGURATION, "INSERT", of_configuration),
        (_CONFIGURATION, f"UPDATE OF {criteria}", of_configuration),
        (_VALUE, "DELETE", deleted),  # clients expect that it still exists
    ):
        yield trigger(table, f"adds_values_of_{kind.name}", event, each)


def _statement(owner: EntityType, kind: _Kind) -> str:
    """Return SQL that adds missing values; conditions can be appended to it."""
    types = ", ".join(f"'{name}'" for name in sorted(owner.concrete))
    matches = f"c.\"entity_type\" = '{kind.name}'"
    if kind.name == "task":
        matches += ' AND (c."object_type_id" IS NULL OR c."object_type_id" = o."object_type_id")'
    if kind.name != "user":
        matches += ' OR c."is_hierarchical"'
    of_project = f' OR c."project_id" = {kind.project}' if kind.project else ""
    return (
        f'INSERT OR IGNORE INTO "{_VALUE}" ("_type", "configuration_id", "entity_id", "value") '
        f'SELECT \'{_VALUE}\', c."id", o."id", '
        'CASE WHEN c."is_hierarchical" THEN NULL ELSE c."default" END '
        f'FROM "{_CONFIGURATION}" AS c, "{owner.root}" AS o '
        f'WHERE o."_type" IN ({types}) AND ({matches}) AND (c."project_id" IS NULL{of_project})'
    )
