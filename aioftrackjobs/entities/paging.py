"""The rows of a query, page by page, while rows are created, changed and deleted.

A program that reads Jobs and changes them on the way takes rows out of the query's result. If each
page began at a position, as many rows as were taken out would be skipped. So:

- A query without an order of its own continues after the key of the last row. Only its first page
  is read as the query says, so that it begins with the row that :meth:`Query.first` returns.
- A query with an order, a limit or an offset continues at a position, if the row before it still is
  the last one that was read. If not, the keys of all its rows are read, and then the rows.

Each row is returned once, if it meets the criteria when its page is read.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from aioftrackjobs.background import SafeLogger
from aioftrackjobs.entities.context import EntityContext
from aioftrackjobs.errors import MalformedResponseError, ServerError
from aioftrackjobs.models import Entity, remote_value
from aioftrackjobs.protocol.paging import Clauses, PagedExpression, find_clauses
from aioftrackjobs.protocol.query import PAGE_SIZE, key_criteria
from aioftrackjobs.protocol.values import Reference

logger: SafeLogger = SafeLogger(__name__)

#: Keys that one request reads. The fewer requests, the less can change between them.
_KEYS_PAGE = 10_000

#: The values of a primary key.
Key: TypeAlias = tuple[Any, ...]


async def fetch_rows(
    context: EntityContext, text: str, *, offset: int = 0, size: int = PAGE_SIZE
) -> list[Entity]:
    """Return the rows that *text*, a query without paging clauses, finds from *offset* on.

    It is for rows that the query names, and which thus do not move.
    """
    rows: list[Entity] = []
    following: int | None = offset
    while following is not None:
        page, following = await _fetch(context, text, following, size)
        rows += page
        if not page:
            break
    return rows


async def fetch_keys(context: EntityContext, clauses: Clauses, *, offset: int = 0) -> list[Key]:
    """Return the keys of the rows of a query from *offset* on, in its order, each of them once."""
    names = context.types.decoding_model(clauses.entity_type).primary_key_attributes
    query = clauses.keys(names)
    try:
        rows = await fetch_rows(context, query, offset=offset, size=_KEYS_PAGE)
    except ServerError:  # how many rows a server returns at most is not known
        rows = await fetch_rows(context, query, offset=offset)
    keys = [tuple([remote_value(row, name) for name in names]) for row in rows]
    return list(dict.fromkeys(keys))


async def _fetch(
    context: EntityContext, text: str, offset: int, size: int
) -> tuple[list[Entity], int | None]:
    page, following = await context.fetch_page(f"{text} offset {offset} limit {size}")
    if following is not None and following <= offset:
        raise MalformedResponseError(
            f"paging would never end: offset {offset} is followed by {following}", status=200
        )
    return page, following


class RowReader:
    """Reads the rows of one query.

    Which method reads the next page changes on the way::

        _read_first
          ├─ no order, or that of the key ──> _read_after_key
          │                                     └─ the server cannot compare keys ─┐
          └─ an order, a limit or an offset ──────────────> _read_at_position <────┘
                                                              └─ rows have moved ──> _read_unread

    It is no generator, which would have to be closed when a loop ends early.

    Args:
        context: The session's entities.
        paged: The query, which has a ``select``.
    """

    def __init__(self, context: EntityContext, paged: PagedExpression) -> None:
        self._context = context
        self._paged = paged
        self._rows_left = paged.limit
        self._read_next: Callable[[], Awaitable[list[Entity]]] | None = self._read_first
        self._clauses: Clauses | None = None
        self._names: tuple[str, ...] = ()
        self._seen: set[Key] = set()
        self._last: Entity | None = None
        self._key: Key = ()
        self._compares_keys = False
        self._text = paged.text
        self._position = paged.offset
        self._unread: list[Key] = []

    async def page(self) -> list[Entity]:
        """Return the rows of the next page; none after the last one."""
        while self._read_next is not None and self._rows_left != 0:
            if rows := await self._read_next():
                return rows
        return []

    def _size(self) -> int:
        return PAGE_SIZE if self._rows_left is None else min(PAGE_SIZE, self._rows_left)

    def _keys_of(self, rows: list[Entity]) -> list[Key]:
        parts = [[remote_value(row, name) for row in rows] for name in self._names]
        return list(zip(*parts, strict=True))

    def _fresh(self, rows: list[Entity]) -> list[Entity]:
        """Return those of *rows* that were not read yet."""
        keys = self._keys_of(rows)
        return [row for row, key in zip(rows, keys, strict=True) if key not in self._seen]

    def _take(self, rows: list[Entity]) -> list[Entity]:
        """Drop what is beyond the limit, note what was read, and return the rest."""
        if self._rows_left is not None:
            del rows[self._rows_left :]
            self._rows_left -= len(rows)
        self._seen.update(self._keys_of(rows))
        return rows

    async def _read_first(self) -> list[Entity]:
        text, offset, limit = self._paged
        rows, following = await _fetch(self._context, text, offset, self._size())
        if following is None or not rows or (limit is not None and len(rows) >= limit):
            self._read_next = None
            return rows[:limit]
        self._position, self._last = following, rows[-1]
        self._read_next = self._read_at_position
        clauses = self._clauses = find_clauses(text)
        if clauses is not None:
            model = self._context.types.decoding_model(clauses.entity_type)
            self._names = model.primary_key_attributes
            if limit is None and clauses.is_ordered_by(self._names):
                self._read_next, (self._key,) = self._read_after_key, self._keys_of(rows[-1:])
            elif limit is None and not offset and not clauses.order:
                self._read_next, self._position = self._read_after_key, 0
        return self._take(rows)

    async def _read_after_key(self) -> list[Entity]:
        """Read the rows whose key is greater than the last one, sorted by their key."""
        assert self._clauses is not None  # noqa: S101 - else it reads at positions
        key = self._key
        text = self._clauses.after(tuple(zip(self._names, key, strict=bool(key))), self._names)
        try:
            rows, following = await _fetch(self._context, text, 0, PAGE_SIZE)
        except ServerError:
            if self._compares_keys or not key:
                raise
            # Keys are texts; that ">" compares texts is likely, but not documented.
            logger.info(
                "the server cannot compare keys of %(entity_type)s",
                entity_type=self._clauses.entity_type,
            )
            self._clauses = self._clauses._replace(order=", ".join(self._names))
            self._text = self._clauses.after((), self._names)
            self._read_next = self._read_at_position
            return []
        if following is None or not rows:
            self._read_next = None
        if not rows:
            return rows
        self._compares_keys = bool(key)
        self._last = rows[-1]
        (self._key,) = self._keys_of(rows[-1:])
        if self._key == key:
            raise MalformedResponseError(f"paging would never end: {text}", status=200)
        fresh = self._fresh(rows)
        if not self._compares_keys:  # it may have to go on at positions
            self._position += len(rows)
            self._seen.update(self._keys_of(fresh))
        return fresh

    async def _read_at_position(self) -> list[Entity]:
        """Read the rows from the position on, if the last row still is just before it.

        If not, rows have moved; and without the clauses nothing can be done about that.
        """
        begin, size = self._position - 1, self._size() + 1
        rows, following = await _fetch(self._context, self._text, begin, size)
        if rows and rows[0] is self._last:
            del rows[0]
        elif self._clauses is not None:
            keys = await fetch_keys(self._context, self._clauses, offset=self._paged.offset)
            self._unread = [key for key in keys if key not in self._seen]
            self._read_next = self._read_unread
            return []
        if following is None or not rows:
            self._read_next = None
        else:
            self._position, self._last = following, rows[-1]
        if self._clauses is not None:
            rows = self._fresh(rows)
        return self._take(rows)

    async def _read_unread(self) -> list[Entity]:
        """Read the next rows with unread keys."""
        assert self._clauses is not None  # noqa: S101 - it has found the keys
        keys = self._unread[:PAGE_SIZE]
        if not keys:
            self._read_next = None
            return []
        references = [
            Reference(self._clauses.entity_type, tuple(zip(self._names, key, strict=True)))
            for key in keys
        ]
        text = self._clauses.among(key_criteria(references))
        rows = await fetch_rows(self._context, text)
        by_key = dict(zip(self._keys_of(rows), rows, strict=True))
        del self._unread[:PAGE_SIZE]
        return self._take([by_key[key] for key in keys if key in by_key])
