"""What a session knows: entity types, entities, the units of work of its flows."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, TypeVar, overload
from weakref import WeakValueDictionary

import anyio

from aioftrackjobs.commit.unit_of_work import UnitOfWork
from aioftrackjobs.connection import Connection
from aioftrackjobs.entities.freshness import ReadTracker
from aioftrackjobs.entities.identity_map import IdentityMap, IncompleteRowError
from aioftrackjobs.errors import (
    CommitUncertainError,
    FtrackJobsError,
    InvalidKeyError,
    MalformedResponseError,
    NoResultFoundError,
    QueryParameterError,
    UnknownAttributeError,
)
from aioftrackjobs.models import Entity, EntityTypes, User, adopt, new_id, owner_of
from aioftrackjobs.protocol.query import bind, select
from aioftrackjobs.protocol.values import JSONValue

logger = logging.getLogger(__name__)

E = TypeVar("E", bound=Entity)

#: The unit of work that a flow has entered, for each workspace; inherited by its child tasks.
_entered: ContextVar[Mapping[EntityContext, UnitOfWork]] = ContextVar("aioftrackjobs_units")

_NO_UNITS: Mapping[EntityContext, UnitOfWork] = MappingProxyType({})


class EntityContext:
    """Entities of one server, and where their changes are recorded.

    It is the *owner* of its entities, and the *committer* of its units of work.

    Args:
        connection: To the server.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.types = EntityTypes()
        self.identity = IdentityMap(self.types, self)
        self.freshness = ReadTracker()
        # Weak: a unit that is gone creates nothing; one that is not holds what it has recorded, so
        # that no other entity gets the same id().
        self.creators = WeakValueDictionary[int, UnitOfWork]()
        self._default_unit = self.new_unit()
        self._schemas: list[dict[str, Any]] | None = None
        self._information: dict[str, Any] | None = None
        self._learning = anyio.Lock()
        self._user: User | None = None
        self._user_lock = anyio.Lock()

    # Units of work

    @property
    def unit(self) -> UnitOfWork:
        """The unit of work that the running flow records in."""
        return _entered.get(_NO_UNITS).get(self, self._default_unit)

    @property
    def default_unit(self) -> UnitOfWork:
        """The unit of flows that have not entered one of their own."""
        return self._default_unit

    def new_unit(self, *, overtakes: bool = False) -> UnitOfWork:
        """Return a unit of work that no flow has entered.

        Args:
            overtakes: Do not wait for the commits of other units about the same entities.
        """
        return UnitOfWork(self, self.connection.dispatcher, overtakes=overtakes)

    @asynccontextmanager
    async def enter_unit(self) -> AsyncIterator[UnitOfWork]:
        """Give the running flow a unit of its own, committed on exit, rolled back on an error.

        What a commit has left uncertain stays, for :meth:`CommitUncertainError.resolve`.
        """
        unit = self.new_unit()
        before = _entered.get(_NO_UNITS)
        _entered.set({**before, self: unit})
        try:
            yield unit
            await unit.commit()
        except CommitUncertainError:
            unit.rollback(keep_uncertain=True)
            raise
        except BaseException:
            unit.rollback()
            raise
        finally:
            unit.end()
            _entered.set(before)  # not reset(): the exit may run in another context

    # Entities

    @overload
    def create(self, kind: type[E], data: Mapping[str, Any], *, unit: UnitOfWork) -> E: ...
    @overload
    def create(self, kind: str, data: Mapping[str, Any], *, unit: UnitOfWork) -> Entity: ...
    def create(
        self,
        kind: type[Entity] | str,
        data: Mapping[str, Any],
        *,
        unit: UnitOfWork,
    ) -> Entity:
        """Make an entity, and record in *unit* that it is to be created.

        Args:
            kind: Its class, or its type.
            data: Its values.
            unit: Where it is recorded.
        """
        model = self.model(kind)
        fields, told = model.__pydantic_fields__, self.types.attributes_of(model.entity_type)
        if told or model.is_typed:
            for name in data:
                if name not in fields and name not in told:
                    raise UnknownAttributeError(model.entity_type, name, (*fields, *told))
        entity = model(**_with_key(model, data))
        entity.__ftrack_reference__()  # raises if the key is not complete
        values = adopt(entity, self)
        fresh = "id" in model.primary_key_attributes and "id" not in data
        unit.record_create(entity, values, fresh=fresh)
        self.identity.add(entity)
        return entity

    @overload
    def model(self, kind: type[E]) -> type[E]: ...
    @overload
    def model(self, kind: type[Entity] | str) -> type[Entity]: ...
    def model(self, kind: type[Entity] | str) -> type[Entity]:
        """Return the class that stands for *kind*."""
        return self.identity.model(kind)

    async def decode(self, answer: Any, read: int | None = None) -> Any:
        """Return *answer* with its entities; asks for the schemas if a key cannot be told.

        Args:
            answer: Of the server.
            read: The number of the read that it answers; what was written since is kept.
        """
        try:
            decoded = self._decode(answer, read)
        except IncompleteRowError:
            with self.freshness.reading() as later:
                await self.schemas()
                try:
                    decoded = self._decode(answer, later if read is None else read)
                except IncompleteRowError as exc:
                    raise MalformedResponseError(f"an odd row: {exc}", status=200) from exc
        if read is not None:
            self.freshness.note_response(read, self.identity.known(answer))
        return decoded

    def _decode(self, answer: Any, read: int | None) -> Any:
        if read is None:
            return self.identity.decode(answer)
        with self.freshness.keeping_newer(read, self.identity.known(answer)):
            return self.identity.decode(answer)

    async def schemas(self) -> list[dict[str, Any]]:
        """Return the server's schema documents, which are asked for once."""
        async with self._learning:
            if self._schemas is None:
                (documents,) = await self.connection.call([{"action": "query_schemas"}])
                if not isinstance(documents, list):
                    raise MalformedResponseError("the schemas are no list", status=200)
                self.types.load_schemas(documents)
                self.identity.forget_types()
                self._schemas = documents
        return self._schemas

    async def server_information(self) -> dict[str, Any]:
        """Return what the server says of itself, which is asked for once."""
        if self._information is None:
            (information,) = await self.call([{"action": "query_server_information"}])
            if not isinstance(information, dict):
                raise MalformedResponseError("the server information is no object", status=200)
            self._information = information
        return self._information

    async def current_user(self) -> User:
        """Return the user that the session acts as, which is asked for once.

        Raises:
            NoResultFoundError: There is no such user.
        """
        if self._user is None:
            async with self._user_lock:  # a farm starts a thousand Jobs at once
                if self._user is None:
                    self._user = await self._fetch_current_user()
        return self._user

    async def _fetch_current_user(self) -> User:
        criteria = bind("username is {name}", {"name": self.connection.credentials.api_user})
        projections = self.types.default_projections("User")
        expression = f"{select(projections, 'User', criteria)} limit 1"
        entities, _ = await self.fetch_page(expression)
        for entity in entities:
            if isinstance(entity, User):
                return entity
        raise NoResultFoundError(expression)

    async def call(self, operations: Sequence[Mapping[str, JSONValue]]) -> list[Any]:
        """Send *operations* in one request, and return the decoded result of each."""
        with self.freshness.reading() as read:
            results = await self.connection.call(operations)
            return [
                await self.decode(result, read if operation.get("action") == "query" else None)
                for operation, result in zip(operations, results, strict=True)
            ]

    async def fetch_page(self, expression: str) -> tuple[list[Entity], int | None]:
        """Return the entities that *expression* finds, and the offset of the next page if any.

        Raises:
            QueryParameterError: The rows are no entities, as those of a ``group by``.

        Source:
            protocol.md, section 4.9.
        """
        query = {"action": "query", "expression": expression}
        with self.freshness.reading() as read:
            (result,) = await self.connection.call([query])
            data = result.get("data") if isinstance(result, dict) else None
            if not isinstance(data, list):
                raise MalformedResponseError("a query's result has no list of data", status=200)
            rows: Sequence[object] = await self.decode(data, read)
        entities = [row for row in rows if isinstance(row, Entity)]
        if len(entities) != len(rows):
            raise QueryParameterError(
                f"not entities but plain rows, which session.call() returns: {expression}"
            )
        return entities, _next_offset(result)

    def owns(self, entity: Entity) -> bool:
        """Tell whether changes of *entity* are recorded here."""
        return owner_of(entity) is self

    # As the owner of entities

    def record_update(self, entity: Entity, name: str, value: object) -> None:
        """Record a changed attribute in the running flow's unit."""
        self.unit.record_update(entity, {name: value})

    def record_reset(self, entity: Entity, name: str) -> None:
        """Record in the running flow's unit that a change was taken back."""
        self.unit.record_reset(entity, name)

    def attributes_of(self, entity_type: str) -> tuple[str, ...]:
        """Return the attributes that the schemas give a type; empty if they are not known."""
        return self.types.attributes_of(entity_type)

    def component_url(self, component_id: str) -> str:
        """Return the address of a component's file. It carries the API key."""
        return self.connection.component_url("get", component_id)

    # As the committer of units of work

    def merge(self, rows: Sequence[Any]) -> None:
        """Take over what the server says of the entities it wrote.

        If the key of one can only be found in the schemas, the rows are taken over as soon as the
        server has sent these: the worker that received the rows has other requests to send.

        Raises:
            MalformedResponseError: The rows cannot be read.
        """
        try:
            self.identity.decode(rows)
        except IncompleteRowError:
            self.connection.host.spawn(self._merge_with_schemas, rows)

    async def _merge_with_schemas(self, rows: Sequence[Any]) -> None:
        try:
            with self.freshness.reading() as read:
                await self.decode(rows, read)
        except FtrackJobsError:
            logger.warning("a commit was applied, but its response is odd", exc_info=True)

    def note_written(self, entity: Entity, names: Iterable[str]) -> None:
        """Remember, while a read is under way, that the server has applied new values."""
        if self.freshness.open_reads:
            self.freshness.note_write(entity, names)

    def forget(self, entity: Entity) -> None:
        """Detach an entity that does not exist on the server."""
        self.creators.pop(id(entity), None)
        self.identity.remove(entity)


def _with_key(model: type[Entity], data: Mapping[str, Any]) -> dict[str, Any]:
    """Return *data* with the key attributes that can be told without the server."""
    values = dict(data)
    for name in model.primary_key_attributes:
        relation = values.get(name.removesuffix("_id"))
        if name not in values and name == "id":
            values[name] = new_id()
        elif name not in values and isinstance(relation, Entity) and "id" in relation:
            values[name] = relation["id"]
        if not isinstance(values.get(name), str) or not values[name]:
            given = tuple(values.get(each) for each in model.primary_key_attributes)
            raise InvalidKeyError(model.entity_type, model.primary_key_attributes, given)
    return values


def _next_offset(result: dict[str, Any]) -> int | None:
    """Return where the page after a query's *result* starts; None if it is the last one."""
    metadata = result.get("metadata") or {}
    match metadata:
        case {"next": {"offset": int() as offset}}:
            return offset
        case {"next": {"offset": None}}:
            return None
        case dict() if not metadata.get("next"):
            return None
        case _:  # taken for the last page, it would hide rows
            raise MalformedResponseError("a page does not tell which one follows", status=200)
