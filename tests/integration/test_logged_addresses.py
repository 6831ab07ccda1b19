"""Logs of HTTP clients show no addresses of files, which are signed, and no keys."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import httpx
import pytest

from aioftrackjobs import AsyncSession, Location
from aioftrackjobs.devserver import ServerHandle
from aioftrackjobs.protocol.upload import PartSizes
from aioftrackjobs.session import context_of
from aioftrackjobs.transfers.upload import upload
from aioftrackjobs.transport import hide_secrets

from .wires import Received, responding, response

#: Parts of the addresses of the embedded server that give access to a file.
SIGNED = ("/upload/", "signature=", "/component/get", "apiKey=")


@pytest.mark.other_client
async def test_no_log_shows_the_address_of_a_file(
    session: AsyncSession, server: ServerHandle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    sizes = PartSizes((), largest=1_000_000, fewest=3)

    whole = await session.create_component(b"text", name="a.txt")
    parts = await upload(context_of(session), os.urandom(2_500_000), data={}, name="b", sizes=sizes)
    for component in (whole, parts):
        await session.download(component, tmp_path / "x")

    served = [each for each in caplog.records if each.name.startswith("aioftrackjobs.devserver")]
    lines = [each.getMessage() for each in caplog.records if each not in served]
    assert len(lines) > 10
    assert [text for text in lines if any(part in text for part in SIGNED)] == []
    # The server logs which kinds of requests it has had, without what gives access.
    assert [each for each in served if "?" in each.message or "/upload/" in each.message] == []
    assert server.api_key not in caplog.text
    ours = [vars(each) for each in caplog.records if "ftrack_message" in vars(each)]
    fields = [str(value) for each in ours for name, value in each.items() if "ftrack_" in name]
    assert ours
    assert [
        text for text in fields if any(part in text for part in (*SIGNED, server.api_key))
    ] == []


async def test_a_redirection_to_a_store_is_not_logged_either(
    server: ServerHandle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    def store(request: Received) -> bytes:
        if request.target.startswith("/component/get"):
            return response("302 Found", location="/bucket/SECRET?policy=SECRET")
        assert request.target == "/bucket/SECRET?policy=SECRET"
        return response("200 OK", b"text")

    async with responding(store) as port, httpx.AsyncClient() as client:
        url = f"http://127.0.0.1:{port}"
        for chosen in (client, None):
            async with AsyncSession(url, server.api_key, "maya", client=chosen) as session:
                await session.download("c1", tmp_path / "x")

    assert (tmp_path / "x").read_bytes() == b"text"
    assert f"{url}/***" in caplog.text
    assert "SECRET" not in caplog.text


@pytest.mark.own_client
async def test_requests_of_users_are_logged_as_before(
    session: AsyncSession, server: ServerHandle, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    component = await session.create_component(b"text", name="a.txt")
    location = await session.query('Location where name is "ftrack.server"').of(Location).one()

    async with (
        httpx.AsyncClient() as client,
        AsyncSession(server.url, server.api_key, server.api_user, client=client) as other,
    ):
        await client.get(f"{server.url}/api?page=7&name=comp")
        await client.get(location.get_url(component), follow_redirects=True)
        await other.query("Job").all()

    requests = [text for text in caplog.messages if text.startswith("HTTP Request: ")]
    assert f"GET {server.url}/api?page=7&name=comp " in requests[0]
    assert f"{server.url}/component/get?id={component.id}" in requests[1]
    assert f"POST {server.url}/api " in requests[-1]
    assert server.api_key not in caplog.text


def test_the_key_is_not_in_the_logs_of_http_2(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    hide_secrets()
    for name in ("hpack.hpack", "hpack.table", "httpcore.http2", "h2.connection"):
        for header in (
            (b"ftrack-api-key", b"SECRET"),
            [(b"ftrack-user", b"maya"), (b"ftrack-api-key", b"SECRET", True)],
        ):
            logging.getLogger(name).debug("Adding %s to the table", header)
        logging.getLogger(name).debug("ftrack-api-key: SECRET, ftrack-user: maya")

    assert "SECRET" not in caplog.text
    assert "maya" in caplog.text
