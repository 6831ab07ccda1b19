"""A relay on real sockets between a session and its server, which can fail in several ways."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Literal, get_args

import anyio
from anyio.abc import ByteStream, SocketStream

Outage = Literal["refuses", "hangs", "accepts nothing"]

OUTAGES: tuple[Outage, ...] = get_args(Outage)

_ERRORS = (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError)


class Line:
    """Forwards connections to a server until an outage begins.

    Attributes:
        url: The address of the relay.
        requests: How many requests it has forwarded, or swallowed.
    """

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._socket = _listen(0)
        self._port = self._socket.getsockname()[1]
        self._streams: set[ByteStream] = set()
        self._outage: Outage | None = None
        self._accepting, self._accepts_no_more = anyio.CancelScope(), anyio.Event()
        self._fillers: list[socket.socket] = []
        self.url = f"http://127.0.0.1:{self._port}"
        self.requests = 0

    async def begin(self, outage: Outage) -> None:
        """End all connections, and fail new ones, except when the server only hangs."""
        self._outage = outage
        if outage == "hangs":
            return
        self._accepting.cancel()
        for stream in tuple(self._streams):
            await anyio.aclose_forcefully(stream)
        await self._accepts_no_more.wait()
        if outage == "refuses":
            self._socket.close()
            return
        for _ in range(3):  # the kernel accepts as many as the backlog has room for, and one more
            filler = socket.socket()
            filler.setblocking(False)
            with suppress(BlockingIOError):
                filler.connect(("127.0.0.1", self._port))
            self._fillers.append(filler)

    async def end(self, group: anyio.abc.TaskGroup) -> None:
        """Forward connections again, in a task of *group*."""
        was, self._outage = self._outage, None
        if was == "hangs":
            for stream in tuple(self._streams):
                await anyio.aclose_forcefully(stream)
            return
        if was == "refuses":
            self._socket = _listen(self._port)
        for filler in self._fillers:
            filler.close()
        self._accepting, self._accepts_no_more = anyio.CancelScope(), anyio.Event()
        group.start_soon(self.serve)

    async def serve(self) -> None:
        with self._accepting:
            async with anyio.create_task_group() as group:
                while True:
                    await anyio.wait_readable(self._socket)
                    client, _ = self._socket.accept()
                    group.start_soon(self._forward, await SocketStream.from_socket(client))
        self._accepts_no_more.set()

    async def _forward(self, client: SocketStream) -> None:
        async with client, await anyio.connect_tcp("127.0.0.1", self._server_port) as server:
            self._streams |= {client, server}
            async with anyio.create_task_group() as group:
                group.start_soon(self._copy, client, server, group.cancel_scope)
                group.start_soon(self._copy, server, client, group.cancel_scope)
            self._streams -= {client, server}

    async def _copy(self, source: ByteStream, target: ByteStream, scope: anyio.CancelScope) -> None:
        with suppress(*_ERRORS):
            async for data in source:
                self.requests += data.startswith(b"POST ")
                if self._outage is None:
                    await target.send(data)
        scope.cancel()

    def close(self) -> None:
        self._socket.close()
        for filler in self._fillers:
            filler.close()


def _listen(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setblocking(False)
    listener.bind(("127.0.0.1", port))
    listener.listen(0)
    return listener


@asynccontextmanager
async def relayed(server_url: str) -> AsyncIterator[Line]:
    """Give a relay to the server at *server_url*."""
    line = Line(int(server_url.rpartition(":")[2]))
    async with anyio.create_task_group() as group:
        group.start_soon(line.serve)
        try:
            yield line
        finally:
            group.cancel_scope.cancel()
            line.close()
