"""Waits for a condition that sends no notification."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio


async def until(condition: Callable[[], object]) -> None:
    """Wait until *condition* returns a true value, which may be awaitable.

    It sleeps between two calls, because a busy loop would keep the interpreter's lock from the
    threads of the embedded server.

    Raises:
        TimeoutError: It is not true after 20 seconds.
    """
    with anyio.fail_after(20):
        while not await _outcome(condition()):  # noqa: ASYNC110 - there is no event
            await anyio.sleep(0.002)


async def _outcome(value: object) -> object:
    return await value if isinstance(value, Awaitable) else value
