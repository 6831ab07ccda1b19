"""What can be uploaded, made ready: its size and checksum known, its bytes read in chunks.

Bytes stay in memory, a path is opened, and of anything else a temporary copy is made: the size
must be known before the first byte is sent.

Files are read in a worker thread, from the one descriptor that was opened first, so that a file
replaced meanwhile is no trouble, and one that grows or shrinks is noticed.
"""

from __future__ import annotations

import hashlib
import inspect
import io
import os
import stat
import tempfile
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterator
from contextlib import ExitStack, aclosing, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, BinaryIO, Protocol, TypeAlias, cast

import anyio
from anyio.to_thread import run_sync

from aioftrackjobs.errors import FileChangedError, TransferError
from aioftrackjobs.protocol.upload import content_md5

#: Bytes that are read from a file, and given to the HTTP client, at once.
CHUNK = 1024 * 1024

#: Chunks that are hashed before looking whether the upload was cancelled.
_HASHED_AT_ONCE = 64


class Readable(Protocol):
    """A binary file object."""

    def read(self, size: int = -1, /) -> bytes:
        """Return up to *size* bytes; none at the end."""
        ...


class AsyncReadable(Protocol):
    """A binary file object that is awaited, as those of anyio and Starlette are."""

    async def read(self, size: int = -1, /) -> bytes:
        """Return up to *size* bytes; none at the end."""
        ...


BytesLike: TypeAlias = bytes | bytearray | memoryview
Uploadable: TypeAlias = (
    str | os.PathLike[str] | BytesLike | Readable | AsyncReadable | AsyncIterable[bytes]
)


@dataclass(frozen=True, slots=True)
class Content:
    """Bytes to upload.

    Attributes:
        name: What the file is called, without its extension.
        file_type: Its extension, with the leading dot; empty if it has none.
        size: In bytes.
        checksum: Content-MD5, in base64.
    """

    name: str
    file_type: str
    size: int
    checksum: str
    _file: BinaryIO

    async def chunks(self) -> AsyncIterator[bytes]:
        """Iterate over exactly `size` bytes.

        Raises:
            FileChangedError: The file has grown or shrunk since it was opened.
            TransferError: It cannot be read.
        """
        name = f"{self.name}{self.file_type}"
        with _refusals(f"{name} cannot be read"):
            await run_sync(self._file.seek, 0)
            left = self.size
            while left:
                chunk = await run_sync(self._file.read, min(CHUNK, left))
                if not chunk:
                    raise FileChangedError(f"{name} shrank while it was uploaded")
                left -= len(chunk)
                yield chunk
            if await run_sync(self._file.read, 1):
                raise FileChangedError(f"{name} grew while it was uploaded")


@asynccontextmanager
async def open_content(source: Uploadable, name: str | None = None) -> AsyncIterator[Content]:
    """Open *source*, and find out its size and checksum.

    Args:
        source: A path, or bytes, a binary file object, awaited or not, or an async iterator of
            bytes.
        name: File name, with extension; needed where the source is no path.

    Raises:
        TransferError: It is none of these, there is no such file, it cannot be read, or there
            is no room for its temporary copy.
    """
    _require_uploadable(source)
    if isinstance(source, (str, os.PathLike)):
        path = Path(os.fsdecode(source))
        name = name or path.name
        file = await _open_in_thread(lambda: _open_file(path))
    elif not name:
        raise TransferError("what is no path needs a name to be uploaded under")
    elif isinstance(source, BytesLike):
        file = io.BytesIO(bytes(source))
    else:
        file = await _spool(source, name)
    try:
        size, checksum = await _measure(file, name)
        pure = PurePath(name)
        yield Content(pure.stem, pure.suffix, size, checksum, file)
    finally:
        with anyio.CancelScope(shield=True):
            await run_sync(file.close)


def _require_uploadable(source: object) -> None:
    kinds = (str, os.PathLike, BytesLike, AsyncIterable)
    if not isinstance(source, kinds) and not callable(getattr(source, "read", None)):
        raise TransferError(
            f"a {type(source).__name__} cannot be uploaded, but a path, bytes, a binary file "
            "object or an async iterator of bytes"
        )


@contextmanager
def _refusals(what: str) -> Iterator[None]:
    """Say *what* failed where the operating system refuses."""
    try:
        yield
    except OSError as exc:
        raise TransferError(f"{what}: {exc.strerror or exc}") from exc


async def _open_in_thread(open_file: Callable[[], BinaryIO]) -> BinaryIO:
    """Open a file in a worker thread; close it if nobody waits for it any more.

    A task that asyncio itself cancels, not a cancel scope, does not wait for the thread.
    """
    opened: list[BinaryIO] = []
    waiting = True

    def run() -> BinaryIO:
        file = open_file()
        opened.append(file)
        if not waiting:
            file.close()
        return file

    try:
        return await run_sync(run)
    except BaseException:
        waiting = False  # before looking, as the thread looks after it has opened
        for file in opened:
            file.close()
        raise


def _open_file(path: Path) -> BinaryIO:
    with _refusals(f"{path} cannot be read"):
        try:
            # Not blocking: a named pipe would wait for a writer for ever.
            descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        except ValueError as exc:  # no system takes such a name
            raise TransferError(f"{str(path)!r} is no path: {exc}") from exc
        with ExitStack() as refused:
            refused.callback(os.close, descriptor)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise TransferError(f"{path} is no regular file")
            file = os.fdopen(descriptor, "rb", buffering=0)
            refused.pop_all()
        return file


async def _spool(source: Any, name: str) -> BinaryIO:
    """Return a temporary file that holds all that *source* gives."""
    with _refusals(f"no temporary copy of {name} can be made"):
        file = await _open_in_thread(cast("Callable[[], BinaryIO]", tempfile.TemporaryFile))
        try:
            async with aclosing(_pieces(source, name)) as pieces:
                async for piece in pieces:
                    await run_sync(file.write, piece)
            await run_sync(file.flush)
        except BaseException:
            with suppress(OSError):  # what is still buffered may find no room either
                file.close()
            raise
        return file


async def _pieces(source: Any, name: str) -> AsyncGenerator[BytesLike, None]:
    """Iterate over what a file object or an async iterator gives."""
    read = getattr(source, "read", None)
    if callable(read):
        while piece := _require_bytes(await _read(read, name), name):
            yield piece
    else:
        with _refusals(f"{name} cannot be read"):
            async for piece in source:
                yield _require_bytes(piece, name)


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


async def _measure(file: BinaryIO, name: str) -> tuple[int, str]:
    """Return the size in bytes, and the Content-MD5, of all that is in *file*."""
    digest = hashlib.md5(usedforsecurity=False)
    buffer = bytearray(CHUNK)

    def hash_some() -> int:
        done = 0
        for _ in range(_HASHED_AT_ONCE):
            count = file.readinto(buffer)  # type: ignore[attr-defined]
            if not count:
                return done
            digest.update(memoryview(buffer)[:count])
            done += count
        return done

    size = 0
    with _refusals(f"{name} cannot be read"):
        await run_sync(file.seek, 0)
        while count := await run_sync(hash_some):
            size += count
    return size, content_md5(digest.digest())
