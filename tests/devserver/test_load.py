"""Many clients at once: nothing fails, nothing is lost, and memory stays bounded."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import anyio
import httpx
import pytest

from aioftrackjobs.devserver.http.backpressure import ROOM, Room, room_for
from aioftrackjobs.devserver.schema.loader import builtin_model
from aioftrackjobs.devserver.store.statements import Sql

from ..amounts import amount
from .caller import Caller, create, new_id
from .served import API_KEY, served

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
    """Bodies that all but end are held up to the room there is; the rest stays with clients."""
    size, count = 16 * MIB, 32
    head = f"POST /api HTTP/1.1\r\nHost: ftrack\r\nContent-Length: {size}\r\n\r\n".encode()
    sent: list[int] = []

    async def send(port: int) -> None:
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            await stream.send(head)
            await stream.send(bytes(size - 1))
            sent.append(port)
            await anyio.sleep_forever()

    with served(tmp_path) as server:
        before = server.peak_memory()
        with anyio.move_on_after(3):
            async with anyio.create_task_group() as clients:
                for _ in range(count):
                    clients.start_soon(send, int(server.url.rpartition(":")[2]))
        grown = server.peak_memory() - before

    assert 0 < len(sent) <= ROOM // size
    assert grown < ROOM * 1.5


async def test_a_big_request_waits_for_room_and_a_small_one_does_not() -> None:
    inside: list[int] = []
    leave = anyio.Event()

    async def call(number: int, size: int) -> None:
        headers = [(b"content-length", str(size).encode())]
        with await room.reserve(room_for({"headers": headers})):
            inside.append(number)
            await leave.wait()

    room = Room(10 * MIB)
    async with anyio.create_task_group() as group:
        for number, size in enumerate([6 * MIB, 6 * MIB, 3 * MIB, 100]):
            group.start_soon(call, number, size)
        await anyio.wait_all_tasks_blocked()
        assert sorted(inside) == [0, 3]
        leave.set()

    assert sorted(inside) == [0, 1, 2, 3]


async def test_who_gives_up_waiting_leaves_the_room_as_it_was() -> None:
    room = Room(10)
    with await room.reserve(8):
        with anyio.move_on_after(0.01):
            with await room.reserve(8):
                pytest.fail("there was no room")

    with anyio.fail_after(1):
        with await room.reserve(10):
            pass


async def test_what_needs_more_than_there_is_takes_it_all() -> None:
    with anyio.fail_after(1):
        with await Room(10).reserve(1000):
            pass


def test_statements_of_made_up_shapes_are_not_kept_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("aioftrackjobs.devserver.store.statements._KEPT", 10)
    sql = Sql(builtin_model())
    columns = ["id", "status", "type", "data"]

    texts = {sql.inserting("Job", shape) for shape in itertools.permutations(columns)}

    assert len(texts) == 24
    assert len(sql._statements) <= 10
