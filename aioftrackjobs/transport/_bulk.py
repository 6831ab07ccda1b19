"""Big bodies, read straight from the connection that they arrive on.

httpx takes them in pieces of 64 KiB, each of which is copied several times on its way through
h11: more than half of a fast download's time. But a body of known length is nothing more than the
bytes that follow. So the first piece comes from httpx, which is all that h11 holds by then, and
the rest from the network stream that httpx hands out for such purposes: through TLS, proxies and
time-outs as before. h11 never hears of the end, so the connection is closed, not kept; a body
that is read this way is worth a new one.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import TYPE_CHECKING, TypeGuard

import anyio

if TYPE_CHECKING:
    import httpx

#: Bytes of a body from which on it is worth a connection of its own.
_BULKY = 4 * 1024 * 1024

#: Bytes that are asked for at once.
_CHUNK = 1024 * 1024


def is_bulky(response: object, size: int) -> TypeGuard[httpx.Response]:
    """Return whether a body of *size* bytes can, and should, be read by :func:`iter_bulk`."""
    if size < _BULKY:
        return False
    import httpcore  # late, as httpx does: it takes a while to import
    import httpx

    return (
        isinstance(response, httpx.Response)
        and response.extensions.get("http_version") == b"HTTP/1.1"
        and isinstance(response.extensions.get("network_stream"), httpcore.AsyncNetworkStream)
    )


async def iter_bulk(response: httpx.Response, size: int) -> AsyncGenerator[bytes, None]:
    """Iterate over the *size* bytes of the body.

    Raises:
        httpx.HTTPError: It broke off.
    """
    import httpcore
    import httpx

    stream = response.extensions["network_stream"]
    timeout = response.request.extensions.get("timeout", {}).get("read")
    pieces = response.aiter_raw()
    left = size
    try:
        piece = await anext(pieces, b"")
        while piece:
            left -= len(piece)
            yield piece
            try:
                piece = await stream.read(min(left, _CHUNK), timeout) if left else b""
            except (httpcore.NetworkError, httpcore.TimeoutException) as exc:
                raise httpx.ReadError(f"{type(exc).__name__} with {left} bytes to come") from None
        if left:
            raise httpx.RemoteProtocolError(f"closed by the peer with {left} bytes to come")
    finally:
        # On a closed stream httpx's own iterator comes to its end, and with it the pool lets go
        # of the connection. Left where it stands, it would be for the garbage collector to end.
        with anyio.CancelScope(shield=True), suppress(httpx.HTTPError, httpx.StreamError):
            await stream.aclose()
            async for _ in pieces:
                pass
