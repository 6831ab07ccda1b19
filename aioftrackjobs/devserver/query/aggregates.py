"""Queries that group: plain rows of counts and sums (docs/protocol.md, section 4.8)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa

from aioftrackjobs.devserver.api_errors import ValidationError
from aioftrackjobs.devserver.query.ast import Aggregate, Ordering, Path, Query
from aioftrackjobs.devserver.schema.model import Attribute
from aioftrackjobs.devserver.schema.values import encode

Column = sa.ColumnElement[Any]

_AGGREGATES: Mapping[str, Callable[[Any], Column]] = {
    "count": sa.func.count,
    "sum": sa.func.sum,
    "avg": sa.func.avg,
    "min": sa.func.min,
    "max": sa.func.max,
}
_OF_NUMBERS = frozenset({"sum", "avg"})


class AsSent(sa.types.TypeDecorator[Any]):
    """A column whose values are read in wire form: dates as objects, flags as booleans."""

    impl = sa.types.NullType
    cache_ok = True

    def __init__(self, kind: str, form: str | None) -> None:
        super().__init__()
        self.kind = kind
        self.form = form

    def process_result_value(self, value: Any, _: sa.Dialect) -> Any:
        """Return the wire form of a stored *value*."""
        return encode(Attribute("", self.kind, self.form), value)


class Groups:
    """The columns of one query that groups.

    Attributes:
        keys: What it groups by.
        columns: What it selects, functions first, by the names they have in a row.
    """

    def __init__(self, query: Query, value: Callable[[Path], tuple[Attribute, Column]]) -> None:
        self._query = query
        self._value = value
        grouped = {path: value(path) for path in query.group_by}
        self.keys = {path: column for path, (_, column) in grouped.items()}
        self.columns = self._columns(grouped)

    def _columns(self, grouped: Mapping[Path, tuple[Attribute, Column]]) -> dict[str, Column]:
        columns: dict[str, Column] = {}
        for projection in self._query.projections or ():
            if isinstance(projection, Aggregate):
                columns[_name_of(projection)] = self._aggregate(projection)
            elif projection not in self.keys:
                raise ValidationError(
                    f"'{_name(projection, '.')}' can be selected if it is grouped by."
                )
        for path, (attribute, column) in grouped.items():
            columns[_name(path, ".")] = _as_sent(attribute, column)
        return columns

    def _aggregate(self, aggregate: Aggregate) -> Column:
        function = _AGGREGATES.get(aggregate.function)
        if function is None:
            raise ValidationError(f"'{aggregate.function}' is not one of {', '.join(_AGGREGATES)}.")
        attribute, column = self._value(aggregate.path)
        if aggregate.function in _OF_NUMBERS and attribute.type not in {"integer", "number"}:
            raise ValidationError(
                f"'{aggregate.function}' takes numbers, which '{aggregate.path[-1].name}' is not."
            )
        result = function(column)
        return _as_sent(attribute, result) if aggregate.function in {"min", "max"} else result

    def order(self) -> list[Column]:
        """Return the keys to sort by: those of the query, then the groups."""
        keys = [self._order_key(each) for each in self._query.order_by]
        return [*keys, *self.keys.values()]

    def _order_key(self, ordering: Ordering) -> Column:
        path = ordering.path
        if isinstance(path, Aggregate):
            column: Column | None = self._aggregate(path)
        else:
            column = self.keys.get(path)
            column = self.columns.get(_name(path, ".")) if column is None else column
        if column is None:
            raise ValidationError(
                "A query that groups can be sorted by its groups and its functions only."
            )
        return column.desc() if ordering.descending else column.asc()


def _as_sent(attribute: Attribute, column: Column) -> Column:
    return sa.type_coerce(column, AsSent(attribute.type, attribute.format))


def _name_of(aggregate: Aggregate) -> str:
    return f"{aggregate.function}_{_name(aggregate.path, '_')}"


def _name(path: Path, separator: str) -> str:
    return separator.join(step.name for step in path)
