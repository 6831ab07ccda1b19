"""Proxies and certificate authorities, of the environment and of a client of the caller."""

from __future__ import annotations

import logging
import ssl
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme
from anyio.to_thread import run_sync

from aioftrackjobs import (
    AsyncSession,
    ConfigurationError,
    ConnectError,
    FtrackJobsError,
    Job,
    TransportError,
    job_context,
)
from aioftrackjobs.config.retry import NO_RETRIES
from aioftrackjobs.devserver import ServerHandle
from aioftrackjobs.session import connection_of

from .settings import Setting
from .wires import Proxy, Received, listening, over_tls, responding, response

pytestmark = pytest.mark.other_client

PASSWORD = "PROXY-PASSWORD-0123456789"
USER = f"maya:{PASSWORD}"


@pytest.fixture(autouse=True)
def _no_proxies_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


# Proxies


async def status_of_job(session: AsyncSession) -> object:
    """Query, commit, and run a Job; return the status that the server has of it then."""
    async with job_context(session, description="x") as job:
        await session.query("User").all()
    found = await session.get(Job, job.id)
    return found and found.status


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
            AsyncSession(
                server.url, server.api_key, server.api_user, client=client, retry=NO_RETRIES
            ) as session,
        ):
            assert await status_of_job(session) == "done"
            component = await session.create_component(b"hello" * 1000, name="a.txt")
            await session.download(component, tmp_path / "a.txt")

    assert (tmp_path / "a.txt").read_bytes() == b"hello" * 1000
    assert {request.method for request in proxy.received} == {"POST", "PUT", "GET"}
    assert all(request.target.startswith(server.url) for request in proxy.received)


@asynccontextmanager
async def session_of(
    setting: Setting, url: str, server: ServerHandle
) -> AsyncIterator[AsyncSession]:
    """A session whose client reads the environment: its own, or the client of the setting."""
    if setting.client == "own":
        async with AsyncSession(url, server.api_key, server.api_user, retry=NO_RETRIES) as session:
            yield session
    else:
        async with (
            setting.make_client() as client,
            AsyncSession(
                url, server.api_key, server.api_user, client=client, retry=NO_RETRIES
            ) as session,
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
            assert await status_of_job(session) == "done"

    assert bool(proxy.received) is used


def printed(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)) + repr(error)


async def test_errors_hide_the_password_of_a_proxy(
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


async def test_a_rejected_tunnel_is_a_connect_error(
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
    """The server, over TLS, with a certificate of an unknown authority."""
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
        assert await status_of_job(session) == "done"


async def test_an_authority_that_is_set_on_the_client_is_trusted(
    setting: Setting, server: ServerHandle, secure_url: str, authority_file: str
) -> None:
    context = ssl.create_default_context(cafile=authority_file)
    async with (
        setting.make_client(verify=context) as client,
        AsyncSession(
            secure_url, server.api_key, server.api_user, client=client, retry=NO_RETRIES
        ) as session,
    ):
        assert await status_of_job(session) == "done"


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
            assert await status_of_job(session) == "done"

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
    async with AsyncSession(
        server.url, server.api_key, server.api_user, retry=NO_RETRIES
    ) as session:
        component = await session.create_component(b"hello", name="a.txt")
    monkeypatch.setenv("SSL_CERT_FILE", authority_file)

    def move(request: Received) -> bytes:
        return response("302 Found", location=secure_url + request.target)

    async with (
        responding(move) as port,
        AsyncSession(
            f"http://localhost:{port}", server.api_key, server.api_user, retry=NO_RETRIES
        ) as session,
    ):
        await session.download(component.id, tmp_path / "a.txt")

    assert (tmp_path / "a.txt").read_bytes() == b"hello"


# A thread that calls the server while the event loop is blocked


async def call_in_thread(session: AsyncSession) -> list[object]:
    operations = [{"action": "query", "expression": "select id from User"}]
    (result,) = await run_sync(connection_of(session).call_in_thread, operations)
    found: list[object] = result["data"]
    return found


@pytest.mark.own_client
async def test_a_thread_calls_through_the_proxy_of_the_session(
    server: ServerHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = Proxy()
    async with listening(proxy.handle) as port:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")
        async with AsyncSession(server.url, server.api_key, server.api_user) as session:
            assert await call_in_thread(session)
    assert [request.target for request in proxy.received] == [f"{server.url}/api"]


@pytest.mark.own_client
async def test_a_thread_trusts_the_authorities_of_the_session(
    server: ServerHandle, secure_url: str, authority_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with AsyncSession(secure_url, server.api_key, server.api_user) as session:
        with pytest.raises(TransportError) as caught:
            await call_in_thread(session)
        monkeypatch.setenv("SSL_CERT_FILE", authority_file)
        assert await call_in_thread(session)
    assert server.api_key not in "".join(traceback.format_exception(caught.value))


async def test_a_thread_does_not_go_past_a_client_of_the_callers(
    setting: Setting, server: ServerHandle
) -> None:
    async with session_of(setting, server.url, server) as session:
        assert connection_of(session).may_call_in_thread is (setting.client == "own")
