"""``aioftrackjobs models``: the entity types of a server as typed classes, in a Python module.

Type checkers then know the studio's own types, attributes and choices. The order is that of the
names, so that writing the module again gives a difference that can be read.
"""

from __future__ import annotations

import keyword
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import aioftrackjobs
from aioftrackjobs import AsyncSession, Entity
from aioftrackjobs.cli.dump import UnknownTypeError
from aioftrackjobs.models import EntityTypes
from aioftrackjobs.protocol.custom_attributes import CustomAttribute
from aioftrackjobs.protocol.schemas import decode_schema

#: The types of plain values, by that of a property.
_PLAIN = {"string": "str", "boolean": "bool", "integer": "int", "number": "float"}

#: The types of custom attributes; an enumerator has a list of texts, or of its choices.
_CUSTOM = {
    "text": "str",
    "url": "str",
    "expression": "str",
    "number": "float",
    "boolean": "bool",
    "date": "datetime",
    "enumerator": "list[str]",
    "dynamic enumerator": "list[str]",
}

#: What is more general: a relation to it may lead to any of these types. Schemas do not say it.
_BASES = {
    "Project": "Context",
    "TypedContext": "Context",
    "TypedContextList": "List",
    "AssetVersionList": "List",
    "Group": "Resource",
}

_HEADER = '''\
"""Entity types of {server}, written by ``aioftrackjobs models``.

Do not edit it; write it again when the types of the server change::

    from aioftrackjobs import AsyncSession
    import studio

    async with AsyncSession() as session:
        session.use_models(studio)
        shots = await session.query(studio.Shot).all()
"""

# ruff: noqa

from __future__ import annotations

from collections.abc import MutableMapping, MutableSequence
from datetime import datetime
from typing import Any, ClassVar, Literal, TypedDict

import aioftrackjobs
from aioftrackjobs import Entity
from aioftrackjobs.models import Related

#: The value of an attribute until it is loaded or set; for type checkers it is of any type.
NOT_LOADED: Any = None
'''


async def write_models(session: AsyncSession, types: Sequence[str]) -> str:
    """Return the module with the entity types of a server, or with some of them.

    Args:
        session: A session of the server, which is opened here.
        types: Names of entity types; empty for all.

    Raises:
        UnknownTypeError: The server does not have one of the *types*.
        FtrackJobsError: The server refused a query, or no response arrived.
    """
    async with session:
        documents = {each["id"]: each for each in await session.schemas()}
        attributes = await session.custom_attributes()
        server_url = session.server_url
    for name in types:
        if name not in documents:
            raise UnknownTypeError(name)
    return models_module(documents, attributes, server_url, types)


def models_module(
    documents: Mapping[str, Mapping[str, Any]],
    attributes: Iterable[CustomAttribute],
    server_url: str,
    types: Sequence[str] = (),
) -> str:
    """Return the text of the module.

    Args:
        documents: The schemas of the server, by type.
        attributes: Its custom attributes.
        server_url: Its address.
        types: The types to write, and what they are special cases of; all if empty.
    """
    wanted = set(types or documents)
    for name in [*wanted]:
        while (base := _base_of(name, documents)) is not None:
            wanted.add(base)
            name = base
    found = sorted(attributes, key=lambda each: (each.key, each.id))
    sections = [_HEADER.format(server=server_url)]
    written: list[str] = []
    left = sorted(wanted)
    while left:  # a class stands after its base
        name = next(each for each in left if _base_of(each, documents) not in left)
        left.remove(name)
        written.append(name)
        sections.append("\n".join(_class_of(documents[name], documents, wanted, found)))
    listed = "\n".join(f"    {name}," for name in sorted(written))
    sections.append(
        f"#: For ``session.use_models``.\nMODELS: tuple[type[Entity], ...] = (\n{listed}\n)\n"
    )
    return "\n\n".join(sections)


def _base_of(name: str, documents: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Return the type of the server that *name* is a special case of, if any."""
    alias = documents[name].get("alias_for")
    base = _BASES.get(name)
    if isinstance(alias, Mapping) and alias.get("id") == "Task":
        base = "TypedContext"
    elif name.endswith("CustomAttributeValue") and name != "CustomAttributeValue":
        base = "CustomAttributeValue"
    return base if base in documents else None


def _class_of(
    document: Mapping[str, Any],
    documents: Mapping[str, Mapping[str, Any]],
    wanted: set[str],
    attributes: Sequence[CustomAttribute],
) -> Iterator[str]:
    """Yield the lines of the class of one type."""
    name = document["id"]
    schema = decode_schema(document)
    own = EntityTypes().decoding_model(name)  # of this package, if it has one
    is_ours = hasattr(aioftrackjobs, name)
    base = f"aioftrackjobs.{name}" if is_ours else (_base_of(name, documents) or "Entity")
    values = [each for each in attributes if each.is_of(name, _object_type_of(document), None)]
    if values:
        yield from _custom_attributes_of(name, values)
    yield f"class {name}({base}):"
    yield f'    """{_article(name)} {name}."""'
    yield ""
    yield f'    entity_type: ClassVar[str] = "{name}"'
    if not is_ours:
        yield from _tuple("primary_key_attributes", schema.primary_key)
        yield from _tuple("default_projections", schema.scalars)
    yield ""
    for attribute in sorted(schema.attributes):
        fragment = document["properties"][attribute]
        if is_ours and attribute in own.model_fields:
            continue
        if not _can_be_declared(attribute):
            yield f'    # Read as an item: entity["{attribute}"].'
        elif attribute == "custom_attributes" and values:
            yield f"    {attribute}: Related[{name}CustomAttributes] = NOT_LOADED"
        else:
            yield from _field(attribute, fragment, schema.primary_key, wanted)


def _article(name: str) -> str:
    return "An" if name[0] in "AEIOU" and not name.startswith("User") else "A"


def _tuple(name: str, values: Sequence[str]) -> Iterator[str]:
    """Yield the lines of a class variable with several texts."""
    listed = ", ".join(f'"{each}"' for each in values) + ("," if len(values) == 1 else "")
    line = f"    {name}: ClassVar[tuple[str, ...]] = ({listed})"
    if len(line) <= 100:
        yield line
        return
    yield f"    {name}: ClassVar[tuple[str, ...]] = ("
    yield from textwrap.wrap(listed + ",", 92, initial_indent=" " * 8, subsequent_indent=" " * 8)
    yield "    )"


def _can_be_declared(name: str) -> bool:
    is_name = name.isidentifier() and not keyword.iskeyword(name) and not name.startswith("_")
    return is_name and not hasattr(Entity, name)


def _field(
    name: str, fragment: Mapping[str, Any], key: Sequence[str], wanted: set[str]
) -> Iterator[str]:
    """Yield the lines of a field, whose value is None until it is loaded or set."""
    if description := _line(fragment.get("description")):
        yield from (f"    #: {line}" for line in textwrap.wrap(description, 92))
    kind = _type_of(name, fragment, wanted)
    if kind.startswith("Related") or name in key:
        yield f"    {name}: {kind} = NOT_LOADED"
    elif kind == "Any":
        yield f"    {name}: Any = None"
    else:
        yield f"    {name}: {kind} | None = None"


def _line(text: object) -> str:
    return " ".join(text.split()) if isinstance(text, str) else ""


def _type_of(name: str, fragment: Mapping[str, Any], wanted: set[str]) -> str:
    kind, target = fragment.get("type"), fragment.get("$ref")
    members = fragment.get("items")
    if name == "metadata" and kind == "mapped_array":
        return "Related[MutableMapping[str, str]]"
    if kind == "array" and isinstance(members, Mapping):
        target = members.get("$ref")
        return f"Related[MutableSequence[{target if target in wanted else 'Entity'}]]"
    if kind is None and target is not None:
        return f"Related[{target if target in wanted else 'Entity'} | None]"
    if fragment.get("format") == "date-time":
        return "datetime"
    if name == "link":  # a text, say the schemas; it is a list of what is above
        return "Any"
    choices = fragment.get("enum")
    if isinstance(choices, list) and choices and all(isinstance(each, str) for each in choices):
        return f"Literal[{', '.join(map(repr, choices))}]"
    return _PLAIN.get(str(kind), "Any")


def _object_type_of(document: Mapping[str, Any]) -> object:
    return document["properties"].get("object_type_id", {}).get("default")


def _custom_attributes_of(name: str, attributes: Sequence[CustomAttribute]) -> Iterator[str]:
    """Yield the lines of the typed dictionary of custom attributes."""
    by_key = {each.key: each for each in attributes}  # those of one project share a key
    yield f"{name}CustomAttributes = TypedDict("
    yield f'    "{name}CustomAttributes",'
    yield "    {"
    for key, each in sorted(by_key.items()):
        kind = _CUSTOM.get(each.kind, "Any")
        if each.choices:
            kind = f"list[Literal[{', '.join(map(repr, each.choices))}]]"
        elif each.kind == "number" and each.is_whole:
            kind = "int"
        shown = f"{kind} | None" if each.default is None and kind != "Any" else kind
        yield f"        {_quoted(key)}: {_quoted(shown)},"
    yield "    },"
    yield ")"
    yield ""
    yield ""


def _quoted(text: str) -> str:
    """Return *text* as a literal in double quotes, where it needs no others."""
    return f'"{text}"' if re.fullmatch(r"[^\"\\\n\r]*", text) else repr(text)
