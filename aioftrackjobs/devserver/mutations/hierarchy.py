"""Entities that are below others of their family, which may not go in a circle.

A circle of contexts has no project, and nothing that walks up or down it comes to an end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from aioftrackjobs.devserver.api_errors import ValidationError
from aioftrackjobs.devserver.schema.model import EntityType, Model
from aioftrackjobs.devserver.schema.quirks import UPWARDS
from aioftrackjobs.devserver.store.database import Transaction


class Trees:
    """Checks what one batch moves, at its end.

    Every circle that a batch closes has an entity in it that was moved, or that was created
    before what it is below. Only from those is the way up walked.
    """

    def __init__(self, model: Model, transaction: Transaction) -> None:
        self._model = model
        self._transaction = transaction
        #: Entity type, key attribute and id of what may have closed a circle, in order.
        self._moved: dict[tuple[str, str, str], None] = {}

    def create(self, entity_type: EntityType, row: Mapping[str, Any]) -> None:
        """Take note of an entity that was created."""
        for key in self._keys(entity_type):
            above = row.get(key)
            if above is not None and (above == row["id"] or not self._is_there(entity_type, above)):
                self._moved[entity_type.name, key, row["id"]] = None

    def move(self, entity_type: EntityType, own_id: str, values: Mapping[str, Any]) -> None:
        """Take note of an entity of which *values* were changed."""
        for key in self._keys(entity_type):
            if values.get(key) is not None:
                self._moved[entity_type.name, key, own_id] = None

    def check(self) -> None:
        """Check that nothing is above itself.

        Raises:
            ValidationError: If something is.
        """
        checked: dict[str, set[str]] = {}
        for name, key, own_id in self._moved:
            entity_type = self._model.types[name]
            known = checked.setdefault(f"{entity_type.root}.{key}", set())
            way: set[str] = set()
            for each in self._upwards(entity_type, key, own_id):
                if each in known:
                    break
                if each in way:
                    raise ValidationError(
                        f"{name} {own_id} cannot be below itself: its {key} leads back to it."
                    )
                way.add(each)
            known |= way

    def _upwards(self, entity_type: EntityType, key: str, own_id: str) -> Iterator[str]:
        """Yield the ids of an entity and all above it."""
        above: str | None = own_id
        while above is not None:
            yield above
            row = self._transaction.read(entity_type.root, {"id": above})
            above = row.get(key) if row is not None else None

    def _is_there(self, entity_type: EntityType, own_id: str) -> bool:
        return self._transaction.read(entity_type.root, {"id": own_id}) is not None

    def _keys(self, entity_type: EntityType) -> Iterator[str]:
        for name in UPWARDS:
            relation = entity_type.relations.get(name)
            if relation is None or relation.key is None or entity_type.primary_key != ("id",):
                continue
            if self._model.types[relation.target].root == entity_type.root:
                yield relation.key
