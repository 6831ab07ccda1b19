"""An event hub that plays recorded events as fast as its client reads them.

The embedded server takes longer to route an event than a client to handle it, so it cannot show how
fast a client is. This one speaks the same protocol (docs/protocol.md, section 7), and sends events
that were encoded before: an ``ftrack.update`` of the embedded server each, with an id of its own.

It plays when a client publishes ``benchmark.play``. The last event has the topic ``benchmark.end``.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from contextlib import suppress
from typing import Any
from uuid import uuid4

from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN, Protocol, Side

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
#: Bytes that are written before the socket has to accept them.
PIECE = 128 * 1024


def websocket_frame(text: str) -> bytes:
    return Frame(Opcode.TEXT, text.encode()).serialize(mask=False)


def encoded(event: dict[str, Any]) -> str:
    return "5:::" + json.dumps({"name": "ftrack.event", "args": [event]})


def pieces_of(event: dict[str, Any], count: int) -> list[bytes]:
    """Return *count* frames of *event*, with ids of their own, in large pieces."""
    template = encoded({**event, "id": "@" * 32})
    pieces, piece = [], bytearray()
    for _ in range(count):
        piece += websocket_frame(template.replace("@" * 32, uuid4().hex))
        if len(piece) > PIECE:
            pieces.append(bytes(piece))
            piece.clear()
    end = {**event, "topic": "benchmark.end", "id": uuid4().hex, "data": {}}
    piece += websocket_frame(encoded(end))
    return [*pieces, bytes(piece)]


class ReplayHub:
    """The server; one client at a time."""

    def __init__(self, event: dict[str, Any], count: int) -> None:
        self._event, self._count = event, count

    async def start(self) -> str:
        """Start, and return the URL."""
        server = await asyncio.start_server(self._handle, "127.0.0.1", 0)
        return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await self._serve(reader, writer)
        writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in head.split("\r\n")[1:])
        }
        if "sec-websocket-key" not in headers:
            body = b"session:15:60:websocket"
            cors = b"access-control-allow-origin: *\r\nconnection: close\r\n"
            writer.write(b"HTTP/1.1 200 OK\r\n%scontent-length: %d\r\n\r\n" % (cors, len(body)))
            writer.write(body)
            await writer.drain()
            return
        digest = hashlib.sha1(headers["sec-websocket-key"].encode() + GUID).digest()
        accept = base64.b64encode(digest)
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
            b"sec-websocket-accept: %s\r\n\r\n" % accept
        )
        protocol = Protocol(Side.SERVER, state=OPEN)
        self._send(protocol, "1::")
        while True:
            writer.writelines(protocol.data_to_send())
            data = await reader.read(65536)
            if not data:
                return
            protocol.receive_data(data)
            for frame in protocol.events_received():
                if isinstance(frame, Frame) and frame.opcode is Opcode.TEXT:
                    await self._answer(protocol, writer, bytes(frame.data).decode())

    async def _answer(self, protocol: Protocol, writer: asyncio.StreamWriter, text: str) -> None:
        if not text.startswith("5:"):
            return
        packet_id = text[2 : text.index(":", 2)].rstrip("+")
        if packet_id:
            self._send(protocol, f'6:::{packet_id}+[{{"success":true}}]')
        if '"topic":"benchmark.play"' in text.replace(" ", ""):
            for piece in pieces_of(self._event, self._count):
                writer.write(piece)
                await writer.drain()

    @staticmethod
    def _send(protocol: Protocol, text: str) -> None:
        protocol.send_text(text.encode())
