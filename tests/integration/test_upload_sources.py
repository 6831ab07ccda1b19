"""Sources of an upload that give nothing, never end, or change: a time limit ends the upload."""

from __future__ import annotations

import gzip
import io
import os
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest

from aioftrackjobs import AsyncSession, FileChangedError, TransferError, job_context
from aioftrackjobs.devserver import ServerHandle

from .waiting import until

#: Seconds of the time limit, and those after it in which the upload has ended.
LIMIT, SOON = 0.2, 2.0


class Silent:
    """A file object whose ``read`` waits for an event, as one of a device without data does."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self.is_read = threading.Event()

    def read(self, _: int = -1) -> bytes:
        self.is_read.set()
        self.released.wait(20)
        return b""


class Sources:
    """Streams that give no data until they are closed."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def pipe(self, buffering: int = -1, *, first: bytes = b"") -> Any:
        reading, writing = os.pipe()
        source = self._stack.enter_context(os.fdopen(reading, "rb", buffering=buffering))
        self._stack.callback(os.close, writing)  # first: a thread may wait in the other end
        os.write(writing, first)
        return source

    def __call__(self, kind: str, folder: Path) -> Any:  # noqa: C901 - a table
        match kind:
            case "pipe":
                return self.pipe()
            case "raw pipe":
                return self.pipe(0)
            case "pipe with some data":
                return self.pipe(first=b"some")
            case "pipe that was read from":
                source = self.pipe(first=b"one\ntwo\n")
                assert source.readline() == b"one\n"
                return source
            case "fifo":
                os.mkfifo(folder / "fifo")
                descriptor = os.open(folder / "fifo", os.O_RDWR)
                return self._stack.enter_context(os.fdopen(descriptor, "rb", buffering=0))
            case "socket":
                ours, theirs = socket.socketpair()
                self._stack.enter_context(theirs)
                self._stack.enter_context(ours)
                return ours.makefile("rb")
            case "process":
                command = [sys.executable, "-c", "import sys; sys.stdin.read()"]
                process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
                self._stack.enter_context(process)
                assert process.stdin is not None
                self._stack.callback(process.stdin.close)
                return process.stdout
            case "compressed pipe":
                return gzip.GzipFile(fileobj=self.pipe(first=gzip.compress(b"x")[:9]))
            case "object":
                source = Silent()
                self._stack.callback(source.released.set)
                return source
            case "async object":
                return AsyncSilent()
            case "async iterator":
                return silent_pieces()
            case "iterator of paths":
                return self.silent_paths()
            case "endless device":
                return self._stack.enter_context(open("/dev/zero", "rb"))  # noqa: PTH123
        raise AssertionError(kind)

    def silent_paths(self) -> Iterator[str]:
        released = threading.Event()
        self._stack.callback(released.set)

        def paths() -> Iterator[str]:
            released.wait(20)
            yield "x"

        return paths()


def temporary_files() -> set[str]:
    """Return the deleted files that this process has open."""
    found = set()
    for each in Path("/proc/self/fd").glob("*"):
        with suppress(OSError):
            found.add(str(each.readlink()))
    return {path for path in found if path.endswith("(deleted)")}


class AsyncSilent:
    async def read(self, _: int = -1) -> bytes:
        await anyio.sleep_forever()
        raise AssertionError


async def silent_pieces() -> AsyncIterator[bytes]:
    yield b"first"
    await anyio.sleep_forever()


@pytest.fixture
def sources() -> Iterator[Sources]:
    with ExitStack() as stack:
        yield Sources(stack)


KINDS = [
    "pipe",
    "raw pipe",
    "pipe with some data",
    "pipe that was read from",
    "fifo",
    "socket",
    "process",
    "compressed pipe",
    "object",
    "async object",
    "async iterator",
    "iterator of paths",
    "endless device",
]


@pytest.mark.every_loop
@pytest.mark.either_loop
@pytest.mark.parametrize("kind", KINDS)
async def test_a_time_limit_ends_an_upload_without_data(
    session: AsyncSession, sources: Sources, tmp_path: Path, kind: str
) -> None:
    source = sources(kind, tmp_path)
    before = temporary_files()
    upload: Callable[[], Any]

    async with job_context(session) as job:
        for upload in (
            lambda: session.create_component(source, name="x"),
            lambda: job.attach(source, name="x"),
        ):
            with anyio.fail_after(LIMIT + SOON), anyio.move_on_after(LIMIT) as scope:
                await upload()
            assert scope.cancelled_caught
            if kind not in ("async object", "pipe", "raw pipe", "fifo", "socket", "object"):
                break  # the first has begun to consume it

    assert await session.query("Component").all() == []
    await until(lambda: temporary_files() <= before)


@pytest.mark.every_loop
@pytest.mark.either_loop
@pytest.mark.parametrize(
    "kind", ["pipe", "raw pipe", "pipe that was read from", "socket", "slow object"]
)
async def test_a_stream_is_uploaded_to_its_end(
    session: AsyncSession, tmp_path: Path, kind: str
) -> None:
    """Its data arrives in pieces, and only after it is waited for."""
    expected = os.urandom(5_000_000)
    with ExitStack() as stack:
        if kind == "socket":
            ours, theirs = socket.socketpair()
            stack.enter_context(ours)
            source: Any = stack.enter_context(ours.makefile("rb"))
            target: Any = theirs.makefile("wb")
            theirs.close()
        else:
            reading, writing = os.pipe()
            buffering = 0 if kind == "raw pipe" else -1
            source = stack.enter_context(os.fdopen(reading, "rb", buffering=buffering))
            target = os.fdopen(writing, "wb")
        if kind == "slow object":
            source = Wrapped(source)
        if kind == "pipe that was read from":
            target.write(b"a line\nand ")
            target.flush()
            assert source.readline() == b"a line\n"
            expected = b"and " + expected
        rest = expected.removeprefix(b"and ") if kind == "pipe that was read from" else expected

        def feed() -> None:
            with closing(target):
                for start in range(0, len(rest), 1_000_000):
                    target.write(rest[start : start + 1_000_000])

        async with anyio.create_task_group() as group:
            group.start_soon(anyio.to_thread.run_sync, feed)
            component = await session.create_component(source, name="x")

    await session.download(component, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == expected


class Wrapped:
    """A file object that no file descriptor can be had of; its read may be awaited or not."""

    def __init__(self, source: Any) -> None:
        self._source = source

    def read(self, size: int = -1) -> bytes:
        return bytes(self._source.read(size))


class Awaited(Wrapped):
    """Its ``read`` is no coroutine function, but returns what is awaited."""

    def read(self, size: int = -1) -> Any:
        async def read() -> bytes:
            return super(Awaited, self).read(size)

        return read()


async def test_a_read_that_returns_an_awaitable_is_awaited(
    session: AsyncSession, tmp_path: Path
) -> None:
    component = await session.create_component(Awaited(io.BytesIO(b"text")), name="x")

    await session.download(component, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"text"


def test_a_program_ends_while_a_source_gives_nothing(server: ServerHandle) -> None:
    """The thread that still waits for it does not keep the program from ending."""
    program = """if True:
        import anyio, time
        from aioftrackjobs import AsyncSession

        class Silent:
            def read(self, size=-1):
                time.sleep(600)

        async def main():
            async with AsyncSession() as session:
                with anyio.move_on_after(0.1):
                    await session.create_component(Silent(), name="x")
            print("end")

        anyio.run(main)
        """
    environment = {
        **os.environ,
        "FTRACK_SERVER": server.url,
        "FTRACK_API_KEY": server.api_key,
        "FTRACK_API_USER": server.api_user,
    }
    run = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, timeout=50
    )

    assert run.stdout.decode().split() == ["end"], run.stderr.decode()


@pytest.mark.every_loop
async def test_a_file_of_the_system_whose_size_is_not_known_is_read(
    session: AsyncSession, tmp_path: Path
) -> None:
    path = Path("/proc/self/status")
    if not path.exists() or path.stat().st_size:
        pytest.skip("no such file here")

    with path.open("rb") as opened:  # noqa: ASYNC230
        components = [
            await session.create_component(path),
            await session.create_component(opened, name="x"),
        ]

    for component in components:
        await session.download(component, tmp_path / "x")
        assert (tmp_path / "x").read_bytes().startswith(b"Name:")
        assert component["size"] == (tmp_path / "x").stat().st_size


@pytest.mark.parametrize("change", ["grows", "shrinks", "is rewritten"])
@pytest.mark.parametrize("given", ["path", "file"])
async def test_a_file_that_changes_is_refused(
    session: AsyncSession, tmp_path: Path, given: str, change: str
) -> None:
    path = tmp_path / "f"
    path.write_bytes(bytes(3_000_000))

    def alter(*_: object) -> None:
        with path.open("r+b") as file:
            if change == "shrinks":
                file.truncate(10)
            else:
                file.seek(0, os.SEEK_END if change == "grows" else os.SEEK_SET)
                file.write(b"more")

    with path.open("rb") as opened, pytest.raises(FileChangedError):
        await session.create_component(
            path if given == "path" else opened, name="x", progress=alter
        )

    assert await session.query("Component").all() == []


async def test_a_file_that_is_replaced_is_uploaded_as_it_was(
    session: AsyncSession, tmp_path: Path
) -> None:
    path, other = tmp_path / "f", tmp_path / "other"
    path.write_bytes(b"old" * 1_000_000)

    def replace(*_: object) -> None:
        other.write_bytes(b"new")
        other.replace(path)

    component = await session.create_component(path, progress=replace)

    await session.download(component, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"old" * 1_000_000


@pytest.mark.every_loop
@pytest.mark.either_loop
@pytest.mark.parametrize("kind", ["async iterator", "read", "async read", "paths"])
async def test_the_error_of_a_source_ends_the_upload(session: AsyncSession, kind: str) -> None:
    class Failing:
        def read(self, _: int = -1) -> bytes:
            raise LookupError("the source fails")

    class AsyncFailing:
        async def read(self, _: int = -1) -> bytes:
            raise LookupError("the source fails")

    async def pieces() -> AsyncIterator[bytes]:
        yield b"first"
        raise LookupError("the source fails")

    def paths() -> Iterator[str]:
        yield "x"
        raise LookupError("the source fails")

    made: dict[str, Any] = {
        "async iterator": pieces,
        "read": Failing,
        "async read": AsyncFailing,
        "paths": paths,
    }
    with pytest.raises(LookupError, match="the source fails"):
        await session.create_component(made[kind](), name="x")

    assert await session.query("Component").all() == []


@pytest.mark.parametrize("source", ["\ud800", ["\ud800"], "a\0b", ["a\0b"]], ids=ascii)
async def test_what_is_no_path_is_refused(session: AsyncSession, source: Any) -> None:
    with pytest.raises(TransferError):
        await session.create_component(source)


@pytest.mark.parametrize("name", [".", "..", "/", "a/..", "a\0b"])
async def test_what_is_no_file_name_is_refused(session: AsyncSession, name: str) -> None:
    with pytest.raises(TransferError, match="name"):
        await session.create_component(b"x", name=name)


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/x.txt",
        ".hidden",
        "con",
        "a\u202egpj.exe",
        "\u00e9\u0301.x",
        "a b\n.txt",
        "x" * 300,
    ],
)
async def test_any_other_name_arrives_without_its_folder(
    session: AsyncSession, tmp_path: Path, name: str
) -> None:
    component = await session.create_component(b"text", name=name)

    found = await session.get("Component", component.id)
    assert found is not None
    assert f"{found['name']}{found['file_type']}" == name.rpartition("/")[2]
    await session.download(component, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"text"
