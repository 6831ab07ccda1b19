"""Batches over HTTP: read, answered one at a time, and sent as fast as their clients read.

What an answer comes to is not known before it is made. So it may be a small one only, unless
there is room for the biggest; if it is not, the batch starts again when there is. So small answers
never wait for clients that do not read big ones, and whatever is held has room.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing
from time import monotonic

import anyio
from anyio.lowlevel import checkpoint
from anyio.to_thread import run_sync
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message, Receive, Scope, Send

from aioftrackjobs.devserver.api.request import Caller
from aioftrackjobs.devserver.api_errors import ApiError, BusyError
from aioftrackjobs.devserver.engine import Call, Engine
from aioftrackjobs.devserver.http.backpressure import ROOM, Lane, Room, Share, room_for
from aioftrackjobs.devserver.http.headers import caller_of
from aioftrackjobs.devserver.http.request_body import read_body
from aioftrackjobs.devserver.http.responses import batch_refused, reply
from aioftrackjobs.devserver.limits import NoRoomError

logger = logging.getLogger(__name__)

#: Bytes of a body that are parsed faster than they are handed to a thread.
_PARSED_AT_ONCE = 64 * 1024
#: Bytes of an answer that needs no room: about what a page of the official clients takes.
_SMALL = 256 * 1024
#: Bytes that are handed to a socket at once; what it has not sent is held beside the room.
_BLOCK = 64 * 1024
#: Seconds after which it is worth a look whether the client of a batch still waits for it.
_LONG = 0.2
_LOOKS = 3
#: Seconds until those for whose answers no room came are asked to come back.
_RETRY_AFTER = 5


class Batches:
    """The endpoint that answers batches of operations."""

    def __init__(self, engine: Engine, lane: Lane) -> None:
        self._engine = engine
        self._lane = lane
        self._limits = engine.limits
        self._bodies = Room(ROOM)
        self._answers = Room(ROOM)
        self._assembling = anyio.CapacityLimiter(2)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        with Share(self._answers) as share:
            try:
                answer = await self._answer(request, share)
            except ApiError as refusal:
                await batch_refused(refusal, request.headers)(scope, receive, send)
            except ClientDisconnect:
                logger.debug("a client left before its batch was answered")
            else:
                await self._send(answer, request, send)

    async def _answer(self, request: Request, share: Share) -> bytes:
        """Return the answer to a request; *share* holds room for it then."""
        # Before the body is read: who may not call has no claim to room for it.
        caller = caller_of(request, self._engine.credentials)
        with (
            await self._bodies.reserve(room_for(request.scope)),
            closing(await self._read(request, caller)) as call,
        ):
            if call.completes_uploads:
                # This takes long and touches no data: nobody else waits for it.
                await run_sync(self._engine.assemble, call, limiter=self._assembling)
            try:
                return await self._run(call, request, share)
            except NoRoomError:
                await self._wait_for_room(request, share)
                return await self._run(call, request, share)

    async def _read(self, request: Request, caller: Caller) -> Call:
        body = await read_body(request, self._limits)
        if len(body) <= _PARSED_AT_ONCE:
            return self._engine.read(body, caller)
        return await run_sync(self._engine.read, body, caller)

    async def _run(self, call: Call, request: Request, share: Share) -> bytes:
        """Do what *call* asks for, when its turn has come.

        Raises:
            ClientDisconnect: If the client has left meanwhile.
            NoRoomError: If there is too little room for the answer; then nothing is done.
        """
        held, since = 0, monotonic()
        try:
            with await self._lane.turn():
                if monotonic() - since > _LONG:
                    await _check_presence(request)
                most = self._limits.answer
                room = most if share.is_held or share.grow_now(most) else min(_SMALL, most)
                answer = await self._lane.run(self._engine.answer, call, room)
            held = len(answer) if len(answer) > _SMALL else 0
            return answer
        finally:
            share.shrink(held)

    async def _wait_for_room(self, request: Request, share: Share) -> None:
        """Wait until there is room for the biggest answer.

        Raises:
            ClientDisconnect: If the client has left by then.
            BusyError: If there is none within the limits' patience.
        """
        try:
            with anyio.fail_after(self._limits.patience):
                await share.grow(self._limits.answer)
                await _check_presence(request)
        except TimeoutError:
            raise BusyError(
                "Other clients have not read their answers, and there is no room for this one.",
                _RETRY_AFTER,
            ) from None

    async def _send(self, answer: bytes, request: Request, send: Send) -> None:
        """Send *answer* to a client that reads it; a big one in blocks, so that it must."""
        if len(answer) <= _BLOCK:
            await reply(answer)(request.scope, request.receive, send)
            return
        for message in _messages(answer):
            with anyio.move_on_after(self._limits.idle) as time:
                await send(message)
                # A socket that takes all does not, and others have their turn.
                await checkpoint()
            if time.cancelled_caught:
                logger.warning("a client read nothing for %g s, and is let go", self._limits.idle)
                return


def _messages(answer: bytes) -> Iterator[Message]:
    """Yield *answer* in the pieces in which it is sent."""
    headers = reply(answer).raw_headers
    yield {"type": "http.response.start", "status": 200, "headers": headers}
    for start in range(0, len(answer), _BLOCK):
        end = start + _BLOCK
        more = end < len(answer)
        yield {"type": "http.response.body", "body": answer[start:end], "more_body": more}


async def _check_presence(request: Request) -> None:
    """Check that somebody waits for the answer.

    Raises:
        ClientDisconnect: If nobody does.
    """
    # Whether a connection has ended is found out by the event loop, in its next rounds.
    for _ in range(_LOOKS):
        if await request.is_disconnected():
            raise ClientDisconnect
