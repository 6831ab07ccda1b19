"""Plain connections on whose sockets worker threads move big bodies themselves.

httpcore moves a body in small pieces, each of which costs turns of the event loop and is copied
several times on its way through asyncio and h11. Most of that is saved where a worker thread
reads the file and writes to the socket, or the other way round, by one small buffer that stays in
the processor's cache. It takes turns with the event loop: one is over after a while, or when the
peer keeps it waiting, so that a slow network occupies no thread, and a transfer can be stopped.

This module imports httpcore, which takes a while: import it late.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from ssl import SSLContext
from typing import Any, BinaryIO

import anyio
import httpcore
import httpx
from anyio.to_thread import run_sync

from aioftrackjobs.transport._base import DirectBody
from aioftrackjobs.transport._passing import written_to

#: Bytes that are read and sent at once: enough for few system calls, few enough for the cache.
_SENT_AT_ONCE = 256 * 1024

#: When a turn of a worker thread is over: after so many bytes, or after so many seconds.
_TURN_BYTES, _TURN_SECONDS = 32 * 1024 * 1024, 0.1

#: Seconds that a thread waits for the peer before the event loop does.
_IDLE = 0.02


class DirectStream(httpcore.AsyncNetworkStream):
    """A plain connection of httpcore's, which big bodies can pass by.

    What arrives is read from its socket, never through asyncio's transport, which might read
    more than it was asked for: so the next byte of the socket is the next one of the connection.
    anyio lets the transport read only while somebody waits for it to, which nobody does here.
    """

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream
        self._socket: socket.socket = stream.get_extra_info("socket").dup()
        self._write_timeout: float | None = None

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Return what has arrived, as httpcore has it; nothing at the end."""
        with _reading(), anyio.fail_after(timeout):
            while True:
                if self._socket.fileno() < 0:
                    raise httpcore.ReadError("the connection is closed")
                await anyio.wait_readable(self._socket)
                try:
                    return self._socket.recv(max_bytes)
                except BlockingIOError:
                    continue

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send *buffer*; whose request it belongs to learns of this connection."""
        self._write_timeout = timeout
        request_body = written_to.get()
        if request_body is not None:
            request_body.stream = self
        await self._stream.write(buffer, timeout)

    async def send(self, body: DirectBody) -> None:
        """Send all of *body*, with the time-out of what was written before.

        Raises:
            httpcore.WriteError: The connection broke.
            httpcore.WriteTimeout: The peer takes nothing any more.
        """
        outgoing = _Outgoing(body)
        while outgoing.left:
            count, is_idle = await run_sync(_take_turn, self._socket, outgoing.send, outgoing.left)
            body.sent(count)
            if is_idle:
                with _writing(), anyio.fail_after(self._write_timeout):
                    await anyio.wait_writable(self._socket)

    async def receive(
        self,
        size: int,
        buffer: memoryview,
        write: Callable[[memoryview], object],
        timeout: float | None,
    ) -> int:
        """Give up to *size* bytes to *write*, in a worker thread.

        Returns:
            How many; 0 if the peer closed the connection.

        Raises:
            httpcore.ReadError: The connection broke.
            httpcore.ReadTimeout: Nothing arrives any more.
        """
        left = size

        def step(own: socket.socket) -> int:
            nonlocal left
            with _reading():
                count = own.recv_into(buffer[: min(left, len(buffer))])
            write(buffer[:count])
            left -= count
            return count

        while True:
            count, is_idle = await run_sync(_take_turn, self._socket, step, left)
            if count or not is_idle:
                return count
            with _reading(), anyio.fail_after(timeout):
                await anyio.wait_readable(self._socket)

    async def aclose(self) -> None:
        """Close the connection."""
        self._socket.close()
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Return httpcore's own encrypted connection: nothing passes that by."""
        self._socket.close()
        return await self._stream.start_tls(ssl_context, server_hostname, timeout)

    def get_extra_info(self, info: str) -> Any:
        """Return what httpcore's own connection tells."""
        return self._stream.get_extra_info(info)


class _Outgoing:
    """A body on its way into a socket; its methods are for worker threads."""

    def __init__(self, body: DirectBody) -> None:
        self._body = body
        self._file = body.file if hasattr(os, "sendfile") else None
        self._buffer: memoryview | None = None
        self._unsent = memoryview(b"")
        self.left = body.size

    def send(self, own: socket.socket) -> int:
        """Send what the socket takes at once, and return how many bytes that is."""
        count = self._send_file(own, self._file) if self._file is not None else 0
        count = count or self._read_and_send(own)
        self.left -= count
        return count

    def _send_file(self, own: socket.socket, file: BinaryIO) -> int:
        """Let the system send the file, without a copy; 0 where it cannot, or does not any more.

        Reading the file, or writing to the socket, then tells why.
        """
        offset = self._body.start + self._body.size - self.left
        if not _is_writable(own):
            raise httpcore.WriteTimeout
        try:
            return os.sendfile(own.fileno(), file.fileno(), offset, min(self.left, _TURN_BYTES))
        except BlockingIOError:
            raise httpcore.WriteTimeout from None
        except OSError:
            self._file = None
            return 0

    def _read_and_send(self, own: socket.socket) -> int:
        if self._buffer is None:
            self._buffer = memoryview(bytearray(min(_SENT_AT_ONCE, self.left)))
        if not self._unsent:
            room = self._buffer[: min(self.left, len(self._buffer))]
            self._unsent = room[: self._body.read_into(room, self._body.size - self.left)]
        with _writing():
            count = own.send(self._unsent)
        self._unsent = self._unsent[count:]
        return count


def _is_writable(own: socket.socket) -> bool:
    """Wait a little until the socket takes something."""
    poll = select.poll()
    poll.register(own, select.POLLOUT)
    return bool(poll.poll(_IDLE * 1000))


def _take_turn(
    shared: socket.socket, step: Callable[[socket.socket], int], most: int
) -> tuple[int, bool]:
    """Repeat *step* until it moved *most* bytes or the turn is over; in a worker thread.

    Returns:
        How many bytes it moved, and whether that is all because the peer keeps it waiting.
    """
    moved, end = 0, time.monotonic() + _TURN_SECONDS
    most = min(most, _TURN_BYTES)
    with _own(shared) as own:
        own.settimeout(_IDLE)
        while True:  # once at least, however late it is: nothing moved means that nothing comes
            try:
                count = step(own)
            except (httpcore.ReadTimeout, httpcore.WriteTimeout):
                return moved, True
            moved += count
            if not count or moved >= most or time.monotonic() >= end:
                return moved, False


def _own(shared: socket.socket) -> socket.socket:
    """Return the socket under a number that no other file gets while a thread uses it."""
    try:
        return shared.dup()
    except OSError as exc:  # too many open files
        raise httpcore.NetworkError(str(exc)) from exc


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except TimeoutError as exc:
        raise httpcore.ReadTimeout from exc
    except OSError as exc:
        raise httpcore.ReadError(str(exc)) from exc


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except TimeoutError as exc:
        raise httpcore.WriteTimeout from exc
    except OSError as exc:
        raise httpcore.WriteError(str(exc)) from exc


class _DirectBackend(httpcore.AsyncNetworkBackend):
    """httpcore's own way to connect."""

    def __init__(self) -> None:
        self._backend = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        stream = await self._backend.connect_tcp(host, port, timeout, local_address, socket_options)
        try:
            return DirectStream(stream)
        except OSError as exc:  # too many open files
            await stream.aclose()
            raise httpcore.ConnectError(str(exc)) from exc

    async def sleep(self, seconds: float) -> None:
        await self._backend.sleep(seconds)


class DirectTransport(httpx.AsyncHTTPTransport):
    """Transport of httpx for servers that are reached without TLS and without a proxy."""

    def __init__(self, limits: httpx.Limits) -> None:
        super().__init__(verify=False, limits=limits)
        # httpx passes no network backend on. Should it call its pool otherwise one day, bodies
        # take the long way.
        self._pool = httpcore.AsyncConnectionPool(
            max_connections=limits.max_connections,
            max_keepalive_connections=limits.max_keepalive_connections,
            keepalive_expiry=limits.keepalive_expiry,
            network_backend=_DirectBackend(),
        )
