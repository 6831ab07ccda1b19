"""Downloads that break off, resume, and never mix two files; over real sockets."""

from __future__ import annotations

import asyncio
import os
from base64 import b64encode
from collections.abc import AsyncIterator
from contextvars import ContextVar
from hashlib import md5
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest
from anyio.abc import ByteStream

from aioftrackjobs import AsyncSession, FileComponent, TransferError, TransportError
from aioftrackjobs.config.retry import NO_RETRIES, RetryPolicy
from aioftrackjobs.devserver import ServerHandle, running
from aioftrackjobs.transfers.partial_file import PartialFile
from aioftrackjobs.transport import _files, _httpx

from .waiting import cancelled_after
from .wires import Received, listening, receive_request, response

if TYPE_CHECKING:
    from tests.integration.conftest import FaultProxy

BODY = os.urandom(6_000_000)
SMALL = BODY[:500_000]
GET = b"GET /component/get"
BODIES = pytest.mark.parametrize("body", [BODY, SMALL], ids=["large", "small"])


async def no_pause(_: float) -> None:
    await anyio.lowlevel.checkpoint()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """The server's storage."""
    return tmp_path / "components"


@pytest.fixture
async def server(files: Path) -> AsyncIterator[ServerHandle]:
    async with running(storage=files.parent) as handle:
        yield handle


@pytest.fixture
async def session(proxy: FaultProxy, server: ServerHandle) -> AsyncIterator[AsyncSession]:
    """A session whose requests all go through the proxy."""
    policy = RetryPolicy(sleep=no_pause)
    async with AsyncSession(proxy.url, server.api_key, server.api_user, retry=policy) as opened:
        yield opened


@pytest.fixture
async def no_retries(proxy: FaultProxy, server: ServerHandle) -> AsyncIterator[AsyncSession]:
    """A session without retries."""
    async with AsyncSession(proxy.url, server.api_key, server.api_user, retry=NO_RETRIES) as opened:
        yield opened


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "plate.exr"


async def put(session: AsyncSession, body: bytes = BODY) -> FileComponent:
    return await session.create_component(body, name="plate.exr")


def left(target: Path) -> set[str]:
    return {path.name for path in target.parent.iterdir()}


def break_off(proxy: FaultProxy, target: Path, body: bytes = BODY, **what: Any) -> None:
    """Plan a download that breaks off in the middle, when a part of it is on the disk."""
    parts = target.parent

    def is_kept() -> bool:
        return any(path.stat().st_size for path in parts.glob("*.part"))

    proxy.plan(GET, received=len(body) // 2, when=is_kept, **what)


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each piece is written as it arrives, also by a client that gathers larger blocks."""
    monkeypatch.setattr(_httpx, "_BLOCK", 1)


# Within a call


@BODIES
@pytest.mark.usefixtures("blocks")
async def test_a_download_resumes_where_it_broke_off(
    session: AsyncSession, proxy: FaultProxy, target: Path, body: bytes
) -> None:
    component = await put(session, body)
    break_off(proxy, target, body)
    seen: list[tuple[int, int | None]] = []

    await session.download(component, target, progress=lambda *counts: seen.append(counts))

    assert target.read_bytes() == body
    assert left(target) == {"plate.exr"}
    first, second = proxy.requests(GET)
    assert b"range" not in first
    assert b"if-range" in second
    done = [count for count, _ in seen]
    assert done == sorted(set(done)), "nothing counts twice"
    assert seen[-1] == (len(body), len(body))


@pytest.mark.parametrize("is_resumed", [True, False], ids=["resumed", "whole"])
async def test_a_download_asks_for_a_new_url_when_that_of_the_store_has_expired(
    no_retries: AsyncSession, proxy: FaultProxy, target: Path, *, is_resumed: bool
) -> None:
    component = await put(no_retries)
    if is_resumed:
        break_off(proxy, target)
        with pytest.raises(TransportError):
            await no_retries.download(component, target, resume=True)
    proxy.plan(GET, response=b"HTTP/1.1 403 Forbidden", times=2)

    await no_retries.download(component, target, resume=True)

    assert target.read_bytes() == BODY
    *_, last = proxy.requests(GET)
    assert (b"if-range" in last) == is_resumed


async def test_a_download_that_is_forbidden_asks_for_few_urls(
    session: AsyncSession, proxy: FaultProxy, target: Path
) -> None:
    component = await put(session, SMALL)
    proxy.plan(GET, response=b"HTTP/1.1 403 Forbidden", times=99)

    with pytest.raises(TransferError, match="403"):
        await session.download(component, target)

    assert len(proxy.requests(GET)) == 3


async def test_a_callback_sees_the_variables_of_its_caller(
    session: AsyncSession, target: Path
) -> None:
    caller = ContextVar("caller", default="nobody")
    seen: set[str] = set()
    caller.set("maya")

    component = await session.create_component(
        SMALL, name="plate.exr", progress=lambda *_: seen.add(caller.get())
    )
    await session.download(component, target, progress=lambda *_: seen.add(f"{caller.get()} too"))

    assert seen == {"maya", "maya too"}


async def test_a_file_that_changed_meanwhile_is_downloaded_anew(
    session: AsyncSession, proxy: FaultProxy, target: Path, files: Path
) -> None:
    component = await put(session)
    changed = BODY[::-1]
    break_off(proxy, target, then=lambda: (files / component.id).write_bytes(changed))

    await session.download(component, target)

    assert target.read_bytes() == changed
    assert b"if-range" in proxy.requests(GET)[1]


@pytest.mark.parametrize(
    "response",
    [b"416 No\r\ncontent-range: bytes */5", b"206 Odd\r\ncontent-range: bytes 1-2/5"],
    ids=["refused", "another"],
)
async def test_a_download_begins_anew_if_the_range_does_not_exist(
    session: AsyncSession, proxy: FaultProxy, target: Path, response: bytes
) -> None:
    component = await put(session)
    break_off(proxy, target)
    proxy.plan(b"if-range", response=b"HTTP/1.1 " + response)

    await session.download(component, target)

    assert target.read_bytes() == BODY
    assert [b"if-range" in head for head in proxy.requests(GET)] == [False, True, False]


@pytest.mark.parametrize("status", [b"503 Busy", b"429 Slow"])
async def test_a_download_is_repeated_if_the_server_is_busy(
    session: AsyncSession, proxy: FaultProxy, target: Path, status: bytes
) -> None:
    component = await put(session)
    proxy.plan(GET, response=b"HTTP/1.1 " + status + b"\r\nretry-after: 1", times=2)

    await session.download(component, target)

    assert target.read_bytes() == BODY


async def test_a_missing_file_is_requested_once(
    session: AsyncSession, proxy: FaultProxy, target: Path
) -> None:
    with pytest.raises(TransferError, match="HTTP 404"):
        await session.download("missing", target)

    assert len(proxy.requests(GET)) == 1
    assert left(target) == set()


async def test_attempts_that_break_off_at_the_same_place_spend_the_budget(
    proxy: FaultProxy, server: ServerHandle, target: Path, files: Path
) -> None:
    """Without ranges each attempt begins anew, and the same number of bytes is no progress."""
    clock = iter(range(10_000))
    policy = RetryPolicy(budget=20, clock=lambda: next(clock), sleep=no_pause)
    proxy.plan(GET, received=300_000, times=9_999)
    async with AsyncSession(proxy.url, server.api_key, server.api_user, retry=policy) as session:
        component = await put(session, SMALL)
        proxy.plan(b"if-range", response=b"HTTP/1.1 416 No", times=9_999)
        proxy.faults.reverse()
        with pytest.raises((TransferError, TransportError)):
            await session.download(component, target)

    assert left(target) == set()


# Across calls


@BODIES
@pytest.mark.other_client
@pytest.mark.usefixtures("blocks")
async def test_a_later_call_resumes_where_an_earlier_one_broke_off(
    no_retries: AsyncSession, proxy: FaultProxy, target: Path, body: bytes
) -> None:
    component = await put(no_retries, body)
    break_off(proxy, target, body)
    with pytest.raises(TransportError):
        await no_retries.download(component, target, resume=True)
    assert left(target) == {".plate.exr.part", ".plate.exr.part.json"}
    kept = (target.parent / ".plate.exr.part").stat().st_size
    seen: list[int] = []

    await no_retries.download(component, target, resume=True, progress=lambda n, _: seen.append(n))

    assert target.read_bytes() == body
    assert left(target) == {"plate.exr"}
    assert f"bytes={kept}-".encode() in proxy.requests(GET)[-1]
    assert min(seen) > kept


async def test_without_resume_nothing_is_left(
    no_retries: AsyncSession, proxy: FaultProxy, target: Path
) -> None:
    component = await put(no_retries)
    break_off(proxy, target)

    with pytest.raises(TransportError):
        await no_retries.download(component, target)

    assert left(target) == set()


async def test_a_cancelled_download_can_be_continued(
    no_retries: AsyncSession, proxy: FaultProxy, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_files, "_TURN", 0)
    component = await put(no_retries)
    async with anyio.create_task_group() as group:

        def stop(done: int, _: int | None) -> None:
            if done > len(BODY) // 4:
                group.cancel_scope.cancel()

        await no_retries.download(component, target, resume=True, progress=stop)
    assert "plate.exr" not in left(target)

    await no_retries.download(component, target, resume=True)

    assert target.read_bytes() == BODY
    assert b"range: bytes=" in proxy.requests(GET)[-1].lower()


@pytest.mark.parametrize("note", ["gone", "broken", "of another", "of a changed file"])
async def test_partial_bytes_without_a_matching_note_are_discarded(
    no_retries: AsyncSession, target: Path, note: str
) -> None:
    component = await put(no_retries)
    partial = target.with_name(".plate.exr.part")
    partial.write_bytes(b"something else")
    texts = {
        "broken": "{",
        "of another": '{"component_id": "other", "etag": "\\"x\\""}',
        "of a changed file": f'{{"component_id": "{component.id}", "etag": "\\"old\\""}}',
    }
    if note in texts:
        target.with_name(".plate.exr.part.json").write_text(texts[note])

    await no_retries.download(component, target, resume=True)

    assert target.read_bytes() == BODY
    assert left(target) == {"plate.exr"}


async def test_two_downloads_do_not_continue_the_same_file(
    no_retries: AsyncSession, target: Path
) -> None:
    component = await put(no_retries, SMALL)
    other = PartialFile(target, component.id, lasting=True)
    other.open()

    with pytest.raises(TransferError, match="being downloaded already"):
        await no_retries.download(component, target, resume=True)
    other.close()
    await no_retries.download(component, target, resume=True)

    assert target.read_bytes() == SMALL


def test_a_file_that_became_the_target_is_not_written_to(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A download may open the partial file just before another download moves it to the target."""
    first = PartialFile(target, "c", lasting=True)
    first.open()
    first.restart('"tag"')
    first.write([b"whole"])
    real_open = os.open
    second = PartialFile(target, "c", lasting=True)

    def open_then_finish(*args: Any) -> int:
        descriptor = real_open(*args)
        monkeypatch.undo()
        first.finish()
        return descriptor

    monkeypatch.setattr(os, "open", open_then_finish)
    second.open()
    second.write([b"other"])

    assert target.read_bytes() == b"whole"
    second.close()
    assert left(target) == {"plate.exr"}


# Cancellation and errors


async def test_cancelled_downloads_lose_no_connections(
    server: ServerHandle, target: Path, tmp_path: Path
) -> None:
    limits = httpx.Limits(max_connections=2)
    async with (
        httpx.AsyncClient(limits=limits, timeout=5) as client,
        AsyncSession(server.url, server.api_key, server.api_user, client=client) as session,
    ):
        component = await put(session)
        for checkpoints in range(0, 160, 4):
            async with cancelled_after(checkpoints):
                await session.download(component, target)
            assert left(target) <= {"plate.exr"}
            if target.exists():
                assert target.read_bytes() == BODY
                target.unlink()

        await session.download(component, target)
        pool = client._transport._pool  # type: ignore[attr-defined]
        assert all(connection.is_idle() for connection in pool.connections)


@pytest.mark.asyncio_only
async def test_cancellation_of_asyncio_tasks_loses_no_connections(
    server: ServerHandle, target: Path
) -> None:
    async with (
        httpx.AsyncClient(limits=httpx.Limits(max_connections=1), timeout=5) as client,
        AsyncSession(server.url, server.api_key, server.api_user, client=client) as session,
    ):
        component = await put(session)
        for turns in range(0, 80, 4):
            task = asyncio.create_task(session.download(component, target))
            for _ in range(turns):
                await asyncio.sleep(0)
            for _ in range(3):
                task.cancel()
                await asyncio.sleep(0)
            await asyncio.wait([task])
            assert left(target) <= {"plate.exr"}

        await session.download(component, target)

    assert target.read_bytes() == BODY


async def test_a_full_disk_raises_transfer_error(
    session: AsyncSession, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    component = await put(session)

    def refuse(self: PartialFile, block: list[bytes]) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(PartialFile, "write", refuse)
    with pytest.raises(TransferError, match="cannot be written: No space left"):
        await session.download(component, target)

    assert left(target) == set()


async def test_an_error_of_the_callback_ends_the_download(
    session: AsyncSession, target: Path
) -> None:
    component = await put(session)

    def fail(done: int, total: int | None) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await session.download(component, target, progress=fail)

    assert left(target) == set()


async def test_blocks_are_written_in_threads(
    session: AsyncSession, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    threads = set()
    write = PartialFile.write

    def note(self: PartialFile, block: list[bytes]) -> None:
        threads.add(threading.get_ident())
        write(self, block)

    monkeypatch.setattr(PartialFile, "write", note)
    await session.download(await put(session), target)

    assert threads
    assert threading.get_ident() not in threads


# Other servers, through any transport of httpx


def served(*responses: httpx.Response) -> httpx.AsyncClient:
    unsent = list(responses)
    return httpx.AsyncClient(transport=httpx.MockTransport(lambda _: unsent.pop(0)))


async def fetch(client: httpx.AsyncClient, target: Path, **options: Any) -> None:
    policy = RetryPolicy(sleep=no_pause, budget=5)
    async with (
        client,
        AsyncSession("http://ftrack.test", "key", "user", client=client, retry=policy) as session,
    ):
        await session.download("c1", target, **options)


@pytest.mark.parametrize("name", ["content-md5", "x-goog-hash"])
async def test_a_digest_in_the_headers_is_verified(target: Path, name: str) -> None:
    digest = b64encode(md5(b"right").digest()).decode()
    headers = {name: digest if name == "content-md5" else f"md5={digest}"}
    wrong, right = (
        httpx.Response(200, headers=headers, content=each) for each in (b"WRONG", b"right")
    )

    await fetch(served(wrong, right), target)

    assert target.read_bytes() == b"right"


async def test_a_body_without_a_size_is_accepted(target: Path) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"some "
        yield b"bytes"

    seen: list[tuple[int, int | None]] = []
    chunked = httpx.Response(200, content=pieces())

    await fetch(served(chunked), target, progress=lambda *counts: seen.append(counts))

    assert target.read_bytes() == b"some bytes"
    assert seen == [(10, None), (10, 10)]


async def test_a_range_of_another_file_is_rejected(target: Path) -> None:
    """A store without ``If-Range`` sends a range of the new file."""
    old, new = b"old file", b"new file"

    def respond(request: Received) -> bytes:
        if "range" in request.headers:
            return response("206 Part", new[3:], etag='"new"', content_range="bytes 3-7/8")
        if is_first.pop():
            return response("200 OK", old[:3], content_length="8", etag='"old"', connection="close")
        return response("200 OK", new, etag='"new"')

    is_first = [False, True]

    async def handle(stream: ByteStream) -> None:
        while True:
            sent = respond(await receive_request(stream))
            await stream.send(sent)
            if b"connection: close" in sent:
                return

    policy = RetryPolicy(sleep=no_pause)
    async with (
        listening(handle) as port,
        AsyncSession(f"http://127.0.0.1:{port}", "key", "maya", retry=policy) as session,
    ):
        await session.download("an-id", target)

    assert target.read_bytes() == new


async def test_what_was_read_before_a_connection_breaks_is_kept(target: Path) -> None:
    async def breaking() -> AsyncIterator[bytes]:
        yield b"some "
        yield b"of "
        raise httpx.ReadError("gone")

    ranges: list[str | None] = []

    def respond(request: httpx.Request) -> httpx.Response:
        ranges.append(request.headers.get("range"))
        tag = {"etag": '"1"'}
        if len(ranges) == 1:
            return httpx.Response(200, headers=tag | {"content-length": "12"}, content=breaking())
        return httpx.Response(
            206, headers=tag | {"content-range": "bytes 8-11/12"}, content=b"them"
        )

    await fetch(httpx.AsyncClient(transport=httpx.MockTransport(respond)), target)

    assert target.read_bytes() == b"some of them"
    assert ranges == [None, "bytes=8-"]


async def test_without_a_strong_tag_a_download_begins_anew(target: Path) -> None:
    async def breaking() -> AsyncIterator[bytes]:
        yield b"old"
        raise httpx.ReadError("gone")

    client = served(
        httpx.Response(200, headers={"etag": 'W/"1"', "content-length": "8"}, content=breaking()),
        httpx.Response(200, headers={"etag": 'W/"2"'}, content=b"new file"),
    )

    await fetch(client, target, resume=True)

    assert target.read_bytes() == b"new file"
    assert left(target) == {"plate.exr"}


def test_downloads_stop_and_resume_under_trio(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_files, "_TURN", 0)
    target = tmp_path / "plate.exr"

    async def main() -> None:
        async with (
            running() as server,
            AsyncSession(server.url, server.api_key, server.api_user) as session,
        ):
            component = await put(session)
            async with anyio.create_task_group() as group:

                def stop(done: int, _: int | None) -> None:
                    group.cancel_scope.cancel()

                await session.download(component, target, resume=True, progress=stop)
            assert not target.exists()
            await session.download(component, target, resume=True)

    anyio.run(main, backend="trio")

    assert target.read_bytes() == BODY


async def test_the_size_of_one_write_is_bounded(
    session: AsyncSession, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    write = PartialFile.write

    def note(self: PartialFile, block: list[bytes]) -> None:
        sizes.append(sum(map(len, block)))
        write(self, block)

    monkeypatch.setattr(PartialFile, "write", note)
    await session.download(await put(session), target)

    assert sum(sizes) == len(BODY)
    assert max(sizes) < 2_000_000
