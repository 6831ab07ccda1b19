"""Receiving an upload: reading, hashing and writing at the same time.

The MD5 digest takes longer than everything else, so it must never wait for the event loop: each
of the two consumers is a thread for the length of the upload, fed with big blocks. One change to
a worker thread for each block would leave the digest idle a third of the time.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from queue import SimpleQueue
from threading import Semaphore

import anyio
from anyio.to_thread import run_sync
from starlette.requests import ClientDisconnect, Request

from aioftrackjobs.devserver.api_errors import RequestError, TransferError
from aioftrackjobs.devserver.files.storage import IncomingFile
from aioftrackjobs.devserver.files.upload_tokens import AnnouncedUpload, check_digest
from aioftrackjobs.devserver.limits import Limits, too_slow

#: Bytes in a block: with small ones the threads would exchange the interpreter lock too often.
_BLOCK = 1024 * 1024
#: Blocks that a consumer may have waiting or in work; this bounds an upload's memory.
_AHEAD = 4
#: Bytes a second that an upload has to bring on average, after its first minute.
_SLOWEST = 16 * 1024


class _Consumer:
    """A function that blocks, called in a thread with one block after the other."""

    def __init__(self, function: Callable[[bytes], None]) -> None:
        self._function = function
        self._blocks: SimpleQueue[bytes | None] = SimpleQueue()
        self._free = Semaphore(_AHEAD)

    async def run(self) -> None:
        """Consume until :meth:`close`; what the function raises comes out here."""
        # Not the limiter that all share: consumers would starve what they wait for.
        await run_sync(self._consume, limiter=anyio.CapacityLimiter(1))

    def _consume(self) -> None:
        try:
            while (block := self._blocks.get()) is not None:
                self._function(block)
                self._free.release()
        finally:
            self._free.release()  # if it failed, feed() must not wait for ever

    async def feed(self, block: bytes) -> None:
        if not self._free.acquire(blocking=False):
            await run_sync(self._free.acquire)
        self._blocks.put(block)

    def close(self) -> None:
        self._blocks.put(None)


async def receive(
    request: Request, incoming: IncomingFile, announced: AnnouncedUpload, limits: Limits
) -> None:
    """Write the body of *request* while it arrives, and hash it if its digest is needed."""
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
    """Pass the body on in blocks, and return its size; an error if the body did not end.

    It stops at the first byte more than *expected*. The error is returned, not raised: in the
    task group of the consumers it would become part of an exception group.
    """
    arrived, chunks, size = 0, list[bytes](), 0
    try:
        async with aclosing(_pieces_of(request, limits)) as pieces:
            async for chunk in pieces:
                arrived, size = arrived + len(chunk), size + len(chunk)
                if arrived > expected:
                    return arrived
                chunks.append(chunk)
                if size >= _BLOCK:
                    await _feed(consumers, chunks)
                    chunks, size = [], 0
    except RequestError as stalled:
        return stalled
    except ClientDisconnect:
        return TransferError("The upload ended before all of it arrived.")
    await _feed(consumers, chunks)
    return arrived


async def _feed(consumers: list[_Consumer], chunks: list[bytes]) -> None:
    block = b"".join(chunks)
    for consumer in consumers:
        await consumer.feed(block)


async def _pieces_of(request: Request, limits: Limits) -> AsyncGenerator[bytes, None]:
    stream, ends_at = request.stream(), anyio.current_time() + limits.body
    while True:
        try:
            with anyio.fail_after(min(limits.idle, ends_at - anyio.current_time())):
                piece = await anext(stream, None)
        except TimeoutError:
            raise too_slow(limits.idle) from None
        if piece is None:
            return
        ends_at += len(piece) / _SLOWEST
        yield piece
