"""Bodies that worker threads move on the socket itself, past httpx; over real sockets."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import ByteStream
from anyio.to_thread import current_default_thread_limiter

from aioftrackjobs import AsyncSession, ConnectError, TransferError, TransportError
from aioftrackjobs.devserver import ServerHandle
from aioftrackjobs.protocol.upload import PartSizes
from aioftrackjobs.retry import NO_RETRIES
from aioftrackjobs.session import context_of
from aioftrackjobs.transfers.upload import upload
from aioftrackjobs.transport import _direct

from .waiting import until
from .wires import Received, answering, listening, response

pytestmark = [
    pytest.mark.every_client,
    pytest.mark.own_client,
    pytest.mark.skipif(os.name != "posix", reason="the event loop reads before it is asked to"),
]

BODY = os.urandom(5_000_001)  # enough for downloads to be read past httpx
WHOLE = PartSizes(fewest=1_000_000, most=1_000_000)
SENDFILE = pytest.mark.skipif(not hasattr(os, "sendfile"), reason="the system cannot")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "render.exr"
    path.write_bytes(BODY)
    return path


async def send(session: AsyncSession, source: Any, **options: Any) -> Any:
    return await upload(context_of(session), source, data={}, sizes=WHOLE, **options)


# Files that the system sends


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes the system sent, in each call."""
    counts: list[int] = []
    sendfile: Callable[..., int] = os.sendfile

    def note(*arguments: Any) -> int:
        counts.append(sendfile(*arguments))
        return counts[-1]

    monkeypatch.setattr(os, "sendfile", note)
    return counts


@SENDFILE
async def test_a_file_that_is_not_hashed_is_sent_by_the_system(
    session: AsyncSession, path: Path, tmp_path: Path, sent: list[int]
) -> None:
    with path.open("rb") as file:
        file.seek(17)
        rest = await send(session, file, name="rest", verified=False)
    assert sum(sent) == len(BODY) - 17
    whole = await send(session, path, verified=False)
    assert sum(sent) == 2 * len(BODY) - 17

    assert (await session.download(rest, tmp_path / "rest")).read_bytes() == BODY[17:]
    assert (await session.download(whole, tmp_path / "whole")).read_bytes() == BODY


@SENDFILE
async def test_a_file_that_the_system_cannot_send_is_read(
    session: AsyncSession, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sendfile: Callable[..., int] = os.sendfile
    calls: list[object] = []

    def refuse_soon(*arguments: Any) -> int:
        calls.append(arguments)
        if len(calls) > 1:
            raise OSError(22, "Invalid argument")
        return sendfile(*arguments[:-1], 100_000)

    monkeypatch.setattr(os, "sendfile", refuse_soon)
    component = await send(session, path, verified=False)
    monkeypatch.undo()

    assert len(calls) == 2
    assert (await session.download(component, tmp_path / "back")).read_bytes() == BODY


@SENDFILE
async def test_a_file_that_shrinks_while_it_is_sent_is_told(
    session: AsyncSession, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sendfile: Callable[..., int] = os.sendfile

    def shrink(*arguments: Any) -> int:
        os.truncate(path, 1_000)
        return sendfile(*arguments)

    monkeypatch.setattr(os, "sendfile", shrink)
    with pytest.raises(TransferError, match="shrank"):
        await send(session, path, verified=False)
    monkeypatch.undo()

    assert await session.query("select id from Component").all() == []


# Peers that are slow, rude or gone


@asynccontextmanager
async def session_on(port: int, **options: Any) -> AsyncIterator[AsyncSession]:
    url = f"http://127.0.0.1:{port}"
    async with AsyncSession(url, "key", "user", retry=NO_RETRIES, **options) as session:
        yield session


def announcing(store_port: int) -> Callable[[Received], bytes]:
    """A server that lets files be sent to a store on another port."""

    def answer(request: Received) -> bytes:
        if request.method == "GET":
            return response("200 OK")
        target = {"url": f"http://127.0.0.1:{store_port}/x", "headers": {}}
        operations = json.loads(request.body)
        return response("200 OK", json.dumps([target for _ in operations]).encode())

    return answer


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a reset may overtake an answer")
async def test_a_store_that_refuses_before_it_has_all_is_understood(path: Path) -> None:
    async def refuse(stream: ByteStream) -> None:
        await stream.receive()
        await stream.send(response("413 Too much", connection="close"))

    async with (
        listening(refuse) as store_port,
        answering(announcing(store_port)) as port,
        session_on(port) as session,
    ):
        with pytest.raises(TransferError, match="413"):
            await send(session, path)


async def test_a_store_that_takes_nothing_any_more_is_given_up(tmp_path: Path) -> None:
    path = tmp_path / "big"
    with path.open("wb") as file:
        file.truncate(64 * 1024 * 1024)  # more than the system takes for it
    with socket.create_server(("127.0.0.1", 0)) as store:  # which accepts nobody
        async with (
            answering(announcing(store.getsockname()[1])) as port,
            session_on(port, timeout=0.5) as session,
        ):
            for verified in (True, False):
                with pytest.raises(TransportError, match="WriteTimeout") as caught:
                    await send(session, path, verified=verified)
                assert not isinstance(caught.value, ConnectError)


def beginning(count: int) -> bytes:
    """The first *count* bytes of an answer that has all of the body."""
    head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(BODY)}\r\n\r\n".encode()
    return head + BODY[:count]


async def test_a_server_from_which_nothing_arrives_any_more_is_given_up(tmp_path: Path) -> None:
    async def stall(stream: ByteStream) -> None:
        await stream.receive()
        await stream.send(beginning(1_000_000))
        await anyio.sleep_forever()

    async with listening(stall) as port, session_on(port, timeout=0.5) as session:
        with pytest.raises(TransportError, match="ReadTimeout with 4000001 bytes to come"):
            await session.download("c1", tmp_path / "x")


async def test_a_server_that_hangs_up_is_told(tmp_path: Path) -> None:
    async def hang_up(stream: ByteStream) -> None:
        await stream.receive()
        await stream.send(beginning(1_000_000))

    async with listening(hang_up) as port, session_on(port) as session:
        with pytest.raises(TransportError, match="4000001 bytes to come"):
            await session.download("c1", tmp_path / "x")


@pytest.mark.parametrize("turn", [0.1, 0.0])
async def test_a_peer_that_is_slow_occupies_no_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, turn: float
) -> None:
    monkeypatch.setattr(_direct, "_TURN_SECONDS", turn)  # 0 is a thread that the system held up
    slow = anyio.Event()

    async def pause(stream: ByteStream) -> None:
        await stream.receive()
        await stream.send(beginning(1_000_000))
        await slow.wait()
        await stream.send(BODY[1_000_000:])

    seen: list[int] = []
    async with listening(pause) as port, session_on(port) as session:
        async with anyio.create_task_group() as group:

            async def download() -> None:
                await session.download("c1", tmp_path / "x", progress=lambda n, _: seen.append(n))

            group.start_soon(download)
            threads = current_default_thread_limiter()
            await until(lambda: 1_000_000 in seen and not threads.borrowed_tokens)
            slow.set()

    assert (tmp_path / "x").read_bytes() == BODY


# Connections


async def test_a_connection_that_took_a_body_is_used_again(
    server: ServerHandle, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = 0
    connect = _direct.DirectStream.__init__

    def count(self: Any, stream: Any) -> None:
        nonlocal opened
        opened += 1
        connect(self, stream)

    monkeypatch.setattr(_direct.DirectStream, "__init__", count)
    async with AsyncSession(server.url, server.api_key, server.api_user) as session:
        for verified in (True, False, True):
            await send(session, path, verified=verified)

    assert opened == 1


async def test_a_process_with_too_many_open_files_is_told(
    server: ServerHandle, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: socket.socket) -> socket.socket:
        raise OSError(24, "Too many open files")

    async with AsyncSession(
        server.url, server.api_key, server.api_user, retry=NO_RETRIES
    ) as session:
        with monkeypatch.context() as patch:
            patch.setattr(socket.socket, "dup", refuse)
            with pytest.raises(ConnectError, match="Too many open files"):
                await session.query("User").all()

        await session.query("User").all()
        monkeypatch.setattr(socket.socket, "dup", refuse)
        with pytest.raises(TransportError, match="Too many open files"):
            await send(session, path)
