"""Waiting for conditions that nothing signals, such as files and threads."""

from __future__ import annotations

import threading
from collections.abc import Callable

import anyio


async def until(condition: Callable[[], object]) -> None:
    """Wait until *condition* is true."""
    with anyio.fail_after(10):
        while not condition():  # noqa: ASYNC110
            await anyio.sleep(0.001)


def server_threads() -> set[threading.Thread]:
    """Return the threads of embedded servers that run in this process."""
    return {thread for thread in threading.enumerate() if thread.name == "aioftrackjobs-devserver"}
