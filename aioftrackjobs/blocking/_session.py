"""Session, Query and UnitOfWork for plain threads; what they read is loaded when it is read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextvars import Context
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from aioftrackjobs.blocking._loop import LoopThread, call, call_last_step, current_loop
from aioftrackjobs.blocking._proxies import Proxy, blocking_text, mirrored
from aioftrackjobs.commit.unit_of_work import UnitOfWork as AsyncUnitOfWork
from aioftrackjobs.connection.health import Health
from aioftrackjobs.entities.context import EntityContext
from aioftrackjobs.entities.mapped_values import MappedValues
from aioftrackjobs.entities.queries import Query as AsyncQuery
from aioftrackjobs.entities.queries import populate
from aioftrackjobs.errors import SessionStateError
from aioftrackjobs.models import CustomAttributeValues, Entity, MetadataValues
from aioftrackjobs.session import AsyncSession, connection_of

if TYPE_CHECKING:
    from aioftrackjobs.blocking._events import EventHub

E = TypeVar("E", bound=Entity)

_CREDENTIALS = frozenset({"server_url", "api_key", "api_user"})


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


class _Files:
    """What moves files to and from a location, for plain threads."""

    def __init__(self, files: Any) -> None:
        self._files = files

    def __getattr__(self, name: str) -> Any:
        return partial(call, getattr(self._files, name))


class _AsyncSession(AsyncSession):
    _context_type = _Entities

    def __init__(self, *credentials: str | None, **options: Any) -> None:
        super().__init__(*credentials, **options)
        files_of = self._context.files_of
        self._context.files_of = lambda location: _Files(files_of(location))
        self._context.wait_for_job = partial(call, self._context.wait_for_job)


class Session(Proxy, of=AsyncSession, without={"aclose"}):
    is_closed: bool

    def __init__(self, *credentials: str | None, **options: Any) -> None:
        self._options = {name: options[name] for name in options.keys() - _CREDENTIALS}
        self._session: AsyncSession = _AsyncSession(*credentials, **options)
        self._process: int | None = None  # the latest one in which it was opened
        self._loop: LoopThread | None = None  # in which it is open
        self._hub: EventHub | None = None
        self.is_closed = False

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
        has_client = {self._options.get(name) for name in ("client", "transport")} != {None}
        if has_client and self._process != os.getpid():
            raise SessionStateError(
                "this session has an HTTP client of the process that opened it; in a forked "
                "process, open a session with another one"
            )
        server_url, api_user, api_key = connection_of(self._session).credentials
        return _AsyncSession(server_url, api_key.reveal(), api_user, **self._options)

    def open(self) -> Self:
        self._target()
        return self

    def close(self) -> None:
        self.__exit__(None, None, None)

    close.__doc__ = blocking_text(AsyncSession.aclose.__doc__)

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
    def server_url(self) -> str:
        return self._session.server_url

    @property
    def api_user(self) -> str:
        return self._session.api_user

    @property
    def health(self) -> Health:
        return self._target().health

    @property
    def events(self) -> EventHub:
        hub = call(lambda session: session.events, self._target())
        if self._hub is None or self._hub._target() is not hub:
            from aioftrackjobs.blocking._events import EventHub  # late: few programs listen

            self._hub = EventHub(hub)
        return self._hub


mirrored(Session.__init__, AsyncSession.__init__)


class UnitOfWork(
    Proxy,
    of=AsyncUnitOfWork,
    only=(
        "recorded_operations",
        "uncertain_operations",
        "created",
        "modified",
        "deleted",
        "set",
        "rollback",
        "commit",
        "resolve",
    ),
):
    """A unit of work, inside its block: see :meth:`Session.unit_of_work`."""


class Query(Proxy, Generic[E], of=AsyncQuery):
    @property
    def expression(self) -> str:
        """The text of the query."""
        return str(self._async.expression)

    def __iter__(self) -> Iterator[E]:
        for page in self._call("in_batches"):
            yield from page


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
