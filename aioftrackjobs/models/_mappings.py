"""Metadata and custom attributes of an entity, as dictionaries whose changes are recorded.

On the server, each of their values is an entity of its own. The owner of the entity, the session,
finds and makes those.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any, Protocol

from aioftrackjobs.errors import EntityError, InvalidValueError, NotLoadedError
from aioftrackjobs.errors import UnknownAttributeError as UnknownKeyError
from aioftrackjobs.models._state import owner_of, was_created_here
from aioftrackjobs.models._values import MAPS
from aioftrackjobs.protocol.custom_attributes import CustomAttribute, read_value, written_value
from aioftrackjobs.protocol.values import ENTITY_TYPE, Referable

#: The longest text that a repr shows of the values.
_LONGEST = 200


class Values(Protocol):
    """Where the values of one entity come from, and where their changes go."""

    def members(self, entity: Any, name: str) -> dict[str, Any]:
        """Return the entities that hold values of *name*: metadata by key, others by attribute."""
        ...

    def put(self, entity: Any, name: str, key: str, value: object) -> None:
        """Record a value under a *key* that has no entity yet."""
        ...

    def delete(self, member: Any) -> None:
        """Record that the entity of a value is deleted."""
        ...

    def custom_attributes(self, entity: Any) -> dict[str, CustomAttribute]:
        """Return the custom attributes that *entity* has, by key.

        Raises:
            NotLoadedError: The configurations are not loaded.
        """
        ...

    def inherited(self, entity: Any, attribute: CustomAttribute) -> Any:
        """Return the value of the nearest entity above, as far as it is loaded; else None."""
        ...

    def redact(self, text: str) -> str:
        """Return *text* without secrets."""
        ...


class MappedValues(MutableMapping[str, Any]):
    """What both kinds have in common."""

    __slots__ = ("_entity", "_values")

    #: Name of the attribute.
    _name = ""

    def __init__(self, entity: Any, values: Values) -> None:
        self._entity = entity
        self._values = values

    def is_of(self, entity: object, name: str) -> bool:
        """Return whether this is the attribute *name* of *entity*."""
        return self._entity is entity and self._name == name

    def _members(self) -> dict[str, Any]:
        return self._values.members(self._entity, self._name)

    def _invalid(self, key: object, value: object, reason: str) -> InvalidValueError:
        path = f"{self._name}[{key!r}]"
        error = InvalidValueError(self._entity.entity_type, path, value, reason)
        error.hide(self._values.redact)
        return error

    def _value_of(self, member: Any, key: str) -> Any:
        try:
            return member["value"]
        except NotLoadedError:
            path = f"{self._name}.value"
            raise NotLoadedError(self._entity.entity_type, path) from None

    def checked(self, key: object, value: object) -> tuple[str, Any]:
        """Return *key* and *value* as they are stored.

        Raises:
            InvalidValueError: The value cannot be stored under this key.
        """
        raise NotImplementedError

    def stored_key(self, key: str) -> str:
        """Return by what the server finds the value under *key*."""
        return key

    def _set(self, key: str, value: Any) -> None:
        stored = self.stored_key(key)
        member = self._members().get(stored)
        if member is None:
            self._values.put(self._entity, self._name, stored, value)
        else:
            member["value"] = value

    def __setitem__(self, key: str, value: Any) -> None:
        self._set(*self.checked(key, value))

    def check(self, values: Mapping[str, Any]) -> list[tuple[str, Any]]:
        """Return *values* as they are stored.

        Raises:
            EntityError: One of them cannot be set.
        """
        return [self.checked(*each) for each in values.items()]

    def update(self, values: Any = (), /, **more: Any) -> None:
        """Set several values; if one of them cannot be set, none is."""
        for key, value in self.check(dict(values, **more)):
            self._set(key, value)

    def __ior__(self, values: Mapping[str, Any]) -> MappedValues:
        self.update(values)
        return self

    def __eq__(self, other: object) -> bool:
        return dict(self) == dict(other) if isinstance(other, Mapping) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # mutable, as a dictionary is

    def __repr__(self) -> str:
        try:
            text = repr(dict(self))
        except EntityError as exc:  # a repr never fails
            text = f"<{exc}>"
        text = self._values.redact(text)
        return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


class MetadataValues(MappedValues):
    """The metadata of an entity: texts by key.

    ::

        shot["metadata"]["delivery"] = "2026-12"
        del shot["metadata"]["draft"]
        await session.commit()
    """

    __slots__ = ()
    _name = "metadata"

    def checked(self, key: object, value: object) -> tuple[str, Any]:
        """Return *key* and *value*, which are texts.

        Raises:
            InvalidValueError: One of them is none, or the key is empty.
        """
        if not (isinstance(key, str) and key):
            raise self._invalid(key, value, "the key of metadata must be a text, and not empty")
        if not isinstance(value, str):
            raise self._invalid(key, value, "metadata are texts: use str() or json.dumps()")
        return key, value

    def __getitem__(self, key: str) -> str:
        value: str = self._value_of(self._members()[key], key)
        return value

    def __delitem__(self, key: str) -> None:
        self._values.delete(self._members()[key])

    def replace(self, values: Mapping[str, Any]) -> None:
        """Make *values* the only ones."""
        wanted = dict(self.check(values))
        for key in self._members().keys() - wanted.keys():
            del self[key]
        for key, value in wanted.items():
            self._set(key, value)

    def __iter__(self) -> Iterator[str]:
        return iter(self._members())

    def __len__(self) -> int:
        return len(self._members())


class CustomAttributeValues(MappedValues):
    """The custom attributes of an entity: typed values by key.

    A read returns the value in the type of the attribute: a number, a ``datetime``, a bool, a list
    of texts for an enumerator. A hierarchical attribute without a value has that of the nearest
    entity above, else the default::

        await session.populate(shot, "custom_attributes")
        shot["custom_attributes"]["fstart"] = 1001
        await session.commit()

    ``del`` takes the value away: the attribute stays, with the inherited value or None.
    """

    __slots__ = ()
    _name = "custom_attributes"

    def _attributes(self) -> dict[str, CustomAttribute]:
        return self._values.custom_attributes(self._entity)

    def _attribute(self, key: object) -> CustomAttribute:
        attributes = self._attributes()
        found = attributes.get(key) if isinstance(key, str) else None
        if found is None:
            path = f"{self._entity.entity_type}.{self._name}"
            raise UnknownKeyError(path, str(key), attributes)
        return found

    def checked(self, key: object, value: object) -> tuple[str, Any]:
        """Return *key*, and *value* as its attribute keeps it.

        Raises:
            UnknownAttributeError: The entity has no custom attribute with this key.
            InvalidValueError: The attribute cannot have the value.
        """
        attribute = self._attribute(key)
        try:
            return attribute.key, written_value(attribute, value)
        except ValueError as exc:
            reason = str(exc)
        raise self._invalid(key, value, f"{reason}, as its type is {attribute.kind}")

    def __getitem__(self, key: str) -> Any:
        attribute = self._attribute(key)
        member = self._members().get(attribute.id)
        value = None if member is None else self._value_of(member, key)
        if value is not None:
            return read_value(attribute, value)
        if attribute.is_hierarchical:
            value = self._values.inherited(self._entity, attribute)
        elif member is not None:
            return None
        return attribute.default if value is None else read_value(attribute, value)

    def stored_key(self, key: str) -> str:
        """Return the id of the custom attribute under *key*."""
        return self._attribute(key).id

    def __delitem__(self, key: str) -> None:
        self[key] = None

    def replace(self, values: Mapping[str, Any]) -> None:
        """Set *values*; the others stay, because an entity keeps all of its attributes."""
        self.update(values)

    def __iter__(self) -> Iterator[str]:
        return iter(self._attributes())

    def __len__(self) -> int:
        return len(self._attributes())


# For the class of entities


def view_of(entity: Any, name: str) -> Any:
    """Return the map *name* of *entity*; None if it belongs to no session."""
    owner = owner_of(entity)
    return None if owner is None else owner.mapping_of(entity, name)


def unloaded_view(entity: Any, name: str) -> Any:
    """Return the map *name*, which is not loaded, of an *entity* that was created here; else None.

    The server has no values of it that were not written here.
    """
    known = entity.attributes
    is_own = entity._is_new or was_created_here(entity)
    return view_of(entity, name) if is_own and (not known or name in known) else None


def takes_values(entity: Any, name: str, value: object) -> bool:
    """Return whether *value* is a dictionary for the map *name* of an entity of a session."""
    if name not in MAPS:
        return False
    if not isinstance(value, Mapping) or isinstance(value, Referable) or ENTITY_TYPE in value:
        return False
    return view_of(entity, name) is not None
