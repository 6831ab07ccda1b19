"""Redirections, addresses that are no ftrack API, and certificates of a studio's own authority."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import httpx
import pytest
import trustme

from aioftrackjobs import (
    AsyncSession,
    ConfigurationError,
    ConnectError,
    FtrackJobsError,
    Job,
    JobStatus,
    MalformedResponseError,
    ServerError,
    job_context,
)
from aioftrackjobs.config.retry import NO_RETRIES
from aioftrackjobs.devserver import ServerHandle

from .wires import Received, over_tls, responding, response

KEY = "a-key-that-stays-here"


class Redirecting:
    """A server that redirects each request, and remembers them."""

    def __init__(self, status: str, location: str) -> None:
        self.status, self.location = status, location
        self.received: list[Received] = []

    def __call__(self, request: Received) -> bytes:
        self.received.append(request)
        return response(self.status, b"<html>moved</html>", location=self.location)

    def running(self) -> AbstractAsyncContextManager[int]:
        return responding(self)


def session_at(url: str, server: ServerHandle | None = None) -> AsyncSession:
    key, user = (KEY, "maya") if server is None else (server.api_key, server.api_user)
    return AsyncSession(url, key, user, retry=NO_RETRIES)


@pytest.mark.other_client
@pytest.mark.parametrize("status", ["307 Temporary Redirect", "308 Permanent Redirect"])
async def test_a_redirection_on_the_same_host_is_followed(
    server: ServerHandle, other: AsyncSession, status: str
) -> None:
    redirecting = Redirecting(status, f"{server.url}/api")
    async with redirecting.running() as port:
        async with session_at(f"http://127.0.0.1:{port}", server) as session:
            async with job_context(session, description="redirected") as job:
                job.progress(0.5)

    found = await other.get(Job, job.id)
    assert found is not None
    assert (found.status, found.description) == (JobStatus.DONE, "redirected")
    first = redirecting.received[0]
    assert first.method == "POST"
    if status.startswith("308"):
        assert len(redirecting.received) == 1, "it holds for ever"
    else:
        assert len(redirecting.received) > 1


async def test_redirections_may_be_relative_and_several(server: ServerHandle) -> None:
    targets = {"/api": "/one/api", "/one/api": "two/api?x=1", "/one/two/api?x=1": server.url}

    def redirect(request: Received) -> bytes:
        location = targets[request.target]
        location = f"{location}/api" if location == server.url else location
        return response("307 Temporary Redirect", location=location)

    async with responding(redirect) as port:
        async with session_at(f"http://127.0.0.1:{port}", server) as session:
            assert (await session.current_user())["username"] == server.api_user


@pytest.mark.other_client
@pytest.mark.parametrize(
    ("status", "location", "reason"),
    [
        ("301 Moved Permanently", "http://127.0.0.1:9/api", "another one"),
        ("302 Found", "/login?next=SECRET", "another one"),
        ("303 See Other", "/login", "another one"),
        ("307 Temporary Redirect", "http://elsewhere.invalid/api?token=SECRET", "API key"),
        ("308 Permanent Redirect", "https://elsewhere.invalid/api#SECRET", "API key"),
        ("308 Permanent Redirect", "http://maya:SECRET@127.0.0.1:9/api", "API key"),
        ("308 Permanent Redirect", "ftp://127.0.0.1/api", "API key"),
        ("307 Temporary Redirect", "http://[SECRET/", "no address"),
        ("307 Temporary Redirect", "", "no address"),
    ],
)
async def test_another_redirection_is_an_error_that_names_both_addresses(
    status: str, location: str, reason: str
) -> None:
    redirecting = Redirecting(status, location)
    async with redirecting.running() as port:
        url = f"http://127.0.0.1:{port}"
        async with session_at(url) as session:
            for act in (session.server_information, session.query("Job").all):
                with pytest.raises(ServerError) as caught:
                    await act()
                text = str(caught.value)
                assert text.startswith(f"HTTP {status[:3]}: {url}/api redirects to ")
                assert reason in text
                assert "SECRET" not in text
                assert KEY not in text
                if "invalid/" in location:
                    assert "elsewhere.invalid/api" in text
            session.create(Job, {"status": "queued"})
            with pytest.raises(ServerError, match="redirects to"):
                await session.commit()
            assert len(session.recorded_operations) == 1, "it is pending again"
            session.rollback()


async def test_redirections_end() -> None:
    redirecting = Redirecting("307 Temporary Redirect", "/api")
    async with redirecting.running() as port, session_at(f"http://127.0.0.1:{port}") as session:
        with pytest.raises(ServerError, match="after 5 other redirections"):
            await session.server_information()

    assert len(redirecting.received) == 6


def html(_: Received) -> bytes:
    return response("200 OK", b"<html>Sign in</html>", content_type="text/html")


def not_found(_: Received) -> bytes:
    return response("404 Not Found", b"<h1>nothing here</h1>", content_type="text/html")


def json_not_found(_: Received) -> bytes:
    return response("404 Not Found", b'{"detail": "Not Found"}', content_type="application/json")


def another_api(_: Received) -> bytes:
    return response("200 OK", b'{"jsonrpc": "2.0"}', content_type="application/json")


def another_list(_: Received) -> bytes:
    return response("200 OK", b"[1, 2, 3]", content_type="application/json")


def method_not_allowed(_: Received) -> bytes:
    return response("405 Method Not Allowed")


@pytest.mark.other_client
@pytest.mark.parametrize(
    "respond", [html, not_found, json_not_found, another_api, another_list, method_not_allowed]
)
async def test_an_address_that_is_no_api_is_named(respond: Callable[[Received], bytes]) -> None:
    async with responding(respond) as port:
        url = f"http://127.0.0.1:{port}/wrong/path"
        async with session_at(url) as session:
            with pytest.raises((ServerError, MalformedResponseError)) as caught:
                await session.server_information()

    assert f"{url}/api" in str(caught.value)


async def test_the_embedded_server_under_a_wrong_path_is_named(server: ServerHandle) -> None:
    async with session_at(f"{server.url}/ftrack", server) as session:
        with pytest.raises(FtrackJobsError, match=f"{server.url}/ftrack/api"):
            await session.current_user()


# TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def context_of(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return context


@pytest.fixture
def places(authority: trustme.CA, tmp_path: Path) -> Mapping[str, str]:
    """Files and folders that hold certificates, by name."""
    mine, others = tmp_path / "mine.pem", tmp_path / "others.pem"
    authority.cert_pem.write_to_path(str(mine))
    trustme.CA().cert_pem.write_to_path(str(others))
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.pem").write_text("no certificate")
    return {
        "mine": str(mine),
        "others": str(others),
        "none": str(tmp_path / "empty"),
        "missing": str(tmp_path / "missing.pem"),
        "bad": str(tmp_path / "bad.pem"),
        "empty": "",
    }


def set_variables(monkeypatch: pytest.MonkeyPatch, chosen: Mapping[str, str]) -> None:
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in chosen.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    "variables",
    [
        {"REQUESTS_CA_BUNDLE": "mine"},
        {"SSL_CERT_FILE": "mine"},
        {"SSL_CERT_FILE": "empty", "REQUESTS_CA_BUNDLE": "mine"},
        {"SSL_CERT_FILE": "others", "REQUESTS_CA_BUNDLE": "mine"},
        {"SSL_CERT_FILE": "mine", "REQUESTS_CA_BUNDLE": "others"},
        {"SSL_CERT_DIR": "none", "REQUESTS_CA_BUNDLE": "mine"},
    ],
    ids=str,
)
async def test_certificates_of_the_environment_count_for_calls_and_files(
    server: ServerHandle,
    other: AsyncSession,
    authority: trustme.CA,
    places: Mapping[str, str],
    variables: Mapping[str, str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    set_variables(monkeypatch, {name: places[value] for name, value in variables.items()})
    async with over_tls(server.url, context_of(authority)) as port:
        component = await other.create_component(b"text", name="a.txt")
        async with session_at(f"https://localhost:{port}", server) as session:
            assert await session.get("Component", component.id) is not None
            await session.download(component.id, tmp_path / "a.txt")

    assert (tmp_path / "a.txt").read_bytes() == b"text"


async def test_a_folder_of_certificates_counts(
    server: ServerHandle,
    authority: trustme.CA,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    folder = tmp_path / "certificates"
    folder.mkdir()
    (folder / "mine.pem").write_bytes(authority.cert_pem.bytes())
    name = hashed_name(authority.cert_pem.bytes())
    (folder / f"{name}.0").symlink_to(folder / "mine.pem")
    for variable in ("SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"):
        set_variables(monkeypatch, {variable: str(folder)})
        async with over_tls(server.url, context_of(authority)) as port:
            async with session_at(f"https://localhost:{port}", server) as session:
                assert (await session.current_user())["username"] == server.api_user


def hashed_name(pem: bytes) -> str:
    """Return the name under which OpenSSL looks for a certificate in a folder."""
    import subprocess

    made = subprocess.run(
        ["openssl", "x509", "-subject_hash", "-noout"], input=pem, capture_output=True, check=True
    )
    return made.stdout.decode().strip()


@pytest.mark.parametrize("place", ["others", "none"])
@pytest.mark.own_client
async def test_other_certificates_are_not_trusted(
    server: ServerHandle,
    authority: trustme.CA,
    places: Mapping[str, str],
    place: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_variables(monkeypatch, {"REQUESTS_CA_BUNDLE": places[place]})
    async with over_tls(server.url, context_of(authority)) as port:
        async with session_at(f"https://localhost:{port}", server) as session:
            with pytest.raises(ConnectError, match=r"(?i)certificate") as caught:
                await session.current_user()
    assert "to trust in SSL_CERT_FILE" in str(caught.value)


async def test_an_address_without_tls_is_an_error_that_says_so(server: ServerHandle) -> None:
    async with session_at(server.url.replace("http:", "https:"), server) as session:
        with pytest.raises(ConnectError, match="may speak http there"):
            await session.current_user()


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"])
@pytest.mark.parametrize("place", ["missing", "bad"])
@pytest.mark.own_client
async def test_certificates_that_cannot_be_loaded_are_named(
    places: Mapping[str, str], place: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_variables(monkeypatch, {"SSL_CERT_FILE": places["mine"], variable: places[place]})

    with pytest.raises(ConfigurationError) as caught:
        async with session_at("https://localhost:9"):
            pass

    assert variable in str(caught.value)
    assert places[place] in str(caught.value)


@pytest.mark.own_client
async def test_a_redirection_to_the_same_host_with_tls_is_followed_and_verified(
    server: ServerHandle,
    authority: trustme.CA,
    places: Mapping[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with over_tls(server.url, context_of(authority)) as secure:
        redirecting = Redirecting("308 Permanent Redirect", f"https://localhost:{secure}/api")
        async with redirecting.running() as port:
            set_variables(monkeypatch, {"REQUESTS_CA_BUNDLE": places["mine"]})
            async with session_at(f"http://localhost:{port}", server) as session:
                assert (await session.current_user())["username"] == server.api_user
                await session.query("Job").all()

            set_variables(monkeypatch, {"REQUESTS_CA_BUNDLE": places["others"]})
            async with session_at(f"http://localhost:{port}", server) as session:
                with pytest.raises(ConnectError, match=r"(?i)certificate"):
                    await session.current_user()

            set_variables(monkeypatch, {"REQUESTS_CA_BUNDLE": places["missing"]})
            async with session_at(f"http://localhost:{port}", server) as session:
                with pytest.raises(ConfigurationError, match="REQUESTS_CA_BUNDLE"):
                    await session.current_user()


async def test_a_redirection_out_of_tls_is_not_followed() -> None:
    sent: list[httpx.Request] = []

    def redirect(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(308, headers={"location": "http://ftrack.test/api"})

    async with (
        httpx.AsyncClient(transport=httpx.MockTransport(redirect)) as client,
        AsyncSession(
            "https://ftrack.test", KEY, "maya", client=client, retry=NO_RETRIES
        ) as session,
    ):
        with pytest.raises(
            ServerError, match=r"https://ftrack\.test/api redirects to http://ftrack"
        ):
            await session.server_information()

    assert len(sent) == 1
