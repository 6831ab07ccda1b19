"""Entity types for files: the component family, and the locations that hold them."""

from __future__ import annotations

from aioftrackjobs.devserver.declarations.language import (
    LINKS,
    entity,
    integer,
    key,
    many,
    mapped,
    ref,
    text,
    uid,
    url,
)

_COMPONENT = {
    "container_id": key("ContainerComponent.id"),
    "file_type": text(alias="filetype"),
    "name": text("main"),
    "size": integer(0),
    "system_type": text(),
    "version_id": key("AssetVersion.id"),
    "component_locations": many("ComponentLocation"),
    **LINKS,
    "metadata": mapped("Metadata", alias="meta"),
    "container": ref("ContainerComponent"),
    "version": ref("AssetVersion"),
}

COMPONENT = entity(
    "Component",
    {
        **_COMPONENT,
        "id": uid(),
    },
    required="system_type name id",
    default_projections="id system_type",
    system_projections="system_type version_id",
)

FILE_COMPONENT = entity(
    "FileComponent",
    {
        **_COMPONENT,
        "id": uid(extends="Component.id"),
    },
    required="system_type name id",
    default_projections="id system_type",
    system_projections="system_type version_id",
    mixin="Component",
)

CONTAINER_COMPONENT = entity(
    "ContainerComponent",
    {
        **_COMPONENT,
        "id": uid(extends="Component.id"),
        "members": many("Component"),
    },
    required="system_type name id",
    default_projections="id system_type",
    system_projections="system_type version_id",
    mixin="Component",
)

SEQUENCE_COMPONENT = entity(
    "SequenceComponent",
    {
        **_COMPONENT,
        "id": uid(extends="Component.id"),
        "padding": integer(0),
        "members": many("Component"),
    },
    required="system_type name id padding",
    default_projections="id system_type",
    system_projections="system_type version_id",
    mixin="Component",
)

COMPONENT_LOCATION = entity(
    "ComponentLocation",
    {
        "id": uid(),
        "component_id": key("Component.id"),
        "location_id": key("Location.id"),
        "resource_identifier": text(alias="resourceIdentifier"),
        "url": url(),
        "component": ref("Component"),
        "location": ref("Location"),
    },
    required="id",
    computed="url",
    system_projections="location_id component_id",
)

LOCATION = entity(
    "Location",
    {
        "id": uid(),
        "description": text(),
        "label": text(),
        "name": text(),
        "location_components": many("ComponentLocation"),
    },
    required="name id",
)
