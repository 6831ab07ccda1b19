"""The identity map: one instance for each entity, however many responses contain it.

The map holds weak references: an entity that is not used any more is forgotten. One with changes
that are not committed is not, because the unit of work that recorded them holds it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar, overload
from weakref import ref

from aioftrackjobs.config.settings import require
from aioftrackjobs.errors import MalformedResponseError
from aioftrackjobs.models import (
    Entity,
    EntityTypes,
    Owner,
    RowPlan,
    detach,
    forget_reference,
)
from aioftrackjobs.protocol.values import ENTITY_TYPE, VALUE_TYPE, Reference, decode_tagged

E = TypeVar("E", bound=Entity)

#: A type, and the parts of a key.
Identity: TypeAlias = tuple[str, ...]


class IncompleteRowError(LookupError):
    """A row has no valid type, or lacks a part of the key that its type is assumed to have."""


class _Known(ref[Entity]):
    """A weak reference to an entity of the map; ``weakref.KeyedRef`` takes four times as long."""

    __slots__ = ("identity",)

    identity: Identity


class IdentityMap:
    """The entities of one session, and the decoding of responses to them."""

    def __init__(self, types: EntityTypes, owner: Owner) -> None:
        self._types = types
        self._owner = owner
        self._entities: dict[Identity, _Known] = {}
        # References to entities that are gone. Any thread may append, when it collects garbage.
        self._gone: list[_Known] = []
        self._note_gone = self._gone.append  # one object for all references
        self._plans: dict[str, RowPlan] = {}
        # The latest rows of entities that were known when the response brought these.
        self._rows: dict[Identity, Mapping[str, Any]] = {}

    def __len__(self) -> int:
        self._forget_gone()
        return len(self._entities)

    def _forget_gone(self) -> None:
        while self._gone:
            known = self._gone.pop()
            if self._entities.get(known.identity) is known:
                del self._entities[known.identity]

    def find(self, entity_type: str, key: Sequence[str]) -> Entity | None:
        """Return the known entity of this type and key; None if there is none."""
        known = self._entities.get((entity_type, *key))
        return None if known is None else known()

    def _all(self) -> list[Entity]:
        return [entity for each in [*self._entities.values()] if (entity := each()) is not None]

    def keys_of(self, entity_type: str) -> list[tuple[str, ...]]:
        """Return the keys of all known entities of a type."""
        self._forget_gone()
        return [each[1:] for each in [*self._entities] if each[0] == entity_type]

    def add(self, reference: Reference, entity: Entity) -> None:
        """Make *entity*, which *reference* names, the one instance for its key."""
        self._add((reference.entity_type, *dict(reference.key).values()), entity)

    def _add(self, identity: Identity, entity: Entity) -> None:
        known = _Known(entity, self._note_gone)
        known.identity = identity
        self._entities[identity] = known

    def remove(self, entity: Entity) -> None:
        """Forget *entity*, and detach it: its changes are not recorded any more."""
        reference = entity.__ftrack_reference__()
        key = dict(reference.key).values()
        if self.find(reference.entity_type, [*key]) is entity:
            del self._entities[(reference.entity_type, *key)]
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
            self._plans.pop(kind.entity_type, None)
            for entity in self._all():
                if entity.entity_type == kind.entity_type:
                    object.__setattr__(entity, "__class__", kind)
        return self._types.model(kind.entity_type)

    def forget_types(self) -> None:
        """Drop what was cached of the types, because their schemas were loaded."""
        self._plans.clear()
        for entity in self._all():
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
                    key_names = self._plans[entity_type].key_names
                    if len(value) == 1 + len(key_names):
                        continue  # only type and key: a reference
                    entity = self.find(entity_type, [value[name] for name in key_names])
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
        self._forget_gone()
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
            return tuple(items) if all(map(_is_model, set(map(type, items)))) else items
        return value

    def _decode_entity(self, entity_type: str, row: Mapping[str, Any]) -> Entity:
        plan = self._plans.get(entity_type) or self._plan(entity_type)
        try:
            if plan.only_key is not None:
                identity = (entity_type, row[plan.only_key])
            else:
                identity = (entity_type, *[row[name] for name in plan.key_names])
            known = self._entities.get(identity)
        except KeyError as exc:
            raise IncompleteRowError(f"{entity_type} without {exc.args[0]}") from None
        except TypeError:  # a part of the key is a list or a mapping
            raise IncompleteRowError(f"{entity_type} with an invalid key") from None
        entity = None if known is None else known()
        if entity is None:
            if None in identity:
                raise IncompleteRowError(f"{entity_type} with null in its key")
            entity = plan.new_entity(self._owner)
            self._add(identity, entity)  # before loading, as nested rows may refer to it
            try:
                plan.load(entity, row, self._decode)
            except BaseException:
                self._entities.pop(identity, None)
                raise
        elif len(row) == len(identity):
            return entity  # a reference has no values to load
        elif self._rows.get(identity) == row:
            return entity  # as the user of each Job of a page
        else:
            plan.load(entity, row, self._decode)
            self._rows[identity] = row
        return entity

    def _plan(self, entity_type: str) -> RowPlan:
        if not entity_type.isidentifier():
            raise IncompleteRowError(f"{entity_type!r} is not an entity type")
        plan = self._plans[entity_type] = RowPlan(self._types.decoding_model(entity_type))
        return plan


def _is_model(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, Entity)
