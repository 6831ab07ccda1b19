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

import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any, TypeAlias

from aioftrackjobs.entities.context import EntityContext
from aioftrackjobs.errors import MalformedResponseError, ServerError
from aioftrackjobs.models import Entity, remote_value
from aioftrackjobs.protocol.paging import Clauses, PagedExpression, find_clauses
from aioftrackjobs.protocol.query import PAGE_SIZE, key_criteria
from aioftrackjobs.protocol.values import Reference

logger = logging.getLogger(__name__)

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

    Args:
        context: The session's entities.
        paged: The query, which has a ``select``.
    """

    def __init__(self, context: EntityContext, paged: PagedExpression) -> None:
        self._context = context
        self._paged = paged
        self._left = paged.limit
        self._names: tuple[str, ...] = ()
        self._seen: set[Key] = set()

    async def pages(self) -> AsyncIterator[Sequence[Entity]]:
        """Yield the rows, page by page."""
        if self._left == 0:
            return
        text, offset, limit = self._paged
        rows, following = await _fetch(self._context, text, offset, self._size())
        if following is None or not rows or (limit is not None and len(rows) >= limit):
            yield rows[:limit]
            return
        clauses = find_clauses(text)
        if clauses is not None:
            model = self._context.types.decoding_model(clauses.entity_type)
            self._names = model.primary_key_attributes
        self._take(rows)
        last = rows[-1]
        yield rows
        if clauses is not None and limit is None and clauses.is_ordered_by(self._names):
            rest = self._after_keys(clauses, last, self._key(last))
        elif clauses is not None and limit is None and not offset and not clauses.order:
            rest = self._after_keys(clauses, last)
        else:
            rest = self._at_positions(clauses, text, following, last)
        async for page in rest:
            yield page

    def _size(self) -> int:
        return PAGE_SIZE if self._left is None else min(PAGE_SIZE, self._left)

    def _take(self, rows: list[Entity]) -> None:
        """Drop what is beyond the limit, and note what was read."""
        if self._left is not None:
            del rows[self._left :]
            self._left -= len(rows)
        self._seen.update(map(self._key, rows))

    def _key(self, row: Entity) -> Key:
        return tuple([remote_value(row, name) for name in self._names])

    async def _after_keys(
        self, clauses: Clauses, last: Entity, key: Key = ()
    ) -> AsyncIterator[Sequence[Entity]]:
        """Yield the rows whose key is greater than *key*, but none again, sorted by their key.

        Args:
            clauses: The query.
            last: The row that was read last.
            key: Its key if the rows so far were sorted by it, else nothing.
        """
        count = self._paged.offset + len(self._seen) if key else 0
        is_understood = False
        while True:
            values = tuple(zip(self._names, key, strict=True)) if key else ()
            try:
                text = clauses.after(values, self._names)
                rows, following = await _fetch(self._context, text, 0, PAGE_SIZE)
            except ServerError:
                if is_understood or not key:
                    raise
                # Keys are texts; that ">" compares texts is likely, but not documented.
                logger.info("the server cannot compare keys of %s", clauses.entity_type)
                clauses = clauses._replace(order=", ".join(self._names))
                text = clauses.after((), self._names)
                async for page in self._at_positions(clauses, text, count, last):
                    yield page
                return
            if not rows:
                return
            is_understood = bool(key)
            last, before = rows[-1], key
            key = self._key(last)
            if key == before:
                raise MalformedResponseError(f"paging would never end: {text}", status=200)
            fresh = [row for row in rows if self._key(row) not in self._seen]
            if not is_understood:
                count += len(rows)
                self._seen.update(map(self._key, fresh))
            yield fresh
            if following is None:
                return

    async def _at_positions(
        self, clauses: Clauses | None, text: str, position: int, last: Entity
    ) -> AsyncIterator[Sequence[Entity]]:
        """Yield the rows of *text* from *position* on, if *last* still is just before it.

        If not, rows have moved; and without *clauses* nothing more can be done about that.
        """
        following: int | None = position
        while following is not None and self._left != 0:
            size = self._size() + 1
            rows, following = await _fetch(self._context, text, following - 1, size)
            if rows and rows[0] is last:
                del rows[0]
            elif clauses is not None:
                async for page in self._unread(clauses):
                    yield page
                return
            if not rows:
                return
            last = rows[-1]
            if clauses is not None:
                rows = [row for row in rows if self._key(row) not in self._seen]
            self._take(rows)
            yield rows

    async def _unread(self, clauses: Clauses) -> AsyncIterator[Sequence[Entity]]:
        """Yield the rows that were not read, found by their keys."""
        query, offset = clauses.keys(self._names), self._paged.offset
        try:
            found = await fetch_rows(self._context, query, offset=offset, size=_KEYS_PAGE)
        except ServerError:  # how many rows a server returns at most is not known
            found = await fetch_rows(self._context, query, offset=offset)
        keys = [key for key in dict.fromkeys(map(self._key, found)) if key not in self._seen]
        del found
        for start in range(0, len(keys), PAGE_SIZE):
            references = [
                Reference(clauses.entity_type, tuple(zip(self._names, key, strict=True)))
                for key in keys[start : start + PAGE_SIZE]
            ]
            rows = await fetch_rows(self._context, clauses.among(key_criteria(references)))
            by_key = {self._key(row): row for row in rows}
            ordered = [by_key[key] for key in keys[start : start + PAGE_SIZE] if key in by_key]
            self._take(ordered)
            yield ordered
            if self._left == 0:
                return
