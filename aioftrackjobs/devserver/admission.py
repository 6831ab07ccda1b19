"""Requests wait at the door when those inside already hold much: no growth without end.

Batches wait for room in memory, uploads for their turn.

What a server holds of requests it has not answered is bounded by their number times their
size. Small ones pass at once; a big one reserves room for its whole body before any of it is
read, so that none waits half read for another. What waits stays with the client: its socket
fills, and it sends no more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from starlette.types import ASGIApp, Receive, Scope, Send

from aioftrackjobs.devserver.limits import Limits
from aioftrackjobs.devserver.refusals import BusyRefusal

#: Bytes of all bodies together that may be read and not answered.
ROOM = 128 * 1024 * 1024
#: Bytes of a body that needs no room: what a socket's buffers hold anyway.
_SMALL = 64 * 1024
#: The only address whose bodies are held in memory; files go to disk piece by piece.
_HELD = "/api"
#: Seconds until those whose turn did not come are asked to come back.
_RETRY_AFTER = 5


class Admission:
    """An ASGI application that lets requests through to *app* while there is room for them."""

    def __init__(self, app: ASGIApp, room: int = ROOM) -> None:
        self._app = app
        self._room = Room(room)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or scope["path"] != _HELD:
            await self._app(scope, receive, send)
            return
        async with self._room.reserved(_size(scope)):
            await self._app(scope, receive, send)


class Turns:
    """Uploads that are received at once: each has threads, a file and blocks in memory.

    Those that wait have none of them, and are served in the order in which they came.
    """

    def __init__(self, limits: Limits) -> None:
        self._turns = anyio.CapacityLimiter(limits.uploads)
        self._patience = limits.patience

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Have a turn for the length of the block.

        Raises:
            BusyRefusal: If it does not come within the limits' patience.
        """
        try:
            with anyio.fail_after(self._patience):
                await self._turns.acquire()
        except TimeoutError:
            raise BusyRefusal(
                f"{self._turns.borrowed_tokens:g} uploads are under way, and none of them ended "
                f"within {self._patience:g} s.",
                _RETRY_AFTER,
            ) from None
        try:
            yield
        finally:
            self._turns.release()


class Room:
    """A number of bytes, given out in the order in which they are asked for."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._free = size
        self._waiting: deque[tuple[int, anyio.Event]] = deque()

    @asynccontextmanager
    async def reserved(self, size: int) -> AsyncIterator[None]:
        """Hold *size* bytes for the length of the block, all there are if it is more."""
        size = min(size, self._size)
        if size:
            await self._reserve(size)
        try:
            yield
        finally:
            self._free += size
            self._admit()

    async def _reserve(self, size: int) -> None:
        turn = (size, anyio.Event())
        self._waiting.append(turn)
        self._admit()
        try:
            await turn[1].wait()
        except BaseException:
            if turn in self._waiting:
                self._waiting.remove(turn)
            else:
                self._free += size
            self._admit()
            raise

    def _admit(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._free:
            size, admitted = self._waiting.popleft()
            self._free -= size
            admitted.set()


def _size(scope: Scope) -> int:
    """Return how much room a request needs: what it announces, else as much as a big one."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            size = int(value[:20])
            return size if size > _SMALL else 0
    chunked = any(name == b"transfer-encoding" for name, _ in scope["headers"])
    return ROOM // 4 if chunked else 0
