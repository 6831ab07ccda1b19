"""Requests that take much: they end in time, and others go on beside them."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import httpx
import pytest
import sqlalchemy as sa
from anyio.streams.buffered import BufferedByteReceiveStream

from aioftrackjobs.devserver import Limits, ServerHandle, create_app, running
from aioftrackjobs.devserver.api import query as querying
from aioftrackjobs.devserver.engine import Engine
from aioftrackjobs.devserver.faults.kinds import Refuse
from aioftrackjobs.devserver.http import batch_endpoint
from aioftrackjobs.devserver.http.backpressure import BIG_TOTAL, SMALL
from aioftrackjobs.devserver.limits import BoundedCache
from aioftrackjobs.devserver.query import parser
from aioftrackjobs.devserver.serving import uvicorn_server

from .caller import Caller, create, query, update
from .test_encode_media import http_of
from .test_operations_limits import limited
from .waiting import until

#: Longer than any test may take.
NEVER = 3600.0
ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n"
MIB = 1024 * 1024


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A query for a Setting of the name ``endless`` never ends; this has the begun ones."""
    found, begun = querying._found, list[int]()

    def run(request: Any, wanted: Any) -> Any:
        if "endless" in repr(wanted):
            begun.append(threading.get_ident())
            request.transaction.fetch(sa.text(ENDLESS))
        return found(request, wanted)

    monkeypatch.setattr(querying, "_found", run)
    return begun


endless = query("Setting where name is endless")


async def test_a_query_that_never_ends_does_not_hold_up_the_stop(
    begun: list[int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for database in (None, tmp_path / "ftrack.db"):
        begun.clear()
        async with httpx.AsyncClient(timeout=None) as http, anyio.create_task_group() as group:
            async with running(database=database, limits=Limits(query=NEVER)) as server:
                http.base_url = httpx.URL(server.url)
                group.start_soon(_ended, Caller(http, server.api_user, server.api_key))
                await until(lambda: len(begun) == 2)  # in its turn, and beside
        assert len(begun) == 2, "no further one has begun"
    assert not [each for each in caplog.records if each.levelno >= logging.ERROR]


async def _ended(api: Caller) -> None:
    with suppress(httpx.TransportError):
        assert (await api.post(endless)).status_code == 503


async def test_others_go_on_beside_queries_that_take_long(begun: list[int]) -> None:
    async with limited(query=NEVER) as api, anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(api.post, endless)
        await until(lambda: len(begun) >= 2)

        await api.call(create("Job"))
        assert len(await api.query("Job")) == 1

        api.http._transport.app.state.engine.interrupt()  # type: ignore[attr-defined]


async def test_a_query_may_take_so_long_and_no_longer(begun: list[int]) -> None:
    async with limited(query=0.1) as api:
        assert "0.1 s at most" in (await api.refused(endless))["content"]
        assert "0.1 s at most" in (await api.refused(query("Job"), endless))["content"]
        assert await api.query("Job") == []


async def test_a_long_query_among_writes_ends_when_others_wait(begun: list[int]) -> None:
    async with limited(query=NEVER) as api, anyio.create_task_group() as group:
        errors = list[dict[str, Any]]()

        async def write() -> None:
            errors.append(await api.refused(create("Job"), endless))

        group.start_soon(write)
        await until(lambda: begun)
        assert await api.query("Job") == []
        await until(lambda: errors)

    assert "in a batch of its own" in errors[0]["content"]


async def test_only_the_queries_of_a_batch_count_and_not_its_writes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("aioftrackjobs.devserver.engine._LONGEST_AMONG_WRITES", -1.0)
    thread = "aioftrackjobs.devserver.http.backpressure.DatabaseThread.is_awaited"
    monkeypatch.setattr(thread, lambda _: True)
    async with limited() as api:
        created = await api.call(*(create("Job", data=str(n)) for n in range(500)))
        updates = [update("Job", each["data"]["id"], status="done") for each in created]
        assert len(await api.call(*updates)) == 500
        refused = await api.refused(create("Job"), query('Job where data like "%9%"'))
    assert "in a batch of its own" in refused["content"]


async def test_a_small_batch_waits_for_one_long_batch_and_not_for_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batch_endpoint, "_LONG", 1)
    monkeypatch.setattr(batch_endpoint, "_CHECK_AFTER", NEVER)
    order, may_go_on = list[int](), threading.Event()
    async with limited() as api:
        engine = api.http._transport.app.state.engine  # type: ignore[attr-defined]
        respond = engine.respond

        def noted(call: Any, *others: Any) -> bytes:
            order.append(len(call.operations))
            assert may_go_on.wait(20)
            return respond(call, *others)  # type: ignore[no-any-return]

        monkeypatch.setattr(engine, "respond", noted)
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(api.call, query("Job"), query("Job"))
            await until(lambda: order)
            await anyio.wait_all_tasks_blocked()
            group.start_soon(api.call, query("Job"))
            await anyio.wait_all_tasks_blocked()
            may_go_on.set()

    assert order == [2, 1, 2, 2]


async def test_what_is_read_beside_is_what_was_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("aioftrackjobs.devserver.engine._SHORT", -1.0)  # all takes long
    for database in (None, tmp_path / "ftrack.db"):
        app = create_app(database=database)
        async with http_of(app) as http:
            api = Caller(http, app.state.engine.api_user, app.state.engine.api_key)
            job = await api.create("Job", data="one")
            await api.update("Job", job["id"], data="two")
            criteria = " or ".join(f'user.username like "{n}%"' for n in range(100))

            (found,) = await api.query(f'select data from Job where data is "two" or {criteria}')
        app.state.engine.close()

        assert found["data"] == "two"


async def test_a_locked_database_is_busy_and_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = create_app(database=tmp_path / "ftrack.db")
    async with http_of(app) as http:
        api = Caller(http, app.state.engine.api_user, app.state.engine.api_key)
        with closing(sqlite3.connect(tmp_path / "ftrack.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            monkeypatch.setattr(batch_endpoint, "_LOCKED_FOR", 0.0)
            response = await api.post(create("Job"))
            assert await api.query("Job") == []
            monkeypatch.setattr(batch_endpoint, "_LOCKED_FOR", NEVER)
            async with anyio.create_task_group() as group:
                group.start_soon(api.call, create("Job"))
                await anyio.wait_all_tasks_blocked()
                other.execute("ROLLBACK")
        assert len(await api.query("Job")) == 1
    app.state.engine.close()

    assert (response.status_code, response.headers["retry-after"]) == (503, "1")


async def test_many_keys_of_several_parts_are_one_parameter(api: Caller) -> None:
    jobs = [await api.create("Job") for _ in range(3)]
    for number, job in enumerate(jobs):
        entity = {"parent_id": job["id"], "parent_type": "Job", "value": str(number)}
        await api.create("Metadata", key=f"k{number}", **entity)

    def criteria(numbers: Iterator[int], form: str) -> str:
        keys = (form.format(id=jobs[n % 3]["id"], n=n) for n in numbers)
        return " or ".join(keys)

    both = '(parent_id is "{id}" and key is "k{n}")'
    assert _values(await api.query(f"Metadata where {criteria(iter(range(2, 4000)), both)}")) == {
        "2"
    }
    one = 'key is "k{n}"'
    others = f"value is 1 or {criteria(iter(range(2, 300)), one)}"
    assert _values(await api.query(f"Metadata where {others}")) == {"1", "2"}
    assert _values(
        await api.query(f"Metadata where not ({criteria(iter(range(2, 300)), both)})")
    ) == {"0", "1"}


def _values(found: list[dict[str, Any]]) -> set[str]:
    return {entity["value"] for entity in found}


async def test_statements_do_not_grow_with_the_number_of_keys(
    api: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    statements = list[str]()
    engine = api.http._transport.app.state.engine  # type: ignore[attr-defined]
    sa.event.listen(
        engine._store._engine,
        "before_cursor_execute",
        lambda conn, cursor, statement, parameters, context, many: statements.append(statement),
    )

    for count in (10, 4000):
        keys = " or ".join(f'(key is "{n}" and parent_id is "{n}")' for n in range(count))
        assert await api.query(f"Metadata where {keys}") == []

    assert len(statements) == 2
    assert len(set(statements)) == 1


async def test_caches_are_bounded_by_size(api: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parser, "_trees", BoundedCache(20_000, lambda cached: cached[0]))
    compiled = api.http._transport.app.state.engine._store.connection  # type: ignore[attr-defined]
    kept = compiled.get_execution_options()["compiled_cache"]
    for number in range(300):
        names = " or ".join(f'name like "{number}-{n}"' for n in range(number % 60 + 1))
        assert await api.query(f"Setting where {names}") == []

    assert 0 < parser._trees.size <= 20_000
    assert 0 < kept.size <= kept._room


def test_a_cache_forgets_what_was_not_used_for_longest() -> None:
    cache = BoundedCache(16, len)
    for key in "abcdefgh":
        cache[key] = "xx"
    cache.get("a")

    cache["i"] = "xx"
    cache["j"] = "xxx"

    assert list(cache._values) == [
        "c",
        "d",
        "e",
        "f",
        "g",
        "h",
        "a",
        "i",
    ]  # one of three is too big
    assert cache.size == 16


# Bodies


def head(api: ServerHandle, key: str, length: int) -> bytes:
    return (
        f"POST /api HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n"
        f"ftrack-user: {api.api_user}\r\nftrack-api-key: {key}\r\n\r\n"
    ).encode()


async def responded(server: ServerHandle, sent: bytes, trickle: bytes = b"") -> str:
    """Return the head of the response to *sent*, while one byte after the other follows."""
    port = urlsplit(server.url).port
    assert port is not None
    async with await anyio.connect_tcp("127.0.0.1", port) as stream, anyio.create_task_group() as g:

        async def send() -> None:
            for number in range(len(trickle)):
                await stream.send(trickle[number : number + 1])
                await anyio.sleep(0.02)  # the pace of the attack

        await stream.send(sent)
        g.start_soon(send)
        received = await stream.receive()
        g.cancel_scope.cancel()
    return received.decode()


async def test_a_body_that_trickles_in_is_abandoned() -> None:
    async with running(limits=Limits(body=0.2, idle=NEVER)) as server:
        sent = head(server, server.api_key, 100_000)

        assert " 408 " in await responded(server, sent, bytes(10_000))


async def test_an_upload_that_trickles_in_is_abandoned() -> None:
    async with limited(body=0.2, idle=NEVER) as api:
        operation = {"action": "get_upload_metadata", "component_id": "x", "file_name": "x"}
        (announced,) = await api.call(operation | {"file_size": 100_000})

        async def trickle() -> AsyncIterator[bytes]:
            for _ in range(100_000):
                yield b"x"
                await anyio.sleep(0.02)  # the pace of the attack

        response = await api.http.put(
            announced["url"], content=trickle(), headers={"Content-Length": "100000"}
        )

    assert response.status_code == 408


@pytest.mark.parametrize("planned", [False, True], ids=["no fault", "a fault planned"])
async def test_no_body_is_read_without_a_key(server: ServerHandle, *, planned: bool) -> None:
    if planned:
        server.faults.inject(Refuse())

    refused = await responded(server, head(server, "wrong", 200 * MIB))

    assert "InvalidCredentials" in refused or " 200 " in refused
    assert len(server.faults.planned) == planned
    assert not server.faults.injected


async def test_a_body_is_not_read_beyond_the_limit_with_a_fault_planned() -> None:
    async with running(limits=Limits(request=1000)) as server:
        server.faults.inject(Refuse())

        assert " 413 " in await responded(server, head(server, server.api_key, 1001))
        assert not server.faults.injected
        async with httpx.AsyncClient(base_url=server.url) as http:
            api = Caller(http, server.api_user, server.api_key)

            async def pieces() -> AsyncIterator[bytes]:
                for _ in range(20):
                    yield bytes(100)

            assert (await api.send(pieces())).status_code == 413  # type: ignore[arg-type]


async def test_a_big_body_is_not_read_for_a_user_who_is_gone(server: ServerHandle) -> None:
    async with httpx.AsyncClient(base_url=server.url) as http:
        api = Caller(http, server.api_user, server.api_key)
        (maya,) = await api.query("User where username is maya")
        await api.call(update("User", maya["id"], is_active=False))
    key = server.api_keys["maya"]
    sent = head(server, key, 2 * SMALL).replace(server.api_user.encode(), b"maya")

    assert " 200 " in await responded(server, sent)


async def test_the_body_of_a_client_that_has_left_is_not_parsed(
    server: ServerHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_endpoint, "_PARSED_AT_ONCE", 100)
    parsed, may_go_on = list[bytes](), threading.Event()
    parse = Engine.parse

    def noted(engine: Engine, body: bytes, caller: Any) -> Any:
        if len(body) > 100:
            parsed.append(body.strip(b" "))
            assert may_go_on.wait(20)
        return parse(engine, body, caller)

    monkeypatch.setattr(Engine, "parse", noted)
    async with httpx.AsyncClient(base_url=server.url) as http, anyio.create_task_group() as group:
        api = Caller(http, server.api_user, server.api_key)
        group.start_soon(api.send, b"[]".ljust(200))
        await until(lambda: parsed)
        port = urlsplit(server.url).port
        assert port is not None
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            await stream.send(head(server, server.api_key, 200) + b"[ ]".ljust(200))
            await api.call(query("Job"))
        await api.call(query("Job"))  # meanwhile the server sees that the other is gone
        may_go_on.set()
    async with httpx.AsyncClient(base_url=server.url) as http:
        api = Caller(http, server.api_user, server.api_key)
        await api.send(b"[  ]".ljust(200))

    assert parsed == [b"[]", b"[  ]"]


async def test_a_big_request_waits_for_a_bounded_time() -> None:
    async with limited(body=0.2, request=BIG_TOTAL) as api:
        reader = api.http._transport.app.state.reader  # type: ignore[attr-defined]
        async with reader._big_bodies:  # by a client whose body is on its way
            response = await api.send(b"[]".ljust(2 * SMALL))

    assert response.status_code == 503
    assert "retry-after" in response.headers


async def test_those_without_a_key_do_not_wait_for_the_database(
    begun: list[int], server: ServerHandle
) -> None:
    async with httpx.AsyncClient(base_url=server.url, timeout=None) as http:
        for path in ("get", "thumbnail", "remove"):
            response = await http.get(f"/component/{path}?id=x&username=maya&apiKey=wrong")
            assert response.json()["exception"] == "InvalidCredentialsError"


async def test_a_connection_without_a_request_is_closed(
    server: ServerHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uvicorn_server, "_LONGEST_IDLE", 0.1)
    port = urlsplit(server.url).port
    assert port is not None
    for beginning in (b"", b"POST /api HTTP/1.1\r\nHost: localhost\r\n", head(server, "x", 100)):
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            if beginning:
                await stream.send(beginning)
            with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                while await stream.receive():
                    pass


async def test_too_many_idle_connections_make_room(
    server: ServerHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uvicorn_server, "_MOST_IDLE", 1)
    port = urlsplit(server.url).port
    assert port is not None
    async with (
        await anyio.connect_tcp("127.0.0.1", port) as first,
        await anyio.connect_tcp("127.0.0.1", port),
    ):
        with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
            await first.receive()


async def test_strangers_do_not_displace_a_client_with_a_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(uvicorn_server, "_MOST_IDLE", 1)
    # A server of its own: a late response to a client of an earlier test would displace this one.
    async with running() as server:
        port = urlsplit(server.url).port
        assert port is not None

        async with await anyio.connect_tcp("127.0.0.1", port) as client:
            received = BufferedByteReceiveStream(client)

            async def call() -> None:
                await client.send(head(server, server.api_key, 2) + b"[]")
                assert b" 200 " in await received.receive_until(b"\r\n\r\n", 2000)
                assert await received.receive_exactly(2) == b"[]"

            await call()
            async with (
                await anyio.connect_tcp("127.0.0.1", port) as stranger,
                await anyio.connect_tcp("127.0.0.1", port),
            ):
                with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                    await stranger.receive()
                await call()


# Hosts and origins


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:80"}, 200),
        ({"Host": "farm"}, 200),
        ({"Host": "[::1]:8090"}, 200),
        ({"Host": "10.1.2.3"}, 200),
        ({"Host": "studio.example.com"}, 200),
        ({"Host": "evil.example.com"}, 403),
        ({"Host": "localhost.evil.com"}, 403),
        ({"Host": "127.0.0.1.evil.com"}, 403),
        ({"Host": "evil.com:8090"}, 403),
        ({"Origin": "http://localhost:3000"}, 200),
        ({"Origin": "http://127.0.0.1:3000"}, 200),
        ({"Origin": "https://studio.example.com"}, 200),
        ({"Host": "10.1.2.3", "Origin": "http://10.1.2.3:3000"}, 200),
        ({"Origin": "http://10.1.2.3"}, 403),
        ({"Origin": "https://evil.com"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://[bad"}, 403),
        ({"Origin": "file://"}, 403),
        ({"Origin": "chrome-extension://abc"}, 403),
    ],
)
async def test_only_trusted_hosts_and_origins_are_served(
    headers: dict[str, str], status: int
) -> None:
    app = create_app(trusted_hosts=["Studio.example.com"])
    async with http_of(app) as http:
        api = Caller(http, app.state.engine.api_user, app.state.engine.api_key)
        responses = [
            await api.post(query("Job"), **headers),
            await http.get("/img/thumbnail2.png", headers=headers),
        ]
        preflight = {"Access-Control-Request-Method": "POST", "Origin": "http://localhost"}
        responses.append(await http.options("/api", headers=preflight | headers))
    app.state.engine.close()

    assert [response.status_code for response in responses] == [status] * 3
    if status == 403:
        assert "trusted_hosts" in responses[0].json()["content"]
        assert not any("access-control-allow-origin" in each.headers for each in responses)


async def test_a_server_is_called_by_the_name_that_it_is_bound_to(server: ServerHandle) -> None:
    async with httpx.AsyncClient(base_url=server.url) as http:
        response = await http.get("/img/thumbnail2.png", headers={"Host": "evil.com"})
        assert response.status_code == 403
        assert (await http.get("/img/thumbnail2.png")).status_code == 200
