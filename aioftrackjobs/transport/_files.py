"""Sends and receives files in worker threads, for sessions that open their own HTTP client.

httpx moves a body in small pieces through several buffers on the event loop. Over TLS, a worker
thread with ``http.client`` is three to five times as fast. A transfer has a thread for ``_TURN``
seconds at a time. Between two turns, the event loop reports progress, and may end the transfer.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from http.cookiejar import CookieJar
from typing import Any, TypeVar
from urllib.request import Request

import anyio
import anyio.lowlevel
from anyio.to_thread import run_sync

from aioftrackjobs._version import __version__
from aioftrackjobs.background import SafeLogger
from aioftrackjobs.config.secret import Secret
from aioftrackjobs.errors import ConnectError, TransportError
from aioftrackjobs.transport._base import (
    Download,
    FileBody,
    OwnTransport,
    Upgraded,
    WireRequest,
    WireResponse,
    Write,
)
from aioftrackjobs.transport._connect import connect
from aioftrackjobs.transport._file_connection import (
    BrokenError,
    FileConnection,
    RawHeaders,
    network_errors,
)
from aioftrackjobs.transport._httpx import encoded
from aioftrackjobs.transport._library import httpx
from aioftrackjobs.transport._redaction import redact
from aioftrackjobs.transport._redirects import (
    MOST_REDIRECTIONS,
    redirected,
    too_many_redirections,
)

logger = SafeLogger(__name__)

T = TypeVar("T")

#: Seconds after which a thread returns to the event loop.
_TURN = 0.1

_PORTS = {"http": 80, "https": 443}

_Origin = tuple[str, str, int]


class FileTransport:
    """Sends requests with files, and downloads, in worker threads; *api* sends all other requests.

    Args:
        api: Sends requests without a file; closed with this object.
        timeout: Seconds for connecting, and for which a server may accept or send nothing.
        keepalive: Seconds after which an idle connection is not used any more.
        load_certificates: Returns the context that verifies servers; called in a worker thread
            when it is first needed.
        cookies: Cookies of earlier responses, because a load balancer may need them.
        secrets: Texts that must never appear in an error.
        threads: Number of threads that may work at the same time.

    Attributes:
        reserved: That of *api*.
    """

    def __init__(
        self,
        api: OwnTransport,
        *,
        timeout: float | None,
        keepalive: float,
        load_certificates: Callable[[], ssl.SSLContext],
        cookies: CookieJar,
        secrets: tuple[Secret[str], ...],
        threads: int,
    ) -> None:
        self._api, self.reserved = api, api.reserved
        self._timeout = timeout
        self._keepalive = keepalive
        self._load_certificates = load_certificates
        self._certificates: ssl.SSLContext | None = None
        self._cookies = cookies
        self._secrets = secrets
        self._limiter = anyio.CapacityLimiter(threads)
        self._idle: dict[_Origin, list[tuple[float, FileConnection]]] = {}
        self._is_closed = False

    def send(self, request: WireRequest) -> Coroutine[Any, Any, WireResponse]:
        """Send *request*, and return its whole response; no redirection is followed."""
        body = request.body
        if body is None or isinstance(body, bytes) or not isinstance(body, FileBody):
            return self._api.send(request)
        return self._send_file(request, body)

    def upgrade(self, request: WireRequest) -> AbstractAsyncContextManager[Upgraded]:
        """Send *request* for another protocol, and give the connection."""
        return self._api.upgrade(request)

    async def _send_file(self, request: WireRequest, body: FileBody) -> WireResponse:
        url = self._parse(request)
        async with self._connected(url) as connection:
            outgoing = self._headers(request, url)
            steps = connection.put(request.method, _target(url), outgoing, body)
            response = await self._move(connection, steps, body.sent)
            logger.debug(
                "%(http_method)s to %(server)s: HTTP %(http_status)d",
                http_method=request.method,
                server=connection.origin,
                http_status=response.status,
            )
            return response

    @asynccontextmanager
    async def stream(self, request: WireRequest) -> AsyncIterator[Download]:
        """Send *request*, follow redirections, and give access to its response."""
        for _ in range(1 + MOST_REDIRECTIONS):
            url = self._parse(request)
            async with self._connected(url) as connection:
                outgoing = self._headers(request, url)
                get = partial(connection.get, request.method, _target(url), outgoing)
                head = await self._run(connection, get)
                logger.debug(
                    "%(http_method)s to %(server)s: HTTP %(http_status)d",
                    http_method=request.method,
                    server=connection.origin,
                    http_status=head.status,
                )
                receive = partial(self._receive, connection)
                found = _FileDownload(head.status, head.headers, connection.body_size, receive)
                following = redirected(request, found, *self._secrets)
                if following is None:
                    yield found
                    return
            request = following
        raise too_many_redirections(request)

    async def aclose(self) -> None:
        """Close *api* and the idle connections; a connection in use is closed after its use."""
        self._is_closed = True
        for connections in self._idle.values():
            for _, connection in connections:
                connection.close()
        self._idle.clear()
        await self._api.aclose()

    # Requests

    def _parse(self, request: WireRequest) -> Secret[httpx.URL]:
        try:
            url = Secret(httpx.URL(request.url))
        except (httpx.InvalidURL, ValueError):
            problem = "the URL of a file is invalid"
        else:
            if url.reveal().scheme in _PORTS and url.reveal().host:
                return url
            problem = f"the URL of a file has the scheme {url.reveal().scheme!r}"
        error = ConnectError(problem)
        error.is_retryable = False
        raise error

    async def _receive(
        self, connection: FileConnection, write: Write, note: Callable[[], object]
    ) -> None:
        await self._move(connection, connection.receive(write), lambda _: note())

    def _headers(self, request: WireRequest, url: Secret[httpx.URL]) -> Secret[RawHeaders]:
        """Return the headers of *request*, and those of every request."""
        defaults = {
            "host": url.reveal().netloc.decode("ascii"),
            "accept": "*/*",
            "accept-encoding": "identity",
            "user-agent": f"aioftrackjobs/{__version__}",
        }
        carrier = Request(str(url.reveal()))  # noqa: S310 - only carries the cookies
        self._cookies.add_cookie_header(carrier)
        if (cookie := carrier.get_header("Cookie")) is not None:
            defaults["cookie"] = cookie
        given = {name.decode().lower(): value for name, value in encoded(request.headers)}
        return Secret([*(defaults | given).items()])

    # Threads

    async def _move(
        self,
        connection: FileConnection,
        steps: Generator[int, None, T],
        note: Callable[[int], object],
    ) -> T:
        """Run *steps*, which yield how many bytes were moved; return their result."""
        results: list[T] = []

        def take_turn() -> int:
            moved, end = 0, time.monotonic() + _TURN
            while True:
                try:
                    moved += next(steps)
                except StopIteration as exc:
                    results.append(exc.value)
                    return moved
                if time.monotonic() >= end:
                    return moved

        while not results:
            moved = await self._run(connection, take_turn)
            if moved:
                note(moved)
        return results[0]

    async def _run(
        self,
        connection: FileConnection,
        function: Callable[[], T],
        kind: type[TransportError] = TransportError,
    ) -> T:
        """Return the result of *function* in a worker thread, which ends if this is cancelled.

        Raises:
            TransportError: The connection broke. The error has the class *kind*.
        """
        results: list[T] = []
        errors: list[Exception] = []

        def work() -> None:
            try:
                results.append(connection.work(function))
            except Exception as exc:  # noqa: BLE001 - the group would wrap it
                errors.append(exc)

        async def stop_if_cancelled() -> None:
            try:
                await anyio.sleep_forever()
            finally:
                if not (results or errors):
                    connection.stop()

        async with anyio.create_task_group() as group:
            group.start_soon(stop_if_cancelled)
            # Wait for the thread even if cancelled, because it uses files that the caller closes.
            await run_sync(work, limiter=self._limiter)
            group.cancel_scope.cancel()
        await anyio.lowlevel.checkpoint_if_cancelled()  # not the error of the stopped thread
        for error in errors:
            if isinstance(error, BrokenError):
                raise self._translate(error, connection.origin, kind)
            raise error
        return results[0]

    def _translate(
        self, broken: BrokenError, origin: str, kind: type[TransportError]
    ) -> TransportError:
        problem = "cannot reach" if kind is ConnectError else "no complete response from"
        error = kind(f"{problem} {origin}: {redact(str(broken), *self._secrets)}")
        error.is_retryable = broken.is_retryable
        return error

    # Connections

    @asynccontextmanager
    async def _connected(self, url: Secret[httpx.URL]) -> AsyncIterator[FileConnection]:
        """Give a connection to the server of *url*; reused if its response is read to the end."""
        host = url.reveal().raw_host.decode("ascii")
        scheme = url.reveal().scheme
        origin = (scheme, host, url.reveal().port or _PORTS[scheme])
        place = f"{scheme}://{url.reveal().netloc.decode('ascii')}"
        connection = self._take_idle(origin) or await self._connect(origin, place)
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
        if connection.is_complete and not self._is_closed:
            self._idle.setdefault(origin, []).append((time.monotonic(), connection))
        else:
            connection.close()

    def _take_idle(self, origin: _Origin) -> FileConnection | None:
        """Return an idle connection; close those that were idle for too long."""
        expired = time.monotonic() - self._keepalive
        for connections in self._idle.values():
            while connections and connections[0][0] < expired:
                connections.pop(0)[1].close()
        connections = self._idle.get(origin, [])
        while connections:
            _, connection = connections.pop()
            if not connection.is_stale:
                return connection
            connection.close()
        return None

    async def _connect(self, origin: _Origin, place: str) -> FileConnection:
        scheme, host, port = origin
        try:
            with network_errors():
                sock = await connect(host, port, self._timeout)
        except BrokenError as exc:
            error = self._translate(exc, place, ConnectError)
        else:
            connection = FileConnection(sock, place, host, self._timeout)
            try:
                if scheme == "https":
                    start_tls = partial(self._start_tls, connection)
                    await self._run(connection, start_tls, ConnectError)
            except BaseException:
                connection.close()
                raise
            return connection
        raise error

    def _start_tls(self, connection: FileConnection) -> None:
        """Encrypt *connection*; in a worker thread."""
        if self._certificates is None:
            self._certificates = self._load_certificates()
        connection.start_tls(self._certificates)


@dataclass(eq=False, slots=True)
class _FileDownload:
    """A response whose body has not been received."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    size: int | None
    save: Callable[[Write, Callable[[], object]], Coroutine[Any, Any, None]]


def _target(url: Secret[httpx.URL]) -> Secret[str]:
    """Return the target of a request: path and query."""
    return Secret(url.reveal().raw_path.decode("ascii"))
