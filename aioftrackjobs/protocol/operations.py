"""One recorded change of one entity, and its wire form.

Source:
    protocol.md, sections 2.5 and 9.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Literal, TypeAlias, assert_never

from aioftrackjobs.protocol.values import ENTITY_TYPE, JSONValue, Reference


class _Unset(Enum):
    NOT_SET = "NOT_SET"

    def __repr__(self) -> str:
        return self.value


#: The value of an attribute whose local change was taken back: it does not travel.
NOT_SET: Final = _Unset.NOT_SET

Values: TypeAlias = Mapping[str, JSONValue | Literal[_Unset.NOT_SET]]


@dataclass(frozen=True, slots=True)
class Create:
    """An entity is created with *values*, in their wire form.

    Attributes:
        fresh: Whether its key was made for it, so that no other entity can have it.
    """

    target: Reference
    values: Values = field(default_factory=dict)
    fresh: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Update:
    """Attributes of an entity get new *values*, in their wire form."""

    target: Reference
    values: Values = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Delete:
    """An entity is deleted."""

    target: Reference


Operation: TypeAlias = Create | Update | Delete


def encode_operation(operation: Operation) -> dict[str, JSONValue]:
    """Return the wire form of *operation*, ready for JSON."""
    target = operation.target
    address: dict[str, JSONValue] = {
        "entity_type": target.entity_type,
        "entity_key": [value for _, value in target.key],
    }
    match operation:
        case Create():
            data = {ENTITY_TYPE: target.entity_type, **dict(target.key), **_set(operation.values)}
            return {"action": "create", **address, "entity_data": data}
        case Update():
            data = {ENTITY_TYPE: target.entity_type, **_set(operation.values)}
            return {"action": "update", **address, "entity_data": data}
        case Delete():
            return {"action": "delete", **address}
        case _:
            assert_never(operation)


def _set(values: Values) -> dict[str, JSONValue]:
    return {name: value for name, value in values.items() if value is not NOT_SET}
