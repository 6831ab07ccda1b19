"""Callers' own HTTP clients: what is set on them works, and they stay the callers'."""

from __future__ import annotations

import json
import logging
import ssl
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import anyio
import pytest
import trustme

from aioftrackjobs import (
    AsyncSession,
    ConfigurationError,
    ConnectError,
    FtrackJobsError,
    Job,
    ServerError,
    TransferError,
    TransportError,
    job_context,
)
from aioftrackjobs.devserver import ServerHandle

from .settings import AnyClient, Setting
from .wires import Proxy, Received, answering, listening, over_tls, response

pytestmark = pytest.mark.every_client

KEY = "VERY+SECRET/KEY=0123456789"
PASSWORD = "PROXY-PASSWORD-0123456789"
USER = f"maya:{PASSWORD}"


@pytest.fixture
async def client(setting: Setting) -> AsyncIterator[AnyClient]:
    async with setting.make_client(verify=False) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _no_proxies_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


# A caller's client stays the caller's


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
    for _ in range(2):  # the second session finds it as usable as the first
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


async def test_a_session_that_cannot_open_leaves_the_client_alone(client: AnyClient) -> None:
    with pytest.raises(ConfigurationError):
        AsyncSession("no url", "key", "user", client=client)

    assert not client.is_closed


async def test_sessions_share_a_client(server: ServerHandle, client: AnyClient) -> None:
    async with AsyncSession(server.url, server.api_key, server.api_user, client=client) as one:
        async with AsyncSession(server.url, server.api_key, server.api_user, client=client) as two:
            await two.query("User").all()
        assert await one.query("User").all()


async def test_a_client_that_is_closed_meanwhile_is_told_and_nothing_is_uncertain(
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

    def answer(request: Received) -> bytes:
        seen.append(request)
        return response("200 OK", b'[{"version": "dev"}]', set_cookie="sid=from-server; Path=/")

    async with (
        answering(answer) as port,
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


# Nothing of ftrack's goes to a store elsewhere


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
        async with answering(self._answer) as port, answering(self._keep) as store_port:
            self.url = f"http://localhost:{port}"
            self._store_url = (
                f"http://127.0.0.1:{store_port}/bucket/c1?Credential=a%2Fb&X-Amz-Signature=SIGNED"
            )
            yield self

    def _answer(self, request: Received) -> bytes:
        self.api.append(request)
        if request.method == "GET":
            return response("302 Found", location=self._store_url)
        metadata = {
            "url": self._store_url,
            "headers": {"Content-Disposition": 'attachment; filename="größe.txt"'},
        }
        answers: list[object] = [
            metadata if operation["action"] == "get_upload_metadata" else {"data": {}}
            for operation in json.loads(request.body)
        ]
        body = json.dumps(answers).encode()
        return response("200 OK", body, set_cookie="sid=FTRACK-COOKIE; Path=/")

    def _keep(self, request: Received) -> bytes:
        self.store.append(request)
        return response("403 Forbidden") if self.refuses else response("200 OK", b"stored bytes")


@pytest.fixture
async def elsewhere() -> AsyncIterator[Elsewhere]:
    async with Elsewhere().running() as running:
        yield running


async def test_a_store_elsewhere_gets_the_bytes_and_nothing_of_ftracks(
    elsewhere: Elsewhere, client: AnyClient, tmp_path: Path
) -> None:
    async with AsyncSession(elsewhere.url, KEY, "maya", client=client) as session:
        await session.create_component(b"x" * 100_000, name="größe.txt")
        await session.download("c1", tmp_path / "x")

    (asked,) = [request for request in elsewhere.api if request.method == "GET"]
    assert parse_qs(urlsplit(asked.target).query)["apiKey"] == [KEY]
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


async def test_a_refused_upload_is_told_without_its_signature(
    elsewhere: Elsewhere, client: AnyClient
) -> None:
    elsewhere.refuses = True

    async with AsyncSession(elsewhere.url, KEY, "maya", client=client) as session:
        with pytest.raises(TransferError, match="403") as caught:
            await session.create_component(b"x", name="a.txt")

    assert "SIGNED" not in "".join(traceback.format_exception(caught.value))


async def test_a_store_that_hangs_up_during_an_upload_is_told_without_secrets(
    client: AnyClient,
) -> None:
    async def hang_up(stream: anyio.abc.ByteStream) -> None:
        await stream.receive()

    async with listening(hang_up) as store_port:

        def answer(request: Received) -> bytes:
            url = f"http://127.0.0.1:{store_port}/x?X-Amz-Signature=SIGNED"
            return response("200 OK", json.dumps([{"url": url, "headers": {}}]).encode())

        async with (
            answering(answer) as port,
            AsyncSession(f"http://localhost:{port}", KEY, "maya", client=client) as session,
        ):
            with pytest.raises(TransportError) as caught:
                await session.create_component(b"x" * 10_000_000, name="a.txt")

    assert not isinstance(caught.value, ConnectError), "it had left"
    shown = "".join(traceback.format_exception(caught.value))
    assert "SIGNED" not in shown
    assert KEY not in shown


# Proxies


async def use(session: AsyncSession) -> None:
    """Query, commit, and let a Job take its course."""
    async with job_context(session, description="x") as job:
        await session.query("User").all()
    found = await session.get(Job, job.id)
    assert found is not None
    assert found.status == "done"


@pytest.mark.parametrize("user", [None, USER], ids=["open", "with a password"])
async def test_an_http_proxy_that_is_set_on_the_client(
    server: ServerHandle, setting: Setting, tmp_path: Path, user: str | None
) -> None:
    proxy = Proxy(user)
    async with listening(proxy.handle) as port:
        async with (
            setting.make_client(
                proxy=f"http://{user}@127.0.0.1:{port}" if user else f"http://127.0.0.1:{port}",
                verify=False,
            ) as client,
            AsyncSession(server.url, server.api_key, server.api_user, client=client) as session,
        ):
            await use(session)
            component = await session.create_component(b"hello" * 1000, name="a.txt")
            await session.download(component, tmp_path / "a.txt")

    assert (tmp_path / "a.txt").read_bytes() == b"hello" * 1000
    assert {request.method for request in proxy.received} == {"POST", "PUT", "GET"}
    assert all(request.target.startswith(server.url) for request in proxy.received)


@asynccontextmanager
async def session_of(
    setting: Setting, url: str, server: ServerHandle
) -> AsyncIterator[AsyncSession]:
    """A session on a client that looks at the environment: its own, or one of the setting's."""
    if setting.client == "own":
        async with AsyncSession(url, server.api_key, server.api_user) as session:
            yield session
    else:
        async with (
            setting.make_client() as client,
            AsyncSession(url, server.api_key, server.api_user, client=client) as session,
        ):
            yield session


@pytest.mark.parametrize(
    ("no_proxy", "used"), [("", True), ("elsewhere.test", True), ("127.0.0.1", False), ("*", False)]
)
async def test_an_http_proxy_of_the_environment(
    server: ServerHandle,
    setting: Setting,
    monkeypatch: pytest.MonkeyPatch,
    no_proxy: str,
    *,
    used: bool,
) -> None:
    proxy = Proxy()
    async with listening(proxy.handle) as port:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("NO_PROXY", no_proxy)
        async with session_of(setting, server.url, server) as session:
            await use(session)

    assert bool(proxy.received) is used


def printed(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)) + repr(error)


async def test_no_proxy_password_shows(
    server: ServerHandle,
    setting: Setting,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    refusing = Proxy("somebody:else")
    shown: list[str] = []
    async with listening(refusing.handle) as port:
        for url in (f"http://{USER}@127.0.0.1:{port}", f"http://{USER}@127.0.0.1:9"):
            monkeypatch.setenv("HTTP_PROXY", url)
            monkeypatch.setenv("HTTPS_PROXY", url)
            for server_url in (server.url, "https://ftrack.test"):
                async with session_of(setting, server_url, server) as session:
                    with pytest.raises(FtrackJobsError) as caught:
                        await session.query("User").all()
                    shown += [printed(caught.value), repr(session)]

    assert {request.method for request in refusing.received} == {"POST", "CONNECT"}
    assert "407" in shown[0]
    assert PASSWORD not in "".join(shown) + caplog.text


async def test_a_refused_tunnel_means_that_nothing_was_sent(
    setting: Setting, server: ServerHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with listening(Proxy("somebody:else").handle) as port:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        async with session_of(setting, "https://ftrack.test", server) as session:
            session.create(Job, {})
            with pytest.raises(ConnectError):
                await session.commit()
            assert len(session.recorded_operations) == 1
            session.rollback()


@pytest.mark.own_client
@pytest.mark.parametrize(
    "proxy",
    [f"http://maya:{PASSWORD}@h:port", f"ftp://maya:{PASSWORD}@h", f"socks5://maya:{PASSWORD}@h"],
)
async def test_an_unusable_proxy_of_the_environment_is_named_without_its_password(
    monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)

    with pytest.raises(ConfigurationError, match="ALL_PROXY") as caught:
        await AsyncSession("http://ftrack.test", "key", "user").__aenter__()

    assert PASSWORD not in printed(caught.value)


# Certificates


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
async def secure_url(server: ServerHandle, authority: trustme.CA) -> AsyncIterator[str]:
    """The server, over TLS, with a certificate of an authority that nobody knows."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    async with over_tls(server.url, context) as port:
        yield f"https://localhost:{port}"


@pytest.fixture
def authority_file(authority: trustme.CA) -> Iterator[str]:
    with authority.cert_pem.tempfile() as path:
        yield path


async def test_an_unknown_authority_is_not_trusted_and_nothing_is_sent(
    setting: Setting, server: ServerHandle, secure_url: str
) -> None:
    async with session_of(setting, secure_url, server) as session:
        session.create(Job, {})
        with pytest.raises(ConnectError, match=r"(?i)certificate"):
            await session.commit()
        assert len(session.recorded_operations) == 1
        session.rollback()


async def test_an_authority_of_the_environment_is_trusted(
    setting: Setting,
    server: ServerHandle,
    secure_url: str,
    authority_file: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", authority_file)
    async with session_of(setting, secure_url, server) as session:
        await use(session)


async def test_an_authority_that_is_set_on_the_client_is_trusted(
    setting: Setting, server: ServerHandle, secure_url: str, authority_file: str
) -> None:
    context = ssl.create_default_context(cafile=authority_file)
    async with (
        setting.make_client(verify=context) as client,
        AsyncSession(secure_url, server.api_key, server.api_user, client=client) as session,
    ):
        await use(session)


@pytest.mark.parametrize("user", [None, USER], ids=["open", "with a password"])
async def test_https_goes_through_a_tunnel_of_the_proxy(
    setting: Setting,
    server: ServerHandle,
    secure_url: str,
    authority_file: str,
    monkeypatch: pytest.MonkeyPatch,
    user: str | None,
) -> None:
    proxy = Proxy(user)
    async with listening(proxy.handle) as port:
        address = f"127.0.0.1:{port}"
        monkeypatch.setenv(
            "HTTPS_PROXY", f"http://{user}@{address}" if user else f"http://{address}"
        )
        monkeypatch.setenv("SSL_CERT_FILE", authority_file)
        async with session_of(setting, secure_url, server) as session:
            await use(session)

    assert {request.method for request in proxy.received} == {"CONNECT"}
    assert server.api_key not in str(proxy.received), "the proxy sees no key"


@pytest.mark.own_client
async def test_certificates_that_cannot_be_loaded_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "empty.pem").touch()
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "empty.pem"))

    with pytest.raises(ConfigurationError, match="SSL_CERT_FILE"):
        await AsyncSession("https://ftrack.test", "key", "user").__aenter__()


@pytest.mark.own_client
async def test_a_redirection_to_https_finds_the_authority_of_the_environment(
    server: ServerHandle,
    secure_url: str,
    authority_file: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    async with AsyncSession(server.url, server.api_key, server.api_user) as session:
        component = await session.create_component(b"hello", name="a.txt")
    monkeypatch.setenv("SSL_CERT_FILE", authority_file)

    def move(request: Received) -> bytes:
        return response("302 Found", location=secure_url + request.target)

    async with (
        answering(move) as port,
        AsyncSession(f"http://127.0.0.1:{port}", server.api_key, server.api_user) as session,
    ):
        await session.download(component.id, tmp_path / "a.txt")

    assert (tmp_path / "a.txt").read_bytes() == b"hello"
