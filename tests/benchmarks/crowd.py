"""The server of ``farm.py``: many connections at once, answers that are late without blocking.

The answers are those of ``stub.py``. One asyncio protocol for each connection, as much of HTTP/1.1
as the measured clients use, and writes answered without a step in between: with many clients at
a time nothing answers faster in Python.

``GET /work`` tells what it did so far: how many operations wrote something, processor time, and
how late the answers were beyond what was asked for.

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
from stub import Answers, write

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_WRITES = frozenset({"create", "update"})


class Crowd:
    """What the connections share.

    Args:
        latency: Seconds to wait before each answer to operations.
    """

    def __init__(self, latency: float) -> None:
        self.latency = latency
        self._answers = Answers(url="")  # it is for uploads, which are not taken here
        self._writes = 0
        self._late = 0.0
        self._delayed = 0

    def batch(self, body: bytes) -> bytes:
        """Return the answer to the operations in *body*."""
        operations = from_json(body)
        if all(operation["action"] in _WRITES for operation in operations):
            self._writes += len(operations)
            return to_json([write(operation) for operation in operations])
        return self._answers.batch(body)

    def note(self, late: float) -> None:
        """Take down that an answer left some seconds after it was due."""
        self._late += late
        self._delayed += 1

    def work(self) -> bytes:
        """Return what was done so far."""
        late = self._late / self._delayed if self._delayed else 0.0
        done = {"writes": self._writes, "cpu": time.process_time(), "late": late}
        return json.dumps(done).encode()


class Connection(asyncio.Protocol):
    """One connection: a request, its answer, and so on; no pipelining."""

    _transport: asyncio.Transport

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd
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
        self._answer(line, bytes(body))

    def _answer(self, line: bytes, body: bytes) -> None:
        if line.startswith(b"GET /work "):
            self._send(self._crowd.work())
        elif not line.startswith(b"POST /api "):
            self._send(b"{}", b"404 Not Found")
        elif self._crowd.latency:
            loop = asyncio.get_running_loop()
            due = loop.time() + self._crowd.latency
            loop.call_at(due, self._send_late, self._crowd.batch(body), due)
        else:
            self._send(self._crowd.batch(body))

    def _send_late(self, body: bytes, due: float) -> None:
        self._send(body)
        self._crowd.note(asyncio.get_running_loop().time() - due)

    def _send(self, body: bytes, status: bytes = b"200 OK") -> None:
        head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        self._transport.write(head % (status, len(body)) + body)


async def serve(latency: float) -> None:
    """Serve until standard input is closed."""
    crowd, loop = Crowd(latency), asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(crowd), "127.0.0.1", 0, backlog=1024)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    print(json.dumps({"url": url, "user": "user00", "key": "key"}), flush=True)
    await asyncio.to_thread(sys.stdin.read)


def main(milliseconds: int = 0) -> None:
    """Serve, each API answer after a while."""
    # epoll waits for whole milliseconds, which is up to 2 % of 50; select has finer ones, and is
    # no slower with the few answers a second that such a latency leaves.
    selector = selectors.SelectSelector() if milliseconds else selectors.DefaultSelector()
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
        runner.run(serve(milliseconds / 1000))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
