"""Taking an upload in: receiving, hashing and writing at the same time.

The MD5 digest takes longer than all the rest, so it must never wait for the event loop: each of
the two consumers is a thread for the length of the upload, fed with big blocks. A hop to a
worker thread for each block would leave it idle a third of the time.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from queue import SimpleQueue
from threading import Semaphore

import anyio
from anyio.to_thread import run_sync
from starlette.requests import ClientDisconnect, Request

from aioftrackjobs.devserver.api_errors import RequestError, TransferError
from aioftrackjobs.devserver.files.storage import Incoming
from aioftrackjobs.devserver.files.upload_tokens import Announced, check_digest
from aioftrackjobs.devserver.http.request_body import pieces_of
from aioftrackjobs.devserver.limits import Limits

#: Bytes in a block: a thread that gives up the interpreter for less has to get it back as often.
_BLOCK = 1024 * 1024
#: Blocks that may wait for a consumer or be in its hands, which bounds an upload's memory.
_AHEAD = 4


class _Consumer:
    """A function that blocks, called in a thread with one block after the other."""

    def __init__(self, function: Callable[[bytes], None]) -> None:
        self._function = function
        self._blocks: SimpleQueue[bytes | None] = SimpleQueue()
        self._room = Semaphore(_AHEAD)

    async def run(self) -> None:
        """Consume until :meth:`close`; what the function raises comes out here."""
        # Not the limiter that all share: consumers would starve what they wait for.
        await run_sync(self._consume, limiter=anyio.CapacityLimiter(1))

    def _consume(self) -> None:
        try:
            while (block := self._blocks.get()) is not None:
                self._function(block)
                self._room.release()
        finally:
            self._room.release()  # if it failed, whoever waits for room must not wait for ever

    async def feed(self, block: bytes) -> None:
        """Hand over *block*, waiting while there is no room for it."""
        if not self._room.acquire(blocking=False):
            await run_sync(self._room.acquire)
        self._blocks.put(block)

    def close(self) -> None:
        """Let the thread end when it has consumed what it was given."""
        self._blocks.put(None)


async def receive(
    request: Request, incoming: Incoming, announced: Announced, limits: Limits
) -> None:
    """Write the body of *request* while it arrives, and hash it if its digest is needed.

    Raises:
        RequestError: If it is not what was announced, ends too early, or stops arriving.
    """
    consumers = [_Consumer(incoming.write)]
    if incoming.is_hashed:
        consumers.append(_Consumer(incoming.hash))
    async with anyio.create_task_group() as tasks:
        for consumer in consumers:
            tasks.start_soon(consumer.run)
        try:
            arrived = await _forward(request, consumers, announced.size, limits)
        finally:
            for consumer in consumers:
                consumer.close()
    if isinstance(arrived, RequestError):
        raise arrived
    is_part = announced.upload is not None
    if arrived > announced.size or (arrived < announced.size and not is_part):
        more = arrived > announced.size
        raise TransferError(
            f"{announced.size} bytes were announced, {'more' if more else arrived} arrived.",
            status=413 if more else 400,
        )
    if not is_part:
        check_digest(announced, incoming)


async def _forward(
    request: Request, consumers: list[_Consumer], expected: int, limits: Limits
) -> int | RequestError:
    """Pass the body on in blocks, and return its size; a refusal if it did not end by itself.

    It stops at the first byte more than *expected*.
    """
    arrived, chunks, size = 0, list[bytes](), 0
    try:
        async with aclosing(pieces_of(request, limits)) as pieces:
            async for chunk in pieces:
                arrived, size = arrived + len(chunk), size + len(chunk)
                if arrived > expected:
                    return arrived
                chunks.append(chunk)
                if size >= _BLOCK:
                    await _feed(consumers, chunks)
                    chunks, size = [], 0
    except RequestError as stalled:
        return stalled  # raised in the task group it would become part of an exception group
    except ClientDisconnect:
        return TransferError("The upload ended before all of it arrived.")
    await _feed(consumers, chunks)
    return arrived


async def _feed(consumers: list[_Consumer], chunks: list[bytes]) -> None:
    block = b"".join(chunks)
    for consumer in consumers:
        await consumer.feed(block)
