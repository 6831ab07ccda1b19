"""Converting the values in a query for the attribute that they are compared with."""

from __future__ import annotations

import re

from aioftrackjobs.devserver.api_errors import ValidationError
from aioftrackjobs.devserver.query.ast import Literal
from aioftrackjobs.devserver.schema.model import Attribute
from aioftrackjobs.devserver.schema.values import datetime_text, untyped, untyped_date

Scalar = str | int | float | bytes

_KINDS = {"boolean": "true or false", "integer": "a number", "number": "a number"}
_ESCAPE = re.compile(r"\\([\"'\\%])")
_PATTERN_PART = re.compile(r"\\([\"'\\%])|([%_\\])", re.DOTALL)
#: The bound between dates and all other values, which are less.
FIRST_DATE = untyped_date("")
_DATE = re.compile(r"\s*\d{4}-\d\d-\d\d")
_TRUE, _FALSE = frozenset({"true", "1"}), frozenset({"false", "0"})


def text_of(literal: Literal) -> str:
    r"""Return the text of *literal*: ``\"``, ``\'``, ``\\`` and ``\%`` lose their backslash.

    Any other backslash stays: clients do not double them (docs/protocol.md, section 4.4).
    """
    return _ESCAPE.sub(r"\1", literal.text) if literal.quoted else literal.text


def like_pattern(literal: Literal) -> str:
    r"""Return *literal* as a pattern for SQL's LIKE with the escape character ``\``.

    ``%`` stands for any text; ``\%`` and ``_`` stand for themselves.
    """

    def part(match: re.Match[str]) -> str:
        escaped, special = match.groups()
        if special == "%":
            return "%"
        character = escaped or special
        return f"\\{character}" if character in "%_\\" else character

    return _PATTERN_PART.sub(part, literal.text)


def value_of(attribute: Attribute, literal: Literal) -> Scalar:
    """Return *literal* in the stored form of *attribute*."""
    text = text_of(literal)
    try:
        if attribute.is_datetime:
            return datetime_text(text, precise=True)
        match attribute.type:
            case "boolean":
                return _truth(text)
            case "integer" | "number":
                return _number(text)
            case "variable":
                return text if literal.quoted else _unquoted(text)
            case _:
                return text
    except (ValueError, OverflowError):
        kind = "a date in ISO form" if attribute.is_datetime else _KINDS[attribute.type]
        raise ValidationError(
            f"'{text}' cannot be compared with '{attribute.name}', which is {kind}."
        ) from None


def date_of(literal: Literal) -> bytes | None:
    """Return *literal* as a date in an attribute of any type; None if it is not a date."""
    text = text_of(literal)
    try:
        return untyped_date(datetime_text(text, precise=True)) if _DATE.match(text) else None
    except (ValueError, OverflowError):
        return None


def _truth(text: str) -> int:
    word = text.lower()
    if word not in _TRUE | _FALSE:
        raise ValueError(text)
    return int(word in _TRUE)


def _number(text: str) -> int | float:
    number = int(text) if re.fullmatch(r"[+-]?\d{1,18}", text) else float(text)
    if number != number:  # NaN, which equals nothing
        raise ValueError(text)
    return number


def _unquoted(text: str) -> Scalar:
    if text.lower() in {"true", "false"}:
        return untyped(text.lower() == "true")
    try:
        return _number(text)
    except ValueError:
        return text
