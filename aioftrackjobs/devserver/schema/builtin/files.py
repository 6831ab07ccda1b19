"""Entity types for files: the component family, and the locations that hold them."""

from __future__ import annotations

from collections.abc import Mapping

from aioftrackjobs.devserver.schema.builtin.fragments import (
    LINKS,
    METADATA_MAP,
    Document,
    Fragment,
    entity,
    integer,
    key,
    many,
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
    **METADATA_MAP,
    "container": ref("ContainerComponent"),
    "version": ref("AssetVersion"),
}


def _component(
    name: str, properties: Mapping[str, Fragment], *, required: str = "", mixin: str | None = None
) -> Document:
    """Return a type of the family; *required* says what its components need besides."""
    return entity(
        name,
        {**_COMPONENT, **properties},
        required="system_type name id" + required,
        default_projections="id system_type",
        system_projections="system_type version_id",
        mixin=mixin,
    )


_OWN_KEY = {"id": uid(extends="Component.id")}
_MEMBERS = {"members": many("Component")}

COMPONENT = _component("Component", {"id": uid()})
FILE_COMPONENT = _component("FileComponent", _OWN_KEY, mixin="Component")
CONTAINER_COMPONENT = _component("ContainerComponent", {**_OWN_KEY, **_MEMBERS}, mixin="Component")
SEQUENCE_COMPONENT = _component(
    "SequenceComponent",
    {**_OWN_KEY, **_MEMBERS, "padding": integer(0)},
    required=" padding",
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
