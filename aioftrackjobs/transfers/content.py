"""Opens a source of an upload, so that its size is known and its bytes can be read repeatedly.

- A path is opened once: the upload does not notice if another file replaces the path, and fails if
  the file itself changes.
- ``bytes``, a ``BytesIO`` and a file object that is a plain file are read in place.
- A directory or a sequence of paths becomes a zip archive (:mod:`.archive`).
- Anything else is copied first (:mod:`.spool`): its size must be known before the first byte is
  sent, a part is read again if its connection breaks, and a buffer may change meanwhile.

Files are read in worker threads.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tempfile
import threading
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterator,
    Sequence,
)
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, BinaryIO, Protocol, TypeAlias, TypeVar, cast

import anyio
from anyio.to_thread import run_sync

from aioftrackjobs.errors import FileChangedError, TransferError
from aioftrackjobs.protocol.upload import content_md5
from aioftrackjobs.transfers.archive import (
    common_name,
    members_of_directory,
    members_of_files,
    open_regular,
    transfer_errors,
)
from aioftrackjobs.transfers.spool import (
    CHUNK,
    BytesLike,
    call_in_thread,
    open_in_thread,
    pack,
    spool,
)

T = TypeVar("T", bytes, memoryview)

#: Bytes that are hashed between two checks for a cancellation.
_HASHED_AT_ONCE = 64 * 1024 * 1024


class Readable(Protocol):
    """A binary file object; its ``read`` may be async, as those of anyio and Starlette are."""

    def read(self, size: int = -1, /) -> bytes | Awaitable[bytes]:
        """Return up to *size* bytes; none at the end."""
        ...


#: Bytes up to which a file that occupies no disk may be made by the system when it is read.
_PAGES = 1024 * 1024

#: Characters of a text that may be a path.
_LONGEST_PATH = 1024
_TEXT = "a text is the path of a file, and there is none; to upload a text, write text.encode()"

#: The ``update`` of a hashlib object: it hashes more bytes.
HashUpdate: TypeAlias = Callable[[bytes | memoryview], object]

AnyPath: TypeAlias = str | os.PathLike[str]
Uploadable: TypeAlias = (
    AnyPath | Sequence[AnyPath] | Iterator[AnyPath] | BytesLike | Readable | AsyncIterable[bytes]
)


@dataclass(frozen=True, slots=True)
class Content:
    """Bytes to upload.

    Every method raises TransferError if the file cannot be read.

    Attributes:
        name: File name without its extension.
        file_type: Extension with the leading dot; empty if there is none.
        size: In bytes.
    """

    name: str
    file_type: str
    size: int
    _start: int  # position of the first byte in the file
    _file: BinaryIO
    _modified: int | None
    _lock: threading.Lock  # several parts are read at the same time, through one file position

    @property
    def file_name(self) -> str:
        """Name and extension."""
        return f"{self.name}{self.file_type}"

    async def checksum(self) -> str:
        """Return the Content-MD5 of all bytes, in base64.

        Raises:
            FileChangedError: The file has shrunk since it was opened.
        """
        md5 = hashlib.md5(usedforsecurity=False)
        buffer = memoryview(bytearray(min(CHUNK, self.size)))

        def hash_range(start: int, stop: int) -> None:
            while start < stop:
                start += self.read_into(start, buffer[: stop - start], md5.update)

        for start in range(0, self.size, _HASHED_AT_ONCE):
            await run_sync(hash_range, start, min(start + _HASHED_AT_ONCE, self.size))
        return content_md5(md5.digest())

    async def chunks(
        self, start: int = 0, stop: int | None = None, update: HashUpdate | None = None
    ) -> AsyncGenerator[bytes, None]:
        """Iterate over the bytes from *start* to *stop*.

        Args:
            start: Offset of the first byte.
            stop: Offset behind the last byte; the size if not given.
            update: Called with each chunk in the worker thread that has read it.

        Raises:
            FileChangedError: The file has shrunk since it was opened.
        """

        def read(size: int) -> bytes:
            with self._at(start) as file:
                chunk = file.read(size)
            return self._hashed(chunk, update)

        end = self.size if stop is None else stop
        while start < end:
            chunk = await run_sync(read, min(CHUNK, end - start))
            start += len(chunk)
            yield chunk

    def read_into(self, offset: int, buffer: memoryview, update: HashUpdate | None) -> int:
        """Read bytes from *offset* on; return how many, at least one. Blocks.

        Raises:
            FileChangedError: The file has shrunk since it was opened.
        """
        with self._at(offset) as file:
            count = cast("io.RawIOBase", file).readinto(buffer) or 0
        return len(self._hashed(buffer[:count], update))

    async def require_unchanged(self) -> None:
        """Raise FileChangedError if the file was written to since it was opened."""
        with transfer_errors(f"{self.file_name} cannot be read"):
            end, modified = await run_sync(_end_and_time, self._file)
        if end != self._start + self.size:
            how = "grew" if end > self._start + self.size else "shrank"
            raise FileChangedError(f"{self.file_name} {how} while it was uploaded")
        if modified != self._modified:
            raise FileChangedError(f"{self.file_name} was written to while it was uploaded")

    @contextmanager
    def _at(self, offset: int) -> Iterator[BinaryIO]:
        with transfer_errors(f"{self.file_name} cannot be read"), self._lock:
            self._file.seek(self._start + offset)
            yield self._file

    def _hashed(self, data: T, update: HashUpdate | None) -> T:
        if not data:
            raise FileChangedError(f"{self.file_name} shrank while it was uploaded")
        if update is not None:
            update(data)
        return data


@asynccontextmanager
async def open_content(source: Uploadable, name: str | None = None) -> AsyncIterator[Content]:
    """Open *source*, and measure its size.

    Args:
        source: A path, a sequence of paths, bytes, a binary file object (its ``read`` may be
            async) or an async iterator of bytes. A directory, or several files, become a zip
            archive.
        name: File name with extension; needed if the source has no path.

    Raises:
        TransferError: *source* is none of these, does not exist or cannot be read, or there is no
            space for a temporary copy.
    """
    file, name = await _open(source, name)
    try:
        if PurePath(name).name in ("", "..") or "\0" in name:
            raise TransferError(f"{name!r} is no file name; name the file, as in 'plate.exr'")
        with transfer_errors(f"{name} cannot be read"):
            start = await run_sync(file.tell)
            end, modified = await run_sync(_end_and_time, file)
        stem, suffix, size = PurePath(name).stem, PurePath(name).suffix, max(end - start, 0)
        yield Content(stem, suffix, size, start, file, modified, threading.Lock())
    finally:
        if file is not source:
            with anyio.CancelScope(shield=True):
                await run_sync(file.close)


async def _open(source: Uploadable, name: str | None) -> tuple[BinaryIO, str]:
    """Return the file to read, and its name."""
    if isinstance(source, (str, os.PathLike)):
        path = Path(os.fsdecode(source))
        if await run_sync(_is_directory, path):
            name = _archive_name(name, await run_sync(lambda: path.resolve().name))
            return await pack(lambda: members_of_directory(path), name), name
        try:
            file = await open_in_thread(lambda _: open_regular(path))
        except TransferError:
            if isinstance(source, str) and ("\n" in source or len(source) > _LONGEST_PATH):
                raise TransferError(_TEXT) from None
            raise
        name = name or path.name
        is_ready = False
        try:
            with transfer_errors(f"{name} cannot be read"):
                is_ready = await run_sync(_has_size, file)
            return file if is_ready else await spool(file, name), name
        finally:
            if not is_ready:
                file.close()
    is_bytes = isinstance(source, (BytesLike, AsyncIterable))
    if is_bytes or callable(getattr(source, "read", None)):
        if not name:
            raise TransferError("a source without a path needs a file name, as name='report.pdf'")
        if isinstance(source, bytes):
            return io.BytesIO(source), name
        if await run_sync(_is_plain_file, source):
            return cast("BinaryIO", source), name
        return await spool(source, name), name
    if isinstance(source, (Sequence, Iterator)):
        paths = await call_in_thread(lambda: _paths(source))
        name = _archive_name(name, await run_sync(common_name, paths))
        return await pack(lambda: members_of_files(paths), name), name
    raise TransferError(
        f"a {type(source).__name__} cannot be uploaded, but a path, a sequence of paths, "
        "bytes, a binary file object or an async iterator of bytes"
    )


def _paths(source: Any) -> list[Path]:
    paths = []
    for each in source:
        if not isinstance(each, (str, os.PathLike)):
            raise TransferError(f"a sequence to upload contains paths, not {type(each).__name__}")
        try:
            os.fsencode(each)
        except UnicodeEncodeError as exc:
            raise TransferError(f"{each!r} is not a path: {exc}") from None
        paths.append(Path(os.fsdecode(each)))
    if not paths:
        raise TransferError("the sequence to upload is empty")
    return paths


def _is_directory(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # the system accepts no such name; opening it raises an error
        return False


def _archive_name(given: str | None, default: str) -> str:
    name = given or default or "files"
    return name if name.lower().endswith(".zip") else f"{name}.zip"


def _is_plain_file(source: object) -> bool:
    """Return whether *source* can be read at any position at no cost, unlike a compressed file."""
    raw: Any = source.raw if isinstance(source, (io.BufferedReader, io.BufferedRandom)) else source
    if type(raw) not in (io.BytesIO, io.FileIO) or raw.closed or not raw.readable():
        return False
    return type(raw) is io.BytesIO or (raw.seekable() and _has_size(raw))


def _has_size(file: io.FileIO | BinaryIO) -> bool:
    """Return whether *file* is on a disk, so that its size is that of its content.

    Devices have none; files of the system, as in ``/proc`` and ``/sys``, have 0 or a whole page.
    """
    found = os.fstat(file.fileno())
    is_made = not getattr(found, "st_blocks", 1) and found.st_size <= _PAGES
    return stat.S_ISREG(found.st_mode) and found.st_size > 0 and not is_made


def _end_and_time(file: BinaryIO) -> tuple[int, int | None]:
    """Return where *file* ends, and its time of modification in ns; None if it is in memory."""
    end = file.seek(0, os.SEEK_END)
    if isinstance(file, (io.BytesIO, tempfile.SpooledTemporaryFile)):
        return end, None
    return end, os.fstat(file.fileno()).st_mtime_ns
