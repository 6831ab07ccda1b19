"""Responses that are too big, or that clients do not read: memory does not grow with them."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from typing import Any

import anyio
import httpx
import pytest
from anyio.to_thread import run_sync

from aioftrackjobs.devserver import Limits, running
from aioftrackjobs.devserver.http import batch_endpoint
from aioftrackjobs.devserver.options import Options

from .caller import Caller, create, query
from .test_operations_limits import limited

MIB = 1024 * 1024
#: More than the buffers of two sockets hold.
BIG = 12 * MIB
#: The limit of all big responses together: enough for one.
TOTAL = 16 * MIB
ALL = "select data from Job"

Start = Callable[..., AbstractAsyncContextManager[Caller]]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Start:
    """Starts a server whose limit allows one big response, and Jobs that fill most of it."""
    monkeypatch.setattr(batch_endpoint, "BIG_TOTAL", TOTAL)

    @asynccontextmanager
    async def started(**limits: Any) -> AsyncIterator[Caller]:
        async with (
            running(limits=Limits(response=TOTAL, **limits)) as server,
            httpx.AsyncClient(base_url=server.url, timeout=30) as http,
        ):
            api = Caller(http, server.api_user, server.api_key)
            await api.call(*(create("Job", data="x" * MIB) for _ in range(BIG // MIB)))
            yield api

    return started


def send_request(api: Caller, *operations: dict[str, Any]) -> socket.socket:
    """Send *operations* on a new connection, and return it without reading the response."""
    body = json.dumps(operations)
    head = (
        f"POST /api HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n"
        f"ftrack-user: {api.user}\r\nftrack-api-key: {api.key}\r\n\r\n"
    )
    url = api.http.base_url
    connection = socket.create_connection((url.host, url.port or 80), timeout=30)
    connection.sendall((head + body).encode())
    return connection


def rest_of(connection: socket.socket) -> int:
    """Read the rest of the response, and return its size."""
    size = 0
    while block := connection.recv(MIB):
        size += len(block)
    return size


async def test_a_big_response_waits_for_one_that_is_not_read_and_a_small_one_does_not(
    start: Start,
) -> None:
    sizes: list[int] = []

    async def read_all(api: Caller) -> None:
        sizes.append(len(await api.query(ALL)))

    async with start() as api:
        with closing(send_request(api, query(ALL))) as slow:
            begun = await run_sync(slow.recv, 1000)
            async with anyio.create_task_group() as others:
                for _ in range(2):
                    others.start_soon(read_all, api)
                for _ in range(10):
                    assert len(await api.query("select username from User")) == 4
                assert sizes == []
                sent = await run_sync(rest_of, slow)

    assert sizes == [BIG // MIB] * 2
    assert begun.startswith(b"HTTP/1.1 200")
    assert len(begun) + sent > BIG


async def test_a_client_that_waits_too_long_gets_retry_after(start: Start) -> None:
    async with start(queue_timeout=0.05) as api:
        with closing(send_request(api, query(ALL))) as slow:
            await run_sync(slow.recv, 1000)
            response = await api.post(create("Job", data="new"), query(ALL))

        assert response.status_code == 503
        assert response.headers["Retry-After"] == "5"
        assert "have not read their responses" in response.json()["content"]
        assert await api.query("Job where data is new") == []


async def test_a_client_that_does_not_read_is_disconnected(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    async with start(idle=0.5) as api:
        with closing(send_request(api, query(ALL))) as slow:
            await run_sync(slow.recv, 1000)
            assert len(await api.query(ALL)) == BIG // MIB
            assert await run_sync(rest_of, slow) < BIG

    assert "a client read nothing for 0.5 s" in caplog.text


async def test_a_batch_whose_client_has_disconnected_is_not_run(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger=batch_endpoint.__name__)
    async with start() as api:
        with closing(send_request(api, query(ALL))) as slow:
            await run_sync(slow.recv, 1000)
            send_request(api, create("Job", data="new"), query(ALL)).close()
            # If the server has read the batch, it waits until the other response is read.
            assert await api.query("Job where data is new") == []
            await run_sync(rest_of, slow)
        assert len(await api.query(ALL)) == BIG // MIB

    assert "a client left before its batch was done" in caplog.text


@pytest.mark.parametrize(
    "operation",
    [
        pytest.param(query("select id, data from Job"), id="many"),
        pytest.param(query("select parent.children.parent.children.id from Task"), id="nested"),
        pytest.param({"action": "query_schemas"}, id="schemas"),
        pytest.param({"action": "search", "entity_type": "Job"}, id="search"),
    ],
)
async def test_a_response_may_be_too_big(operation: dict[str, Any]) -> None:
    async with limited(response=30_000) as api:
        (shot,) = await api.query("select id from Shot limit 1")
        for _ in range(10):
            await api.call(*(create("Job") for _ in range(40)))
        await api.call(*(create("Task", name=f"{n}", parent_id=shot["id"]) for n in range(20)))
        response = await api.post(
            create("Job", data="new"), operation, **{"ftrack-api-options": "denormalize:1"}
        )
        error = response.json()

        assert await api.query("Job where data is new") == []
        assert len(await api.query("select id, data from Job limit 50")) == 50

    assert error["exception"] == "ValidationError"
    assert error["content"].startswith("A response takes 30000 bytes at most: ask for less")
    assert "'limit'" in error["content"]


async def test_results_of_one_batch_are_counted_together() -> None:
    async with limited(response=20_000) as api:
        await api.call(query("User"))
        error = await api.refused(*[query("User")] * 100)

    assert error["exception"] == "ValidationError"


def test_options_show_no_keys() -> None:
    assert "s3cret" not in repr(Options(api_key="s3cret", global_api_key="s3cret-too"))
