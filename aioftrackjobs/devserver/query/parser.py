"""From the text of a query to its syntax tree.

The tree is built while the text is parsed, without recursion, so no depth of parentheses can
exhaust the stack here.
"""

from __future__ import annotations

from functools import cache, lru_cache
from importlib.resources import files
from typing import Any

from lark import Lark, Token, Transformer, UnexpectedInput, v_args

from aioftrackjobs.devserver.query import ast as syntax
from aioftrackjobs.devserver.query import errors as mistakes

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
#: SQLite stores 64 bits.
_LARGEST = 2**63 - 1
_LONGEST_NUMBER = 100
_LONGEST_OPENED = 500


@lru_cache(maxsize=512)
def parse(text: str) -> syntax.Query:
    """Return the syntax tree of *text*.

    Raises:
        ParseRefusal: Saying where the text stops being a query, and what could stand there.
    """
    try:
        tree: Any = _parser().parse(text)
    except UnexpectedInput as error:
        raise mistakes.explain(text, error) from None
    except _BadClauseError as error:
        raise mistakes.refusal(text, error.place, error.problem, error.wanted) from None
    assert isinstance(tree, syntax.Query)  # noqa: S101 - the grammar's start rule
    if syntax.is_deeper(tree, DEEPEST):
        raise mistakes.too_deep(text)
    return tree


@cache
def _parser() -> Lark:
    grammar = files(__package__).joinpath("grammar.lark").read_text(encoding="utf-8")
    return Lark(grammar, parser="lalr", lexer="contextual", transformer=_Builder())


class _BadClauseError(ValueError):
    """An offset or limit is no number, or there are two."""

    def __init__(self, problem: str, number: Token, wanted: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.place = number.start_pos or 0
        self.wanted = wanted


def _literal(token: Token, *, quoted: bool) -> syntax.Literal:
    return syntax.Literal(str(token[1:-1]) if quoted else str(token), quoted)


@v_args(inline=True)
class _Builder(Transformer[Token, Any]):
    """Makes nodes of what the grammar's rules matched; each method is one rule."""

    def query(
        self,
        projections: tuple[syntax.Path | syntax.Aggregate, ...] | None,
        entity_type: Token,
        criteria: syntax.Expression | None,
        group_by: tuple[syntax.Path, ...] | None,
        order_by: tuple[syntax.Ordering, ...] | None,
        *pages: tuple[str, Token],
    ) -> syntax.Query:
        page: dict[str, int] = {}
        for name, number in pages:
            if name in page:
                raise _BadClauseError(f"A second '{name}'", number, "one only.")
            page[name] = _whole(number)
        return syntax.Query(
            str(entity_type), projections, criteria, group_by or (), order_by or (), **page
        )

    def projections(
        self, *each: syntax.Path | syntax.Aggregate
    ) -> tuple[syntax.Path | syntax.Aggregate, ...]:
        return each

    def aggregate(self, function: Token, path: syntax.Path) -> syntax.Aggregate:
        return syntax.Aggregate(str(function).lower(), path)

    def group_by(self, *paths: syntax.Path) -> tuple[syntax.Path, ...]:
        return paths

    def order_by(self, *keys: syntax.Ordering) -> tuple[syntax.Ordering, ...]:
        return keys

    def ordering(
        self, path: syntax.Path | syntax.Aggregate, direction: Token | None
    ) -> syntax.Ordering:
        return syntax.Ordering(path, direction is not None and direction.type == "DESCENDING")

    def offset(self, number: Token) -> tuple[str, Token]:
        return "offset", number

    def limit(self, number: Token) -> tuple[str, Token]:
        return "limit", number

    def expression(self, *operands: syntax.Expression) -> syntax.Or:
        return syntax.Or(_flat(syntax.Or, operands))

    def conjunction(self, *operands: syntax.Expression) -> syntax.And:
        return syntax.And(_flat(syntax.And, operands))

    def negated(self, operand: syntax.Expression) -> syntax.Not:
        return syntax.Not(operand)

    def relation_test(
        self, path: syntax.Path, criteria: syntax.Expression | None
    ) -> syntax.RelationTest:
        return syntax.RelationTest(path, criteria)

    def comparison(
        self, path: syntax.Path, operator: Token, value: syntax.Literal
    ) -> syntax.Comparison:
        word = str(operator).lower()
        return syntax.Comparison(path, _OPERATORS.get(word, word), value)

    def membership(
        self, path: syntax.Path, *rest: Token | tuple[syntax.Literal, ...] | syntax.Query
    ) -> syntax.Membership:
        values = rest[-1]
        assert not isinstance(values, Token)  # noqa: S101 - the word NOT_IN comes before them
        return syntax.Membership(path, values, negated=len(rest) > 1)

    def values(self, *values: syntax.Literal | None) -> tuple[syntax.Literal, ...]:
        return tuple(value for value in values if value is not None)

    def quoted(self, token: Token) -> syntax.Literal:
        return _literal(token, quoted=True)

    def bare(self, token: Token) -> syntax.Literal:
        return _literal(token, quoted=False)

    def path(self, *steps: syntax.Step) -> syntax.Path:
        return steps

    def step(self, name: Token, cast: Token | None) -> syntax.Step:
        return syntax.Step(str(name), str(cast) if cast is not None else None)


def _flat(
    kind: type[syntax.And | syntax.Or], operands: tuple[syntax.Expression, ...]
) -> tuple[syntax.Expression, ...]:
    """Return *operands* with those of the same kind among them opened.

    Some clients put parentheses around every pair. Long ones stay: to copy them again for each
    further pair would take time that grows with the square of the text.
    """
    flat: list[syntax.Expression] = []
    for operand in operands:
        if isinstance(operand, kind) and len(operand.operands) <= _LONGEST_OPENED:
            flat.extend(operand.operands)
        else:
            flat.append(operand)
    return tuple(flat)


def _whole(number: Token) -> int:
    if not number.isdecimal() or len(number) > _LONGEST_NUMBER or int(number) > _LARGEST:
        raise _BadClauseError(f"'{mistakes.shown(number)}'", number, "a whole number.")
    return int(number)
