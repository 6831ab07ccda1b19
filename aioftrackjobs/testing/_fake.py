"""FakeServer: a server without a socket, in the process of its client."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote

import anyio
import httpx
from starlette.types import ASGIApp, Message

from aioftrackjobs.devserver import Faults, create_app
from aioftrackjobs.devserver.faults.connections import CLOSE
from aioftrackjobs.devserver.faults.middleware import FaultMiddleware
from aioftrackjobs.devserver.serving.handle import handle_of
from aioftrackjobs.session import AsyncSession
from aioftrackjobs.testing._server import FtrackServer

_URL = "http://ftrack.test"


class FakeServer(FtrackServer):
    """The embedded server without network, thread or process.

    ::

        with FakeServer() as server:
            async with server.session() as session:
                ...

    It behaves like a server on a socket, with the same faults: a lost connection raises the error
    that httpx has for it. There are two differences. A client receives a response only when all of
    it is there. If a client cancels a request, the server drops what it has not begun to do.

    Args:
        seed: Random seed of the faults; None for a random one.
        options: Arguments of :func:`aioftrackjobs.devserver.create_app`, such as ``fixture``.
    """

    def __init__(self, *, seed: int | None = None, **options: Any) -> None:
        app = create_app(**options)
        self._engine = app.state.engine
        self._injector = FaultMiddleware(app, Faults(seed))
        super().__init__(handle_of(_URL, self._engine, self._injector))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the database, and remove the files."""
        self._engine.close()

    def transport(self) -> FakeTransport:
        """Return a transport to this server, for an ``httpx.AsyncClient``."""
        return FakeTransport(self._injector)

    def client(self, **options: Any) -> httpx.AsyncClient:
        """Return a client of this server; *options* are those of ``httpx.AsyncClient``."""
        return httpx.AsyncClient(transport=self.transport(), base_url=self.url, **options)

    def session(self, **options: Any) -> AsyncSession:
        """Return a session on this server, to be entered with ``async with``.

        Args:
            options: Arguments of ``AsyncSession``. Without *retry*, the delays between attempts are
                shorter than by default.
        """
        return super().session(**{"client": self.client(), **options})


class FakeTransport(httpx.AsyncBaseTransport):
    """A transport of httpx to an ASGI application whose connections may be lost, on any event loop.

    Args:
        app: The application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Return the response of the application to *request*.

        Raises:
            httpx.ReadTimeout: No data came within the timeout of the client.
            httpx.RemoteProtocolError: The connection was closed without a response.
        """
        return await _Exchange(request).run(self._app)


class _Exchange:
    """One request, and the response as far as it has come."""

    def __init__(self, request: httpx.Request) -> None:
        self._request = request
        self._body = _chunks(request)
        self._is_sent = False
        self._timeout: float | None = request.extensions.get("timeout", {}).get("read")
        self._time_limit = anyio.CancelScope()
        self._is_closed = anyio.Event()
        self._status = 0
        self._headers: list[tuple[bytes, bytes]] = []
        self._received: list[bytes] = []
        self._is_complete = False

    async def run(self, app: ASGIApp) -> httpx.Response:
        self._extend_time_limit()
        with self._time_limit:
            async with aclosing(self._body):
                await app(self._scope(), self._receive, self._send)
        if self._time_limit.cancelled_caught:
            raise httpx.ReadTimeout("no response in time", request=self._request)
        if not self._status:
            raise httpx.RemoteProtocolError(
                "Server disconnected without sending a response.", request=self._request
            )
        stream = _Stream(self._received, is_complete=self._is_complete)
        return httpx.Response(self._status, headers=self._headers, stream=stream)

    def _extend_time_limit(self) -> None:
        """Start the client's read timeout again, because data has moved."""
        if self._timeout is not None:
            self._time_limit.deadline = anyio.current_time() + self._timeout

    def _scope(self) -> dict[str, Any]:
        url = self._request.url
        raw_path = url.raw_path.partition(b"?")[0]
        return {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": self._request.method,
            "headers": [(name.lower(), value) for name, value in self._request.headers.raw],
            "scheme": url.scheme,
            "path": unquote(raw_path.decode("ascii")),
            "raw_path": raw_path,
            "query_string": url.query,
            "server": (url.host, url.port or 80),
            "client": ("127.0.0.1", 1),
            "root_path": "",
            "extensions": {CLOSE: self._is_closed.set},
        }

    async def _receive(self) -> Message:
        if self._is_closed.is_set():
            return {"type": "http.disconnect"}
        with suppress(StopAsyncIteration):
            chunk = await anext(self._body)
            self._extend_time_limit()
            return {"type": "http.request", "body": chunk, "more_body": True}
        if not self._is_sent:
            self._is_sent = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._is_closed.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if self._is_closed.is_set():
            return
        self._extend_time_limit()
        if message["type"] == "http.response.start":
            self._status, self._headers = message["status"], list(message["headers"])
        elif message["type"] == "http.response.body":
            if self._request.method != "HEAD":
                self._received.append(message.get("body", b""))
            if not message.get("more_body", False):
                self._is_complete = True
                self._is_closed.set()


async def _chunks(request: httpx.Request) -> AsyncGenerator[bytes, None]:
    async for chunk in request.stream:  # type: ignore[union-attr]  # of an async client
        yield chunk


class _Stream(httpx.AsyncByteStream):
    """The body of a response, which may be incomplete."""

    def __init__(self, pieces: list[bytes], *, is_complete: bool) -> None:
        self._pieces = pieces
        self._is_complete = is_complete

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece
        if not self._is_complete:
            raise httpx.RemoteProtocolError(
                "peer closed connection without sending complete message body"
            )
