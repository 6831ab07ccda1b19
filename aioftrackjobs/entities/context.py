"""EntityContext: what the entities of one session have in common."""

from __future__ import annotations

from collections.abc import (
    AsyncIterator,
    Callable,
    Collection,
    Coroutine,
    Hashable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import count
from types import TracebackType
from typing import Any, TypeVar, Unpack, overload
from weakref import WeakValueDictionary

import anyio

from aioftrackjobs.background import SafeLogger
from aioftrackjobs.commit.changes import creation_key
from aioftrackjobs.commit.request import Manner
from aioftrackjobs.commit.unit_of_work import UnitOfWork
from aioftrackjobs.connection import Connection
from aioftrackjobs.entities.ensure_turns import EnsureTurns
from aioftrackjobs.entities.freshness import ReadTracker
from aioftrackjobs.entities.identity_map import IdentityMap, IncompleteRowError
from aioftrackjobs.entities.mapped_values import MAPS, MappedValues, split_maps
from aioftrackjobs.entities.task_units import TaskUnits
from aioftrackjobs.errors import (
    CommitUncertainError,
    EntityError,
    FtrackJobsError,
    InvalidKeyError,
    InvalidValueError,
    MalformedResponseError,
    NoResultFoundError,
    QueryParameterError,
    SessionStateError,
    UnknownAttributeError,
)
from aioftrackjobs.models import (
    Entity,
    EntityTypes,
    User,
    adopt,
    new_id,
    owner_of,
    put_local,
    require_relation,
)
from aioftrackjobs.protocol.operations import NOT_SET
from aioftrackjobs.protocol.paging import next_offset
from aioftrackjobs.protocol.query import bind, select
from aioftrackjobs.protocol.values import JSONValue, Reference, key_part
from aioftrackjobs.transport import redact

logger: SafeLogger = SafeLogger(__name__)

E = TypeVar("E", bound=Entity)


class UnitBlock(AbstractAsyncContextManager[UnitOfWork]):
    """A block with a unit of work of its own, to be entered once."""

    def __init__(self, block: AbstractAsyncContextManager[UnitOfWork]) -> None:
        self._block = block
        self._is_entered = False

    # No coroutines of their own: each would be one more frame in every traceback of the block.

    def __aenter__(self) -> Coroutine[Any, Any, UnitOfWork]:
        if self._is_entered:
            raise SessionStateError(
                "a unit of work is entered once; call session.unit_of_work() again for each block"
            )
        self._is_entered = True
        return self._block.__aenter__()

    def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> Coroutine[Any, Any, bool | None]:
        return self._block.__aexit__(kind, error, trace)


class EntityContext:
    """The entities of a session: their types, their one instance each, and their units of work.

    It is the *owner* of its entities, to which they report changes, and the *context* of its units
    of work, which report to it what the server has applied.

    Args:
        connection: The connection to the server.

    Attributes:
        connection: The connection to the server.
        types: The entity types that are known, and their classes.
        identity: The one instance of each entity.
        reads: Keeps late responses from overwriting newer values.
        ensuring: The calls of ``ensure`` that have not ended.
        tasks: The units of work of the tasks that use the session.
        mapped_values: Metadata and custom attributes.
        creators: The unit of work that is to create an entity, by the key of the entity.
        count: Numbers the changes in the order in which they are recorded.
        wait_for_job: Waits for the end of a Job, for some seconds at most.
        files_of: Returns what moves files to and from a location.
        folders: Where locations are on this machine, by their ids.
        observers: Called with each change that the program records of an entity, by the ``id()``
            of the entity: the name and value, and the unit of work. The value is NOT_SET if a
            change was taken back. Running Jobs are observed.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.types: EntityTypes = EntityTypes()
        self.identity: IdentityMap = IdentityMap(self.types, self)
        self.reads: ReadTracker = ReadTracker()
        self.ensuring: EnsureTurns = EnsureTurns()
        self.creators: WeakValueDictionary[Hashable, UnitOfWork] = WeakValueDictionary()
        self.count: Iterator[int] = count()
        self.tasks: TaskUnits = TaskUnits(self, connection)
        self.mapped_values: MappedValues = MappedValues(self, self.tasks.to_record)
        self.wait_for_job: Callable[[Any, float | None], Any]
        self.files_of: Callable[[Any], Any]
        self.folders: dict[str, Any] = {}
        self.observers: dict[int, Callable[[str, object, UnitOfWork], None]] = {}
        self._schemas: list[dict[str, Any]] | None = None
        self._information: dict[str, Any] | None = None
        self._schemas_lock = anyio.Lock()
        self._user: User | None = None
        self._user_lock = anyio.Lock()

    # Units of work

    def units(self) -> Iterable[UnitOfWork]:
        """Return the units of work of tasks and blocks."""
        return tuple(self.tasks.all)

    def new_unit(self, **manner: Unpack[Manner]) -> UnitOfWork:
        """Return a unit of work that no task has entered, and whose commits are sent in a way."""
        return UnitOfWork(self, self.connection.dispatcher, **manner)

    def enter_unit(self) -> UnitBlock:
        """Return a block with a unit of work of its own."""
        return UnitBlock(self._enter_unit())

    @asynccontextmanager
    async def _enter_unit(self) -> AsyncIterator[UnitOfWork]:
        """Give the current task a unit of its own: committed on exit, rolled back on an error.

        Operations that a commit has left uncertain stay in the unit, so that
        :meth:`CommitUncertainError.resolve` can settle them.
        """
        unit = self.tasks.enter()
        try:
            yield unit
            if not unit.is_settled:
                await unit.commit()
        except CommitUncertainError:
            unit.drop(keep_uncertain=True)
            raise
        except GeneratorExit:
            unit.drop_abandoned()
            raise
        except BaseException:
            unit.drop()
            raise
        finally:
            self.tasks.leave(unit)

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
        """Make an entity, and record in *unit* that the next commit creates it.

        Args:
            kind: A class or the name of an entity type.
            data: Values by attribute.
            unit: The unit of work to record in.
        """
        entity = self.draft(kind, data)
        reference = entity.__ftrack_reference__()  # raises if the key is not complete
        values = adopt(entity, self)
        fresh = "id" in entity.primary_key_attributes and "id" not in data
        unit.record_create(reference, entity, values, fresh=fresh)
        self.identity.add(reference, entity)
        if not MAPS.isdisjoint(data):
            self.mapped_values.fill(entity, split_maps(data)[1], unit)
        return entity

    def draft(self, kind: type[Entity] | str, data: Mapping[str, Any]) -> Entity:
        """Return an entity of *kind* with *data*, which are checked; it belongs to no session.

        Raises:
            UnknownAttributeError: The type has no such attribute.
            InvalidValueError: An attribute cannot have its value.
            InvalidKeyError: The key is not complete.
        """
        model = self.model(kind)
        fields, known = model.__pydantic_fields__, self.types.attributes_of(model.entity_type)
        relations = self.types.relations_of(model.entity_type)
        if known or model.is_typed:
            for name in data:
                if name not in fields and name not in known:
                    raise UnknownAttributeError(model.entity_type, name, (*fields, *known))
        maps: Mapping[str, Any] = {}
        if not MAPS.isdisjoint(data):
            data, maps = split_maps(data)
        entity = self._made(model, _with_key(model, data), relations.intersection(data))
        if maps:
            self.mapped_values.check(entity, maps)
        return entity

    def _made(
        self, model: type[Entity], values: dict[str, Any], relations: Collection[str]
    ) -> Entity:
        """Return an entity with *values*, of which only the schemas may know some.

        Args:
            model: Class of the entity.
            values: Its attributes.
            relations: Those that hold entities, as far as the schemas are loaded.
        """
        others: dict[str, Any] = {}
        if model.is_typed and not values.keys() <= model.__pydantic_fields__.keys():
            names = [name for name in values if name not in model.__pydantic_fields__]
            others = {name: values.pop(name) for name in names}
        try:
            entity = model(**values)
            for name in relations:
                require_relation(model.entity_type, name, values[name])
        except InvalidValueError as exc:
            exc.hide(self.redact)
            raise
        for name, value in others.items():
            put_local(entity, name, model.checked_value(name, value, self))
        return entity

    @overload
    def model(self, kind: type[E]) -> type[E]: ...
    @overload
    def model(self, kind: type[Entity] | str) -> type[Entity]: ...
    def model(self, kind: type[Entity] | str) -> type[Entity]:
        """Return the class for *kind*, and register it first if it is a user's own."""
        return self.identity.model(kind)

    async def decode(self, result: Any, read: int | None = None) -> Any:
        """Return *result* with entities; load the schemas if the key of a row is not known.

        Args:
            result: A result from a response.
            read: The number of the read that it belongs to: it does not overwrite newer values.
                None if the values cannot be older than the known ones.
        """
        try:
            decoded = self._decode(result, read)
        except IncompleteRowError:
            with self.reads.reading() as later:
                await self.schemas()
                try:
                    decoded = self._decode(result, later if read is None else read)
                except IncompleteRowError as exc:
                    raise MalformedResponseError(f"a row is malformed: {exc}", status=200) from exc
        if read is not None:
            self.reads.note_response(read, self.identity.known(result))
        return decoded

    def _decode(self, result: Any, read: int | None) -> Any:
        if read is None:
            return self.identity.decode(result)
        with self.reads.keeping_newer(read, self.identity.known(result)):
            return self.identity.decode(result)

    async def schemas(self) -> list[dict[str, Any]]:
        """Return the server's schema documents, which are loaded once."""
        self.connection.background.require_here()  # a lock of another event loop never opens
        async with self._schemas_lock:
            if self._schemas is None:
                (documents,) = await self.connection.call([{"action": "query_schemas"}])
                if not isinstance(documents, list):
                    raise MalformedResponseError("the schemas are not a list", status=200)
                self.types.load_schemas(documents)
                self.identity.forget_types()
                self._schemas = documents
        return self._schemas

    async def server_information(self) -> dict[str, Any]:
        """Return the server's description of itself, which is loaded once."""
        if self._information is None:
            (information,) = await self.call([{"action": "query_server_information"}])
            if not isinstance(information, dict):
                raise MalformedResponseError("the server information is not an object", status=200)
            self._information = information
        return self._information

    async def current_user(self) -> User:
        """Return the user as whom the session acts, which is loaded once.

        Raises:
            NoResultFoundError: There is no such user.
        """
        if self._user is None:
            async with self._user_lock:  # many Jobs may start at once
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
        with self.reads.reading() as read:
            results = await self.connection.call(operations)
            return [
                await self.decode(result, read if operation.get("action") == "query" else None)
                for operation, result in zip(operations, results, strict=True)
            ]

    async def fetch_page(
        self, expression: str, **manner: Unpack[Manner]
    ) -> tuple[list[Entity], int | None]:
        """Return the entities that *expression* finds, and the offset of the next page, if any.

        Raises:
            QueryParameterError: The rows are not entities, because of a ``group by``.

        Source:
            docs/protocol.md, section 4.9.
        """
        query = {"action": "query", "expression": expression}
        with self.reads.reading() as read:
            (result,) = await self.connection.call([query], **manner)
            data = result.get("data") if isinstance(result, dict) else None
            if not isinstance(data, list):
                raise MalformedResponseError("a query's result has no list of data", status=200)
            rows: tuple[Entity, ...] | list[Any] = await self.decode(data, read)
        if not isinstance(rows, tuple):
            raise QueryParameterError(
                f"the rows are not entities; use session.call() for this query: {expression}"
            )
        return list(rows), next_offset(result)

    async def require_created(self, reference: Reference) -> None:
        """Wait for a commit in progress that creates an entity.

        Raises:
            EntityError: Its creation is recorded, and not yet committed.
        """
        key = creation_key(reference)
        while (creator := self.creators.get(key)) is not None:
            if (pending := creator.pending_creation(key)) is not None:
                raise EntityError(f"{pending!r} is not yet created; commit it first")
            if not creator.is_sending:
                return  # it is not known, and what refers to it shows it
            await creator.settled()

    def owns(self, entity: Entity) -> bool:
        """Return whether *entity* belongs to this session."""
        return owner_of(entity) is self

    # As the owner of the entities

    def record_update(self, entity: Entity, name: str, value: object) -> None:
        """Record a changed attribute in the unit of the current task."""
        unit = self.tasks.to_record()
        unit.record_update(entity, {name: value})
        if self.observers and id(entity) in self.observers:
            self.observers[id(entity)](name, value, unit)

    def record_reset(self, entity: Entity, name: str) -> Any:
        """Record that the current task took a change back; return what another has recorded."""
        unit = self.tasks.to_act_on()
        if unit.has_recorded(entity, name):
            unit.record_reset(entity, name)
        value = unit.others_value(entity, name)
        if self.observers and id(entity) in self.observers:
            self.observers[id(entity)](name, value, unit)
        return value

    def load_missing(self, entity: Entity, name: str) -> None:
        """Load nothing: the program says what is loaded. It is otherwise in blocking code."""

    def note_undone(self, entity: Entity, name: str, unit: UnitOfWork) -> None:
        """Take note that a recorded change of *name* was rolled back."""
        if self.observers and id(entity) in self.observers:
            self.observers[id(entity)](name, NOT_SET, unit)

    def attributes_of(self, entity_type: str) -> tuple[str, ...]:
        """Return the attributes that the schemas give a type; empty if they are not loaded."""
        return self.types.attributes_of(entity_type)

    def relations_of(self, entity_type: str) -> frozenset[str]:
        """Return the attributes of a type that hold entities; empty without its schema."""
        return self.types.relations_of(entity_type)

    def mapping_of(self, entity: Entity, name: str) -> Any:
        """Return the metadata or the custom attributes of *entity*, as a dictionary."""
        return self.mapped_values.view(entity, name)

    def member_type(self, entity_type: str, name: str) -> str:
        """Return the type of the values in the map *name*."""
        return self.types.member_type(entity_type, name) or "CustomAttributeValue"

    def redact(self, text: str) -> str:
        """Return *text* without the API key, and without other secrets."""
        return redact(text, self.connection.credentials.api_key)

    def component_url(self, component_id: str, size: int | None = None) -> str:
        """Return the URL of a component's file, or of its thumbnail. It contains the API key."""
        action = "get" if size is None else "thumbnail"
        return self.connection.component_url(action, component_id, size).reveal()

    # As the context of the units of work

    def merge(self, rows: Sequence[Any]) -> None:
        """Load the rows that the server has returned for a commit.

        If the key of a row is only known from schemas that are not loaded yet, a background task
        loads them first: the worker that calls this must go on sending other requests.

        Raises:
            MalformedResponseError: The rows cannot be decoded.
        """
        try:
            self.identity.decode(rows)
        except IncompleteRowError:
            self.connection.background.spawn(self._merge_with_schemas, rows)

    async def _merge_with_schemas(self, rows: Sequence[Any]) -> None:
        try:
            with self.reads.reading() as read:
                await self.decode(rows, read)
        except FtrackJobsError:
            logger.warning("a commit was applied, but its response is malformed", exc_info=True)

    def forget(self, entity: Entity) -> None:
        """Detach an entity that does not exist on the server, and forget it."""
        self.identity.remove(entity)


def _with_key(model: type[Entity], data: Mapping[str, Any]) -> dict[str, Any]:
    """Return *data* with all key attributes: a new id, or the ids of the related entities."""
    values = dict(data)
    for name in model.primary_key_attributes:
        relation = values.get(name.removesuffix("_id"))
        if name not in values and name == "id":
            values[name] = new_id()
            continue
        if name not in values and isinstance(relation, Entity) and "id" in relation:
            values[name] = relation["id"]
        if (part := key_part(values.get(name))) is None:
            given = tuple(values.get(each) for each in model.primary_key_attributes)
            raise InvalidKeyError(model.entity_type, model.primary_key_attributes, given)
        values[name] = part
    return values
