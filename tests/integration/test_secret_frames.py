"""No variable of a frame of an error shows the API key, or an address that gives access to a file.

``leaks`` searches the frames of libraries, too, and the causes and contexts of the error.
"""

from __future__ import annotations

import asyncio
import copy
import gc
import logging
import os
import pickle
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from anyio.abc import ByteStream

from aioftrackjobs import AsyncSession, FtrackJobsError, TransportError, job_context
from aioftrackjobs.config.retry import NO_RETRIES
from aioftrackjobs.config.secret import Secret
from aioftrackjobs.devserver import ServerHandle, running
from aioftrackjobs.protocol.upload import PartSizes
from aioftrackjobs.session import context_of
from aioftrackjobs.transfers.upload import upload
from aioftrackjobs.transport import WireRequest

from .frames import leaks, number_of_frames
from .settings import QUICK, Setting
from .wires import Received, listening, receive_request, responding, response

KEY = "VERY-SECRET/KEY+0123456789"
QUOTED = "VERY-SECRET%2FKEY%2B0123456789"

#: Parts of three bytes, so that a file of ten has several.
SIZES = PartSizes((), largest=3, fewest=2)

Respond = Callable[[Received], bytes | None]


class Front:
    """Stands before a server; answers chosen requests itself.

    Attributes:
        url: Its address.
        about: What the target of a request begins with that it answers itself.
        respond: Returns the answer; None to say nothing until the client gives up, and no bytes
            to close the connection.
        secrets: The key, and the addresses of the store that it has seen.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self.url = ""
        self.about = "never"
        self.respond: Respond = lambda _: None
        self.secrets = {KEY, QUOTED}

    async def handle(self, stream: ByteStream) -> None:
        while True:
            request = await receive_request(stream)
            if request.target.startswith("/upload/"):
                self.secrets.add(request.target)
            if request.target.startswith(self.about):
                answer = self.respond(request)
                if answer is None:
                    await anyio.sleep_forever()
                elif not answer:
                    return
                else:
                    await stream.send(answer)
            else:
                await self._forward(request, stream)

    async def _forward(self, request: Received, stream: ByteStream) -> None:
        lines = [f"{name}: {value}" for name, value in request.headers.items()]
        head = f"{request.method} {request.target} HTTP/1.1\r\n" + "\r\n".join(lines) + "\r\n\r\n"
        async with await anyio.connect_tcp("127.0.0.1", self._port) as server:
            await server.send(head.encode("latin-1") + request.body)
            answer = b""
            while b"\r\n\r\n" not in answer:
                answer += await server.receive()
            size = int(answer.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
            while len(answer.partition(b"\r\n\r\n")[2]) < size:
                answer += await server.receive()
        await stream.send(answer)


@asynccontextmanager
async def fronting(server: ServerHandle) -> AsyncIterator[Front]:
    front = Front(int(server.url.rpartition(":")[2]))
    async with listening(front.handle) as port:
        front.url = f"http://127.0.0.1:{port}"
        yield front


def echo(request: Received) -> str:
    return f"{request.method} {request.target} {request.headers} {KEY}"


def refusal(request: Received) -> bytes:
    text = f'[{{"exception": "ServerError", "content": "{KEY}", "error_code": "x"}}]'
    return response("200 OK", text.encode())


def page(status: str) -> Respond:
    return lambda request: response(status, echo(request).encode(), content_type="text/html")


def moved(location: str, status: str = "302 Found") -> Respond:
    def respond(request: Received) -> bytes:
        query = request.target.partition("?")[2]
        return response(status, b"", location=f"{location}?{query}&signature={KEY}")

    return respond


def odd_result(request: Received) -> bytes:
    signed = KEY if b"get_upload_metadata" in request.body else ""
    return response("200 OK", f'[{{"urls": "{signed}"}}]'.encode())


def broken_off(request: Received) -> bytes:
    return response("200 OK", b"some", content_length="400", etag='"a"')


#: What the server does, by what a failing test calls it.
FAULTS: dict[str, Respond] = {
    "closes": lambda _: b"",
    "is silent": lambda _: None,
    "fails": page("500 Oops"),
    "refuses": page("403 Forbidden"),
    "rejects": page("400 Bad Request"),
    "has a page": page("200 OK"),
    "refuses in JSON": refusal,
    "is no HTTP": lambda request: f"!{echo(request)}\r\n\r\n".encode(),
    "repeats a result": lambda _: response("200 OK", f'[{{"url": "{KEY}"}}, {{}}]'.encode()),
    "has an odd result": odd_result,
    "answers another call": lambda _: response(
        "200 OK", f'[{{"action": "update", "data": {{"id": "{KEY}"}}}}]'.encode()
    ),
    "has no result": lambda _: response("200 OK", f'{{"url": "{KEY}"}}'.encode()),
    "breaks off": broken_off,
    "redirects to another host": moved("http://localhost:9/x"),
    "redirects nowhere": moved("http://"),
    "redirects to itself": moved("/component/get", "307 Again"),
    "redirects to another scheme": moved("ftp://127.0.0.1/x"),
}


async def failing(action: Callable[[], Awaitable[object]]) -> BaseException | None:
    """Return the error of *action*, which a time limit ends; None if there is none."""
    try:
        with anyio.fail_after(0.4):
            await action()
    except Exception as exc:  # noqa: BLE001 - what it is, the caller finds out
        return exc
    return None


def actions(session: AsyncSession, folder: Path) -> dict[str, tuple[str, Any]]:
    """Return what users do, and which requests of it fail."""

    async def commit() -> None:
        session.create("Job", {"status": "queued"})
        try:
            await session.commit()
        finally:
            session.rollback()

    async def run_job() -> None:
        async with job_context(session, grace=0.1):
            raise LookupError("the work fails")

    async def in_parts() -> None:
        await upload(context_of(session), b"0123456789", data={}, name="x", sizes=SIZES)

    return {
        "query": ("/api", lambda: session.query("Job").all()),
        "call": ("/api", lambda: session.call([{"action": "query_server_information"}])),
        "get": ("/api", lambda: session.get("Job", "x")),
        "commit": ("/api", commit),
        "claim": ("/api", lambda: session.claim_job("Job")),
        "Job": ("/api", run_job),
        "announced upload": ("/api", lambda: session.create_component(b"0", name="x")),
        "announced parts": ("/api", in_parts),
        "upload": ("/upload/", lambda: session.create_component(b"0123", name="x")),
        "upload in parts": ("/upload/", in_parts),
        "download": ("/component/get", lambda: session.download("x", folder / "x")),
        "resumed": ("/component/get", lambda: session.download("x", folder / "y", resume=True)),
        "unwritable": ("/component/get", lambda: session.download("x", folder / "no" / "x")),
    }


#: The names of the actions.
ACTIONS = tuple(actions(AsyncSession("https://ftrack.test", KEY, "maya"), Path()))


@pytest.mark.other_client
async def test_no_frame_of_a_failure_shows_the_key_or_a_signed_address(tmp_path: Path) -> None:
    """Every action with every fault. Most of them wait, so some are tried beside each other."""
    found: list[str] = []
    failures = frames = 0

    async def run(name: str, server: ServerHandle, faults: Sequence[str]) -> None:
        nonlocal failures, frames
        folder = tmp_path / f"{name} {faults[0]}"
        folder.mkdir()
        async with (
            fronting(server) as front,
            AsyncSession(front.url, KEY, server.api_user, retry=NO_RETRIES) as session,
        ):
            about, action = actions(session, folder)[name]
            for fault in faults:
                front.about, front.respond = about, FAULTS[fault]
                error = await failing(action)
                front.about = "never"
                if error is not None:
                    failures += 1
                    frames += number_of_frames(error)
                    for leak in leaks(error, *front.secrets):
                        found.append(f"{name}, the server {fault}: {leak}")

    async with running(api_key=KEY) as server, anyio.create_task_group() as group:
        for name in ACTIONS:
            for start in range(4):
                group.start_soon(run, name, server, list(FAULTS)[start::4])

    assert failures > 150
    assert frames > 1000
    assert "\n".join(sorted(set(found))) == ""


@pytest.mark.other_client
async def test_no_frame_shows_it_if_nothing_listens(tmp_path: Path) -> None:
    found: list[str] = []
    async with AsyncSession("http://127.0.0.1:9", KEY, "maya", retry=NO_RETRIES) as session:
        for name, (_, action) in actions(session, tmp_path).items():
            error = await failing(action)
            assert error is not None, name
            found += [f"{name}: {leak}" for leak in leaks(error, KEY, QUOTED)]

    assert "\n".join(found) == ""


class FailingFile:
    """A file that cannot be read any more after its first piece."""

    def __init__(self, path: Path, size: int) -> None:
        path.write_bytes(bytes(size))
        self.path = path

    def shrink(self, _: int, __: object) -> None:
        os.truncate(self.path, 5)


@pytest.mark.other_client
@pytest.mark.parametrize("kind", ["a callback", "a changed file", "a full disk"])
async def test_no_frame_shows_it_if_our_side_fails(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the caller's passes through the frames of the HTTP client."""
    file = FailingFile(tmp_path / "f", 8_000_000)

    def fail(*_: object) -> int:
        raise LookupError("the caller fails")

    found: list[str] = []
    async with (
        running(api_key=KEY) as server,
        fronting(server) as front,
        AsyncSession(front.url, KEY, server.api_user, retry=NO_RETRIES) as session,
    ):
        component = await session.create_component(os.urandom(3_000_000), name="x")
        upload_progress = file.shrink if kind == "a changed file" else fail
        sizes = PartSizes((), largest=4_000_000, fewest=2)
        whole: Any = {"name": "x", "progress": upload_progress}
        tried: list[Callable[[], Awaitable[object]]] = [
            lambda: session.create_component(file.path, **whole),
            lambda: upload(context_of(session), file.path, data={}, sizes=sizes, **whole),
        ]
        if kind == "a full disk":
            from aioftrackjobs.transfers.partial_file import PartialFile

            def full(*_: object) -> int:
                raise OSError(28, "No space left on device")

            monkeypatch.setattr(PartialFile, "_write_some", full)
            tried = [lambda: session.download(component, tmp_path / "y")]
        elif kind == "a callback":
            tried.append(lambda: session.download(component, tmp_path / "y", progress=fail))
        for action in tried:
            os.truncate(file.path, 8_000_000)
            with pytest.raises((FtrackJobsError, LookupError)) as caught:
                await action()
            found += leaks(caught.value, *front.secrets)

    assert len(front.secrets) > 2
    assert "\n".join(found) == ""


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (("no address", KEY, "maya"), {}),
        (("https://ftrack.test", KEY, None), {}),
        (("https://ftrack.test", f"{KEY}\n", "maya\n\n\0"), {}),
        ((None, None, None), {"FTRACK_API_KEY": KEY}),
        ((None, None, None), {"FTRACK_APIKEY": KEY, "FTRACK_SERVER": "no address"}),
    ],
)
async def test_no_frame_shows_it_if_a_session_cannot_be_made(
    arguments: tuple[Any, ...], environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FTRACK_SERVER", "FTRACK_API_USER"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(FtrackJobsError) as caught:
        AsyncSession(*arguments)

    assert "\n".join(leaks(caught.value, KEY)) == ""


@pytest.mark.parametrize("option", ["timeout", "client", "lease", "transfers", "retry", "journal"])
async def test_no_frame_shows_it_if_another_argument_is_wrong(option: str) -> None:
    with pytest.raises(FtrackJobsError) as caught:
        AsyncSession("https://ftrack.test", KEY, "maya", **{option: object()})  # type: ignore[arg-type]

    assert "\n".join(leaks(caught.value, KEY)) == ""


@pytest.mark.every_loop
@pytest.mark.own_client
async def test_no_frame_shows_it_if_a_session_cannot_be_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    unusable = AsyncSession("https://ftrack.test", KEY, "m", journal=tmp_path / "file" / "journal")
    unknown = AsyncSession("https://ftrack.test", KEY, "m")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none"))
    errors = []
    for session in (unusable, unknown):
        with pytest.raises(FtrackJobsError) as caught:
            async with session:
                pass
        errors.append(caught.value)
        with pytest.raises(FtrackJobsError) as caught:
            await session.query("Job").all()
        errors.append(caught.value)

    assert [leak for error in errors for leak in leaks(error, KEY)] == []


@pytest.mark.other_client
async def test_no_frame_shows_it_if_the_session_closes_meanwhile(tmp_path: Path) -> None:
    found: list[str] = []

    async def run(name: str, session: AsyncSession, secrets: set[str]) -> None:
        _, action = actions(session, tmp_path)[name]
        try:
            await action()
        except FtrackJobsError as exc:
            found.append(name)
            found.extend(f"{name}: {leak}" for leak in leaks(exc, *secrets))

    async with (
        running(api_key=KEY) as server,
        fronting(server) as front,
        anyio.create_task_group() as group,
    ):
        front.about = "/"
        timings = replace(QUICK, closing_grace=0.3, closing_wait=0.1)
        async with AsyncSession(front.url, KEY, server.api_user, timings=timings) as session:
            for name in ACTIONS:
                group.start_soon(run, name, session, front.secrets)
            await anyio.wait_all_tasks_blocked()

    assert sorted(found) == sorted(ACTIONS)


@pytest.mark.other_client
@pytest.mark.parametrize("quoted", [KEY, QUOTED, QUOTED.replace("%", "%25"), f"x{QUOTED}y"])
async def test_the_key_is_not_redirected_to_another_host(quoted: str, tmp_path: Path) -> None:
    """A server redirects a download, and keeps the query, as web servers do when they move."""
    received: list[str] = []

    def elsewhere(request: Received) -> bytes:
        received.append(request.target)
        return response("200 OK", b"text")

    async with responding(elsewhere) as port:

        def respond(request: Received) -> bytes:
            host = request.target.partition("id=")[2].partition("&")[0]
            return response("302 Found", location=f"http://{host}:{port}/moved?apiKey={quoted}")

        async with (
            responding(respond) as first,
            AsyncSession(f"http://127.0.0.1:{first}", KEY, "maya") as session,
        ):
            await session.download("127.0.0.1", tmp_path / "same")
            assert received[0].startswith("/moved?apiKey=")

            with pytest.raises(TransportError, match="API key in the address") as caught:
                await session.download("localhost", tmp_path / "other")

    assert len(received) == 1
    assert f"to http://localhost:{port} " in str(caught.value)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("options", [{"auth": ("m", "x")}, {"headers": {"authorization": "x"}}])
async def test_a_clients_authentication_is_not_redirected_to_another_host(
    options: dict[str, Any], tmp_path: Path
) -> None:
    def elsewhere(request: Received) -> bytes:
        assert "authorization" not in request.headers
        return response("200 OK", b"text")

    async with responding(elsewhere) as port:

        def respond(request: Received) -> bytes:
            assert "authorization" in request.headers
            return response("302 Found", location=f"http://localhost:{port}/signed")

        async with (
            responding(respond) as first,
            httpx.AsyncClient(**options) as client,
            AsyncSession(f"http://127.0.0.1:{first}", KEY, "maya", client=client) as session,
        ):
            await session.download("c1", tmp_path / "x")

    assert (tmp_path / "x").read_bytes() == b"text"


def test_a_secret_is_shown_nowhere() -> None:
    secret = Secret(KEY)
    request = WireRequest("GET", Secret(f"https://h/?apiKey={KEY}"), {"ftrack-api-key": secret})

    shown = [f"{secret}", str(secret), repr(secret), f"{secret!a:>20}", "%s" % secret]  # noqa: UP031
    shown += [repr([secret]), repr(request), str(request), repr(vars(type(secret)))]
    assert [text for text in shown if KEY in text] == []
    assert secret.reveal() == KEY
    assert request.url == f"https://h/?apiKey={KEY}"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="secret"):
            pickle.dumps(secret, protocol)
    assert copy.copy(secret) is copy.deepcopy(secret) is secret
    assert secret == Secret(KEY) != Secret("other")
    assert len({secret, Secret(KEY)}) == 1


@pytest.mark.other_client
async def test_no_output_of_a_debugger_shows_it(
    setting: Setting, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Logs of all libraries, tasks, and warnings of what was left open."""
    caplog.set_level(logging.DEBUG)
    shown: list[str] = []
    if setting.backend == "asyncio":
        asyncio.get_running_loop().set_debug(True)
        asyncio.get_running_loop().slow_callback_duration = 0.0
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        async with running(api_key=KEY) as server, fronting(server) as front:
            async with AsyncSession(front.url, KEY, server.api_user) as session:
                component = await session.create_component(b"0123", name="x")
                front.about = "/component/get"
                async with anyio.create_task_group() as group:
                    group.start_soon(session.download, component, tmp_path / "x")
                    await anyio.wait_all_tasks_blocked()
                    if setting.backend == "asyncio":
                        shown += map(repr, asyncio.all_tasks())
                    shown += [repr(each) for each in anyio.get_running_tasks()]
                    shown += [repr(session), repr(vars(session)), repr(session.health)]
                    group.cancel_scope.cancel()
            gc.collect()
    shown += [f"{each.name}: {each.getMessage()} {each.args}" for each in caplog.records]
    shown += [str(each.message) for each in warned]

    assert len(shown) > 20
    assert [text for text in shown for secret in front.secrets if secret in text] == []
