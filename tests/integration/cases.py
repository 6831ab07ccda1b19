"""Cases that share a test, because each of them would set up the same: a failure names its case."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import anyio

T = TypeVar("T")


@contextmanager
def case(name: object) -> Iterator[None]:
    """Add *name* to what pytest shows of an error inside."""
    try:
        yield
    except BaseException as exc:
        exc.add_note(f"in the case: {name}")
        raise


async def side_by_side(run: Callable[[T], Awaitable[object]], cases: Iterable[T]) -> None:
    """Run all *cases* at the same time, because they mostly wait."""

    async def run_one(each: T) -> None:
        with case(each):
            await run(each)

    async with anyio.create_task_group() as group:
        for each in cases:
            group.start_soon(run_one, each)
