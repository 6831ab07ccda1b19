"""Starting and stopping on a real socket."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
from uvicorn.server import ServerState

from aioftrackjobs.devserver import (
    Limits,
    ServerEndedError,
    ServerHandle,
    ServerStartError,
    create_app,
    running,
)
from aioftrackjobs.devserver.schema.builtin import BUILTIN_SCHEMAS
from aioftrackjobs.devserver.serving import runner, uvicorn_server

from .caller import Caller, create, names_in
from .waiting import server_threads, until


async def test_a_server_responds_on_a_free_port(remote: Caller) -> None:
    assert await remote.query("Job") == []


async def test_two_servers_share_nothing() -> None:
    async with running() as one, running() as other:
        assert one.url != other.url
        assert one.api_key != other.api_key


async def test_a_stopped_server_leaves_no_thread_and_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    threads, servers = threading.active_count(), server_threads()

    async with running() as server:
        async with httpx.AsyncClient() as http:
            await http.get(server.url)
        assert len(server_threads()) == len(servers) + 1

    assert server_threads() == servers
    # Its workers end a moment later; anyio keeps an idle one of ours.
    await until(lambda: threading.active_count() <= threads + 1)
    assert names_in(tmp_path) == []


async def test_a_kept_alive_connection_does_not_hold_up_the_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left = list[int]()

    async def record(state: ServerState) -> None:
        left.append(len(state.connections))

    monkeypatch.setattr(uvicorn_server, "_cut_off", record)  # called when the grace is over
    async with httpx.AsyncClient() as http:
        async with running() as server:
            await http.get(server.url)

    assert left == [0]


async def test_a_port_in_use_is_an_error_of_the_caller(server: ServerHandle) -> None:
    port = int(server.url.rpartition(":")[2])

    with pytest.raises(ServerStartError, match=f"cannot serve on 127.0.0.1:{port}"):
        async with running(port=port):
            pytest.fail("it started")


async def test_an_unusable_database_is_an_error_of_the_caller(tmp_path: Path) -> None:
    database = tmp_path / "notes.txt"
    database.write_text("this is no database, and long enough to be sure of it" * 20)

    with pytest.raises(ServerStartError, match="cannot use the database"):
        async with running(database=database):
            pytest.fail("it started")


async def test_a_database_of_other_schemas_is_refused(tmp_path: Path) -> None:
    database = tmp_path / "ftrack.db"
    async with running(database=database):
        pass

    with pytest.raises(ServerStartError, match="made for other schemas"):
        async with running(database=database, schemas=BUILTIN_SCHEMAS[:-1]):
            pytest.fail("it started")


async def test_a_file_keeps_entities_and_keys(tmp_path: Path) -> None:
    keys = []
    for _ in range(2):
        async with (
            running(database=tmp_path / "ftrack.db", storage=tmp_path / "files") as server,
            httpx.AsyncClient(base_url=server.url) as http,
        ):
            api = Caller(http, server.api_user, server.api_key)
            await api.call(create("Job"))
            keys.append(server.api_key)
            jobs = await api.query("Job")

    assert keys[0] == keys[1]
    assert len(jobs) == 2


async def test_user_and_key_can_be_chosen() -> None:
    async with (
        running(api_user="ada", api_key="s3cret-key") as server,
        httpx.AsyncClient(base_url=server.url) as http,
    ):
        assert await Caller(http, "ada", "s3cret-key").query("User where username is ada")


async def test_limits_can_be_chosen() -> None:
    async with (
        running(limits=Limits(operations=1)) as server,
        httpx.AsyncClient(base_url=server.url) as http,
    ):
        response = await Caller(http, server.api_user, server.api_key).post(*[create("Job")] * 2)

    assert response.status_code == 413


async def test_other_schemas_can_be_served() -> None:
    schemas = [each for each in BUILTIN_SCHEMAS if each["id"] in {"Location", "Setting"}]
    async with (
        running(schemas=schemas) as server,
        httpx.AsyncClient(base_url=server.url) as http,
    ):
        api = Caller(http, server.api_user, server.api_key)

        assert len(await api.query("Location")) == 5
        assert (await api.call({"action": "query_schemas"})) == [schemas]


async def test_the_key_is_in_no_repr_and_no_log(
    remote: Caller, server: ServerHandle, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="aioftrackjobs")
    caplog.set_level(logging.DEBUG, logger="uvicorn")
    address = f"/component/get?id=x&username={remote.user}&apiKey={remote.key}"

    await remote.http.get(address)

    assert remote.key not in repr(server)
    assert remote.key not in str(server)
    ours = [r.getMessage() for r in caplog.records if not r.name.startswith("http")]
    assert not any(remote.key in message for message in ours)


async def test_the_application_works_with_its_lifespan_too() -> None:
    app = create_app()
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as http:
            engine = app.state.engine
            assert await Caller(http, engine.api_user, engine.api_key).query("Job") == []
    assert not engine.storage.folder.exists()


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the servers that are started in the test, and no others, fail when they are ready."""

    async def fail(*_: object) -> None:
        raise OSError("out of memory")

    def failing_server(*arguments: Any) -> uvicorn_server.UvicornServer:
        server = uvicorn_server.uvicorn_server(*arguments)
        server.on_tick = fail  # type: ignore[assignment,method-assign]
        return server

    monkeypatch.setattr(runner, "uvicorn_server", failing_server)


@pytest.mark.usefixtures("failing")
async def test_a_server_that_ended_by_itself_raises_at_the_end_of_the_block() -> None:
    with pytest.raises(ServerEndedError) as caught:
        async with running():
            pass

    assert repr(caught.value.__cause__) == "OSError('out of memory')"


@pytest.mark.usefixtures("failing")
async def test_an_error_of_the_block_is_not_hidden_by_the_end_of_the_server() -> None:
    with pytest.raises(KeyError):
        async with running():
            raise KeyError("of the block")


async def test_the_server_runs_on_the_same_loop_whatever_else_is_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", ModuleType("uvloop"))  # no loop can be made of it

    async with running() as server, httpx.AsyncClient() as client:
        assert (await client.post(f"{server.url}/api", json=[])).status_code == 200


SERVE = """
from aioftrackjobs.devserver import serve
serve(port=0, api_key="k", on_ready=lambda handle: print(handle.url, flush=True))
print("ended", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serving_ends_cleanly_on_a_signal(number: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE], stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    status = httpx.post(f"{url}/api", json=[]).status_code
    process.send_signal(number)
    rest, _ = process.communicate(timeout=10)

    assert (status, rest, process.returncode) == (200, "ended\n", 0)


SERVE_AND_FAIL = """
from aioftrackjobs.devserver import ServerEndedError, serve
from aioftrackjobs.devserver.serving import uvicorn_server

async def fail(*_):
    raise OSError("out of memory")

setattr(uvicorn_server.UvicornServer, *{failure})
try:
    serve(port=0, on_ready=lambda handle: print("ready", flush=True))
except ServerEndedError as error:
    print(f"{{error}}: {{error.__cause__!r}}")
"""


@pytest.mark.parametrize(
    ("failure", "cause"),
    [
        ('("on_tick", fail)', "OSError('out of memory')"),
        ('("run", lambda *_, **__: None)', "None"),
    ],
    ids=["failing", "silently"],
)
def test_serving_ends_when_the_server_does(failure: str, cause: str) -> None:
    """Otherwise the program would wait for ever."""
    program = SERVE_AND_FAIL.format(failure=failure)

    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=20
    )

    assert ended.returncode == 0, ended.stderr
    assert f"the server ended by itself; its log says why: {cause}" in ended.stdout
