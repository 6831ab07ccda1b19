"""Errors over HTTP: credentials, statuses, bodies that are not a batch."""

from __future__ import annotations

import json

import anyio
import pytest

from aioftrackjobs.devserver import ServerHandle

from .caller import Caller, create, query

STRICT = {"ftrack-strict-api": "true"}


@pytest.mark.parametrize(
    "headers",
    [
        {"ftrack-api-key": "wrong"},
        {"ftrack-user": "nobody"},
        {"ftrack-user": "maya"},
        {"ftrack-api-key": ""},
        {"ftrack-api-key": "é"},
    ],
)
async def test_wrong_credentials_are_refused(api: Caller, headers: dict[str, str]) -> None:
    credentials = {"ftrack-user": api.user, "ftrack-api-key": api.key} | headers
    encoded = {name.encode(): value.encode() for name, value in credentials.items()}

    response = await api.http.post("/api", json=[query("Job")], headers=encoded)

    assert response.status_code == 200
    assert response.json()["exception"] == "InvalidCredentialsError"


@pytest.mark.parametrize(
    ("operation", "status"),
    [
        (query("Job where"), 400),
        (query("Jbo"), 422),
        (create("Job", user_id="nobody"), 409),
        (create("Location", id="3a372bde-05bc-11e4-8908-20c9d081909b", name="x"), 409),
        ({"action": "delete", "entity_type": "Job", "entity_key": ["gone"]}, 404),
        ({"action": "parse_query"}, 501),
    ],
)
async def test_strict_mode_gives_refusals_real_statuses(
    api: Caller, operation: dict[str, object], status: int
) -> None:
    strict = await api.post(operation, **STRICT)
    lenient = await api.post(operation, **{"ftrack-strict-api": "false"})

    assert (strict.status_code, lenient.status_code) == (status, 200)
    assert strict.json() == lenient.json()


async def test_strict_mode_refuses_wrong_credentials_with_401(api: Caller) -> None:
    response = await api.post(query("Job"), **STRICT, **{"ftrack-api-key": "wrong"})

    assert response.status_code == 401


async def test_each_seeded_user_has_a_key_of_their_own(api: Caller) -> None:
    engine = api.http._transport.app.state.engine  # type: ignore[attr-defined]

    response = await api.post(
        query("Job"), **{"ftrack-user": "maya", "ftrack-api-key": engine.api_keys["maya"]}
    )

    assert isinstance(response.json(), list)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"null",
        b'"x"',
        b"[",
        b"[}",
        b"\xff\xfe",
        b'["\\ud800"]',
        b"[" * 100_000,
        b"<html>",
    ],
)
async def test_bodies_that_are_no_batch_are_refused_with_400(api: Caller, body: bytes) -> None:
    response = await api.send(body)

    assert response.status_code == 400
    assert response.json()["exception"] == "RequestError"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api", 405),
        ("GET", "/nothing", 404),
        ("POST", "/apis", 404),
        ("PUT", "/upload/forged", 403),
        ("PUT", "/upload/é", 403),
        ("GET", "/component/get", 400),
        ("GET", "/component/get?id=../../etc/passwd", 400),
        ("GET", "/component/get?id=x", 401),
        ("GET", "/component/get?id=x&signature=y", 401),
        ("GET", "/component/remove?id=x", 401),
        ("GET", "/component/thumbnail?id=x&username=maya&apiKey=é", 401),
    ],
)
async def test_other_addresses_are_refused_as_json(
    api: Caller, method: str, path: str, status: int
) -> None:
    response = await api.http.request(method, path)

    assert response.status_code == status
    assert response.json().keys() == {"exception", "content", "error_code"}


async def test_braces_are_doubled_for_the_official_client(api: Caller) -> None:
    """It uses the text as a format string (docs/protocol.md, section 1.5)."""
    error = await api.refused(query('Job where data is "{x}'))

    assert "{{x}}" in error["content"]
    assert "{x}" in error["content"].format()


@pytest.mark.parametrize(
    "nonsense",
    [b"HELLO\r\n\r\n", b"POST /api HTTP/1.1\r\nbad header\r\n\r\n", b"\x16\x03\x01" * 50],
)
async def test_what_is_no_http_is_refused_with_a_json_object(
    server: ServerHandle, nonsense: bytes
) -> None:
    port = int(server.url.rpartition(":")[2])
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        await stream.send(nonsense + b"\r\n\r\n")
        result = b"".join([chunk async for chunk in stream])

    head, _, body = result.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400")
    assert json.loads(body)["exception"] == "RequestError"
