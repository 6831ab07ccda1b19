"""Reading requests: credentials and options in headers, bodies within limits of size and time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import anyio
from starlette.requests import Request
from starlette.types import Scope

from aioftrackjobs.devserver.api.request import Caller
from aioftrackjobs.devserver.api_errors import ApiError
from aioftrackjobs.devserver.auth import Credentials
from aioftrackjobs.devserver.engine import Engine
from aioftrackjobs.devserver.faults.connections import KNOWN, READ
from aioftrackjobs.devserver.http.backpressure import BIG_TOTAL, DatabaseThread, Slot, is_big
from aioftrackjobs.devserver.limits import read_body

_TRUE = frozenset({"1", "true"})


def is_strict(headers: Mapping[str, str]) -> bool:
    """Return whether the client wants real HTTP status codes."""
    return headers.get("ftrack-strict-api", "").strip().lower() in _TRUE


def caller_of(request: Request, credentials: Credentials) -> Caller:
    """Return the sender of a batch, and the form in which it gets the response."""
    headers = request.headers
    identity = credentials.check(headers.get("ftrack-user"), headers.get("ftrack-api-key"))
    # Both documented separators are accepted.
    texts = headers.get("ftrack-api-options", "").replace("=", ":").split(";")
    pairs = (text.partition(":") for text in texts)
    options = {name.strip() for name, _, value in pairs if value.strip().lower() in _TRUE}
    return Caller(
        identity,
        _base_url(request.scope, headers),
        denormalize="denormalize" in options,
        strict="strict" in options or is_strict(headers),
    )


def _base_url(scope: Scope, headers: Mapping[str, str]) -> str:
    host = headers.get("host") or "{}:{}".format(*scope.get("server") or ("localhost", 80))
    return f"{scope['scheme']}://{host}{scope.get('root_path', '')}/"


class BatchReader:
    """Reads batches: credentials first, then a slot if the body is big, then the body itself."""

    def __init__(self, engine: Engine, database: DatabaseThread) -> None:
        self._engine = engine
        self._database = database
        self._limits = engine.limits
        self._big_bodies = anyio.CapacityLimiter(max(1, BIG_TOTAL // self._limits.request))

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[tuple[Caller, bytes]]:
        """Enter with the sender and the body of a batch; a big one keeps its slot in the block."""
        limits, caller = self._limits, request.scope.get(READ)
        if isinstance(caller, ApiError):
            raise caller
        with Slot(self._big_bodies) as slot:
            if caller is None:  # else a middleware has read the body, and holds the slot
                caller = caller_of(request, self._engine.credentials)
                request.scope.get("extensions", {})[KNOWN] = True
                if is_big(request.headers):
                    # a key may be that of a user who is gone
                    await self._database.run(self._engine.check_user, caller.identity)
                    await slot.acquire(limits.body, "Other clients send big requests.")
            reading = read_body(request, limits.request, seconds=limits.body, idle=limits.idle)
            body = await reading
            limits.check_body(body)
            yield caller, body
