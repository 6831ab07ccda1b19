"""Faults of real sockets: refused connections, missing and incomplete responses."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from anyio.abc import SocketAttribute, SocketStream

from aioftrackjobs import (
    AsyncSession,
    CommitUncertainError,
    ConnectError,
    Job,
    ServerError,
    SessionStateError,
    TransportError,
)
from aioftrackjobs.config.retry import NO_RETRIES

pytestmark = pytest.mark.every_client

Respond = Callable[[SocketStream], Awaitable[None]]


def timeout_of(respond: Respond) -> float:
    """Return a session's timeout: short only if the test waits for its end."""
    return 0.5 if respond is hang else 20


@asynccontextmanager
async def raw_server(respond: Respond) -> AsyncIterator[str]:
    """Listen on a real socket, and pass each connection to *respond* after its first bytes."""

    async def handle(stream: SocketStream) -> None:
        async with stream:
            await stream.receive()
            await respond(stream)

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        async with anyio.create_task_group() as group:
            group.start_soon(listener.serve, handle)
            yield f"http://127.0.0.1:{listener.extra(SocketAttribute.local_port)}"
            group.cancel_scope.cancel()


async def hang(_: SocketStream) -> None:
    await anyio.sleep_forever()


async def drop(_: SocketStream) -> None:
    return


async def truncate(stream: SocketStream) -> None:
    await stream.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n[{")


async def not_http(stream: SocketStream) -> None:
    await stream.send(b"220 mail.test ESMTP\r\n")


async def test_a_refused_connection_leaves_the_commit_pending() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    async with AsyncSession(f"http://127.0.0.1:{port}", "key", "user", retry=NO_RETRIES) as session:
        session.create(Job, {})
        with pytest.raises(ConnectError, match=f"127.0.0.1:{port}"):
            await session.commit()

        assert len(session.recorded_operations) == 1


async def test_no_such_host() -> None:
    async with AsyncSession("http://nowhere.invalid", "key", "user", retry=NO_RETRIES) as session:
        with pytest.raises(ConnectError, match=r"nowhere\.invalid"):
            await session.server_information()


@pytest.mark.parametrize("respond", [hang, drop, truncate, not_http])
async def test_a_missing_response_leaves_a_commit_uncertain(respond: Respond) -> None:
    async with (
        raw_server(respond) as url,
        AsyncSession(url, "key", "user", timeout=timeout_of(respond), retry=NO_RETRIES) as session,
    ):
        session.create(Job, {})
        with pytest.raises(CommitUncertainError) as caught:
            await session.commit()

        assert isinstance(caught.value.__cause__, TransportError)
        assert not isinstance(caught.value.__cause__, ConnectError)
        assert len(session.uncertain_operations) == 1


@pytest.mark.parametrize("respond", [hang, drop, truncate, not_http])
async def test_a_missing_response_is_an_error_of_a_query(respond: Respond) -> None:
    async with (
        raw_server(respond) as url,
        AsyncSession(url, "key", "user", timeout=timeout_of(respond), retry=NO_RETRIES) as session,
    ):
        with pytest.raises(TransportError):
            await session.query("select id from Job").all()


@pytest.mark.own_client
async def test_the_error_of_a_timeout_does_not_quote_the_event_loop() -> None:
    async with (
        raw_server(hang) as url,
        AsyncSession(url, "key", "user", timeout=timeout_of(hang), retry=NO_RETRIES) as session,
    ):
        with pytest.raises(TransportError) as caught:
            await session.query("select id from Job").all()

    assert str(caught.value) == f"no complete response from {url}: ReadTimeout"


@pytest.mark.parametrize("respond", [hang, drop, truncate, not_http])
async def test_a_download_that_breaks_off_leaves_nothing(respond: Respond, tmp_path: Path) -> None:
    async with (
        raw_server(respond) as url,
        AsyncSession(
            url, "SECRET", "user", timeout=timeout_of(respond), retry=NO_RETRIES
        ) as session,
    ):
        with pytest.raises(TransportError) as caught:
            await session.download("c1", tmp_path / "x")

    assert list(tmp_path.iterdir()) == []
    assert "SECRET" not in str(caught.value)


async def test_a_session_closes_although_a_request_hangs() -> None:
    async with raw_server(hang) as url:
        async with AsyncSession(
            url, "key", "user", timeout=timeout_of(hang), retry=NO_RETRIES
        ) as session:
            async with anyio.create_task_group() as group:
                group.start_soon(session.server_information)
                for _ in range(20):
                    await anyio.lowlevel.checkpoint()
                group.cancel_scope.cancel()

    with pytest.raises(SessionStateError, match="closed"):
        await session.server_information()


async def test_a_server_that_redirects_is_not_followed_with_the_key() -> None:
    async def redirect(stream: SocketStream) -> None:
        await stream.send(
            b"HTTP/1.1 302 Found\r\nlocation: http://nowhere.invalid/\r\ncontent-length: 0\r\n\r\n"
        )

    async with raw_server(redirect) as url, AsyncSession(url, "key", "user") as session:
        with pytest.raises(ServerError, match="HTTP 302"):
            await session.server_information()
