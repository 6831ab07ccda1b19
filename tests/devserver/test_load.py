"""Many clients at once: nothing fails, nothing is lost, and memory stays bounded."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import httpx
import pytest

from aioftrackjobs.devserver import Limits
from aioftrackjobs.devserver.http.backpressure import BIG_TOTAL, SMALL, Slot

from ..amounts import amount
from .caller import Caller, create, new_id, query
from .served import API_KEY, served
from .test_operations_limits import limited
from .waiting import until

SECONDS = amount(1, 20)
CLIENTS = 64
BATCH = 4
MIB = 1024 * 1024

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads memory from /proc")


@linux
@pytest.mark.long
async def test_64_clients_write_at_once_and_nothing_is_lost(tmp_path: Path) -> None:
    written: list[str] = []

    async def write(url: str, until: float) -> None:
        # No certificates: loading them takes longer than many a batch.
        async with httpx.AsyncClient(base_url=url, timeout=60, verify=False) as http:
            api = Caller(http, "developer", API_KEY)
            for number in itertools.count():
                if number and anyio.current_time() >= until:
                    return
                name = new_id()
                await api.call(*(create("Job", data=name) for _ in range(BATCH)))
                written.append(name)

    with served(tmp_path) as server:
        before = server.peak_memory()
        until = anyio.current_time() + SECONDS
        async with anyio.create_task_group() as clients:
            for _ in range(CLIENTS):
                clients.start_soon(write, server.url, until)
        grown = server.peak_memory() - before
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
            rows = await Caller(http, "developer", API_KEY).query("select data from Job")

    assert sorted(row["data"] for row in rows) == sorted(written * BATCH)
    assert len(written) >= CLIENTS
    assert grown < 64 * MIB


@linux
async def test_big_requests_wait_outside_rather_than_in_memory(tmp_path: Path) -> None:
    """The server reads as many big bodies as it has slots; the rest stays with the clients."""
    size, count = 16 * MIB, 32
    head = (
        f"POST /api HTTP/1.1\r\nHost: ftrack\r\nContent-Length: {size}\r\n"
        f"ftrack-user: developer\r\nftrack-api-key: {API_KEY}\r\n\r\n"
    ).encode()
    sent: list[int] = []

    async def send(port: int) -> None:
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            await stream.send(head)
            await stream.send(bytes(size - 1))
            sent.append(port)
            await anyio.sleep_forever()

    with served(tmp_path) as server:
        before = server.peak_memory()
        async with anyio.create_task_group() as clients:
            for _ in range(count):
                clients.start_soon(send, int(server.url.rpartition(":")[2]))
            await until(lambda: sent)
            await anyio.sleep(1)  # for those that would be read although they should wait
            clients.cancel_scope.cancel()
        grown = server.peak_memory() - before

    assert 0 < len(sent) <= BIG_TOTAL // Limits().request
    assert grown < BIG_TOTAL * 1.5


async def test_a_big_request_waits_for_a_slot_and_a_small_one_does_not() -> None:
    """Even if the first one holds the only slot."""
    big, small = 2 * SMALL, json.dumps([query("Job")])
    headers = {"Content-Length": str(big)}

    async def body() -> AsyncIterator[bytes]:
        yield b" "
        begun.append(1)
        await leave.wait()
        yield b" " * (big - 1 - len(small)) + small.encode()

    begun: list[int] = []
    done: list[int] = []
    leave = anyio.Event()
    async with limited(request=BIG_TOTAL) as api:

        async def send() -> None:
            response = await api.send(body(), **headers)  # type: ignore[arg-type]
            done.append(response.status_code)

        async with anyio.create_task_group() as group:
            for _ in range(2):
                group.start_soon(send)
            await anyio.wait_all_tasks_blocked()
            assert await api.query("Job") == []
            await until(lambda: begun)
            assert (begun, done) == ([1], [])
            leave.set()

    assert done == [200, 200]


async def test_a_request_that_gives_up_waiting_takes_no_slot() -> None:
    limiter = anyio.CapacityLimiter(1)
    with Slot(limiter) as first:
        assert first.acquire_nowait()
        with anyio.move_on_after(0.01), Slot(limiter) as second:
            await second.acquire(60, "busy")
            pytest.fail("there was no slot")

    assert limiter.borrowed_tokens == 0
