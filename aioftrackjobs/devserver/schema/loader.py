"""Loading a :class:`Model` from a list of schema documents."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

from pydantic_core import from_json

from aioftrackjobs.devserver.api_errors import ValidationError
from aioftrackjobs.devserver.errors import ServerStartError
from aioftrackjobs.devserver.schema.builtin import BUILTIN_SCHEMAS
from aioftrackjobs.devserver.schema.inheritance import (
    aliases_of,
    discriminators_of,
    foreign_key_target,
    lineage_of,
)
from aioftrackjobs.devserver.schema.model import SCALAR_TYPES, Attribute, EntityType, Model
from aioftrackjobs.devserver.schema.relations import (
    add_derived_attributes,
    is_reference,
    resolve_relations,
)
from aioftrackjobs.devserver.schema.values import decode

#: Name of a file with schema documents, or the documents themselves.
SchemaSource: TypeAlias = str | os.PathLike[str] | Iterable[Mapping[str, Any]]


def read_schemas(source: SchemaSource) -> Any:
    """Return the documents of *source*, which are not checked yet."""
    if not isinstance(source, str | os.PathLike):
        return source
    name = os.fspath(source)
    try:
        return from_json(Path(name).read_bytes())
    except OSError as error:
        raise ServerStartError("schemas", name, error.strerror or str(error)) from error
    except ValueError as error:
        raise ServerStartError("schemas", name, f"not JSON: {error}") from error


def load_model(schemas: Iterable[object]) -> Model:
    """Return the model of *schemas*, which are documents as ``query_schemas`` returns them."""
    # Imports pydantic, which takes a tenth of a start, and built-in schemas do not need.
    from aioftrackjobs.devserver.schema.documents import check_documents

    return _model_of(check_documents(schemas))


def _model_of(documents: dict[str, dict[str, Any]]) -> Model:
    lineages = {name: lineage_of(name, documents) for name in documents}
    for name, lineage in lineages.items():
        if lineages[lineage[-1]] != lineage[-1:]:
            raise ServerStartError(
                "schemas", name, f"the types it extends form a cycle: {' > '.join(lineage)}"
            )
    types = {
        name: _entity_type(document, lineages, documents) for name, document in documents.items()
    }
    model = Model(tuple(documents.values()), types)
    _check_defaults(model)
    resolve_relations(model)
    add_derived_attributes(model)
    return model


@cache
def builtin_model() -> Model:
    """Return the model of the built-in schemas; cached, as a model never changes."""
    return _model_of({document["id"]: document for document in BUILTIN_SCHEMAS})


def _check_defaults(model: Model) -> None:
    for entity_type in model.types.values():
        for attribute in entity_type.attributes.values():
            try:
                decode(entity_type.name, attribute, attribute.default)
            except ValidationError as error:
                raise ServerStartError(
                    "schemas", entity_type.name, f"a default is wrong: {error}"
                ) from None


def _entity_type(
    document: dict[str, Any],
    lineages: Mapping[str, tuple[str, ...]],
    documents: Mapping[str, Mapping[str, Any]],
) -> EntityType:
    name = document["id"]
    computed = frozenset(document.get("computed", ())) | {
        key for key, value in document["properties"].items() if value.get("type") == "object"
    }
    return EntityType(
        name=name,
        document=document,
        root=lineages[name][-1],
        lineage=lineages[name],
        concrete=frozenset(other for other, lineage in lineages.items() if name in lineage),
        attributes=_attributes(document, computed, documents),
        discriminators=discriminators_of(document, lineages[name]),
        computed=computed,
        primary_key=tuple(document["primary_key"]),
        required=tuple(document.get("required", ())),
        immutable=frozenset(document.get("immutable", ())),
        default_projections=tuple(document.get("default_projections", ())),
        system_projections=_system_projections(document),
    )


def _attributes(
    document: Mapping[str, Any],
    computed: frozenset[str],
    documents: Mapping[str, Mapping[str, Any]],
) -> dict[str, Attribute]:
    attributes = {}
    for name, fragment in document["properties"].items():
        if name in computed or is_reference(fragment):
            continue
        if fragment.get("type", "string") not in SCALAR_TYPES:
            continue
        target = foreign_key_target(fragment)
        enum = fragment.get("enum")
        attributes[name] = Attribute(
            name,
            fragment.get("type", "string"),
            format=fragment.get("format"),
            default=fragment.get("default"),
            enum=tuple(enum) if enum else None,
            references=target[0] if target and target[0] in documents else None,
            aliases=tuple(other for other in aliases_of(document, name) if other not in computed),
        )
    return attributes


def _system_projections(document: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the attributes sent with every entity, under their names in the API.

    Documents name them by database column: ``showid`` is ``project_id``; the columns that
    distinguish a typed context from others are sent too (docs/protocol.md, section 3.5).
    Columns that are no attribute are never sent.
    """
    properties = document["properties"]
    columns = {fragment.get("alias_for", name): name for name, fragment in properties.items()}
    alias = document.get("alias_for")
    classifiers = alias.get("classifiers", {}) if isinstance(alias, Mapping) else {}
    named = (*document.get("system_projections", ()), *classifiers)
    names = (name if name in properties else columns.get(name) for name in named)
    return tuple(name for name in names if name is not None)
