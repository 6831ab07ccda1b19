"""The running requests of a server, and the connections to their clients."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import anyio
from starlette.types import Message, Receive, Scope, Send

#: Extension of a request's scope: closes its connection when it is called.
CLOSE: Final = "aioftrackjobs.close"
#: Extension of a request's scope: whether it has shown a key.
KNOWN: Final = "aioftrackjobs.known"
#: Entry in a request's scope: the sender of a batch that is read, or the error of reading it.
READ: Final = "aioftrackjobs.read"
#: Entry in a request's scope: the fault that was injected into it.
INJECTED: Final = "aioftrackjobs.injected"
#: Extension of a WebSocket's scope: closes its connection, and discards what is not sent yet.
ABORT: Final = "aioftrackjobs.abort"


class ClientConnection:
    """One request and the connection to its client, which can be closed.

    Attributes:
        generation: How often :meth:`Connections.settle` was called before the request.
        body: The body, if it was read.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.generation = 0
        self.scope = scope
        self.send = send
        self._receive = receive
        self._replayed: Iterator[Message] = iter(())
        self.body: bytes | None = None

    def replay(self, body: bytes) -> None:
        """Make :meth:`receive` return the *body*, which is read, once more."""
        message = {"type": "http.request", "body": body, "more_body": False}
        self.body, self._replayed = body, iter([message])

    async def receive(self) -> Message:
        """Return the next message."""
        for message in self._replayed:
            return message
        return await self._receive()

    def close(self) -> None:
        """Close the connection when everything is sent."""
        close: Callable[[], None] | None = self.scope.get("extensions", {}).get(CLOSE)
        if close is None:
            raise RuntimeError(
                "the server of this application cannot drop connections; "
                "use running(), or aioftrackjobs.testing.FakeServer"
            )
        close()

    async def wait_closed(self) -> None:
        """Wait until the client has disconnected; what it still sends is discarded."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def drop(self) -> None:
        """Close the connection, and wait until it is closed."""
        self.close()
        await self.wait_closed()


class Connections:
    """All running requests, to disconnect their clients or to wait for their end."""

    def __init__(self) -> None:
        self._connections: set[ClientConnection] = set()
        #: Those that do not pause.
        self._busy: set[ClientConnection] = set()
        self._idle = threading.Condition()
        self._generation = 0
        self._down_until = 0.0

    @property
    def is_down(self) -> bool:
        """Whether the server simulates that it is not running."""
        return time.monotonic() < self._down_until

    @contextmanager
    def track(self, connection: ClientConnection, *, is_busy: bool = True) -> Iterator[None]:
        """Track a request, or a WebSocket, which is never *busy*, for the length of the block."""
        connection.generation = self._generation
        self._connections.add(connection)
        if is_busy:
            self._note(connection, is_busy=True)
        try:
            yield
        finally:
            self._connections.discard(connection)
            self._note(connection, is_busy=False)

    def go_down(self, seconds: float) -> None:
        """Disconnect all clients, and accept no requests for some seconds."""
        self._down_until = time.monotonic() + seconds
        for connection in list(self._connections):
            connection.close()

    async def pause(self, connection: ClientConnection, seconds: float) -> bool:
        """Pause a request, and return whether it may go on: not after :meth:`settle`."""
        with self._paused(connection):
            await anyio.sleep(seconds)
        return connection.generation == self._generation

    async def stall(self, connection: ClientConnection) -> None:
        """Pause a request until its client has disconnected."""
        with self._paused(connection):
            await connection.wait_closed()

    def settle(self, timeout: float) -> bool:
        """Wait from another thread for the end of running requests; those that pause are dropped.

        Returns:
            Whether they have ended within *timeout* seconds.
        """
        self._down_until = 0.0
        with self._idle:
            self._generation += 1
            return self._idle.wait_for(lambda: not self._busy, timeout)

    @contextmanager
    def _paused(self, connection: ClientConnection) -> Iterator[None]:
        self._note(connection, is_busy=False)
        try:
            yield
        finally:
            self._note(connection, is_busy=True)

    def _note(self, connection: ClientConnection, *, is_busy: bool) -> None:
        with self._idle:
            (self._busy.add if is_busy else self._busy.discard)(connection)
            self._idle.notify_all()
