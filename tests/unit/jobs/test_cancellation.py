"""Why a task of asyncio was cancelled, as the task shows it while it is suspended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import pytest

from aioftrackjobs.jobs.ending import describe_interruption

Work = Callable[[], Coroutine[Any, Any, None]]


class Cancelled:
    """Waits until it is cancelled, and then until the test has looked at it."""

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.message: str | None = None

    async def wait(self) -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError as exc:
            error = exc
            task = asyncio.current_task()
            looked = asyncio.get_running_loop().create_future()

            def look() -> None:
                given = asyncio.CancelledError(self.message) if self.message else error
                self.reasons.append(describe_interruption(given, task, 5.04))
                looked.set_result(None)

            asyncio.get_running_loop().call_soon(look)
            while not looked.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.shield(looked)
            raise


@pytest.fixture
def cancelled() -> Cancelled:
    return Cancelled()


async def in_an_anyio_scope(work: Work) -> None:
    with anyio.move_on_after(0.01):
        await work()


async def in_a_group_in_a_scope(work: Work) -> None:
    with anyio.move_on_after(0.01):
        async with anyio.create_task_group() as group:
            group.start_soon(work)


async def in_a_scope_that_is_cancelled(work: Work) -> None:
    with anyio.CancelScope(deadline=anyio.current_time() + 3600) as scope:
        asyncio.get_running_loop().call_later(0.01, scope.cancel)
        await work()


async def in_a_timeout_inside_of_a_generator(work: Work) -> None:
    async def generate() -> AsyncIterator[int]:
        async with asyncio.timeout(0.01):
            await work()
            yield 1

    with suppress(TimeoutError):
        async for _ in generate():
            pass


async def in_a_timeout_that_has_not_passed(work: Work) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().call_later(0.01, task.cancel)
    with suppress(asyncio.CancelledError):
        async with asyncio.timeout(3600):
            await work()
    task.uncancel()


async def in_a_context_manager_of_a_generator(work: Work) -> None:
    @asynccontextmanager
    async def limited() -> AsyncIterator[None]:
        async with asyncio.timeout(0.01):
            yield

    with suppress(TimeoutError):
        async with limited():
            await work()


@pytest.mark.parametrize(
    ("surround", "reason"),
    [
        (in_an_anyio_scope, "timed out after 5.0 s"),
        (in_a_group_in_a_scope, "timed out after 5.0 s"),
        (in_a_scope_that_is_cancelled, "cancelled"),
        (in_a_timeout_inside_of_a_generator, "timed out after 5.0 s"),
        (in_a_timeout_that_has_not_passed, "cancelled"),
        (in_a_context_manager_of_a_generator, "timed out after 5.0 s"),
    ],
)
@pytest.mark.parametrize("message", [None, "Cancelled by cancel scope 7f"])
async def test_what_surrounds_a_task_shows_why_it_was_cancelled(
    cancelled: Cancelled,
    surround: Callable[[Work], Awaitable[None]],
    reason: str,
    message: str | None,
) -> None:
    cancelled.message = message
    await surround(cancelled.wait)

    assert cancelled.reasons == [reason]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (asyncio.CancelledError("by maya"), "cancelled: by maya"),
        (asyncio.CancelledError(7), "cancelled: 7"),
        (asyncio.CancelledError(""), "cancelled"),
        (asyncio.CancelledError("Cancelled via cancel scope 7f; reason: full"), "cancelled: full"),
        (
            asyncio.CancelledError("Cancelled via cancel scope 7f; reason: deadline exceeded"),
            "timed out after 0.01 s",
        ),
        (KeyboardInterrupt(), "interrupted"),
        (GeneratorExit(), "closed before its end"),
    ],
)
async def test_what_the_error_itself_says(error: BaseException, reason: str) -> None:
    assert describe_interruption(error, None, 0.012) == reason


async def test_a_message_is_found_behind_a_second_cancellation() -> None:
    second = asyncio.CancelledError()
    second.__context__ = asyncio.CancelledError("by maya")

    assert describe_interruption(second, None, 1) == "cancelled: by maya"


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.012, "0.01"), (1.26, "1.3"), (59.6, "60"), (7200, "7200")]
)
async def test_the_time_is_shown_as_exactly_as_it_is_of_use(seconds: float, shown: str) -> None:
    error = asyncio.CancelledError("Cancelled via cancel scope 7f; reason: deadline exceeded")

    assert describe_interruption(error, None, seconds) == f"timed out after {shown} s"


async def test_an_odd_task_is_no_reason_to_lose_the_end() -> None:
    class Odd:
        @property
        def _callbacks(self) -> object:
            raise RuntimeError("a task of another kind")

    assert describe_interruption(asyncio.CancelledError(), Odd(), 1) == "cancelled"
