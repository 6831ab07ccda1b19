"""What a transaction has changed, whatever did it: operations, defaults, cascades and triggers.

Temporary triggers, which belong to the connection and not to the database, note each row with its
values before the change. The values after it are read at the end of the transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import sqlalchemy as sa
from pydantic_core import from_json

_ROW, _TYPE = "_row", "_type"
#: Arguments that any SQLite takes in one call of a function.
_ARGUMENTS = 100
#: SQL for the rows of a table that were changed, as they are now, each with its number first.
_CHANGED = f'SELECT * FROM "{{0}}" WHERE "{_ROW}" IN (SELECT row FROM _change WHERE name = ?)'
_SETUP = (
    "PRAGMA temp_store = MEMORY",
    "CREATE TEMP TABLE _change (name TEXT, row INTEGER, before TEXT)",
)


@dataclass(frozen=True, slots=True)
class Change:
    """One row that a transaction has created, changed or deleted.

    Attributes:
        table: Its table.
        before: Its values at the beginning; None if it was created.
        after: Its values at the end; None if it was deleted.
    """

    table: str
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None


class ChangeLog:
    """The changes of entities in the running transaction of one connection."""

    def __init__(
        self,
        driver: sqlite3.Connection,
        tables: Mapping[str, sa.TableClause],
        ignored: Iterable[str],
    ) -> None:
        self._driver = driver
        self._columns: dict[str, list[str]] = {}
        for statement in _SETUP:
            driver.execute(statement)
        for name in tables.keys() - ignored:
            columns = [column.name for column in tables[name].columns]
            if _TYPE not in columns:
                continue
            self._columns[name] = columns
            before = _json_of(map(_old, tables[name].columns))
            for event, which, values in (
                ("INSERT", "NEW", "NULL"),
                ("UPDATE", "OLD", before),
                ("DELETE", "OLD", before),
            ):
                driver.execute(
                    f'CREATE TEMP TRIGGER "{name}_notes_{event.lower()}" '
                    f'AFTER {event} ON main."{name}" BEGIN INSERT INTO _change '
                    f"VALUES ('{name}', {which}.\"{_ROW}\", {values}); END"
                )

    def take(self) -> Iterator[Change]:
        """Yield what was changed since the last call, in order; then it is forgotten."""
        first: dict[tuple[str, int], Mapping[str, Any] | None] = {}
        for name, row, before in self._driver.execute("SELECT name, row, before FROM _change"):
            if (name, row) not in first:
                first[name, row] = before and self._row(name, [*chain(*from_json(before))])
        after = {
            (name, values[0]): self._row(name, values)
            for name in dict.fromkeys(name for name, _ in first)
            for values in self._driver.execute(_CHANGED.format(name), (name,))
        }
        if first:
            self._driver.execute("DELETE FROM _change")
        for place, before in first.items():
            now = after.get(place)
            if before != now:
                yield Change(place[0], before, now)

    def _row(self, name: str, values: Sequence[Any]) -> dict[str, Any]:
        texts = [value.decode() if isinstance(value, bytes) else value for value in values]
        return dict(zip(self._columns[name], texts, strict=True))


def _old(column: sa.ColumnClause[Any]) -> str:
    value = f'OLD."{column.name}"'
    if type(column.type) in {sa.Text, sa.Integer, sa.Float}:
        return value
    return f"CASE typeof({value}) WHEN 'blob' THEN CAST({value} AS TEXT) ELSE {value} END"


def _json_of(columns: Iterable[str]) -> str:
    """Return SQL for a list of lists of the values in *columns*."""
    every = list(columns)
    starts = range(0, len(every), _ARGUMENTS)
    parts = (", ".join(every[start : start + _ARGUMENTS]) for start in starts)
    return f"json_array({', '.join(f'json_array({part})' for part in parts)})"
