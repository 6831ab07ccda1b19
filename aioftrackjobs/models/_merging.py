"""Taking over the values of another entity, and telling what changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypedDict

from aioftrackjobs.models._state import forget_reference

if TYPE_CHECKING:
    from aioftrackjobs.models._entity import Entity


class Change(TypedDict):
    """One thing that :meth:`Entity.merge` changed."""

    type: Literal["remote_attribute", "local_attribute"]
    name: str
    old_value: Any
    new_value: Any


def merge_into(target: Entity, source: Entity) -> list[Change]:
    """Give *target* the values of *source*: remote ones as remote, local ones as local changes."""
    changes: list[Change] = []
    for name, value in source._remote.items():
        old = target._remote.get(name)
        if name not in target._remote or old != value:
            target._remote[name] = value
            if name in target.primary_key_attributes:
                forget_reference(target)
            changes.append(
                Change(type="remote_attribute", name=name, old_value=old, new_value=value)
            )
    for name, value in source._local.items():
        if target._current(name) != value:
            old = target._current(name)
            target[name] = value
            changes.append(
                Change(type="local_attribute", name=name, old_value=old, new_value=value)
            )
    return changes
