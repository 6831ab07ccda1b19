"""Room in the queue: who is let in, and when."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from functools import partial

import anyio
import pytest
from anyio.lowlevel import checkpoint

from aioftrackjobs.commit import queue as rooms
from aioftrackjobs.commit.queue import Room


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Room:
    monkeypatch.setattr(rooms, "QUEUE_OPERATIONS", 3)
    return Room(nullcontext())


class Queue:
    """Those who wait for room, and then queue what they have."""

    def __init__(self, room: Room) -> None:
        self.room = room
        self.entered: list[str] = []

    async def enter(self, name: str, operations: int = 1, *, queues: bool = True) -> None:
        await self.room.wait(operations)
        if queues:
            self.room.queued += operations
        self.entered.append(name)


async def settled() -> None:
    for _ in range(10):
        await checkpoint()


async def test_nobody_waits_while_there_is_room(room: Room) -> None:
    room.queued = 2

    with anyio.fail_after(5):
        await room.wait(100)

    assert room.is_free
    assert not room.is_awaited


async def test_who_waits_is_let_in_in_the_order_they_came(room: Room) -> None:
    room.queued, queue = 3, Queue(room)
    async with anyio.create_task_group() as group:
        for name in "abcdefg":
            group.start_soon(queue.enter, name)
            await settled()
        assert (queue.entered, room.is_awaited) == ([], True)

        room.free(2)
        assert not room.is_free, "who was let in comes first"
        await settled()
        assert queue.entered == [*"abc"], "one more, lest those let in have nothing to queue"

        room.free(4)
        await settled()
        room.free(1)

    assert queue.entered == [*"abcdefg"]
    assert not room.is_awaited


async def test_who_is_let_in_counts_as_much_as_they_are_to_queue(room: Room) -> None:
    room.queued, queue = 3, Queue(room)
    async with anyio.create_task_group() as group:
        for name in "abc":
            group.start_soon(queue.enter, name, 3)
            await settled()
        room.free(3)
        await settled()
        assert queue.entered == [*"ab"], "there are not three places, but one"
        room.free(6)

    assert queue.entered == [*"abc"]


async def test_who_is_let_in_and_queues_nothing_lets_others_in(room: Room) -> None:
    room.queued, queue = 3, Queue(room)
    async with anyio.create_task_group() as group:
        group.start_soon(partial(queue.enter, "a", 3, queues=False))
        await settled()
        group.start_soon(queue.enter, "b")
        await settled()
        with anyio.fail_after(5):
            room.free(1)
            while room.is_awaited:
                await checkpoint()

    assert queue.entered == ["a", "b"]


@pytest.mark.parametrize("let_in", [False, True])
async def test_who_goes_away_leaves_the_room_to_others(room: Room, *, let_in: bool) -> None:
    room.queued, queue = 3, Queue(room)
    async with asyncio.TaskGroup() as group:
        impatient = group.create_task(queue.enter("a", 3))
        await settled()
        group.create_task(queue.enter("b"))
        await settled()
        if let_in:
            room.free(1)
        impatient.cancel()
        await settled()
        assert queue.entered == (["b"] if let_in else [])
        room.free(1)

    assert queue.entered == ["b"]
    assert not room.is_awaited


async def test_all_are_let_in_when_the_bound_is_lifted(room: Room) -> None:
    room.queued, queue = 3, Queue(room)
    async with anyio.create_task_group() as group:
        for name in "abcd":
            group.start_soon(queue.enter, name)
            await settled()
        room.lift()

    assert queue.entered == [*"abcd"]
    assert room.is_free
