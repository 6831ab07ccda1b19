"""Inheritance between entity types, read from schema documents.

Newer servers declare it (``$mixin``). In the recorded documents it is recognised by other signs:
an alias with classifiers, a primary key that is also a foreign key, a discriminator such as
``context_type`` that a bigger type repeats, a prefix before the name of a smaller type
(``ContextCustomAttributeValue``), or a table that two types name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Document = Mapping[str, Any]
_FOREIGN_KEY = "Foreign key(s): "


def foreign_key_target(fragment: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return type and attribute that a foreign key points at, from its description."""
    description = fragment.get("description") or ""
    if fragment.get("format") != "foreign_key" or not description.startswith(_FOREIGN_KEY):
        return None
    target, _, attribute = description.removeprefix(_FOREIGN_KEY).partition(".")
    return target, attribute


def aliases_of(document: Document, name: str) -> list[str]:
    """Return the other properties that are the same column, or the same relation, as *name*.

    ``task_workflow_schema`` of a ProjectSchema was called ``_task_workflow`` before.
    """
    own = document["properties"][name]
    same = ("alias_for", "type", "$ref")
    return [
        other
        for other, fragment in document["properties"].items()
        if "alias_for" in own and other != name
        if all(fragment.get(entry) == own.get(entry) for entry in same)
    ]


def base_of(document: Document, documents: Mapping[str, Document]) -> str | None:
    """Return the name of the type that *document* extends, None for the root of a family."""
    for base in _candidates(document, documents):
        known = None if base is None else documents.get(base)
        if known is None or known is document:
            continue
        if known["primary_key"] == document["primary_key"]:  # their entities are in one table
            return base
    return None


def _candidates(document: Document, documents: Mapping[str, Document]) -> Iterator[str | None]:
    """Yield the types that *document* may extend, by one sign after the other."""
    yield document.get("$mixin", {}).get("$ref")
    alias = document.get("alias_for")
    if isinstance(alias, Mapping):
        table = alias["id"]
        named = (name for name, other in documents.items() if other.get("alias_for") == table)
        yield next(named, table)
    if len(document["primary_key"]) == 1:
        fragment = document["properties"].get(document["primary_key"][0], {})
        yield (foreign_key_target(fragment) or (None,))[0]
    yield _base_by_discriminator(document, documents)
    yield _base_by_name(document, documents)
    yield _base_by_table(document, documents)


def lineage_of(name: str, documents: Mapping[str, Document]) -> tuple[str, ...]:
    """Return *name* and all types that it extends, nearest first."""
    lineage = [name]
    while (base := base_of(documents[lineage[-1]], documents)) and base not in lineage:
        lineage.append(base)
    return tuple(lineage)


def discriminators_of(document: Document, lineage: tuple[str, ...]) -> dict[str, str]:
    """Return the values that distinguish entities of this type from others of the family.

    Classifiers are in the document. A discriminator is the document's default, else the table's
    name, else the part of the type's name before that of its root: ``file`` for a
    ``FileComponent`` (recorded for that one, assumed for the others).
    """
    properties = document["properties"]
    alias = document.get("alias_for")
    discriminators: dict[str, str] = {}
    if isinstance(alias, Mapping):
        columns = {p.get("alias_for", name): name for name, p in properties.items()}
        for column, value in alias.get("classifiers", {}).items():
            discriminators[columns.get(column, column)] = value
    table = alias["id"] if isinstance(alias, Mapping) else alias
    own_part = document["id"].removesuffix(lineage[-1]) or document["id"]
    for name in _discriminators(document):
        discriminators[name] = properties[name].get("default") or (table or own_part).lower()
    return discriminators


def _discriminators(document: Document) -> set[str]:
    return {
        name
        for name in document.get("system_projections", ())
        if name.endswith("_type") and name in document["properties"]
    }


def _base_by_discriminator(document: Document, documents: Mapping[str, Document]) -> str | None:
    own, names = _discriminators(document), set(document["properties"])
    bases = [
        other
        for other in documents.values()
        if _discriminators(other) & own and set(other["properties"]) < names
    ]
    nearest = max(bases, key=lambda other: len(other["properties"]), default=None)
    return nearest["id"] if nearest is not None else None


def _base_by_name(document: Document, documents: Mapping[str, Document]) -> str | None:
    """Return the longest type that this one is named after and repeats.

    ``CustomAttributeLinkFrom`` is ``CustomAttributeLink``, seen from the other end.
    """
    own = document["id"]
    smaller = [
        name
        for name, other in documents.items()
        if name != own
        and (own.endswith(name) or own == f"{name}From")
        and other["primary_key"] == document["primary_key"]
        and set(other["properties"]) < set(document["properties"])
    ]
    return max(smaller, key=lambda name: (own.endswith(name), len(name)), default=None)


def _base_by_table(document: Document, documents: Mapping[str, Document]) -> str | None:
    """Return the first type of the same table and shape, such as of labels and categories."""
    table = document.get("alias_for")
    if not isinstance(table, str):
        return None
    same = (
        name
        for name, other in documents.items()
        if other.get("alias_for") == table
        and set(other["properties"]) == set(document["properties"])
    )
    return next(same, None)
