"""Session and Query: those of the async classes, for plain threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from contextvars import Context
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, overload
from uuid import UUID

from aioftrackjobs.blocking._loop import LoopThread, call, call_last_step, current_loop
from aioftrackjobs.blocking._mirror import Block, Rows, blocking, blocking_text, in_loop, mirrors
from aioftrackjobs.commit.unit_of_work import UnitOfWork as AsyncUnitOfWork
from aioftrackjobs.config.retry import RetryPolicy
from aioftrackjobs.config.timings import DEFAULT_TIMINGS, Timings
from aioftrackjobs.connection.health import Health
from aioftrackjobs.entities.context import EntityContext
from aioftrackjobs.entities.mapped_values import MappedValues
from aioftrackjobs.entities.queries import Query as AsyncQuery
from aioftrackjobs.entities.queries import populate
from aioftrackjobs.errors import SessionStateError
from aioftrackjobs.jobs.ownership import LEASE_SECONDS
from aioftrackjobs.models import CustomAttributeValues, Entity, Job, JobState, MetadataValues
from aioftrackjobs.protocol.operations import Operation
from aioftrackjobs.protocol.query import PAGE_SIZE
from aioftrackjobs.session import AsyncSession, Key, connection_of
from aioftrackjobs.transport import HttpClient, Transport

if TYPE_CHECKING:
    from aioftrackjobs.telemetry import Observer

E = TypeVar("E", bound=Entity)
F = TypeVar("F", bound=Entity)


class _Entities(EntityContext):
    """Entities that plain threads change and read; what is not loaded is loaded when it is read."""

    def record_update(self, entity: Entity, name: str, value: object) -> None:
        _in_loop(super().record_update, entity, name, value)

    def record_reset(self, entity: Entity, name: str) -> Any:
        return _in_loop(super().record_reset, entity, name)

    def mapping_of(self, entity: Entity, name: str) -> Any:
        view = MetadataValues if name == "metadata" else CustomAttributeValues
        return view(entity, _Values(self.mapped_values))

    def load_missing(self, entity: Entity, name: str) -> None:
        if not current_loop().is_current_thread:
            call(self._load, entity, name)

    async def _load(self, entity: Entity, name: str) -> None:
        self.connection.require_open()
        if not self.types.is_typed(entity.entity_type):
            await self.schemas()
        if name in (entity.attributes or (name,)):
            await populate(self, [entity], [name])


class _Values:
    """Metadata and custom attributes that plain threads change."""

    def __init__(self, values: MappedValues) -> None:
        self._values = values

    def put(self, entity: Entity, name: str, key: str, value: object) -> None:
        _in_loop(self._values.put, entity, name, key, value)

    def delete(self, member: Entity) -> None:
        _in_loop(self._values.delete, member)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._values, name)


def _in_loop(function: Callable[..., Any], *args: Any) -> Any:
    """Call *function* in the event loop, which may be where this is called."""
    return function(*args) if current_loop().is_current_thread else call(function, *args)


class _AsyncSession(AsyncSession):
    _context_type = _Entities


class _Recorded:
    """What is recorded in a unit of work."""

    def _target(self) -> AsyncSession | AsyncUnitOfWork:
        raise NotImplementedError

    @property
    @mirrors(AsyncSession.recorded_operations)
    def recorded_operations(self) -> tuple[Operation, ...]:
        return call(lambda: self._target().recorded_operations)

    @property
    @mirrors(AsyncSession.uncertain_operations)
    def uncertain_operations(self) -> tuple[Operation, ...]:
        return call(lambda: self._target().uncertain_operations)

    @property
    @mirrors(AsyncSession.created)
    def created(self) -> list[Entity]:
        return call(lambda: self._target().created)

    @property
    @mirrors(AsyncSession.modified)
    def modified(self) -> list[Entity]:
        return call(lambda: self._target().modified)

    @property
    @mirrors(AsyncSession.deleted)
    def deleted(self) -> list[Entity]:
        return call(lambda: self._target().deleted)


class Session(_Recorded):
    def __init__(
        self,
        server_url: str | None = None,
        api_key: str | None = None,
        api_user: str | None = None,
        *,
        timeout: float = 60.0,
        client: HttpClient | None = None,
        strict_api: bool = False,
        group_commit: bool = True,
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008 - immutable
        journal: str | os.PathLike[str] | None = None,
        lease: float = LEASE_SECONDS,
        transfers: int = 8,
        observer: Observer | None = None,
        timings: Timings = DEFAULT_TIMINGS,
        transport: Transport | None = None,
    ) -> None:
        self._options: dict[str, Any] = {
            "timeout": timeout,
            "client": client,
            "strict_api": strict_api,
            "group_commit": group_commit,
            "retry": retry,
            "journal": journal,
            "lease": lease,
            "transfers": transfers,
            "observer": observer,
            "timings": timings,
            "transport": transport,
        }
        self._session: AsyncSession = _AsyncSession(server_url, api_key, api_user, **self._options)
        self._process: int | None = None  # the latest one in which it was opened
        self._loop: LoopThread | None = None  # in which it is open
        self.is_closed = False

    __init__.__doc__ = AsyncSession.__init__.__doc__

    def __repr__(self) -> str:
        if not hasattr(self, "_session"):
            return f"<{type(self).__name__}>"
        return f"<{type(self).__name__} {self.api_user} at {self.server_url}>"

    def _target(self) -> AsyncSession:
        """Return the async session of this process, which is opened when it is first used."""
        loop = current_loop()
        if self._loop is not loop:
            with loop.opening:
                if self._loop is not loop:
                    if self._process is not None:
                        self._session = self._made_again()
                    self._process = os.getpid()  # before it is opened: another thread may fork
                    Context().run(call, self._session.open)  # what it starts outlives the caller
                    loop.sessions.add(self._session)
                    self._loop = loop
        return self._session

    def _made_again(self) -> AsyncSession:
        has_client = self._options["client"] is not None or self._options["transport"] is not None
        if has_client and self._process != os.getpid():
            raise SessionStateError(
                "this session has an HTTP client of the process that opened it; in a forked "
                "process, open a session with another one"
            )
        server_url, api_user, api_key = connection_of(self._session).credentials
        return _AsyncSession(server_url, api_key.reveal(), api_user, **self._options)

    @mirrors(AsyncSession.open)
    def open(self) -> Self:
        self._target()
        return self

    @mirrors(AsyncSession.aclose)
    def close(self) -> None:
        self.__exit__(None, None, None)

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._loop is current_loop():
            self.is_closed = True
            call_last_step(self._session.__aexit__, kind, error, trace)
            self._loop.sessions.discard(self._session)

    @property
    @mirrors(AsyncSession.server_url)
    def server_url(self) -> str:
        return self._session.server_url

    @property
    @mirrors(AsyncSession.api_user)
    def api_user(self) -> str:
        return self._session.api_user

    @property
    @mirrors(AsyncSession.health)
    def health(self) -> Health:
        return self._target().health

    @overload
    def query(self, expression: type[E], /) -> Query[E]: ...
    @overload
    def query(self, expression: str, /, **parameters: object) -> Query[Entity]: ...
    @mirrors(AsyncSession.query)
    def query(self, expression: type[Entity] | str, /, **parameters: object) -> Query[Any]:
        return Query(call(self._target().query, expression, **parameters))  # type: ignore[arg-type]

    @overload
    def get(self, kind: type[E], key: Key) -> E | None: ...
    @overload
    def get(self, kind: str, key: Key) -> Entity | None: ...
    @mirrors(AsyncSession.get)
    def get(self, kind: Any, key: Key) -> Entity | None:
        return call(self._target().get, kind, key)

    @overload
    def create(self, kind: type[E], data: Mapping[str, Any] | None = None) -> E: ...
    @overload
    def create(self, kind: str, data: Mapping[str, Any] | None = None) -> Entity: ...
    @mirrors(AsyncSession.create)
    def create(self, kind: Any, data: Mapping[str, Any] | None = None) -> Entity:
        made: Entity = call(self._target().create, kind, data)
        return made

    @overload
    def ensure(
        self, kind: type[E], data: Mapping[str, Any], identifying_keys: Sequence[str] | None = None
    ) -> E: ...
    @overload
    def ensure(
        self, kind: str, data: Mapping[str, Any], identifying_keys: Sequence[str] | None = None
    ) -> Entity: ...
    @mirrors(AsyncSession.ensure)
    def ensure(
        self, kind: Any, data: Mapping[str, Any], identifying_keys: Sequence[str] | None = None
    ) -> Entity:
        found: Entity = call(self._target().ensure, kind, data, identifying_keys)
        return found

    populate = blocking(AsyncSession.populate)
    call = blocking(AsyncSession.call)
    server_information = blocking(AsyncSession.server_information)
    schemas = blocking(AsyncSession.schemas)
    current_user = blocking(AsyncSession.current_user)
    custom_attributes = blocking(AsyncSession.custom_attributes)
    use_models = in_loop(AsyncSession.use_models)
    delete = in_loop(AsyncSession.delete)
    rollback = in_loop(AsyncSession.rollback)
    commit = blocking(AsyncSession.commit)
    claim_job = blocking(AsyncSession.claim_job)
    queue_job = blocking(AsyncSession.queue_job)
    wait_for = blocking(AsyncSession.wait_for)
    stop_job = blocking(AsyncSession.stop_job)
    create_component = blocking(AsyncSession.create_component)
    create_sequence = blocking(AsyncSession.create_sequence)
    create_thumbnail = blocking(AsyncSession.create_thumbnail)
    encode_media = blocking(AsyncSession.encode_media)
    download = blocking(AsyncSession.download)
    create_note = blocking(AsyncSession.create_note)
    statuses = blocking(AsyncSession.statuses)
    types = blocking(AsyncSession.types)

    @mirrors(AsyncSession.watch)
    def watch(self, jobs: Job | str | UUID | Iterable[Job | str | UUID]) -> Rows[JobState]:
        return Rows(call(self._target().watch, jobs))

    @mirrors(AsyncSession.unit_of_work)
    def unit_of_work(self) -> AbstractContextManager[UnitOfWork]:
        return Block(call(self._target().unit_of_work), UnitOfWork)


class UnitOfWork(_Recorded):
    """A unit of work, inside its block: see :meth:`Session.unit_of_work`."""

    def __init__(self, unit: AsyncUnitOfWork) -> None:
        self._unit = unit

    def _target(self) -> AsyncUnitOfWork:
        return self._unit

    @mirrors(AsyncUnitOfWork.set)
    def set(self, entity: Entity, **values: Any) -> None:
        call(self._unit.set, entity, **values)

    rollback = in_loop(AsyncUnitOfWork.rollback)
    commit = blocking(AsyncUnitOfWork.commit)
    resolve = blocking(AsyncUnitOfWork.resolve)


class Query(Generic[E]):
    def __init__(self, query: AsyncQuery[E]) -> None:
        self._query = query

    def __repr__(self) -> str:
        return repr(self._query)

    @property
    def expression(self) -> str:
        """The text of the query."""
        return self._query.expression

    @mirrors(AsyncQuery.of)
    def of(self, model: type[F]) -> Query[F]:
        return Query(call(self._query.of, model))

    @mirrors(AsyncQuery.where)
    def where(self, *conditions: object, **parameters: object) -> Query[E]:
        return Query(self._query.where(*conditions, **parameters))

    @mirrors(AsyncQuery.order_by)
    def order_by(self, *keys: object) -> Query[E]:
        return Query(self._query.order_by(*keys))

    @mirrors(AsyncQuery.select)
    def select(self, *projections: object) -> Query[E]:
        return Query(self._query.select(*projections))

    @mirrors(AsyncQuery.limit)
    def limit(self, count: int) -> Query[E]:
        return Query(self._query.limit(count))

    @mirrors(AsyncQuery.offset)
    def offset(self, count: int) -> Query[E]:
        return Query(self._query.offset(count))

    @mirrors(AsyncQuery.all)
    def all(self) -> list[E]:
        return call(self._query.all)

    @mirrors(AsyncQuery.one)
    def one(self) -> E:
        return call(self._query.one)

    @mirrors(AsyncQuery.first)
    def first(self) -> E | None:
        return call(self._query.first)

    @mirrors(AsyncQuery.count)
    def count(self) -> int:
        return call(self._query.count)

    @mirrors(AsyncQuery.exists)
    def exists(self) -> bool:
        return call(self._query.exists)

    @mirrors(AsyncQuery.in_batches)
    def in_batches(self, size: int = PAGE_SIZE) -> Rows[list[E]]:
        return Rows(self._query.in_batches(size))

    def __iter__(self) -> Iterator[E]:
        for page in self.in_batches():
            yield from page


for _blocking, _async in (
    (Session, AsyncSession),
    (Query, AsyncQuery),
):
    _blocking.__doc__ = blocking_text(_async.__doc__)

_default = list[Session]()


def default_session() -> Session:
    """Return the session that :func:`job_context` uses if it is given none.

    It is made of ``FTRACK_SERVER``, ``FTRACK_API_KEY`` and ``FTRACK_API_USER`` when it is first
    needed, shared by all threads, and closed when the program ends.

    Raises:
        ConfigurationError: One of them is missing or unusable.
    """
    if not _default or _default[-1].is_closed:
        _default[:] = [Session()]
    return _default[-1]
