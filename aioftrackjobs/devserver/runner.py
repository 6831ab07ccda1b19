"""Running the server on a real socket, in a thread with an event loop of its own.

So a blocked or cancelled client never stalls the server, and code without an event loop can
use it as well.
"""

from __future__ import annotations

import logging
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import uvicorn
from anyio.to_thread import run_sync
from uvicorn.protocols.http.h11_impl import H11Protocol

from aioftrackjobs.devserver.app import application_of
from aioftrackjobs.devserver.engine import DEFAULT_API_USER, Engine
from aioftrackjobs.errors import FtrackJobsError

logger = logging.getLogger(__name__)

DEFAULT_PORT = 8090
#: Seconds that requests under way get when the server stops.
_STOP_GRACE = 1
_BACKLOG = 512


class ServerStartError(FtrackJobsError):
    """The server could not take its address.

    Attributes:
        address: Host and port.
        reason: What the system said.
    """

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(address, reason)
        self.address = address
        self.reason = reason

    def __str__(self) -> str:
        return f"cannot serve on {self.address}: {self.reason}"


@dataclass(frozen=True, slots=True)
class ServerHandle:
    """A running server.

    Attributes:
        url: What clients take as the server's URL.
        api_key: Key of *api_user*.
        api_keys: Keys of all users that have one, by name.
    """

    url: str
    api_user: str
    api_key: str = field(repr=False)
    api_keys: Mapping[str, str] = field(repr=False)


class _Server(uvicorn.Server):
    """A uvicorn server that tells when it is ready, and leaves signals alone."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _QuietProtocol(H11Protocol):
    """HTTP without access lines, which would show the keys that addresses of files carry.

    uvicorn's own switch is a setting of a global logger, which any program may turn back.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.access_log = False


class _Runner:
    """Owns the engine, the socket and the thread from start to stop."""

    def __init__(self, host: str, port: int, options: Mapping[str, Any]) -> None:
        self._socket = _bind(host, port)
        try:
            self._engine = Engine(**options)
        except BaseException:
            self._socket.close()
            raise
        config = uvicorn.Config(
            application_of(self._engine),
            http=_QuietProtocol,
            access_log=False,
            log_config=None,
            ws="none",
            lifespan="on",
            timeout_graceful_shutdown=_STOP_GRACE,
            server_header=False,
        )
        self._server = _Server(config)
        self._thread = threading.Thread(target=self._run, name="aioftrackjobs-devserver")
        self._failure: BaseException | None = None

    def start(self) -> ServerHandle:
        """Start serving, and return when the first request can be answered."""
        self._thread.start()
        self._server.ready.wait()
        if self._failure is not None:
            self.stop()
            raise self._failure
        host, port = self._socket.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        engine = self._engine
        return ServerHandle(
            f"http://{shown}:{port}", engine.api_user, engine.api_key, dict(engine.api_keys)
        )

    def stop(self) -> None:
        """Stop serving and wait for the end of the thread."""
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()
        self._engine.close()

    def _run(self) -> None:
        try:
            self._server.run(sockets=[self._socket])
        except BaseException as error:  # noqa: BLE001 - raised again by start()
            self._failure = error
        finally:
            self._server.ready.set()


def _bind(host: str, port: int) -> socket.socket:
    """Return a listening socket, so that a port in use is an error of the caller's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named, as asyncio turns off Nagle's delay (40 ms an answer) only where it sees TCP.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise ServerStartError(f"{host}:{port}", reason) from error
    return listener


@asynccontextmanager
async def running(
    host: str = "127.0.0.1",
    port: int = 0,
    database: str | Path | None = None,
    storage: str | Path | None = None,
    schemas: Iterable[Mapping[str, Any]] | None = None,
    api_user: str = DEFAULT_API_USER,
    api_key: str | None = None,
) -> AsyncIterator[ServerHandle]:
    """Run a server for the length of the block; by default nothing of it stays.

    Args:
        host: Address to listen on.
        port: 0 for any free one.
        database: SQLite file; in memory if not given.
        storage: Folder for files; a temporary one if not given.
        schemas: Documents as ``query_schemas`` answers them; built-in ones if not given.
        api_user: User the server is made for; added if there is no such user.
        api_key: Key of *api_user*; made up, or kept from the database, if not given.

    Raises:
        ServerStartError: If the address cannot be used.
        StoreError: If the database cannot be used.
    """
    options = _options(database, storage, schemas, api_user, api_key)
    runner = await run_sync(_Runner, host, port, options)
    try:
        yield await run_sync(runner.start)
    finally:
        with anyio.CancelScope(shield=True):
            await run_sync(runner.stop)


def serve(
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    database: str | Path | None = None,
    storage: str | Path | None = None,
    schemas: Iterable[Mapping[str, Any]] | None = None,
    api_user: str = DEFAULT_API_USER,
    api_key: str | None = None,
    on_ready: Callable[[ServerHandle], None] | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM; for programs, from their main thread.

    Takes what :func:`running` takes, and calls *on_ready* once when the first request can be
    answered.

    Raises:
        ServerStartError: If the address cannot be used.
        StoreError: If the database cannot be used.
    """
    runner = _Runner(host, port, _options(database, storage, schemas, api_user, api_key))
    stopped = threading.Event()
    with _signals_set(stopped):
        handle = runner.start()
        try:
            if on_ready is not None:
                on_ready(handle)
            stopped.wait()
        finally:
            runner.stop()


@contextmanager
def _signals_set(event: threading.Event) -> Iterator[None]:
    """Have the two signals that end programs set *event* instead, inside the block."""
    previous = {
        number: signal.signal(number, lambda *_: event.set())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _options(
    database: str | Path | None,
    storage: str | Path | None,
    schemas: Iterable[Mapping[str, Any]] | None,
    api_user: str,
    api_key: str | None,
) -> dict[str, Any]:
    return {
        "database": database,
        "storage": storage,
        "schemas": schemas,
        "api_user": api_user,
        "api_key": api_key,
    }
