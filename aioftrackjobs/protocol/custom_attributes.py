"""Custom attributes: what their configurations say, and which values they take.

A configuration gives a key, a type and a default to the entities of a kind, of one project or of
all. A hierarchical one is for everything in a project; its value is that of the nearest entity
above which has one.

Source:
    docs/protocol.md, section 5.6.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time
from typing import Any, NamedTuple

from aioftrackjobs.protocol.values import standard_value, stored_value

#: What a query for the configurations loads.
PROJECTIONS = (
    *("id", "key", "default", "config", "entity_type", "project_id", "object_type_id"),
    *("is_hierarchical", "type.name", "object_type.name"),
)

#: How configurations call the kinds of entities, by entity type; every other type is a "task".
_KINDS = {
    "Project": "show",
    "User": "user",
    "Asset": "asset",
    "AssetVersion": "assetversion",
    "List": "list",
    "TypedContextList": "list",
    "AssetVersionList": "list",
}

#: Kinds that are in the hierarchy of a project.
_IN_PROJECTS = ("task", "show", "asset", "assetversion")


class CustomAttribute(NamedTuple):
    """A custom attribute, as its configuration describes it.

    Attributes:
        id: Id of the configuration.
        key: Name of the attribute.
        kind: Name of its type: ``text``, ``number``, ``date``, ``boolean``, ``enumerator`` or
            another one.
        default: The value of an entity that has none.
        choices: The values of an enumerator; empty if it takes any.
        is_single: Whether an enumerator has one value at most.
        is_whole: Whether a number has no decimals.
        owner: What kind of entities has it, as configurations call them.
        project_id: The only project that has it; None for all.
        object_type_id: The only type of object that has it; None for all.
        object_type: Name of that type.
        is_hierarchical: Whether entities below inherit the value.
    """

    id: str
    key: str
    kind: str
    default: Any
    choices: tuple[str, ...]
    is_single: bool
    is_whole: bool
    owner: str
    project_id: str | None
    object_type_id: str | None
    object_type: str
    is_hierarchical: bool

    def is_of(self, entity_type: str, object_type_id: object, project_id: object) -> bool:
        """Return whether an entity has the attribute.

        Args:
            entity_type: Type of the entity.
            object_type_id: Its type of object; None if it is not known, or has none.
            project_id: Its project; None if that is not known: then only what all projects have.
        """
        if self.project_id not in (None, project_id):
            return False
        owner = _KINDS.get(entity_type, "task")
        if self.is_hierarchical and owner in _IN_PROJECTS:
            return True
        if owner != self.owner:
            return False
        if self.object_type_id is None or owner != "task":
            return True
        if isinstance(object_type_id, str):
            return self.object_type_id == object_type_id
        return self.object_type.replace(" ", "") == entity_type


def decode_configuration(row: Mapping[str, Any]) -> CustomAttribute | None:
    """Return what the *row* of a configuration says; None if it lacks a key or an id."""
    key, config = row.get("key"), _decoded(row.get("config"))
    if not isinstance(key, str) or not isinstance(row.get("id"), str):
        return None
    choices = _decoded(config.get("data")) if isinstance(config, Mapping) else None
    config = config if isinstance(config, Mapping) else {}
    kind = str(_name_of(row.get("type"))).lower()
    return CustomAttribute(
        id=row["id"],
        key=key,
        kind=kind,
        default=_read(kind, row.get("default")),
        choices=_values_of(choices) if kind == "enumerator" else (),
        is_single=config.get("multiSelect") is False,
        is_whole=config.get("isdecimal") is False,
        owner=str(row.get("entity_type")),
        project_id=row.get("project_id"),
        object_type_id=row.get("object_type_id"),
        object_type=_name_of(row.get("object_type")),
        is_hierarchical=bool(row.get("is_hierarchical")),
    )


def _decoded(text: object) -> Any:
    """Return what a JSON *text* holds; what is no text, as it is; None if it is no JSON."""
    try:
        return json.loads(text) if isinstance(text, str) else text
    except (ValueError, RecursionError):
        return None


def _name_of(row: object) -> str:
    name = row.get("name") if isinstance(row, Mapping) else None
    return name if isinstance(name, str) else ""


def _values_of(choices: object) -> tuple[str, ...]:
    if not isinstance(choices, Sequence) or isinstance(choices, str):
        return ()
    values = [each.get("value") if isinstance(each, Mapping) else each for each in choices]
    return tuple(each for each in values if isinstance(each, str))


def read_value(attribute: CustomAttribute, value: Any) -> Any:
    """Return *value* from the server in the type of *attribute*; what does not fit, as it is.

    A number is an ``int`` or ``float``, a date a ``datetime``, an enumerator a list of texts.
    """
    return _read(attribute.kind, value)


def _read(kind: str, value: Any) -> Any:
    match kind, value:
        case "date", str():
            return _moment(value) or value
        case "number", str():
            return _number(value)
        case "boolean", "true" | "false":
            return value == "true"
        case "enumerator" | "dynamic enumerator", str():
            return [value] if value else []
        case _:
            return value


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _number(text: str) -> Any:
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return text


def written_value(attribute: CustomAttribute, value: object) -> Any:
    """Return *value* as *attribute* keeps it.

    Raises:
        ValueError: The attribute cannot have it. The text says what it must be.
    """
    value = standard_value(value)
    if attribute.kind == "expression":
        raise ValueError("the server computes it")
    if value is None:
        return None
    match attribute.kind:
        case "text" | "url":
            _require(isinstance(value, str), "it must be a text")
        case "boolean":
            _require(isinstance(value, bool), "it must be True or False")
        case "number":
            return _written_number(value, whole=attribute.is_whole)
        case "date":
            return _written_date(value)
        case "enumerator" | "dynamic enumerator":
            return _written_choice(attribute, value)
    return value


def _require(holds: bool, reason: str) -> None:  # noqa: FBT001 - a condition and its text
    if not holds:
        raise ValueError(reason)


def _written_number(value: object, *, whole: bool) -> int | float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError("it must be a number")
    if whole:
        _require(value == int(value), "it must be a whole number")
        return int(value)
    return value


def _written_date(value: object) -> object:
    if isinstance(value, str):
        value = _moment(value)
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime.combine(value, time(), UTC)
    _require(isinstance(value, datetime), "it must be a date, or its text as in 2026-01-31")
    return stored_value(value)


def _written_choice(attribute: CustomAttribute, value: object) -> list[str]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, (list, tuple)) or not all(isinstance(each, str) for each in values):
        raise ValueError("it must be a text, or a list of texts")
    if attribute.choices:
        listed = ", ".join(map(repr, attribute.choices))
        known = all(each in attribute.choices for each in values)
        _require(known, f"it must be one of {listed}")
    _require(not attribute.is_single or len(values) <= 1, "it must be one value")
    return list(values)
