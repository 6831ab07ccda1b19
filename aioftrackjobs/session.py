"""AsyncSession: the one object that users open, a facade over the packages below."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, cast, overload

from aioftrackjobs.commit.unit_of_work import UnitOfWork
from aioftrackjobs.config import resolve_credentials, resolve_journal
from aioftrackjobs.connection import Connection
from aioftrackjobs.entities.context import EntityContext
from aioftrackjobs.entities.queries import Query, ensure, fetch_entity, key_reference, populate
from aioftrackjobs.errors import EntityError
from aioftrackjobs.health import Health, check_health
from aioftrackjobs.jobs.context import JobsContext
from aioftrackjobs.jobs.ownership import LEASE_SECONDS
from aioftrackjobs.models import Entity, FileComponent, User
from aioftrackjobs.protocol.operations import Operation
from aioftrackjobs.protocol.query import bind
from aioftrackjobs.protocol.values import JSONValue, encode_value
from aioftrackjobs.retry import RetryPolicy
from aioftrackjobs.timings import DEFAULT_TIMINGS, Timings
from aioftrackjobs.transfers.content import Uploadable
from aioftrackjobs.transfers.control import ProgressCallback
from aioftrackjobs.transfers.download import download
from aioftrackjobs.transfers.upload import upload
from aioftrackjobs.transport import HttpClient, Transport

logger = logging.getLogger(__name__)

E = TypeVar("E", bound=Entity)


def connection_of(session: AsyncSession) -> Connection:
    """Return the connection of *session* to its server."""
    return session._connection


def context_of(session: AsyncSession) -> EntityContext:
    """Return what *session* is made of, for the parts of this package that stand on it."""
    return session._context


def jobs_of(session: AsyncSession) -> JobsContext:
    """Return what the Jobs of *session* share."""
    return session._jobs


class AsyncSession:
    """A connection to an ftrack server, with the entities and pending changes of its users.

    Open it with ``async with``. It may be shared by any number of tasks, and closed by another
    task than the one that opened it. What talks to the server is awaited, nothing else is.

    Args:
        server_url: The studio's server; else ``FTRACK_SERVER``.
        api_key: A personal or global key; else ``FTRACK_API_KEY``, then ``FTRACK_APIKEY``.
        api_user: The user that acts; else ``FTRACK_API_USER``.
        timeout: Seconds for each of connecting, sending and waiting for more of an answer; a
            *client* keeps its own.
        client: An ``httpx.AsyncClient`` or ``httpx2.AsyncClient`` to use, which stays the
            caller's to close.
        strict_api: Ask the server for real HTTP status codes; ``group by`` needs it.
        group_commit: Let commits that are queued together share a request. Each still has an
            outcome of its own.
        retry: When to try again what may be repeated, such as the transfer of a part of a file.
        journal: File, on a local disk, that keeps what a crash would lose: running Jobs, last
            words, uploads; else ``FTRACK_JOBS_JOURNAL``. All processes of a host may share it.
        lease: Seconds after which a running Job whose owner gives no sign of life counts as
            lost; renewed three times as often. 0 for no leases.
        transfers: Uploads and downloads that are under way at once, and the connections that
            they use between them. Others wait their turn; API calls never wait for any.
        timings: Times that the session waits by itself; for tests of this package.
        transport: Sends the requests in place of a client; for tests of this package.

    Raises:
        ConfigurationError: Something that is needed is in neither place; it names all of it.
    """

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
        timings: Timings = DEFAULT_TIMINGS,
        transport: Transport | None = None,
    ) -> None:
        credentials = resolve_credentials(server_url, api_key, api_user)
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
        )
        self._context = EntityContext(self._connection)
        self._jobs = JobsContext(self._context, lease=lease)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.api_user} at {self.server_url}>"

    async def __aenter__(self) -> Self:
        await self._connection.__aenter__()
        if self._connection.journal.state != "off":
            self._jobs.replay.wake()  # for what others have left
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            pending = len(self._context.default_unit.recorded_operations)
            if pending:
                logger.warning("the session closes with %d operation(s) not committed", pending)
        await self._connection.__aexit__(kind, error, trace)

    @property
    def server_url(self) -> str:
        """The server, without a trailing slash."""
        return self._connection.credentials.server_url

    @property
    def api_user(self) -> str:
        """The user that acts."""
        return self._connection.credentials.api_user

    @property
    def health(self) -> Health:
        """What is waiting, and since when."""
        return check_health(self._connection)

    # Reading

    def query(self, expression: str, /, **parameters: object) -> Query[Entity]:
        """Return a query to iterate over, or to ask for ``all``, ``one`` or ``first``.

        Args:
            expression: A query, with or without ``select ... from``.
            parameters: Values that are quoted and put in place of ``{name}``. Without any, the
                text is taken as it is.

        Raises:
            QueryParameterError: Placeholders and parameters do not fit together.
        """
        self._connection.require_open()
        return Query(self._context, bind(expression, parameters))

    @overload
    async def get(self, kind: type[E], key: str | Sequence[str]) -> E | None: ...
    @overload
    async def get(self, kind: str, key: str | Sequence[str]) -> Entity | None: ...
    async def get(self, kind: type[Entity] | str, key: str | Sequence[str]) -> Entity | None:
        """Return the entity with *key* as the server has it now; None if there is none.

        Args:
            kind: A model or the name of an entity type.
            key: The id, or the parts of a key of several in the order of the schema.

        Raises:
            InvalidKeyError: The number of parts is wrong.
        """
        self._connection.require_open()
        return await fetch_entity(self._context, key_reference(self._context.model(kind), key))

    async def populate(
        self, entities: Entity | Iterable[Entity], projections: str | Sequence[str]
    ) -> None:
        """Load more of known entities.

        Args:
            entities: One or more, of any types.
            projections: Attributes and paths, as in a query: ``"status, user.username"``.
        """
        self._connection.require_open()
        wanted = [projections] if isinstance(projections, str) else projections
        several = [entities] if isinstance(entities, Entity) else entities
        await populate(self._context, several, wanted)

    async def call(self, operations: Sequence[Mapping[str, object]]) -> list[Any]:
        """Send *operations* in one request, and return the decoded answer to each.

        Times and entities in the operations are encoded, and in the answers decoded.

        Source:
            protocol.md, section 2.
        """
        encoded = [
            cast("Mapping[str, JSONValue]", encode_value(operation, f"operations[{index}]"))
            for index, operation in enumerate(operations)
        ]
        return await self._context.call(encoded)

    async def server_information(self) -> dict[str, Any]:
        """Return what the server says of itself; asked for once (protocol.md, section 2.4)."""
        self._connection.require_open()
        return dict(await self._context.server_information())

    async def schemas(self) -> list[dict[str, Any]]:
        """Return the server's schema documents; asked for once (protocol.md, section 5.1)."""
        self._connection.require_open()
        return list(await self._context.schemas())

    async def current_user(self) -> User:
        """Return the user that the session acts as; asked for once.

        Raises:
            NoResultFoundError: A global key was given with the name of no user.
        """
        self._connection.require_open()
        return await self._context.current_user()

    # Recording: no I/O

    @overload
    def create(self, kind: type[E], data: Mapping[str, Any] | None = None) -> E: ...
    @overload
    def create(self, kind: str, data: Mapping[str, Any] | None = None) -> Entity: ...
    def create(self, kind: type[Entity] | str, data: Mapping[str, Any] | None = None) -> Entity:
        """Make an entity that the next commit creates.

        Args:
            kind: A model or the name of an entity type.
            data: Values of attributes; relations as entities, or as ids under their ``_id`` name.

        Raises:
            ValueError: An attribute cannot have its value.
            UnknownAttributeError: The type has no such attribute.
            UnknownEntityTypeError: The server's schemas are known, and have no such type.
            InvalidKeyError: The key has several parts, and one is missing.
            UnserialisableValueError: A value cannot travel.
        """
        self._connection.require_open()
        return self._context.create(kind, data or {}, unit=self._context.unit)

    def delete(self, entity: Entity) -> None:
        """Record that the next commit deletes *entity*.

        Raises:
            EntityError: The entity belongs to no session, or to another one; or another unit of
                work has yet to create it.
        """
        self._connection.require_open()
        if not self._context.owns(entity):
            raise EntityError(f"{entity!r} is none of this session's entities")
        self._context.unit.record_delete(entity)

    @property
    def recorded_operations(self) -> tuple[Operation, ...]:
        """What the running flow has recorded and not committed, in order."""
        return self._context.unit.recorded_operations

    @property
    def uncertain_operations(self) -> tuple[Operation, ...]:
        """Operations that were sent, and may or may not have been applied."""
        return self._context.unit.uncertain_operations

    @property
    def created(self) -> list[Entity]:
        """Entities that the next commit creates."""
        return self._context.unit.created

    @property
    def modified(self) -> list[Entity]:
        """Entities that the next commit changes."""
        return self._context.unit.modified

    @property
    def deleted(self) -> list[Entity]:
        """Entities that the next commit deletes."""
        return self._context.unit.deleted

    def rollback(self) -> None:
        """Forget what the running flow has recorded, and put its local values back."""
        self._context.unit.rollback()

    def unit_of_work(self) -> AbstractAsyncContextManager[UnitOfWork]:
        """Give the running flow a unit of work of its own, for the length of the block.

        What the flow records in it is no other flow's to commit. A clean exit commits the rest,
        an error rolls it back.
        """
        self._connection.require_open()
        return self._context.enter_unit()

    # Committing

    async def commit(self) -> None:
        """Send what the running flow has recorded; returns when the server has applied it.

        Raises:
            ServerError: The server refused; the operations are pending again.
            ConnectError: The request never left; the operations are pending again.
            CommitUncertainError: It was sent, and no complete answer came.
        """
        self._connection.require_open()
        await self._context.unit.commit()

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
        """Return the entity that has *data*: found and brought up to date, or created.

        Commits by itself, and nothing of what the flow has recorded.

        Args:
            kind: A model or the name of an entity type.
            data: Values that the entity has afterwards.
            identifying_keys: Which of them tell it from others; all if not given.

        Raises:
            MultipleResultsFoundError: Several entities have the identifying values.
        """
        self._connection.require_open()
        return await ensure(self._context, kind, data, identifying_keys)

    # Files

    async def create_component(
        self,
        source: Uploadable,
        data: Mapping[str, Any] | None = None,
        location: Entity | Literal["auto"] = "auto",
        *,
        name: str | None = None,
        checksum: bool = True,
        progress: ProgressCallback | None = None,
    ) -> FileComponent:
        """Upload *source* to the server location, and register it. Commits by itself.

        Big files travel in parts, several at the same time. A part whose connection breaks, or
        that the server cannot take just then, is sent again, as the session's *retry* says.

        Args:
            source: A path, bytes, a binary file object (its `read` may be async) or an async
                iterator of bytes. A directory (``plates``), or a sequence of paths, becomes a
                zip archive (``plates.zip``).
            data: Attributes of the component, such as its ``name``.
            location: The server location, which is also what "auto" means.
            name: File name with extension; needed where *source* has no path.
            checksum: Verify by MD5 digests that what arrives is what was sent.
            progress: Called on the event loop with the bytes sent, and how many there are; it
                must not block, and what it raises ends the upload.

        Raises:
            TransferError: The file could not be read, or the server did not take it.
            FileChangedError: The file changed while it was uploaded.
            TransportError: The server could not be reached.
            UnsupportedLocationError: This package cannot write to the location.
        """
        self._connection.require_open()
        given = None if location == "auto" else location
        return await upload(
            self._context,
            source,
            data=data or {},
            location=given,
            name=name,
            verified=checksum,
            progress=progress,
        )

    async def download(
        self,
        component: Entity | str,
        path: str | os.PathLike[str],
        *,
        resume: bool = False,
        progress: ProgressCallback | None = None,
    ) -> Path:
        """Download the file of *component*, or of the component with that id, to *path*.

        It grows beside *path*, and replaces what is there when it is complete. If the connection
        breaks, the download goes on where it was, as the session's *retry* says.

        Args:
            component: What to download.
            path: File to write.
            resume: Go on where an earlier call with *resume* was cut off, even by the end of its
                process, if the file is still the same; and if this one is, leave ``.NAME.part``
                and ``.NAME.part.json`` beside *path* for the next.
            progress: Called on the event loop with the bytes that are written, and how many
                there are, or None; it must not block, and what it raises ends the download.

        Raises:
            TransferError: The server has no such file, it broke off, or it cannot be written.
            TransportError: The server could not be reached.
        """
        self._connection.require_open()
        await download(self._context, component, Path(path), resume=resume, progress=progress)
        return Path(path)
