"""The endpoint for batches: read, done one at a time, and sent as fast as clients read.

How big a response is turns out while it is made. So a batch whose response is big needs a slot:
without one it is rolled back as soon as the response exceeds what is small, waits for a slot, and
runs again. Small responses never wait for clients that do not read big ones.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import closing
from time import monotonic

import anyio
from anyio.lowlevel import checkpoint
from anyio.to_thread import run_sync
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message, Receive, Scope, Send

from aioftrackjobs.devserver.api.request import Caller
from aioftrackjobs.devserver.api_errors import ApiError, DatabaseLockedError
from aioftrackjobs.devserver.engine import Call, Engine
from aioftrackjobs.devserver.http.backpressure import BIG_TOTAL, SMALL, DatabaseThread, Slot
from aioftrackjobs.devserver.http.requests import BatchReader
from aioftrackjobs.devserver.http.responses import batch_error_response, json_response
from aioftrackjobs.devserver.limits import NeedsSlotError, SlowQueryError

logger: logging.Logger = logging.getLogger(__name__)

#: Bytes of a body that is parsed faster than it is passed to a thread.
_PARSED_AT_ONCE = 16 * 1024
#: Bytes of a body whose response is likely to be big: it would be made twice without a slot.
_LIKELY_BIG = 64 * 1024
#: Bytes that are passed to a socket at once; the socket holds them beside the response.
_BLOCK = 64 * 1024
#: Seconds of waiting after which the server checks that the client is still connected.
_CHECK_AFTER = 0.2
#: Steps of a batch that may keep others waiting, as one of more than `SMALL` bytes may, and seconds
#: between two such batches, in which those that have waited come before the second.
_LONG, _LONG_PAUSE = 500, 0.05
#: Seconds for which a request tries again if another process writes, and between two tries.
_LOCKED_FOR, _LOCKED_PAUSE = 5.0, 0.05
#: Rounds of the event loop until it has noticed that a connection has ended.
_ROUNDS = 3


class BatchEndpoint:
    """The endpoint for batches of operations."""

    def __init__(self, engine: Engine, database: DatabaseThread, reader: BatchReader) -> None:
        self._engine = engine
        self._database = database
        self._limits = engine.limits
        self._reader = reader
        self._big_responses = anyio.CapacityLimiter(max(1, BIG_TOTAL // self._limits.response))
        self._slow = anyio.CapacityLimiter(1)  # requests that read beside others
        # One at a time: several would keep the interpreter from all other requests.
        self._parsing = anyio.CapacityLimiter(1)
        # The same for the database: a small batch must wait for the end of one of them, not of all.
        self._long = anyio.CapacityLimiter(1)
        self._assembling = anyio.CapacityLimiter(2)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to one request."""
        request = Request(scope, receive)
        with Slot(self._big_responses) as slot:
            try:
                response = await self._respond(request, slot)
            except ApiError as error:
                await batch_error_response(error, request.headers)(scope, receive, send)
            except ClientDisconnect:
                logger.debug("a client left before its batch was done")
            else:
                await self._send(response, request, send)

    async def _respond(self, request: Request, slot: Slot) -> bytes:
        """Return the response; *slot* is held if it is big."""
        async with self._reader.read(request) as (caller, body):
            if len(body) > _LIKELY_BIG:
                slot.acquire_nowait()
            with closing(await self._parsed(body, caller, request)) as call:
                if call.completes_uploads:
                    # This takes long and does not use the database: other requests go on.
                    await run_sync(self._engine.assemble, call, limiter=self._assembling)
                return await self._run(call, request, slot)

    async def _parsed(self, body: bytes, caller: Caller, request: Request) -> Call:
        if len(body) <= _PARSED_AT_ONCE:
            return self._engine.parse(body, caller)
        async with self._parsing:
            await _check_presence(request)
            return await run_sync(self._engine.parse, body, caller)

    async def _run(self, call: Call, request: Request, slot: Slot) -> bytes:
        """Run *call*: at first in its turn, and beside others if it turns out to take long."""
        run, gives_up_at = self._in_turn, monotonic() + _LOCKED_FOR
        while True:
            largest = self._limits.response if slot.is_held else min(SMALL, self._limits.response)
            try:
                response = await run(call, request, largest)
            except NeedsSlotError:
                await slot.acquire(
                    self._limits.queue_timeout,
                    "Other clients have not read their responses, and there is no room for "
                    "this one.",
                )
            except SlowQueryError:
                run = self._beside
            except DatabaseLockedError:
                if monotonic() > gives_up_at:
                    raise
                await anyio.sleep(_LOCKED_PAUSE)
            else:
                if len(response) <= SMALL:
                    slot.release()
                return response
            await _check_presence(request)

    async def _in_turn(self, call: Call, request: Request, largest: int) -> bytes:
        is_long = call.steps > _LONG or call.size > SMALL
        with Slot(self._long) as turn:
            if is_long and not turn.acquire_nowait():
                await turn.acquire(self._limits.queue_timeout, "Other clients send long batches.")
                await anyio.sleep(_LONG_PAUSE)
                await _check_presence(request)
            return await self._in_order(call, request, largest)

    async def _in_order(self, call: Call, request: Request, largest: int) -> bytes:
        began = monotonic()

        def respond() -> bytes | None:
            if monotonic() - began > _CHECK_AFTER:
                return None
            return self._engine.respond(call, largest, self._database.is_awaited)

        response = await self._database.run(respond)
        if response is None:  # it has waited so long that the client may have left
            await _check_presence(request)
            began = math.inf
            response = await self._database.run(respond)
            assert response is not None  # noqa: S101 - the only reason is gone
        return response

    async def _beside(self, call: Call, request: Request, largest: int) -> bytes:
        with Slot(self._slow) as place:
            await place.acquire(self._limits.query, "Other queries take long, too.")
            await _check_presence(request)
            respond = self._engine.respond_beside
            return await run_sync(respond, call, largest, limiter=anyio.CapacityLimiter(1))

    async def _send(self, response: bytes, request: Request, send: Send) -> None:
        """Send *response*; a big one in blocks, so that a client that stops reading is noticed."""
        if len(response) <= _BLOCK:
            await json_response(response)(request.scope, request.receive, send)
            return
        for message in _messages(response):
            with anyio.move_on_after(self._limits.idle) as time:
                await send(message)
                # A socket that takes everything at once does not yield to other tasks.
                await checkpoint()
            if time.cancelled_caught:
                logger.warning(
                    "a client read nothing for %g s and is disconnected", self._limits.idle
                )
                return


def _messages(response: bytes) -> Iterator[Message]:
    headers = json_response(response).raw_headers
    yield {"type": "http.response.start", "status": 200, "headers": headers}
    for start in range(0, len(response), _BLOCK):
        block, more = response[start : start + _BLOCK], start + _BLOCK < len(response)
        yield {"type": "http.response.body", "body": block, "more_body": more}


async def _check_presence(request: Request) -> None:
    for _ in range(_ROUNDS):
        if await request.is_disconnected():
            raise ClientDisconnect
