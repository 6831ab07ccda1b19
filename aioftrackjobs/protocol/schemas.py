"""What a server's schema documents say about its entity types.

Source:
    protocol.md, sections 5.1 and 8.3.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: Types whose key is not ``id`` (the 22 of 116 in a recorded answer to ``query_schemas``), so
#: that entities of any type can be made before the server's schemas are known.
COMPOSITE_KEYS: Mapping[str, tuple[str, ...]] = {
    "AssetCustomAttributeValue": ("configuration_id", "entity_id"),
    "AssetVersionCustomAttributeValue": ("configuration_id", "entity_id"),
    "ContextCustomAttributeValue": ("configuration_id", "entity_id"),
    "CustomAttributeValue": ("configuration_id", "entity_id"),
    "DashboardResource": ("dashboard_id", "resource_id"),
    "EntitySetting": ("parent_id", "group", "name"),
    "JobComponent": ("component_id", "job_id"),
    "ListCustomAttributeValue": ("configuration_id", "entity_id"),
    "ListObjectCustomAttributeValue": ("configuration_id", "entity_id"),
    "Metadata": ("parent_id", "key"),
    "NoteComponent": ("component_id", "note_id"),
    "NoteLabelLink": ("note_id", "label_id"),
    "ProjectSchemaObjectType": ("object_type_id", "project_schema_id"),
    "Recipient": ("note_id", "resource_id"),
    "SchemaStatus": ("status_id", "schema_id"),
    "SchemaType": ("type_id", "schema_id"),
    "Setting": ("name", "group"),
    "SettingComponent": ("component_id", "name", "group"),
    "TaskTypeSchemaType": ("task_type_schema_id", "type_id"),
    "UserApplicationState": ("user_id", "key"),
    "UserCustomAttributeValue": ("configuration_id", "entity_id"),
    "WorkflowSchemaStatus": ("workflow_schema_id", "status_id"),
}

#: A property whose fragment has no type is a scalar too (section 5.1).
_SCALARS = frozenset({"string", "boolean", "integer", "number", "variable", None})


@dataclass(frozen=True, slots=True)
class EntitySchema:
    """The facts about one entity type that a client needs.

    Attributes:
        entity_type: Name used everywhere on the wire.
        primary_key: Attributes that make up the key, in order.
        attributes: All that can be read or set.
        scalars: Attributes that hold plain values kept by the server, so without relations,
            collections and computed values: what a query without ``select`` loads.
    """

    entity_type: str
    primary_key: tuple[str, ...]
    attributes: tuple[str, ...]
    scalars: tuple[str, ...]


def decode_schema(document: Mapping[str, Any]) -> EntitySchema:
    """Return the facts that one schema *document* states."""
    properties: Mapping[str, Mapping[str, Any]] = document.get("properties", {})
    computed = set(document.get("computed", ()))
    attributes = tuple(
        name for name, fragment in properties.items() if not fragment.get("restricted_projection")
    )
    scalars = tuple(
        name
        for name in attributes
        if name not in computed
        and "$ref" not in properties[name]
        and properties[name].get("type") in _SCALARS
        and not name.startswith("_")  # `_link` and its like are deprecated
    )
    return EntitySchema(
        entity_type=document["id"],
        primary_key=tuple(document["primary_key"]),
        attributes=attributes,
        scalars=scalars,
    )


def schema_hash(documents: Sequence[Mapping[str, Any]]) -> str:
    """Return the hash by which a server names its set of schemas: 32 hex digits.

    The dump is part of the protocol: the standard library's default separators and ASCII
    escapes, sorted keys, lists in their order.
    """
    dump = json.dumps(documents, sort_keys=True)
    return hashlib.md5(dump.encode(), usedforsecurity=False).hexdigest()
