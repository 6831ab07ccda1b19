"""The syntax tree of a query (protocol reference, section 4.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Step:
    """One name of a path; *cast* narrows a relation to a subtype, ``parent[TypedContext]``."""

    name: str
    cast: str | None = None


Path: TypeAlias = tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Literal:
    """A value as written; *text* keeps its backslashes, whose meaning the operator decides."""

    text: str
    quoted: bool

    @property
    def is_null(self) -> bool:
        """Whether it is the bare word for nothing."""
        return not self.quoted and self.text.lower() in {"none", "null"}


@dataclass(frozen=True, slots=True)
class Comparison:
    """``path operator value``; the operator under its shortest name, as ``is`` or ``<``."""

    path: Path
    operator: str
    value: Literal


@dataclass(frozen=True, slots=True)
class Membership:
    """``path in (...)``, negated for ``not_in``."""

    path: Path
    values: tuple[Literal, ...] | Query
    negated: bool


@dataclass(frozen=True, slots=True)
class RelationTest:
    """``path any (...)`` or ``path has (...)``; no criteria where the parentheses are empty."""

    path: Path
    criteria: Expression | None


@dataclass(frozen=True, slots=True)
class Not:
    """Negation."""

    operand: Expression


@dataclass(frozen=True, slots=True)
class And:
    """All of them."""

    operands: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """Any of them."""

    operands: tuple[Expression, ...]


Expression: TypeAlias = Comparison | Membership | RelationTest | Not | And | Or


@dataclass(frozen=True, slots=True)
class Aggregate:
    """``count(path)`` and its like, for queries that group."""

    function: str
    path: Path


@dataclass(frozen=True, slots=True)
class Ordering:
    """One key to sort by."""

    path: Path
    descending: bool


@dataclass(frozen=True, slots=True)
class Query:
    """A whole query; None where a clause is not written."""

    entity_type: str
    projections: tuple[Path | Aggregate, ...] | None = None
    criteria: Expression | None = None
    group_by: tuple[Path, ...] = ()
    order_by: tuple[Ordering, ...] = ()
    offset: int | None = None
    limit: int | None = None
