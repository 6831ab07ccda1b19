"""The identity map: one instance for each entity, however often the server mentions it.

It is weak: an entity that nobody holds is forgotten. Unsent changes are held by the unit of work
that recorded them, so they cannot be.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar, overload
from weakref import WeakValueDictionary

from aioftrackjobs.errors import MalformedResponseError
from aioftrackjobs.models import Entity, EntityTypes, Owner, attach, detach, forget_reference, load
from aioftrackjobs.protocol.values import ENTITY_TYPE, VALUE_TYPE, decode_tagged

E = TypeVar("E", bound=Entity)


class IncompleteRowError(LookupError):
    """A row lacks a part of the key that its type is taken to have, or is of no type."""


class IdentityMap:
    """The entities that one session knows, and how answers become entities."""

    def __init__(self, types: EntityTypes, owner: Owner) -> None:
        self._types = types
        self._owner = owner
        self._entities: WeakValueDictionary[tuple[str, ...], Entity] = WeakValueDictionary()
        # A class's facts, looked up once for each type rather than for each row.
        self._models: dict[str, tuple[type[Entity], tuple[str, ...]]] = {}

    def __len__(self) -> int:
        return len(self._entities)

    def find(self, entity_type: str, key: Sequence[str]) -> Entity | None:
        """Return the entity of exactly this type and key, if it is known."""
        return self._entities.get((entity_type, *key))

    def add(self, entity: Entity) -> None:
        """Make *entity* the one instance for its key."""
        reference = entity.__ftrack_reference__()
        self._entities[(reference.entity_type, *(value for _, value in reference.key))] = entity

    def remove(self, entity: Entity) -> None:
        """Forget *entity*, and detach it: its changes are recorded nowhere from now on."""
        reference = entity.__ftrack_reference__()
        identity = (reference.entity_type, *(value for _, value in reference.key))
        if self._entities.get(identity) is entity:
            del self._entities[identity]
        detach(entity)

    @overload
    def model(self, kind: type[E]) -> type[E]: ...
    @overload
    def model(self, kind: type[Entity] | str) -> type[Entity]: ...
    def model(self, kind: type[Entity] | str) -> type[Entity]:
        """Return the class that stands for *kind*; a user's own does so from now on.

        Raises:
            EntityError: The class cannot stand for an entity type.
            UnknownEntityTypeError: The schemas are known and have no such type.
        """
        if isinstance(kind, str):
            return self._types.model(kind)
        if self._types.register(kind):
            self._models.pop(kind.entity_type, None)
            for entity in tuple(self._entities.values()):
                if entity.entity_type == kind.entity_type:  # known before: one instance for a key
                    object.__setattr__(entity, "__class__", kind)
        return self._types.model(kind.entity_type)

    def forget_types(self) -> None:
        """Look the types up again: their schemas have become known."""
        self._models.clear()
        for entity in tuple(self._entities.values()):
            forget_reference(entity)

    def known(self, answer: Any) -> Iterator[tuple[Entity, Mapping[str, Any]]]:
        """Iterate over the rows in *answer* that tell something of known entities, and these."""
        left = [answer]
        for value in left:  # which grows meanwhile
            if type(value) is list:
                left += value
            elif type(value) is dict:
                left += [
                    each for each in value.values() if type(each) is dict or type(each) is list
                ]
                try:
                    entity_type = value[ENTITY_TYPE]
                    _, key_names = self._models[entity_type]
                    if len(value) == 1 + len(key_names):
                        continue  # a bare reference
                    key = [value[name] for name in key_names]
                    entity = self._entities.get((entity_type, *key))
                except (KeyError, TypeError):  # no row, or one that decoding it complains of
                    continue
                if entity is not None:
                    yield entity, value

    def decode(self, value: Any) -> Any:
        """Return *value* from an answer, with times, and with entities as their one instance.

        A bare reference and a full row give the same instance, in either order. Local changes
        survive what the server says.

        Raises:
            IncompleteRowError: A row has no complete key.
            MalformedResponseError: The value is nested too deep.
        """
        try:
            return self._decode(value)
        except RecursionError:
            raise MalformedResponseError("nested too deep", status=200) from None

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
        except TypeError:  # a part that is a list or a mapping
            raise IncompleteRowError(f"{entity_type} with an odd key") from None
        if entity is None:
            if None in identity:
                raise IncompleteRowError(f"{entity_type} with null in its key")
            entity = model.__new__(model)
            attach(entity, self._owner)
            self._entities[identity] = entity  # before it is loaded: nested rows may refer back
        elif len(row) == len(identity):
            return entity  # a bare reference says nothing new
        try:
            load(entity, row, self._decode)
        except BaseException:
            if not entity._remote:
                self._entities.pop(identity, None)  # of no use to later answers
            raise
        return entity

    def _model(self, entity_type: str) -> tuple[type[Entity], tuple[str, ...]]:
        known = self._models.get(entity_type)
        if known is None:
            if not entity_type.isidentifier():
                raise IncompleteRowError(f"{entity_type!r} is no entity type")
            model = self._types.decoding_model(entity_type)
            known = self._models[entity_type] = model, model.primary_key_attributes
        return known
