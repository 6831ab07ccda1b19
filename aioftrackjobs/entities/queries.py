"""Queries and look-ups: results page by page, entities by key, more attributes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Generic, TypeVar, cast

import anyio

from aioftrackjobs.config.settings import require
from aioftrackjobs.entities.context import EntityContext
from aioftrackjobs.entities.paging import RowReader, fetch_rows
from aioftrackjobs.errors import (
    InvalidKeyError,
    MultipleResultsFoundError,
    NoResultFoundError,
    QueryParameterError,
)
from aioftrackjobs.models import Entity
from aioftrackjobs.protocol.paging import split_paging
from aioftrackjobs.protocol.query import (
    PAGE_SIZE,
    has_projections,
    key_criteria,
    select,
    target_type,
)
from aioftrackjobs.protocol.values import Reference, key_part

E = TypeVar("E", bound=Entity)
F = TypeVar("F", bound=Entity)


class Query(Generic[E]):
    """A query that is sent when you use it: with ``async for``, or one of its methods.

    ::

        query = session.query("Job where status is {status}", status="running").of(Job)
        async for job in query:  # one page of 500 rows after the other
            print(job.id, job.description)
        latest = await session.query("Job order by created_at desc").first()

    Each use sends the query again. The rows become entities; those that the session knows already
    get the new values. Without ``select``, a query loads the default attributes of its type.

    A loop may change and delete what it reads: each row is returned once, if it meets the criteria
    when its page is read.

    Attributes:
        expression: The text of the query.
    """

    def __init__(
        self, context: EntityContext, expression: str, model: type[E] | None = None
    ) -> None:
        self._context = context
        self._model = model
        self.expression = expression

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.expression!r})"

    def of(self, model: type[F]) -> Query[F]:
        """Return the same query with rows of the class *model*, for type checkers and at run time.

        Args:
            model: A model of this package, or your own class derived from :class:`Entity`. The
                session uses your class for its entity type from now on.

        Raises:
            EntityError: *model* cannot be the class of an entity type.
            TypeError: When the query is used: a row is not of this class.
        """
        if model is not Entity:
            require(isinstance(model, type), "model", "a class of entities", model)
            self._context.model(model)  # registers it
        return Query(self._context, self.expression, model)

    async def all(self) -> list[E]:
        """Return all rows, which are loaded in pages of 500.

        Raises:
            QuerySyntaxError: The server could not parse the query.
            ServerError: The server refused the query for another reason.
            TransportError: No complete response arrived.
            QueryParameterError: The rows are not entities, because the query has a ``group by``;
                use :meth:`AsyncSession.call`.
        """
        reader, rows = await self._reader(), list[E]()
        while page := await reader.page():
            rows += self._checked(page)
        return rows

    async def one(self) -> E:
        """Return the only row.

        Raises:
            NoResultFoundError: There is no row.
            MultipleResultsFoundError: There are several rows.
            QueryParameterError: The query has an offset or a limit, which would hide other rows.
        """
        paged = split_paging(self.expression)
        if paged.limit is not None or paged.offset:
            raise QueryParameterError(f"one() with an offset or limit: {self.expression}")
        rows = await self._fetch(f"{await self._expand(paged.text)} limit 2")
        if not rows:
            raise NoResultFoundError(self.expression)
        if len(rows) > 1:
            raise MultipleResultsFoundError(self.expression)
        return rows[0]

    async def first(self) -> E | None:
        """Return the first row after the offset of the query, if any; None if there is none."""
        paged = split_paging(self.expression)
        if paged.limit == 0:
            return None
        offset = f" offset {paged.offset}" if paged.offset else ""
        rows = await self._fetch(f"{await self._expand(paged.text)}{offset} limit 1")
        return rows[0] if rows else None

    def __aiter__(self) -> AsyncIterator[E]:
        return _Rows(self)

    async def _reader(self) -> RowReader:
        paged = split_paging(self.expression)
        return RowReader(self._context, paged._replace(text=await self._expand(paged.text)))

    async def _expand(self, text: str) -> str:
        """Return *text* with a ``select``: of the default attributes of its type if it has none."""
        name = None if has_projections(text) else target_type(text)
        if name is None:  # complete, or not a query, which the server will say
            return text
        if not self._context.types.is_typed(name):
            await self._context.schemas()
        projections = self._context.types.default_projections(name)
        return f"select {', '.join(projections)} from {text.strip()}"

    async def _fetch(self, expression: str) -> Sequence[E]:
        rows, _ = await self._context.fetch_page(expression)
        return self._checked(rows)

    def _checked(self, rows: Sequence[Entity]) -> Sequence[E]:
        if self._model is not None:
            for row in rows:
                if not isinstance(row, self._model):
                    raise TypeError(f"{row!r} is not a {self._model.__name__}: {self.expression}")
        return cast("Sequence[E]", rows)


class _Rows(AsyncIterator[E]):
    """The rows of a query, for one loop or for several tasks that share it."""

    def __init__(self, query: Query[E]) -> None:
        self._query = query
        self._reader: RowReader | None = None
        self._page: list[E] = []  # the next row last
        self._lock = anyio.Lock()

    async def __anext__(self) -> E:
        if not self._page:
            self._query._context.connection.background.require_here()
            async with self._lock:
                if not self._page:
                    await self._read()
        return self._page.pop()

    async def _read(self) -> None:
        if self._reader is None:
            self._reader = await self._query._reader()
        rows = self._query._checked(await self._reader.page())
        if not rows:
            raise StopAsyncIteration
        self._page = list(reversed(rows))


def key_reference(model: type[Entity], key: object) -> Reference:
    """Return the reference to the entity of *model* with *key*.

    Args:
        model: Class of the entity.
        key: The id, or the parts of a key with several attributes in the order of the schema. Ids
            are texts or UUID objects.

    Raises:
        InvalidKeyError: The number of parts is wrong, or one is empty or no text.
    """
    parts = key if isinstance(key, (list, tuple)) else (key,)
    names = model.primary_key_attributes
    texts = [text for part in parts if (text := key_part(part)) is not None]
    if len(texts) != len(parts) or len(parts) != len(names):
        raise InvalidKeyError(model.entity_type, names, key)
    return Reference(model.entity_type, tuple(zip(names, texts, strict=True)))


async def fetch_entity(context: EntityContext, reference: Reference) -> Entity | None:
    """Return the entity with this type and key as the server has it now; None if it has none.

    An entity that is created here but not committed yet is found, too.
    """
    if not context.types.is_typed(reference.entity_type):
        await context.schemas()
    projections = context.types.default_projections(reference.entity_type)
    criteria = key_criteria([reference])
    expression = select(projections, reference.entity_type, criteria)
    rows, _ = await context.fetch_page(f"{expression} limit 1")
    if rows:
        return rows[0]
    known = context.identity.find(reference.entity_type, [value for _, value in reference.key])
    return known if known is not None and known in context.tasks.to_act_on().created else None


async def populate(
    context: EntityContext, entities: Iterable[Entity], projections: Sequence[str]
) -> None:
    """Load *projections* of *entities*, with one request for up to 500 entities of a type.

    Local changes stay. Entities that the server does not have stay as they are.
    """
    by_type: dict[str, list[Reference]] = {}
    for entity in entities:
        by_type.setdefault(entity.entity_type, []).append(entity.__ftrack_reference__())
    for name, references in by_type.items():
        for start in range(0, len(references), PAGE_SIZE):
            criteria = key_criteria(references[start : start + PAGE_SIZE])
            await fetch_rows(context, select(projections, name, criteria))
