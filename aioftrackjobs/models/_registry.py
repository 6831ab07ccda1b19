"""The class of each entity type, and what the server's schemas add to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import create_model

from aioftrackjobs.errors import EntityError, UnknownEntityTypeError
from aioftrackjobs.models._attributes import require_entity_type
from aioftrackjobs.models._component import (
    Component,
    ComponentLocation,
    ContainerComponent,
    FileComponent,
    Location,
    SequenceComponent,
)
from aioftrackjobs.models._entity import Entity
from aioftrackjobs.models._job import Job, JobComponent, User
from aioftrackjobs.protocol.schemas import COMPOSITE_KEYS, EntitySchema, decode_schema

TYPED: Mapping[str, type[Entity]] = {
    model.entity_type: model
    for model in (
        Component,
        ComponentLocation,
        ContainerComponent,
        FileComponent,
        Job,
        JobComponent,
        Location,
        SequenceComponent,
        User,
    )
}


class GenericEntity(Entity):
    """An entity of a type for which neither this package nor the user has a model."""

    def __reduce__(self) -> tuple[Any, ...]:
        facts = self.entity_type, self.primary_key_attributes, self.default_projections
        return _unpickled, facts, self.__getstate__()


def _generic_model(
    entity_type: str, key: tuple[str, ...], projections: tuple[str, ...]
) -> type[GenericEntity]:
    made = create_model(entity_type, __base__=GenericEntity, __doc__=f"A {entity_type}.")
    made.entity_type = entity_type
    made.primary_key_attributes = key
    made.default_projections = projections
    return made


def _unpickled(
    entity_type: str, key: tuple[str, ...], projections: tuple[str, ...]
) -> GenericEntity:
    """Return an empty entity for unpickling: the class that was pickled belonged to a session."""
    model = _generic_model(entity_type, key, projections)
    return model.__new__(model)


def _likely_types(name: str) -> tuple[str, ...]:
    """Return which type may be meant by the wrong *name* of one, without knowing the schemas."""
    plain = "".join(part[:1].upper() + part[1:] for part in name.split())
    known = [each for each in TYPED if each.lower() in (plain.lower(), plain.lower()[:-1])]
    return tuple(known) or ((plain,) if plain.isidentifier() else ())


class EntityTypes:
    """The entity types that one session knows, and the class of each.

    Until the schemas are loaded, a type without a model has the key that it has on real servers.
    After that, the schemas define which types and attributes there are.
    """

    def __init__(self) -> None:
        self._models: dict[str, type[Entity]] = dict(TYPED)
        self._schemas: dict[str, EntitySchema] = {}

    def load_schemas(self, documents: Iterable[object]) -> None:
        """Use the server's schema *documents* from now on.

        Raises:
            MalformedResponseError: One of them is no schema. Nothing has changed.
        """
        schemas = [decode_schema(document) for document in documents]
        self._schemas = {schema.entity_type: schema for schema in schemas}
        for schema in schemas:
            model = self._models.get(schema.entity_type)
            if model is not None and issubclass(model, GenericEntity):
                model.primary_key_attributes = schema.primary_key
                model.default_projections = schema.scalars

    def register(self, model: type[Entity]) -> bool:
        """Make *model* the class of its entity type; return whether it was not before.

        If a class derived from *model* is registered already, it stays.

        Raises:
            EntityError: The model declares no entity type or a wrong key, or an unrelated class
                is registered already.
            UnknownEntityTypeError: The schemas are loaded and have no such type.
        """
        if self._models.get(model.entity_type) is not model:
            require_entity_type(model)
        self._require_known(model.entity_type)
        current = self.decoding_model(model.entity_type)
        if issubclass(current, model):
            return False
        if not issubclass(current, GenericEntity) and not issubclass(model, current):
            raise EntityError(
                f"{model.__name__} cannot be the class of {model.entity_type}, because "
                f"{current.__module__}.{current.__name__} is: derive it from that"
            )
        if model.primary_key_attributes != current.primary_key_attributes:
            key = current.primary_key_attributes
            raise EntityError(
                f"{model.entity_type} has another key; declare in {model.__name__}: "
                f"primary_key_attributes: ClassVar[tuple[str, ...]] = {key!r}"
            )
        self._models[model.entity_type] = model
        return True

    def model(self, entity_type: str) -> type[Entity]:
        """Return the class for *entity_type*.

        Raises:
            UnknownEntityTypeError: The schemas are loaded and have no such type, or the name is
                not a valid one.
        """
        self._require_known(entity_type)
        return self.decoding_model(entity_type)

    def decoding_model(self, entity_type: str) -> type[Entity]:
        """Return the class for a row of *entity_type*; make one if there is none.

        The type may be missing in the schemas, if the server got it after they were loaded.
        """
        model = self._models.get(entity_type)
        if model is None:
            schema = self._schemas.get(entity_type)
            key = schema.primary_key if schema else COMPOSITE_KEYS.get(entity_type, ("id",))
            model = _generic_model(entity_type, key, schema.scalars if schema else key)
            self._models[entity_type] = model
        return model

    def _require_known(self, entity_type: str) -> None:
        if entity_type in TYPED:
            return
        # All types of ftrack begin with a capital letter, so that "job" is a mistake in any case.
        is_name = entity_type.isidentifier() and not entity_type[:1].islower()
        if not is_name or (self._schemas and entity_type not in self._schemas):
            raise UnknownEntityTypeError(entity_type, self._schemas or _likely_types(entity_type))

    def is_typed(self, entity_type: str) -> bool:
        """Return whether this package has a model for *entity_type*."""
        return entity_type in TYPED

    def default_projections(self, entity_type: str) -> tuple[str, ...]:
        """Return the attributes that a query of *entity_type* without ``select`` loads.

        Raises:
            UnknownEntityTypeError: The schemas are loaded and have no such type.
        """
        model = self.model(entity_type)
        schema = self._schemas.get(entity_type)
        if schema and model.default_projections is Entity.default_projections:
            return schema.scalars  # for a user's model that declares none
        return model.default_projections

    def attributes_of(self, entity_type: str) -> tuple[str, ...]:
        """Return the attributes that the schemas give the type; empty if they are not loaded."""
        schema = self._schemas.get(entity_type)
        return schema.attributes if schema else ()

    def relations_of(self, entity_type: str) -> frozenset[str]:
        """Return the attributes of the type that hold entities, as far as the schemas say so."""
        schema = self._schemas.get(entity_type)
        return schema.relations if schema else frozenset()

    def member_type(self, entity_type: str, name: str) -> str | None:
        """Return the type of the entities in the map *name*; None without the type's schema."""
        schema = self._schemas.get(entity_type)
        return schema.members.get(name) if schema else None
