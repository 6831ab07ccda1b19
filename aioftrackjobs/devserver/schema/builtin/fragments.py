"""Functions that declare the built-in entity types.

Each function returns one fragment of a schema document, in the form that a real server's
``query_schemas`` returns it (docs/protocol.md, section 5.1), so a declaration is a short form of
the document. Nothing here depends on an entity type.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

Fragment: TypeAlias = dict[str, Any]
Document: TypeAlias = dict[str, Any]

#: Clients put a random UUID where a schema says so.
UID = "{uid}"


def _fragment(alias: str | None, **entries: Any) -> Fragment:
    fragment = {name: value for name, value in entries.items() if value is not None}
    if alias is not None:
        fragment["alias_for"] = alias
    return fragment


def text(
    default: str | None = None, *, alias: str | None = None, enum: list[str] | None = None
) -> Fragment:
    """Plain text, possibly one of an enumeration."""
    return _fragment(alias, type="string", default=default, enum=enum)


def uid(*, alias: str | None = None, extends: str | None = None) -> Fragment:
    """A primary key that clients make; *extends* names the base type's key it repeats."""
    fragment = _fragment(alias, type="string", default=UID)
    if extends is not None:
        fragment |= {"format": "foreign_key", "description": f"Foreign key(s): {extends}"}
    return fragment


def key(target: str, *, alias: str | None = None, default: str | None = None) -> Fragment:
    """The key of another entity; *target* is written as the server does, ``Job.id``."""
    return _fragment(
        alias,
        type="string",
        default=default,
        format="foreign_key",
        description=f"Foreign key(s): {target}",
    )


def untyped_key(target: str, *, alias: str | None = None) -> Fragment:
    """A foreign key without a type, as ``User.user_type_id`` is on a real server."""
    fragment = key(target, alias=alias)
    del fragment["type"]
    return fragment


def json_text() -> Fragment:
    """JSON inside a string."""
    return _fragment(None, type="string", format="json")


def moment(*, alias: str | None = None) -> Fragment:
    """A date with time, in UTC."""
    return _fragment(alias, type="string", format="date-time")


def integer(default: int | None = None) -> Fragment:
    """A whole number."""
    return _fragment(None, type="integer", default=default)


def number(default: float | None = None) -> Fragment:
    """Any number."""
    return _fragment(None, type="number", default=default)


def variable(default: str | None = None, *, alias: str | None = None) -> Fragment:
    """A value of any kind."""
    return _fragment(alias, type="variable", default=default)


def flag(*, default: bool | None = None, alias: str | None = None) -> Fragment:
    """True or false."""
    return _fragment(alias, type="boolean", default=default)


def url() -> Fragment:
    """An object holding an address that the server computes."""
    return {"type": "object"}


def ref(target: str, *, alias: str | None = None) -> Fragment:
    """A relation to one entity."""
    return _fragment(alias, **{"$ref": target})


def many(target: str, *, alias: str | None = None) -> Fragment:
    """A relation to any number of entities."""
    return _fragment(alias, type="array", items={"$ref": target})


def mapped(target: str, *, alias: str | None = None) -> Fragment:
    """A collection that clients show as a dictionary."""
    return _fragment(
        alias,
        type="mapped_array",
        items={"$ref": target},
        key_value_attributes={"key": "key", "value": "value"},
    )


def linked(target: str) -> Fragment:
    """Custom attributes that are links; criteria may use them, projections may not."""
    return {"type": "mapped_array", "items": {"$ref": target}, "restricted_projection": True}


def custom_attributes(target: str) -> Fragment:
    """The custom attributes of an entity, shown as a dictionary."""
    return mapped(target, alias="custom_attribute_values")


def entity(
    name: str,
    properties: Mapping[str, Fragment],
    *,
    primary_key: str = "id",
    required: str | None = None,
    immutable: str | None = None,
    default_projections: str | None = None,
    computed: str = "",
    system_projections: str = "",
    alias: str | Document | None = None,
    mixin: str | None = None,
) -> Document:
    """Return the schema document of one entity type; lists are written as words.

    If not given, *required*, *immutable* and *default_projections* are the primary key.
    """
    document: Document = {
        "id": name,
        "type": "object",
        "properties": dict(properties),
        "primary_key": primary_key.split(),
        "required": (required or primary_key).split(),
        "immutable": (immutable or primary_key).split(),
        "default_projections": (default_projections or primary_key).split(),
    }
    if computed:
        document["computed"] = computed.split()
    if system_projections:
        document["system_projections"] = system_projections.split()
    if alias is not None:
        document["alias_for"] = alias
    if mixin is not None:
        document["$mixin"] = {"$ref": mixin}
    return document


#: Properties of entities that links can start and end at.
LINKS: Mapping[str, Fragment] = {
    "custom_attribute_links": linked("CustomAttributeLink"),
    "custom_attribute_links_from": linked("CustomAttributeLinkFrom"),
}
#: The property for metadata, a dictionary for clients.
METADATA_MAP: Mapping[str, Fragment] = {"metadata": mapped("Metadata", alias="meta")}
#: Properties of entities that have a thumbnail.
THUMBNAIL: Mapping[str, Fragment] = {
    "thumbnail_id": key("Component.id", alias="thumbid"),
    "thumbnail_url": url(),
    "thumbnail": ref("Component"),
}
#: The client writes an entity type where the server stores a table's name.
PARENT_TYPE_TRANSFORM: Fragment = {"client": "{schema_id}", "server": "{table_name}"}
