"""Reading requests: credentials and options in headers, bodies within limits of size and time."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager

import anyio
from starlette.requests import Request

from aioftrackjobs.devserver.api.request import Caller
from aioftrackjobs.devserver.api_errors import ApiError, RequestError
from aioftrackjobs.devserver.auth import Credentials
from aioftrackjobs.devserver.engine import Engine
from aioftrackjobs.devserver.faults.connections import READ
from aioftrackjobs.devserver.http.backpressure import BIG_TOTAL, DatabaseThread, Slot, is_big
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


class BatchReader:
    """Reads batches: credentials first, then a slot if the body is big, then the body itself."""

    def __init__(self, engine: Engine, database: DatabaseThread) -> None:
        self._engine = engine
        self._database = database
        self._limits = engine.limits
        self._big_bodies = anyio.CapacityLimiter(max(1, BIG_TOTAL // self._limits.request))

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[tuple[Caller, bytes]]:
        """Enter with the sender and the body of a batch; a big one keeps its slot in the block.

        Raises:
            ApiError: If the credentials are wrong, or the body is too big or arrives too slowly.
            ClientDisconnect: If it ends too early.
        """
        caller = request.scope.get(READ)  # by a middleware, which holds the slot
        if isinstance(caller, ApiError):
            raise caller
        if caller is not None:
            yield caller, await self._body(request)
            return
        caller = caller_of(request, self._engine.credentials)
        with Slot(self._big_bodies) as slot:
            if is_big(request.scope):
                async with self._database.turn:  # a key may be that of a user who is gone
                    await self._database.run(self._engine.check_user, caller.identity)
                await slot.acquire(self._limits.body, "Other clients send big requests.")
            yield caller, await self._body(request)

    async def _body(self, request: Request) -> bytes:
        announced = request.headers.get("content-length", "")
        if announced.isdecimal() and int(announced[:20]) > self._limits.request:
            raise self._limits.request_too_big()
        chunks, size = list[bytes](), 0
        async with aclosing(pieces_of(request, self._limits, self._limits.body)) as pieces:
            async for chunk in pieces:
                size += len(chunk)
                if size > self._limits.request:
                    raise self._limits.request_too_big()
                chunks.append(chunk)
        return b"".join(chunks)


async def pieces_of(
    request: Request, limits: Limits, seconds: float, pace: float = math.inf
) -> AsyncGenerator[bytes, None]:
    """Yield the body in the pieces in which it arrives.

    Args:
        request: The request.
        limits: They say how long the next piece may take.
        seconds: How long the whole body may take.
        pace: Bytes that prolong this by a second.

    Raises:
        RequestError: If the next piece or the whole takes too long.
        ClientDisconnect: If it ends too early.
    """
    stream, ends_at = request.stream(), anyio.current_time() + seconds
    while True:
        try:
            with anyio.fail_after(min(limits.idle, ends_at - anyio.current_time())):
                piece = await anext(stream, None)
        except TimeoutError:
            raise RequestError(
                f"Nothing arrived for {limits.idle:g} s, or the whole takes too long; the request "
                "is abandoned.",
                status=408,
            ) from None
        if piece is None:
            return
        ends_at += len(piece) / pace
        yield piece
