"""Entities as plain values, for pydantic's dumps: cycles end in a reference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aioftrackjobs.protocol.values import ENTITY_TYPE, Referable


def left_out(exclude: Any) -> set[Any]:
    """Return the names that pydantic's *exclude* leaves out; not those of which it keeps parts."""
    if isinstance(exclude, Mapping):
        return {name for name, part in exclude.items() if part in (True, ...)}
    return set(exclude or ())


def as_plain(entity: Any, path: tuple[Any, ...]) -> dict[str, Any]:
    """Return the loaded values; an entity that is already on the *path* as its reference."""
    reference = {ENTITY_TYPE: entity.entity_type}
    if any(entity is seen for seen in path):
        keys = entity.primary_key_attributes
        return reference | {name: entity._current(name) for name in keys}
    inner = (*path, entity)
    return reference | {name: _plain_value(entity._current(name), inner) for name in entity}


def _plain_value(value: Any, path: tuple[Any, ...]) -> Any:
    match value:
        case Referable():  # an entity
            return as_plain(value, path)
        case tuple() | list():
            return [_plain_value(item, path) for item in value]
        case Mapping():
            return {name: _plain_value(item, path) for name, item in value.items()}
        case _:
            return value
