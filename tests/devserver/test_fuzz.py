"""Thousands of malformed requests: each gets a response, none is a failure of the server.

``FUZZ_SEED`` sets which.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

import anyio
import httpx
import pytest
from anyio.to_thread import run_sync

from aioftrackjobs.devserver import ServerHandle, running
from aioftrackjobs.devserver.files.storage import INCOMING

from ..amounts import amount
from .caller import Caller, create, names_in, new_id, query, stored, update
from .malformed import Malformed, Malformer

COUNT = amount(500, 10_000)
SEED = int(os.environ.get("FUZZ_SEED", "20261121"))
#: Seconds that one response may take; a hang is longer.
_TIME_LIMIT = 20


@pytest.fixture(autouse=True)
def nothing_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No error is logged: the server has handled all of them."""
    yield
    errors = [each for each in caplog.records if each.levelno >= logging.ERROR]
    assert errors == [], caplog.text


async def fuzz(server: ServerHandle, count: int, seed: int) -> None:
    credentials = {"ftrack-user": server.api_user, "ftrack-api-key": server.api_key}
    encoded = {name: value.encode() for name, value in credentials.items()}
    malformer = Malformer(Random(seed), encoded)
    async with httpx.AsyncClient(base_url=server.url, timeout=_TIME_LIMIT) as http:
        api = Caller(http, server.api_user, server.api_key)
        for number in range(count):
            if number % 500 == 0:
                malformer.tokens = await announced(api)
                malformer.keys = await existing(api)
            request = malformer.next()
            await check(http, request, f"{number} of {seed}")
            if request.path == "/api":
                await keep_callable(api, server)
        assert isinstance(await api.query("Job"), list)


async def announced(api: Caller) -> list[str]:
    """Return the ends of the addresses of some uploads, whole and in parts."""
    operation = {"action": "get_upload_metadata", "file_name": "x.png", "file_size": 3}
    whole, parts = await api.call(
        {**operation, "component_id": new_id()},
        {**operation, "component_id": new_id(), "parts": 2},
    )
    urls = [whole["url"], *(each["signed_url"] for each in parts["urls"])]
    return [url.rpartition("/")[2] for url in urls] + [parts["upload_id"]]


async def existing(api: Caller) -> list[str]:
    """Return ids of some entities; not of the calling user, who must stay."""
    expressions = ("User where username is maya", "Task", "Project", "Job", "FileComponent")
    found = [await api.query(f"select id from {each} limit 2") for each in expressions]
    return [str(row["id"]) for rows in found for row in rows]


async def keep_callable(api: Caller, server: ServerHandle) -> None:
    """No malformed request has changed the credentials of the caller."""
    response = await api.post({"action": "query_server_information"})
    assert isinstance(response.json(), list), response.text


async def check(http: httpx.AsyncClient, request: Malformed, case: str) -> None:
    """Send *request*, and check that a client can read the response."""
    headers = [(name.encode(), value) for name, value in request.headers.items()]
    try:
        response = await http.request(
            request.method, request.path, content=request.content, headers=headers
        )
    except (httpx.LocalProtocolError, httpx.InvalidURL, UnicodeError):
        return  # the client cannot even send it
    shown = f"case {case}: {request}\n{response.status_code} {response.text[:500]}"
    assert response.status_code < 500 or response.status_code == 501, shown
    if response.status_code == 200 and request.path.partition("?")[0] == "/":
        assert "api" in response.text or request.method == "HEAD", shown  # says what this is
    elif response.headers.get("content-type") == "application/json" and request.method != "HEAD":
        check_body(response.json(), shown)
    elif request.path == "/api":
        # Refused before it got to the server proper: what HTTP itself does not allow.
        assert response.status_code in {200, 400}, shown


def check_body(body: Any, shown: str) -> None:
    if isinstance(body, list) or body == {}:
        return
    assert isinstance(body, dict), shown
    assert {"exception", "content", "error_code"} <= body.keys(), shown
    assert isinstance(body["content"], str), shown
    body["content"].format()  # as the official client does
    assert "Traceback" not in body["content"], shown


def only_complete_files(folder: Path) -> bool:
    return not any(name.startswith(INCOMING) for name in names_in(stored(folder)))


@pytest.mark.long
async def test_malformed_requests_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    async with running(storage=tmp_path) as server:
        await fuzz(server, COUNT, SEED)
        assert only_complete_files(tmp_path)


def exchanged(server: ServerHandle, sent: bytes) -> bytes:
    """Return all that comes back for *sent* on a connection whose writing side then ends."""
    address = urlsplit(server.url)
    assert address.hostname is not None
    with socket.create_connection((address.hostname, address.port), timeout=_TIME_LIMIT) as peer:
        peer.sendall(sent)
        peer.shutdown(socket.SHUT_WR)
        received = b""
        while chunk := peer.recv(65536):
            received += chunk
    return received


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"\r\n\r\n",
        b"GET",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST /api HTTP/1.1\r\n\r\n",
        b"POST /api HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n[",
        b"POST /api HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /api HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n[]",
        b"POST /api HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n[]",
        b"POST /api HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /api HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n[",
        b"PUT /upload/x HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc",
        b"POST /api HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 5000 + b"\r\n",
        b"POST /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
    ids=lambda sent: repr(sent[:24]) + str(len(sent)),
)
async def test_what_is_no_http_ends_the_connection(server: ServerHandle, sent: bytes) -> None:
    with anyio.fail_after(_TIME_LIMIT):
        received = await run_sync(exchanged, server, sent)

    assert b" 500 " not in received.partition(b"\r\n")[0]
    async with httpx.AsyncClient(base_url=server.url) as http:
        assert await Caller(http, server.api_user, server.api_key).query("Job") == []


#: What the fuzzing found, and what it is likely to find again when something is taken apart.
REGRESSIONS: list[Any] = [
    query("Job where id is '\x00'"),
    query("select id from Job limit 99999999999999999999"),
    query("Job where created_at > '9999-12-31T23:59:59+99:99'"),
    create("FileComponent", size=2**70),
    create("Job", created_at={"__type__": "datetime", "value": "0001-01-01T00:00:00+14:00"}),
    update("User", [[]]),  # type: ignore[arg-type]
    {"action": "get_upload_metadata", "component_id": {"id": 1}, "file_size": "3"},
    {"action": "search", "entity_type": "User", "terms": ["\\"]},
    {"action": "encode_media", "component_id": "\x00"},
]


@pytest.mark.parametrize("operation", REGRESSIONS, ids=range(len(REGRESSIONS)))
async def test_operations_that_failed_once_get_a_response(api: Caller, operation: Any) -> None:
    response = await api.post(operation)

    assert response.status_code < 500
    check_body(response.json(), str(operation))
