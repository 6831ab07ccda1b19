"""Faults between clients and the server: an ASGI application around that of the server.

The server itself knows nothing of them. What is *applied* goes through it as always, and only
its answer is kept back, cut off or replaced.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json, to_json
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aioftrackjobs.devserver.faults.connections import ClientConnection, Connections
from aioftrackjobs.devserver.faults.kinds import (
    BadGateway,
    Corrupt,
    Delay,
    Drop,
    Fault,
    Hang,
    HtmlPage,
    LosePower,
    NotAtomic,
    Refuse,
    RequestKind,
    Restart,
    SeenRequest,
    Throttle,
    TooManyRequests,
    Truncate,
)
from aioftrackjobs.devserver.faults.plan import Due, Faults, MatcherError

_KINDS: Mapping[tuple[str, str], RequestKind] = {
    ("POST", "/api"): "call",
    ("PUT", "/upload"): "upload",
    ("GET", "/component/get"): "download",
    ("GET", "/component/thumbnail"): "download",
}
_LOGIN_PAGE = "<!doctype html><html><title>Sign in</title><p>Please sign in to continue.</html>"
#: Seconds between two pieces of what is throttled.
_TICK = 0.05


class FaultMiddleware:
    """The application *app*, with what *faults* has planned happening to its requests."""

    def __init__(self, app: ASGIApp, faults: Faults) -> None:
        self.faults = faults
        self.traffic = Connections()
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, unless something happens to it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        line = ClientConnection(scope, receive, send)
        with self.traffic.under_way(line):
            if self.traffic.is_down:
                await line.drop()
            elif not self.faults.planned:
                await self._app(scope, receive, send)
            else:
                await self._answer(line, await _seen(line))

    async def _answer(self, line: ClientConnection, request: SeenRequest) -> None:
        try:
            due = self.faults.due(request)
        except MatcherError as error:  # told at once, as a refusal that nobody tries again after
            refusal = {"exception": "MatcherError", "content": str(error), "error_code": None}
            answer = Response(to_json(refusal), 400, media_type="application/json")
            await answer(line.scope, line.receive, line.send)
        else:
            if due is None:
                await self._app(line.scope, line.receive, line.send)
            else:
                await self._inject(due, line)

    async def _inject(self, due: Due, line: ClientConnection) -> None:
        fault = due.fault
        if getattr(fault, "applied", False) and not isinstance(fault, Delay):
            await self._apply(line)
        match fault:
            case Drop():
                await line.drop()
            case Hang():
                await self.traffic.stall(line)
            case Restart(seconds=seconds):
                self.traffic.go_down(seconds)
                await line.left()
            case LosePower():
                # Windows has no such signal; any other ends a process there as hard.
                os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
            case NotAtomic():
                if not await _Unatomic(self._app, line).answer():
                    self.faults.withdraw(due)
            case Delay():
                await self._delay(fault, line)
            case Throttle():
                await _Slow(self.traffic, line, fault.rate).run(self._app)
            case Truncate():
                await _Truncated(line, fault.kept).run(self._app)
            case Corrupt():
                await self._app(line.scope, _corrupted(line), line.send)
            case _:
                await _reply(fault)(line.scope, line.receive, line.send)

    async def _apply(self, line: ClientConnection) -> None:
        """Do what is asked for, and keep the answer to ourselves."""
        await self._app(line.scope, line.receive, _Answer().take)

    async def _delay(self, fault: Delay, line: ClientConnection) -> None:
        if fault.applied:
            answer = _Answer()
            await self._app(line.scope, line.receive, answer.take)
            if await self.traffic.pause(line, fault.seconds):
                await answer.give(line.send)
                return
        elif await self.traffic.pause(line, fault.seconds):
            await self._app(line.scope, line.receive, line.send)
            return
        await line.drop()


async def _seen(line: ClientConnection) -> SeenRequest:
    """Return what matchers are told of a request; of a call this takes all of its body."""
    method, path = line.scope["method"], line.scope["path"]
    if path.startswith("/upload/"):
        path = "/upload"
    kind = _KINDS.get((method, path), "other")
    operations = _operations(await line.body()) if kind == "call" else ()
    return SeenRequest(method, path, kind, operations)


def _operations(body: bytes) -> tuple[dict[str, Any], ...]:
    try:
        operations = from_json(body)
    except ValueError:
        return ()
    entries = operations if isinstance(operations, list) else []
    return tuple(entry for entry in entries if isinstance(entry, dict))


def _reply(fault: Fault) -> Response:
    """Return what comes in place of the server's answer."""
    match fault:
        case Refuse():
            refusal = {"exception": fault.kind, "content": fault.text, "error_code": None}
            return Response(to_json(refusal), media_type="application/json")
        case BadGateway():
            return PlainTextResponse("Bad gateway", fault.status)
        case HtmlPage():
            return HTMLResponse(_LOGIN_PAGE, fault.status)
        case TooManyRequests():
            headers = {"Retry-After": str(fault.retry_after)}
            return PlainTextResponse("Too many requests", 429, headers)
        case _:
            raise TypeError(f"{fault!r} is no fault of aioftrackjobs.devserver.faults.kinds")


@dataclass(slots=True)
class _Answer:
    """An answer that is kept back."""

    messages: list[Message] = field(default_factory=list)

    async def take(self, message: Message) -> None:
        """Keep a message of it."""
        self.messages.append(message)

    async def give(self, send: Send) -> None:
        """Send all of it."""
        for message in self.messages:
            await send(message)

    @property
    def is_refusal(self) -> bool:
        """Whether it refuses a batch: an answered one begins a list."""
        body = b"".join(message.get("body", b"") for message in self.messages)
        return not body.startswith(b"[")


class _Unatomic:
    """A batch of which the operations before the refused one stay.

    The server takes it in parts, as big as it accepts them, until the refused one is alone.
    """

    def __init__(self, app: ASGIApp, line: ClientConnection) -> None:
        self._app = app
        self._line = line

    async def answer(self) -> bool:
        """Answer it, and return whether it was refused."""
        body = await self._line.body()
        answer = await self._answer_to(body)
        if answer.is_refusal:
            await self._keep(_operations(body))
        await answer.give(self._line.send)
        return answer.is_refusal

    async def _keep(self, operations: tuple[dict[str, Any], ...]) -> None:
        done, refused = 0, len(operations)
        while refused - done > 1:
            middle = (done + refused) // 2
            answer = await self._answer_to(to_json(operations[done:middle]))
            if answer.is_refusal:
                refused = middle
            else:
                done = middle

    async def _answer_to(self, body: bytes) -> _Answer:
        length = (b"content-length", str(len(body)).encode())
        kept = [pair for pair in self._line.scope["headers"] if pair[0] != length[0]]
        answer, parts = _Answer(), iter([body])

        async def receive() -> Message:
            part = next(parts, None)
            if part is None:
                await self._line.left()
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": part, "more_body": False}

        await self._app({**self._line.scope, "headers": [*kept, length]}, receive, answer.take)
        return answer


class _Truncated:
    """An answer that breaks off."""

    def __init__(self, line: ClientConnection, kept: float) -> None:
        self._line = line
        self._kept = kept
        self._left = 0
        self._is_closed = False

    async def run(self, app: ASGIApp) -> None:
        """Have the request done, and send a share of its answer."""
        await app(self._line.scope, self._line.receive, self._send)
        await self._line.drop()

    async def _send(self, message: Message) -> None:
        if self._is_closed:
            return
        if message["type"] == "http.response.start":
            size = next((int(v) for k, v in message["headers"] if k == b"content-length"), 0)
            self._left = int(size * self._kept)
            if size == 0:  # its headers alone would be the whole answer
                self._close()
            else:
                await self._line.send(message)
            return
        body = message.get("body", b"")[: self._left]
        self._left -= len(body)
        if body:
            await self._line.send({**message, "body": body, "more_body": True})
        if self._left == 0:
            self._close()

    def _close(self) -> None:
        self._is_closed = True
        self._line.close()


class _Slow:
    """A request whose bodies pass slowly, until its client is gone."""

    def __init__(self, traffic: Connections, line: ClientConnection, rate: float) -> None:
        self._traffic = traffic
        self._line = line
        self._rate = rate
        self._is_over = False

    async def run(self, app: ASGIApp) -> None:
        """Have the request done."""
        await app(self._line.scope, self._receive, self._send)
        if self._is_over:
            await self._line.drop()

    async def _receive(self) -> Message:
        message = await self._line.receive()
        await self._pass(len(message.get("body", b"")))
        return {"type": "http.disconnect"} if self._is_over else message

    async def _send(self, message: Message) -> None:
        if message["type"] != "http.response.body":
            await self._line.send(message)
            return
        body, size = message.get("body", b""), max(1, int(self._rate * _TICK))
        for start in range(0, len(body), size):
            piece = body[start : start + size]
            await self._pass(len(piece))
            if self._is_over:
                return
            await self._line.send({"type": message["type"], "body": piece, "more_body": True})
        await self._line.send({**message, "body": b""})

    async def _pass(self, size: int) -> None:
        if size and not await self._traffic.pause(self._line, size / self._rate):
            self._is_over = True


def _corrupted(line: ClientConnection) -> Receive:
    """Return how to receive a body of which one byte is changed."""
    is_done = False

    async def receive() -> Message:
        nonlocal is_done
        message = await line.receive()
        body = message.get("body", b"")
        if is_done or not body:
            return message
        is_done = True
        middle = len(body) // 2
        changed = bytes([body[middle] ^ 1])
        return {**message, "body": body[:middle] + changed + body[middle + 1 :]}

    return receive
