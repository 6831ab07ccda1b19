"""Requests wait at the door when those inside already hold much: no growth without end.

Batches wait for room in memory, uploads for their turn.

What a server holds of requests that are not over is bounded. Small bodies pass at once; a big
one reserves room for all of it before any is read, so that none waits half read for another.
What waits stays with the client: its socket fills, and it sends no more. A big answer has room
of its own until its client has taken it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Self, TypeVar

import anyio
from anyio.to_thread import run_sync
from starlette.types import Scope

from aioftrackjobs.devserver.api_errors import BusyError
from aioftrackjobs.devserver.limits import Limits

#: Bytes of all bodies together that may be read and not answered; of answers, and not sent.
ROOM = 128 * 1024 * 1024
#: Bytes of a body that needs no room: what a socket's buffers hold anyway.
_SMALL = 64 * 1024
#: Seconds until those whose turn did not come are asked to come back.
_RETRY_AFTER = 5

Result = TypeVar("Result")


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
            BusyError: If it does not come within the limits' patience.
        """
        try:
            with anyio.fail_after(self._patience):
                await self._turns.acquire()
        except TimeoutError:
            raise BusyError(
                f"{self._turns.borrowed_tokens:g} uploads are under way, and none of them ended "
                f"within {self._patience:g} s.",
                _RETRY_AFTER,
            ) from None
        try:
            yield
        finally:
            self._turns.release()


class Share:
    """What one request holds of a room; given back at the end of the block."""

    def __init__(self, room: Room, size: int = 0) -> None:
        self._room = room
        self._size = size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.shrink(0)

    @property
    def is_held(self) -> bool:
        """Whether it is more than nothing."""
        return self._size > 0

    def grow_now(self, size: int) -> bool:
        """Hold *size* bytes more if they are free, and return whether they were."""
        taken = self._room.take_now(size)
        self._size += taken
        return taken > 0

    async def grow(self, size: int) -> None:
        """Hold *size* bytes more, as soon as they are free."""
        self._size += await self._room.take(size)

    def shrink(self, size: int) -> None:
        """Hold *size* bytes at most from now on."""
        if size < self._size:
            self._room.give_back(self._size - size)
            self._size = size


class Room:
    """A number of bytes, given out in the order in which they are asked for.

    Who asks for more than there is gets all of it.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._free = size
        self._waiting: deque[tuple[int, anyio.Event]] = deque()

    async def reserve(self, size: int) -> Share:
        """Return a share of *size* bytes, as soon as they are free."""
        return Share(self, await self.take(size))

    def take_now(self, size: int) -> int:
        """Return how many bytes are the caller's now: *size*, or 0 if they are not free."""
        size = min(size, self._size)
        if self._waiting or size > self._free:
            return 0
        self._free -= size
        return size

    async def take(self, size: int) -> int:
        """Return how many bytes are the caller's, as soon as *size* are free."""
        taken = self.take_now(size)
        if taken or not size:
            return taken
        turn = (min(size, self._size), anyio.Event())
        self._waiting.append(turn)
        try:
            await turn[1].wait()
        except BaseException:
            if turn in self._waiting:
                self._waiting.remove(turn)
                self._admit()
            else:
                self.give_back(turn[0])
            raise
        return turn[0]

    def give_back(self, size: int) -> None:
        """Have *size* bytes for others again."""
        self._free += size
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._free:
            size, admitted = self._waiting.popleft()
            self._free -= size
            admitted.set()


class Lane:
    """Calls one after the other, each in a worker thread: there is one database."""

    def __init__(self) -> None:
        self._turns = Room(1)
        self._thread = anyio.CapacityLimiter(1)

    async def turn(self) -> Share:
        """Return a block in which it is the caller's turn."""
        return await self._turns.reserve(1)

    async def run(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Return what *function* does, which takes its time; for whose turn it is."""
        return await run_sync(function, *arguments, limiter=self._thread)


def room_for(scope: Scope) -> int:
    """Return how much room a request needs: what it announces, else as much as a big one."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            size = int(value[:20])
            return size if size > _SMALL else 0
    chunked = any(name == b"transfer-encoding" for name, _ in scope["headers"])
    return ROOM // 4 if chunked else 0
