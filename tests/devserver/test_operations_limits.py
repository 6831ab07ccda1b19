"""Limits of a request, cross-origin requests, and ranges of downloads."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
import pytest

from aioftrackjobs.devserver import Limits, create_app

from .caller import Caller, create, new_id, query
from .test_uploads import CONTENT, announce, get, put


@asynccontextmanager
async def limited(**limits: Any) -> AsyncIterator[Caller]:
    app = create_app(limits=Limits(**limits))
    engine = app.state.engine
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://ftrack.test") as http:
        yield Caller(http, engine.api_user, engine.api_key)
    engine.close()


async def pieces(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b" " * 100


@pytest.mark.parametrize("announced", [True, False], ids=["announced", "streamed"])
async def test_a_request_may_be_too_big(announced: bool) -> None:
    async with limited(request=1000) as api:
        content: Any = b" " * 1001 if announced else pieces(11)
        response = await api.send(content)

        assert response.status_code == 413
        assert response.json()["content"] == "A request takes 1000 bytes at most."
        assert await api.query("Job") == []


async def test_a_body_that_does_not_arrive_is_abandoned() -> None:
    async def stalled() -> AsyncIterator[bytes]:
        yield b"["
        await anyio.sleep_forever()

    async with limited(idle=0.01) as api:
        response = await api.send(stalled())  # type: ignore[arg-type]

    assert response.status_code == 408
    assert response.json()["exception"] == "RequestError"


@pytest.mark.parametrize("name", ["request", "idle", "upload", "uploads", "queue_timeout"])
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_a_limit_that_lets_nothing_through_is_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"the limit '{name}' must be more than 0"):
        Limits(**{name: value})  # type: ignore[arg-type]


async def test_a_batch_may_have_too_many_operations() -> None:
    async with limited(operations=3) as api:
        response = await api.post(*[create("Job")] * 4)

        assert response.status_code == 413
        assert "3 operations at most, not 4" in response.json()["content"]
        assert await api.query("Job") == []


@pytest.mark.parametrize(
    "body", [b"[" * 11, b'[{"a": {}, "b": [1, 2, 3, 4]}]', b"[1" + b",1" * 10 + b"]"]
)
async def test_a_request_may_have_too_many_values(body: bytes) -> None:
    async with limited(values=7) as api:
        response = await api.send(body)

    assert response.status_code == 413
    assert response.json()["content"].startswith("A request takes 7 commas and brackets")


async def test_a_query_may_be_too_long() -> None:
    async with limited(expression=100) as api:
        plain = await api.refused(query("Job" + " " * 100))
        searched = await api.refused({"action": "search", "expression": "Job" + " " * 100})

    assert plain == searched
    limits = "100 characters, or 50000 words, commas and parentheses"
    assert plain["content"] == f"A query takes {limits} at most, not 103 and 1."


@pytest.mark.parametrize(
    "criteria",
    [
        "(" * 50_000 + "name is a" + ")" * 50_000,
        "name in (" + "a," * 50_000,
        "name is a or " * 13_000,
    ],
    ids=["parentheses", "commas", "words"],
)
async def test_a_query_may_have_too_many_words(criteria: str) -> None:
    async with limited() as api:
        refused = await api.refused(query(f"Task where {criteria}"))

    assert refused["exception"] == "ValidationError"
    assert "50000 words, commas and parentheses at most" in refused["content"]


@pytest.mark.parametrize(
    "operation",
    [
        {"action": "search", "entity_type": "User", "terms": ["x"] * 6},
        create("User", username="x", memberships=["x"] * 6),
    ],
    ids=["terms", "collection"],
)
async def test_a_list_may_be_too_long(operation: dict[str, Any]) -> None:
    async with limited(list_entries=5) as api:
        error = await api.refused(operation)

    assert "takes 5 entries at most, not 6" in error["content"]


async def test_a_page_from_anywhere_may_call(api: Caller) -> None:
    preflight = {
        "Origin": "https://studio.test",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type,ftrack-api-key,ftrack-clienttoken",
    }

    allowed = await api.http.options("/api", headers=preflight)
    response = await api.post(query("Job"), Origin="https://studio.test")

    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == "https://studio.test"
    assert allowed.headers["access-control-allow-credentials"] == "true"
    assert "ftrack-clienttoken" in allowed.headers["access-control-allow-headers"]
    assert response.headers["access-control-allow-origin"] == "https://studio.test"


async def test_a_page_may_upload_and_read_the_tag(api: Caller) -> None:
    metadata = await announce(api, new_id())
    origin = {"Origin": "https://studio.test"}
    preflight = {
        "Access-Control-Request-Method": "PUT",
        "Access-Control-Request-Headers": "content-md5",
    }

    allowed = await api.http.options(metadata["url"], headers=origin | preflight)
    uploaded = await api.http.put(metadata["url"], content=CONTENT, headers=origin)

    assert "PUT" in allowed.headers["access-control-allow-methods"]
    assert "ETag" in uploaded.headers["access-control-expose-headers"]


async def test_a_page_that_may_not_call_gets_a_json_object(api: Caller) -> None:
    preflight = {"Origin": "https://studio.test", "Access-Control-Request-Method": "DELETE"}

    refused = await api.http.options("/api", headers=preflight)

    assert refused.status_code == 400
    assert refused.headers["content-type"] == "application/json"
    assert refused.headers["access-control-allow-origin"] == "https://studio.test"
    assert refused.json()["exception"] == "RequestError"
    assert refused.json()["content"] == "Disallowed CORS method."


async def test_refusals_can_be_read_by_a_page_too(api: Caller) -> None:
    response = await api.http.get("/component/get", headers={"Origin": "https://studio.test"})

    assert response.status_code == 400
    assert response.headers["access-control-allow-origin"] == "https://studio.test"


@pytest.mark.parametrize(
    ("wanted", "status", "content"),
    [
        ("bytes=0-4", 206, CONTENT[:5]),
        ("bytes=5-", 206, CONTENT[5:]),
        ("bytes=-3", 206, CONTENT[-3:]),
        (f"bytes=0-{2 * len(CONTENT)}", 206, CONTENT),
        (f"bytes={len(CONTENT)}-", 416, None),
        ("bytes=9-2", 400, None),
        ("lines=1-2", 400, None),
    ],
)
async def test_parts_of_a_file_can_be_read(
    api: Caller, wanted: str, status: int, content: bytes | None
) -> None:
    component_id = new_id()
    await put(api, await announce(api, component_id))
    whole = await get(api, component_id)

    response = await api.http.get(whole.request.url, headers={"Range": wanted})

    assert response.status_code == status
    if content is not None:
        assert response.content == content
        assert response.headers["content-range"].endswith(f"/{len(CONTENT)}")
    else:
        assert response.json()["exception"] == "TransferError"


@pytest.mark.parametrize(("tag", "status"), [(None, 206), ('"other"', 200)])
async def test_a_part_of_a_changed_file_is_not_sent(
    api: Caller, tag: str | None, status: int
) -> None:
    component_id = new_id()
    await put(api, await announce(api, component_id))
    whole = await get(api, component_id)
    headers = {"Range": "bytes=0-4", "If-Range": tag or whole.headers["etag"]}

    response = await api.http.get(whole.request.url, headers=headers)

    assert response.status_code == status


async def test_slow_senders_do_not_keep_others_waiting(remote: Caller) -> None:
    """Also when there are more of them than worker threads."""
    url = remote.http.base_url
    begun = b"POST /api HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n["
    senders = [socket.create_connection((url.host, url.port or 80)) for _ in range(100)]
    try:
        for sender in senders:
            sender.sendall(begun)
        with anyio.fail_after(10):
            assert await remote.query("Job") == []
    finally:
        for sender in senders:
            sender.close()
