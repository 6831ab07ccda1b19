"""Uploads and downloads over TLS, with a certificate of a studio's own authority."""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
import trustme
from anyio.abc import ByteStream

from aioftrackjobs import AsyncSession, ConnectError, TransferError, TransportError
from aioftrackjobs.config.retry import NO_RETRIES, RetryPolicy
from aioftrackjobs.devserver import ServerHandle
from aioftrackjobs.protocol.upload import PartSizes
from aioftrackjobs.session import context_of
from aioftrackjobs.transfers.upload import upload

from .settings import Setting
from .wires import listening

pytestmark = pytest.mark.other_client

BODY = os.urandom(5_000_001)  # many pieces
SIZES = PartSizes((), largest=1_000_000, fewest=3)
WHOLE = PartSizes(fewest=1_000_000, most=1_000_000)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


#: The header that makes the URLs of the server begin with https.
_FORWARDED = b"\r\nX-Forwarded-Proto: https\r\n"


class Wire:
    """Makes a server available over TLS, and cuts connections on demand.

    Attributes:
        url: Where.
        cuts: For each method, after how many bytes of what it carries the next ones are cut.
        requests: The methods of the requests that came.
    """

    def __init__(self, server: ServerHandle) -> None:
        self._port = int(server.url.rpartition(":")[2])
        self.url = ""
        self.cuts: dict[str, list[int]] = {}
        self.heads: list[bytes] = []

    async def handle(self, client: ByteStream) -> None:
        async with (
            await anyio.connect_tcp("127.0.0.1", self._port) as server,
            anyio.create_task_group() as group,
        ):
            group.start_soon(self._copy, client, server, group.cancel_scope, "PUT")
            group.start_soon(self._copy, server, client, group.cancel_scope, "GET")

    async def _copy(
        self, source: ByteStream, target: ByteStream, scope: anyio.CancelScope, method: str
    ) -> None:
        left: int | None = None
        try:
            async for data in source:
                if method == "PUT" and data.startswith((b"PUT ", b"GET ", b"POST ")):
                    self.heads.append(data.partition(b"\r\n\r\n")[0])
                    data = data.replace(b"\r\n", _FORWARDED, 1)
                if left is None and self.heads and self.heads[-1].startswith(method.encode()):
                    left = self._next_cut(method)
                if left is not None:
                    left -= len(data)
                    if left < 0:
                        break
                await target.send(data)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass
        scope.cancel()

    def _next_cut(self, method: str) -> int | None:
        cuts = self.cuts.get(method)
        return cuts.pop(0) if cuts else None


@pytest.fixture
async def wire(server: ServerHandle, authority: trustme.CA) -> AsyncIterator[Wire]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    wire = Wire(server)
    async with listening(wire.handle, context) as port:
        wire.url = f"https://localhost:{port}"
        yield wire


@pytest.fixture
async def secure(
    wire: Wire,
    server: ServerHandle,
    setting: Setting,
    authority: trustme.CA,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[AsyncSession]:
    """A session over TLS that trusts the certificate authority of the environment."""
    with authority.cert_pem.tempfile() as certificates:
        monkeypatch.setenv("SSL_CERT_FILE", certificates)
        async with session_over(wire.url, server, setting) as session:
            yield session


@asynccontextmanager
async def session_over(
    url: str, server: ServerHandle, setting: Setting, **options: Any
) -> AsyncIterator[AsyncSession]:
    options = {"retry": RetryPolicy(sleep=no_pause, budget=1.0), **options}
    if setting.client == "own":
        async with AsyncSession(url, server.api_key, server.api_user, **options) as session:
            yield session
    else:
        async with (
            setting.make_client() as client,
            AsyncSession(url, server.api_key, server.api_user, client=client, **options) as session,
        ):
            yield session


async def no_pause(_: float) -> None:
    await anyio.lowlevel.checkpoint()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "render.exr"
    path.write_bytes(BODY)
    return path


def count(wire: Wire, method: bytes) -> int:
    return sum(head.startswith(method + b" ") for head in wire.heads)


@pytest.mark.parametrize("verified", [True, False], ids=["checksum", "none"])
@pytest.mark.parametrize(("sizes", "parts"), [(SIZES, 6), (WHOLE, 1)], ids=["parts", "whole"])
async def test_an_uploaded_file_can_be_downloaded(
    secure: AsyncSession,
    wire: Wire,
    path: Path,
    tmp_path: Path,
    sizes: PartSizes,
    parts: int,
    verified: bool,
) -> None:
    component = await upload(context_of(secure), path, data={}, sizes=sizes, verified=verified)
    await secure.download(component, tmp_path / "back")

    assert (tmp_path / "back").read_bytes() == BODY
    assert count(wire, b"PUT") == parts
    assert count(wire, b"GET") == 1


async def test_a_part_whose_connection_broke_is_sent_again(
    secure: AsyncSession, wire: Wire, path: Path, tmp_path: Path
) -> None:
    wire.cuts["PUT"] = [300_000]

    component = await upload(context_of(secure), path, data={}, sizes=SIZES)
    await secure.download(component, tmp_path / "back")

    assert (tmp_path / "back").read_bytes() == BODY
    assert count(wire, b"PUT") > 6


async def test_a_download_resumes_where_its_connection_broke(
    secure: AsyncSession, wire: Wire, path: Path, tmp_path: Path
) -> None:
    component = await secure.create_component(path)
    wire.cuts["GET"] = [2_000_000]

    await secure.download(component, tmp_path / "back")

    assert (tmp_path / "back").read_bytes() == BODY
    first, second = [head for head in wire.heads if head.startswith(b"GET ")]
    assert b"range:" not in first.lower()
    assert b"range: bytes=" in second.lower()


async def test_a_later_call_resumes_where_an_earlier_one_broke_off(
    secure: AsyncSession,
    wire: Wire,
    server: ServerHandle,
    setting: Setting,
    path: Path,
    tmp_path: Path,
) -> None:
    component = await secure.create_component(path)
    wire.cuts["GET"] = [2_000_000]

    async with session_over(wire.url, server, setting, retry=NO_RETRIES) as hasty:
        with pytest.raises((TransferError, TransportError)):
            await hasty.download(component.id, tmp_path / "back", resume=True)
        await hasty.download(component.id, tmp_path / "back", resume=True)

    assert (tmp_path / "back").read_bytes() == BODY
    assert b"range: bytes=" in wire.heads[-1].lower()


async def test_an_unknown_authority_gets_no_bytes(
    wire: Wire, server: ServerHandle, setting: Setting, path: Path
) -> None:
    async with session_over(wire.url, server, setting, retry=NO_RETRIES) as session:
        with pytest.raises(ConnectError, match=r"(?i)certificate"):
            await session.create_component(path)

    assert wire.heads == []
