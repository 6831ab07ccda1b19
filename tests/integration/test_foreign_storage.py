"""Uploads to and downloads from an object store that is not the ftrack server."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import httpx
import pytest

from aioftrackjobs import AsyncSession, FtrackJobsError, TransferError, TransportError
from aioftrackjobs.config.retry import NO_RETRIES
from aioftrackjobs.devserver import ServerHandle

from ..tables import result_of
from .waiting import cancelled_after

KEY = "VERY-SECRET-KEY-0123456789"
SIGNED = "https://store.test/bucket/c1?X-Amz-Signature=TOPSECRETSIG"

Store = Callable[[httpx.Request], httpx.Response]


class Studio:
    """An ftrack server whose files are in a store on another host."""

    def __init__(self, store: Store, *, headers: dict[str, str] | None = None) -> None:
        self._store = store
        self._headers = headers or {}
        self.created: list[str] = []
        self.requests: list[httpx.Request] = []

    def respond(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if request.url.host != "ftrack.test":
            return self._store(request)
        if request.url.path != "/api":
            return httpx.Response(302, headers={"location": SIGNED})
        results: list[dict[str, object]] = []
        for operation in json.loads(request.content):
            if operation["action"] == "get_upload_metadata":
                results.append({"url": SIGNED, "headers": self._headers})
            else:
                self.created.append(operation["entity_type"])
                results.append(result_of(operation))
        return httpx.Response(200, json=results)


@asynccontextmanager
async def opened(studio: Studio, **options: bool) -> AsyncIterator[AsyncSession]:
    async with (
        httpx.AsyncClient(transport=httpx.MockTransport(studio.respond), **options) as client,  # type: ignore[arg-type]
        AsyncSession(
            "https://ftrack.test", KEY, "maya", client=client, retry=NO_RETRIES
        ) as session,
    ):
        yield session


def accept(request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, content=b"" if request.method == "PUT" else b"stored bytes")


@pytest.mark.other_client
async def test_the_store_gets_the_bytes_and_no_credentials() -> None:
    studio = Studio(accept, headers={"Content-Type": "text/plain"})

    async with opened(studio) as session:
        await session.create_component(b"hello", name="a.txt")

    (upload,) = [request for request in studio.requests if request.url.host == "store.test"]
    assert upload.content == b"hello"
    assert upload.headers["content-length"] == "5"
    assert upload.headers["content-type"] == "text/plain"
    assert KEY not in str(upload.headers) + str(upload.url)
    assert studio.created == ["FileComponent", "ComponentLocation"]


async def test_a_header_that_names_a_file_may_hold_any_characters() -> None:
    disposition = 'attachment; filename="größe.txt"'
    studio = Studio(accept, headers={"Content-Disposition": disposition})

    async with opened(studio) as session:
        await session.create_component(b"x", name="größe.txt")

    (upload,) = [request for request in studio.requests if request.url.host == "store.test"]
    assert dict(upload.headers.raw)[b"content-disposition"] == disposition.encode()


async def test_a_redirection_of_an_upload_is_followed() -> None:
    def move_once(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/elsewhere":
            return httpx.Response(200)
        return httpx.Response(307, headers={"location": "/elsewhere"})

    studio = Studio(move_once)

    async with opened(studio) as session:
        await session.create_component(b"hello", name="a.txt")

    assert [request.content for request in studio.requests if request.method == "PUT"] == [
        b"hello",
        b"hello",
    ]
    assert studio.created == ["FileComponent", "ComponentLocation"]


@pytest.mark.parametrize(
    "response",
    [
        httpx.Response(302, headers={"location": "https://login.test"}),
        httpx.Response(307, headers={"location": SIGNED}),
        httpx.Response(307, headers={"location": "http://[x"}),
        httpx.Response(304),
        httpx.Response(403, text="<Error>expired</Error>"),
        httpx.Response(500),
    ],
    ids=lambda response: str(response.status_code),
)
async def test_an_upload_that_did_not_succeed_registers_nothing(response: httpx.Response) -> None:
    studio = Studio(lambda _: response)

    async with opened(studio) as session:
        with pytest.raises(TransferError, match=str(response.status_code)) as caught:
            await session.create_component(b"hello", name="a.txt")

    assert studio.created == []
    assert "TOPSECRETSIG" not in str(caught.value)


@pytest.mark.other_client
async def test_a_download_follows_the_redirection_to_the_store(tmp_path: Path) -> None:
    studio = Studio(accept)

    async with opened(studio) as session:
        await session.download("c1", tmp_path / "x")

    assert (tmp_path / "x").read_bytes() == b"stored bytes"


async def test_a_redirected_api_call_does_not_send_the_key() -> None:
    seen: list[str] = []

    def elsewhere(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.host)
        return httpx.Response(302, headers={"location": "https://evil.test/api"})

    async with (
        httpx.AsyncClient(
            transport=httpx.MockTransport(elsewhere), follow_redirects=True
        ) as client,
        AsyncSession("https://ftrack.test", KEY, "maya", client=client) as session,
    ):
        session.create("Job", {})
        with pytest.raises(FtrackJobsError, match="302"):
            await session.commit()
        assert len(session.recorded_operations) == 1, "a redirected call was not applied"
        session.rollback()

    assert set(seen) == {"ftrack.test"}


@pytest.mark.parametrize("error", [httpx.ConnectError("no"), httpx.ReadError("gone")])
async def test_no_error_holds_a_request_with_secrets(error: Exception, tmp_path: Path) -> None:
    def fail(_: httpx.Request) -> httpx.Response:
        raise error

    async with (
        httpx.AsyncClient(transport=httpx.MockTransport(fail)) as client,
        AsyncSession(
            "https://ftrack.test", KEY, "maya", client=client, retry=NO_RETRIES
        ) as session,
    ):
        with pytest.raises(TransportError) as caught:
            await session.download("c1", tmp_path / "x")

    chain: BaseException | None = caught.value
    while chain is not None:
        assert not isinstance(chain, httpx.HTTPError)
        chain = chain.__cause__ or chain.__context__


async def test_nothing_that_is_logged_holds_a_signature_or_cookie(
    caplog: pytest.LogCaptureFixture, tmp_path: Path, setting: object
) -> None:
    """It needs a real socket, because httpcore logs headers."""

    async def handle(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(
                b"HTTP/1.1 302 Found\r\nlocation: /x?X-Amz-Signature=TOPSECRETSIG\r\n"
                b"set-cookie: session=TOPSECRETCOOKIE\r\ncontent-length: 0\r\n\r\n"
            )

    caplog.set_level(logging.DEBUG)
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        async with anyio.create_task_group() as group:
            group.start_soon(listener.serve, handle)
            port = listener.extra(anyio.abc.SocketAttribute.local_port)
            url = f"http://127.0.0.1:{port}"
            async with AsyncSession(url, KEY, "maya", retry=NO_RETRIES) as session:
                with pytest.raises(FtrackJobsError):
                    await session.download("c1", tmp_path / "x")
            group.cancel_scope.cancel()

    if "own" in str(setting):
        assert f"GET to {url}: HTTP 302" in caplog.text
    elif "aiohttp" not in str(setting):  # aiohttp logs no headers
        assert "location" in caplog.text, "httpcore has logged the headers"
    assert "TOPSECRET" not in caplog.text
    assert KEY not in caplog.text


@pytest.mark.other_client
async def test_a_cancelled_upload_never_registers_a_component_without_its_file(
    session: AsyncSession, other: AsyncSession, server: ServerHandle, tmp_path: Path
) -> None:
    for count in range(0, 120, 3):
        async with cancelled_after(count):
            await session.create_component(b"hello", name="a.txt")

    for component in await other.query("select id from Component").all():
        await other.download(component, tmp_path / "x")
        assert (tmp_path / "x").read_bytes() == b"hello"
