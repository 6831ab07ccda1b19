"""What a unit of work records: operations, with the entities and values that they come from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aioftrackjobs.models import Entity
from aioftrackjobs.protocol.batching import fold
from aioftrackjobs.protocol.operations import Create, Delete, Operation, Update
from aioftrackjobs.protocol.values import JSONValue, Reference, encode_value


@dataclass(eq=False, slots=True)  # not frozen, which takes twice as long
class Recorded:
    """An operation, the entity it is about, and the values as the entity keeps them."""

    operation: Operation
    entity: Entity
    values: Mapping[str, Any]

    @property
    def is_delete(self) -> bool:
        """Whether it deletes the entity."""
        return isinstance(self.operation, Delete)


def creation(entity: Entity, values: Mapping[str, Any], *, fresh: bool) -> list[Recorded]:
    """Return what to record of a new *entity*.

    Relations follow as updates of their own, as the official client records them: they can be
    taken back before the commit, which then sends one create.

    Args:
        entity: The new entity.
        values: Its attributes.
        fresh: Whether its key was made for it, so that no other entity can have it.

    Raises:
        UnserialisableValueError: One of the values cannot travel.
    """
    target, keys = entity.__ftrack_reference__(), entity.primary_key_attributes
    own, updates = dict[str, Any](), list[Recorded]()
    for name, value in values.items():
        if isinstance(value, (Entity, tuple)):
            change = {name: value}
            updates.append(Recorded(Update(target, encode_values(target, change)), entity, change))
        else:
            own[name] = value
    sent = {name: value for name, value in own.items() if name not in keys}
    create = Create(target, encode_values(target, sent), fresh)
    return [Recorded(create, entity, own), *updates]


def encode_values(target: Reference, values: Mapping[str, Any]) -> Mapping[str, JSONValue]:
    """Return *values* of the entity that *target* names as they travel.

    Raises:
        UnserialisableValueError: One of them cannot.
    """
    for value in values.values():
        if not (type(value) is str and value.isascii()):
            break
    else:
        return values  # they travel as they are
    return {
        name: encode_value(value, f"{target.entity_type}.{name}") for name, value in values.items()
    }


def entities_of(recorded: Iterable[Recorded], *kinds: type[Operation]) -> list[Entity]:
    """Return the entities that operations of these *kinds* are about, each once."""
    entities = (each.entity for each in recorded if isinstance(each.operation, kinds))
    return list({id(entity): entity for entity in entities}.values())


def fold_recorded(recorded: Sequence[Recorded]) -> Sequence[Operation]:
    """Return the fewest operations that come to the same as those *recorded*."""
    if len(recorded) == 1:  # what a farm does all day
        return fold((recorded[0].operation,))
    return fold([each.operation for each in recorded])
