"""The other end of a client's connection in tests: servers with fixed responses, proxies, TLS."""

from __future__ import annotations

import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import anyio
from anyio.abc import ByteStream, SocketAttribute
from anyio.streams.tls import TLSListener

#: Errors that mean that the other side has closed the connection.
_CLOSED = (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError)


@dataclass(frozen=True, slots=True)
class Received:
    """A request as it was received, with the names of its headers in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


async def receive_request(stream: ByteStream) -> Received:
    data = b""
    while b"\r\n\r\n" not in data:
        data += await stream.receive()
    head, _, body = data.partition(b"\r\n\r\n")
    line, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    while len(body) < int(headers.get("content-length", 0)):
        body += await stream.receive()
    method, target, _ = line.split(" ")
    return Received(method, target, headers, body)


def response(status: str, body: bytes = b"", **headers: str) -> bytes:
    headers = {"content_length": str(len(body)), **headers}
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode() + body


@asynccontextmanager
async def listening(
    handle: Callable[[ByteStream], Awaitable[None]], context: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Pass each connection to *handle*, over TLS if there is a *context*. Yield the port."""

    async def serve(stream: ByteStream) -> None:
        async with stream:
            with suppress(*_CLOSED):
                await handle(stream)

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = listener.extra(SocketAttribute.local_port)
        async with anyio.create_task_group() as group:
            if context is None:
                group.start_soon(listener.serve, serve)
            else:
                secure = TLSListener(listener, context, standard_compatible=False)
                group.start_soon(secure.serve, serve)
            yield port
            group.cancel_scope.cancel()


@asynccontextmanager
async def responding(respond: Callable[[Received], bytes]) -> AsyncIterator[int]:
    """Send what *respond* returns for each request. Yield the port."""

    async def handle(stream: ByteStream) -> None:
        while True:
            await stream.send(respond(await receive_request(stream)))

    async with listening(handle) as port:
        yield port


@asynccontextmanager
async def over_tls(url: str, context: ssl.SSLContext) -> AsyncIterator[int]:
    """Forward TLS connections to the server at *url*. Yield the port."""
    host, port = urlsplit(url).hostname, urlsplit(url).port
    assert host is not None
    assert port is not None

    async def handle(stream: ByteStream) -> None:
        async with await anyio.connect_tcp(host, port) as upstream:
            await _pipe(stream, upstream)

    async with listening(handle, context) as secure_port:
        yield secure_port


@dataclass(slots=True)
class Proxy:
    """An HTTP proxy, which forwards requests for URLs and makes tunnels for CONNECT.

    Attributes:
        user: "name:password" that clients need; None for no authentication.
        received: The requests that it has received.
    """

    user: str | None = None
    received: list[Received] = field(default_factory=list)

    async def handle(self, stream: ByteStream) -> None:
        request = await receive_request(stream)
        self.received.append(request)
        if self.user is not None:
            wanted = f"Basic {b64encode(self.user.encode()).decode()}"
            if request.headers.get("proxy-authorization") != wanted:
                await stream.send(response("407 Who are you?", connection="close"))
                return
        if request.method == "CONNECT":
            host, _, port = request.target.rpartition(":")
            async with await anyio.connect_tcp(host, int(port)) as upstream:
                await stream.send(b"HTTP/1.1 200 OK\r\n\r\n")
                await _pipe(stream, upstream)
        else:
            await self._forward(request, stream)

    async def _forward(self, request: Received, stream: ByteStream) -> None:
        """Forward one request and its response, then close the connection."""
        url = urlsplit(request.target)
        assert url.hostname is not None
        assert url.port is not None
        kept = {k: v for k, v in request.headers.items() if not k.startswith("proxy-")}
        lines = [f"{name}: {value}" for name, value in {**kept, "connection": "close"}.items()]
        target = f"{url.path}?{url.query}" if url.query else url.path
        head = "\r\n".join([f"{request.method} {target} HTTP/1.1", *lines, "", ""])
        async with await anyio.connect_tcp(url.hostname, url.port) as upstream:
            await upstream.send(head.encode() + request.body)
            await _pipe(stream, upstream)


async def _pipe(one: ByteStream, other: ByteStream) -> None:
    """Copy in both directions until one side closes the connection."""

    async def copy(source: ByteStream, target: ByteStream) -> None:
        with suppress(*_CLOSED):
            async for chunk in source:
                await target.send(chunk)
        group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(copy, one, other)
        group.start_soon(copy, other, one)
