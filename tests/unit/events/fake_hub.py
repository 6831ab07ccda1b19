"""An event hub without sockets: the transport of a session, and what a server may do to it."""

from __future__ import annotations

import base64
import hashlib
import json
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import anyio
import anyio.lowlevel
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN, Protocol, Side

from aioftrackjobs import AsyncSession, RetryPolicy
from aioftrackjobs.config.timings import DEFAULT_TIMINGS
from aioftrackjobs.events import EventStream
from aioftrackjobs.transport import WireRequest, WireResponse
from aioftrackjobs.transport._upgrade import UpgradedResponse

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TIMINGS = replace(
    DEFAULT_TIMINGS, closing_wait=0.05, closing_linger=0.05, event_acknowledgement=30.0
)
QUICK = RetryPolicy(first_delay=0.001)


async def until(condition: Callable[[], object]) -> None:
    """Wait until *condition* is true, which sends no notification."""
    with anyio.fail_after(10):
        while not condition():  # noqa: ASYNC110 - there is no event
            await anyio.sleep(0.001)


async def following(events: EventStream[Any]) -> Any:
    """Return the next item."""
    with anyio.fail_after(10):
        return await anext(events)


class ReadTimeout(Exception):  # noqa: N818 - its name is that of httpcore
    """As that of httpcore."""


class Socket:
    """One connection, from the server's side.

    Attributes:
        frames: What the client has sent.
        acknowledges: Whether numbered frames are acknowledged at once.
        is_read: Whether the server takes what the client sends.
    """

    def __init__(self) -> None:
        self._protocol = Protocol(Side.SERVER, state=OPEN)
        self._arriving = deque[bytes]()
        self._arrived = anyio.Event()
        self._changed = anyio.Event()
        self.frames: list[str] = []
        self.pings = 0
        self.acknowledges = True
        self.is_read = True

    # The client's side, as httpcore has it

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        with anyio.move_on_after(timeout):
            while not self._arriving:
                self._arrived = anyio.Event()
                await self._arrived.wait()
            await anyio.lowlevel.checkpoint()
            return self._arriving.popleft()
        raise ReadTimeout

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await until(lambda: self.is_read)
        self._protocol.receive_data(buffer)
        for frame in self._protocol.events_received():
            if not isinstance(frame, Frame):
                continue
            self.pings += frame.opcode is Opcode.PING
            if frame.opcode is Opcode.TEXT:
                self._take(bytes(frame.data).decode())
        self._flush()
        self._changed.set()
        self._changed = anyio.Event()

    def _take(self, text: str) -> None:
        self.frames.append(text)
        kind, packet_id, *_ = text.split(":", 2)
        if kind == "5" and packet_id and self.acknowledges:
            self.push(f'6:::{packet_id.rstrip("+")}+[{{"success":true}}]')

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self.push_bytes(data)

    # The server's side

    def push(self, text: str) -> None:
        """Send a frame."""
        self._protocol.send_text(text.encode())
        self._flush()

    def push_bytes(self, data: bytes) -> None:
        """Send bytes, whatever they are."""
        self._arriving.append(data)
        self._arrived.set()

    def push_event(self, topic: str, **fields: Any) -> None:
        """Send an event."""
        event = {"topic": topic, "data": {}, **fields}
        self.push("5:::" + json.dumps({"name": "ftrack.event", "args": [event]}))

    def close(self) -> None:
        """Break the connection."""
        self.push_bytes(b"")

    def events(self, topic: str | None = None) -> list[dict[str, Any]]:
        """Return the events that the client has published."""
        found = [
            json.loads(frame.partition("{")[1] + frame.partition("{")[2])["args"][0]
            for frame in self.frames
            if frame.startswith("5:")
        ]
        return [each for each in found if topic in (None, each["topic"])]

    @property
    def subscriptions(self) -> list[str]:
        """The expressions that the client has subscribed to, beside replies."""
        events = self.events("ftrack.meta.subscribe")
        return [each["data"]["subscription"] for each in events[1:]]

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until something that the client has sent makes *condition* true."""
        with anyio.fail_after(10):
            while not condition():
                await self._changed.wait()


class FakeHub:
    """A server with an event hub.

    Attributes:
        sockets: The connections, the latest one last.
        handshake: Status and text of the response to handshakes.
        greets: Whether it sends ``1::`` on a new connection.
        accepts: Whether it accepts WebSockets.
        on_socket: Called with each new connection.
    """

    def __init__(self) -> None:
        self.sockets: list[Socket] = []
        self.handshakes = 0
        self.handshake = (200, "session:5:60:websocket")
        self.greets = True
        self.accepts = True
        self.on_socket: Callable[[Socket], object] = lambda _: None
        self._connected = anyio.Event()

    async def send(self, request: WireRequest) -> WireResponse:
        if request.url.endswith("/api"):  # for the schemas
            return WireResponse(200, b'[[{"id":"Job","primary_key":["id"],"properties":{}}]]')
        self.handshakes += 1
        status, text = self.handshake
        await anyio.lowlevel.checkpoint()
        return WireResponse(status, text.encode())

    def stream(self, request: WireRequest) -> Any:
        raise NotImplementedError

    @asynccontextmanager
    async def upgrade(self, request: WireRequest) -> AsyncIterator[UpgradedResponse]:
        if not self.accepts:
            yield UpgradedResponse(502, {}, None, "<html>proxy</html>")
            return
        key = str(request.headers["sec-websocket-key"]).encode()
        accept = base64.b64encode(hashlib.sha1(key + GUID).digest()).decode()
        socket = Socket()
        self.on_socket(socket)
        self.sockets.append(socket)
        if self.greets:
            socket.push("1::")
        self._connected.set()
        self._connected = anyio.Event()
        yield UpgradedResponse(101, {"sec-websocket-accept": accept}, socket)

    async def socket(self, number: int = 1) -> Socket:
        """Return a connection as soon as there are so many."""
        with anyio.fail_after(10):
            while len(self.sockets) < number:
                await self._connected.wait()
        return self.sockets[number - 1]

    @asynccontextmanager
    async def session(self, **timings: Any) -> AsyncIterator[AsyncSession]:
        """Open a session on this server."""
        async with AsyncSession(
            "http://hub.test",
            "key",
            "maya",
            transport=self,
            retry=QUICK,
            timings=replace(TIMINGS, **timings),
        ) as session:
            yield session
