"""Reading ahead and writing behind, and how their errors come out."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import anyio
import pytest

from aioftrackjobs.transfers.pipes import read_ahead, write_behind


class Source:
    """Gives numbers as bytes, and notes how far it was read and that it was closed."""

    def __init__(self, count: int, error: Exception | None = None) -> None:
        self.count, self.error = count, error
        self.read = 0
        self.closed = False

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        try:
            for number in range(self.count):
                self.read += 1
                yield b"%d" % number
            if self.error is not None:
                raise self.error
        finally:
            self.closed = True


async def test_the_next_chunk_is_read_while_one_is_used() -> None:
    source = Source(5)
    async with read_ahead(source.chunks()) as chunks:
        assert await anext(chunks) == b"0"
        await anyio.wait_all_tasks_blocked()
        assert source.read == 2, "one ahead, and no more"
        assert [chunk async for chunk in chunks] == [b"1", b"2", b"3", b"4"]


async def test_nothing_is_read_that_nobody_asks_for() -> None:
    source = Source(5)
    async with read_ahead(source.chunks()):
        await anyio.wait_all_tasks_blocked()

    assert source.read == 0


async def test_an_error_of_the_source_comes_after_what_it_gave() -> None:
    seen = []
    with pytest.raises(ZeroDivisionError):
        async with read_ahead(Source(2, ZeroDivisionError()).chunks()) as chunks:
            async for chunk in chunks:
                seen.append(chunk)

    assert seen == [b"0", b"1"]


async def test_who_stops_using_it_ends_the_reading() -> None:
    source = Source(100)
    with pytest.raises(ZeroDivisionError):
        async with read_ahead(source.chunks()) as chunks:
            await anext(chunks)
            raise ZeroDivisionError

    assert source.closed
    assert source.read < 4


async def test_blocks_have_at_least_their_size() -> None:
    blocks: list[list[bytes]] = []

    async def write(block: list[bytes]) -> None:
        blocks.append(block)

    await write_behind(Source(7).chunks(), write, 3)

    assert [b"".join(block) for block in blocks] == [b"012", b"345", b"6"]


async def test_what_arrived_before_an_error_is_written() -> None:
    written: list[bytes] = []

    async def write(block: list[bytes]) -> None:
        written.extend(block)

    with pytest.raises(ZeroDivisionError):
        await write_behind(Source(7, ZeroDivisionError()).chunks(), write, 3)

    assert b"".join(written) == b"0123456"


async def test_an_error_of_the_writer_ends_the_receiving() -> None:
    source = Source(1000)

    async def write(_: list[bytes]) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        async with aclosing(source.chunks()) as chunks:
            await write_behind(chunks, write, 1)

    assert source.read < 10
