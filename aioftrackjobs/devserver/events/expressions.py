"""Expressions of subscriptions, tested against events, and of targets, against subscribers.

The official clients do not agree. Where they differ, this does what the documentation says, or what
finds more, because clients select again what they receive:

- ``*`` at the end stands for any rest. The Python client finds the text anywhere in the value.
- Values are texts, and a text never equals a number, as in the Python client. Comparing a number by
  order is false here, an error there.
- JavaScript clients test the topic only, and no targets.
- Without quotes, a value may have any character but blanks, quotes, parentheses and operators; the
  Python client knows fewer.

A condition on a missing value is false, also with ``!=``.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any

from lark import Lark, Token, Transformer, UnexpectedInput, UnexpectedToken, v_args

#: Characters of an expression, and conditions within conditions: more than people write.
LONGEST = 4 * 1024
_DEEPEST = 50
_MISSING = object()
_OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
}


def value_at(candidate: Any, field: str) -> Any:
    """Return the value of *candidate* at ``a.b.c``, a unique object if there is none."""
    for name in field.split("."):
        if not isinstance(candidate, dict):
            return _MISSING
        candidate = candidate.get(name, _MISSING)
    return candidate


@dataclass(frozen=True, slots=True)
class Expression:
    """A parsed expression.

    Attributes:
        matches: Whether it is true of an event or of a subscriber.
        equal: Values, by field, that everything has of which it is true.
        depth: How deeply conditions are nested.
        size: How many conditions there are.
    """

    matches: Callable[[Any], bool]
    equal: Mapping[str, str]
    depth: int = 1
    size: int = 1


@lru_cache(maxsize=512)
def parse(text: str) -> Expression:
    """Return *text* as an expression."""
    if len(text) > LONGEST:
        raise ValueError(f"An expression takes {LONGEST} characters at most, not {len(text)}.")
    try:
        found: Any = _parser().parse(text)
    except UnexpectedInput as error:
        is_end = isinstance(error, UnexpectedToken) and error.token.type == "$END"
        place: Any = error.pos_in_stream  # declared as None
        where = "at its end" if is_end else f"at {text[place : place + 40]!r}"
        raise ValueError(f"The expression {text[:200]!r} cannot be read {where}.") from None
    assert isinstance(found, Expression)  # noqa: S101 - the grammar's start rule
    if found.depth > _DEEPEST:
        raise ValueError(f"An expression may be nested {_DEEPEST} times at most.")
    return found


@cache
def _parser() -> Lark:
    grammar = files(__package__).joinpath("grammar.lark").read_text(encoding="utf-8")
    return Lark(grammar, parser="lalr", lexer="contextual", transformer=_Builder())


def _compile(field: str, sign: str, value: str) -> Expression:
    if sign == "=" and value.endswith("*"):
        prefix = value[:-1]

        def starts(candidate: Any) -> bool:
            found = value_at(candidate, field)
            return isinstance(found, str) and found.startswith(prefix)

        return Expression(starts, {})
    test = _OPERATORS[sign]
    only_texts = sign not in {"=", "!="}

    def holds(candidate: Any) -> bool:
        found = value_at(candidate, field)
        if found is _MISSING or (only_texts and not isinstance(found, str)):
            return False
        return test(found, value)

    return Expression(holds, {field: value} if sign == "=" else {})


def _join(operands: tuple[Expression, ...], equal: Mapping[str, str], *, every: bool) -> Expression:
    """Return the expression that is true if all (*every*) or any of its *operands* are."""
    tests = [operand.matches for operand in operands]

    def matches(candidate: Any) -> bool:
        for test in tests:
            if test(candidate) is not every:
                return not every
        return every

    depth = 1 + max(operand.depth for operand in operands)
    return Expression(matches, equal, depth, sum(operand.size for operand in operands))


@v_args(inline=True)
class _Builder(Transformer[Token, Any]):
    """Makes expressions of what the grammar's rules matched; each method is one rule."""

    def disjunction(self, *operands: Expression) -> Expression:
        return _join(operands, {}, every=False)

    def conjunction(self, *operands: Expression) -> Expression:
        equal: dict[str, str] = {}
        for operand in operands:
            equal |= operand.equal
        return _join(operands, equal, every=True)

    def negated(self, operand: Expression) -> Expression:
        matches = operand.matches
        depth, size = operand.depth + 1, operand.size
        return Expression(lambda candidate: not matches(candidate), {}, depth, size)

    def condition(self, field: Token, sign: Token, value: str) -> Expression:
        return _compile(str(field), str(sign), value)

    def quoted(self, token: Token) -> str:
        return str(token[1:-1])

    def bare(self, token: Token) -> str:
        return str(token)
