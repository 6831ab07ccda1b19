"""The identity map: one instance for each entity, however many responses contain it.

The map holds weak references: an entity that is not used any more is forgotten. One with changes
that are not committed is not, because the unit of work that recorded them holds it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar, overload
from weakref import WeakValueDictionary

from aioftrackjobs.config.settings import require
from aioftrackjobs.errors import MalformedResponseError
from aioftrackjobs.models import (
    Entity,
    EntityTypes,
    Owner,
    attach,
    detach,
    forget_reference,
    load,
    load_first,
)
from aioftrackjobs.protocol.values import ENTITY_TYPE, VALUE_TYPE, Reference, decode_tagged

E = TypeVar("E", bound=Entity)


class IncompleteRowError(LookupError):
    """A row has no valid type, or lacks a part of the key that its type is assumed to have."""


class IdentityMap:
    """The entities of one session, and the decoding of responses to them."""

    def __init__(self, types: EntityTypes, owner: Owner) -> None:
        self._types = types
        self._owner = owner
        self._entities: WeakValueDictionary[tuple[str, ...], Entity] = WeakValueDictionary()
        # Class and key of each type, cached so that they are looked up once and not for each row.
        self._models: dict[str, tuple[type[Entity], tuple[str, ...]]] = {}
        # The latest row of each entity in the response that is decoded.
        self._rows: dict[tuple[str, ...], Mapping[str, Any]] = {}

    def __len__(self) -> int:
        return len(self._entities)

    def find(self, entity_type: str, key: Sequence[str]) -> Entity | None:
        """Return the known entity of this type and key; None if there is none."""
        return self._entities.get((entity_type, *key))

    def keys_of(self, entity_type: str) -> list[tuple[str, ...]]:
        """Return the keys of all known entities of a type."""
        return [each[1:] for each in tuple(self._entities.keys()) if each[0] == entity_type]

    def add(self, reference: Reference, entity: Entity) -> None:
        """Make *entity*, which *reference* names, the one instance for its key."""
        self._entities[(reference.entity_type, *dict(reference.key).values())] = entity

    def remove(self, entity: Entity) -> None:
        """Forget *entity*, and detach it: its changes are not recorded any more."""
        reference = entity.__ftrack_reference__()
        identity = (reference.entity_type, *dict(reference.key).values())
        if self._entities.get(identity) is entity:
            del self._entities[identity]
        detach(entity)

    @overload
    def model(self, kind: type[E]) -> type[E]: ...
    @overload
    def model(self, kind: type[Entity] | str) -> type[Entity]: ...
    def model(self, kind: type[Entity] | str) -> type[Entity]:
        """Return the class for *kind*, and register it first if it is a user's own.

        Entities of the type that are known already get the new class, because a key has only one
        instance.

        Raises:
            ArgumentError: *kind* is neither a text nor a class of entities.
            EntityError: *kind* cannot be the class of an entity type.
            UnknownEntityTypeError: The schemas are loaded and have no such type.
        """
        if isinstance(kind, str):
            return self._types.model(kind)
        if not (is_model := _is_model(kind)):
            require(is_model, "the entity type", "the name of a type, or a class", kind)
        if self._types.register(kind):
            self._models.pop(kind.entity_type, None)
            for entity in tuple(self._entities.values()):
                if entity.entity_type == kind.entity_type:
                    object.__setattr__(entity, "__class__", kind)
        return self._types.model(kind.entity_type)

    def forget_types(self) -> None:
        """Drop what was cached of the types, because their schemas were loaded."""
        self._models.clear()
        for entity in tuple(self._entities.values()):
            forget_reference(entity)

    def known(self, response: Any) -> Iterator[tuple[Entity, Mapping[str, Any]]]:
        """Yield the known entities in *response*, each with its row; not those without values."""
        values = [response]
        for value in values:  # the list grows during the loop
            if type(value) is list:
                values += value
            elif type(value) is dict:
                values += [
                    each for each in value.values() if type(each) is dict or type(each) is list
                ]
                try:
                    entity_type = value[ENTITY_TYPE]
                    _, key_names = self._models[entity_type]
                    if len(value) == 1 + len(key_names):
                        continue  # only type and key: a reference
                    key = [value[name] for name in key_names]
                    entity = self._entities.get((entity_type, *key))
                except (KeyError, TypeError):  # no row, or one that decode() will refuse
                    continue
                if entity is not None:
                    yield entity, value

    def decode(self, value: Any) -> Any:
        """Return *value* from a response with its rows as entities and its times as ``datetime``.

        A reference and a full row give the same instance, in either order. Local changes stay.

        Raises:
            IncompleteRowError: A row has no complete key.
            MalformedResponseError: The value is nested too deep.
        """
        try:
            return self._decode(value)
        except RecursionError:
            raise MalformedResponseError("nested too deep", status=200) from None
        finally:
            self._rows.clear()

    def _decode(self, value: Any) -> Any:
        kind = type(value)
        if kind is dict:
            entity_type = value.get(ENTITY_TYPE)
            if isinstance(entity_type, str):
                return self._decode_entity(entity_type, value)
            if VALUE_TYPE in value:
                return decode_tagged(value)
            return {name: self._decode(item) for name, item in value.items()}
        if kind is list:
            items = [self._decode(item) for item in value]
            return tuple(items) if all(isinstance(item, Entity) for item in items) else items
        return value

    def _decode_entity(self, entity_type: str, row: Mapping[str, Any]) -> Entity:
        known = self._models.get(entity_type)
        model, key_names = known if known is not None else self._model(entity_type)
        try:
            if len(key_names) == 1:
                identity = (entity_type, row[key_names[0]])
            else:
                identity = (entity_type, *[row[name] for name in key_names])
            entity = self._entities.get(identity)
        except KeyError as exc:
            raise IncompleteRowError(f"{entity_type} without {exc.args[0]}") from None
        except TypeError:  # a part of the key is a list or a mapping
            raise IncompleteRowError(f"{entity_type} with an invalid key") from None
        if entity is None:
            if None in identity:
                raise IncompleteRowError(f"{entity_type} with null in its key")
            entity = model.__new__(model)
            attach(entity, self._owner, dict(row))
            self._entities[identity] = entity  # before loading, as nested rows may refer to it
            try:
                load_first(entity, row, self._decode)
            except BaseException:
                self._entities.pop(identity, None)
                raise
        elif len(row) == len(identity):
            return entity  # a reference has no values to load
        elif self._rows.get(identity) == row:
            return entity  # as the user of each Job of a page
        else:
            load(entity, row, self._decode)
        self._rows[identity] = row
        return entity

    def _model(self, entity_type: str) -> tuple[type[Entity], tuple[str, ...]]:
        known = self._models.get(entity_type)
        if known is None:
            if not entity_type.isidentifier():
                raise IncompleteRowError(f"{entity_type!r} is not an entity type")
            model = self._types.decoding_model(entity_type)
            known = self._models[entity_type] = model, model.primary_key_attributes
        return known


def _is_model(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, Entity)
