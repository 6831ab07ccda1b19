"""The model of the served schemas: entity types, their attributes and relations.

A document names relations but not how they are stored. The model resolves that once, when it is
loaded, in :mod:`inheritance` and :mod:`relations`. All other code uses the model, and treats no
entity type specially where a document has the information.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from aioftrackjobs.devserver.api_errors import unknown_name

SCALAR_TYPES = frozenset({"string", "boolean", "integer", "number", "variable"})


@dataclass(frozen=True, slots=True)
class Attribute:
    """One stored value of an entity type.

    Attributes:
        references: Entity type that a foreign key points at; None for other values.
        aliases: Attributes with the same value under other names.
        derived: The database computes it from others; clients cannot write it.
        formula: SQL that computes it, if that needs its own row only.
        hidden: It is not in the document: it stores a relation without a key of its own.
    """

    name: str
    type: str
    format: str | None = None
    default: Any = None
    enum: tuple[str, ...] | None = None
    references: str | None = None
    aliases: tuple[str, ...] = ()
    derived: bool = False
    formula: str | None = None
    hidden: bool = False

    @property
    def is_datetime(self) -> bool:
        """Whether the value is a date with time."""
        return self.format == "date-time"


@dataclass(frozen=True, slots=True)
class Link:
    """Entities of a type of their own that join two others, such as the objects of a list.

    Attributes:
        entity_type: Type of the joining entities, or name of a hidden table.
        here: Attribute of the joining entity with the key of the entity where the relation starts.
        there: The same for the entity that it leads to.
        hidden: No type in the documents joins them, so a table without a type does.
    """

    entity_type: str
    here: str
    there: str
    hidden: bool = False


@dataclass(frozen=True, slots=True)
class Series:
    """The numbering of the entities that belong to one owner, such as versions of an asset.

    Attributes:
        number: Attribute with the number.
        owner: Attribute with the key of the owner.
        owner_type: Entity type of the owner.
        flag: Attribute that marks the latest, if the type has it.
    """

    number: str
    owner: str
    owner_type: str
    flag: str


@dataclass(frozen=True, slots=True)
class Relation:
    """A relation from an entity to others, stored by ``pairs``, by ``link`` or in a tree.

    Attributes:
        pairs: Attributes that must be equal, (here, there).
        only: An attribute of the target and the value that members have.
        latest_by: The relation leads only to the entity with the highest value of this attribute.
        tree: ``up`` for all ancestors along ``parent_id``, ``down`` for all descendants.
    """

    name: str
    target: str
    many: bool
    pairs: tuple[tuple[str, str], ...] = ()
    only: tuple[str, str] | None = None
    latest_by: str | None = None
    link: Link | None = None
    tree: str | None = None

    @property
    def resolved(self) -> bool:
        """Whether it is known how it is stored; otherwise it always leads to nothing."""
        return bool(self.pairs or self.link or self.tree)

    @property
    def key(self) -> str | None:
        """The attribute that stores it; None if others, or several attributes, store it."""
        is_stored = not self.many and self.latest_by is None and len(self.pairs) == 1
        return self.pairs[0][0] if is_stored else None

    @property
    def writable(self) -> bool:
        """Whether clients may write it; otherwise it follows from other values."""
        if self.many:
            return self.link is not None or len(self.pairs) == 1
        return bool(self.pairs) and self.latest_by is None


@dataclass(slots=True)
class EntityType:
    """One entity type.

    Attributes:
        root: Type whose table holds the entities of this type.
        lineage: This type and the types that it extends, nearest first.
        concrete: Names of this type and of all that extend it.
        discriminators: Values of attributes that distinguish it from others of its family.
        shared: The types of the family share their rows; each type shows its members.
        sums: Attributes that sum an attribute of other entities: their table, their key of the
            owner, and the attribute.
        series: How its entities are numbered, if they are.
        member_key: For a type that shares rows: the attribute, and the type of the entity that it
            names in all members.
        copied: Attributes copied from a related entity: the key of the relation, its type.
    """

    name: str
    document: dict[str, Any]
    root: str
    lineage: tuple[str, ...]
    concrete: frozenset[str]
    attributes: dict[str, Attribute]
    relations: dict[str, Relation] = field(default_factory=dict)
    discriminators: dict[str, str] = field(default_factory=dict)
    computed: frozenset[str] = frozenset()
    primary_key: tuple[str, ...] = ("id",)
    required: tuple[str, ...] = ()
    immutable: frozenset[str] = frozenset()
    default_projections: tuple[str, ...] = ()
    system_projections: tuple[str, ...] = ()
    shared: bool = False
    member_key: tuple[str, str] | None = None
    sums: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    series: Series | None = None
    copied: dict[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def table_name(self) -> str:
        """What servers call its table, which all typed contexts share: ``task``."""
        alias = self.document.get("alias_for")
        name = alias.get("id") if isinstance(alias, dict) else alias
        return str(name or self.name).lower()

    def has(self, name: str) -> bool:
        """Return whether clients may use *name* on this type."""
        attribute = self.attributes.get(name)
        return name in self.document["properties"] or (attribute is not None and attribute.derived)

    def unknown(self, name: str) -> Exception:
        """Return the error for an attribute that this type does not have."""
        properties = self.document["properties"]
        entries = f"Entries are found by their key: 'any (key is \"{name}\")'."
        otherwise = entries if {"key", "value"} <= properties.keys() else ""
        return unknown_name("attribute", name, properties, of=self.name, otherwise=otherwise)


@dataclass(frozen=True, slots=True)
class Model:
    """All entity types that a server serves.

    Attributes:
        ignores_unknown: Attributes that a type does not have are ignored in writes, as by servers
            of another age, and not refused.
    """

    documents: tuple[dict[str, Any], ...]
    types: dict[str, EntityType]
    ignores_unknown: bool = False

    def type(self, name: str) -> EntityType:
        """Return the type called *name*."""
        try:
            return self.types[name]
        except (KeyError, TypeError):
            raise unknown_name("entity type", str(name), self.types) from None

    def root(self, name: str) -> EntityType:
        """Return the type whose table holds the entities of the type called *name*."""
        return self.types[self.types[name].root]

    def relations(self) -> Iterator[tuple[EntityType, Relation]]:
        """Yield the relations of all types, each with its type."""
        for entity_type in self.types.values():
            for relation in entity_type.relations.values():
                yield entity_type, relation

    def link_table(self, link: Link) -> str:
        """Return the name of the table that holds the joining entities of *link*."""
        return link.entity_type if link.hidden else self.types[link.entity_type].root

    def family(self, root: str) -> list[EntityType]:
        """Return all types that share the table of *root*, in document order."""
        return [entity_type for entity_type in self.types.values() if entity_type.root == root]

    def type_with(self, entity_type: EntityType, name: str) -> EntityType:
        """Return *entity_type* if it has *name*, else the first of its subtypes that does.

        Queries name attributes of subtypes on general types: ``resource.username``.
        """
        if name in entity_type.relations or entity_type.has(name):
            return entity_type
        for each in self.types.values():
            if each.name in entity_type.concrete and each.has(name):
                return each
        return entity_type

    def related(self, one: str, other: str) -> bool:
        """Return whether one of the two types extends the other, or both are the same."""
        return other in self.types[one].lineage or one in self.types[other].lineage
