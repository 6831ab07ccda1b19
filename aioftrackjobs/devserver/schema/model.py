"""Schema documents, resolved: which types exist, what they hold and how they are related.

A document names relations but not how they are stored. What it leaves open is settled once,
when a :class:`Model` is made, in :mod:`families` and :mod:`relations`; everything above works
on the result, and no entity type is special where a document can say it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from aioftrackjobs.devserver.api_errors import unknown_name

SCALAR_TYPES = frozenset({"string", "boolean", "integer", "number", "variable"})


@dataclass(frozen=True, slots=True)
class Attribute:
    """One stored value of an entity type.

    Attributes:
        references: Entity type that a foreign key points at; None for other values.
        namesakes: Attributes that are the same value under other names.
        kept: The database keeps it up to date (:mod:`derived`); nobody else writes it.
        formula: SQL that it follows from, if that only takes its own row.
        hidden: The document does not show it: it stores a relation that has no key of its own.
    """

    name: str
    type: str
    format: str | None = None
    default: Any = None
    enum: tuple[str, ...] | None = None
    references: str | None = None
    namesakes: tuple[str, ...] = ()
    kept: bool = False
    formula: str | None = None
    hidden: bool = False

    @property
    def is_datetime(self) -> bool:
        """Whether the value is a point in time."""
        return self.format == "date-time"


@dataclass(frozen=True, slots=True)
class Link:
    """Entities of a type of their own that join two others, such as the objects of a list.

    Attributes:
        entity_type: Type of the joining entities, or the name of a table of ours.
        here: Attribute of the joining entity that holds the key of where the relation starts.
        there: The same for where it leads.
        hidden: No type of the documents joins them, so a table of ours does.
    """

    entity_type: str
    here: str
    there: str
    hidden: bool = False


@dataclass(frozen=True, slots=True)
class Series:
    """What numbers the entities of a type that belong to one owner: versions of an asset.

    Attributes:
        number: Attribute that has the number.
        owner: Attribute that holds the key of the owner.
        owner_type: Entity type of the owner.
        flag: Attribute that says which one is the latest, where the type has it.
    """

    number: str
    owner: str
    owner_type: str
    flag: str


@dataclass(frozen=True, slots=True)
class Relation:
    """A way from an entity to others; readable by ``pairs``, by ``link`` or along a tree.

    Attributes:
        pairs: Attributes that must be equal, (here, there).
        only: An attribute of the target and the value it must have to belong.
        highest: Leads to one of all that match: where this attribute has its highest value.
        tree: ``up`` for all ancestors along ``parent_id``, ``down`` for all descendants.
    """

    name: str
    target: str
    many: bool
    pairs: tuple[tuple[str, str], ...] = ()
    only: tuple[str, str] | None = None
    highest: str | None = None
    link: Link | None = None
    tree: str | None = None

    @property
    def resolved(self) -> bool:
        """Whether there is a way to follow it; otherwise it always leads to nothing."""
        return bool(self.pairs or self.link or self.tree)

    @property
    def key(self) -> str | None:
        """The attribute that stores it; None for what is stored elsewhere, or in several."""
        is_stored = not self.many and self.highest is None and len(self.pairs) == 1
        return self.pairs[0][0] if is_stored else None

    @property
    def writable(self) -> bool:
        """Whether clients may say where it leads; otherwise that follows from other things."""
        if self.many:
            return self.link is not None or len(self.pairs) == 1
        return bool(self.pairs) and self.highest is None


@dataclass(slots=True)
class EntityType:
    """One entity type.

    Attributes:
        root: Type whose table holds this one's entities.
        lineage: This type and what it extends, nearest first.
        concrete: Names of this type and all that extend it.
        marks: Values of attributes that tell this type from others of its family.
        shared: All types of the family show the same rows, each those that belong to it.
        series: What numbers its entities, for a type that has such a thing.
        belonging: For a type that shares rows: the attribute that names an entity of the given
            type in all rows that belong.
        borrowed: Attributes repeated from a related entity: the key that leads there, its type.
    """

    name: str
    document: dict[str, Any]
    root: str
    lineage: tuple[str, ...]
    concrete: frozenset[str]
    attributes: dict[str, Attribute]
    relations: dict[str, Relation] = field(default_factory=dict)
    marks: dict[str, str] = field(default_factory=dict)
    computed: frozenset[str] = frozenset()
    primary_key: tuple[str, ...] = ("id",)
    required: tuple[str, ...] = ()
    immutable: frozenset[str] = frozenset()
    default_projections: tuple[str, ...] = ()
    system_projections: tuple[str, ...] = ()
    shared: bool = False
    belonging: tuple[str, str] | None = None
    series: Series | None = None
    borrowed: dict[str, tuple[str, str]] = field(default_factory=dict)

    def has(self, name: str) -> bool:
        """Return whether clients may use *name* on this type."""
        return name in self.document["properties"]

    def unknown(self, name: str) -> Exception:
        """Return the refusal of an attribute that this type does not have."""
        properties = self.document["properties"]
        entries = f"Entries are found by their key: 'any (key is \"{name}\")'."
        otherwise = entries if {"key", "value"} <= properties.keys() else ""
        return unknown_name("attribute", name, properties, of=self.name, otherwise=otherwise)


@dataclass(frozen=True, slots=True)
class Model:
    """All entity types that a server serves."""

    documents: tuple[dict[str, Any], ...]
    types: dict[str, EntityType]

    def type(self, name: str) -> EntityType:
        """Return the type called *name*.

        Raises:
            ValidationError: If there is none.
        """
        try:
            return self.types[name]
        except (KeyError, TypeError):
            raise unknown_name("entity type", str(name), self.types) from None

    def root(self, name: str) -> EntityType:
        """Return the type whose table holds the entities of the type called *name*."""
        return self.types[self.types[name].root]

    def link_table(self, link: Link) -> str:
        """Return the name of the table that holds the joining entities of *link*."""
        return link.entity_type if link.hidden else self.root(link.entity_type).name

    def family(self, root: str) -> list[EntityType]:
        """Return all types that share the table of *root*, in document order."""
        return [entity_type for entity_type in self.types.values() if entity_type.root == root]

    def knowing(self, entity_type: EntityType, name: str) -> EntityType:
        """Return *entity_type*, or the first of its subtypes that has *name* where it has not.

        Queries name attributes of subtypes on general types: ``resource.username``.
        """
        if name in entity_type.relations or name in entity_type.document["properties"]:
            return entity_type
        for each in self.types.values():
            if each.name in entity_type.concrete and each.has(name):
                return each
        return entity_type

    def related(self, one: str, other: str) -> bool:
        """Return whether one of the two types extends the other, or both are the same."""
        return other in self.types[one].lineage or one in self.types[other].lineage
