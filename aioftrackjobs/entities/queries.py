"""Queries and look-ups: results page by page, entities by key, more attributes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Generic, TypeVar, cast

import anyio

from aioftrackjobs.config.settings import require, require_count
from aioftrackjobs.entities.context import EntityContext
from aioftrackjobs.entities.mapped_values import are_custom, expand, ids_above, link_of
from aioftrackjobs.entities.paging import RowReader, fetch_keys, fetch_rows
from aioftrackjobs.errors import (
    InvalidKeyError,
    MultipleResultsFoundError,
    NoResultFoundError,
    QueryParameterError,
)
from aioftrackjobs.models import Entity, rows_html
from aioftrackjobs.protocol.criteria import Attribute, Condition, checked_condition, order_key
from aioftrackjobs.protocol.custom_attributes import PROJECTIONS, CustomAttribute
from aioftrackjobs.protocol.paging import Clauses, PagedExpression, find_clauses, split_paging
from aioftrackjobs.protocol.query import (
    PAGE_SIZE,
    bind,
    has_projections,
    key_criteria,
    select,
    target_type,
)
from aioftrackjobs.protocol.values import Reference, key_part

E = TypeVar("E", bound=Entity)
F = TypeVar("F", bound=Entity)


class EntityList(list[E]):
    """The rows of a query; a list that a notebook shows as a table."""

    def _repr_html_(self) -> str:
        return rows_html(self)


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

    A query may also be built, from a class and the attributes of classes::

        query = session.query(Job).where(Job.status == "running", Job.user.username == "maya")
        print(query.limit(10).expression)

    Attributes:
        expression: The text of the query.
    """

    def __init__(
        self, context: EntityContext, expression: str, model: type[E] | None = None
    ) -> None:
        self._context = context
        self._model = model
        self._inherits = False  # whether the rows may inherit custom attributes
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

    def where(self, *conditions: object, **parameters: object) -> Query[E]:
        """Return the query for those rows that meet all *conditions*, too.

        Example:
            ``session.query(Job).where(Job.status == "done", "user.username is {name}", name=name)``

        Args:
            conditions: Comparisons of attributes of classes, or of :class:`Attribute`; or texts.
            parameters: Values for the ``{name}`` placeholders of the texts.

        Raises:
            QueryParameterError: A condition is neither; or a parameter does not fit; or the query
                has a ``group by``, or paging clauses, after which there cannot be criteria.
        """
        added = [checked_condition(each) for each in conditions if not isinstance(each, str)]
        texts = [each for each in conditions if isinstance(each, str)]
        if texts or parameters:
            text = texts[0] if len(texts) == 1 else " and ".join(f"({each})" for each in texts)
            added.append(Condition(bind(text, parameters)))
        return self._with(lambda clauses: clauses.where(added))

    def order_by(self, *keys: object) -> Query[E]:
        """Return the query with its rows in the order of *keys*, instead of another order.

        Example:
            ``session.query(Job).order_by("created_at desc", Job.id)``

        Args:
            keys: Attributes of classes, :class:`Attribute` with a direction, or texts.

        Raises:
            QueryParameterError: A key is neither; or the query has a ``group by``, or
                paging clauses.
        """
        order = ", ".join(map(order_key, keys))
        return self._with(lambda clauses: clauses._replace(order=order))

    def select(self, *projections: object) -> Query[E]:
        """Return the query that loads *projections*, instead of others.

        Example:
            ``session.query(Job).select(Job.id, "user.username")``

        Raises:
            QueryParameterError: A projection is no attribute; or the query has a ``group by``, or
                paging clauses.
        """
        names = ", ".join(str(Attribute(each)) for each in projections)
        if not names:
            raise QueryParameterError("select() needs at least one attribute")
        return self._with(lambda clauses: clauses._replace(projections=names))

    def limit(self, count: int) -> Query[E]:
        """Return the query for the first *count* rows at most; it takes the place of a limit."""
        require_count("count", count, least=0)
        return self._page_of(split_paging(self.expression)._replace(limit=count))

    def offset(self, count: int) -> Query[E]:
        """Return the query without its first *count* rows; it takes the place of an offset."""
        require_count("count", count, least=0)
        return self._page_of(split_paging(self.expression)._replace(offset=count))

    def _with(self, change: Callable[[Clauses], Clauses]) -> Query[E]:
        paged = split_paging(self.expression)
        clauses = find_clauses(paged.text)
        if clauses is None or paged.limit is not None or paged.offset:
            raise QueryParameterError(
                "where, order_by and select come before limit and offset, and need a query without "
                f"'group by': {self.expression}"
            )
        return Query(self._context, change(clauses).text, self._model)

    def _page_of(self, paged: PagedExpression) -> Query[E]:
        return Query(self._context, paged.expression, self._model)

    async def all(self) -> list[E]:
        """Return all rows, which are loaded in pages of 500.

        Raises:
            QuerySyntaxError: The server could not parse the query.
            ServerError: The server refused the query for another reason.
            TransportError: No complete response arrived.
            QueryParameterError: The rows are not entities, because the query has a ``group by``;
                use :meth:`AsyncSession.call`.
        """
        reader, rows = await self._reader(), EntityList[E]()
        while page := await reader.page():
            rows += await self._completed(page)
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

    async def count(self) -> int:
        """Return the number of rows, without loading more of them than their keys.

        Raises:
            QueryParameterError: The rows have no keys, because the query has a ``group by``.
        """
        paged = split_paging(self.expression)
        clauses = find_clauses(await self._expand(paged.text))
        if clauses is None:
            raise QueryParameterError(f"rows of a 'group by' have no keys: {self.expression}")
        if paged.limit == 0:
            return 0
        found = len(await fetch_keys(self._context, clauses, offset=paged.offset))
        return found if paged.limit is None else min(found, paged.limit)

    async def exists(self) -> bool:
        """Return whether there is a row."""
        return await self.first() is not None

    def in_batches(self, size: int = PAGE_SIZE) -> AsyncIterator[list[E]]:
        """Return the rows in lists of *size*, the last of which may be shorter.

        A batch is loaded when it is asked for::

            async for jobs in session.query(Job).in_batches(100):
                for job in jobs:
                    job["status"] = "failed"
                await session.commit()
        """
        require_count("size", size)
        return _Batches(self, size)

    def __aiter__(self) -> AsyncIterator[E]:
        return _Rows(self)

    async def _reader(self) -> RowReader:
        paged = split_paging(self.expression)
        return RowReader(self._context, paged._replace(text=await self._expand(paged.text)))

    async def _expand(self, text: str) -> str:
        """Return *text* with a ``select``: of the default attributes of its type if it has none."""
        name = None if has_projections(text) else target_type(text)
        if name is None:  # complete, or not a query, which the server will say
            return await self._with_maps(text)
        if not self._context.types.is_typed(name):
            await self._context.schemas()
        projections = self._context.types.default_projections(name)
        return f"select {', '.join(projections)} from {text.strip()}"

    async def _with_maps(self, text: str) -> str:
        """Return *text*, which has a ``select``, so that it loads the values of maps, too."""
        if "metadata" not in text and "custom_attributes" not in text:
            return text
        clauses = find_clauses(text)
        if clauses is None:
            return text
        if are_custom(clauses.projections) and not self._context.mapped_values.are_configured:
            await load_custom_attributes(self._context)
        projections = [each.strip() for each in clauses.projections.split(",")]
        self._inherits = "custom_attributes" in projections
        if self._inherits:
            projections += link_of(self._context.types.attributes_of(clauses.entity_type))
        return clauses._replace(projections=", ".join(expand(projections))).text

    async def _fetch(self, expression: str) -> Sequence[E]:
        rows, _ = await self._context.fetch_page(expression)
        return await self._completed(rows)

    async def _completed(self, rows: Sequence[Entity]) -> Sequence[E]:
        """Return *rows* with what they inherit."""
        checked = self._checked(rows)
        if self._inherits and rows:
            await _load_inherited(self._context, rows)
        return checked

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
        rows = await self._query._completed(await self._reader.page())
        if not rows:
            raise StopAsyncIteration
        self._page = list(reversed(rows))


class _Batches(AsyncIterator[list[E]]):
    """The rows of a query in lists of one size, for one loop or for several tasks that share it."""

    def __init__(self, query: Query[E], size: int) -> None:
        self._rows = aiter(query)
        self._size = size
        self._lock = anyio.Lock()

    async def __anext__(self) -> list[E]:
        batch: list[E] = []
        async with self._lock:
            async for row in self._rows:
                batch.append(row)
                if len(batch) == self._size:
                    break
        if not batch:
            raise StopAsyncIteration
        return batch


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
    entities = list(entities)
    projections = [name.strip() for each in projections for name in each.split(",")]
    inherits = "custom_attributes" in projections
    if are_custom(" ".join(projections)) and not context.mapped_values.are_configured:
        await load_custom_attributes(context)
    by_type: dict[str, list[Reference]] = {}
    for entity in entities:
        by_type.setdefault(entity.entity_type, []).append(entity.__ftrack_reference__())
    projections = expand(projections)
    for name, references in by_type.items():
        for start in range(0, len(references), PAGE_SIZE):
            criteria = key_criteria(references[start : start + PAGE_SIZE])
            link = link_of(context.types.attributes_of(name)) if inherits else ()
            await fetch_rows(context, select([*projections, *link], name, criteria))
    if inherits:
        await _load_inherited(context, entities)


async def load_custom_attributes(context: EntityContext) -> list[CustomAttribute]:
    """Load the configurations of custom attributes, and return what they say."""
    await context.schemas()
    kind = "CustomAttributeConfiguration"
    known = context.types.attributes_of(kind)
    names = [each for each in PROJECTIONS if each.partition(".")[0] in known]
    rows = await fetch_rows(context, f"select {', '.join(names)} from {kind}") if names else []
    return context.mapped_values.configure(rows)


async def _load_inherited(context: EntityContext, entities: Sequence[Entity]) -> None:
    """Load the values of hierarchical attributes of what is above *entities*."""
    attributes = context.mapped_values.hierarchical
    above = {each: ids_above(each) if attributes else [] for each in entities}
    distinct = list(dict.fromkeys(each for ids in above.values() for each in ids))
    rows: list[Entity] = []
    for start in range(0, len(distinct), PAGE_SIZE):
        values = {"ids": distinct[start : start + PAGE_SIZE], "attributes": attributes}
        criteria = bind("entity_id in {ids} and configuration_id in {attributes}", values)
        names = ("entity_id", "configuration_id", "value")
        rows += await fetch_rows(context, select(names, "CustomAttributeValue", criteria))
    context.mapped_values.inherit(above, rows)
