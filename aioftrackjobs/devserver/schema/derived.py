"""Values that the database computes from others.

Stored, they are found, sorted and counted by like any other value: the time logged on a task,
and whether a version is the latest of its asset. Clients cannot write them.
"""

from __future__ import annotations

from dataclasses import replace

from aioftrackjobs.devserver.schema.model import Attribute, EntityType, Model
from aioftrackjobs.devserver.schema.quirks import DIFFERENCES, SUMS


def add_derived_attributes(model: Model) -> None:
    """Make the types of *model* store values that documents only declare computed or immutable."""
    for entity_type in model.types.values():
        attributes = entity_type.attributes
        for name in SUMS.keys() & entity_type.computed:
            if summed_by(model, entity_type, name) is not None:
                attributes[name] = Attribute(name, "number", derived=True)
        for name in DIFFERENCES.keys() & entity_type.computed:
            one, other = DIFFERENCES[name]
            if {one, other} <= attributes.keys():
                formula = f'coalesce("{one}", 0) - "{other}"'
                attributes[name] = Attribute(name, "number", derived=True, formula=formula)
        flag = entity_type.series.flag if entity_type.series is not None else ""
        if flag in attributes:
            attributes[flag] = replace(attributes[flag], derived=True)


def summed_by(model: Model, entity_type: EntityType, name: str) -> tuple[str, str, str] | None:
    """Return the source of the sum *name*: a table, its key of the owner, and the attribute."""
    members, attribute = SUMS[name]
    relation = entity_type.relations.get(members)
    if relation is None or not relation.pairs:
        return None
    target = model.types[relation.target]
    return (target.root, relation.pairs[0][1], attribute) if target.has(attribute) else None
