"""AsyncSession: the object that users open. It has no logic of its own: the packages below do."""

from __future__ import annotations

import os
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeAlias, TypeVar, cast, overload
from uuid import UUID

from aioftrackjobs.background import mark_coroutine_functions
from aioftrackjobs.commit.unit_of_work import UnitOfWork
from aioftrackjobs.config.retry import RetryPolicy
from aioftrackjobs.config.secret import Secret
from aioftrackjobs.config.settings import (
    require,
    require_count,
    require_flag,
    require_seconds,
    require_text,
    require_values,
    resolve_credentials,
    resolve_journal,
)
from aioftrackjobs.config.timings import DEFAULT_TIMINGS, Timings
from aioftrackjobs.connection import Connection
from aioftrackjobs.entities.arguments import (
    check_owned,
    list_of_names,
    list_of_operations,
    list_of_owned,
)
from aioftrackjobs.entities.context import EntityContext
from aioftrackjobs.entities.ensure import ensure
from aioftrackjobs.entities.of_session import EntitiesOfSession
from aioftrackjobs.entities.queries import (
    Query,
    fetch_entity,
    key_reference,
    load_custom_attributes,
    populate,
)
from aioftrackjobs.jobs.context import JobsContext
from aioftrackjobs.jobs.of_session import JobsOfSession
from aioftrackjobs.jobs.ownership import LEASE_SECONDS, LONGEST_LEASE
from aioftrackjobs.models import Entity, User
from aioftrackjobs.protocol.custom_attributes import CustomAttribute
from aioftrackjobs.protocol.operations import Operation
from aioftrackjobs.protocol.query import bind
from aioftrackjobs.transfers.of_session import FilesOfSession, files_of
from aioftrackjobs.transport import HttpClient, Transport, is_client

if TYPE_CHECKING:
    from aioftrackjobs.connection.health import Health
    from aioftrackjobs.events.hub import EventHub
    from aioftrackjobs.telemetry import Observer, SafeObserver

E = TypeVar("E", bound=Entity)

#: An id, or the parts of a key with several attributes.
Key: TypeAlias = str | UUID | Sequence[str | UUID]


def connection_of(session: AsyncSession) -> Connection:
    """Return the connection of *session*, for other modules of this package."""
    return session._connection


def context_of(session: AsyncSession) -> EntityContext:
    """Return the entities of *session*, for other modules of this package."""
    return session._context


def jobs_of(session: AsyncSession) -> JobsContext:
    """Return what the Jobs of *session* share, for other modules of this package."""
    return session._jobs


def _safe(observer: object) -> SafeObserver:
    from aioftrackjobs.telemetry import Observer, SafeObserver  # late: few sessions have one

    require(isinstance(observer, Observer), "observer", "an Observer", observer)
    return SafeObserver(cast("Observer", observer))


class AsyncSession(JobsOfSession, FilesOfSession, EntitiesOfSession):
    """A connection to an ftrack server, with its entities and their uncommitted changes.

    ::

        async with AsyncSession() as session:
            job = await session.query("Job where status is queued").of(Job).first()
            job["status"] = "running"  # recorded, not sent yet
            await session.commit()  # sent, and applied by the server

    Any number of tasks can share a session. Methods that communicate with the server are awaited;
    the others do no I/O. Their names are those of the official client where it has them.

    Args:
        server_url: URL of the server. Default: ``FTRACK_SERVER`` of the environment.
        api_key: A personal or global API key. Default: ``FTRACK_API_KEY``, then ``FTRACK_APIKEY``.
        api_user: Name of the user as whom the session acts. Default: ``FTRACK_API_USER``.
        timeout: Seconds that connecting, sending and each wait for data may take.
        client: An ``httpx.AsyncClient`` or ``httpx2.AsyncClient`` to use, with its own timeouts.
            The session does not close it.
        strict_api: Ask the server for HTTP status codes of errors. ``group by`` needs it.
        group_commit: Send commits that wait at the same time in one request. Each one still
            succeeds or fails by itself.
        retry: When to repeat what is safe to repeat, such as the upload of a part of a file.
        journal: File on a local disk that keeps running Jobs, their final status and uploads over
            a crash. Processes of one host may share it. Default: ``FTRACK_JOBS_JOURNAL``, if set.
        lease: Seconds after which a running Job counts as lost if its process does not renew the
            lease, which it does three times in this period. 0 for no leases.
        transfers: Number of uploads and downloads at the same time; others wait.
        observer: Sees what the session does, for traces and metrics: see docs/telemetry.md.
        timings: Internal waiting times, for tests of this package.
        transport: Sends the requests in place of a client, for tests of this package.

    Raises:
        ConfigurationError: The server, the key or the user is missing or unusable; or, when the
            session opens, the journal cannot be written.
        ArgumentError: Another argument has a wrong type or value.
    """

    _context_type: ClassVar[type[EntityContext]] = EntityContext

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
        key = Secret(api_key)
        del api_key  # tracebacks with variables would show it
        credentials = resolve_credentials(server_url, key, api_user)
        require_seconds("timeout", timeout, above=True)
        require(client is None or is_client(client), "client", "an async HTTP client", client)
        require_flag("strict_api", strict_api)
        require_flag("group_commit", group_commit)
        require(isinstance(retry, RetryPolicy), "retry", "a RetryPolicy", retry)
        require_seconds("lease", lease, most=LONGEST_LEASE)
        require_count("transfers", transfers)
        self._connection = Connection(
            credentials,
            timeout=timeout,
            client=client,
            strict_api=strict_api,
            group_commit=group_commit,
            retry=retry,
            journal=resolve_journal(journal),
            transfers=transfers,
            timings=timings,
            transport=transport,
            observer=None if observer is None else _safe(observer),
        )
        self._context = self._context_type(self._connection)
        self._context.files_of = partial(files_of, self._context)
        self._jobs = JobsContext(self._context, lease=lease)
        self._events: EventHub | None = None

    def __repr__(self) -> str:
        if not hasattr(self, "_jobs"):  # a debugger shows it before it is complete
            return f"<{type(self).__name__}>"
        return f"<{type(self).__name__} {self.api_user} at {self.server_url}>"

    async def open(self) -> Self:
        """Open the session where there is no ``async with`` block; return the session itself.

        It is for notebooks and for hooks of a framework, which begin and end in two places. Call
        :meth:`aclose` in the end, in the same event loop::

            session = await AsyncSession().open()
            ...
            await session.aclose()

        Raises:
            ConfigurationError: The journal cannot be written.
            SessionStateError: The session is open already, or closed.
        """
        return await self.__aenter__()

    async def aclose(self) -> None:
        """Close the session: send what waits to be sent, and close its connections.

        As at the end of an ``async with`` block, changes that are not committed are dropped with a
        warning. Closing a session again does nothing.
        """
        await self.__aexit__(None, None, None)

    async def __aenter__(self) -> Self:
        await self._connection.__aenter__()
        mark_coroutine_functions(AsyncSession.commit)
        if self._connection.observer is not None:
            self._connection.observer.session_opened(self)
        if self._connection.journal.state != "off":
            self._jobs.replay.wake()  # delivers what earlier processes have left in the journal
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        self._context.tasks.close(by_error=kind is not None)
        try:
            await self._connection.__aexit__(kind, *rest)
        finally:
            if self._connection.observer is not None:
                self._connection.observer.session_closed(self)

    @property
    def server_url(self) -> str:
        """URL of the server, without a trailing slash."""
        return self._connection.credentials.server_url

    @property
    def api_user(self) -> str:
        """Name of the user as whom the session acts."""
        return self._connection.credentials.api_user

    @property
    def health(self) -> Health:
        """Queued commits, undelivered final statuses and the latest failure, with their times."""
        from aioftrackjobs.connection.health import (  # late: few programs ask
            EventHubHealth,
            check_health,
        )

        events = EventHubHealth() if self._events is None else self._events.health()
        return check_health(self._connection, events)

    @property
    def events(self) -> EventHub:
        """The event hub, which connects when it is first used: see :class:`EventHub`."""
        if self._events is None:
            from aioftrackjobs.events.hub import EventHub  # late: few programs listen

            self._events = self._jobs.events.hub = EventHub(self._context)
        return self._events

    # Reading

    @overload
    def query(self, expression: type[E], /) -> Query[E]: ...
    @overload
    def query(self, expression: str, /, **parameters: object) -> Query[Entity]: ...
    def query(self, expression: type[Entity] | str, /, **parameters: object) -> Query[Any]:
        """Return a query, which is sent when you use it: see :class:`Query`.

        Example:
            ``session.query("Task where name is {name}", name="comp")``

        Args:
            expression: Its text, or a model such as ``Job`` for all of its kind. Without
                ``select``, it loads the default attributes of its type.
            parameters: Values for the ``{name}`` placeholders, which are quoted; a list of values
                after ``in``: ``"id in {ids}"``. Without any, the text stays as it is.

        Raises:
            QueryParameterError: The parameters do not match, or a query cannot hold one of them.
        """
        self._connection.require_open(anywhere=True)
        if isinstance(expression, type):
            model = self._context.model(expression)
            return Query(self._context, model.entity_type).of(expression).where(**parameters)
        require_text("expression", expression)
        return Query(self._context, bind(expression, parameters))

    @overload
    async def get(self, kind: type[E], key: Key) -> E | None: ...
    @overload
    async def get(self, kind: str, key: Key) -> Entity | None: ...
    async def get(self, kind: type[Entity] | str, key: Key) -> Entity | None:
        """Return the entity with *key* as the server has it now; None if there is none.

        Args:
            kind: A model such as ``Job``, or the name of an entity type.
            key: The id, as text or UUID; or the parts of a key with several attributes, in the
                order of the schema.

        Raises:
            InvalidKeyError: The key has the wrong number of parts, or one that is no id.
        """
        self._connection.require_open()
        return await fetch_entity(self._context, key_reference(self._context.model(kind), key))

    async def populate(
        self, entities: Entity | Iterable[Entity], projections: str | Sequence[str]
    ) -> None:
        """Load attributes of *entities*: ``await session.populate(jobs, "status, user.email")``.

        Raises:
            EntityError: One of *entities* does not belong to this session.
        """
        self._connection.require_open()
        wanted = list_of_names("projections", projections)
        await populate(self._context, list_of_owned(self._context, entities), wanted)

    async def call(self, operations: Sequence[Mapping[str, object]]) -> list[Any]:
        """Send *operations* in one request, and return the result of each.

        Times and entities are encoded in the operations and decoded in the results. The operations
        are those of docs/protocol.md, section 2.
        """
        self._connection.require_open()
        return await self._context.call(list_of_operations(operations))

    async def server_information(self) -> dict[str, Any]:
        """Return what the server says of itself, loaded once (docs/protocol.md, section 2.4)."""
        self._connection.require_open()
        return dict(await self._context.server_information())

    async def schemas(self) -> list[dict[str, Any]]:
        """Return the server's schema documents, loaded once (docs/protocol.md, section 5.1)."""
        self._connection.require_open()
        return list(await self._context.schemas())

    async def custom_attributes(self) -> list[CustomAttribute]:
        """Load the configurations of custom attributes, and return what they say.

        A query or :meth:`populate` of ``custom_attributes`` loads them, if they are not. Creating
        an entity with custom attributes needs them before::

            await session.custom_attributes()
            session.create("Shot", {"name": "sh010", "custom_attributes": {"fstart": 1001}, ...})
        """
        self._connection.require_open()
        return await load_custom_attributes(self._context)

    def use_models(self, models: ModuleType | Iterable[type[Entity]]) -> None:
        """Let entities be of the classes in *models*, by their entity types.

        ``aioftrackjobs models > studio.py`` writes such a module from a server's schemas::

            import studio

            session.use_models(studio)
            shot = await session.query(studio.Shot).first()

        Args:
            models: Classes, or a module that lists them under ``MODELS``.

        Raises:
            EntityError: A class cannot be that of its entity type.
            UnknownEntityTypeError: The schemas are loaded, and have no such type.
        """
        self._connection.require_open(anywhere=True)
        listed: Any = getattr(models, "MODELS", models)
        require(isinstance(listed, Iterable), "models", "a module, or classes", models)
        for each in listed:
            self._context.model(each)

    async def current_user(self) -> User:
        """Return the user as whom the session acts, loaded once.

        Raises:
            NoResultFoundError: There is no such user, which a global API key allows.
        """
        self._connection.require_open()
        return await self._context.current_user()

    # Recording changes: no I/O

    @overload
    def create(self, kind: type[E], data: Mapping[str, Any] | None = None) -> E: ...
    @overload
    def create(self, kind: str, data: Mapping[str, Any] | None = None) -> Entity: ...
    def create(self, kind: type[Entity] | str, data: Mapping[str, Any] | None = None) -> Entity:
        """Make an entity that the next commit creates.

        Args:
            kind: A model such as ``Job``, or the name of an entity type.
            data: Values by attribute. A relation is an entity, or an id under its ``_id`` name.

        Raises:
            EntityError: A value, a name or an incomplete key is refused; its class says which.
        """
        self._connection.require_open(anywhere=True)
        require_values("data", data)
        return self._context.create(kind, data or {}, unit=self._context.tasks.to_record())

    def delete(self, entity: Entity) -> None:
        """Record that the next commit deletes *entity*.

        Raises:
            EntityError: The entity does not belong to this session, or another unit of work has
                created it and not committed yet.
        """
        self._connection.require_open(anywhere=True)
        check_owned(self._context, entity)
        self._context.tasks.to_record().record_delete(entity)

    @property
    def recorded_operations(self) -> tuple[Operation, ...]:
        """Operations that the next commit sends, in order."""
        return self._context.tasks.to_act_on().recorded_operations

    @property
    def uncertain_operations(self) -> tuple[Operation, ...]:
        """Operations that were sent, and may or may not have been applied."""
        return self._context.tasks.to_act_on().uncertain_operations

    @property
    def created(self) -> list[Entity]:
        """Entities that the next commit creates."""
        return self._context.tasks.to_act_on().created

    @property
    def modified(self) -> list[Entity]:
        """Entities that the next commit changes."""
        return self._context.tasks.to_act_on().modified

    @property
    def deleted(self) -> list[Entity]:
        """Entities that the next commit deletes."""
        return self._context.tasks.to_act_on().deleted

    def rollback(self) -> None:
        """Drop what is recorded and not committed, and restore the values of the entities."""
        self._context.tasks.roll_back()

    # Committing

    def commit(self) -> Coroutine[Any, Any, None]:
        """Send the recorded operations in one transaction; return when the server has applied it.

        They are those of the task that calls this, whichever task awaits the result::

            await asyncio.wait_for(session.commit(), timeout=5)

        Raises:
            ServerError: The server refused the commit. The operations are pending again.
            ConnectError: The request was not sent. The operations are pending again.
            CommitUncertainError: The request was sent, but no complete response arrived.
        """
        self._connection.require_open(anywhere=True)
        return self._context.tasks.to_commit().promise_commit()

    def unit_of_work(self) -> AbstractAsyncContextManager[UnitOfWork]:
        """Give the current task a unit of work of its own inside an ``async with`` block.

        No other task commits or rolls back what it records there. The end of the block commits
        what is left; an error rolls it back::

            async with session.unit_of_work():
                session.create(Job, {"status": "queued"})
        """
        self._connection.require_open(anywhere=True)
        return self._context.enter_unit()

    @overload
    async def ensure(
        self, kind: type[E], data: Mapping[str, Any], identifying_keys: Sequence[str] | None = None
    ) -> E: ...
    @overload
    async def ensure(
        self, kind: str, data: Mapping[str, Any], identifying_keys: Sequence[str] | None = None
    ) -> Entity: ...
    async def ensure(
        self,
        kind: type[Entity] | str,
        data: Mapping[str, Any],
        identifying_keys: Sequence[str] | None = None,
    ) -> Entity:
        """Find an entity and update it, or create it; return it with the values of *data*.

        This commits its own changes, and nothing that was recorded before. Tasks of this session
        that ensure the same entity at the same time create one.

        Args:
            kind: A model such as ``Job``, or the name of an entity type.
            data: Values by attribute that the entity has afterwards.
            identifying_keys: The attributes to find it by. Default: all of *data*.

        Raises:
            QueryParameterError: There are no identifying keys, or one has no value in *data*, or
                is a path or a list.
            MultipleResultsFoundError: Several entities have the identifying values.
            EntityError: An entity in *data* is recorded, and not yet committed.
        """
        self._connection.require_open()
        require_values("data", data, optional=False)
        if identifying_keys is not None:
            identifying_keys = list_of_names("identifying_keys", identifying_keys, several=True)
        return await ensure(self._context, kind, data, identifying_keys)
