"""Files that the session's own client moves in worker threads; over real sockets, with TLS too.

Servers here are slow, rude or gone: what a thread meets there, and how it ends.
"""

from __future__ import annotations

import gzip
import json
import os
import socket
import ssl
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
import trustme
from anyio.abc import ByteStream

from aioftrackjobs import (
    AsyncSession,
    ConnectError,
    FileChangedError,
    SessionStateError,
    TransferError,
    TransportError,
)
from aioftrackjobs.config.retry import NO_RETRIES
from aioftrackjobs.devserver import ServerHandle
from aioftrackjobs.protocol.upload import PartSizes
from aioftrackjobs.session import context_of
from aioftrackjobs.transfers.upload import upload
from aioftrackjobs.transport import _connect, _files
from aioftrackjobs.transport._file_connection import FileConnection

from ..tables import result_of
from .waiting import until
from .wires import Received, listening, receive_request, responding, response

pytestmark = [pytest.mark.other_client, pytest.mark.own_client]

KEY = "VERY-SECRET-KEY-0123456789"
BODY = os.urandom(5_000_001)
#: Seconds that a server may be silent: enough for a busy machine to connect.
TIMEOUT = 1.0
WHOLE = PartSizes(fewest=1_000_000, most=1_000_000)

Handler = Callable[[ByteStream], Awaitable[None]]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


class Peers:
    """Makes servers, all with TLS or all without, and sessions that trust them."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self._context = context
        self.scheme = "http" if context is None else "https"

    @asynccontextmanager
    async def listening(self, handle: Handler) -> AsyncIterator[str]:
        async with listening(handle, self._context) as port:
            yield f"{self.scheme}://127.0.0.1:{port}"

    @asynccontextmanager
    async def session(self, handle: Handler, **options: Any) -> AsyncIterator[AsyncSession]:
        """A session that downloads from a server that *handle* implements."""
        async with self.listening(handle) as url:
            options = {"retry": NO_RETRIES, **options}
            async with AsyncSession(url, KEY, "user", **options) as session:
                yield session

    @asynccontextmanager
    async def session_with_store(
        self, store: Handler, **options: Any
    ) -> AsyncIterator[AsyncSession]:
        """A session that uploads to a store that *store* implements."""
        async with self.listening(store) as url:

            def announce(request: Received) -> bytes:
                if request.method == "GET":
                    return response("200 OK")
                target = {"url": f"{url}/x?X-Amz-Signature=SIGNED", "headers": {}}
                return response("200 OK", _results(request, target))

            async with responding(announce) as port:
                options = {"retry": NO_RETRIES, **options}
                server = f"http://127.0.0.1:{port}"
                async with AsyncSession(server, KEY, "user", **options) as session:
                    yield session


def _results(request: Received, target: Mapping[str, object]) -> bytes:
    """Return the results of an upload's *request*: the *target*, or what was created."""
    operations = json.loads(request.body)
    return json.dumps(
        [result_of(each) if "entity_key" in each else target for each in operations]
    ).encode()


@pytest.fixture(params=["plain", "tls"])
def peers(
    request: pytest.FixtureRequest, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Peers]:
    if request.param == "plain":
        yield Peers(None)
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with authority.cert_pem.tempfile() as certificates:
        monkeypatch.setenv("SSL_CERT_FILE", certificates)
        yield Peers(context)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "render.exr"
    path.write_bytes(BODY)
    return path


async def send(session: AsyncSession, source: Any, **options: Any) -> Any:
    return await upload(context_of(session), source, data={}, sizes=WHOLE, **options)


def beginning(count: int) -> bytes:
    """The beginning of a response: its headers, and *count* bytes of its body."""
    head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(BODY)}\r\n\r\n".encode()
    return head + BODY[:count]


# Servers that reject, accept or send no data


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a reset may overtake a response")
async def test_an_early_rejection_is_read_before_the_whole_body_was_sent(
    peers: Peers, path: Path
) -> None:
    async def refuse(stream: ByteStream) -> None:
        await stream.receive()
        await stream.send(response("413 Too much", connection="close"))

    async with peers.session_with_store(refuse) as session:
        with pytest.raises(TransferError, match="413"):
            await send(session, path)


async def test_an_early_rejection_is_read_if_the_store_accepts_no_more_data(
    peers: Peers, tmp_path: Path
) -> None:
    big = sparse(tmp_path)

    async def refuse(stream: ByteStream) -> None:
        await stream.receive()
        await stream.send(response("413 Too much"))
        await anyio.sleep_forever()

    async with peers.session_with_store(refuse, timeout=TIMEOUT) as session:
        with pytest.raises(TransferError, match="413"):
            await send(session, big, verified=False)


async def test_an_invalid_header_is_reported_without_its_value(path: Path) -> None:
    def announce(request: Received) -> bytes:
        target = {"url": f"http://127.0.0.1:{port}/x", "headers": {"X-Key": f"{KEY}\r\nx: y"}}
        operations = json.loads(request.body or b"[]")
        return response("200 OK", json.dumps([target for _ in operations]).encode())

    async with responding(announce) as port:
        async with AsyncSession(f"http://127.0.0.1:{port}", KEY, "user") as session:
            with pytest.raises(TransportError, match="a header of the request is invalid"):
                await send(session, path)


def sparse(folder: Path) -> Path:
    """A file that is larger than the buffers of the system."""
    path = folder / "big"
    with path.open("wb") as file:
        file.truncate(16 * 1024 * 1024)
    return path


@pytest.mark.parametrize("verified", [True, False], ids=["checksum", "none"])
async def test_a_store_that_accepts_no_data_times_out(
    peers: Peers, tmp_path: Path, verified: bool
) -> None:
    async def stall(stream: ByteStream) -> None:
        await stream.receive()
        await anyio.sleep_forever()

    async with peers.session_with_store(stall, timeout=TIMEOUT) as session:
        with pytest.raises(TransportError, match=r"the server accepted no data for 1 s") as caught:
            await send(session, sparse(tmp_path), verified=verified)
        assert not isinstance(caught.value, ConnectError)


async def test_a_store_that_does_not_respond_times_out(peers: Peers, path: Path) -> None:
    async def stall(stream: ByteStream) -> None:
        await receive_request(stream)
        await anyio.sleep_forever()

    async with peers.session_with_store(stall, timeout=TIMEOUT) as session:
        with pytest.raises(TransportError, match=r"no data arrived for 1 s") as caught:
            await send(session, path)
        assert not isinstance(caught.value, ConnectError)


async def test_a_server_that_stops_sending_times_out(peers: Peers, tmp_path: Path) -> None:
    async def stall(stream: ByteStream) -> None:
        await stream.receive()
        await stream.send(beginning(1_000_000))
        await anyio.sleep_forever()

    async with peers.session(stall, timeout=TIMEOUT) as session:
        with pytest.raises(TransportError, match=r"no data arrived for 1 s"):
            await session.download("c1", tmp_path / "x")


async def test_a_tls_handshake_without_a_response_is_a_connect_error(tmp_path: Path) -> None:
    async def stall(_: ByteStream) -> None:
        await anyio.sleep_forever()

    async with listening(stall) as port:
        url = f"https://127.0.0.1:{port}"
        async with AsyncSession(url, KEY, "user", retry=NO_RETRIES, timeout=TIMEOUT) as session:
            with pytest.raises(ConnectError, match=r"TLS handshake for 1 s"):
                await session.download("c1", tmp_path / "x")


async def test_a_refused_connection_is_a_connect_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    async with AsyncSession(f"http://127.0.0.1:{port}", KEY, "u", retry=NO_RETRIES) as session:
        with pytest.raises(ConnectError, match="refused"):
            await session.download("c1", tmp_path / "x")


async def test_too_many_open_files_are_reported(
    server: ServerHandle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(_: object) -> socket.socket:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(_connect, "_connect", refuse)
    async with AsyncSession(
        server.url, server.api_key, server.api_user, retry=NO_RETRIES
    ) as session:
        with pytest.raises(ConnectError, match="Too many open files"):
            await session.download("c1", tmp_path / "x")


# Bodies of all kinds


async def test_a_closed_connection_is_a_transport_error(peers: Peers, tmp_path: Path) -> None:
    async def hang_up(stream: ByteStream) -> None:
        await stream.receive()
        await stream.send(beginning(1_000_000))

    async with peers.session(hang_up) as session:
        with pytest.raises(TransportError, match="4000001 bytes to come"):
            await session.download("c1", tmp_path / "x")


def chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)


HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        HEAD
        + b"transfer-encoding: chunked\r\n\r\n"
        + chunked(BODY[:70_000], BODY[70_000:1_000_000], BODY[1_000_000:], b""),
        HEAD + b"connection: close\r\n\r\n" + BODY,
        HEAD + b"content-encoding: gzip\r\n\r\n" + gzip.compress(BODY, 1),
        HEAD + b"content-length: %d\r\n\r\n%b and more" % (len(BODY), BODY),
    ],
    ids=["chunked", "until the end", "compressed", "more than announced"],
)
async def test_a_body_may_be_framed_in_every_way_of_http(
    peers: Peers, tmp_path: Path, sent: bytes
) -> None:
    async def serve(stream: ByteStream) -> None:
        await receive_request(stream)
        await stream.send(sent)

    async with peers.session(serve) as session:
        for name in ("x", "y"):
            await session.download("c1", tmp_path / name)
            assert (tmp_path / name).read_bytes() == BODY


@pytest.mark.parametrize(
    "sent",
    [
        HEAD + b"transfer-encoding: chunked\r\n\r\n" + chunked(BODY)[:-1_000],
        HEAD + b"transfer-encoding: chunked\r\n\r\nnumber\r\n",
        HEAD + b"content-encoding: gzip\r\n\r\n" + BODY,
        HEAD + b"content-encoding: gzip\r\n\r\n" + gzip.compress(BODY, 1)[:-100_000],
        b"200 KEY=%b\r\n\r\n" % KEY.encode(),
        b"",
    ],
    ids=["broken chunk", "no chunk", "not compressed", "cut while compressed", "not HTTP", "none"],
)
async def test_a_malformed_body_is_a_transport_error(
    peers: Peers, tmp_path: Path, sent: bytes
) -> None:
    async def serve(stream: ByteStream) -> None:
        await receive_request(stream)
        await stream.send(sent)

    async with peers.session(serve) as session:
        with pytest.raises(TransportError) as caught:
            await session.download("c1", tmp_path / "x")

    assert not isinstance(caught.value, ConnectError)
    assert KEY not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


async def test_an_empty_file_is_sent_and_received(server: ServerHandle, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    async with AsyncSession(server.url, server.api_key, server.api_user) as session:
        component = await send(session, tmp_path / "empty")
        await session.download(component, tmp_path / "back")

    assert (tmp_path / "back").read_bytes() == b""


async def test_a_file_that_shrinks_while_it_is_sent_raises(
    server: ServerHandle, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_files, "_TURN", 0)
    async with AsyncSession(server.url, server.api_key, server.api_user) as session:
        with pytest.raises(FileChangedError, match="shrank"):
            await send(session, path, progress=lambda *_: os.truncate(path, 1_000))

        assert await session.query("select id from Component").all() == []


async def test_received_bytes_are_written_while_the_server_pauses(
    peers: Peers, tmp_path: Path
) -> None:
    may_go_on = anyio.Event()

    async def pause(stream: ByteStream) -> None:
        await stream.receive()
        await stream.send(beginning(1_000_000))
        await may_go_on.wait()
        await stream.send(BODY[1_000_000:])

    seen: list[int] = []
    async with peers.session(pause) as session, anyio.create_task_group() as group:

        async def download() -> None:
            await session.download("c1", tmp_path / "x", progress=lambda n, _: seen.append(n))

        group.start_soon(download)
        await until(lambda: 1_000_000 in seen)
        may_go_on.set()

    assert (tmp_path / "x").read_bytes() == BODY


async def test_an_oserror_of_the_callback_is_raised_unchanged(
    server: ServerHandle, path: Path
) -> None:
    def fail(done: int, total: int | None) -> None:
        raise ConnectionResetError("mine")

    async with AsyncSession(server.url, server.api_key, server.api_user) as session:
        with pytest.raises(ConnectionResetError, match="mine"):
            await send(session, path, progress=fail)


# Redirections


async def test_a_download_follows_relative_redirections(peers: Peers, tmp_path: Path) -> None:
    async def serve(stream: ByteStream) -> None:
        while True:
            request = await receive_request(stream)
            if request.target == "/elsewhere?X-Amz-Signature=SIGNED":
                await stream.send(response("200 OK", b"stored bytes"))
            else:
                location = "/elsewhere?X-Amz-Signature=SIGNED"
                await stream.send(response("307 Found", b"moved", location=location))

    async with peers.session(serve) as session:
        await session.download("c1", tmp_path / "x")

    assert (tmp_path / "x").read_bytes() == b"stored bytes"


@pytest.mark.parametrize(
    ("location", "problem"),
    [("/again", "redirections"), ("ftp://127.0.0.1/x", "'ftp'"), ("http://h:port/", "is invalid")],
)
async def test_an_invalid_redirection_ends_a_download(
    peers: Peers, tmp_path: Path, location: str, problem: str
) -> None:
    async def serve(stream: ByteStream) -> None:
        while True:
            await receive_request(stream)
            await stream.send(response("302 Found", location=location))

    async with peers.session(serve, retry=NO_RETRIES) as session:
        with pytest.raises(TransportError, match=problem):
            await session.download("c1", tmp_path / "x")


# Connections


class Counted:
    """A store that counts its connections, and the requests on all of them."""

    def __init__(self, *, closes: bool = False) -> None:
        self.connections = self.requests = self.closed = 0
        self._closes = closes

    async def handle(self, stream: ByteStream) -> None:
        self.connections += 1
        try:
            while True:
                await receive_request(stream)
                self.requests += 1
                await stream.send(response("200 OK", b"stored bytes"))
                if self._closes:  # without a "connection: close" header
                    return
        finally:
            await stream.aclose()
            self.closed += 1


async def test_a_connection_is_reused_after_an_upload(peers: Peers, path: Path) -> None:
    store = Counted()
    async with peers.session_with_store(store.handle) as session:
        for verified in (True, False, True):
            await send(session, path, verified=verified)

        assert (store.connections, store.requests) == (1, 3)

        # A connection that the server has closed is not reused, because the request would be lost.
        await send(session, path)
    assert store.requests == 4


async def test_a_connection_that_the_server_closed_is_not_reused(peers: Peers, path: Path) -> None:
    store = Counted(closes=True)
    async with peers.session_with_store(store.handle) as session:
        for count in (1, 2, 3):
            await send(session, path)
            await until(lambda: store.closed == count)  # noqa: B023

    assert (store.connections, store.requests) == (3, 3)


async def test_a_session_that_closes_closes_idle_connections(peers: Peers, path: Path) -> None:
    store = Counted()
    async with peers.listening(store.handle) as url:
        async with AsyncSession(url, KEY, "user", retry=NO_RETRIES) as session:
            await session.download("c1", path)
            assert store.closed == 0
        await until(lambda: store.closed == 1)


async def test_the_number_of_threads_is_the_number_of_transfers(
    peers: Peers, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_work, most = 0, 0
    two = threading.Event()
    work = FileConnection.work

    def count(self: FileConnection, function: Any) -> Any:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        if at_work == 2:
            two.set()
        two.wait(10)  # the first transfer lasts until a second one has begun
        try:
            return work(self, function)
        finally:
            at_work -= 1

    monkeypatch.setattr(FileConnection, "work", count)
    async with peers.session_with_store(Counted().handle, transfers=2) as session:
        async with anyio.create_task_group() as group:
            for _ in range(6):
                group.start_soon(send, session, path)

    assert most == 2


async def test_cookies_of_api_calls_are_sent_with_files(tmp_path: Path) -> None:
    """A load balancer needs the cookies that it has set."""
    seen: list[Received] = []

    def respond(request: Received) -> bytes:
        seen.append(request)
        if request.method == "GET":
            return response("200 OK", b"stored bytes")
        return response("200 OK", b'[{"version": "dev"}]', set_cookie="sid=node7; Path=/")

    async with (
        responding(respond) as port,
        AsyncSession(f"http://localhost:{port}", KEY, "user", retry=NO_RETRIES) as session,
    ):
        await session.call([{"action": "query_server_information"}])
        await session.download("c1", tmp_path / "x")

    assert seen[-1].method == "GET"
    assert seen[-1].headers["cookie"] == "sid=node7"


# Cancelled transfers


class Stalling:
    """A server that stops at some point, and records that the client closed the connection."""

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self.stalled, self.closed = anyio.Event(), anyio.Event()

    async def handle(self, stream: ByteStream) -> None:
        if self._stage == "sending":
            await stream.receive()
        else:
            await receive_request(stream)
        if self._stage == "receiving":
            await stream.send(beginning(1_000_000))
        self.stalled.set()
        try:
            while self._stage != "sending":
                await stream.receive()
            await self._await_reset(stream)
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            self.closed.set()

    async def _await_reset(self, stream: ByteStream) -> None:
        """Write until that fails, because the data of the client is never read."""
        while True:
            await stream.send(b" ")
            await anyio.sleep(0.01)


@pytest.mark.parametrize("stage", ["sending", "waiting", "receiving"])
async def test_a_cancelled_transfer_ends_soon_and_closes_its_connection(
    peers: Peers, tmp_path: Path, stage: str
) -> None:
    server = Stalling(stage)
    if stage == "receiving":
        opened = peers.session(server.handle)
    else:
        opened = peers.session_with_store(server.handle)
    async with opened as session:
        async with anyio.create_task_group() as group:
            if stage == "receiving":
                group.start_soon(session.download, "c1", tmp_path / "x")
            else:
                source = sparse(tmp_path) if stage == "sending" else b"hello"
                group.start_soon(lambda: send(session, source, name="a", verified=False))
            await server.stalled.wait()
            group.cancel_scope.cancel()
            started = anyio.current_time()
        assert anyio.current_time() - started < 30, "the time-out is 60 s"
        with anyio.fail_after(20):
            await server.closed.wait()

    assert not (tmp_path / "x").exists()


async def test_a_transfer_that_is_cancelled_during_the_handshake_ends_soon(tmp_path: Path) -> None:
    server = Stalling("")

    async def handle(stream: ByteStream) -> None:
        server.stalled.set()
        with pytest.raises(anyio.EndOfStream):
            while True:
                await stream.receive()
        server.closed.set()

    async with (
        listening(handle) as port,
        AsyncSession(f"https://127.0.0.1:{port}", KEY, "user", retry=NO_RETRIES) as session,
    ):
        with anyio.fail_after(20):
            async with anyio.create_task_group() as group:
                group.start_soon(session.download, "c1", tmp_path / "x")
                await server.stalled.wait()
                group.cancel_scope.cancel()
            await server.closed.wait()


async def test_closing_a_session_ends_a_stuck_transfer(
    peers: Peers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Stalling("receiving")

    async def download(session: AsyncSession) -> None:
        with pytest.raises(SessionStateError, match="closed during"):
            await session.download("c1", tmp_path / "x")

    async with anyio.create_task_group() as group:
        async with peers.session(server.handle) as session:
            monkeypatch.setattr(session._connection, "closing_grace", 0.05)
            group.start_soon(download, session)
            await server.stalled.wait()
        with anyio.fail_after(20):
            await server.closed.wait()
