"""Schema documents of a server: the keys and attributes of its entity types.

Source:
    docs/protocol.md, sections 5.1 and 8.3.
"""

from __future__ import annotations

import hashlib
import json
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from aioftrackjobs.errors import MalformedResponseError

#: Types whose key is not ``id`` (the 22 of 116 in a recorded response to ``query_schemas``), so
#: that entities of any type can be created before the server's schemas are known.
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
_SCALARS = ("string", "boolean", "integer", "number", "variable", None)

#: Types of properties that hold several entities.
_COLLECTIONS = ("array", "mapped_array")


class EntitySchema(NamedTuple):
    """What a client needs to know about one entity type.

    Attributes:
        entity_type: Name used everywhere on the wire.
        primary_key: Attributes that make up the key, in order.
        attributes: All that can be read or set.
        scalars: Attributes that hold plain values kept by the server, so without relations,
            collections and computed values: what a query without ``select`` loads.
        relations: Attributes that hold an entity, or several.
        members: The entity types of the values in each attribute that is a map.
    """

    entity_type: str
    primary_key: tuple[str, ...]
    attributes: tuple[str, ...]
    scalars: tuple[str, ...]
    relations: frozenset[str] = frozenset()
    members: Mapping[str, str] = {}


def decode_schema(document: object) -> EntitySchema:
    """Return what one schema *document* says about its entity type.

    Raises:
        MalformedResponseError: It has no valid id, key or properties.
    """
    if not isinstance(document, dict):
        raise _malformed("a schema", document)
    entity_type, key = document.get("id"), document.get("primary_key")
    properties, computed = document.get("properties", {}), document.get("computed", [])
    if not isinstance(entity_type, str) or not entity_type.isidentifier():
        raise _malformed("the id of a schema", entity_type)
    if not key or not _is_names(key):
        raise _malformed(f"the primary_key of {entity_type}", key)
    if not isinstance(properties, dict):
        raise _malformed(f"the properties of {entity_type}", properties)
    if not _is_names(computed):
        raise _malformed(f"the computed properties of {entity_type}", computed)
    for name, fragment in properties.items():
        if not isinstance(fragment, dict):
            raise _malformed(f"the property {entity_type}.{name}", fragment)
    attributes = tuple(
        name for name, fragment in properties.items() if not fragment.get("restricted_projection")
    )
    scalars = tuple(
        name
        for name in attributes
        if name not in computed
        and _is_scalar(properties[name])
        and not name.startswith("_")  # such as `_link`, which are deprecated
    )
    relations = frozenset(name for name in attributes if _is_relation(properties[name]))
    members = {
        name: fragment["items"]["$ref"]
        for name, fragment in properties.items()
        if fragment.get("type") == "mapped_array" and _names_a_type(fragment.get("items"))
    }
    return EntitySchema(entity_type, tuple(key), attributes, scalars, relations, members)


def _names_a_type(items: object) -> bool:
    return isinstance(items, dict) and isinstance(items.get("$ref"), str)


def _is_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) and name for name in value)


def _is_scalar(fragment: Mapping[str, Any]) -> bool:
    return "$ref" not in fragment and fragment.get("type") in _SCALARS


def _is_relation(fragment: Mapping[str, Any]) -> bool:
    """Return whether an attribute holds entities; some scalars have a ``$ref``, too."""
    kind = fragment.get("type")
    return kind in _COLLECTIONS or (kind is None and "$ref" in fragment)


def _malformed(what: str, found: object) -> MalformedResponseError:
    return MalformedResponseError(f"{what} is {reprlib.repr(found)}", status=200)


def schema_hash(documents: Sequence[Mapping[str, Any]]) -> str:
    """Return the hash that identifies a server's set of schemas: 32 hex digits.

    The dump is part of the protocol: the standard library's default separators and ASCII
    escapes, sorted keys, lists in their order.
    """
    dump = json.dumps(documents, sort_keys=True)
    return hashlib.md5(dump.encode(), usedforsecurity=False).hexdigest()
