"""Injecting faults: an ASGI middleware around the application of the server.

The application itself has no code for faults. If a fault is *applied*, the request passes to the
application as usual, and only the response is discarded, truncated or replaced.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json, to_json
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aioftrackjobs.devserver.api_errors import ApiError
from aioftrackjobs.devserver.faults import kinds
from aioftrackjobs.devserver.faults.connections import (
    INJECTED,
    READ,
    ClientConnection,
    Connections,
)
from aioftrackjobs.devserver.faults.event_faults import FaultyEvents
from aioftrackjobs.devserver.faults.plan import Due, Faults, MatcherError

_KINDS: Mapping[tuple[str, str], kinds.RequestKind] = {
    ("POST", "/api"): "call",
    ("PUT", "/upload"): "upload",
    ("GET", "/component/get"): "download",
    ("GET", "/component/thumbnail"): "download",
}
_LOGIN_PAGE = "<!doctype html><html><title>Sign in</title><p>Please sign in to continue.</html>"
#: Seconds between two pieces of a throttled body.
_TICK = 0.05


class FaultMiddleware:
    """Injects the faults that are planned in *faults* into requests to *app*."""

    def __init__(self, app: Starlette, faults: Faults) -> None:
        self.faults = faults
        self.connections: Connections = Connections()
        self._app = app
        self._reader = app.state.reader

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on, or inject a fault into it."""
        connection = ClientConnection(scope, receive, send)
        if scope["type"] == "websocket":
            with self.connections.track(connection, is_busy=False):
                if self.connections.is_down:
                    connection.close()
                else:
                    await self._app(scope, receive, FaultyEvents(self.faults, connection).send)
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_own = is_page(scope)
        with self.connections.track(connection, is_busy=not is_own):
            if self.connections.is_down:
                await connection.drop()
            elif is_own or not self.faults.planned:
                await self._app(scope, receive, send)
            else:
                await self._seen(connection)

    async def _seen(self, connection: ClientConnection) -> None:
        """Show a request to the matchers; the body of a batch is read for that.

        A batch that the application refuses to read is none of theirs.
        """
        scope = connection.scope
        method, path = scope["method"], scope["path"]
        if path.startswith("/upload/"):
            path = "/upload"
        kind = _KINDS.get((method, path), "other")
        if kind != "call":
            await self._respond(connection, kinds.SeenRequest(method, path, kind))
            return
        async with AsyncExitStack() as held:
            try:
                reading = self._reader.read(Request(scope, connection.receive))
                scope[READ], body = await held.enter_async_context(reading)
            except ClientDisconnect:
                return
            except ApiError as error:
                scope[READ] = error
                await self._app(scope, connection.receive, connection.send)
            else:
                connection.replay(body)
                seen = kinds.SeenRequest(method, path, kind, _operations(body))
                await self._respond(connection, seen)

    async def _respond(self, connection: ClientConnection, request: kinds.SeenRequest) -> None:
        try:
            due = self.faults.due(request)
        except MatcherError as error:  # a status that no client retries, so that it shows at once
            body = {"exception": "MatcherError", "content": str(error), "error_code": None}
            response = Response(to_json(body), 400, media_type="application/json")
            await response(connection.scope, connection.receive, connection.send)
        else:
            if due is None:
                await self._app(connection.scope, connection.receive, connection.send)
            else:
                await self._inject(due, connection)

    async def _inject(self, due: Due, connection: ClientConnection) -> None:
        fault = connection.scope[INJECTED] = due.fault
        if getattr(fault, "applied", False) and not isinstance(fault, kinds.Delay):
            await self._apply(connection)
        match fault:
            case kinds.Drop():
                await connection.drop()
            case kinds.Hang():
                await self.connections.stall(connection)
            case kinds.Restart(seconds=seconds):
                self.connections.go_down(seconds)
                await connection.wait_closed()
            case kinds.LosePower():
                # Windows has no SIGKILL; SIGTERM kills a process there at once.
                os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
            case kinds.NotAtomic():
                if not await _NotAtomicBatch(self._app, connection).respond():
                    self.faults.withdraw(due)
            case kinds.Delay():
                await self._delay(fault, connection)
            case kinds.Throttle():
                await _ThrottledRequest(self.connections, connection, fault.rate).run(self._app)
            case kinds.Truncate():
                await _TruncatedResponse(connection, fault.kept).run(self._app)
            case kinds.Corrupt():
                await self._app(connection.scope, _corrupted(connection), connection.send)
            case _:
                await _response(fault)(connection.scope, connection.receive, connection.send)

    async def _apply(self, connection: ClientConnection) -> None:
        """Pass the request on, and discard the response."""
        await self._app(connection.scope, connection.receive, _BufferedResponse().store)

    async def _delay(self, fault: kinds.Delay, connection: ClientConnection) -> None:
        if fault.applied:
            response = _BufferedResponse()
            await self._app(connection.scope, connection.receive, response.store)
            if await self.connections.pause(connection, fault.seconds):
                await response.send_to(connection.send)
                return
        elif await self.connections.pause(connection, fault.seconds):
            await self._app(connection.scope, connection.receive, connection.send)
            return
        await connection.drop()


def is_page(scope: Scope) -> bool:
    """Return whether a request is one of the server's own pages, which see no faults."""
    if scope["path"] == "/":
        return any(name == b"accept" and b"text/html" in value for name, value in scope["headers"])
    return str(scope["path"]).startswith("/pages/")


def _operations(body: bytes) -> tuple[dict[str, Any], ...]:
    try:
        operations = from_json(body)
    except ValueError:
        return ()
    entries = operations if isinstance(operations, list) else []
    return tuple(entry for entry in entries if isinstance(entry, dict))


def _response(fault: kinds.Fault) -> Response:
    """Return the response that replaces the server's."""
    match fault:
        case kinds.Refuse():
            body = {"exception": fault.kind, "content": fault.text, "error_code": None}
            return Response(to_json(body), media_type="application/json")
        case kinds.BadGateway():
            return PlainTextResponse("Bad gateway", fault.status)
        case kinds.HtmlPage():
            return HTMLResponse(_LOGIN_PAGE, fault.status)
        case kinds.TooManyRequests():
            headers = {"Retry-After": str(fault.retry_after)}
            return PlainTextResponse("Too many requests", 429, headers)
        case _:
            raise TypeError(f"{fault!r} is not a fault of aioftrackjobs.devserver.faults")


@dataclass(slots=True)
class _BufferedResponse:
    """A response that is not sent yet."""

    messages: list[Message] = field(default_factory=list)

    async def store(self, message: Message) -> None:
        """Store a message of it."""
        self.messages.append(message)

    async def send_to(self, send: Send) -> None:
        """Send all of it."""
        for message in self.messages:
            await send(message)

    @property
    def is_refusal(self) -> bool:
        """Whether it refuses a batch: the response to an accepted one is a list."""
        body = b"".join(message.get("body", b"") for message in self.messages)
        return not body.startswith(b"[")


class _NotAtomicBatch:
    """A batch that is refused, and whose operations before the refused one are applied.

    The batch is sent to the server again in parts, as big as it accepts them, until the refused
    operation is left alone.
    """

    def __init__(self, app: ASGIApp, connection: ClientConnection) -> None:
        self._app = app
        self._connection = connection

    async def respond(self) -> bool:
        """Send the response, and return whether the batch was refused."""
        body = self._connection.body
        if body is None:  # it is no batch
            await self._app(self._connection.scope, self._connection.receive, self._connection.send)
            return False
        response = await self._response_to(body)
        if response.is_refusal:
            await self._keep(_operations(body))
        await response.send_to(self._connection.send)
        return response.is_refusal

    async def _keep(self, operations: tuple[dict[str, Any], ...]) -> None:
        done, refused = 0, len(operations)
        while refused - done > 1:
            middle = (done + refused) // 2
            response = await self._response_to(to_json(operations[done:middle]))
            if response.is_refusal:
                refused = middle
            else:
                done = middle

    async def _response_to(self, body: bytes) -> _BufferedResponse:
        length = (b"content-length", str(len(body)).encode())
        kept = [pair for pair in self._connection.scope["headers"] if pair[0] != length[0]]
        response, parts = _BufferedResponse(), iter([body])

        async def receive() -> Message:
            part = next(parts, None)
            if part is None:
                await self._connection.wait_closed()
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": part, "more_body": False}

        await self._app(
            {**self._connection.scope, "headers": [*kept, length]}, receive, response.store
        )
        return response


class _TruncatedResponse:
    """A response that breaks off."""

    def __init__(self, connection: ClientConnection, kept: float) -> None:
        self._connection = connection
        self._kept = kept
        self._left = 0
        self._is_closed = False

    async def run(self, app: ASGIApp) -> None:
        """Pass the request on, and send a part of the response."""
        await app(self._connection.scope, self._connection.receive, self._send)
        await self._connection.drop()

    async def _send(self, message: Message) -> None:
        if self._is_closed:
            return
        if message["type"] == "http.response.start":
            size = next((int(v) for k, v in message["headers"] if k == b"content-length"), 0)
            self._left = int(size * self._kept)
            if size == 0:  # the headers alone are the whole response
                self._close()
            else:
                await self._connection.send(message)
            return
        body = message.get("body", b"")[: self._left]
        self._left -= len(body)
        if body:
            await self._connection.send({**message, "body": body, "more_body": True})
        if self._left == 0:
            self._close()

    def _close(self) -> None:
        self._is_closed = True
        self._connection.close()


class _ThrottledRequest:
    """A request whose bodies pass slowly, until its client has disconnected."""

    def __init__(self, connections: Connections, connection: ClientConnection, rate: float) -> None:
        self._connections = connections
        self._connection = connection
        self._rate = rate
        self._is_over = False

    async def run(self, app: ASGIApp) -> None:
        """Pass the request on."""
        await app(self._connection.scope, self._receive, self._send)
        if self._is_over:
            await self._connection.drop()

    async def _receive(self) -> Message:
        message = await self._connection.receive()
        await self._pass(len(message.get("body", b"")))
        return {"type": "http.disconnect"} if self._is_over else message

    async def _send(self, message: Message) -> None:
        if message["type"] != "http.response.body":
            await self._connection.send(message)
            return
        body, size = message.get("body", b""), max(1, int(self._rate * _TICK))
        for start in range(0, len(body), size):
            piece = body[start : start + size]
            await self._pass(len(piece))
            if self._is_over:
                return
            await self._connection.send({"type": message["type"], "body": piece, "more_body": True})
        await self._connection.send({**message, "body": b""})

    async def _pass(self, size: int) -> None:
        if size and not await self._connections.pause(self._connection, size / self._rate):
            self._is_over = True


def _corrupted(connection: ClientConnection) -> Receive:
    """Return a receive function that changes one byte of the body."""
    is_done = False

    async def receive() -> Message:
        nonlocal is_done
        message = await connection.receive()
        body = message.get("body", b"")
        if is_done or not body:
            return message
        is_done = True
        middle = len(body) // 2
        changed = bytes([body[middle] ^ 1])
        return {**message, "body": body[:middle] + changed + body[middle + 1 :]}

    return receive
