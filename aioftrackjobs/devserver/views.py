"""Types that show rows of another type's table, though nothing in a row says which type it is.

Clients create a ``CustomAttributeValue`` and read it back among the
``ContextCustomAttributeValue``s of a task: it belongs there because its ``entity_id`` names a
context. The same holds for links between entities, which have two ends to be seen from.
"""

from __future__ import annotations

from aioftrackjobs.devserver.model import EntityType, Model


def resolve_views(model: Model) -> None:
    """Have types that share rows know which of them belong to each."""
    for entity_type in model.types.values():
        _borrow(model, entity_type)
        if len(entity_type.lineage) == 1 or entity_type.marks:
            continue
        base = model.types[entity_type.lineage[1]]
        entity_type.belonging = _belonging(base, entity_type)
        for relation in entity_type.relations.values():
            if not relation.many and {"from_id", "to_id"} <= base.attributes.keys():
                # Criteria on links name their ends on the general type.
                base.relations.setdefault(relation.name, relation)
        family = model.family(entity_type.root)
        for member in family:
            member.shared = True
            member.concrete = frozenset(each.name for each in family)


def _belonging(base: EntityType, entity_type: EntityType) -> tuple[str, str] | None:
    """Return the key that *entity_type* adds to its base, and what it names."""
    for name, attribute in entity_type.attributes.items():
        known = base.attributes.get(name)
        if attribute.references and (known is None or not known.references):
            return name, attribute.references
    for relation in entity_type.relations.values():
        if relation.name not in base.document["properties"] and relation.pairs:
            return relation.pairs[0][0], relation.target
    return None


def _borrow(model: Model, entity_type: EntityType) -> None:
    """Find out whether values repeat the ``key`` of the configuration they are for."""
    configuration = entity_type.relations.get("configuration")
    if configuration is None or "key" not in entity_type.attributes:
        return
    if "key" in model.types[configuration.target].attributes:
        entity_type.borrowed["key"] = (configuration.pairs[0][0], configuration.target)
