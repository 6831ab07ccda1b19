"""What can be uploaded, made ready: its size known, its bytes read in chunks, from anywhere.

Bytes stay in memory; a path is opened; a file object that is a plain file, or has its bytes in
memory, is read where it is. Of anything else a copy is made first, in memory while it is small,
then in a temporary file: the size must be known before the first byte is sent, a part whose
connection breaks is read again, and a buffer may be written to meanwhile. So it is with
directories and sequences of files, which become a zip archive.

Files are read in worker threads, from the one descriptor that was opened first, so that a file
replaced meanwhile is no trouble, and one that changes is noticed.
"""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
import threading
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, BinaryIO, Protocol, TypeAlias, cast

import anyio
from anyio.to_thread import run_sync

from aioftrackjobs.errors import FileChangedError, TransferError
from aioftrackjobs.protocol.upload import content_md5
from aioftrackjobs.transfers.archive import (
    common_name,
    members_of_directory,
    members_of_files,
    open_regular,
)
from aioftrackjobs.transfers.spool import CHUNK, BytesLike, open_in_thread, pack, refusals, spool

#: Bytes that are hashed before looking whether the upload was cancelled.
_HASHED_AT_ONCE = 64 * 1024 * 1024


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


class Digest(Protocol):
    """A digest in the making, as those of hashlib are."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Take in more bytes."""
        ...


AnyPath: TypeAlias = str | os.PathLike[str]
Uploadable: TypeAlias = (
    AnyPath
    | Sequence[AnyPath]
    | Iterator[AnyPath]
    | BytesLike
    | Readable
    | AsyncReadable
    | AsyncIterable[bytes]
)


@dataclass(frozen=True, slots=True)
class Content:
    """Bytes to upload.

    Attributes:
        name: What the file is called, without its extension.
        file_type: Its extension, with the leading dot; empty if it has none.
        size: In bytes.
        start: Where the bytes begin in the file that they are read from.
    """

    name: str
    file_type: str
    size: int
    start: int
    _file: BinaryIO
    _modified: int | None
    _lock: threading.Lock

    @property
    def file_name(self) -> str:
        """Name and extension."""
        return f"{self.name}{self.file_type}"

    async def checksum(self) -> str:
        """Return the Content-MD5, in base64, of all of it.

        Raises:
            TransferError: It cannot be read.
        """
        digest = hashlib.md5(usedforsecurity=False)

        def hash_some(start: int, stop: int) -> None:
            for offset in range(start, stop, CHUNK):
                self._read(offset, min(CHUNK, stop - offset), digest)

        with refusals(f"{self.file_name} cannot be read"):
            for start in range(0, self.size, _HASHED_AT_ONCE):
                await run_sync(hash_some, start, min(start + _HASHED_AT_ONCE, self.size))
        return content_md5(digest.digest())

    async def chunks(
        self, start: int = 0, stop: int | None = None, digest: Digest | None = None
    ) -> AsyncGenerator[bytes, None]:
        """Iterate over the bytes from *start* to *stop*.

        Args:
            start: The first byte.
            stop: The byte after the last one; all there are if not given.
            digest: Takes them in too, in the thread that reads them.

        Raises:
            FileChangedError: The file has shrunk since it was opened.
            TransferError: It cannot be read.
        """
        end = self.size if stop is None else stop
        with refusals(f"{self.file_name} cannot be read"):
            while start < end:
                chunk = await run_sync(self._read, start, min(CHUNK, end - start), digest)
                if not chunk:
                    raise FileChangedError(f"{self.file_name} shrank while it was uploaded")
                start += len(chunk)
                yield chunk

    def read_into(self, offset: int, buffer: memoryview, digest: Digest | None) -> int:
        """Read bytes from *offset* on; blocks.

        Returns:
            How many; at least one.

        Raises:
            FileChangedError: The file has shrunk since it was opened.
            TransferError: It cannot be read.
        """
        with refusals(f"{self.file_name} cannot be read"):
            with self._lock:
                self._file.seek(self.start + offset)
                count: int = cast("io.RawIOBase", self._file).readinto(buffer) or 0
            if not count:
                raise FileChangedError(f"{self.file_name} shrank while it was uploaded")
            if digest is not None:
                digest.update(buffer[:count])
            return count

    async def require_unchanged(self) -> None:
        """Raise FileChangedError if the file has grown or was written to since it was opened."""
        with refusals(f"{self.file_name} cannot be read"):
            if await run_sync(self._read, self.size, 1, None):
                raise FileChangedError(f"{self.file_name} grew while it was uploaded")
            if await run_sync(_modified, self._file) != self._modified:
                raise FileChangedError(f"{self.file_name} was written to while it was uploaded")

    def _read(self, offset: int, size: int, digest: Digest | None) -> bytes:
        with self._lock:  # parts are read at the same time, by one file position
            self._file.seek(self.start + offset)
            chunk = self._file.read(size)
        if digest is not None:
            digest.update(chunk)
        return chunk


@asynccontextmanager
async def open_content(source: Uploadable, name: str | None = None) -> AsyncIterator[Content]:
    """Open *source*, and find out its size.

    Args:
        source: A path, or a sequence of paths, or bytes, a binary file object, awaited or not,
            or an async iterator of bytes. A directory, or several files, become a zip archive.
        name: File name, with extension; needed where the source has no path.

    Raises:
        TransferError: It is none of these, there is no such file, it cannot be read, or there
            is no room for its temporary copy.
    """
    _require_uploadable(source)
    file, name = await _open(source, name)
    try:
        with refusals(f"{name} cannot be read"):
            start, size, modified = await run_sync(_measure, file)
        pure = PurePath(name)
        yield Content(pure.stem, pure.suffix, size, start, file, modified, threading.Lock())
    finally:
        if file is not source:
            with anyio.CancelScope(shield=True):
                await run_sync(file.close)


async def _open(source: Uploadable, name: str | None) -> tuple[BinaryIO, str]:
    """Return what to read, and what it is called."""
    if isinstance(source, (str, os.PathLike)):
        path = Path(os.fsdecode(source))
        if await run_sync(_is_directory, path):
            name = _archive_name(name, await run_sync(lambda: path.resolve().name))
            return await pack(lambda: members_of_directory(path), name), name
        return await open_in_thread(lambda _: open_regular(path)), name or path.name
    if _is_paths(source):
        paths = await run_sync(_paths, source)
        name = _archive_name(name, await run_sync(common_name, paths))
        return await pack(lambda: members_of_files(paths), name), name
    if not name:
        raise TransferError("what is no path needs a name to be uploaded under")
    if isinstance(source, bytes):
        return io.BytesIO(source), name
    if _is_plain_file(source):
        return cast("BinaryIO", source), name
    return await spool(source, name), name


def _require_uploadable(source: object) -> None:
    kinds = (str, os.PathLike, BytesLike, AsyncIterable)
    if (
        not isinstance(source, kinds)
        and not callable(getattr(source, "read", None))
        and not _is_paths(source)
    ):
        raise TransferError(
            f"a {type(source).__name__} cannot be uploaded, but a path, a sequence of paths, "
            "bytes, a binary file object or an async iterator of bytes"
        )


def _is_paths(source: object) -> bool:
    """Return whether *source* is a sequence or iterator, of paths as far as one can tell."""
    if isinstance(source, (str, BytesLike)) or callable(getattr(source, "read", None)):
        return False
    return isinstance(source, (Sequence, Iterator))


def _paths(source: Any) -> list[Path]:
    paths = []
    for each in source:
        if not isinstance(each, (str, os.PathLike)):
            raise TransferError(f"a sequence to upload has paths, not {type(each).__name__}")
        paths.append(Path(os.fsdecode(each)))
    if not paths:
        raise TransferError("there are no files in the sequence to upload")
    return paths


def _is_directory(path: Path) -> bool:
    try:
        return path.is_dir()
    except ValueError:  # no system takes such a name, which opening it will say
        return False


def _archive_name(given: str | None, found: str) -> str:
    name = given or found or "files"
    return name if name.lower().endswith(".zip") else f"{name}.zip"


def _is_plain_file(source: object) -> bool:
    """Return whether *source* can be read here and there at no cost, unlike a compressed file."""
    raw = source.raw if isinstance(source, (io.BufferedReader, io.BufferedRandom)) else source
    if type(raw) is io.BytesIO or type(raw) is io.FileIO:
        return not raw.closed and raw.seekable() and raw.readable()
    return False


def _measure(file: BinaryIO) -> tuple[int, int, int | None]:
    """Return where the content begins, its size, and when it was modified.

    A file object begins where it stands, and stands at its end afterwards.
    """
    start = file.tell()
    return start, max(file.seek(0, os.SEEK_END) - start, 0), _modified(file)


def _modified(file: BinaryIO) -> int | None:
    """Return when a file on disk was modified, in nanoseconds; None for bytes in memory."""
    return None if _may_be_in_memory(file) else os.fstat(file.fileno()).st_mtime_ns


def _may_be_in_memory(file: BinaryIO) -> bool:
    return isinstance(file, (io.BytesIO, tempfile.SpooledTemporaryFile))
