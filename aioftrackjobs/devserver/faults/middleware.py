"""Injecting faults: an ASGI middleware around the application of the server.

The application itself has no code for faults. If a fault is *applied*, the request passes to the
application as usual, and only the response is discarded, truncated or replaced.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from contextlib import AsyncExitStack
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
        response = _BufferedResponse()
        if getattr(fault, "applied", False):
            await self._app(connection.scope, connection.receive, response.store)
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
                if not await _apply_partly(self._app, connection):
                    self.faults.withdraw(due)
            case kinds.Delay():
                await self._delay(fault, connection, response)
            case kinds.Throttle(rate=rate):
                await _throttle(self._app, connection, self.connections, rate)
            case kinds.Truncate(kept=kept):
                await _truncate(self._app, connection, kept)
            case kinds.Corrupt():
                await self._app(connection.scope, _corrupted(connection.receive), connection.send)
            case _:
                await _response(fault)(connection.scope, connection.receive, connection.send)

    async def _delay(
        self, fault: kinds.Delay, connection: ClientConnection, response: _BufferedResponse
    ) -> None:
        if not await self.connections.pause(connection, fault.seconds):
            await connection.drop()
        elif fault.applied:
            await response.send_to(connection.send)
        else:
            await self._app(connection.scope, connection.receive, connection.send)


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


class _BufferedResponse(list[Message]):
    """A response that is not sent yet."""

    async def store(self, message: Message) -> None:
        self.append(message)

    async def send_to(self, send: Send) -> None:
        for message in self:
            await send(message)

    @property
    def is_refusal(self) -> bool:
        """Whether it refuses a batch: the response to an accepted one is a list."""
        return not b"".join(message.get("body", b"") for message in self).startswith(b"[")


async def _apply_partly(app: ASGIApp, connection: ClientConnection) -> bool:
    """Apply what comes before the refused operation of a batch; return whether one is refused.

    The batch is sent to the server again in parts, as big as it accepts them, until the refused
    operation is left alone.
    """
    if connection.body is None:  # it is no batch
        await app(connection.scope, connection.receive, connection.send)
        return False
    response = await _response_to(connection.body, app, connection)
    if response.is_refusal:
        operations = _operations(connection.body)
        done, refused = 0, len(operations)
        while refused - done > 1:
            middle = (done + refused) // 2
            part = await _response_to(to_json(operations[done:middle]), app, connection)
            done, refused = (done, middle) if part.is_refusal else (middle, refused)
    await response.send_to(connection.send)
    return response.is_refusal


async def _response_to(
    body: bytes, app: ASGIApp, connection: ClientConnection
) -> _BufferedResponse:
    length = (b"content-length", str(len(body)).encode())
    headers = [*(pair for pair in connection.scope["headers"] if pair[0] != length[0]), length]
    response, parts = _BufferedResponse(), iter([body])

    async def receive() -> Message:
        for part in parts:
            return {"type": "http.request", "body": part, "more_body": False}
        await connection.wait_closed()
        return {"type": "http.disconnect"}

    await app({**connection.scope, "headers": headers}, receive, response.store)
    return response


async def _truncate(app: ASGIApp, connection: ClientConnection, kept: float) -> None:
    """Pass the request on, and send a part of the response."""
    left: int | None = None

    async def send(message: Message) -> None:
        nonlocal left
        if left is None:
            size = next((int(v) for k, v in message["headers"] if k == b"content-length"), 0)
            left = int(size * kept)
            if size:  # the headers alone would be the whole response
                await connection.send(message)
        elif body := message.get("body", b"")[:left]:
            left -= len(body)
            await connection.send({**message, "body": body, "more_body": True})
        if left == 0:
            connection.close()

    await app(connection.scope, connection.receive, send)
    await connection.drop()


async def _throttle(
    app: ASGIApp, connection: ClientConnection, connections: Connections, rate: float
) -> None:
    is_over = False

    async def wait_for(size: int) -> None:
        nonlocal is_over
        if size and not await connections.pause(connection, size / rate):
            is_over = True

    async def receive() -> Message:
        message = await connection.receive()
        await wait_for(len(message.get("body", b"")))
        return {"type": "http.disconnect"} if is_over else message

    async def send(message: Message) -> None:
        body, size = message.get("body", b""), max(1, int(rate * _TICK))
        for start in range(0, len(body), size):
            piece = body[start : start + size]
            await wait_for(len(piece))
            if is_over:
                return
            await connection.send({"type": message["type"], "body": piece, "more_body": True})
        await connection.send({**message, "body": b""} if body else message)

    await app(connection.scope, receive, send)
    if is_over:
        await connection.drop()


def _corrupted(receive: Receive) -> Receive:
    """Return a receive function that changes one byte of the body."""
    is_done = False

    async def receive_corrupted() -> Message:
        nonlocal is_done
        message = await receive()
        body = bytearray(message.get("body", b""))
        if is_done or not body:
            return message
        is_done = True
        body[len(body) // 2] ^= 1
        return {**message, "body": bytes(body)}

    return receive_corrupted
