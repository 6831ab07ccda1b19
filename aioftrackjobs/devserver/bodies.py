"""Reading the body of a request, within limits of size and time."""

from __future__ import annotations

import anyio
from starlette.requests import ClientDisconnect, Request

from aioftrackjobs.devserver.api_errors import RequestError


async def read_body(request: Request, largest: int, *, seconds: float, idle: float) -> bytes:
    """Return the whole body of *request*.

    Args:
        request: The request.
        largest: Bytes that it may have.
        seconds: How long the whole may take.
        idle: How long the next piece may take.

    Raises:
        RequestError: If it is too big or too slow.
        ClientDisconnect: If it ends too early.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > largest:
        raise _too_big(largest)
    chunks, size, more = list[bytes](), 0, True
    ends_at = anyio.current_time() + seconds
    with anyio.move_on_at(min(ends_at, anyio.current_time() + idle)) as time:
        while more:
            message = await request.receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            chunk, more = message.get("body", b""), message.get("more_body", False)
            size += len(chunk)
            if size > largest:
                raise _too_big(largest)
            chunks.append(chunk)
            time.deadline = min(ends_at, anyio.current_time() + idle)
    if more:
        raise too_slow(idle)
    return b"".join(chunks)


def _too_big(largest: int) -> RequestError:
    return RequestError(f"A request takes {largest} bytes at most.", status=413)


def too_slow(idle: float) -> RequestError:
    """Return the error for a body that arrives too slowly."""
    return RequestError(
        f"Nothing arrived for {idle:g} s, or the whole takes too long; the request is abandoned.",
        status=408,
    )
