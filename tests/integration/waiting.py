"""Waiting for what nobody tells."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio


async def until(condition: Callable[[], object]) -> None:
    """Wait until *condition* returns, or what it returns brings, something true.

    It looks now and then: a loop that spins keeps the interpreter's lock from the embedded
    server's threads, which need it for each row.

    Raises:
        TimeoutError: It does not come about.
    """
    with anyio.fail_after(20):
        while not await _outcome(condition()):  # noqa: ASYNC110 - nobody tells
            await anyio.sleep(0.002)


async def _outcome(value: object) -> object:
    return await value if isinstance(value, Awaitable) else value
