"""Query text: quoting untrusted values, default projections, criteria.

Source:
    docs/protocol.md, section 4.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from enum import Enum
from typing import TypeGuard

from aioftrackjobs.errors import QueryParameterError
from aioftrackjobs.protocol.values import Referable, Reference, standard_value, stored_time

#: Rows of one page, as in the official client.
PAGE_SIZE = 500

_PLACEHOLDER = re.compile(
    r"""(?P<literal>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')
    |(?<![\w.\[\]])(?P<path>[\w.\[\]]+)\s+(?P<word>in|not_in)\s*
        (?:\(\s*\{(?P<listed>[^{}]*)\}\s*\)|\{(?P<bare>[^{}]*)\})
    |\{(?P<name>[^{}]*)\}""",
    re.DOTALL | re.IGNORECASE | re.VERBOSE,
)
_IN_LITERAL = re.compile(r"\{([A-Za-z_]\w*)\}")
_SELECT = re.compile(r"\s*select\s", re.IGNORECASE)
_TARGET = re.compile(r"\s*([A-Za-z_]\w*)")


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
        case date():
            return f'"{value.isoformat()}"'
        case Referable():
            return _quote_reference(value.__ftrack_reference__())
        case _:
            plain = standard_value(value)
            if plain is value:
                raise QueryParameterError(_why_not(value))
            return quote(plain)


def _why_not(value: object) -> str:
    kind = type(value).__name__
    if _is_list(value):
        return f"a {kind} can only stand after 'in' or 'not_in', and not within another list"
    if hasattr(type(value), "__fspath__"):
        return f"a {kind} cannot stand in a query; write str(path)"
    return f"a {kind} cannot stand in a query"


def _is_list(value: object) -> TypeGuard[Iterable[object]]:
    """Return whether *value* stands for several values: a list, a set, a generator and so on."""
    if isinstance(value, (str, bytes, bytearray, memoryview, Mapping, Referable)):
        return False
    return isinstance(value, Iterable) and standard_value(value) is value


def quote_list(values: Iterable[object]) -> str:
    """Return *values* as a list for ``in``.

    Raises:
        QueryParameterError: A value has no literal form.
    """
    return f"({', '.join(quote(value) for value in values)})"


def _quote_text(value: str) -> str:
    _require_unicode(value, repr(value))
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _require_unicode(text: str, name: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise QueryParameterError(
            f"{name} is not valid Unicode: it has {text[exc.start]!r} at position {exc.start}"
        ) from exc


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
    # In whole seconds, as the stored times with which the server compares it.
    try:
        return f'"{stored_time(value).replace(tzinfo=None).isoformat()}"'
    except ValueError as exc:
        raise QueryParameterError(str(exc)) from exc


def _quote_reference(reference: Reference) -> str:
    if len(reference.key) != 1:
        raise QueryParameterError(f"{reference} has a key of several parts; compare each of them")
    return quote(reference.key[0][1])


def bind(template: str, parameters: Mapping[str, object]) -> str:
    """Return *template* with each ``{name}`` replaced by the quoted parameter of that name.

    Without parameters the text is returned as it is, braces included. A list stands after ``in`` or
    ``not_in``, with parentheses around the placeholder or without: ``id in {ids}``. In an empty
    list there is nothing, and everything is not in it.

    Raises:
        QueryParameterError: A placeholder has no parameter, a parameter has no placeholder, a
            placeholder stands inside quotes, a parameter cannot stand where its placeholder is, or
            the text is no valid Unicode.
    """
    _require_unicode(template, "the text of a query")
    if not parameters:
        return template
    # An iterator can be read only once, and its placeholder may stand in several places.
    values = {name: list(value) if _is_list(value) else value for name, value in parameters.items()}
    used: set[str] = set()

    def value_of(name: str) -> object:
        if name not in values:
            raise QueryParameterError(f"no parameter for the placeholder {{{name}}}")
        used.add(name)
        return values[name]

    def replace(match: re.Match[str]) -> str:
        literal = match["literal"]
        if literal is not None:
            inside = _IN_LITERAL.search(literal)
            if inside and inside[1] in parameters:
                raise QueryParameterError(
                    f"{inside[0]} stands inside quotes; leave them out, the value gets quotes"
                )
            return literal
        if match["path"] is not None:
            value = value_of(match["listed"] or match["bare"] or "")
            listed = value if isinstance(value, list) else [value]
            return membership(match["path"], match["word"], listed)
        value = value_of(match["name"])
        if isinstance(value, list) and value and template[: match.start()].rstrip()[-1:] in "(,":
            return quote_list(value)[1:-1]  # one of several placeholders in a list
        return quote(value)

    text = _PLACEHOLDER.sub(replace, template)
    if unused := sorted(parameters.keys() - used):
        raise QueryParameterError(f"no placeholder for the parameter(s) {', '.join(unused)}")
    return text


def membership(path: str, word: str, values: object) -> str:
    """Return the criteria that *path* is one of *values*, or none of them.

    Args:
        path: The attribute.
        word: ``in`` or ``not_in``.
        values: Several values, which may be none.

    Raises:
        QueryParameterError: They are not several values, or one has no literal form.
    """
    if not _is_list(values):
        raise QueryParameterError(f"{word!r} takes a list of values, not a {type(values).__name__}")
    if values := list(values):
        return f"{path} {word} {quote_list(values)}"
    # How a server reads an empty list is not known. This is false, or true, for any attribute.
    joined = "or" if word.lower() == "not_in" else "and"
    return f"({path} is none {joined} not {path} is none)"


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
        return f"{name} in {quote_list(reference.key[0][1] for reference in references)}"
    return " or ".join(
        f"({' and '.join(f'{name} is {quote(value)}' for name, value in reference.key)})"
        for reference in references
    )


def equality_criteria(values: Mapping[str, object]) -> str:
    """Return criteria that match all of *values*; any of a list's items match it."""
    return " and ".join(
        f"{name} in {quote_list(value)}" if isinstance(value, list) else f"{name} is {quote(value)}"
        for name, value in values.items()
    )
