"""Metadata and custom attributes: the entities that hold their values, and the configurations.

Each value is an entity on the server, of the type ``Metadata`` or of one for custom attributes.
Metadata are created and deleted; values of custom attributes exist on the server as soon as their
entity does, so that they are only updated, also by the commit that creates the entity.

Only the values are written, not the list of them: a complete list would delete what other clients
have added meanwhile.

Source:
    docs/protocol.md, sections 3.4 and 5.6.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from aioftrackjobs.commit.unit_of_work import UnitOfWork
from aioftrackjobs.entities.identity_map import IdentityMap
from aioftrackjobs.errors import NotLoadedError
from aioftrackjobs.models import (
    CustomAttributeValues,
    Entity,
    MetadataValues,
    current_value,
    owner_of,
    put_local,
)
from aioftrackjobs.protocol.custom_attributes import (
    CustomAttribute,
    decode_configuration,
)
from aioftrackjobs.protocol.values import ENTITY_TYPE

#: What is loaded for each of the maps.
_PARTS = {
    "metadata": ("key", "value"),
    "custom_attributes": ("configuration_id", "value"),
}

#: The attributes that are maps.
MAPS = frozenset(_PARTS)


class Entities(Protocol):
    """What this module needs of the entities of a session."""

    identity: IdentityMap

    def units(self) -> Iterable[UnitOfWork]:
        """Return the units of work that users' code has."""
        ...

    def member_type(self, entity_type: str, name: str) -> str:
        """Return the type of the values in the map *name*."""
        ...

    def create(self, kind: str, data: Mapping[str, Any], *, unit: UnitOfWork) -> Entity:
        """Make an entity, and record in *unit* that the next commit creates it."""
        ...

    def redact(self, text: str) -> str:
        """Return *text* without secrets."""
        ...


class MappedValues:
    """The metadata and custom attributes of the entities of one session.

    Args:
        entities: The entities of the session.
        unit: Returns the unit of work that records the changes of the current task.
    """

    def __init__(self, entities: Entities, unit: Callable[[], UnitOfWork]) -> None:
        self._entities = entities
        self._unit = unit
        self._configurations: dict[str, CustomAttribute] | None = None
        # Values that were set here and that no response has brought yet, by name of the map and
        # key; and what entities inherit, by custom attribute.
        self._added = WeakKeyDictionary[Entity, dict[tuple[str, str], Entity]]()
        self._inherited = WeakKeyDictionary[Entity, dict[str, Any]]()

    def view(self, entity: Entity, name: str) -> MetadataValues | CustomAttributeValues:
        """Return the map *name* of *entity*."""
        return (MetadataValues if name == "metadata" else CustomAttributeValues)(entity, self)

    # Custom attributes

    @property
    def are_configured(self) -> bool:
        """Whether the configurations of custom attributes are loaded."""
        return self._configurations is not None

    def configure(self, rows: Iterable[Mapping[str, Any]]) -> list[CustomAttribute]:
        """Use the *rows* of configurations from now on, and return what they say."""
        decoded = [each for row in rows if (each := decode_configuration(row)) is not None]
        self._configurations = {each.id: each for each in decoded}
        return decoded

    def custom_attributes(self, entity: Entity) -> dict[str, CustomAttribute]:
        """Return the custom attributes of *entity*, by key; those of its project come first.

        Raises:
            NotLoadedError: The configurations are not loaded.
        """
        if self._configurations is None:
            raise NotLoadedError(entity.entity_type, "custom_attributes")
        members = self.members(entity, "custom_attributes")
        project_id = _project_of(entity)
        object_type_id = current_value(entity, "object_type_id")
        found = [
            each
            for each in self._configurations.values()
            if each.id in members or each.is_of(entity.entity_type, object_type_id, project_id)
        ]
        found.sort(key=lambda each: (each.id in members, each.project_id is not None))
        return {each.key: each for each in found}  # the last one of each key

    def inherited(self, entity: Entity, attribute: CustomAttribute) -> Any:
        """Return the value of the nearest entity above; None if there is none.

        Raises:
            NotLoadedError: It is not loaded.
        """
        known = self._inherited.get(entity)
        if known is None and entity.entity_type != "Project":
            raise NotLoadedError(entity.entity_type, "custom_attributes")
        return (known or {}).get(attribute.id)

    @property
    def hierarchical(self) -> list[str]:
        """The ids of the attributes that are inherited, as far as they are loaded."""
        known = self._configurations or {}
        return [each.id for each in known.values() if each.is_hierarchical]

    def inherit(self, above: Mapping[Entity, Sequence[str]], rows: Iterable[Any]) -> None:
        """Note what entities inherit of the *rows* of values of the entities *above* them.

        Args:
            above: The heirs, each with the ids of what is above it, the nearest first.
            rows: The values.
        """
        values: dict[str, dict[str, Any]] = {}
        for row in rows:
            if row["value"] is not None:
                values.setdefault(row["entity_id"], {})[row["configuration_id"]] = row["value"]
        for entity, ids in above.items():
            inherited: dict[str, Any] = {}
            for each in reversed(ids):  # the nearest last
                inherited.update(values.get(each, {}))
            self._inherited[entity] = inherited

    # Values

    def members(self, entity: Entity, name: str) -> dict[str, Entity]:
        """Return the entities that hold values of *name*, without those that are to be deleted."""
        part = _PARTS[name][0]
        loaded = current_value(entity, name)
        members = {each[part]: each for each in loaded or () if isinstance(each, Entity)}
        for (map_name, key), member in self._added.get(entity, {}).items():
            if map_name == name:
                members[key] = member
        units = self._entities.units()
        return {
            key: each
            for key, each in members.items()
            if owner_of(each) is not None and not any(unit.is_deleting(each) for unit in units)
        }

    def put(
        self, entity: Entity, name: str, key: str, value: object, unit: UnitOfWork | None = None
    ) -> None:
        """Record a value under a *key* that has no entity yet.

        Args:
            entity: What the value belongs to.
            name: Its map.
            key: The key of metadata; the id of a custom attribute.
            value: The value, as it is stored.
            unit: The unit of work to record in; that of the current task if None.
        """
        unit = unit or self._unit()
        if name == "metadata":
            data = {
                "parent_id": entity["id"],
                "parent_type": entity.entity_type,
                "key": key,
                "value": value,
            }
            member = self._entities.create("Metadata", data, unit=unit)
        else:
            kind = self._entities.member_type(entity.entity_type, name)
            row = {ENTITY_TYPE: kind, "configuration_id": key, "entity_id": entity["id"]}
            member = self._entities.identity.decode(row)
            unit.record_update(member, {"value": value})
            put_local(member, "value", value)
        self._added.setdefault(entity, {})[name, key] = member

    def check(self, entity: Entity, maps: Mapping[str, Mapping[str, Any]]) -> None:
        """Check the values of the *maps* of an *entity* that is to be created.

        Raises:
            EntityError: One of them cannot be set.
        """
        for name, values in maps.items():
            self.view(entity, name).check(values)

    def fill(self, entity: Entity, maps: Mapping[str, Mapping[str, Any]], unit: UnitOfWork) -> None:
        """Record the values of the *maps* of a new *entity* in *unit*."""
        for name, values in maps.items():
            view = self.view(entity, name)
            for key, value in view.check(values):
                self.put(entity, name, view.stored_key(key), value, unit)

    def redact(self, text: str) -> str:
        """Return *text* without secrets."""
        return self._entities.redact(text)

    def delete(self, member: Entity) -> None:
        """Record that the entity of a value is deleted."""
        self._unit().record_delete(member)


def _project_of(entity: Entity) -> object:
    """Return the id of the project of *entity*, as far as it is loaded."""
    if entity.entity_type == "Project":
        return current_value(entity, "id")
    project_id = current_value(entity, "project_id")
    if project_id is not None:
        return project_id
    if ids := ids_above(entity):
        return ids[-1]
    related = (current_value(entity, name) for name in ("project", "parent", "asset"))
    return next((_project_of(each) for each in related if isinstance(each, Entity)), None)


def ids_above(entity: Entity) -> list[str]:
    """Return the ids of what is above *entity*, the nearest first, as far as it is loaded."""
    link = current_value(entity, "link")
    if isinstance(link, list):
        ids = [each["id"] for each in link if isinstance(each, Mapping) and "id" in each]
        own = current_value(entity, "id")
        return [each for each in reversed(ids) if each != own]
    parent = current_value(entity, "parent")
    return [parent["id"], *ids_above(parent)] if isinstance(parent, Entity) else []


def link_of(attributes: Sequence[str]) -> tuple[str, ...]:
    """Return what to load so that it is known what is above an entity with these *attributes*."""
    if "link" in attributes:
        return ("link",)
    return ("parent.link",) if "parent" in attributes else ()


# What is asked of the server


def split_maps(data: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Mapping[str, Any]]]:
    """Return the *data* of a new entity without its maps, and the maps by name."""
    maps = {name: data[name] for name in _PARTS if _is_dictionary(data.get(name))}
    return {name: value for name, value in data.items() if name not in maps}, maps


def _is_dictionary(value: object) -> bool:
    return isinstance(value, Mapping) and not isinstance(value, Entity) and ENTITY_TYPE not in value


def expand(projections: Iterable[str]) -> list[str]:
    """Return *projections* with the keys and values in place of each map."""
    expanded: list[str] = []
    for each in projections:
        parts = _PARTS.get(each.rpartition(".")[2], ())
        expanded += [f"{each}.{part}" for part in parts] or [each]
    return list(dict.fromkeys(expanded))


def are_custom(projections: str) -> bool:
    """Return whether *projections* are about custom attributes, so that these must be known."""
    return "custom_attributes" in projections
