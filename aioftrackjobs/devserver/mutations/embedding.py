"""Results of creates that are embedded in the result for their owner.

A real server sends the locations of a new component with the component, and a bare reference as
the result of their own creation (docs/protocol.md, section 3.5, the recorded upload). For other
relations this is not known; clients query those when they need them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aioftrackjobs.devserver.schema.model import EntityType, Model
from aioftrackjobs.devserver.schema.quirks import EMBEDDED_RELATIONS

Entity = dict[str, Any]


class Embedding:
    """Collects the results of a batch's creates, and embeds members in owners at its end."""

    def __init__(self, model: Model) -> None:
        #: By entity type of the members: the relation, and the key that names the owner.
        self._joined = {
            relation.target: (name, relation.pairs[0][1])
            for entity_type in model.types.values()
            for name in EMBEDDED_RELATIONS & entity_type.relations.keys()
            if len((relation := entity_type.relations[name]).pairs) == 1
        }
        #: By id: the result for an owner, and how many members were created before it.
        self._owners: dict[str, tuple[Entity, int]] = {}
        #: By id: the row of a member, and the result for it.
        self._members: dict[str, tuple[EntityType, Mapping[str, Any], Entity]] = {}

    def add(self, entity_type: EntityType, row: Mapping[str, Any], result: Entity) -> None:
        """Add the *result* for an entity that was created."""
        if entity_type.name in self._joined:
            self._members[row["id"]] = (entity_type, row, result)
        elif EMBEDDED_RELATIONS & entity_type.relations.keys() - result.keys():
            self._owners[row["id"]] = (result, len(self._members))

    def remove(self, key: str) -> None:
        """Remove an entity that was deleted again."""
        self._owners.pop(key, None)
        self._members.pop(key, None)

    def place(self, *, repeats: bool) -> None:
        """Put all members into their owners.

        Args:
            repeats: Whether a member is sent whole in both places. Otherwise it is whole in the
                first one, and a reference in the other.
        """
        for number, (entity_type, row, result) in enumerate(self._members.values()):
            name, key = self._joined[entity_type.name]
            if row.get(key) not in self._owners:
                continue
            owner, first = self._owners[row[key]]
            parts = ("__entity_type__", *entity_type.primary_key)
            reference = {part: result[part] for part in parts}
            whole = dict(result)
            if not repeats and number >= first:
                result.clear()
                result |= reference
            embedded = whole if repeats or number >= first else reference
            owner.setdefault(name, []).append(embedded)
