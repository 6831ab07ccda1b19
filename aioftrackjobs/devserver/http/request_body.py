"""Reading the bodies of requests, within the limits of size and time."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import anyio
from starlette.requests import Request

from aioftrackjobs.devserver.api_errors import RequestError
from aioftrackjobs.devserver.limits import Limits


async def read_body(request: Request, limits: Limits) -> bytes:
    """Return the whole body.

    Raises:
        RequestError: If it is too big, or its next piece takes too long.
        ClientDisconnect: If it ends too early.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > limits.request:
        raise limits.request_too_big()
    chunks, size = list[bytes](), 0
    async with aclosing(pieces_of(request, limits)) as pieces:
        async for chunk in pieces:
            size += len(chunk)
            if size > limits.request:
                raise limits.request_too_big()
            chunks.append(chunk)
    return b"".join(chunks)


async def pieces_of(request: Request, limits: Limits) -> AsyncGenerator[bytes, None]:
    """Yield the body in the pieces in which it arrives.

    Raises:
        RequestError: If the next one takes too long.
        ClientDisconnect: If it ends too early.
    """
    stream = request.stream()
    while True:
        try:
            with anyio.fail_after(limits.idle):
                piece = await anext(stream, None)
        except TimeoutError:
            raise RequestError(
                f"Nothing arrived for {limits.idle:g} s; the request is abandoned.", status=408
            ) from None
        if piece is None:
            return
        yield piece
