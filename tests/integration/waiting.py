"""Waiting for conditions that no event signals."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio


async def until(condition: Callable[[], object]) -> None:
    """Wait until *condition* returns something true, or an awaitable with a true result.

    It checks the condition every 2 ms, because a busy loop would keep the interpreter's lock from
    the threads of the embedded server, which need it for each row.

    Raises:
        TimeoutError: The condition is not true after 20 seconds.
    """
    with anyio.fail_after(20):
        while not await _outcome(condition()):  # noqa: ASYNC110 - there is no event
            await anyio.sleep(0.002)


async def _outcome(value: object) -> object:
    return await value if isinstance(value, Awaitable) else value
