"""What can be uploaded, made ready: its size and checksum known, its bytes read in chunks.

Files are read in a worker thread, from the one descriptor that was opened first, so that a file
replaced meanwhile is no trouble, and one that grows or shrinks is noticed.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import BinaryIO, Protocol, TypeAlias, cast, runtime_checkable

import anyio
from anyio.to_thread import run_sync

from aioftrackjobs.errors import FileChangedError, TransferError
from aioftrackjobs.protocol.upload import content_md5

#: Bytes that are read from a file, and given to the HTTP client, at once.
CHUNK = 1024 * 1024

#: Chunks that are hashed before looking whether the upload was cancelled.
_HASHED_AT_ONCE = 64


@runtime_checkable
class Readable(Protocol):
    """A binary file object."""

    def read(self, size: int = -1, /) -> bytes:
        """Return up to *size* bytes; none at the end."""
        ...


Uploadable: TypeAlias = str | os.PathLike[str] | bytes | Readable | AsyncIterable[bytes]


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
        """
        await run_sync(self._file.seek, 0)
        left = self.size
        while left:
            chunk = await run_sync(self._file.read, min(CHUNK, left))
            if not chunk:
                raise FileChangedError(f"{self.name}{self.file_type} shrank while it was uploaded")
            left -= len(chunk)
            yield chunk
        if await run_sync(self._file.read, 1):
            raise FileChangedError(f"{self.name}{self.file_type} grew while it was uploaded")


@asynccontextmanager
async def open_content(source: Uploadable, name: str | None = None) -> AsyncIterator[Content]:
    """Open *source*, and find out its size and checksum.

    Args:
        source: A path, or bytes, a binary file object or an async iterator of bytes. Of the
            latter two a temporary file is made: their size must be known before they are sent.
        name: File name, with extension; needed where the source is no path.

    Raises:
        TransferError: There is no such file, it is no file, or it cannot be read.
    """
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        file = await run_sync(_open_file, path)
        name = name or path.name
    else:
        if not name:
            raise TransferError("what is no path needs a name to be uploaded under")
        file = await _spool(source)
    try:
        size, checksum = await _measure(file)
        pure = PurePath(name)
        yield Content(pure.stem, pure.suffix, size, checksum, file)
    finally:
        with anyio.CancelScope(shield=True):
            await run_sync(file.close)


def _open_file(path: Path) -> BinaryIO:
    try:
        # Not blocking: a named pipe would wait for a writer for ever.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError as exc:
        raise TransferError(f"{path} cannot be read: {exc.strerror}") from exc
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise TransferError(f"{path} is no regular file")
    return os.fdopen(descriptor, "rb", buffering=0)


async def _spool(source: bytes | Readable | AsyncIterable[bytes]) -> BinaryIO:
    file = cast("BinaryIO", await run_sync(tempfile.TemporaryFile))
    try:
        if isinstance(source, bytes):
            await run_sync(file.write, source)
        elif isinstance(source, AsyncIterable):
            async for chunk in source:
                await run_sync(file.write, chunk)
        else:
            while chunk := await run_sync(source.read, CHUNK):
                await run_sync(file.write, chunk)
    except BaseException:
        file.close()
        raise
    return file


async def _measure(file: BinaryIO) -> tuple[int, str]:
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

    await run_sync(file.seek, 0)
    size = 0
    while count := await run_sync(hash_some):
        size += count
    return size, content_md5(digest.digest())
