"""The requests that a server has under way, and the lines to their clients."""

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


class ClientConnection:
    """One request and its client, who can be cut off.

    Attributes:
        round: Which of the times between two settlements the request came in.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.round = 0
        self.scope = scope
        self.send = send
        self._receive = receive
        self._read: list[Message] = []

    async def receive(self) -> Message:
        """Return the next message; first again what :meth:`body` has read."""
        return self._read.pop(0) if self._read else await self._receive()

    async def body(self) -> bytes:
        """Return the whole body; who receives afterwards gets it too."""
        while not self._read or self._read[-1].get("more_body", False):
            self._read.append(await self._receive())
        return b"".join(message.get("body", b"") for message in self._read)

    def close(self) -> None:
        """Close the connection when what was sent has left.

        Raises:
            RuntimeError: If what serves the application does not allow that.
        """
        close: Callable[[], None] | None = self.scope.get("extensions", {}).get(CLOSE)
        if close is None:
            raise RuntimeError(
                "what serves this application cannot drop connections; "
                "use running(), or aioftrackjobs.testing.FakeServer"
            )
        close()

    async def left(self) -> None:
        """Wait until the client is gone; what it still sends goes nowhere."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def drop(self) -> None:
        """Close the connection, and wait until it is."""
        self.close()
        await self.left()


class Connections:
    """What is under way, for whoever must cut it off or wait for its end."""

    def __init__(self) -> None:
        self._lines: set[ClientConnection] = set()
        #: Those of them that do not pause.
        self._busy: set[ClientConnection] = set()
        self._idle = threading.Condition()
        self._round = 0
        self._down_until = 0.0

    @property
    def is_down(self) -> bool:
        """Whether the server is to look as if it were not there."""
        return time.monotonic() < self._down_until

    @contextmanager
    def under_way(self, line: ClientConnection) -> Iterator[None]:
        """Count a request for the length of the block."""
        line.round = self._round
        self._lines.add(line)
        self._resume(line)
        try:
            yield
        finally:
            self._lines.discard(line)
            self._rest(line)

    def go_down(self, seconds: float) -> None:
        """Cut off all clients, and answer no others for a while."""
        self._down_until = time.monotonic() + seconds
        for line in list(self._lines):
            line.close()

    async def pause(self, line: ClientConnection, seconds: float) -> bool:
        """Let a request wait, and return whether it may go on: not after :meth:`settle`."""
        with self._aside(line):
            await anyio.sleep(seconds)
        return line.round == self._round

    async def stall(self, line: ClientConnection) -> None:
        """Let a request wait until its client is gone."""
        with self._aside(line):
            await line.left()

    def settle(self, patience: float) -> bool:
        """Wait for the requests under way, from another thread; those that pause never go on.

        Returns:
            Whether there are none any more, within *patience* seconds.
        """
        self._down_until = 0.0
        with self._idle:
            self._round += 1
            return self._idle.wait_for(lambda: not self._busy, patience)

    @contextmanager
    def _aside(self, line: ClientConnection) -> Iterator[None]:
        self._rest(line)
        try:
            yield
        finally:
            self._resume(line)

    def _resume(self, line: ClientConnection) -> None:
        with self._idle:
            self._busy.add(line)

    def _rest(self, line: ClientConnection) -> None:
        with self._idle:
            self._busy.discard(line)
            if not self._busy:
                self._idle.notify_all()
