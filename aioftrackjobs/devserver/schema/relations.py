"""How relations are stored, derived from schema documents.

``user`` of a Job is stored in its ``user_id``; ``job_components`` are the JobComponents whose
``job_id`` is the Job's id. Documents do not declare that; it is derived from names, foreign keys
and targets.

Along relations the database derives values from others, such as the time logged on a task, and
whether a version is the latest of its asset. They are stored, so that queries can use them like
any other value; clients cannot write them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from aioftrackjobs.devserver.schema import quirks
from aioftrackjobs.devserver.schema.inheritance import aliases_of, foreign_key_target
from aioftrackjobs.devserver.schema.model import (
    SCALAR_TYPES,
    Attribute,
    EntityType,
    Link,
    Model,
    Relation,
    Series,
)

_TREES = {"ancestors": "up", "descendants": "down"}
_LATEST = "latest_"


def resolve_relations(model: Model) -> None:
    """Add the relations of all types of *model*, those to one entity first."""
    for entity_type in model.types.values():
        for name, fragment in entity_type.document["properties"].items():
            if is_reference(fragment) and fragment["$ref"] in model.types:
                relation = _to_one(model, entity_type, name, fragment)
                entity_type.relations[name] = relation
                other_name = quirks.RELATION_ALIASES.get((entity_type.name, name), name)
                entity_type.relations.setdefault(other_name, relation)
    for entity_type in model.types.values():
        for name, fragment in entity_type.document["properties"].items():
            target = fragment.get("items", {}).get("$ref")
            if target in model.types:
                entity_type.relations[name] = _to_many(model, entity_type, name, target)
    _resolve_shared_rows(model)


def is_reference(fragment: Mapping[str, Any]) -> bool:
    """Return whether a property is a relation to one entity, and not the key of one."""
    return "$ref" in fragment and fragment.get("type") not in SCALAR_TYPES


def _to_one(
    model: Model, entity_type: EntityType, name: str, fragment: Mapping[str, Any]
) -> Relation:
    target = model.types[fragment["$ref"]]
    pairs: tuple[tuple[str, str], ...] = ()
    if name in entity_type.computed:
        return _latest(model, entity_type, name, target)
    if len(target.primary_key) > 1:
        pairs = _composite_pairs(entity_type, target)
    else:
        pairs = ((_key_attribute(model, entity_type, name, target), target.primary_key[0]),)
    return Relation(name, target.name, many=False, pairs=pairs)


def _latest(model: Model, owner: EntityType, name: str, target: EntityType) -> Relation:
    """Return the relation to the latest of a series.

    ``latest_version`` of an Asset is the AssetVersion with the highest ``version``.
    """
    number = name.removeprefix(_LATEST)
    back = _back_reference(model, owner, name, target)
    if not name.startswith(_LATEST) or number not in target.attributes or back is None:
        return Relation(name, target.name, many=False)
    target.series = Series(number, back, owner.name, f"is_{name}")
    return Relation(
        name, target.name, many=False, pairs=((owner.primary_key[0], back),), latest_by=number
    )


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
    for other in (name, *aliases_of(entity_type.document, name)):
        if f"{other}_id" in entity_type.attributes:
            return f"{other}_id"
    if _has_open_ends(entity_type) and name != "configuration":
        return "from_id" if entity_type.name.endswith("From") else "to_id"
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


def _has_open_ends(entity_type: EntityType) -> bool:
    ends = [entity_type.attributes.get(name) for name in ("from_id", "to_id")]
    return all(end is not None and not end.references for end in ends)


def _to_many(model: Model, owner: EntityType, name: str, target_name: str) -> Relation:
    wider = quirks.WIDER_TARGETS.get((owner.name, name))
    target_name = wider if wider in model.types else target_name
    target = model.types[target_name]
    narrowed = quirks.NARROWED_COLLECTIONS.get((target_name, name))
    key = owner.primary_key[0]
    if len(owner.primary_key) > 1:
        return Relation(name, target_name, many=True)
    is_tree = owner.root == target.root and {"id", "parent_id"} <= target.attributes.keys()
    if name in _TREES and is_tree:
        return Relation(name, target_name, many=True, tree=_TREES[name])
    back = _back_reference(model, owner, name, target)
    if back is None and (link := _link(model, owner, name, target)):
        return Relation(name, target_name, many=True, link=link)
    back = back or _family_reference(model, owner, target)
    if back is None:
        return Relation(name, target_name, many=True, link=_own_link(owner, name, target))
    return Relation(name, target_name, many=True, pairs=((key, back),), only=narrowed)


def _own_link(owner: EntityType, name: str, target: EntityType) -> Link | None:
    """Return a link that is in no document, for relations that clients use nevertheless.

    The scopes of a task, or the security roles that may read a custom attribute, have no key on
    either side, nor a third type.
    """
    if name in owner.computed or owner.primary_key != ("id",) or target.primary_key != ("id",):
        return None
    return Link(f"_{owner.root}_{name}", "owner_id", "member_id", hidden=True)


def _link(model: Model, owner: EntityType, name: str, target: EntityType) -> Link | None:
    """Return the link by which entities of a third type join *owner* and *target*, if any.

    Such a type has both keys as its primary key; or it has one of them, and a bare ``entity_id``
    for the other.
    """
    if name in quirks.LINKED_RELATIONS and quirks.LINKED_RELATIONS[name][0] in model.types:
        return Link(*quirks.LINKED_RELATIONS[name])
    for joining in model.types.values():
        here, there = _end(model, joining, owner), _end(model, joining, target)
        if {here, there} == set(joining.primary_key) and here and there:
            return Link(joining.name, here, there)
        bare = joining.attributes.get("entity_id")
        if bare is not None and not bare.references and joining.primary_key == ("id",):
            if here and not there:
                return Link(joining.name, here, "entity_id")
            if there and not here:
                return Link(joining.name, "entity_id", there)
    return None


def _end(model: Model, joining: EntityType, target: EntityType) -> str | None:
    for key in joining.attributes.values():
        if key.references and not key.hidden and model.related(key.references, target.name):
            return key.name
    return None


def _back_reference(model: Model, owner: EntityType, name: str, target: EntityType) -> str | None:
    """Return the attribute of *target* that names an entity of type *owner*."""
    if _has_open_ends(target):
        return "to_id" if name.endswith("_from") else "from_id"
    candidates = [key for key in _keys(target) if model.related(key.references or "", owner.name)]
    if not candidates:
        generic = {"parent_id", "parent_type"} <= target.attributes.keys()
        return "parent_id" if generic else None
    end = quirks.LINK_ENDS.get(name.partition("_")[0])
    candidates.sort(
        key=lambda attribute: (
            end is not None and attribute.name != f"{end}_id",
            name == "children" and attribute.name != "parent_id",
            attribute.references != owner.name,
        )
    )
    return candidates[0].name


def _family_reference(model: Model, owner: EntityType, target: EntityType) -> str | None:
    """Return the attribute of *target* that names an entity of the family of *owner*.

    The members of a SequenceComponent name a ContainerComponent.
    """
    keys = (
        key.name for key in _keys(target) if model.types[key.references or ""].root == owner.root
    )
    return next(keys, None)


def _keys(target: EntityType) -> list[Attribute]:
    own = target.primary_key if len(target.primary_key) == 1 else ()
    return [key for key in target.attributes.values() if key.references and key.name not in own]


def _resolve_shared_rows(model: Model) -> None:
    """Find the types that share rows, and the key by which each finds its members."""
    for entity_type in model.types.values():
        _copy_values(model, entity_type)
        if len(entity_type.lineage) == 1 or entity_type.discriminators:
            continue
        base = model.types[entity_type.lineage[1]]
        entity_type.member_key = _member_key(base, entity_type)
        for relation in entity_type.relations.values():
            if not relation.many and {"from_id", "to_id"} <= base.attributes.keys():
                # Criteria on links name their ends on the general type.
                base.relations.setdefault(relation.name, relation)
        family = model.family(entity_type.root)
        for member in family:
            member.shared = True
            member.concrete = frozenset(each.name for each in family)


def _member_key(base: EntityType, entity_type: EntityType) -> tuple[str, str] | None:
    """Return the key that *entity_type* adds to its base, and what it names."""
    for name, attribute in entity_type.attributes.items():
        known = base.attributes.get(name)
        if attribute.references and (known is None or not known.references):
            return name, attribute.references
    for relation in entity_type.relations.values():
        if relation.name not in base.document["properties"] and relation.pairs:
            return relation.pairs[0][0], relation.target
    return None


def _copy_values(model: Model, entity_type: EntityType) -> None:
    """Find out whether values copy the ``key`` of their configuration."""
    configuration = entity_type.relations.get("configuration")
    if configuration is None or configuration.key is None or "key" not in entity_type.attributes:
        return
    if {"id", "key"} <= model.types[configuration.target].attributes.keys():
        entity_type.copied["key"] = (configuration.key, configuration.target)


def add_derived_attributes(model: Model) -> None:
    """Make the types of *model* store values that documents only declare computed or immutable."""
    for entity_type in model.types.values():
        attributes = entity_type.attributes
        for name in quirks.SUMS.keys() & entity_type.computed:
            members, summed = quirks.SUMS[name]
            relation = entity_type.relations.get(members)
            target = model.types.get(relation.target if relation is not None else "")
            if relation is None or target is None or not relation.pairs or not target.has(summed):
                continue
            entity_type.sums[name] = (target.root, relation.pairs[0][1], summed)
            attributes[name] = Attribute(name, "number", derived=True)
        for name in quirks.DIFFERENCES.keys() & entity_type.computed:
            one, other = quirks.DIFFERENCES[name]
            if {one, other} <= attributes.keys():
                formula = f'coalesce("{one}", 0) - "{other}"'
                attributes[name] = Attribute(name, "number", derived=True, formula=formula)
        for name, fragment in entity_type.document["properties"].items():
            other = quirks.OTHER_NAMES.get(fragment.get("alias_for", ""), "")
            if other and name in attributes and other not in entity_type.document["properties"]:
                copy = replace(attributes[name], name=other, derived=True, formula=f'"{name}"')
                attributes[other] = replace(copy, default=None, aliases=())
        flag = entity_type.series.flag if entity_type.series is not None else ""
        if flag in attributes:
            attributes[flag] = replace(attributes[flag], derived=True)
    # The columns of a family are the same: what is derived for one of its types is so for all.
    derived = {
        (entity_type.root, name): attribute
        for entity_type in model.types.values()
        for name, attribute in entity_type.attributes.items()
        if attribute.derived
    }
    for entity_type in model.types.values():
        for name in entity_type.attributes:
            attribute = derived.get((entity_type.root, name))
            if attribute is not None:
                entity_type.attributes[name] = attribute
