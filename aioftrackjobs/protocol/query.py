"""Query text: quoting untrusted values, paging clauses, default projections.

Source:
    docs/protocol.md, section 4.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from enum import Enum
from typing import NamedTuple
from uuid import UUID

from aioftrackjobs.errors import QueryParameterError
from aioftrackjobs.protocol.values import Referable, Reference, in_utc

#: Rows of one page, as in the official client.
PAGE_SIZE = 500

_PLACEHOLDER = re.compile(
    r"""(?P<literal>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')|\{(?P<name>[^{}]*)\}""", re.DOTALL
)
_IN_LITERAL = re.compile(r"\{([A-Za-z_]\w*)\}")
_SELECT = re.compile(r"\s*select\s", re.IGNORECASE)
_TARGET = re.compile(r"\s*([A-Za-z_]\w*)")
# Anchored at the end: there, the words can be neither in a literal, which ends in a quote, nor
# in a subquery, which ends in a parenthesis.
_PAGING = re.compile(
    r"(?:\s+offset\s+(?P<offset>\d{1,18}))?(?:\s+limit\s+(?P<limit>\d{1,18}))?"
    r"(?:\s+offset\s+(?P<late_offset>\d{1,18}))?\s*$",
    re.IGNORECASE,
)


class PagedExpression(NamedTuple):
    """A query without its paging clauses, and their values."""

    text: str
    offset: int = 0
    limit: int | None = None

    def page(self, offset: int, size: int) -> str:
        """Return the text that asks for *size* rows from *offset* on."""
        return f"{self.text} offset {offset} limit {size}"


def quote(value: object) -> str:
    r"""Return *value* as a literal that no character in it can end early.

    A backslash is doubled. How the server reads one is not documented; doubling is safe if it reads
    ``\"`` as a quote, and leaving it alone is not.

    Raises:
        QueryParameterError: The value has no literal form.
    """
    match value:
        case None:
            return "none"
        case bool():
            return str(value)
        case Enum():
            return quote(value.value)
        case str():
            return _quote_text(value)
        case int() | float():
            return _quote_number(value)
        case datetime():
            return _quote_time(value)
        case date() | UUID():
            return f'"{value}"'
        case Referable():
            return _quote_reference(value.__ftrack_reference__())
        case list() | tuple() | set() | frozenset():
            # An empty list is written as the official tools write it (section 4.4).
            return f"({', '.join(quote(item) for item in value) or quote('')})"
        case _:
            raise QueryParameterError(f"a {type(value).__name__} cannot stand in a query")


def _quote_text(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as exc:
        raise QueryParameterError(f"{value!r} is not valid Unicode") from exc
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _quote_number(value: int | float) -> str:
    if isinstance(value, float):
        if not math.isfinite(value):
            raise QueryParameterError(f"{value} cannot stand in a query")
        return float.__repr__(value)  # subclasses, as numpy's, have another repr
    try:
        return int.__repr__(value)
    except ValueError as exc:  # thousands of digits
        raise QueryParameterError("a number of that many digits cannot stand in a query") from exc


def _quote_time(value: datetime) -> str:
    try:
        return f'"{in_utc(value).replace(tzinfo=None).isoformat()}"'
    except ValueError as exc:
        raise QueryParameterError(str(exc)) from exc


def _quote_reference(reference: Reference) -> str:
    if len(reference.key) != 1:
        raise QueryParameterError(f"{reference} has a key of several parts; compare each of them")
    return quote(reference.key[0][1])


def bind(template: str, parameters: Mapping[str, object]) -> str:
    """Return *template* with each ``{name}`` replaced by the quoted parameter of that name.

    Without parameters the text is returned as it is, braces included.

    Raises:
        QueryParameterError: A placeholder has no parameter, a parameter has no placeholder, or a
            placeholder stands inside quotes.
    """
    if not parameters:
        return template
    used: set[str] = set()

    def replace(match: re.Match[str]) -> str:
        literal = match["literal"]
        if literal is not None:
            inside = _IN_LITERAL.search(literal)
            if inside and inside[1] in parameters:
                raise QueryParameterError(
                    f"{inside[0]} stands inside quotes; leave them out, the value gets quotes"
                )
            return literal
        name = match["name"]
        if name not in parameters:
            raise QueryParameterError(f"no parameter for the placeholder {match[0]}")
        used.add(name)
        return quote(parameters[name])

    text = _PLACEHOLDER.sub(replace, template)
    if unused := sorted(parameters.keys() - used):
        raise QueryParameterError(f"no placeholder for the parameter(s) {', '.join(unused)}")
    return text


def split_paging(expression: str) -> PagedExpression:
    """Return *expression* with its own ``offset`` and ``limit`` taken off the end."""
    match = _PAGING.search(expression)
    if match is None:  # the pattern matches the empty end of any text
        return PagedExpression(expression)
    offset = match["offset"] or match["late_offset"] or 0
    limit = match["limit"]
    return PagedExpression(
        expression[: match.start()], int(offset), None if limit is None else int(limit)
    )


def has_projections(expression: str) -> bool:
    """Return whether *expression* has a select clause."""
    return _SELECT.match(expression) is not None


def target_type(expression: str) -> str | None:
    """Return the entity type of an *expression* without projections; None if it has none."""
    match = _TARGET.match(expression)
    return match[1] if match else None


def select(projections: Iterable[str], entity_type: str, criteria: str) -> str:
    """Return the query for *projections* of the entities that meet *criteria*."""
    return f"select {', '.join(projections)} from {entity_type} where {criteria}"


def key_criteria(references: Sequence[Reference]) -> str:
    """Return criteria that match exactly *references*, which are of one type.

    Simple keys become one ``in``, for which servers can use an index.
    """
    if all(len(reference.key) == 1 for reference in references):
        name = references[0].key[0][0]
        return f"{name} in {quote([reference.key[0][1] for reference in references])}"
    return " or ".join(
        f"({' and '.join(f'{name} is {quote(value)}' for name, value in reference.key)})"
        for reference in references
    )


def equality_criteria(values: Mapping[str, object]) -> str:
    """Return criteria that match all of *values*."""
    return " and ".join(f"{name} is {quote(value)}" for name, value in values.items())
