"""The server of ``farm.py``: many connections at once, and delayed responses that block no other.

The responses are those of ``stub.py``. Each connection is one asyncio protocol that understands as
much of HTTP/1.1 as the measured clients use. Writes get their response without an intermediate
step, because that is the fastest way in Python with many clients at a time.

``GET /work`` returns what the server has done so far: how many operations wrote something, its
processor time, and by how much the delay of the responses was longer than the latency.

Prints its URL, and serves until its standard input is closed.
"""

from __future__ import annotations

import asyncio
import json
import re
import selectors
import sys
import time

from pydantic_core import from_json, to_json
from stub import Responses, write

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_WRITES = frozenset({"create", "update"})


class SharedState:
    """What the connections share.

    Args:
        latency: Seconds to wait before each response to operations.
    """

    def __init__(self, latency: float) -> None:
        self.latency = latency
        self._responses = Responses(
            url=""
        )  # the URL is for uploads, which this server does not take
        self._writes = 0
        self._late = 0.0
        self._delayed = 0

    def batch(self, body: bytes) -> bytes:
        """Return the response to the operations in *body*."""
        operations = from_json(body)
        if all(operation["action"] in _WRITES for operation in operations):
            self._writes += len(operations)
            return to_json([write(operation) for operation in operations])
        return self._responses.batch(body)

    def record_delay(self, late: float) -> None:
        """Record that a response was sent some seconds after it was due."""
        self._late += late
        self._delayed += 1

    def work(self) -> bytes:
        """Return what the server has done so far."""
        late = self._late / self._delayed if self._delayed else 0.0
        done = {"writes": self._writes, "cpu": time.process_time(), "late": late}
        return json.dumps(done).encode()


class Connection(asyncio.Protocol):
    """One connection: a request, its response, and so on; no pipelining."""

    _transport: asyncio.Transport

    def __init__(self, state: SharedState) -> None:
        self._state = state
        self._received = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        length = _LENGTH.search(self._received, 0, end)
        start = end + 4
        if len(self._received) < start + (int(length[1]) if length else 0):
            return
        line, body = bytes(self._received[: self._received.find(b"\r\n")]), self._received[start:]
        self._received = bytearray()
        self._respond(line, bytes(body))

    def _respond(self, line: bytes, body: bytes) -> None:
        if line.startswith(b"GET /work "):
            self._send(self._state.work())
        elif not line.startswith(b"POST /api "):
            self._send(b"{}", b"404 Not Found")
        elif self._state.latency:
            loop = asyncio.get_running_loop()
            due = loop.time() + self._state.latency
            loop.call_at(due, self._send_late, self._state.batch(body), due)
        else:
            self._send(self._state.batch(body))

    def _send_late(self, body: bytes, due: float) -> None:
        self._send(body)
        self._state.record_delay(asyncio.get_running_loop().time() - due)

    def _send(self, body: bytes, status: bytes = b"200 OK") -> None:
        head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        self._transport.write(head % (status, len(body)) + body)


async def serve(latency: float) -> None:
    """Serve until standard input is closed."""
    state, loop = SharedState(latency), asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(state), "127.0.0.1", 0, backlog=1024)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    print(json.dumps({"url": url, "user": "user00", "key": "key"}), flush=True)
    await asyncio.to_thread(sys.stdin.read)


def main(milliseconds: int = 0) -> None:
    """Serve; each API response takes so many milliseconds."""
    # epoll waits for whole milliseconds, which is up to 2 % of 50. The timeout of select is finer,
    # and select is no slower with the few responses a second that such a latency leaves.
    selector = selectors.SelectSelector() if milliseconds else selectors.DefaultSelector()
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
        runner.run(serve(milliseconds / 1000))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
