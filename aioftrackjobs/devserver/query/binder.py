"""Resolving the names in a query: a path becomes relations to follow, and the value at its end.

Each path is resolved once, before any SQL is made for it; the compiler gets no names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aioftrackjobs.devserver.api_errors import ValidationError
from aioftrackjobs.devserver.query.ast import Path, Step
from aioftrackjobs.devserver.schema.model import Attribute, EntityType, Model, Relation

#: Each step is a query inside a query, of which SQLite's parser takes few.
_LONGEST_PATH = 11


@dataclass(frozen=True, slots=True)
class Hop:
    """One relation that a path follows.

    Attributes:
        target: The type of the entities that it leads to, after the cast if there is one.
    """

    relation: Relation
    target: EntityType
    is_cast: bool


@dataclass(frozen=True, slots=True)
class BoundPath:
    """A path to one value.

    Attributes:
        hops: The relations to follow.
        attribute: Where the value is stored; for a relation, the key that it is stored by.
        through: A relation without a key of its own that leads to the entity with *attribute*.
    """

    hops: tuple[Hop, ...]
    attribute: Attribute
    through: Hop | None = None


def bound_relations(model: Model, entity_type: EntityType, path: Sequence[Step]) -> tuple[Hop, ...]:
    """Return the relations that *path* follows from *entity_type*."""
    _check_length(path)
    hops = list[Hop]()
    for step in path:
        hops.append(bound_step(model, entity_type, step))
        entity_type = hops[-1].target
    return tuple(hops)


def bound_value(model: Model, entity_type: EntityType, path: Path) -> BoundPath:
    """Return the value that *path* leads to from *entity_type*."""
    _check_length(path)
    *before, last = path
    hops = bound_relations(model, entity_type, before)
    if hops:
        entity_type = hops[-1].target
    owner = model.type_with(entity_type, last.name)
    attribute = owner.attributes.get(last.name)
    if attribute is not None and not attribute.hidden:
        if last.cast is not None:
            raise cannot_be_cast(entity_type, last)
        return BoundPath(hops, attribute)
    if last.name in owner.computed and last.name not in owner.relations:
        raise ValidationError(
            f"'{last.name}' of {owner.name} is computed and cannot be used in criteria."
        )
    hop = bound_step(model, entity_type, last)
    if hop.relation.latest_by is not None:
        return BoundPath(hops, hop.target.attributes[hop.target.primary_key[0]], hop)
    if hop.relation.key is None:
        test = "any" if hop.relation.many else "has"
        raise ValidationError(
            f"'{last.name}' has no single value to compare: test what it leads to, by "
            f"'{last.name} {test} (...)'."
        )
    return BoundPath(hops, owner.attributes[hop.relation.key])


def bound_step(model: Model, entity_type: EntityType, step: Step) -> Hop:
    """Return the relation of one *step*, to its target narrowed by the cast."""
    owner = model.type_with(entity_type, step.name)
    relation = owner.relations.get(step.name)
    if relation is None:
        raise no_relation(entity_type, step) if owner.has(step.name) else owner.unknown(step.name)
    target = model.type(step.cast or relation.target)
    if target.root != model.types[relation.target].root:
        raise ValidationError(
            f"'{step.name}' leads to {relation.target}, which cannot be cast to {target.name}."
        )
    return Hop(relation, target, step.cast is not None)


def _check_length(path: Sequence[Step]) -> None:
    if len(path) > _LONGEST_PATH:
        raise ValidationError(f"A path has more than {_LONGEST_PATH} steps.")


def cannot_be_cast(entity_type: EntityType, step: Step) -> ValidationError:
    """Return the error for the cast of what is no relation."""
    return ValidationError(
        f"'{step.name}' of {entity_type.name} is no relation, it cannot be cast."
    )


def no_relation(entity_type: EntityType, step: Step) -> ValidationError:
    """Return the error for a path that goes on behind what is no relation."""
    return ValidationError(
        f"'{step.name}' of {entity_type.name} is no relation, nothing follows it."
    )
