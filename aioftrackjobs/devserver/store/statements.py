"""The SQL of a model: its tables, their creation, and the few statements that write.

All of it depends on the model alone, so stores of the same model share it.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from aioftrackjobs.devserver.schema.model import Model
from aioftrackjobs.devserver.store.tables import ROW, build_tables

Verb: TypeAlias = Literal["read", "lowest", "highest", "insert", "update", "delete"]
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
        self._texts: dict[tuple[Any, ...], str] = {}

    def text(
        self, verb: Verb, table: str, key: tuple[str, ...], columns: tuple[str, ...] = ()
    ) -> str:
        """Return a statement's text, its parameters in the order of *columns*, then *key*.

        Args:
            verb: What it does. ``lowest`` sorts by the first of two columns, and reads the second.
            table: The table.
            key: The columns by which it finds rows.
            columns: The columns that it reads or writes; ``read`` reads all of them.
        """
        wanted = (verb, table, key, columns)
        text = self._texts.get(wanted)
        if text is None:
            text = _text_of(self.tables[table], verb, key, columns)
            if len(self._texts) >= _KEPT:
                self._texts.clear()
            self._texts[wanted] = text
        return text


def _text_of(table: sa.Table, verb: Verb, key: tuple[str, ...], columns: tuple[str, ...]) -> str:
    found_by = [table.c[name] == sa.bindparam(f"key_{name}") for name in key]
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
            return _insert_text(table, columns)
        case "update":
            return _update_text(table, key, columns)
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
