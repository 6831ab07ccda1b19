"""A proxy between client and server that forwards, delays, loses, alters or invents responses.

An attack sets ``rule``, an async function that gets each :class:`Exchange` and decides what happens
to it. Requests arrive over real sockets; each goes to the server on a connection of its own.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import anyio
from anyio.abc import SocketAttribute, SocketStream, TaskGroup

from .servers import Answer, Server, exchange

Rule = Callable[["Exchange"], Awaitable[None]]

_CLOSED = (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, OSError)

#: Headers of a response that belong to one connection.
_HOP = ("connection", "transfer-encoding", "content-length", "keep-alive")


async def forward(exchange: Exchange) -> None:
    """Answer as the server does."""
    await exchange.reply(await exchange.send())


@dataclass(slots=True)
class Exchange:
    """One request, and the connection that waits for its response.

    Attributes:
        operations: Those of an API call; none of another request.
    """

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    operations: list[dict[str, Any]]
    _server: Server
    _stream: SocketStream
    _group: TaskGroup

    @property
    def writes(self) -> list[dict[str, Any]]:
        """The operations that change entities."""
        return [each for each in self.operations if each["action"] in _WRITES]

    @property
    def is_query(self) -> bool:
        """Whether it only reads."""
        return bool(self.operations) and all(each["action"] == "query" for each in self.operations)

    @property
    def is_final(self) -> bool:
        """Whether it has the final status of a Job."""
        return any(
            each.get("entity_data", {}).get("status") in ("done", "failed") for each in self.writes
        )

    async def send(self) -> Answer:
        """Let the server apply it, and return its answer."""
        headers = {name: text for name, text in self.headers.items() if name != "accept-encoding"}
        return await exchange(self._server.port, self.method, self.target, headers, self.body)

    def send_later(self, delay: float, sent: Callable[[], object] = lambda: None) -> None:
        """Let the server apply it after some seconds, whatever becomes of the client."""

        async def run() -> None:
            await anyio.sleep(delay)
            with suppress(*_CLOSED):
                await self.send()
            sent()

        self._group.start_soon(run)

    async def reply(self, answer: Answer) -> None:
        """Send a response."""
        kept = {name: text for name, text in answer.headers.items() if name not in _HOP}
        head = f"HTTP/1.1 {answer.status} X\r\n" + "".join(
            f"{name}: {text}\r\n" for name, text in kept.items()
        )
        length = f"content-length: {len(answer.body)}\r\n\r\n"
        await self.raw((head + length).encode("latin-1") + answer.body)

    async def reply_with(
        self, status: int, body: object, kind: str = "application/json", **headers: str
    ) -> None:
        """Send a response with *body*: bytes, or what becomes JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        names = {name.replace("_", "-"): text for name, text in headers.items()}
        await self.reply(Answer(status, {"content-type": kind, **names}, data))

    async def refuse(self, kind: str = "ServerError", text: str = "refused by the attack") -> None:
        """Refuse all operations, as the server does."""
        await self.reply_with(200, {"exception": kind, "content": text, "error_code": None})

    async def raw(self, data: bytes) -> None:
        """Send bytes."""
        await self._stream.send(data)

    async def drop(self) -> None:
        """Close the connection without a response."""
        await self._stream.aclose()

    async def swallow(self) -> None:
        """Send nothing, as a firewall does, until the client gives up."""
        with suppress(*_CLOSED):
            await self._stream.receive()
        await self._stream.aclose()


_WRITES = ("create", "update", "delete")


@dataclass(slots=True)
class Proxy:
    """The proxy.

    Attributes:
        url: Its address.
        rule: What happens to each request.
        requests: How many have arrived.
        is_away: Whether it closes each connection at once, as if the server did not run.
    """

    server: Server
    url: str = ""
    rule: Rule = forward
    requests: int = 0
    is_away: bool = False
    _group: TaskGroup | None = field(default=None, repr=False)

    async def handle(self, stream: SocketStream) -> None:
        """Serve a connection until one side closes it."""
        buffer = b""
        async with stream:
            with suppress(*_CLOSED):
                while not self.is_away:
                    while b"\r\n\r\n" not in buffer:
                        buffer += await stream.receive()
                    head, _, buffer = buffer.partition(b"\r\n\r\n")
                    line, *lines = head.decode("latin-1").split("\r\n")
                    pairs = (each.partition(":") for each in lines)
                    headers = {name.lower(): value.strip() for name, _, value in pairs}
                    length = int(headers.get("content-length", 0))
                    while len(buffer) < length:
                        buffer += await stream.receive()
                    body, buffer = buffer[:length], buffer[length:]
                    method, target, _ = line.split(" ")
                    self.requests += 1
                    assert self._group is not None
                    await self.rule(
                        Exchange(
                            method,
                            target,
                            headers,
                            body,
                            json.loads(body) if target.startswith("/api") and body else [],
                            self.server,
                            stream,
                            self._group,
                        )
                    )


@asynccontextmanager
async def proxied(server: Server) -> AsyncIterator[Proxy]:
    """Serve a proxy before *server*."""
    proxy = Proxy(server)
    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1", backlog=500) as listener,
        anyio.create_task_group() as group,
    ):
        proxy._group = group
        proxy.url = f"http://127.0.0.1:{listener.extra(SocketAttribute.local_port)}"
        group.start_soon(listener.serve, proxy.handle)
        yield proxy
        group.cancel_scope.cancel()
