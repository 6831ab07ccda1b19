"""A proxy on real sockets in front of a server, which does with each request what a test says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

import anyio
from anyio.abc import ByteStream

from .wires import Received, listening, receive_request

#: Deals with a request: sends what it wants over the stream, which is closed then.
Act: TypeAlias = Callable[[ByteStream], Awaitable[None]]


class Unruly:
    """Passes requests on to a server, unless :attr:`choose` returns something else to do.

    Attributes:
        url: Its address.
        choose: Returns what to do with a request; None to pass it on.
        requests: All requests, in the order of their arrival.
        connections: How many there were.
    """

    def __init__(self, server_url: str) -> None:
        self._port = int(server_url.rpartition(":")[2])
        self.choose: Callable[[Received], Act | None] = lambda _: None
        self.requests: list[Received] = []
        self.connections = 0
        self._dead = 0
        self.url = ""

    def kill_connections(self) -> None:
        """Respond to nothing over the connections that there are, as a firewall does."""
        self._dead = self.connections

    async def serve(self, stream: ByteStream) -> None:
        self.connections += 1
        number = self.connections
        while True:
            request = await receive_request(stream)
            self.requests.append(request)
            if number <= self._dead:
                await anyio.sleep_forever()
            act = self.choose(request)
            if act is not None:
                await act(stream)
                return
            await stream.send(await self._pass_on(request))

    async def _pass_on(self, request: Received) -> bytes:
        headers = {**request.headers, "connection": "close"}
        head = f"{request.method} {request.target} HTTP/1.1\r\n" + "".join(
            f"{name}: {value}\r\n" for name, value in headers.items()
        )
        response = b""
        async with await anyio.connect_tcp("127.0.0.1", self._port) as server:
            await server.send(f"{head}\r\n".encode() + request.body)
            async for data in server:
                response += data
        return response.replace(b"connection: close\r\n", b"", 1)


def respond(data: bytes) -> Act:
    """Send *data*, which may be no whole response."""

    async def act(stream: ByteStream) -> None:
        await stream.send(data)

    return act


async def swallow(_: ByteStream) -> None:
    """Never respond."""
    await anyio.sleep_forever()


@asynccontextmanager
async def unruly(server_url: str) -> AsyncIterator[Unruly]:
    """Give a proxy in front of the server at *server_url*."""
    proxy = Unruly(server_url)
    async with listening(proxy.serve) as port:
        proxy.url = f"http://127.0.0.1:{port}"
        yield proxy
