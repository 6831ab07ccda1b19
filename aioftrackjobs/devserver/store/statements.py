"""The SQL of a model: its tables, their creation, and the few statements that write.

All of it depends on the model alone, so stores of the same model share it.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from aioftrackjobs.devserver.schema.model import Model
from aioftrackjobs.devserver.store.tables import ROW, build_tables

#: Statements to cache: more than clients use, and a bound for clients that vary them.
_KEPT = 4096
_DIALECT = sqlite.dialect(paramstyle="qmark")


class Statements:
    """Tables and statements for one model.

    Attributes:
        tables: By the name of the family's root type.
        creating: The statements that create all tables, in order.
    """

    def __init__(self, model: Model) -> None:
        metadata, self.tables = build_tables(model)
        self.creating = _creating(metadata)
        # Used by several threads: at worst a text is made twice.
        self._statements: dict[tuple[Any, ...], str] = {}

    def reading(self, table: str, key: tuple[str, ...]) -> str:
        """Return the statement that reads a row by *key*."""
        return self._cached(("read", table, key))

    def lowest(self, table: str, order: str, column: str) -> str:
        """Return the statement for *column* of the row with the lowest *order*."""
        return self._cached(("lowest", table, (), (order, column)))

    def highest(self, table: str, key: tuple[str, ...], column: str) -> str:
        """Return the statement for the highest *column* of the rows found by *key*."""
        return self._cached(("highest", table, key, (column,)))

    def inserting(self, table: str, columns: tuple[str, ...]) -> str:
        """Return the statement that adds a row with the given *columns*."""
        return self._cached(("insert", table, columns))

    def updating(self, table: str, key: tuple[str, ...], columns: tuple[str, ...]) -> str:
        """Return the statement that changes *columns* of the rows found by *key*."""
        return self._cached(("update", table, key, columns))

    def deleting(self, table: str, key: tuple[str, ...]) -> str:
        """Return the statement that removes the rows found by *key*."""
        return self._cached(("delete", table, key))

    def _cached(self, wanted: tuple[Any, ...]) -> str:
        statement = self._statements.get(wanted)
        if statement is None:
            statement = self._statement(*wanted)
            if len(self._statements) >= _KEPT:
                self._statements.clear()
            self._statements[wanted] = statement
        return statement

    def _statement(
        self, verb: str, table_name: str, first: tuple[str, ...], columns: tuple[str, ...] = ()
    ) -> str:
        """Return a statement's text, its parameters in the order of *columns*, then *first*."""
        table = self.tables[table_name]
        found_by = [table.c[name] == sa.bindparam(f"key_{name}") for name in first]
        match verb:
            case "read":
                return _text(sa.select(table).where(*found_by))
            case "lowest":
                order, column = (table.c[name] for name in columns)
                lowest = _text(sa.select(column).order_by(order, table.c[ROW]))
                return f"{lowest} LIMIT 1"  # Core would make the number a parameter
            case "highest":
                return _text(sa.select(sa.func.max(table.c[columns[0]])).where(*found_by))
            case "insert":
                return _insert_text(table, first)
            case "update":
                return _update_text(table, first, columns)
            case _:
                return _text(sa.delete(table).where(*found_by))


def _creating(metadata: sa.MetaData) -> tuple[str, ...]:
    """Return the statements that SQLAlchemy sends to a database to create the tables."""
    statements: list[str] = []

    def collect(statement: Any, *_: Any, **__: Any) -> None:
        statements.append(_text(statement))

    metadata.create_all(sa.create_mock_engine("sqlite://", collect), checkfirst=False)
    return tuple(statements)


def _text(statement: sa.Executable) -> str:
    compiled: Any = statement
    return str(compiled.compile(dialect=_DIALECT))


def _insert_text(table: sa.Table, columns: tuple[str, ...]) -> str:
    quote = _DIALECT.identifier_preparer.quote
    names = ", ".join(quote(name) for name in columns)
    placeholders = ", ".join("?" * len(columns))
    return f"INSERT INTO {quote(table.name)} ({names}) VALUES ({placeholders})"


def _update_text(table: sa.Table, key: tuple[str, ...], columns: tuple[str, ...]) -> str:
    # Not by Core, which would put the columns in the table's order.
    quote = _DIALECT.identifier_preparer.quote
    changes = ", ".join(f"{quote(name)} = ?" for name in columns)
    found_by = " AND ".join(f"{quote(name)} = ?" for name in key)
    return f"UPDATE {quote(table.name)} SET {changes} WHERE {found_by}"
