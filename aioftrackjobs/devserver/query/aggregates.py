"""Queries that group: plain rows of counts and sums (docs/protocol.md, section 4.8)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa

from aioftrackjobs.devserver.api_errors import ValidationError
from aioftrackjobs.devserver.query.ast import Aggregate, Ordering, Path, Query
from aioftrackjobs.devserver.schema.model import Attribute

Column = sa.ColumnElement[Any]

_AGGREGATES: Mapping[str, Callable[[Any], Column]] = {
    "count": sa.func.count,
    "sum": sa.func.sum,
    "avg": sa.func.avg,
    "min": sa.func.min,
    "max": sa.func.max,
}
_OF_NUMBERS = frozenset({"sum", "avg"})
_NUMBER = Attribute("", "number")


class Groups:
    """The columns of one query that groups.

    Attributes:
        keys: What it groups by.
        columns: What it selects, functions first, by the names they have in a row; each with the
            attribute that its values are of.
    """

    def __init__(self, query: Query, value: Callable[[Path], tuple[Attribute, Column]]) -> None:
        self._value = value
        grouped = {path: value(path) for path in query.group_by}
        self.keys: list[Column] = [column for _, column in grouped.values()]
        self.columns: dict[str, tuple[Attribute, Column]] = {}
        for projection in query.projections or ():
            if isinstance(projection, Aggregate):
                name = f"{projection.function}_{_name(projection.path, '_')}"
                self.columns[name] = self._aggregate(projection)
            elif projection not in grouped:
                raise ValidationError(
                    f"'{_name(projection, '.')}' can be selected if it is grouped by."
                )
        self.columns |= {_name(path, "."): found for path, found in grouped.items()}

    def _aggregate(self, aggregate: Aggregate) -> tuple[Attribute, Column]:
        function = _AGGREGATES.get(aggregate.function)
        if function is None:
            raise ValidationError(f"'{aggregate.function}' is not one of {', '.join(_AGGREGATES)}.")
        attribute, column = self._value(aggregate.path)
        if aggregate.function in _OF_NUMBERS and attribute.type not in {"integer", "number"}:
            raise ValidationError(
                f"'{aggregate.function}' takes numbers, which '{aggregate.path[-1].name}' is not."
            )
        return attribute if aggregate.function in {"min", "max"} else _NUMBER, function(column)

    def order_key(self, ordering: Ordering) -> Column:
        """Return the column of a key to sort by: a group or a function."""
        path = ordering.path
        if isinstance(path, Aggregate):
            return self._aggregate(path)[1]
        found = self.columns.get(_name(path, "."))
        if found is None:
            raise ValidationError(
                "A query that groups can be sorted by its groups and its functions only."
            )
        return found[1]


def _name(path: Path, separator: str) -> str:
    return separator.join(step.name for step in path)
