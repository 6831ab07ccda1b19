"""TransferLimiter: how many transfers, and how many requests of theirs, run at the same time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

import anyio

#: Whether the running task is inside a transfer that has been admitted.
_is_admitted: ContextVar[bool] = ContextVar("_is_admitted", default=False)


class TransferLimiter:
    """Admits a number of transfers at once. The others wait, with no file or connection open.

    The admitted transfers share as many requests: a single transfer sends several parts at a
    time, and each of eight transfers sends about one. API calls are not limited by it.

    Args:
        count: The number of transfers, and of their requests; at least 1.
    """

    def __init__(self, count: int) -> None:
        if count < 1:
            raise ValueError("transfers must be at least 1")
        self._transfers = anyio.Semaphore(count)
        self.requests: anyio.Semaphore = anyio.Semaphore(count)

    @asynccontextmanager
    async def admit(self) -> AsyncIterator[None]:
        """Wait for admission.

        A transfer inside an admitted one does not wait again: an upload may read its content from
        a download, and both together count as one. Otherwise they could wait for each other.
        """
        if _is_admitted.get():
            yield
            return
        async with self._transfers:
            _is_admitted.set(True)
            try:
                yield
            finally:
                _is_admitted.set(False)
