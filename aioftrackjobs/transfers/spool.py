"""Temporary copies: of what can be read only once, and of archives, which are made here.

They are in memory while they are small, then on disk.
"""

from __future__ import annotations

import inspect
import tempfile
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, closing, contextmanager, nullcontext, suppress
from typing import Any, BinaryIO, TypeAlias, cast

from anyio.to_thread import run_sync

from aioftrackjobs.errors import TransferError
from aioftrackjobs.transfers.archive import Member, write_archive

BytesLike: TypeAlias = bytes | bytearray | memoryview

#: Bytes that are read at once: enough to make the hop to a worker thread cheap. More would be
#: faster by a little, but there are several in memory for each part that is under way.
CHUNK = 2 * 1024 * 1024

#: Bytes of a copy that are kept in memory.
_IN_MEMORY = 4 * 1024 * 1024


@contextmanager
def refusals(what: str) -> Iterator[None]:
    """Say *what* failed where the operating system refuses."""
    try:
        yield
    except OSError as exc:
        raise TransferError(f"{what}: {exc.strerror or exc}") from exc


async def open_in_thread(open_file: Callable[[threading.Event], BinaryIO]) -> BinaryIO:
    """Open a file in a worker thread; close it if nobody waits for it any more.

    Args:
        open_file: Gets an event that is set when nobody waits: what takes long may give up.
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
        return await run_sync(run, abandon_on_cancel=True)
    except BaseException:
        abandoned.set()  # before looking, as the thread looks after it has opened
        for file in opened:
            file.close()
        raise


def _new_copy() -> BinaryIO:
    file = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - the caller closes it
    return cast("BinaryIO", file)


async def pack(find: Callable[[], list[Member]], name: str) -> BinaryIO:
    """Return a temporary file that holds an archive of what is found."""

    def write(abandoned: threading.Event) -> BinaryIO:
        file = _new_copy()
        try:
            with closing(write_archive(file, find())) as steps:
                for _ in steps:
                    if abandoned.is_set():
                        break
            file.seek(0)
        except BaseException:
            with suppress(OSError):  # what is still buffered may find no room either
                file.close()
            raise
        return file

    with refusals(f"no temporary copy of {name} can be made"):
        return await open_in_thread(write)


async def spool(source: Any, name: str) -> BinaryIO:
    """Return a temporary file that holds all that *source* gives."""
    with refusals(f"no temporary copy of {name} can be made"):
        file = _new_copy()
        try:
            async with aclosing(_pieces(source, name)) as pieces:
                async for piece in pieces:
                    await run_sync(file.write, piece)
            await run_sync(file.seek, 0)
        except BaseException:
            with suppress(OSError):  # what is still buffered may find no room either
                file.close()
            raise
        return file


async def _pieces(source: Any, name: str) -> AsyncGenerator[BytesLike, None]:
    """Iterate over what a buffer, a file object or an async iterator gives."""
    read = getattr(source, "read", None)
    if isinstance(source, BytesLike):
        view = await run_sync(_flat, source)
        for start in range(0, len(view), CHUNK):
            yield view[start : start + CHUNK]
    elif callable(read):
        while piece := _require_bytes(await _read(read, name), name):
            yield piece
    else:
        found = aiter(source)
        closing_it = aclosing(found) if isinstance(found, AsyncGenerator) else nullcontext()
        with refusals(f"{name} cannot be read"):
            async with closing_it:  # not when it happens to be collected: it may hold a connection
                async for piece in found:
                    yield _require_bytes(piece, name)


def _flat(buffer: BytesLike) -> memoryview:
    """Return the bytes of *buffer* in a row: without a copy, if they are so already."""
    view = memoryview(buffer)
    try:
        return view.cast("B")
    except TypeError:  # there are gaps in it, or its items are of a kind that others know
        return memoryview(view.tobytes())


async def _read(read: Callable[[int], Any], name: str) -> object:
    try:
        if inspect.iscoroutinefunction(read):
            return await read(CHUNK)
        return await run_sync(read, CHUNK)
    except UnicodeDecodeError as exc:
        raise TransferError(f"{name} is read as text: open it in binary mode") from exc
    except (OSError, TypeError, ValueError) as exc:  # the latter two: not made for it, or closed
        raise TransferError(f"{name} cannot be read: {exc}") from exc


def _require_bytes(piece: object, name: str) -> BytesLike:
    if isinstance(piece, str):
        raise TransferError(f"{name} is read as text: open it in binary mode")
    if not isinstance(piece, BytesLike):
        raise TransferError(f"{name} gives {type(piece).__name__} where bytes are needed")
    return piece
