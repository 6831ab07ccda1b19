"""Parents, containers and replies, which must not form a cycle.

A cycle of contexts has no project, and walking up or down it never ends.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from aioftrackjobs.devserver.api_errors import ValidationError
from aioftrackjobs.devserver.schema.model import EntityType, Model
from aioftrackjobs.devserver.schema.quirks import PARENT_RELATIONS
from aioftrackjobs.devserver.store.database import Transaction


class Hierarchy:
    """Checks the entities that one batch creates below others or moves, at its end."""

    def __init__(self, model: Model, transaction: Transaction) -> None:
        self._model = model
        self._transaction = transaction
        #: Type, key attribute and id of the entities that may have closed a cycle, in order.
        self._moved: dict[tuple[str, str, str], None] = {}

    def move(self, entity_type: EntityType, own_id: str, values: Mapping[str, Any]) -> None:
        """Register an entity whose *values* are new."""
        for name in PARENT_RELATIONS if entity_type.primary_key == ("id",) else ():
            relation = entity_type.relations.get(name)
            if relation is None or relation.key is None or values.get(relation.key) is None:
                continue
            if self._model.types[relation.target].root == entity_type.root:
                self._moved[entity_type.name, relation.key, own_id] = None

    def check(self) -> None:
        """Check that there is no cycle."""
        checked = defaultdict[tuple[str, str], set[str]](set)
        for name, key, own_id in self._moved:
            root = self._model.types[name].root
            known, path = checked[root, key], set[str]()
            above: str | None = own_id
            while above is not None and above not in known:
                if above in path:
                    raise ValidationError(
                        f"{name} {own_id} cannot be below itself: its {key} leads back to it."
                    )
                path.add(above)
                above = self._transaction.value(root, "id", above, key)
            known |= path
