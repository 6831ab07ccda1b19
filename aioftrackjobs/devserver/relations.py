"""How relations are stored, worked out from schema documents.

``user`` of a Job is stored in its ``user_id``; ``job_components`` are the JobComponents whose
``job_id`` is the Job's id. Documents do not say so: names, foreign keys and targets do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aioftrackjobs.devserver.families import foreign_key_target
from aioftrackjobs.devserver.model import SCALAR_TYPES, Attribute, EntityType, Model, Relation

#: Collections of one type that differ by a word in the members, not by a key.
_NARROWED = {
    ("Appointment", "allocations"): ("type", "allocation"),
    ("Appointment", "assignments"): ("type", "assignment"),
}
#: Which end of a link between two entities of one type a collection stands at.
_LINK_ENDS = {"incoming": "to", "outgoing": "from"}


def resolve_relations(model: Model) -> None:
    """Fill in the relations of all types of *model*, single ones first."""
    for entity_type in model.types.values():
        for name, fragment in entity_type.document["properties"].items():
            if is_reference(fragment) and fragment["$ref"] in model.types:
                entity_type.relations[name] = _to_one(model, entity_type, name, fragment)
    for entity_type in model.types.values():
        for name, fragment in entity_type.document["properties"].items():
            target = fragment.get("items", {}).get("$ref")
            if target in model.types:
                entity_type.relations[name] = _to_many(model, entity_type, name, target)


def is_reference(fragment: Mapping[str, Any]) -> bool:
    """Return whether a property is a relation to one entity, and not a key that says to what."""
    return "$ref" in fragment and fragment.get("type") not in SCALAR_TYPES


def _to_one(
    model: Model, entity_type: EntityType, name: str, fragment: Mapping[str, Any]
) -> Relation:
    target = model.types[fragment["$ref"]]
    pairs: tuple[tuple[str, str], ...] = ()
    if len(target.primary_key) > 1:
        pairs = _composite_pairs(entity_type, target)
    elif name not in entity_type.computed:
        pairs = ((_key_attribute(model, entity_type, name, target), target.primary_key[0]),)
    return Relation(name, target.name, many=False, pairs=pairs)


def _composite_pairs(entity_type: EntityType, target: EntityType) -> tuple[tuple[str, str], ...]:
    pairs = []
    for name, fragment in entity_type.document["properties"].items():
        there = foreign_key_target(fragment)
        if there and there[0] == target.name and there[1] in target.primary_key:
            pairs.append((name, there[1]))
    return tuple(pairs) if len(pairs) == len(target.primary_key) else ()


def _key_attribute(model: Model, entity_type: EntityType, name: str, target: EntityType) -> str:
    """Return the attribute that stores the relation *name*, adding a hidden one if none does."""
    own = f"{name}_id"
    if own in entity_type.attributes:
        return own
    properties = entity_type.document["properties"]
    for attribute in entity_type.attributes.values():
        taken = is_reference(properties.get(attribute.name.removesuffix("_id"), {}))
        if not attribute.references or attribute.hidden or taken:
            continue
        if model.related(attribute.references, target.name):
            return attribute.name
    entity_type.attributes[own] = Attribute(
        own, "string", format="foreign_key", references=target.name, hidden=True
    )
    return own


def _to_many(model: Model, owner: EntityType, name: str, target_name: str) -> Relation:
    target = model.types[target_name]
    narrowed = _NARROWED.get((target_name, name))
    key = owner.primary_key[0]
    back = _way_back(model, owner, name, target)
    if back is None or len(owner.primary_key) > 1:
        return Relation(name, target_name, many=True)
    return Relation(name, target_name, many=True, pairs=((key, back),), only=narrowed)


def _way_back(model: Model, owner: EntityType, name: str, target: EntityType) -> str | None:
    """Return the attribute of *target* that holds the key of an entity of type *owner*.

    Where none points at the owner's own line, one that points into its family will do: the
    members of a SequenceComponent name a ContainerComponent.
    """
    keys = [attribute for attribute in target.attributes.values() if attribute.references]
    candidates = [key for key in keys if model.related(key.references or "", owner.name)] or [
        key for key in keys if model.root(key.references or "").name == owner.root
    ]
    if len(target.primary_key) == 1:
        candidates = [key for key in candidates if key.name not in target.primary_key]
    if not candidates:
        generic = {"parent_id", "parent_type"} <= target.attributes.keys()
        return "parent_id" if generic else None
    end = _LINK_ENDS.get(name.partition("_")[0])
    candidates.sort(
        key=lambda attribute: (
            end is not None and attribute.name != f"{end}_id",
            name == "children" and attribute.name != "parent_id",
            attribute.references != owner.name,
        )
    )
    return candidates[0].name
