"""Expressions that select events: ``topic=ftrack.update and source.user.username="maya"``.

::

    expression = or ;  or = and { "or" and } ;  and = not { "and" not }
    not        = [ "not" ] ( condition | "(" expression ")" )
    condition  = field operator value

The server evaluates them to decide which events a connection gets, and the client to decide which
of its subscriptions one is for. The results are those of the official Python client, except:

- ``*`` at the end of a value stands for any rest, as ftrack's documentation and the JavaScript
  client have it. The Python client finds the text before it anywhere in the value, and also
  among the entries of a list.
- A comparison that Python cannot make, such as ``data.count>1`` with a number or ``topic=a*`` with
  no text, is false. In the Python client it is an error, which ends its loop.
- Without quotes, a value may have any character but blanks, quotes, parentheses and operators, and
  a field may have ``-`` and letters of any language. The Python client has fewer.

Values are texts, and a text never equals a number. A condition on a missing value is false, also
with ``!=``.

Source:
    docs/protocol.md, section 7.6.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

#: Conditions within conditions: more than people write.
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
_TOKEN = re.compile(
    r"""\s*(?:
        (?P<sign>>=|<=|!=|=|>|<)
      | (?P<parenthesis>[()])
      | (?P<quoted>"[^"]*"|'[^']*')
      | (?P<bare>[^\s()"'=<>!]+)
    )""",
    re.VERBOSE,
)
_FIELD = re.compile(r"[\w.\-]+")
_KEYWORDS = ("and", "or", "not")

Test = Callable[[Any], bool]


class SubscriptionSyntaxError(ValueError):
    """A text is no expression; the error says where."""


def value_at(candidate: Any, field: str) -> Any:
    """Return the value of *candidate* at ``a.b.c``; a unique object if there is none."""
    for name in field.split("."):
        if not isinstance(candidate, dict):
            return _MISSING
        candidate = candidate.get(name, _MISSING)
    return candidate


@dataclass(frozen=True, slots=True)
class Expression:
    """A parsed expression.

    Attributes:
        text: As it was written.
        matches: Whether it is true of an event, or of a subscriber.
        equal: Values, by field, that everything has of which it is true.
    """

    text: str
    matches: Test
    equal: Mapping[str, str]


@lru_cache(maxsize=1024)
def parse(text: str) -> Expression:
    """Return *text* as an expression.

    Raises:
        SubscriptionSyntaxError: It is none.
    """
    node = _Parser(text).parse()
    return Expression(text, node.matches, node.equal)


def conjunction(*texts: str) -> str:
    """Return the expression that is true if all of *texts* are; empty ones do not count."""
    some = [text for text in texts if text.strip()]
    return some[0] if len(some) == 1 else " and ".join(f"({text})" for text in some)


class _Node(NamedTuple):
    matches: Test
    equal: Mapping[str, str] = {}


class _Token(NamedTuple):
    kind: str
    text: str
    place: int


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    place = 0
    end = len(text.rstrip())
    while place < end:
        match = _TOKEN.match(text, place)
        if match is None or match.lastgroup is None:
            raise _error(text, place)
        kind = match.lastgroup
        tokens.append(_Token(kind, match[kind], match.start(kind)))
        place = match.end()
    tokens.append(_Token("end", "", len(text)))
    return tokens


def _error(text: str, place: int) -> SubscriptionSyntaxError:
    rest = text[place:].strip()
    where = f"at {rest[:40]!r}" if rest else "at its end"
    return SubscriptionSyntaxError(f"the expression {text[:200]!r} cannot be read {where}")


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = _tokens(text)
        self._next = 0
        self._depth = 0

    def parse(self) -> _Node:
        node = self._disjunction()
        if self._token.kind != "end":
            raise _error(self._text, self._token.place)
        return node

    @property
    def _token(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        self._next += 1
        return self._tokens[self._next - 1]

    def _is_keyword(self, word: str) -> bool:
        """Return whether *word* is next, and not as a field of that name."""
        return (
            self._token.kind == "bare"
            and self._token.text.lower() == word
            and self._tokens[self._next + 1].kind != "sign"
        )

    def _disjunction(self) -> _Node:
        nodes = [self._conjunction()]
        while self._is_keyword("or"):
            self._take()
            nodes.append(self._conjunction())
        return nodes[0] if len(nodes) == 1 else _Node(_any(nodes))

    def _conjunction(self) -> _Node:
        nodes = [self._negation()]
        while self._is_keyword("and"):
            self._take()
            nodes.append(self._negation())
        if len(nodes) == 1:
            return nodes[0]
        equal: dict[str, str] = {}
        for node in nodes:
            equal |= node.equal
        return _Node(_all(nodes), equal)

    def _negation(self) -> _Node:
        if self._is_keyword("not"):
            self._take()
            operand = self._nested(self._negation).matches
            return _Node(lambda candidate: not operand(candidate))
        if self._token.text == "(" and self._token.kind == "parenthesis":
            self._take()
            node = self._nested(self._disjunction)
            if self._take().text != ")":
                raise _error(self._text, self._tokens[self._next - 1].place)
            return node
        return self._condition()

    def _nested(self, parse: Callable[[], _Node]) -> _Node:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise SubscriptionSyntaxError(f"an expression is nested {_DEEPEST} times at most")
        node = parse()
        self._depth -= 1
        return node

    def _condition(self) -> _Node:
        field = self._take()
        if field.kind != "bare" or not _FIELD.fullmatch(field.text):
            raise _error(self._text, field.place)
        sign, value = self._token, self._tokens[min(self._next + 1, len(self._tokens) - 1)]
        if sign.kind != "sign":
            raise _error(self._text, sign.place)
        if value.kind not in ("quoted", "bare"):
            raise _error(self._text, value.place)
        self._next += 2
        text = value.text[1:-1] if value.kind == "quoted" else value.text
        return _compare(field.text, sign.text, text)


def _compare(field: str, sign: str, value: str) -> _Node:
    if sign == "=" and value.endswith("*"):
        prefix = value[:-1]

        def starts(candidate: Any) -> bool:
            found = value_at(candidate, field)
            return isinstance(found, str) and found.startswith(prefix)

        return _Node(starts)
    if sign == "=":
        if "." not in field:
            return _Node(
                lambda candidate: isinstance(candidate, dict) and candidate.get(field) == value,
                {field: value},
            )
        return _Node(lambda candidate: bool(value_at(candidate, field) == value), {field: value})
    test, is_order = _OPERATORS[sign], sign != "!="

    def holds(candidate: Any) -> bool:
        found = value_at(candidate, field)
        if found is _MISSING or (is_order and not isinstance(found, str)):
            return False
        return test(found, value)

    return _Node(holds)


def _all(nodes: list[_Node]) -> Test:
    tests = [node.matches for node in nodes]
    if len(tests) == 2:  # most have a topic and one condition
        first, second = tests
        return lambda candidate: first(candidate) and second(candidate)
    return lambda candidate: all(test(candidate) for test in tests)


def _any(nodes: list[_Node]) -> Test:
    tests = [node.matches for node in nodes]
    return lambda candidate: any(test(candidate) for test in tests)
