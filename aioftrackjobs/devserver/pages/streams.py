"""Server-sent events: pages are kept up to date, each as fast as its browser reads.

A stream has no queue. It knows up to which change its page is right, and when something has
changed, it sends what is new since then. So a browser that is slow, or many of them, cost no
memory, and one that connects anew misses nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from time import monotonic
from typing import Any, TypeAlias

import anyio
from pydantic_core import to_json
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from aioftrackjobs.devserver.api_errors import ApiError, BusyError

logger: logging.Logger = logging.getLogger(__name__)

#: Seconds after which a stream looks for what changes by time alone, as leases end. It also sends
#: something, so that the end of a browser is noticed.
_BEAT = 2.0
#: Seconds between two updates of a page: changes that come together are sent together. It is longer
#: by a multiple of what an update takes, so that many pages take a small part of the server's time.
_PAUSE, _SHARE = 0.1, 5
#: Seconds after which a browser may try again if there were too many.
_RETRY_AFTER = 5

#: Takes up to which change a page is right; returns the same after an update, and this update.
Step: TypeAlias = Callable[[str], Awaitable[tuple[str, Mapping[str, Any] | None]]]


class Streams:
    """The streams of one server, of which there are *most*."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open = 0
        self._is_closed = False
        self._changed = asyncio.Event()
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._loop: asyncio.AbstractEventLoop | None = None

    def respond(self, step: Step, position: str) -> Response:
        """Return a response that goes on until the browser or the server ends.

        Raises:
            BusyError: If there are too many.
        """
        self.check()
        self._loop = asyncio.get_running_loop()
        self._open += 1
        return _Stream(self._events(step, position), self._release)

    def check(self) -> None:
        """Check that there may be one more.

        Raises:
            BusyError: If there are too many.
        """
        if self._open >= self._most:
            raise BusyError(
                f"{self._most} pages are kept up to date already. Close some of them.", _RETRY_AFTER
            )

    async def changes(self) -> bool:
        """Wait until something may have changed; return whether the server goes on."""
        self._loop = asyncio.get_running_loop()
        self._waiting += 1
        try:
            await self._changed.wait()
        finally:
            self._waiting -= 1
        return not self._is_closed

    def wake(self) -> None:
        """Send what is new; from any thread."""
        loop = self._loop
        if loop is not None and (self._open or self._waiting):
            with suppress(RuntimeError):  # the server is stopping, and its loop is closed
                loop.call_soon_threadsafe(self._wake)

    def close(self) -> None:
        """End all streams; from the event loop."""
        self._is_closed = True
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _release(self) -> None:
        self._open -= 1

    async def _events(self, step: Step, position: str) -> AsyncIterator[bytes]:
        yield b"retry: 1000\n\n"
        while True:
            # One after the other, with a pause as long, so that requests need not wait for many.
            async with self._turn:
                if self._is_closed:
                    return
                changed, began = self._changed, monotonic()
                try:
                    position, update = await step(position)
                except ApiError as error:  # the browser connects again
                    logger.info("a page is not kept up to date any more: %s", error)
                    return
                took = monotonic() - began
                await anyio.sleep(took)
            if update is not None:
                yield b"id: %b\ndata: %b\n\n" % (position.encode(), to_json(update))
            with anyio.move_on_after(_BEAT) as beat:
                await changed.wait()
            if beat.cancelled_caught:
                yield b":\n\n"
            elif not self._is_closed:
                await anyio.sleep(_PAUSE + _SHARE * took)


class _Stream(StreamingResponse):
    """A stream that says when it is over, however it ends."""

    def __init__(self, events: AsyncIterator[bytes], on_end: Callable[[], None]) -> None:
        super().__init__(events, media_type="text/event-stream")
        self._on_end = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._on_end()
