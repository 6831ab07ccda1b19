"""Sources of uploads: bytes, paths, file objects and iterators, and how they fail."""

from __future__ import annotations

import asyncio
import errno
import io
import os
import tempfile
import threading
import tracemalloc
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, BinaryIO

import anyio
import pytest
from starlette.datastructures import UploadFile

from aioftrackjobs.errors import FileChangedError, TransferError
from aioftrackjobs.transfers import content as content_module
from aioftrackjobs.transfers import spool as spool_module
from aioftrackjobs.transfers.archive import open_regular
from aioftrackjobs.transfers.content import open_content

BODY = b"some bytes " * 1000


async def read(source: Any, name: str | None = "a.txt") -> bytes:
    async with open_content(source, name) as content:
        body = b"".join([chunk async for chunk in content.chunks()])
        await content.require_unchanged()
        assert len(body) == content.size
    return body


class Reader:
    """A file object whose reads return, or raise, the given results one after the other."""

    def __init__(self, *results: object) -> None:
        self.results = list(results)

    def read(self, size: int = -1, /) -> Any:
        result = self.results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result


class AsyncReader(Reader):
    async def read(self, size: int = -1, /) -> Any:
        return super().read(size)


async def iterate(*pieces: Any) -> AsyncIterator[Any]:
    for piece in pieces:
        if isinstance(piece, Exception):
            raise piece
        yield piece


# What is accepted


@pytest.mark.parametrize(
    "source",
    [
        pytest.param(BODY, id="bytes"),
        pytest.param(bytearray(BODY), id="bytearray"),
        pytest.param(memoryview(BODY), id="memoryview"),
        pytest.param(memoryview(BODY + BODY)[::2], id="memoryview with gaps"),
        pytest.param(memoryview(b""), id="empty"),
        pytest.param(memoryview(BODY).cast("B", (10, 1100)), id="memoryview of rows"),
    ],
)
async def test_bytes_stay_in_memory(source: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(tempfile, "TemporaryFile")

    assert await read(source) == bytes(source)


@pytest.mark.parametrize("kind", [bytearray, memoryview])
async def test_big_buffers_are_not_copied_in_memory(kind: Callable[[bytes], Any]) -> None:
    size = 8 * spool_module._IN_MEMORY
    source = kind(bytes(size))
    tracemalloc.start()
    try:
        async with open_content(source, "a.bin") as content:
            assert sum([len(chunk) async for chunk in content.chunks()]) == size
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < size / 2


async def test_a_buffer_is_copied_before_it_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "_IN_MEMORY", 1)
    source = bytearray(BODY)

    async with open_content(source, "a.txt") as content:
        source.clear()
        assert b"".join([chunk async for chunk in content.chunks()]) == BODY


@pytest.mark.parametrize(
    "pieces", [(BODY,), (b"some", bytearray(b" by"), memoryview(b"tes"))], ids=["one", "several"]
)
async def test_file_objects_and_iterators_are_read_to_their_end(pieces: tuple[Any, ...]) -> None:
    body = b"".join(pieces)

    assert await read(Reader(*pieces, b"")) == body
    assert await read(AsyncReader(*pieces, b"")) == body
    assert await read(iterate(*pieces)) == body


async def test_the_files_of_other_libraries_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(BODY)

    assert await read(io.BytesIO(BODY)) == BODY
    assert await read(UploadFile(io.BytesIO(BODY))) == BODY
    async with await anyio.open_file(path, "rb") as file:
        assert await read(file) == BODY


async def test_a_path_may_be_given_as_bytes_by_its_object(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(BODY)

    class Odd:
        def __fspath__(self) -> bytes:
            return os.fsencode(path)

    async with open_content(Odd()) as content:  # type: ignore[arg-type]
        assert (content.name, content.file_type, content.size) == ("a", ".bin", len(BODY))


# What is refused


@pytest.mark.parametrize(
    "source", [None, 5, object(), {"read": 1}], ids=lambda source: type(source).__name__
)
async def test_other_sources_are_rejected_with_a_list_of_the_accepted(source: Any) -> None:
    with pytest.raises(TransferError, match="a path, a sequence of paths, bytes, a binary file"):
        await read(source, None)


@pytest.mark.parametrize("source", [b"x", Reader(b""), iterate()])
async def test_a_source_without_a_path_needs_a_name(source: Any) -> None:
    with pytest.raises(TransferError, match="needs a file name"):
        await read(source, None)


@pytest.mark.parametrize(
    "source",
    [
        pytest.param(io.StringIO("text"), id="text in memory"),
        pytest.param(io.StringIO(""), id="empty text"),
        pytest.param(io.TextIOWrapper(io.BytesIO(b"\xff\xfe\x00"), "utf-8"), id="no text at all"),
        pytest.param(AsyncReader("text"), id="awaited"),
        pytest.param(iterate(b"a", "text"), id="iterator"),
    ],
)
async def test_text_is_rejected_and_the_error_names_binary_mode(source: Any) -> None:
    with pytest.raises(TransferError, match=r"a\.txt is read as text: open it in binary mode"):
        await read(source)


@pytest.mark.parametrize("source", [Reader(None), AsyncReader(5), iterate(b"a", [1])])
async def test_a_source_that_gives_no_bytes_is_rejected(source: Any) -> None:
    with pytest.raises(TransferError, match="where bytes are needed"):
        await read(source)


def closed() -> BinaryIO:
    file = io.BytesIO(BODY)
    file.close()
    return file


class WholeOnly:
    def read(self) -> bytes:
        return BODY


EIO = OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        pytest.param(Reader(b"x", EIO), "Input/output error", id="file object"),
        pytest.param(AsyncReader(b"x", EIO), "Input/output error", id="awaited"),
        pytest.param(iterate(b"x", EIO), "Input/output error", id="iterator"),
        pytest.param(closed(), "closed file", id="closed"),
        pytest.param(WholeOnly(), "positional argument", id="takes no size"),
    ],
)
async def test_what_cannot_be_read_says_why(source: Any, reason: str) -> None:
    with pytest.raises(TransferError, match=rf"a\.txt cannot be read: .*{reason}"):
        await read(source)


async def test_errors_of_a_users_own_iterator_are_left_alone() -> None:
    with pytest.raises(ZeroDivisionError):
        await read(iterate(b"x", ZeroDivisionError()))


async def test_an_iterator_that_is_not_read_to_its_end_is_closed() -> None:
    ended: list[bool] = []

    async def pieces() -> AsyncIterator[Any]:
        try:
            yield b"some"
            yield "text"
        finally:
            ended.append(True)

    source = pieces()  # referenced, so that garbage collection does not close it
    with pytest.raises(TransferError, match="read as text"):
        await read(source)

    assert ended == [True]


@pytest.mark.parametrize(
    ("path", "reason"),
    [("missing.bin", "No such file"), ("a\0b", "not a path")],
)
async def test_an_unreadable_path_raises_the_reason(tmp_path: Path, path: str, reason: str) -> None:
    with pytest.raises(TransferError, match=reason):
        await read(f"{tmp_path}/{path}", None)


@pytest.mark.parametrize("text", ["x" * 5000, "done:\n3 files"], ids=["long", "lines"])
async def test_a_text_that_is_no_path_is_an_error_without_the_text(text: str) -> None:
    with pytest.raises(TransferError, match=r"write text.encode\(\)") as caught:
        async with open_content(text, "report.txt"):
            pass

    assert text not in str(caught.value)


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b"], ids=["long", "null"])
async def test_impossible_names_in_a_sequence_are_errors(tmp_path: Path, name: str) -> None:
    with pytest.raises(TransferError, match="cannot be read"):
        async with open_content([tmp_path / name]):
            pass


# Where the temporary copy fails


async def test_a_missing_temporary_directory_raises(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    monkeypatch.setattr(spool_module, "_IN_MEMORY", 1)

    with pytest.raises(TransferError, match=r"no temporary copy of a\.txt can be made"):
        await read(Reader(b"xx", b""))


class FullDisk(io.BytesIO):
    """A file on a full disk: writing fails, or flushing the buffer does."""

    def __init__(self, refusing: str) -> None:
        super().__init__()
        self.refusing = refusing

    def refuse(self, call: str) -> None:
        if self.refusing == call:
            raise OSError(errno.ENOSPC, "No space left on device")

    def write(self, data: Any, /) -> int:
        self.refuse("write")
        return super().write(data)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        self.refuse("flush")  # seeking flushes the buffer
        return super().seek(offset, whence)

    def close(self) -> None:
        super().close()
        self.refuse("flush")


@pytest.mark.parametrize("call", ["write", "flush"])
async def test_a_full_disk_raises(monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    disk = FullDisk(call)
    monkeypatch.setattr(spool_module, "_new_copy", lambda: disk)

    with pytest.raises(TransferError, match=r"no temporary copy of a\.txt .*: No space left"):
        await read(Reader(b"x", b""))

    assert disk.closed


# A file that fails once it is open


class Failing:
    """A file whose *call* fails."""

    def __init__(self, file: BinaryIO, call: str) -> None:
        self.file = file
        self.call = call

    def __getattr__(self, name: str) -> Any:
        if name == self.call:
            raise EIO
        return getattr(self.file, name)


@pytest.mark.parametrize("call", ["seek", "read", "fileno"])
async def test_a_disk_that_fails_while_it_is_read_raises(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, call: str
) -> None:
    (tmp_path / "a.txt").write_bytes(BODY)
    monkeypatch.setattr(
        content_module, "open_regular", lambda path: Failing(open_regular(path), call)
    )

    with pytest.raises(TransferError, match=r"a\.txt cannot be read: Input/output error"):
        await read(tmp_path / "a.txt", None)


async def test_a_file_that_shrinks_raises(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(BODY)

    async with open_content(path) as content:
        path.write_bytes(b"x")
        with pytest.raises(FileChangedError, match=r"a\.txt shrank"):
            assert [chunk async for chunk in content.chunks()]


# Cancellation of an asyncio task, which does not wait for the thread


class Noticed(io.BytesIO):
    """A file that records that it was closed."""

    def __init__(self) -> None:
        super().__init__(BODY)
        self.was_closed = threading.Event()

    def close(self) -> None:
        super().close()
        self.was_closed.set()


async def test_a_file_that_opens_after_the_cancellation_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file, started, go_on = Noticed(), threading.Event(), threading.Event()

    def open_slowly(_: Path) -> BinaryIO:
        started.set()
        go_on.wait(5)
        return file

    monkeypatch.setattr(content_module, "open_regular", open_slowly)
    task = asyncio.create_task(read("a.txt"))
    await asyncio.to_thread(started.wait, 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not file.closed
    go_on.set()

    assert await asyncio.to_thread(file.was_closed.wait, 5)


async def test_a_file_that_opened_before_the_cancellation_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = Noticed()

    async def cancelled(call: Callable[[], object]) -> None:
        call()
        raise asyncio.CancelledError

    monkeypatch.setattr(content_module, "open_regular", lambda _: file)
    monkeypatch.setattr(spool_module, "call_in_thread", cancelled)
    with pytest.raises(asyncio.CancelledError):
        await read("a.txt")

    assert file.closed
