"""A server without a socket: it answers in the program that asks it."""

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

_URL = "http://ftrack.fake"


class FakeServer(FtrackServer):
    """The embedded server without network, thread or process.

    ::

        with FakeServer() as server:
            async with server.session() as session:
                ...

    It does the same as one on a socket, with the same faults; lost connections are errors of
    httpx. Each answer is whole before its client sees any of it, and a client that gives up takes
    along what the server has not begun to do.

    Args:
        seed: What the chance of its faults begins with; a random one if not given.
        options: What :func:`aioftrackjobs.devserver.create_app` takes, such as ``fixture``.
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
        """Let go of what it holds."""
        self._engine.close()

    def transport(self) -> FakeTransport:
        """Return a transport to this server, for an ``httpx.AsyncClient``."""
        return FakeTransport(self._injector)

    def client(self, **options: Any) -> httpx.AsyncClient:
        """Return a client whose requests end here; *options* as ``httpx.AsyncClient`` has them."""
        return httpx.AsyncClient(transport=self.transport(), base_url=self.url, **options)

    def session(self, **options: Any) -> AsyncSession:
        """Return a session on this server, to be opened.

        Its client needs no closing: there is no connection.

        Args:
            options: As ``AsyncSession`` has them; *retry* is short if it is not given.
        """
        return super().session(**{"client": self.client(), **options})


class FakeTransport(httpx.AsyncBaseTransport):
    """Transport of httpx to an ASGI application that may lose connections; on any event loop.

    Args:
        app: The application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Have *request* answered.

        Raises:
            httpx.ReadTimeout: If nothing comes within the client's time-out.
            httpx.RemoteProtocolError: If the connection is closed without an answer.
        """
        return await _Exchange(request).run(self._app)


class _Exchange:
    """One request, and as much of the answer as there is."""

    def __init__(self, request: httpx.Request) -> None:
        self._request = request
        self._body = _chunks(request)
        self._is_sent = False
        self._patience: float | None = request.extensions.get("timeout", {}).get("read")
        self._time = anyio.CancelScope()
        self._gone = anyio.Event()
        self._status = 0
        self._headers: list[tuple[bytes, bytes]] = []
        self._arrived: list[bytes] = []
        self._is_complete = False

    async def run(self, app: ASGIApp) -> httpx.Response:
        self._wait_on()
        with self._time:
            async with aclosing(self._body):
                await app(self._scope(), self._receive, self._send)
        if self._time.cancelled_caught:
            raise httpx.ReadTimeout("the server did not answer in time", request=self._request)
        if not self._status:
            raise httpx.RemoteProtocolError(
                "Server disconnected without sending a response.", request=self._request
            )
        stream = _Stream(self._arrived, is_complete=self._is_complete)
        return httpx.Response(self._status, headers=self._headers, stream=stream)

    def _wait_on(self) -> None:
        """Give the server as much time again as the client waits for each piece."""
        if self._patience is not None:
            self._time.deadline = anyio.current_time() + self._patience

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
            "extensions": {CLOSE: self._gone.set},
        }

    async def _receive(self) -> Message:
        if self._gone.is_set():
            return {"type": "http.disconnect"}
        with suppress(StopAsyncIteration):
            chunk = await anext(self._body)
            self._wait_on()
            return {"type": "http.request", "body": chunk, "more_body": True}
        if not self._is_sent:
            self._is_sent = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if self._gone.is_set():
            return
        self._wait_on()
        if message["type"] == "http.response.start":
            self._status, self._headers = message["status"], list(message["headers"])
        elif message["type"] == "http.response.body":
            if self._request.method != "HEAD":
                self._arrived.append(message.get("body", b""))
            if not message.get("more_body", False):
                self._is_complete = True
                self._gone.set()


async def _chunks(request: httpx.Request) -> AsyncGenerator[bytes, None]:
    async for chunk in request.stream:  # type: ignore[union-attr]  # of an async client
        yield chunk


class _Stream(httpx.AsyncByteStream):
    """The body of an answer, which may break off."""

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
