"""HTTP clients of callers: their settings are used, and they are never closed."""

from __future__ import annotations

import json
import subprocess
import sys
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anyio
import pytest
from anyio.to_thread import run_sync

from aioftrackjobs import (
    AsyncSession,
    ConfigurationError,
    ConnectError,
    Job,
    ServerError,
    TransferError,
    TransportError,
)
from aioftrackjobs.config.retry import NO_RETRIES
from aioftrackjobs.devserver import ServerHandle

from ..tables import result_of
from .settings import AnyClient, Setting
from .wires import Received, listening, responding, response

pytestmark = pytest.mark.every_client

KEY = "VERY+SECRET/KEY=0123456789"


@pytest.fixture
async def client(setting: Setting) -> AsyncIterator[AnyClient]:
    async with setting.make_client(verify=False) as opened:
        yield opened


# The session's own client

_PROGRAM = """
import asyncio, sys
if "without" in sys.argv:
    sys.modules["httpx2"] = None

from aioftrackjobs import AsyncSession

async def main():
    async with AsyncSession(*sys.argv[1:4]) as session:
        component = await session.create_component(b"hello", name="a.txt")
        loaded = {name for name in ("httpx", "httpx2") if sys.modules.get(name)}
        print(component.size, loaded)

asyncio.run(main())
"""


@pytest.mark.own_client
@pytest.mark.asyncio_only
@pytest.mark.parametrize(("given", "used"), [("with", "httpx2"), ("without", "httpx")])
async def test_the_own_client_uses_httpx2_where_it_is_installed_and_no_other(
    server: ServerHandle, given: str, used: str
) -> None:
    command = [sys.executable, "-c", _PROGRAM, server.url, server.api_key, server.api_user, given]

    done = await run_sync(lambda: subprocess.run(command, capture_output=True, text=True))

    assert (done.stdout.strip(), done.stderr) == (f"5 {{'{used}'}}", "")


# A client of the caller is never closed


async def nothing(session: AsyncSession) -> None:
    await session.query("User").all()


async def fail(session: AsyncSession) -> None:
    await session.query("User").all()
    raise ValueError("the caller's")


async def be_cancelled(session: AsyncSession) -> None:
    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(session.query("User").all)
        await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()


async def be_refused(session: AsyncSession) -> None:
    await session.query("select nonsense from Job").all()


@pytest.mark.parametrize("leave", [nothing, fail, be_cancelled, be_refused])
async def test_a_callers_client_is_never_closed(
    server: ServerHandle, client: AnyClient, leave: Callable[[AsyncSession], object]
) -> None:
    for _ in range(2):  # the client must still be usable for a second session
        with anyio.CancelScope() as scope:
            try:
                async with AsyncSession(
                    server.url, server.api_key, server.api_user, client=client
                ) as session:
                    if leave is be_cancelled:
                        scope.cancel()
                    await leave(session)  # type: ignore[misc]
            except (ValueError, ServerError):
                assert leave in (fail, be_refused)
    assert not client.is_closed

    async with AsyncSession(server.url, server.api_key, server.api_user, client=client) as session:
        assert await session.query("User").all()


async def test_a_response_hook_of_the_client_may_read_a_download(
    server: ServerHandle, client: AnyClient, tmp_path: Path
) -> None:
    """Hooks that log responses do this."""

    async def read(response: Any) -> None:
        await response.aread()

    client.event_hooks = {"response": [read]}
    body = bytes(5_000_000)  # several pieces
    async with AsyncSession(
        server.url, server.api_key, server.api_user, client=client, retry=NO_RETRIES
    ) as session:
        component = await session.create_component(body, name="plate.exr")
        path = await session.download(component, tmp_path / "back")

    assert path.read_bytes() == body


async def test_a_session_that_cannot_open_leaves_the_client_alone(client: AnyClient) -> None:
    with pytest.raises(ConfigurationError):
        AsyncSession("no url", "key", "user", client=client)

    assert not client.is_closed


async def test_sessions_share_a_client(server: ServerHandle, client: AnyClient) -> None:
    async with AsyncSession(server.url, server.api_key, server.api_user, client=client) as one:
        async with AsyncSession(server.url, server.api_key, server.api_user, client=client) as two:
            await two.query("User").all()
        assert await one.query("User").all()


async def test_a_client_that_was_closed_raises_and_nothing_is_uncertain(
    server: ServerHandle, setting: Setting
) -> None:
    client = setting.make_client(verify=False)
    async with AsyncSession(server.url, server.api_key, server.api_user, client=client) as session:
        await session.query("User").all()
        await client.aclose()
        session.create(Job, {})
        with pytest.raises(ConnectError, match="closed"):
            await session.commit()
        assert len(session.recorded_operations) == 1
        session.rollback()


# What is set on the client reaches the server


async def test_headers_and_cookies_of_the_client_reach_the_server(setting: Setting) -> None:
    seen: list[Received] = []

    def respond(request: Received) -> bytes:
        seen.append(request)
        return response("200 OK", b'[{"version": "dev"}]', set_cookie="sid=from-server; Path=/")

    async with (
        responding(respond) as port,
        setting.make_client(headers={"X-Studio": "north"}, cookies={"sso": "abc"}) as client,
        AsyncSession(f"http://localhost:{port}", KEY, "größe", client=client) as session,
    ):
        await session.call([{"action": "query_server_information"}])
        await session.call([{"action": "query_server_information"}])

    for request in seen:
        assert request.headers["x-studio"] == "north"
        assert "sso=abc" in request.headers["cookie"]
        assert request.headers["ftrack-api-key"] == KEY
        assert request.headers["ftrack-user"] == "größe"
        assert request.headers["content-type"] == "application/json"
    assert "sid=from-server" in seen[1].headers["cookie"], "cookies are kept, as httpx does"


# A foreign store gets no credentials


class Elsewhere:
    """A studio on ``localhost`` whose files are in a store on ``127.0.0.1``."""

    def __init__(self) -> None:
        self.api: list[Received] = []
        self.store: list[Received] = []
        self.refuses = False
        self.url = ""
        self._store_url = ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Elsewhere]:
        async with responding(self._respond) as port, responding(self._keep) as store_port:
            self.url = f"http://localhost:{port}"
            self._store_url = (
                f"http://127.0.0.1:{store_port}/bucket/c1?Credential=a%2Fb&X-Amz-Signature=SIGNED"
            )
            yield self

    def _respond(self, request: Received) -> bytes:
        self.api.append(request)
        if request.method == "GET":
            return response("302 Found", location=self._store_url)
        metadata = {
            "url": self._store_url,
            "headers": {"Content-Disposition": 'attachment; filename="größe.txt"'},
        }
        results: list[object] = [
            metadata if operation["action"] == "get_upload_metadata" else result_of(operation)
            for operation in json.loads(request.body)
        ]
        body = json.dumps(results).encode()
        return response("200 OK", body, set_cookie="sid=FTRACK-COOKIE; Path=/")

    def _keep(self, request: Received) -> bytes:
        self.store.append(request)
        return response("403 Forbidden") if self.refuses else response("200 OK", b"stored bytes")


@pytest.fixture
async def elsewhere() -> AsyncIterator[Elsewhere]:
    async with Elsewhere().running() as running:
        yield running


async def test_a_foreign_store_gets_the_bytes_and_no_credentials(
    elsewhere: Elsewhere, client: AnyClient, tmp_path: Path
) -> None:
    async with AsyncSession(elsewhere.url, KEY, "maya", client=client) as session:
        await session.create_component(b"x" * 100_000, name="größe.txt")
        await session.download("c1", tmp_path / "x")

    (request,) = [each for each in elsewhere.api if each.method == "GET"]
    assert parse_qs(urlsplit(request.target).query)["apiKey"] == [KEY]
    upload = elsewhere.store[0]
    assert (upload.method, upload.body) == ("PUT", b"x" * 100_000)
    assert upload.headers["content-length"] == "100000"
    assert "transfer-encoding" not in upload.headers
    assert upload.headers["content-disposition"] == 'attachment; filename="größe.txt"'
    assert (tmp_path / "x").read_bytes() == b"stored bytes"
    assert [request.method for request in elsewhere.store] == ["PUT", "GET"]
    for request in elsewhere.store:
        assert parse_qs(urlsplit(request.target).query)["Credential"] == ["a/b"]
        assert [name for name in request.headers if name.startswith("ftrack")] == []
        assert "FTRACK-COOKIE" not in str(request.headers)
        assert KEY not in str(request)


async def test_the_error_of_a_rejected_upload_hides_its_signature(
    elsewhere: Elsewhere, client: AnyClient
) -> None:
    elsewhere.refuses = True

    async with AsyncSession(elsewhere.url, KEY, "maya", client=client) as session:
        with pytest.raises(TransferError, match="403") as caught:
            await session.create_component(b"x", name="a.txt")

    assert "SIGNED" not in "".join(traceback.format_exception(caught.value))


async def test_the_error_of_a_closed_connection_hides_secrets(
    client: AnyClient,
) -> None:
    async def hang_up(stream: anyio.abc.ByteStream) -> None:
        await stream.receive()

    async with listening(hang_up) as store_port:

        def respond(request: Received) -> bytes:
            url = f"http://127.0.0.1:{store_port}/x?X-Amz-Signature=SIGNED"
            return response("200 OK", json.dumps([{"url": url, "headers": {}}]).encode())

        async with (
            responding(respond) as port,
            AsyncSession(
                f"http://localhost:{port}", KEY, "maya", client=client, retry=NO_RETRIES
            ) as session,
        ):
            with pytest.raises(TransportError) as caught:
                await session.create_component(b"x" * 10_000_000, name="a.txt")

    assert not isinstance(caught.value, ConnectError), "it had left"
    shown = "".join(traceback.format_exception(caught.value))
    assert "SIGNED" not in shown
    assert KEY not in shown
