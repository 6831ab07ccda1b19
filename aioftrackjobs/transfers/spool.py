"""Temporary copies: of sources that can be read only once, and of archives.

A copy stays in memory while it is small, and moves to a temporary file when it grows.
"""

from __future__ import annotations

import inspect
import io
import socket
import tempfile
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, closing, contextmanager, nullcontext, suppress
from contextvars import copy_context
from functools import partial
from typing import Any, BinaryIO, TypeAlias, TypeVar, cast

import anyio
from anyio.to_thread import run_sync

from aioftrackjobs.background import loop_caller
from aioftrackjobs.errors import TransferError
from aioftrackjobs.transfers.archive import Member, transfer_errors, write_archive

T = TypeVar("T")

BytesLike: TypeAlias = bytes | bytearray | memoryview

#: Bytes that are read at once. Fewer would make the switch to a worker thread expensive. More would
#: be a little faster, but each part in progress has several chunks in memory.
CHUNK = 2 * 1024 * 1024

#: Bytes of a copy that are kept in memory.
_IN_MEMORY = 4 * 1024 * 1024


async def call_in_thread(function: Callable[[], T]) -> T:
    """Return the result of *function*, which may block for ever, in a thread of its own.

    If the caller is cancelled, the thread goes on, but does not keep the program from ending, as
    the worker threads of anyio would under asyncio.
    """
    ended = anyio.Event()
    call_in_loop = loop_caller()
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(function())
        except BaseException as exc:  # noqa: BLE001 - raised in the caller's task
            errors.append(exc)
        with suppress(RuntimeError):  # the event loop has ended
            call_in_loop(ended.set)

    run_here = partial(copy_context().run, run)
    threading.Thread(target=run_here, name="aioftrackjobs source", daemon=True).start()
    await ended.wait()
    for error in errors:
        raise error
    return results[0]


async def open_in_thread(open_file: Callable[[threading.Event], BinaryIO]) -> BinaryIO:
    """Open a file in a worker thread; close it if the caller is cancelled meanwhile.

    Args:
        open_file: Its argument is an event that is set when the caller is cancelled, so that a
            long operation can end early.
    """
    opened: list[BinaryIO] = []
    abandoned = threading.Event()

    def run() -> BinaryIO:
        file = open_file(abandoned)
        opened.append(file)
        if abandoned.is_set():
            file.close()
        return file

    try:
        return await call_in_thread(run)
    except BaseException:
        # The thread appends the file and then checks the event; this sets the event and then
        # checks the list. So at least one of the two sees the file of the other, and closes it.
        abandoned.set()
        for file in opened:
            file.close()
        raise


def _new_copy() -> BinaryIO:
    file = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - the caller closes it
    return cast("BinaryIO", file)


@contextmanager
def _temporary_copy(name: str) -> Iterator[BinaryIO]:
    """Give a new temporary file, which is closed if the block raises."""
    with transfer_errors(f"no temporary copy of {name} can be made"):
        file = _new_copy()
        try:
            yield file
        except BaseException:
            with suppress(OSError):  # the disk may be full for buffered bytes, too
                file.close()
            raise


async def pack(find: Callable[[], list[Member]], name: str) -> BinaryIO:
    """Return a temporary file that contains an archive of the members that *find* returns."""

    def write(abandoned: threading.Event) -> BinaryIO:
        with _temporary_copy(name) as file:
            with closing(write_archive(file, find())) as pieces:
                for _ in pieces:
                    if abandoned.is_set():
                        break
            file.seek(0)
        return file

    return await open_in_thread(write)


async def spool(source: Any, name: str) -> BinaryIO:
    """Return a temporary file that contains all bytes of *source*."""
    with _temporary_copy(name) as file:
        async with aclosing(_pieces(source, name)) as pieces:
            async for piece in pieces:
                await run_sync(file.write, piece)
        await run_sync(file.seek, 0)
    return file


async def _pieces(source: Any, name: str) -> AsyncGenerator[BytesLike, None]:
    """Iterate over the bytes of a buffer, a file object or an async iterator."""
    read = getattr(source, "read", None)
    if isinstance(source, BytesLike):
        view = await run_sync(_flat, source)
        for start in range(0, len(view), CHUNK):
            yield view[start : start + CHUNK]
    elif callable(read):
        descriptor, read = _stream(source, read)
        while True:
            if descriptor is not None:
                await _readable(descriptor)
            if not (piece := _require_bytes(await _read(read, name), name)):
                break
            yield piece
    else:
        iterator = aiter(source)
        # Closed at once and not by the garbage collector, because it may hold a connection.
        closer = aclosing(iterator) if isinstance(iterator, AsyncGenerator) else nullcontext()
        with transfer_errors(f"{name} cannot be read"):
            async with closer:
                async for piece in iterator:
                    yield _require_bytes(piece, name)


def _flat(buffer: BytesLike) -> memoryview:
    """Return the bytes of *buffer* as one row, without a copy if they are contiguous."""
    view = memoryview(buffer)
    try:
        return view.cast("B")
    except TypeError:  # not contiguous, or its items have a format that cast does not know
        return memoryview(view.tobytes())


def _stream(source: Any, read: Callable[[int], Any]) -> tuple[int | None, Callable[[int], Any]]:
    """Return the descriptor by which *source* can be waited for, and what reads from it then.

    Only what the standard library opens, because other objects may have data although their
    descriptor has none.
    """
    is_buffered = type(source) in (io.BufferedReader, io.BufferedRandom)
    raw = source.raw if is_buffered else source
    if type(raw) not in (io.FileIO, socket.SocketIO) or raw.closed:
        return None, read
    # A plain read would wait until all of its bytes have arrived.
    return raw.fileno(), source.read1 if is_buffered else read


async def _readable(descriptor: int) -> None:
    """Wait until a stream has data, or has ended; a cancellation ends this at once."""
    with suppress(OSError, NotImplementedError):  # files and some devices cannot be waited for
        await anyio.wait_readable(descriptor)


async def _read(read: Callable[[int], Any], name: str) -> object:
    try:
        if inspect.iscoroutinefunction(read):
            return await read(CHUNK)
        piece = await call_in_thread(partial(read, CHUNK))
        return await piece if inspect.isawaitable(piece) else piece
    except UnicodeDecodeError as exc:
        raise TransferError(f"{name} is read as text: open it in binary mode") from exc
    except (OSError, TypeError, ValueError) as exc:  # TypeError: no such argument; Value: closed
        raise TransferError(f"{name} cannot be read: {exc}") from exc


def _require_bytes(piece: object, name: str) -> BytesLike:
    if isinstance(piece, str):
        raise TransferError(f"{name} is read as text: open it in binary mode")
    if not isinstance(piece, BytesLike):
        raise TransferError(f"{name} gives {type(piece).__name__} where bytes are needed")
    return piece
