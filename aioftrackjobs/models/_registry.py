"""Which class stands for an entity type, and what the server's schemas add to that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import create_model

from aioftrackjobs.errors import UnknownEntityTypeError
from aioftrackjobs.models._component import (
    Component,
    ComponentLocation,
    ContainerComponent,
    FileComponent,
    Location,
    SequenceComponent,
)
from aioftrackjobs.models._entity import Entity
from aioftrackjobs.models._job import Job, JobComponent
from aioftrackjobs.models._user import User
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


class EntityTypes:
    """The entity types of one server, as far as they are known.

    Before the schemas are learnt, a generic type has the key that real servers give it. After
    that, the schemas say which types and attributes there are.
    """

    def __init__(self) -> None:
        self._generic: dict[str, type[Entity]] = {}
        self._schemas: dict[str, EntitySchema] = {}

    @property
    def learnt(self) -> bool:
        """Whether the server's schemas are known."""
        return bool(self._schemas)

    def learn(self, documents: Iterable[Mapping[str, Any]]) -> None:
        """Take over what the server's schema *documents* say."""
        self._schemas = {document["id"]: decode_schema(document) for document in documents}
        for entity_type, model in self._generic.items():
            if schema := self._schemas.get(entity_type):
                model.primary_key_attributes = schema.primary_key
                model.default_projections = schema.scalars

    def model(self, entity_type: str) -> type[Entity]:
        """Return the class for *entity_type*: a typed one, or a generic one made for it.

        Raises:
            UnknownEntityTypeError: The schemas are known and have no such type.
        """
        if typed := TYPED.get(entity_type):
            return typed
        if generic := self._generic.get(entity_type):
            return generic
        if self._schemas and entity_type not in self._schemas:
            raise UnknownEntityTypeError(entity_type, self._schemas)
        self._generic[entity_type] = made = self._make(entity_type)
        return made

    def _make(self, entity_type: str) -> type[Entity]:
        schema = self._schemas.get(entity_type)
        key = schema.primary_key if schema else COMPOSITE_KEYS.get(entity_type, ("id",))
        made = create_model(entity_type, __base__=Entity, __doc__=f"A {entity_type}.")
        made.entity_type = entity_type
        made.primary_key_attributes = key
        made.default_projections = schema.scalars if schema else key
        return made

    def is_typed(self, entity_type: str) -> bool:
        """Tell whether this package has a model of its own for *entity_type*."""
        return entity_type in TYPED

    def attributes_of(self, entity_type: str) -> tuple[str, ...]:
        """Return the attributes that the schemas give the type; empty if they are not known."""
        schema = self._schemas.get(entity_type)
        return schema.attributes if schema else ()

    def key_attributes(self, entity_type: str) -> Sequence[str]:
        """Return the attributes that make up the key of *entity_type*, in order."""
        return self.model(entity_type).primary_key_attributes
