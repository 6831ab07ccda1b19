"""Validation of schema documents.

It checks what the server relies on and no more: documents of real servers name attributes that a
type does not have, subsets of them (``job_domain``) have relations to missing types, and newer
servers have entries that are not known here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aioftrackjobs.devserver.errors import ServerStartError
from aioftrackjobs.devserver.schema.model import SCALAR_TYPES

#: Names that a query can use.
_NAME = re.compile(r"[^\W\d]\w*")
#: Prefix of table names that SQLite reserves.
_RESERVED = "sqlite_"
#: Problems of a document that an error shows.
_MOST_SHOWN = 3


class _Shape(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class _Reference(_Shape):
    ref: str | None = Field(default=None, alias="$ref")


class _Fragment(_Reference):
    type: str | None = None
    format: str | None = None
    description: str | None = None
    alias_for: str | None = None
    default: str | bool | int | float | None = None
    enum: list[str] | None = None
    items: _Reference = Field(default_factory=_Reference)


class _Alias(_Shape):
    id: str
    classifiers: dict[str, str] = Field(default_factory=dict)


class _Document(_Shape):
    id: str
    properties: dict[str, _Fragment]
    primary_key: list[str] = Field(min_length=1)
    required: list[str] = Field(default_factory=list)
    immutable: list[str] = Field(default_factory=list)
    default_projections: list[str] = Field(default_factory=list)
    computed: list[str] = Field(default_factory=list)
    system_projections: list[str] = Field(default_factory=list)
    alias_for: str | _Alias | None = None
    mixin: _Reference = Field(default_factory=_Reference, alias="$mixin")


def check_documents(schemas: Iterable[object]) -> dict[str, dict[str, Any]]:
    """Return the documents of *schemas* by name, in their order."""
    if isinstance(schemas, str | bytes | Mapping) or not isinstance(schemas, Iterable):
        raise ServerStartError(
            "schemas", None, f"a list of documents is needed, not a {type(schemas).__name__}"
        )
    documents: dict[str, dict[str, Any]] = {}
    for number, schema in enumerate(schemas, 1):
        document = _checked(f"document {number}", schema)
        name = document["id"]
        if name.lower() in map(str.lower, documents):
            raise ServerStartError(
                "schemas", name, "there are two of this name, or of names that differ by case"
            )
        documents[name] = document
    return documents


def _checked(place: str, schema: object) -> dict[str, Any]:
    if not isinstance(schema, Mapping):
        raise ServerStartError(
            "schemas", place, f"it is not an object but of type {type(schema).__name__}"
        )
    document = dict(schema)
    name = document.get("id")
    name = name if isinstance(name, str) and name else place
    for problems in (_shape_problems, _name_problems, _key_problems, _json_problems):
        found = list(problems(document))
        if found:
            more = [f"and {len(found) - _MOST_SHOWN} more"] if len(found) > _MOST_SHOWN else []
            raise ServerStartError("schemas", name, "; ".join(found[:_MOST_SHOWN] + more))
    return document


def _shape_problems(document: Mapping[str, Any]) -> Iterator[str]:
    try:
        _Document.model_validate(document)
    except ValidationError as error:
        for fault in error.errors(include_url=False, include_input=False):
            path = ".".join(map(str, fault["loc"]))
            yield f"{path}: {fault['msg']}"


def _name_problems(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield names that cannot be names of tables and columns, where case makes no difference."""
    for name in (document["id"], *document["properties"]):
        if not _NAME.fullmatch(name) or name.lower() in {"_row", "_type"}:
            yield f"{name!r} cannot be a name"
    if document["id"].lower().startswith((_RESERVED, "_")):
        yield f"{document['id']!r} cannot be the name of a type"
    seen = set[str]()
    for name in document["properties"]:
        if name.lower() in seen:
            yield f"properties.{name}: there are two whose names differ by case"
        seen.add(name.lower())


def _key_problems(document: Mapping[str, Any]) -> Iterator[str]:
    properties: Mapping[str, Mapping[str, Any]] = document["properties"]
    key = document["primary_key"]
    if len(set(key)) != len(key):
        yield "primary_key: it names an attribute twice"
    for name in key:
        if name not in properties:
            yield f"primary_key: there is no property {name!r}"
        elif (
            properties[name].get("type", "string") not in SCALAR_TYPES
            or name in document.get("computed", ())
            or ("$ref" in properties[name] and "type" not in properties[name])
        ):
            yield f"primary_key: {name!r} is not a plain value"


def _json_problems(document: Mapping[str, Any]) -> Iterator[str]:
    try:
        json.dumps(document, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        yield f"it is not JSON: {error}"
