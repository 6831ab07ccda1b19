"""Parents, containers and replies, which must not form a cycle.

A cycle of contexts has no project, and walking up or down it never ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from aioftrackjobs.devserver.api_errors import ValidationError
from aioftrackjobs.devserver.schema.model import EntityType, Model
from aioftrackjobs.devserver.schema.quirks import PARENT_RELATIONS
from aioftrackjobs.devserver.store.database import Transaction


class Hierarchy:
    """Checks the entities that one batch moves, at its end.

    Every cycle that a batch closes has an entity in it that was moved, or that was created
    before its parent. Only from those the check walks up.
    """

    def __init__(self, model: Model, transaction: Transaction) -> None:
        self._model = model
        self._transaction = transaction
        #: Entity type, key attribute and id of entities that may have closed a cycle, in order.
        self._moved: dict[tuple[str, str, str], None] = {}

    def create(self, entity_type: EntityType, row: Mapping[str, Any]) -> None:
        """Register an entity that was created."""
        for key in self._keys(entity_type):
            above = row.get(key)
            if above is not None and (above == row["id"] or not self._is_there(entity_type, above)):
                self._moved[entity_type.name, key, row["id"]] = None

    def move(self, entity_type: EntityType, own_id: str, values: Mapping[str, Any]) -> None:
        """Register an entity whose *values* were changed."""
        for key in self._keys(entity_type):
            if values.get(key) is not None:
                self._moved[entity_type.name, key, own_id] = None

    def check(self) -> None:
        """Check that there is no cycle.

        Raises:
            ValidationError: If an entity is below itself.
        """
        checked: dict[str, set[str]] = {}
        for name, key, own_id in self._moved:
            entity_type = self._model.types[name]
            known = checked.setdefault(f"{entity_type.root}.{key}", set())
            path: set[str] = set()
            for each in self._upwards(entity_type, key, own_id):
                if each in known:
                    break
                if each in path:
                    raise ValidationError(
                        f"{name} {own_id} cannot be below itself: its {key} leads back to it."
                    )
                path.add(each)
            known |= path

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
        for name in PARENT_RELATIONS:
            relation = entity_type.relations.get(name)
            if relation is None or relation.key is None or entity_type.primary_key != ("id",):
                continue
            if self._model.types[relation.target].root == entity_type.root:
                yield relation.key
