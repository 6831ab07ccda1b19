"""Background work whose tasks are cancelled by the shutdown of the event loop."""

from __future__ import annotations

import asyncio
import gc

import anyio

from aioftrackjobs.background import BackgroundTasks


async def nothing() -> None:
    pass


def cancel_all_others() -> None:
    """Do as the runner of asyncio when the program has ended."""
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()


def test_work_that_is_cancelled_before_its_first_turn_begins_again() -> None:
    """No coroutine is left that was never awaited: its warning would be an error here."""
    begun: list[str] = []

    async def main() -> None:
        both = anyio.Event()

        async def work(name: str) -> None:
            begun.append(name)
            if len(begun) == 2:
                both.set()

        background = BackgroundTasks(nothing)
        await background.start()
        with background.keep_alive(), anyio.fail_after(20):
            background.spawn(work, "first")
            background.spawn(work, "second")
            cancel_all_others()
            await both.wait()
        await background.aclose(nothing)

    asyncio.run(main())
    gc.collect()  # where a coroutine that was never awaited is noticed
    assert sorted(begun) == ["first", "second"]


def test_work_that_nothing_keeps_alive_is_given_up_without_a_warning() -> None:
    begun: list[str] = []

    async def main() -> None:
        async def work() -> None:
            begun.append("work")

        background = BackgroundTasks(nothing)
        await background.start()
        background.spawn(work)
        cancel_all_others()
        with anyio.fail_after(20):
            await background.aclose(nothing)

    asyncio.run(main())
    gc.collect()  # where a coroutine that was never awaited is noticed
    assert begun == []
