"""Answers to creations that stand inside the answer for what they belong to.

A real server tells the locations of a new component with the component, and answers their own
creation with a bare reference (protocol reference, section 3.5, the recorded upload). Of other
relations no such answer is known; clients ask for those when they want them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aioftrackjobs.devserver.schema.model import EntityType, Model
from aioftrackjobs.devserver.schema.quirks import EMBEDDED

Entity = dict[str, Any]


class Embedding:
    """Collects what a batch creates, and puts members into their owners at its end."""

    def __init__(self, model: Model) -> None:
        #: By entity type of the members: the relation, and the key that names the owner.
        self._joined = {
            relation.target: (name, relation.pairs[0][1])
            for entity_type in model.types.values()
            for name in EMBEDDED & entity_type.relations.keys()
            if len((relation := entity_type.relations[name]).pairs) == 1
        }
        #: By id: the answer for an owner, and how many members were created before it.
        self._owners: dict[str, tuple[Entity, int]] = {}
        #: By id: the row of a member, and the answer for it.
        self._members: dict[str, tuple[EntityType, Mapping[str, Any], Entity]] = {}

    def add(self, entity_type: EntityType, row: Mapping[str, Any], answer: Entity) -> None:
        """Take in the *answer* for an entity that was created."""
        if entity_type.name in self._joined:
            self._members[row["id"]] = (entity_type, row, answer)
        elif EMBEDDED & entity_type.relations.keys() - answer.keys():
            self._owners[row["id"]] = (answer, len(self._members))

    def forget(self, key: str) -> None:
        """Leave out an entity that is deleted again."""
        self._owners.pop(key, None)
        self._members.pop(key, None)

    def place(self, *, repeats: bool) -> None:
        """Put all members into their owners.

        Args:
            repeats: Whether a member is told whole in both places. Otherwise it is in the
                first one only, and a reference in the other.
        """
        for number, (entity_type, row, answer) in enumerate(self._members.values()):
            name, key = self._joined[entity_type.name]
            if row.get(key) not in self._owners:
                continue
            owner, first = self._owners[row[key]]
            parts = ("__entity_type__", *entity_type.primary_key)
            reference = {part: answer[part] for part in parts}
            whole = dict(answer)
            if not repeats and number >= first:
                answer.clear()
                answer |= reference
            embedded = whole if repeats or number >= first else reference
            owner.setdefault(name, []).append(embedded)
