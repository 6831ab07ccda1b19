"""An answer whose body is read as it arrives, by the shortest way that there is."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import TypeVar, cast

import httpx

from aioftrackjobs.errors import FtrackJobsError
from aioftrackjobs.transport._bulk import is_bulky, is_direct, iter_bulk, iter_direct
from aioftrackjobs.transport._client import ClientResponse

T = TypeVar("T")


class HttpxDownload:
    """A :class:`Download` of httpx, or of a client that is used like it.

    Args:
        response: Its body has not been read.
        translate: Returns what an error of the client means.
    """

    def __init__(
        self, response: ClientResponse, translate: Callable[[Exception], FtrackJobsError]
    ) -> None:
        self._response = response
        self._translate = translate
        self.status = response.status_code
        self.headers: Mapping[str, str] = dict(response.headers)
        length = self.headers.get("content-length", "")
        encoded = "content-encoding" in self.headers or "transfer-encoding" in self.headers
        self.size = int(length) if length.isdigit() and not encoded else None

    def chunks(self) -> AsyncGenerator[bytes, None]:
        """Iterate over the body."""
        if self.size is not None and is_bulky(self._response, self.size):
            pieces = iter_bulk(self._response, self.size)
        else:
            pieces = cast("AsyncGenerator[bytes, None]", self._response.aiter_bytes())
        return self._translated(pieces, Exception)  # a caller's client may raise anything

    def moves(
        self, write: Callable[[bytes | memoryview], object]
    ) -> AsyncGenerator[int, None] | None:
        """Give the body to *write* in worker threads, where that is possible; yields how much."""
        if self.size is not None and is_direct(self._response, self.size):
            counts = iter_direct(self._response, self.size, write)
            return self._translated(counts, httpx.HTTPError)  # not what *write* raises
        return None

    async def _translated(
        self, source: AsyncGenerator[T, None], errors: type[Exception]
    ) -> AsyncGenerator[T, None]:
        try:
            async with aclosing(source) as items:
                async for item in items:
                    yield item
        except errors as exc:
            error = self._translate(exc)
        else:
            return
        raise error
