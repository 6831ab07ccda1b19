"""Compiling a syntax tree to SQL, with every value a bound parameter.

What the language leaves open is as in SQL: a comparison with a missing value is neither true nor
false, except the null tests; ``any`` and ``has`` are always true or false.
"""

from __future__ import annotations

import operator as operators
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import sqlalchemy as sa
from pydantic_core import to_json

from aioftrackjobs.devserver.api_errors import ValidationError
from aioftrackjobs.devserver.limits import Clock, unlimited
from aioftrackjobs.devserver.query import ast
from aioftrackjobs.devserver.query.aggregates import Groups
from aioftrackjobs.devserver.query.binder import BoundPath, bound_relations, bound_value
from aioftrackjobs.devserver.query.joins import Condition, Scope, Tables
from aioftrackjobs.devserver.query.literals import (
    FIRST_DATE,
    Scalar,
    date_of,
    like_pattern,
    value_of,
)
from aioftrackjobs.devserver.schema.model import Attribute, Model
from aioftrackjobs.devserver.store.tables import ROW

#: SQLite refuses expressions nested deeper than 1000; clients write long flat lists.
_WIDEST = 100
#: Conditions in a query, and as how many each relation counts: SQL of more takes seconds to make,
#: in which nothing can interrupt SQLAlchemy.
_MOST_CONDITIONS, _RELATION = 1000, 5
#: Conditions of a query that keeps other requests waiting.
_FAST = 500
#: Comparisons with the same paths that become a list.
_GROUPED = 10

_COMPARE: Mapping[str, Callable[[Any, Any], Condition]] = {
    "is": operators.eq,
    "is_not": operators.ne,
    "<": operators.lt,
    "<=": operators.le,
    ">": operators.gt,
    ">=": operators.ge,
}

#: The paths of values by which entities are found.
Key: TypeAlias = tuple[ast.Path, ...]


class Compiler:
    """Compiles queries against one model and its tables."""

    def __init__(self, model: Model, tables: Tables, clock: Clock = unlimited) -> None:
        self._clock = clock
        self._left = _MOST_CONDITIONS
        self._model = model
        self._tables = tables

    def _count(self, conditions: int) -> None:
        """Check the time, and that there are not too many conditions."""
        self._clock.check()
        self._left -= conditions
        if self._left < _MOST_CONDITIONS - _FAST and self._clock.is_short:
            raise self._clock.error()
        if self._left < 0:
            raise ValidationError(
                f"A query takes {_MOST_CONDITIONS} conditions at most; a relation counts as "
                f"{_RELATION}, a list after 'in' as one."
            )

    def select(self, query: ast.Query, columns: Sequence[str]) -> sa.Select[Any]:
        """Return the statement for the *columns* of what *query* finds, sorted and paged.

        It reads one row more than the limit, which shows whether there is a next page.
        """
        scope = self._scope(query)
        statement: sa.Select[Any] = sa.select(*(scope.source.c[name] for name in columns))
        statement = self._narrowed(statement, query, scope)
        return _paged(statement.order_by(*self._order(query, scope)), query, more=1)

    def select_groups(self, query: ast.Query) -> tuple[sa.Select[Any], dict[str, Attribute]]:
        """Return the statement of a query that groups, and of which attribute its columns are."""
        scope = self._scope(query)
        groups = Groups(query, lambda path: self._value(path, scope))
        columns = [column.label(name) for name, (_, column) in groups.columns.items()]
        order = [_sorted(groups.order_key(each), each) for each in query.order_by]
        statement = self._narrowed(sa.select(*columns), query, scope)
        statement = statement.group_by(*groups.keys).order_by(*order, *groups.keys)
        attributes = {name: attribute for name, (attribute, _) in groups.columns.items()}
        return _paged(statement, query, more=1), attributes

    def _scope(self, query: ast.Query) -> Scope:
        return Scope(self._model, self._tables, self._model.type(query.entity_type))

    def _narrowed(
        self, statement: sa.Select[Any], query: ast.Query, scope: Scope
    ) -> sa.Select[Any]:
        statement = statement.select_from(scope.source).where(scope.is_of_type())
        if query.criteria is not None:
            statement = statement.where(self._condition(query.criteria, scope))
        return statement

    def _order(self, query: ast.Query, scope: Scope) -> Iterator[sa.ColumnElement[Any]]:
        for ordering in query.order_by:
            if isinstance(ordering.path, ast.Aggregate):
                raise ValidationError("Functions sort only what is grouped, by 'group by'.")
            yield _sorted(self._value(ordering.path, scope)[1], ordering)
        yield scope.source.c[ROW]

    def _value(self, path: ast.Path, scope: Scope) -> tuple[Attribute, sa.ColumnElement[Any]]:
        """Return the attribute and the column of *path*, for sorting, grouping and subqueries."""
        self._count(_RELATION * len(path))
        bound = bound_value(self._model, scope.entity_type, path)
        value = scope.value_beyond(bound.hops, lambda at: _column(bound, at))
        return bound.attribute, value

    def _condition(self, expression: ast.Expression, scope: Scope) -> Condition:
        self._count(1)
        match expression:
            case ast.And(operands=operands):
                return _joined("AND", [self._condition(each, scope) for each in operands])
            case ast.Or(operands=operands):
                others, groups = _grouped(operands)
                conditions = [self._condition(each, scope) for each in others]
                return _joined("OR", [*conditions, *self._in_groups(groups, scope)])
            case ast.Not(operand=operand):
                return sa.not_(self._condition(operand, scope).self_group())
            case ast.RelationTest(path=path, criteria=criteria):
                self._count(_RELATION * len(path))
                return scope.leads_to(
                    bound_relations(self._model, scope.entity_type, path),
                    lambda at: sa.true() if criteria is None else self._condition(criteria, at),
                )
            case ast.Comparison() | ast.Membership():
                return self._test_of_value(expression, scope)

    def _test_of_value(self, test: ast.Comparison | ast.Membership, scope: Scope) -> Condition:
        self._count(_RELATION * (len(test.path) - 1))
        bound = bound_value(self._model, scope.entity_type, test.path)

        def at_end(at: Scope) -> Condition:
            column = _column(bound, at)
            if isinstance(test, ast.Comparison):
                return _compare(bound.attribute, column, test)
            if not isinstance(test.values, ast.Query):
                return _in_list(bound.attribute, column, test.values, negated=test.negated)
            keys = self._subquery(test.values)
            return column.not_in(keys) if test.negated else column.in_(keys)

        return scope.leads_to(bound.hops, at_end)

    def _in_groups(
        self, groups: Mapping[Key, list[ast.Expression]], scope: Scope
    ) -> Iterator[Condition]:
        """Yield the conditions of *groups*: that values are those of one of its members."""
        for paths, members in groups.items():
            rows = [_key_in(member) or {} for member in members]
            bound = [bound_value(self._model, scope.entity_type, path) for path in paths]
            if len(paths) == 1:
                values = tuple(row[paths[0]] for row in rows)
                yield self._test_of_value(ast.Membership(paths[0], values, negated=False), scope)
            elif any(each.attribute.type == "variable" for each in bound):
                yield from (self._condition(member, scope) for member in members)
            else:
                keyed = list(zip(paths, bound, strict=True))
                listed = [[value_of(of.attribute, row[at]) for at, of in keyed] for row in rows]
                row = _listed(listed)
                parts = [sa.func.json_extract(row.c.value, f"$[{n}]") for n in range(len(bound))]
                columns = [_column(each, scope) for each in bound]
                yield sa.tuple_(*columns).in_(sa.select(*parts))

    def _subquery(self, query: ast.Query) -> sa.Select[Any]:
        projections = query.projections or ()
        if len(projections) != 1 or isinstance(projections[0], ast.Aggregate):
            raise ValidationError("A query inside 'in' selects exactly one attribute.")
        scope = self._scope(query)
        _, value = self._value(projections[0], scope)
        statement = self._narrowed(sa.select(value), query, scope).where(value.is_not(None))
        if query.limit is None and query.offset is None:
            return statement
        return _paged(statement.order_by(*self._order(query, scope)), query)


def _paged(statement: sa.Select[Any], query: ast.Query, *, more: int = 0) -> sa.Select[Any]:
    """Return *statement* with the page of *query*, and as many rows *more*."""
    if query.limit is not None:
        statement = statement.limit(min(query.limit, 2**62) + more)
    return statement.offset(query.offset) if query.offset else statement


def _sorted(column: sa.ColumnElement[Any], ordering: ast.Ordering) -> sa.ColumnElement[Any]:
    return column.desc() if ordering.descending else column.asc()


def _column(path: BoundPath, scope: Scope) -> sa.ColumnElement[Any]:
    """Return the column of the value of *path*; *scope* is where its relations have led."""
    name = path.attribute.name
    if path.through is None:
        return scope.source.c[name]
    return scope.value_beyond([path.through], lambda inner: inner.source.c[name])


def _grouped(
    operands: tuple[ast.Expression, ...],
) -> tuple[list[ast.Expression], dict[Key, list[ast.Expression]]]:
    """Return what of *operands* stays, and groups of those that ask for values at the same paths.

    Clients find entities by a long list of keys, each a comparison, or several if a key has
    several parts. As one parameter it costs little, and needs no statement of its own.
    """
    others: list[ast.Expression] = []
    groups: dict[Key, list[ast.Expression]] = {}
    for operand in operands:
        key = tuple(_key_in(operand) or ())
        groups.setdefault(key, []).append(operand)
    for key, members in list(groups.items()):
        if not key or len(members) < _GROUPED:
            others += groups.pop(key)
    return others, groups


def _key_in(operand: ast.Expression) -> dict[ast.Path, ast.Literal] | None:
    """Return the values by path that *operand* asks for, if it asks for nothing else."""
    comparisons = operand.operands if isinstance(operand, ast.And) else (operand,)
    row: dict[ast.Path, ast.Literal] = {}
    for each in comparisons:
        if not isinstance(each, ast.Comparison) or each.operator != "is" or each.path in row:
            return None
        if each.value.is_null or "\0" in each.value.text:
            return None
        if len(each.path) > 1 and len(comparisons) > 1:
            return None
        row[each.path] = each.value
    return row


def _joined(word: str, conditions: list[Condition]) -> Condition:
    """Join *conditions* by AND or OR, long lists in halves so that the expression stays shallow.

    The halves are joined by a custom operator: SQLAlchemy would flatten lists of the same
    operator again.
    """
    if len(conditions) <= _WIDEST:
        return sa.and_(*conditions) if word == "AND" else sa.or_(*conditions)
    middle = len(conditions) // 2
    left, right = _joined(word, conditions[:middle]), _joined(word, conditions[middle:])
    return left.self_group().bool_op(word)(right.self_group())


def _compare(
    attribute: Attribute, column: sa.ColumnElement[Any], comparison: ast.Comparison
) -> Condition:
    literal, operator = comparison.value, comparison.operator
    if literal.is_null:
        if operator not in {"is", "is_not"}:
            raise ValidationError(f"Nothing can be compared with 'none' by '{operator}'.")
        return column.is_(None) if operator == "is" else column.is_not(None)
    if operator in {"like", "not_like"}:
        # Lists are kept as bytes, which are like no text.
        text = sa.cast(column, sa.Text) if attribute.type == "variable" else column
        found = text.like(sa.literal(like_pattern(literal)), escape="\\")
        return found if operator == "like" else sa.not_(found)
    if attribute.type == "variable":
        return _compare_untyped(column, operator, value_of(attribute, literal), date_of(literal))
    return _COMPARE[operator](column, sa.literal(value_of(attribute, literal)))


def _compare_untyped(
    column: sa.ColumnElement[Any], operator: str, wanted: Scalar, date: bytes | None
) -> Condition:
    """Return the condition on a value of any type; *date* is *wanted* as a date, if it is one."""
    values = [wanted] if date is None else [wanted, date]
    if operator == "is":
        return sa.or_(*(column == sa.literal(each) for each in values))
    if operator == "is_not":
        return sa.and_(*(column != sa.literal(each) for each in values))
    # To SQLite any text is greater than any number, and any bytes than any text.
    kinds = ("text",) if isinstance(wanted, str) else ("integer", "real")
    compare = _COMPARE[operator]
    ordered = sa.and_(sa.func.typeof(column).in_(kinds), compare(column, sa.literal(wanted)))
    if date is None:
        return ordered
    is_date = column >= sa.literal(FIRST_DATE)
    return sa.or_(ordered, sa.and_(is_date, compare(column, sa.literal(date))))


def _in_list(
    attribute: Attribute,
    column: sa.ColumnElement[Any],
    literals: tuple[ast.Literal, ...],
    *,
    negated: bool,
) -> Condition:
    """Return the condition for a list, whose length does not change the statement's text."""
    listed = [value_of(attribute, each) for each in literals if not each.is_null]
    if attribute.type == "variable":
        listed += [date for each in literals if (date := date_of(each)) is not None]
    keys: Any = listed
    # SQLite's JSON has no texts with a null character, and no bytes.
    if not any(
        isinstance(each, bytes) or (isinstance(each, str) and "\0" in each) for each in listed
    ):
        keys = sa.select(_listed(listed).c.value)
    with_null = any(each.is_null for each in literals)
    if negated:
        missing = column.not_in(keys)
        return sa.and_(column.is_not(None), missing) if with_null else missing
    found = column.in_(keys)
    return sa.or_(column.is_(None), found) if with_null else found


def _listed(values: Sequence[Any]) -> sa.TableValuedAlias:
    """Return a table with one row for each of *values*, which are one parameter."""
    return sa.func.json_each(sa.literal(to_json(values).decode())).table_valued("value")
