"""Entity types for custom attributes: their configurations, their values, and links.

Clients create a ``CustomAttributeValue`` and read it as the value type of its owner. A link is
a custom attribute that leads from one entity to another; every kind of entity has a type for
the links that end at it, and one for those that start from it.
"""

from __future__ import annotations

from aioftrackjobs.devserver.schema.builtin.fragments import (
    PARENT_TYPE_TRANSFORM,
    Document,
    entity,
    flag,
    integer,
    key,
    many,
    ref,
    text,
    uid,
    variable,
)

CUSTOM_ATTRIBUTE_TYPE = entity(
    "CustomAttributeType",
    {
        "id": uid(alias="typeid"),
        "core": flag(default=False),
        "form_config": text(alias="formconfig"),
        "name": text(),
        "custom_attribute_configurations": many("CustomAttributeConfiguration", alias="variables"),
    },
    required="id core",
)

CUSTOM_ATTRIBUTE_GROUP = entity(
    "CustomAttributeGroup",
    {
        "id": uid(alias="groupid"),
        "name": text(),
        "custom_attribute_configurations": many("CustomAttributeConfiguration", alias="registers"),
    },
    default_projections="id name",
    alias="AttributeGroup",
)

_CONFIGURATION = {
    "id": uid(alias="registerid"),
    "config": text(),
    "core": flag(default=False),
    "entity_type": text(alias="entity"),
    "group_id": key("CustomAttributeGroup.id", alias="groupid"),
    "key": text(),
    "label": text(),
    "object_type_id": text(alias="entity_key"),
    "project_id": text(alias="topid"),
    "sort": integer(0),
    "group": ref("CustomAttributeGroup"),
    "object_type": ref("ObjectType", alias="object_type"),
}

CUSTOM_ATTRIBUTE_CONFIGURATION = entity(
    "CustomAttributeConfiguration",
    {
        **_CONFIGURATION,
        "default": variable("", alias="casted_default"),
        "is_hierarchical": flag(default=False, alias="ishierarchical"),
        "type_id": key("CustomAttributeType.id", alias="typeid"),
        "values": many("CustomAttributeValue"),
        "type": ref("CustomAttributeType"),
    },
    required="id core config",
    system_projections="write_permissionid permissionid topid",
    alias="Variable_Register",
)

CUSTOM_ATTRIBUTE_LINK_CONFIGURATION = entity(
    "CustomAttributeLinkConfiguration",
    {
        **_CONFIGURATION,
        "entity_type_to": text(alias="entity_to"),
        "object_type_id_to": key("ObjectType.id", alias="entity_key_to"),
        "one_to_one": flag(),
        "object_type_to": ref("ObjectType", alias="object_type_to"),
    },
    required="id entity_type entity_type_to core config",
    immutable="id entity_type_to object_type_id_to",
    system_projections="write_permissionid permissionid topid",
    alias="LinkRegister",
)

CUSTOM_ATTRIBUTE_VALUE = entity(
    "CustomAttributeValue",
    {
        "configuration_id": key("CustomAttributeConfiguration.id", alias="registerid"),
        "entity_id": text(alias="entityid"),
        "value": variable(alias="casted_value"),
        "configuration": ref("CustomAttributeConfiguration", alias="register"),
    },
    primary_key="configuration_id entity_id",
    alias="Variable_Value",
)

_LINK = {
    "id": uid(),
    "configuration_id": key("CustomAttributeLinkConfiguration.id", alias="registerid"),
    "from_id": text(),
    "to_id": text(),
    "configuration": ref("CustomAttributeLinkConfiguration", alias="register"),
}
_LINK_TYPES = {
    "from_entity_type": {**text(), "transform": PARENT_TYPE_TRANSFORM},
    "to_entity_type": {**text(), "transform": PARENT_TYPE_TRANSFORM},
}

CUSTOM_ATTRIBUTE_LINK = entity(
    "CustomAttributeLink",
    _LINK,
    required="configuration_id from_id to_id",
    immutable="configuration_id id",
    default_projections="configuration_id from_id to_id",
)

CUSTOM_ATTRIBUTE_LINK_FROM = entity(
    "CustomAttributeLinkFrom",
    {**_LINK, **_LINK_TYPES},
    required="configuration_id from_id to_id",
    immutable="configuration_id id",
    default_projections="configuration_id from_id to_id",
)


def _values(owner: str, *, in_project: bool = True) -> Document:
    """Return the type of the custom attributes of one kind of entity."""
    return entity(
        f"{owner}CustomAttributeValue",
        {
            "configuration_id": key("CustomAttributeConfiguration.id", alias="register_id"),
            "entity_id": key(f"{owner}.id"),
            "key": text(),
            "value": variable(alias="casted_value"),
            "configuration": ref("CustomAttributeConfiguration", alias="register"),
        },
        required="configuration_id entity_id",
        immutable="configuration_id entity_id",
        primary_key="configuration_id entity_id",
        default_projections="configuration_id entity_id key",
        system_projections="entity_id key _casted_value" + " project_id" * in_project,
    )


def _links(relation: str, owner: str) -> tuple[Document, Document]:
    """Return the types of the links that end at, and start from, one kind of entity."""
    to = entity(
        f"{owner}CustomAttributeLink",
        {**_LINK, relation: ref(owner)},
        required="configuration_id from_id to_id id",
        immutable="id configuration_id",
        default_projections="id to_id configuration_id from_id",
    )
    start = entity(
        f"{owner}CustomAttributeLinkFrom",
        {**_LINK, **_LINK_TYPES, relation: ref(owner)},
        required="configuration_id from_id to_id from_entity_type to_entity_type id",
        immutable="id configuration_id",
        default_projections="id to_id to_entity_type configuration_id from_id",
    )
    return to, start


VALUES = (
    _values("Context"),
    _values("User", in_project=False),
    _values("AssetVersion"),
    _values("Asset"),
)
LINKS = (
    *_links("context", "Context"),
    *_links("user", "User"),
    *_links("group", "Group"),
    *_links("component", "Component"),
    *_links("asset", "Asset"),
    *_links("asset_version", "AssetVersion"),
)
