"""A WebSocket over a connection that the session's HTTP client has opened.

It uses the sans-I/O core of the package websockets. One task receives, and one task sends.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aioftrackjobs.config.secret import Secret
from aioftrackjobs.errors import MalformedResponseError, MissingExtraError
from aioftrackjobs.protocol.headers import origin_of
from aioftrackjobs.transport import Headers, NetworkStream, UpgradingTransport, WireRequest

try:
    from websockets.frames import Frame, Opcode
    from websockets.protocol import OPEN, Protocol, Side
except ImportError as _error:
    raise MissingExtraError("events", "websockets") from _error

#: Bytes that are read at once.
_PIECE = 256 * 1024

#: Seconds that a peer may take to accept what is sent.
_WRITE_LIMIT = 20.0

#: Seconds in which what has already arrived is read, after the time of a read is over: the event
#: loop may have been blocked for all of it.
_LAST_LOOK = 0.25

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3


class SocketLostError(Exception):
    """The connection has ended, or counts as lost; the text says why.

    Attributes:
        is_silence: Whether nothing has arrived, and that is all.
    """

    is_silence = False


class WebSocket:
    """An open WebSocket.

    Args:
        stream: The connection.
        max_size: Bytes of a message, at most.
    """

    def __init__(self, stream: NetworkStream, max_size: int) -> None:
        self._stream = stream
        self._protocol = Protocol(Side.CLIENT, state=OPEN, max_size=max_size)
        self._parts: list[bytes] = []  # of a message in several frames

    async def receive(self, timeout: float) -> list[str]:
        """Return the messages that have arrived.

        Args:
            timeout: Seconds without a byte after which the connection counts as lost.

        Raises:
            SocketLostError: The connection has ended, or nothing has arrived.
        """
        protocol = self._protocol
        data = await self._read(timeout)
        if not data:
            protocol.receive_eof()
            raise SocketLostError("the server has closed the connection")
        protocol.receive_data(data)
        messages: list[str] = []
        for event in protocol.events_received():
            if isinstance(event, Frame):
                self._add(event, messages)
        if not messages and protocol.state is not OPEN:
            raise SocketLostError(self._reason())
        return messages

    async def _read(self, timeout: float) -> bytes:
        for seconds in (timeout, min(timeout, _LAST_LOOK)):
            try:
                return await self._stream.read(_PIECE, seconds)
            except Exception as exc:  # noqa: BLE001 - a caller's client may raise anything
                is_silence = "Timeout" in type(exc).__name__
                error = SocketLostError(f"the connection is broken: {type(exc).__name__}")
                if not is_silence:
                    raise error from None
        error = SocketLostError(f"the server has sent nothing for {timeout:g} s")
        error.is_silence = True
        raise error

    def _add(self, frame: Frame, messages: list[str]) -> None:
        if frame.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            return
        if not frame.fin or self._parts:
            self._parts.append(bytes(frame.data))
        if frame.fin:
            data = b"".join(self._parts) if self._parts else frame.data
            self._parts.clear()
            messages.append(str(data, "utf-8", "replace"))

    def _reason(self) -> str:
        received = self._protocol.close_rcvd
        if received is not None:
            return f"the server has closed the connection: {received.code} {received.reason}"
        return f"the server has broken the protocol: {self._protocol.parser_exc}"

    def put(self, text: str) -> None:
        """Let *text* be sent by the next :meth:`flush`.

        Raises:
            SocketLostError: The connection is closed.
        """
        if self._protocol.state is not OPEN:
            raise SocketLostError(self._reason())
        self._protocol.send_text(text.encode())

    def ping(self) -> None:
        """Let a ping be sent: the server responds, so that silence shows a dead connection."""
        if self._protocol.state is OPEN:
            self._protocol.send_ping(b"")

    def close(self) -> None:
        """Let the message be sent that closes the connection."""
        if self._protocol.state is OPEN:
            self._protocol.send_close(1000)

    async def flush(self) -> bool:
        """Send what was put, in one piece; return whether there was anything.

        Raises:
            SocketLostError: The server does not accept it.
        """
        data = b"".join(self._protocol.data_to_send())
        if not data:
            return False
        try:
            await self._stream.write(data, _WRITE_LIMIT)
        except Exception as exc:  # noqa: BLE001 - a caller's client may raise anything
            why = type(exc).__name__
        else:
            return True
        raise SocketLostError(f"the connection is broken: {why}")


@asynccontextmanager
async def open_websocket(
    transport: UpgradingTransport,
    address: str | Secret[str],
    headers: Headers,
    *,
    max_size: int,
) -> AsyncIterator[WebSocket]:
    """Open a WebSocket at *address*, an ``http`` or ``https`` URL, until the end of the block.

    Raises:
        ConfigurationError: The HTTP client cannot do it.
        TransportError: The server does not respond, or accepts no WebSocket.
    """
    key = base64.b64encode(os.urandom(16)).decode()
    request = WireRequest(
        "GET",
        address,
        {
            **headers,
            "connection": "Upgrade",
            "upgrade": "websocket",
            "sec-websocket-version": "13",
            "sec-websocket-key": key,
        },
    )
    place = origin_of(request.url)
    async with transport.upgrade(request) as response:
        if response.stream is None:
            raise MalformedResponseError(
                "the event hub accepts no WebSocket, or a proxy lets none through",
                status=response.status,
                excerpt=response.body,
                url=place,
            )
        digest = hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()
        accepted = base64.b64encode(digest).decode()
        if response.headers.get("sec-websocket-accept", "").strip() != accepted:
            problem = "the response does not accept this WebSocket"
            raise MalformedResponseError(problem, status=response.status, url=place)
        yield WebSocket(response.stream, max_size)
