"""Reading the body of a request: never more of it than is allowed, and not for ever."""

from __future__ import annotations

import anyio
from starlette.requests import Request

from aioftrackjobs.devserver.limits import Limits
from aioftrackjobs.devserver.refusals import RequestRefusal


async def read_body(request: Request, limits: Limits) -> bytes:
    """Return the whole body.

    Raises:
        RequestRefusal: If it is too big, or the next piece of it takes too long.
        ClientDisconnect: If it ends too early.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > limits.request:
        raise limits.too_big()
    chunks, size = list[bytes](), 0
    stream = request.stream()
    try:
        while True:
            with anyio.fail_after(limits.idle):
                chunk = await anext(stream, None)
            if chunk is None:
                return b"".join(chunks)
            size += len(chunk)
            if size > limits.request:
                raise limits.too_big()
            chunks.append(chunk)
    except TimeoutError:
        raise RequestRefusal(
            f"Nothing arrived for {limits.idle:g} s; the request is given up.", status=408
        ) from None
