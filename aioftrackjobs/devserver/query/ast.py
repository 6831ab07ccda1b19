"""The syntax tree of a query (docs/protocol.md, section 4.2)."""

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
    """A value as written; *text* keeps its backslashes, which the operator interprets."""

    text: str
    quoted: bool

    @property
    def is_null(self) -> bool:
        """Whether it is the bare word ``none`` or ``null``."""
        return not self.quoted and self.text.lower() in {"none", "null"}


@dataclass(frozen=True, slots=True)
class Comparison:
    """``path operator value``; the operator by its shortest name, as ``is`` or ``<``."""

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
    """Conjunction."""

    operands: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """Disjunction."""

    operands: tuple[Expression, ...]


Expression: TypeAlias = Comparison | Membership | RelationTest | Not | And | Or


@dataclass(frozen=True, slots=True)
class Aggregate:
    """A function of a path, such as ``count(path)``, for queries that group."""

    function: str
    path: Path


@dataclass(frozen=True, slots=True)
class Ordering:
    """One key to sort by; a function only where the query groups."""

    path: Path | Aggregate
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


#: Levels of parentheses that a query inside a query counts as.
_WEIGHT = 5


def is_deeper(query: Query, limit: int) -> bool:
    """Return whether *query* is nested more than *limit* levels deep.

    Relations weigh more, and each step of a path is one: they become queries inside queries,
    of which a database takes few. It works without recursion, so that no depth can exhaust
    the stack.
    """
    waiting: list[tuple[Expression | Query | None, int]] = [(query, 0)]
    while waiting:
        node, depth = waiting.pop()
        children: tuple[Expression | Query | None, ...] = ()
        match node:
            case Query(criteria=criteria):
                children = (criteria,)
            case Comparison(path=path):
                depth += _WEIGHT * (len(path) - 1)
            case Membership(path=path, values=values):
                depth += _WEIGHT * len(path)
                children = (values,) if isinstance(values, Query) else ()
            case RelationTest(path=path, criteria=criteria):
                depth += _WEIGHT * len(path)
                children = (criteria,)
            case And(operands=children) | Or(operands=children):
                depth += 2
            case Not(operand=operand):
                depth += 1
                children = (operand,)
        if depth > limit:
            return True
        waiting.extend((child, depth) for child in children)
    return False
