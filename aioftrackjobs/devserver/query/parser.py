"""Parsing the text of a query into its syntax tree.

The tree is built while the text is parsed, without recursion, so no depth of parentheses can
exhaust the stack here.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

from lark import Lark, Token, Transformer, UnexpectedInput, v_args

from aioftrackjobs.devserver.limits import BoundedCache
from aioftrackjobs.devserver.query import ast, errors
from aioftrackjobs.devserver.schema.values import LARGEST_INTEGER

_OPERATORS = {
    "=": "is",
    "!=": "is_not",
    "after": ">",
    "greater_than": ">",
    "before": "<",
    "less_than": "<",
}
#: Criteria nested deeper than this are not written by people, and overflow SQLite's parser.
DEEPEST = 50
_LONGEST_NUMBER, _LONGEST_OPENED = 100, 500
#: Characters of the texts whose trees are cached; a tree takes 20 to 80 bytes for each.
_CACHED = 256 * 1024
_trees = BoundedCache(_CACHED, lambda cached: cached[0])


def parse(text: str) -> ast.Query:
    """Return the syntax tree of *text*."""
    cached: tuple[int, ast.Query] | None = _trees.get(text)
    if cached is None:
        cached = _trees[text] = (len(text), _parsed(text))
    return cached[1]


def _parsed(text: str) -> ast.Query:
    try:
        tree: Any = _parser().parse(text)
    except UnexpectedInput as error:
        raise errors.explain(text, error) from None
    except _BadClauseError as error:
        raise errors.parse_error(text, error.place, error.problem, error.wanted) from None
    assert isinstance(tree, ast.Query)  # noqa: S101 - the grammar's start rule
    if ast.is_deeper(tree, DEEPEST):
        raise errors.too_deep(text)
    return tree


@cache
def _parser() -> Lark:
    grammar = files(__package__).joinpath("grammar.lark").read_text(encoding="utf-8")
    return Lark(grammar, parser="lalr", lexer="contextual", transformer=_Builder())


class _BadClauseError(ValueError):
    """An offset or limit is not a number, or is given twice."""

    def __init__(self, problem: str, number: Token, wanted: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.place = number.start_pos or 0
        self.wanted = wanted


@v_args(inline=True)
class _Builder(Transformer[Token, Any]):
    """Makes nodes of what the grammar's rules matched; each method is one rule."""

    def query(
        self,
        projections: tuple[ast.Path | ast.Aggregate, ...] | None,
        entity_type: Token,
        criteria: ast.Expression | None,
        group_by: tuple[ast.Path, ...] | None,
        order_by: tuple[ast.Ordering, ...] | None,
        *pages: tuple[Token, Token],
    ) -> ast.Query:
        page: dict[str, int] = {}
        for word, number in pages:
            name = word.lower()
            if name in page:
                raise _BadClauseError(f"A second '{name}'", number, "one only.")
            is_short = number.isdecimal() and len(number) <= _LONGEST_NUMBER
            if not is_short or int(number) > LARGEST_INTEGER:
                raise _BadClauseError(f"'{errors.shown(number)}'", number, "a whole number.")
            page[name] = int(number)
        return ast.Query(
            str(entity_type), projections, criteria, group_by or (), order_by or (), **page
        )

    def path(self, *each: Any) -> tuple[Any, ...]:
        return each

    projections = group_by = order_by = page = path

    def aggregate(self, function: Token, path: ast.Path) -> ast.Aggregate:
        return ast.Aggregate(str(function).lower(), path)

    def ordering(self, path: ast.Path | ast.Aggregate, direction: Token | None) -> ast.Ordering:
        return ast.Ordering(path, direction is not None and direction.type == "DESCENDING")

    def expression(self, *operands: ast.Expression) -> ast.Or:
        return ast.Or(_flat(ast.Or, operands))

    def conjunction(self, *operands: ast.Expression) -> ast.And:
        return ast.And(_flat(ast.And, operands))

    def negated(self, operand: ast.Expression) -> ast.Not:
        return ast.Not(operand)

    def relation_test(self, path: ast.Path, criteria: ast.Expression | None) -> ast.RelationTest:
        return ast.RelationTest(path, criteria)

    def comparison(self, path: ast.Path, operator: Token, value: ast.Literal) -> ast.Comparison:
        word = str(operator).lower()
        return ast.Comparison(path, _OPERATORS.get(word, word), value)

    def membership(
        self, path: ast.Path, *rest: Token | tuple[ast.Literal, ...] | ast.Query
    ) -> ast.Membership:
        values = rest[-1]
        assert not isinstance(values, Token)  # noqa: S101 - the word NOT_IN comes before them
        return ast.Membership(path, values, negated=len(rest) > 1)

    def values(self, *values: ast.Literal | None) -> tuple[ast.Literal, ...]:
        return tuple(value for value in values if value is not None)

    def quoted(self, token: Token) -> ast.Literal:
        return ast.Literal(str(token[1:-1]), quoted=True)

    def bare(self, token: Token) -> ast.Literal:
        return ast.Literal(str(token), quoted=False)

    def step(self, name: Token, cast: Token | None) -> ast.Step:
        return ast.Step(str(name), str(cast) if cast is not None else None)


def _flat(
    kind: type[ast.And | ast.Or], operands: tuple[ast.Expression, ...]
) -> tuple[ast.Expression, ...]:
    """Return *operands*, with those of the same kind replaced by their own operands.

    Some clients put parentheses around every pair. Long ones stay: to copy them again for each
    further pair would take time that grows with the square of the text.
    """
    flat: list[ast.Expression] = []
    for operand in operands:
        if isinstance(operand, kind) and len(operand.operands) <= _LONGEST_OPENED:
            flat.extend(operand.operands)
        else:
            flat.append(operand)
    return tuple(flat)
