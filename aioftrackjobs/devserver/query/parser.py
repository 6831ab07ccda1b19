"""From the text of a query to its syntax tree.

The tree is built while the text is parsed, without recursion, so no depth of parentheses can
exhaust the stack here.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any

from lark import Lark, Token, Transformer, UnexpectedInput, v_args
from lark.exceptions import UnexpectedCharacters, UnexpectedEOF, UnexpectedToken

from aioftrackjobs.devserver.query.syntax import (
    Aggregate,
    And,
    Comparison,
    Expression,
    Literal,
    Membership,
    Not,
    Or,
    Ordering,
    Path,
    Query,
    RelationTest,
    Step,
    is_deeper,
)
from aioftrackjobs.devserver.refusals import ParseRefusal

_OPERATORS = {
    "=": "is",
    "!=": "is_not",
    "after": ">",
    "greater_than": ">",
    "before": "<",
    "less_than": "<",
}
#: Criteria nested deeper than this are no work of a person, and overflow SQLite's parser.
DEEPEST = 50
#: What the user can write, for terminals whose name does not say it.
_READABLE = {
    "NAME": "a name",
    "BARE": "a value",
    "STRING": "a quoted text",
    "OPERATOR": "an operator",
    "LPAR": "'('",
    "RPAR": "')'",
    "LSQB": "'['",
    "RSQB": "']'",
    "COMMA": "','",
    "DOT": "'.'",
    "ASCENDING": "'ascending'",
    "DESCENDING": "'descending'",
    "$END": "the end",
}
_NESTING = re.compile(r"""[()]|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'""", re.DOTALL)
_LONGEST_SHOWN = 2000
#: SQLite stores 64 bits.
_LARGEST = 2**63 - 1
_LONGEST_NUMBER = 100
_LONGEST_OPENED = 500


@lru_cache(maxsize=512)
def parse(text: str) -> Query:
    """Return the syntax tree of *text*.

    Raises:
        ParseRefusal: Saying where the text stops being a query, and what could stand there.
    """
    try:
        tree: Any = _parser().parse(text)
    except UnexpectedInput as error:
        raise _explain(text, error) from None
    except _BadClauseError as error:
        line, column = error.place
        raise ParseRefusal(f"Failed to parse: {_start(text)}\n{error}", line, column) from None
    assert isinstance(tree, Query)  # noqa: S101 - the grammar's start rule
    if is_deeper(tree, DEEPEST):
        raise _too_deep(text)
    return tree


@cache
def _parser() -> Lark:
    grammar = files(__package__).joinpath("grammar.lark").read_text(encoding="utf-8")
    return Lark(grammar, parser="lalr", lexer="contextual", transformer=_Builder())


def _explain(text: str, error: UnexpectedInput) -> ParseRefusal:
    line, column = error.line, error.column
    match error:
        case UnexpectedToken(accepts=accepts, expected=expected, token=token):
            expected = accepts or expected
            found = f"'{_start(token, 80)}'" if token.type != "$END" else "the end"
        case UnexpectedCharacters(allowed=allowed, char=char):
            expected, found = allowed or set(), f"'{char}'"
        case UnexpectedEOF(expected=names):
            expected, found = set(names), "the end"
        case _:
            expected, found = set(), "this"
    if found == "the end":
        line, column = text.count("\n") + 1, len(text) - (text.rfind("\n") + 1) + 1
    wanted = ", ".join(sorted({_readable(name) for name in expected}))
    where = f"line {line}, column {column}"
    content = f"Failed to parse: {_start(text)}\nUnexpected {found} at {where}: expected {wanted}."
    return ParseRefusal(content, line, column)


def _too_deep(text: str) -> ParseRefusal:
    """Return the refusal of criteria that are nested too deeply, with where they are deepest."""
    depth, deepest, place = 0, 0, 0
    for token in _NESTING.finditer(text):
        depth += {"(": 1, ")": -1}.get(token[0], 0)
        if depth > deepest:
            deepest, place = depth, token.start()
    line, column = text.count("\n", 0, place) + 1, place - text.rfind("\n", 0, place)
    content = (
        f"Failed to parse: {_start(text)}\nThe criteria are nested too deeply at line {line}, "
        f"column {column}: expected fewer levels."
    )
    return ParseRefusal(content, line, column)


def _start(text: str, size: int = _LONGEST_SHOWN) -> str:
    """Return as much of *text* as an error message has room for."""
    return text if len(text) <= size else f"{text[:size]}..."


def _readable(terminal: str) -> str:
    return _READABLE.get(terminal, f"'{terminal.lstrip('_').lower()}'")


class _BadClauseError(ValueError):
    """An offset or limit is no number, or there are two."""

    def __init__(self, problem: str, number: Token) -> None:
        self.place = number.line or 1, number.column or 1
        line, column = self.place
        super().__init__(f"{problem}, at line {line}, column {column}.")


def _literal(token: Token, *, quoted: bool) -> Literal:
    return Literal(str(token[1:-1]) if quoted else str(token), quoted)


@v_args(inline=True)
class _Builder(Transformer[Token, Any]):
    """Makes nodes of what the grammar's rules matched; each method is one rule."""

    def query(
        self,
        projections: tuple[Path | Aggregate, ...] | None,
        entity_type: Token,
        criteria: Expression | None,
        group_by: tuple[Path, ...] | None,
        order_by: tuple[Ordering, ...] | None,
        *pages: tuple[str, Token],
    ) -> Query:
        page: dict[str, int] = {}
        for name, number in pages:
            if name in page:
                raise _BadClauseError(f"'{name}' is written twice", number)
            page[name] = _whole(number)
        return Query(
            str(entity_type), projections, criteria, group_by or (), order_by or (), **page
        )

    def projections(self, *each: Path | Aggregate) -> tuple[Path | Aggregate, ...]:
        return each

    def aggregate(self, function: Token, path: Path) -> Aggregate:
        return Aggregate(str(function).lower(), path)

    def group_by(self, *paths: Path) -> tuple[Path, ...]:
        return paths

    def order_by(self, *keys: Ordering) -> tuple[Ordering, ...]:
        return keys

    def ordering(self, path: Path | Aggregate, direction: Token | None) -> Ordering:
        return Ordering(path, direction is not None and direction.type == "DESCENDING")

    def offset(self, number: Token) -> tuple[str, Token]:
        return "offset", number

    def limit(self, number: Token) -> tuple[str, Token]:
        return "limit", number

    def expression(self, *operands: Expression) -> Or:
        return Or(_flat(Or, operands))

    def conjunction(self, *operands: Expression) -> And:
        return And(_flat(And, operands))

    def negated(self, operand: Expression) -> Not:
        return Not(operand)

    def relation_test(self, path: Path, criteria: Expression | None) -> RelationTest:
        return RelationTest(path, criteria)

    def comparison(self, path: Path, operator: Token, value: Literal) -> Comparison:
        word = str(operator).lower()
        return Comparison(path, _OPERATORS.get(word, word), value)

    def membership(self, path: Path, *rest: Token | tuple[Literal, ...] | Query) -> Membership:
        values = rest[-1]
        assert not isinstance(values, Token)  # noqa: S101 - the word NOT_IN comes before them
        return Membership(path, values, negated=len(rest) > 1)

    def values(self, *values: Literal | None) -> tuple[Literal, ...]:
        return tuple(value for value in values if value is not None)

    def quoted(self, token: Token) -> Literal:
        return _literal(token, quoted=True)

    def bare(self, token: Token) -> Literal:
        return _literal(token, quoted=False)

    def path(self, *steps: Step) -> Path:
        return steps

    def step(self, name: Token, cast: Token | None) -> Step:
        return Step(str(name), str(cast) if cast is not None else None)


def _flat(kind: type[And | Or], operands: tuple[Expression, ...]) -> tuple[Expression, ...]:
    """Return *operands* with those of the same kind among them opened.

    Some clients put parentheses around every pair. Long ones stay: to copy them again for each
    further pair would take time that grows with the square of the text.
    """
    flat: list[Expression] = []
    for operand in operands:
        if isinstance(operand, kind) and len(operand.operands) <= _LONGEST_OPENED:
            flat.extend(operand.operands)
        else:
            flat.append(operand)
    return tuple(flat)


def _whole(number: Token) -> int:
    if not number.isdecimal() or len(number) > _LONGEST_NUMBER or int(number) > _LARGEST:
        raise _BadClauseError(f"'{_start(number, 80)}' is not a whole number", number)
    return int(number)
