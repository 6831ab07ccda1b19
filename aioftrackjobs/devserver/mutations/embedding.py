"""Results of creates that are embedded in the result for their owner.

A real server sends the locations of a new component with the component, and a bare reference as
the result of their own creation (docs/protocol.md, section 3.5, the recorded upload). For other
relations this is not known; clients query those when they need them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from aioftrackjobs.devserver.schema.model import EntityType, Model
from aioftrackjobs.devserver.schema.quirks import EMBEDDED_RELATIONS

Entity = dict[str, Any]


class Created(NamedTuple):
    """An entity that a batch has created: its row, and the result for it."""

    entity_type: EntityType
    row: Mapping[str, Any]
    result: Entity


def embed(model: Model, created: Mapping[tuple[str, ...], Created], *, repeats: bool) -> None:
    """Put the results for members into those for their owners.

    Args:
        model: The model.
        created: What a batch has created and not deleted, by key and in order.
        repeats: Whether a member is sent whole in both places. Otherwise it is whole in the first
            one, and a reference in the other.
    """
    if not created:
        return
    joined = {
        relation.target: (name, relation.pairs[0][1])
        for entity_type in model.types.values()
        for name in EMBEDDED_RELATIONS & entity_type.relations.keys()
        if len((relation := entity_type.relations[name]).pairs) == 1
    }
    members = [key for key, each in created.items() if each.entity_type.name in joined]
    if not members:
        return
    order = {key: number for number, key in enumerate(created)}
    sent = {key: set(each.result) for key, each in created.items()}
    for own in members:
        entity_type, row, result = created[own]
        name, column = joined[entity_type.name]
        key = (row.get(column, ""),)
        if key not in created or name in sent[key]:
            continue
        parts = ("__entity_type__", *entity_type.primary_key)
        reference, whole = {part: result[part] for part in parts}, dict(result)
        owner_is_first = order[key] < order[own]
        if owner_is_first and not repeats:
            result.clear()
            result |= reference
        embedded = whole if repeats or owner_is_first else reference
        created[key].result.setdefault(name, []).append(embedded)
