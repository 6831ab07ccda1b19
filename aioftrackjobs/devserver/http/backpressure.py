"""Bounds on what the server does and holds at the same time.

Small bodies and responses are never held back. A big body waits for a slot before any of it is
read: its bytes stay with the client, whose socket fills. A big response keeps its slot until its
client has read it. So memory is bounded however many clients there are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self, TypeVar

import anyio
import sniffio
from anyio.to_thread import run_sync

from aioftrackjobs.devserver.api_errors import BusyError

#: Bytes that all big bodies, and all big responses, may take together.
BIG_TOTAL = 128 * 1024 * 1024
#: Bytes of a body or a response that needs no slot: about what a page of the official clients
#: takes.
SMALL = 256 * 1024
#: Seconds after which a client may try again if it got no slot in time.
_RETRY_AFTER = 5

Result = TypeVar("Result")


class Slot:
    """One place in a limiter, which one request may hold; released at the end of the block."""

    def __init__(self, limiter: anyio.CapacityLimiter) -> None:
        self._limiter = limiter
        self.is_held: bool = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def acquire_nowait(self) -> bool:
        """Take the slot if one is free, and return whether it is held now."""
        if not self.is_held:
            try:
                self._limiter.acquire_on_behalf_of_nowait(self)
            except anyio.WouldBlock:
                return False
            self.is_held = True
        return True

    async def acquire(self, timeout: float, busy: str) -> None:
        """Wait for the slot; slots are given in the order in which they are requested."""
        try:
            with anyio.fail_after(timeout):
                await self._limiter.acquire_on_behalf_of(self)
        except TimeoutError:
            raise BusyError(busy, _RETRY_AFTER) from None
        self.is_held = True

    def release(self) -> None:
        """Leave the slot to others, if it is held."""
        if self.is_held:
            self.is_held = False
            self._limiter.release_on_behalf_of(self)


class DatabaseThread:
    """A thread that runs one function after the other: there is one database.

    It goes on with the next one without the event loop, so that many small requests cost few
    changes between the two threads.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "aioftrackjobs-database")
        self._unfinished = 0

    def is_awaited(self) -> bool:
        """Return whether others wait for the end of the function that runs; from any thread."""
        return self._unfinished > 1

    async def run(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Return what *function* returns; it runs to its end even if the caller is cancelled."""
        self._unfinished += 1
        try:
            with anyio.CancelScope(shield=True):
                running = self._thread.submit(function, *arguments)
                if sniffio.current_async_library() == "asyncio":
                    result = await asyncio.wrap_future(running)
                else:
                    result = await run_sync(running.result)
            return result
        finally:
            self._unfinished -= 1


def is_big(headers: Mapping[str, str]) -> bool:
    """Return whether a request announces a big body, or does not announce how big it is."""
    size = headers.get("content-length", "")
    return int(size[:20]) > SMALL if size.isdecimal() else "transfer-encoding" in headers
