"""Big bodies, moved past h11.

httpx moves them in pieces of 64 KiB, each of which is copied several times on its way through
h11: more than half of a fast download's time. But a body of known length is nothing more than the
bytes that follow. So of what arrives, the first piece comes from httpx, which is all that h11
holds by then, and the rest from the network stream that httpx hands out for such purposes: through
TLS, proxies and time-outs as before. h11 never hears of the end, so the connection is closed, not
kept; a body that is read this way is worth a new one.

Where the network stream is one of our own, worker threads use its socket themselves, also for
what is sent: see ``_direct.py``. h11 then only counts.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, TypeGuard

import anyio
import httpx
from anyio.to_thread import run_sync

from aioftrackjobs.transport._passing import is_of_connection

#: Bytes of a body from which on it is worth a connection of its own.
_BULKY = 4 * 1024 * 1024

#: Bytes that are asked for at once.
_CHUNK = 1024 * 1024


def is_bulky(response: object, size: int) -> TypeGuard[httpx.Response]:
    """Return whether a body of *size* bytes can, and should, be read past h11."""
    import httpcore  # late, as httpx does: it takes a while to import

    return (
        size >= _BULKY
        and isinstance(response, httpx.Response)
        and not response.is_stream_consumed  # as by a hook of the caller's client
        and response.extensions.get("http_version") == b"HTTP/1.1"
        and isinstance(response.extensions.get("network_stream"), httpcore.AsyncNetworkStream)
    )


def is_direct(response: object, size: int) -> TypeGuard[httpx.Response]:
    """Return whether a body of *size* bytes can, and should, be read from the socket itself."""
    if not is_bulky(response, size):
        return False
    from aioftrackjobs.transport._direct import DirectStream  # late, as it imports httpcore

    return isinstance(response.extensions["network_stream"], DirectStream)


async def iter_bulk(response: httpx.Response, size: int) -> AsyncGenerator[bytes, None]:
    """Iterate over the *size* bytes of the body.

    Raises:
        httpx.HTTPError: It broke off.
    """
    timeout = _read_timeout(response)
    async with _taken_over(response) as (piece, stream):
        left = size
        while piece:
            left -= len(piece)
            yield piece
            with _breaking_off(left):
                piece = await stream.read(min(left, _CHUNK), timeout) if left else b""
        if left:
            raise httpx.RemoteProtocolError(f"closed by the peer with {left} bytes to come")


async def iter_direct(
    response: httpx.Response, size: int, write: Callable[[bytes | memoryview], object]
) -> AsyncGenerator[int, None]:
    """Give the *size* bytes of the body to *write*, in worker threads; yields how many at a time.

    Raises:
        httpx.HTTPError: It broke off.
    """
    timeout = _read_timeout(response)
    async with _taken_over(response) as (piece, stream):
        if piece:
            await run_sync(write, piece)
            yield len(piece)
        left = size - len(piece)
        buffer = memoryview(bytearray(_CHUNK))
        while left:
            with _breaking_off(left):
                count = await stream.receive(left, buffer, write, timeout)
            if not count:
                raise httpx.RemoteProtocolError(f"closed by the peer with {left} bytes to come")
            left -= count
            yield count


@asynccontextmanager
async def _taken_over(response: httpx.Response) -> AsyncIterator[tuple[bytes, Any]]:
    """Give the first piece of the body, and the network stream, which has the rest."""
    stream = response.extensions["network_stream"]
    pieces = response.aiter_raw()
    try:
        yield await anext(pieces, b""), stream
    finally:
        # On a closed stream httpx's own iterator comes to its end, and with it the pool lets go
        # of the connection. Left where it stands, it would be for the garbage collector to end.
        with anyio.CancelScope(shield=True), suppress(httpx.HTTPError, httpx.StreamError):
            await stream.aclose()
            async for _ in pieces:
                pass


@contextmanager
def _breaking_off(left: int) -> Iterator[None]:
    """Raise errors of the connection as httpx does."""
    try:
        yield
    except Exception as exc:
        if not is_of_connection(exc):
            raise
        raise httpx.ReadError(f"{type(exc).__name__} with {left} bytes to come") from None


def _read_timeout(response: httpx.Response) -> float | None:
    timeout: float | None = response.request.extensions.get("timeout", {}).get("read")
    return timeout
