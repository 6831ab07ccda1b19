"""Reading requests: credentials and options in headers, bodies within limits of size and time."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

import anyio
from starlette.requests import Request

from aioftrackjobs.devserver.api.request import Caller
from aioftrackjobs.devserver.api_errors import RequestError
from aioftrackjobs.devserver.auth import Credentials
from aioftrackjobs.devserver.limits import Limits

_TRUE = frozenset({"1", "true"})


def is_strict(headers: Mapping[str, str]) -> bool:
    """Return whether the client wants real HTTP status codes."""
    return headers.get("ftrack-strict-api", "").strip().lower() in _TRUE


def _options_in(headers: Mapping[str, str]) -> set[str]:
    """Return the options that are on; both documented separators are accepted."""
    options = set()
    for part in headers.get("ftrack-api-options", "").split(";"):
        name, _, value = part.replace("=", ":").partition(":")
        if value.strip().lower() in _TRUE:
            options.add(name.strip())
    return options


def caller_of(request: Request, credentials: Credentials) -> Caller:
    """Return the sender of a batch, and the form in which it gets the response.

    Raises:
        InvalidCredentialsError: If the headers do not have the key of a user.
    """
    headers = request.headers
    identity = credentials.check(headers.get("ftrack-user"), headers.get("ftrack-api-key"))
    options = _options_in(headers)
    return Caller(
        identity,
        str(request.base_url),
        denormalize="denormalize" in options,
        strict="strict" in options or is_strict(headers),
    )


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
