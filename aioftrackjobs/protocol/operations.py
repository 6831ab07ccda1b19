"""One recorded change of one entity, and its wire form.

Source:
    docs/protocol.md, sections 2.5 and 9.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar, Final, Literal, TypeAlias, assert_never

from aioftrackjobs.protocol.values import ENTITY_TYPE, JSONValue, Reference


class _Unset(Enum):
    NOT_SET = "NOT_SET"

    def __repr__(self) -> str:
        return self.value


#: The value of an attribute whose local change was reset: it is not sent.
NOT_SET: Final = _Unset.NOT_SET

Values: TypeAlias = Mapping[str, JSONValue | Literal[_Unset.NOT_SET]]


@dataclass(frozen=True, slots=True)
class Create:
    """An entity is created with *values*, in their wire form.

    Example: ``isinstance(session.recorded_operations[0], Create)``

    Attributes:
        fresh: Whether its key was made for it, so that no other entity can have it.
    """

    action: ClassVar[str] = "create"

    target: Reference
    values: Values = field(default_factory=dict)
    fresh: bool = field(default=False, compare=False)


@dataclass(slots=True)  # not frozen, which takes twice as long: there is one for each change
class Update:
    """Attributes of an entity get new *values*, in their wire form.

    Example: ``isinstance(session.recorded_operations[0], Update)``
    """

    action: ClassVar[str] = "update"

    target: Reference
    values: Values = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Delete:
    """An entity is deleted.

    Example: ``isinstance(session.recorded_operations[-1], Delete)``

    Attributes:
        unseen: Whether no query has shown the entity, as far as is known. Queries may hide it, so
            that it is not gone because they do not find it.
    """

    action: ClassVar[str] = "delete"

    target: Reference
    unseen: bool = field(default=False, compare=False)


Operation: TypeAlias = Create | Update | Delete


def encode_operation(operation: Operation) -> dict[str, JSONValue]:
    """Return the wire form of *operation*, which contains no NOT_SET, ready for JSON."""
    entity_type, key = operation.target
    wire: dict[str, Any] = {
        "action": operation.action,
        "entity_type": entity_type,
        "entity_key": [key[0][1]] if len(key) == 1 else [value for _, value in key],
    }
    # No match statement: this runs for each operation of a farm, and isinstance is faster.
    if isinstance(operation, Update):
        wire["entity_data"] = {ENTITY_TYPE: entity_type, **operation.values}
    elif isinstance(operation, Create):
        wire["entity_data"] = {ENTITY_TYPE: entity_type, **dict(key), **operation.values}
    elif not isinstance(operation, Delete):
        assert_never(operation)
    return wire
