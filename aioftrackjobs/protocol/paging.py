"""The clauses of a query, and the queries for its pages.

A page that begins at a position, ``offset 500``, is not where it was if rows before it have changed
so that they are not found any more. One that begins after a key, ``id > "..."``, always is.

Source:
    docs/protocol.md, sections 4.2, 4.7 and 4.9.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from aioftrackjobs.errors import MalformedResponseError
from aioftrackjobs.protocol.criteria import Condition, joined
from aioftrackjobs.protocol.query import quote

# Texts, which re compiles when it first needs them.
#: Anchored at the end: there, the words can be neither in a literal, which ends in a quote, nor
#: in a subquery, which ends in a parenthesis.
_PAGING = (
    r"(?i)(?:\s+offset\s+(?P<offset>\d{1,18}))?(?:\s+limit\s+(?P<limit>\d{1,18}))?"
    r"(?:\s+offset\s+(?P<late_offset>\d{1,18}))?\s*$"
)
_LITERAL_OR_WORD = (
    r"""(?s)(?P<literal>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')"""
    r"|(?P<bracket>[()])|(?P<word>[\w+\-.:]+)"
)
_ASCENDING = r"(?i)\s+asc(?:ending)?$"


class PagedExpression(NamedTuple):
    """A query without its paging clauses, and their values."""

    text: str
    offset: int = 0
    limit: int | None = None

    @property
    def expression(self) -> str:
        """The whole query."""
        offset = f" offset {self.offset}" if self.offset else ""
        limit = "" if self.limit is None else f" limit {self.limit}"
        return f"{self.text.rstrip()}{offset}{limit}"


def split_paging(expression: str) -> PagedExpression:
    """Return *expression* with its own ``offset`` and ``limit`` taken off the end."""
    match = re.search(_PAGING, expression)
    if match is None:  # the pattern matches the empty end of any text
        return PagedExpression(expression)
    offset = match["offset"] or match["late_offset"] or 0
    limit = match["limit"]
    return PagedExpression(
        expression[: match.start()], int(offset), None if limit is None else int(limit)
    )


class Clauses(NamedTuple):
    """The parts of a query without paging clauses.

    Attributes:
        projections: The text between ``select`` and ``from``; empty without a ``select``.
        entity_type: The type that is queried.
        criteria: The text after ``where``; empty if there is none.
        order: The text after ``order by``; empty if there is none.
    """

    projections: str
    entity_type: str
    criteria: str
    order: str

    @property
    def text(self) -> str:
        """The whole query."""
        order = f" order by {self.order}" if self.order else ""
        return f"{self._select(self.projections)}{order}"

    def where(self, conditions: Iterable[Condition]) -> Clauses:
        """Return the clauses for the rows that meet all *conditions*, too."""
        given = [Condition(self.criteria)] if self.criteria else []
        return self._replace(criteria=joined([*given, *conditions]))

    def is_ordered_by(self, key: Sequence[str]) -> bool:
        """Return whether the rows are sorted by the attributes *key*, in ascending order."""
        orders = [re.sub(_ASCENDING, "", order.strip()) for order in self.order.split(",")]
        return orders == list(key)

    def after(self, key: Sequence[tuple[str, str]], names: Sequence[str]) -> str:
        """Return the query for the rows after *key*, sorted by their key.

        Args:
            key: The attributes of the key and their values; empty for the first rows.
            names: The attributes of the key.
        """
        text = self._select(self.projections, _after(key) if key else "")
        return f"{text} order by {', '.join(names)}"

    def keys(self, names: Sequence[str]) -> str:
        """Return the query for the keys, *names*, of all rows in their order."""
        order = f" order by {self.order}" if self.order else ""
        return f"{self._select(', '.join(names))}{order}"

    def among(self, criteria: str) -> str:
        """Return the query for those of the rows that meet *criteria*, in any order."""
        return self._select(self.projections, criteria)

    def _select(self, projections: str, criteria: str = "") -> str:
        both = joined([Condition(each) for each in (self.criteria, criteria) if each])
        where = f" where {both}" if both else ""
        selected = f"select {projections} from " if projections else ""
        return f"{selected}{self.entity_type}{where}"


def _after(key: Sequence[tuple[str, str]]) -> str:
    """Return the criteria for greater keys, which are compared part by part."""
    (name, value), *rest = key
    greater = f"{name} > {quote(value)}"
    if not rest:
        return greater
    return f"{greater} or ({name} is {quote(value)} and ({_after(rest)}))"


def find_clauses(text: str) -> Clauses | None:
    """Return the clauses of the query *text*, which has no paging clauses.

    None if it has a ``group by``, whose rows have no key, or is not such a query.
    """
    words = list(_outer_words(text))
    names = [word.lower() for word, _, _ in words]
    is_selecting = names[:1] == ["select"]
    if is_selecting and "from" not in names:
        return None
    at = names.index("from") if is_selecting else -1
    if len(words) <= at + 1:
        return None
    entity_type, _, end = words[at + 1]
    by = [place for place in range(at + 2, len(words)) if names[place] == "by"]
    clauses = {names[place - 1]: place for place in by if names[place - 1] in ("group", "order")}
    if "group" in clauses:
        return None
    order, criteria, last = "", "", len(text)
    if "order" in clauses:
        place = clauses["order"]
        order, last = text[words[place][2] :].strip(), words[place - 1][1]
    if names[at + 2 : at + 3] == ["where"]:
        criteria, end = text[words[at + 2][2] : last].strip(), last
    if text[end:last].strip():
        return None
    projections = text[words[0][2] : words[at][1]].strip() if is_selecting else ""
    return Clauses(projections, entity_type, criteria, order)


def _outer_words(text: str) -> Iterator[tuple[str, int, int]]:
    """Yield the words outside of literals and parentheses, with their places in *text*."""
    depth = 0
    for token in re.finditer(_LITERAL_OR_WORD, text):
        match token["bracket"]:
            case "(":
                depth += 1
            case ")":
                depth -= 1
            case _ if not depth:
                # A literal is a word here, too, which no clause begins with.
                yield token[0], token.start(), token.end()


def next_offset(result: Mapping[str, Any]) -> int | None:
    """Return the offset of the page after a query's *result*; None if it is the last one.

    Raises:
        MalformedResponseError: It does not say that. If it were taken for the last page, rows
            would be missing.
    """
    metadata = result.get("metadata") or {}
    match metadata:
        case {"next": {"offset": int() as offset}}:
            return offset
        case {"next": {"offset": None}}:
            return None
        case dict() if not metadata.get("next"):
            return None
        case _:
            raise MalformedResponseError("a page does not say which page follows", status=200)
