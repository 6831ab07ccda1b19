"""The endpoint for batches: read, done one at a time, and sent as fast as clients read.

How big a response is turns out while it is made. So a batch whose response is big needs a slot:
without one it is rolled back as soon as the response exceeds what is small, waits for a slot, and
runs again. Small responses never wait for clients that do not read big ones.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing, nullcontext
from time import monotonic

import anyio
from anyio.lowlevel import checkpoint
from anyio.to_thread import run_sync
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message, Receive, Scope, Send

from aioftrackjobs.devserver.api.request import Caller
from aioftrackjobs.devserver.api_errors import ApiError
from aioftrackjobs.devserver.engine import Call, Engine
from aioftrackjobs.devserver.http.backpressure import (
    BIG_TOTAL,
    SMALL,
    DatabaseThread,
    Slot,
    is_big,
)
from aioftrackjobs.devserver.http.requests import caller_of, read_body
from aioftrackjobs.devserver.http.responses import batch_error_response, json_response
from aioftrackjobs.devserver.limits import NeedsSlotError

logger = logging.getLogger(__name__)

#: Bytes of a body that is parsed faster than it is passed to a thread.
_PARSED_AT_ONCE = 64 * 1024
#: Bytes that are passed to a socket at once; the socket holds them beside the response.
_BLOCK = 64 * 1024
#: Seconds of waiting after which the server checks that the client is still connected.
_CHECK_AFTER = 0.2
#: Rounds of the event loop until it has noticed that a connection has ended.
_ROUNDS = 3


class BatchEndpoint:
    """The endpoint for batches of operations."""

    def __init__(self, engine: Engine, database: DatabaseThread) -> None:
        self._engine = engine
        self._database = database
        self._limits = engine.limits
        self._big_bodies = anyio.CapacityLimiter(max(1, BIG_TOTAL // self._limits.request))
        self._big_responses = anyio.CapacityLimiter(max(1, BIG_TOTAL // self._limits.response))
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
        # Before the body is read: a caller without valid credentials must not take up memory.
        caller = caller_of(request, self._engine.credentials)
        async with self._big_bodies if is_big(request.scope) else nullcontext():
            with closing(await self._read(request, caller)) as call:
                if call.completes_uploads:
                    # This takes long and does not use the database: other requests go on.
                    await run_sync(self._engine.assemble, call, limiter=self._assembling)
                try:
                    return await self._run(call, request, slot)
                except NeedsSlotError:
                    await slot.acquire(
                        self._limits.queue_timeout,
                        "Other clients have not read their responses, and there is no room for "
                        "this one.",
                    )
                    await _check_presence(request)
                    return await self._run(call, request, slot)

    async def _read(self, request: Request, caller: Caller) -> Call:
        body = await read_body(request, self._limits)
        if len(body) <= _PARSED_AT_ONCE:
            return self._engine.parse(body, caller)
        return await run_sync(self._engine.parse, body, caller)

    async def _run(self, call: Call, request: Request, slot: Slot) -> bytes:
        """Run *call* when it is its turn.

        Raises:
            ClientDisconnect: If the client has left meanwhile.
            NeedsSlotError: If the response is big and no slot is free; then nothing is done.
        """
        is_big_response, began = False, monotonic()
        try:
            async with self._database.turn:
                if monotonic() - began > _CHECK_AFTER:
                    await _check_presence(request)
                largest = self._limits.response
                if not slot.acquire_nowait():
                    largest = min(SMALL, largest)
                response = await self._database.run(self._engine.respond, call, largest)
            is_big_response = len(response) > SMALL
            return response
        finally:
            if not is_big_response:
                slot.release()

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
    """Yield *response* in the pieces in which it is sent."""
    headers = json_response(response).raw_headers
    yield {"type": "http.response.start", "status": 200, "headers": headers}
    for start in range(0, len(response), _BLOCK):
        end = start + _BLOCK
        more = end < len(response)
        yield {"type": "http.response.body", "body": response[start:end], "more_body": more}


async def _check_presence(request: Request) -> None:
    """Check that the client still waits for the response.

    Raises:
        ClientDisconnect: If it does not.
    """
    for _ in range(_ROUNDS):
        if await request.is_disconnected():
            raise ClientDisconnect
