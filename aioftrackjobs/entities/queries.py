"""Reading: query results page by page, look-ups by key, and loading more of known entities."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Generic, TypeVar, cast

from aioftrackjobs.entities.context import EntityContext
from aioftrackjobs.errors import (
    InvalidKeyError,
    MalformedResponseError,
    MultipleResultsFoundError,
    NoResultFoundError,
    QueryParameterError,
)
from aioftrackjobs.models import Entity, remote_value
from aioftrackjobs.protocol.query import (
    PAGE_SIZE,
    equality_criteria,
    has_projections,
    key_criteria,
    select,
    split_paging,
    target_type,
)
from aioftrackjobs.protocol.values import Reference

E = TypeVar("E", bound=Entity)
F = TypeVar("F", bound=Entity)


class Query(Generic[E]):
    """A query that has not been sent: :meth:`all`, :meth:`one`, :meth:`first` or ``async for``.

    Each use asks the server anew. Rows become entities; known ones are brought up to date.
    """

    def __init__(
        self, workspace: EntityContext, expression: str, model: type[E] | None = None
    ) -> None:
        self._workspace = workspace
        self._model = model
        self.expression = expression

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.expression!r})"

    def of(self, model: type[F]) -> Query[F]:
        """Return the same query for type checkers: its rows are of *model*, or it fails.

        Raises:
            EntityError: *model* cannot stand for an entity type.
            TypeError: Later, when a row is of another type.
        """
        if model is not Entity:
            self._workspace.model(model)  # its own rows are of it from now on
        return Query(self._workspace, self.expression, model)

    async def all(self) -> list[E]:
        """Return all rows, asked for in pages of 500.

        Raises:
            ServerError: The server refused; QuerySyntaxError if it cannot parse the query.
            TransportError: No complete answer came back.
        """
        return [entity async for entity in self]

    async def one(self) -> E:
        """Return the only row.

        Raises:
            NoResultFoundError: There is none.
            MultipleResultsFoundError: There are more.
            QueryParameterError: The query has an offset or a limit, which would hide others.
        """
        paged = split_paging(self.expression)
        if paged.limit is not None or paged.offset:
            raise QueryParameterError(f"one() with an offset or limit: {self.expression}")
        rows, _ = await self._fetch(f"{await self._expand(paged.text)} limit 2")
        if not rows:
            raise NoResultFoundError(self.expression)
        if len(rows) > 1:
            raise MultipleResultsFoundError(self.expression)
        return rows[0]

    async def first(self) -> E | None:
        """Return the first row, after the query's own offset; None if there is none."""
        paged = split_paging(self.expression)
        if paged.limit == 0:
            return None
        offset = f" offset {paged.offset}" if paged.offset else ""
        rows, _ = await self._fetch(f"{await self._expand(paged.text)}{offset} limit 1")
        return rows[0] if rows else None

    async def __aiter__(self) -> AsyncIterator[E]:
        paged = split_paging(self.expression)
        paged = paged._replace(text=await self._expand(paged.text))
        offset, left = paged.offset, paged.limit
        while left is None or left > 0:
            size = PAGE_SIZE if left is None else min(PAGE_SIZE, left)
            rows, following = await self._fetch(paged.page(offset, size))
            for entity in rows[:size]:
                yield entity
            left = None if left is None else left - len(rows)
            if following is None or not rows:
                return
            if following <= offset:
                raise MalformedResponseError(
                    f"page {following} follows page {offset}, which would never end", status=200
                )
            offset = following

    async def _expand(self, text: str) -> str:
        """Return *text* with projections: the type's default ones if it has none of its own."""
        name = None if has_projections(text) else target_type(text)
        if name is None:  # or no query at all, which the server says better
            return text
        if not self._workspace.types.is_typed(name):
            await self._workspace.schemas()
        projections = self._workspace.types.default_projections(name)
        return f"select {', '.join(projections)} from {text.strip()}"

    async def _fetch(self, expression: str) -> tuple[list[E], int | None]:
        rows, following = await self._workspace.fetch_page(expression)
        if self._model is not None:
            for row in rows:
                if not isinstance(row, self._model):
                    raise TypeError(f"{row!r} is no {self._model.__name__}, in {expression}")
        return cast("list[E]", rows), following


def key_reference(model: type[Entity], key: str | Sequence[str]) -> Reference:
    """Return the reference to the entity of *model* with *key*: its parts in schema order.

    Raises:
        InvalidKeyError: The number of parts is wrong, or one is empty.
    """
    parts: tuple[object, ...] = (key,) if isinstance(key, str) else tuple(key)
    names = model.primary_key_attributes
    texts = [part for part in parts if isinstance(part, str) and part]
    if len(texts) != len(parts) or len(parts) != len(names):
        raise InvalidKeyError(model.entity_type, names, key)
    return Reference(model.entity_type, tuple(zip(names, texts, strict=True)))


async def fetch_entity(workspace: EntityContext, reference: Reference) -> Entity | None:
    """Return the entity that *reference* names, as the server has it now; None if it has none."""
    if not workspace.types.is_typed(reference.entity_type):
        await workspace.schemas()
    projections = workspace.types.default_projections(reference.entity_type)
    criteria = key_criteria([reference])
    expression = select(projections, reference.entity_type, criteria)
    rows, _ = await workspace.fetch_page(f"{expression} limit 1")
    if rows:
        return rows[0]
    known = workspace.identity.find(reference.entity_type, [value for _, value in reference.key])
    return known if known is not None and known in workspace.unit.created else None


async def populate(
    workspace: EntityContext, entities: Iterable[Entity], projections: Sequence[str]
) -> None:
    """Load *projections* of *entities*: one request for each type and 500 entities.

    Local changes stay on top. Entities that the server does not have stay as they are.
    """
    by_type: dict[str, list[Reference]] = {}
    for entity in entities:
        by_type.setdefault(entity.entity_type, []).append(entity.__ftrack_reference__())
    for name, references in by_type.items():
        for start in range(0, len(references), PAGE_SIZE):
            criteria = key_criteria(references[start : start + PAGE_SIZE])
            await workspace.fetch_page(select(projections, name, criteria))


#: Stands for what the answer did not bring, and so differs from every value.
_NOT_TOLD = object()


async def ensure(
    workspace: EntityContext,
    kind: type[Entity] | str,
    data: Mapping[str, Any],
    identifying_keys: Sequence[str] | None,
) -> Entity:
    """Return the entity of *kind* that has *data*: found and brought up to date, or created.

    Raises:
        QueryParameterError: There is nothing to tell the entity by.
        MultipleResultsFoundError: Several entities have the identifying values.
    """
    model = workspace.model(kind)
    keys = list(data) if identifying_keys is None else list(identifying_keys)
    if missing := [name for name in keys if name not in data]:
        raise QueryParameterError(f"identifying keys without a value: {', '.join(missing)}")
    if not keys:
        raise QueryParameterError(f"nothing tells which {model.entity_type} is meant")
    criteria = equality_criteria(dict(_criterion(name, data[name]) for name in keys))
    projections = dict.fromkeys((*model.primary_key_attributes, *data))
    expression = select(projections, model.entity_type, criteria)
    rows, _ = await workspace.fetch_page(f"{expression} limit 2")
    if len(rows) > 1:
        raise MultipleResultsFoundError(expression)
    unit = workspace.new_unit()
    entity = rows[0] if rows else workspace.create(kind, data, unit=unit)
    if rows:
        wanted = {name: model.checked_value(name, value) for name, value in data.items()}
        changes = {name: value for name, value in wanted.items() if _differs(entity, name, value)}
        if changes:
            unit.set(entity, **changes)
    try:
        await unit.commit()
    except BaseException:
        unit.rollback()
        raise
    return entity


def _criterion(name: str, value: object) -> tuple[str, object]:
    """Return what to compare: an entity by its id."""
    return (f"{name}.id", value) if isinstance(value, Entity) else (name, value)


def _differs(entity: Entity, name: str, wanted: object) -> bool:
    """Tell whether the server has another value; it keeps times in whole seconds only.

    Local changes are not looked at: the flow that made them may take them back.
    """
    if isinstance(wanted, datetime):
        wanted = wanted.replace(microsecond=0)
    return bool(remote_value(entity, name, _NOT_TOLD) != wanted)
