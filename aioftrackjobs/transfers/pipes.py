"""Reading ahead and writing behind: the disk and the network work at the same time."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress

import anyio

#: Blocks that may have arrived before the one being written is on the disk.
_BEHIND = 2


@asynccontextmanager
async def read_ahead(
    chunks: AsyncGenerator[bytes, None],
) -> AsyncIterator[AsyncGenerator[bytes, None]]:
    """Give what *chunks* gives, the next one being read while the one before is used.

    Nothing is read before the first one is asked for.
    """
    outgoing, incoming = anyio.create_memory_object_stream[bytes](0)
    wanted = anyio.Event()
    problems: list[Exception] = []

    async def read() -> None:
        async with outgoing, aclosing(chunks):
            await wanted.wait()
            try:
                async for chunk in chunks:
                    await outgoing.send(chunk)
            except anyio.BrokenResourceError:
                pass  # no more is wanted
            except Exception as exc:  # noqa: BLE001 - raised where the chunks are used
                problems.append(exc)

    async def give() -> AsyncGenerator[bytes, None]:
        wanted.set()
        async for chunk in incoming:
            yield chunk
        for problem in problems:
            raise problem

    error: Exception | None = None
    async with anyio.create_task_group() as reader:
        reader.start_soon(read)
        async with incoming, aclosing(give()) as given:
            try:
                yield given
            except Exception as exc:  # noqa: BLE001 - raised outside, lest it becomes a group
                error = exc
        if not wanted.is_set():
            reader.cancel_scope.cancel()
    if error is not None:
        raise error


async def write_behind(
    chunks: AsyncIterable[bytes], write: Callable[[list[bytes]], Awaitable[None]], block_size: int
) -> None:
    """Give *chunks* to *write* in blocks of at least *block_size*, while the next ones arrive.

    What arrived before *chunks* raised something is written.
    """
    outgoing, incoming = anyio.create_memory_object_stream[list[bytes]](_BEHIND)
    problems: list[Exception] = []

    async def take() -> None:
        block: list[bytes] = []
        gathered = 0
        async with outgoing:
            with suppress(anyio.BrokenResourceError):  # writing failed, which is the problem
                try:
                    async for chunk in chunks:
                        block.append(chunk)
                        gathered += len(chunk)
                        if gathered >= block_size:
                            await outgoing.send(block)
                            block, gathered = [], 0
                except anyio.BrokenResourceError:
                    raise
                except Exception as exc:  # noqa: BLE001 - raised when all that came is written
                    problems.append(exc)
                if block:
                    await outgoing.send(block)

    async def give() -> None:
        async with incoming:
            try:
                async for block in incoming:
                    await write(block)
            except Exception as exc:  # noqa: BLE001 - raised when both have ended
                problems.insert(0, exc)

    async with anyio.create_task_group() as writer:
        writer.start_soon(give)
        await take()
    for problem in problems:
        raise problem
