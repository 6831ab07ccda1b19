"""Arguments that are entities, attributes or operations, checked before anything is sent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast
from uuid import UUID

from aioftrackjobs.config.settings import is_id, require, require_name
from aioftrackjobs.errors import EntityError
from aioftrackjobs.models import Entity, Owner, owner_of
from aioftrackjobs.protocol.values import JSONValue, encode_value


def check_owned(owner: Owner, entity: object, argument: str = "entity") -> None:
    """Check that *entity* is one of the session with the entities *owner*.

    Raises:
        ArgumentError: It is no entity.
        EntityError: It belongs to another session, or to none.
    """
    require(isinstance(entity, Entity), argument, "an entity", entity)
    if owner_of(cast("Entity", entity)) is not owner:
        raise EntityError(f"{entity!r} does not belong to this session")


def list_of_owned(owner: Owner, entities: object) -> list[Entity]:
    """Return one or several *entities* as a list; raises as :func:`check_owned`."""
    if isinstance(entities, Entity):
        found: list[Any] = [entities]
    else:
        is_several = isinstance(entities, Iterable) and not isinstance(entities, str | bytes)
        require(is_several, "entities", "an entity, or several", entities)
        found = list(cast("Iterable[Any]", entities))
    for each in found:
        check_owned(owner, each, "each of entities")
    return found


def list_of_names(argument: str, names: object, *, several: bool = False) -> list[str]:
    """Return the names of attributes as a list: one name, or several.

    Args:
        argument: Name of the argument.
        names: Its value.
        several: Refuse a single text, which is a mistake there.

    Raises:
        ArgumentError: They are no texts, or there is none.
    """
    if isinstance(names, str) and not several:
        found: list[Any] = [names]
    else:
        is_several = isinstance(names, Iterable) and not isinstance(names, str | bytes | Mapping)
        require(is_several, argument, "names of attributes", names)
        found = list(cast("Iterable[Any]", names))
    for each in found:
        require_name(f"each of {argument}", each)
    require(bool(found), argument, "at least one attribute", names)
    return found


def list_of_operations(operations: object) -> list[Mapping[str, JSONValue]]:
    """Return *operations* as a list, in their wire form.

    Raises:
        ArgumentError: They are no mappings.
        UnserialisableValueError: One of their values has no wire form.
    """
    is_several = isinstance(operations, Iterable) and not isinstance(operations, str | Mapping)
    require(is_several, "operations", "a sequence of mappings", operations)
    encoded: list[Any] = []
    for index, each in enumerate(cast("Iterable[object]", operations)):
        require(isinstance(each, Mapping), "each of operations", "a mapping", each)
        encoded.append(encode_value(each, f"operations[{index}]"))
    return encoded


def id_of(argument: str, entity: object) -> str:
    """Return the id of *entity*, which may be the id itself.

    Raises:
        ArgumentError: It is neither.
    """
    if isinstance(entity, Entity):
        return str(entity["id"])
    require(isinstance(entity, UUID) or is_id(entity), argument, "an entity, or its id", entity)
    return str(entity)
