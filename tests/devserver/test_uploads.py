"""Files: announced, uploaded, checked, read back, removed."""

from __future__ import annotations

import base64
import errno
import hashlib
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from aioftrackjobs.devserver import create_app, running
from aioftrackjobs.devserver.files.storage import IncomingFile
from aioftrackjobs.devserver.http import upload_receiver
from aioftrackjobs.devserver.serving import uvicorn_server

from .caller import Caller, create, names_in, new_id, stored
from .waiting import until

CONTENT = b"frame 1001\n" * 1000
CHECKSUM = base64.b64encode(hashlib.md5(CONTENT).digest()).decode()


async def announce(api: Caller, component_id: str, **fields: Any) -> dict[str, Any]:
    operation = {
        "action": "get_upload_metadata",
        "component_id": component_id,
        "file_name": "log.txt",
        "file_size": len(CONTENT),
    }
    (metadata,) = await api.call(operation | fields)
    assert isinstance(metadata, dict)
    return metadata


async def put(api: Caller, metadata: dict[str, Any], content: Any = CONTENT) -> httpx.Response:
    return await api.http.put(metadata["url"], content=content, headers=metadata["headers"])


async def get(api: Caller, component_id: str, action: str = "get") -> httpx.Response:
    query = {"id": component_id, "username": api.user, "apiKey": api.key}
    return await api.http.get(f"/component/{action}", params=query)


async def test_a_file_comes_back_as_it_was_sent(api: Caller) -> None:
    component_id = new_id()
    metadata = await announce(api, component_id, checksum=CHECKSUM)
    assert metadata["component_id"] == component_id
    assert metadata["headers"] == {
        "Content-Type": "text/plain",
        "Content-Length": str(len(CONTENT)),
        "Content-MD5": CHECKSUM,
    }

    uploaded = await put(api, metadata)
    await api.create("FileComponent", id=component_id, name="Grüße", file_type=".txt")
    downloaded = await get(api, component_id)

    assert uploaded.status_code == 200
    assert "etag" in uploaded.headers
    assert downloaded.content == CONTENT
    assert downloaded.headers["content-length"] == str(len(CONTENT))
    assert "Gr%C3%BC%C3%9Fe.txt" in downloaded.headers["content-disposition"]


async def test_an_existing_component_needs_no_name_and_size(api: Caller) -> None:
    component_id = new_id()
    await api.create("FileComponent", id=component_id, name="a", file_type=".png", size=7)

    metadata = await announce(api, component_id, file_name=None, file_size=None)

    assert metadata["headers"] == {"Content-Type": "image/png", "Content-Length": "7"}


@pytest.mark.parametrize(
    "fields",
    [
        {"file_name": None},
        {"file_size": None},
        {"file_size": -1},
        {"file_size": True},
        {"checksum": "x"},
        {"checksum": 5},
        {"component_id": "../x"},
        {"component_id": None},
    ],
)
async def test_an_announcement_must_be_complete(api: Caller, fields: dict[str, Any]) -> None:
    operation = {
        "action": "get_upload_metadata",
        "component_id": new_id(),
        "file_name": "x",
        "file_size": 1,
    }

    error = await api.refused(operation | fields)

    assert error["exception"] == "ValidationError"


@pytest.mark.parametrize(
    ("content", "status"),
    [(CONTENT[:-1] + b"!", 400), (CONTENT[:-1], 400), (CONTENT + b"!", 413), (b"", 400)],
    ids=["damaged", "short", "long", "empty"],
)
async def test_what_was_not_announced_is_not_kept(api: Caller, content: bytes, status: int) -> None:
    component_id = new_id()
    metadata = await announce(api, component_id, checksum=CHECKSUM)

    response = await api.http.put(metadata["url"], content=content)

    assert response.status_code == status
    assert response.json()["exception"] == "TransferError"
    assert (await get(api, component_id)).status_code == 404


async def test_a_failed_upload_leaves_the_earlier_file(api: Caller) -> None:
    component_id = new_id()
    metadata = await announce(api, component_id, checksum=CHECKSUM)
    await put(api, metadata)

    await api.http.put(metadata["url"], content=b"other")

    assert (await get(api, component_id)).content == CONTENT


async def test_an_upload_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    async def half() -> AsyncIterator[bytes]:
        yield CONTENT[:100]
        raise ConnectionAbortedError

    async with (
        running(storage=tmp_path) as server,
        httpx.AsyncClient(base_url=server.url) as http,
    ):
        api = Caller(http, server.api_user, server.api_key)
        metadata = await announce(api, new_id())
        with pytest.raises(ConnectionAbortedError):
            await put(api, metadata, half())
        await http.aclose()

    assert names_in(stored(tmp_path)) == []


async def test_an_upload_that_cannot_be_written_ends_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while it waits for the disk: the body is bigger than the queue."""

    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "disk full")

    monkeypatch.setattr(IncomingFile, "write", fail)

    async def blocks() -> AsyncIterator[bytes]:
        for _ in range(8):
            yield bytes(upload_receiver._BLOCK)

    app = create_app(storage=tmp_path)
    engine = app.state.engine
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://ftrack.test") as http:
        api = Caller(http, engine.api_user, engine.api_key)
        metadata = await announce(api, new_id(), file_size=8 * upload_receiver._BLOCK)
        response = await put(api, metadata, blocks())
    engine.close()

    assert response.status_code == 500
    assert names_in(stored(tmp_path)) == []


@asynccontextmanager
async def calling(**options: Any) -> AsyncIterator[Caller]:
    """A caller of a server on a real socket that is run with these *options*."""
    async with (
        running(**options) as server,
        httpx.AsyncClient(base_url=server.url, timeout=30) as http,
    ):
        yield Caller(http, server.api_user, server.api_key)


async def stalled() -> AsyncIterator[bytes]:
    """The beginning of a file, and never the rest."""
    yield CONTENT[:100]
    await anyio.sleep_forever()


async def test_only_some_of_an_upload_is_held_in_memory() -> None:
    """A consumer that is stuck gets no more blocks."""
    got, going_on = list[bytes](), threading.Semaphore(0)

    def consume(block: bytes) -> None:
        going_on.acquire()
        got.append(block)

    consumer = upload_receiver._Consumer(consume)
    blocks = [bytes([number]) for number in range(2 * upload_receiver._AHEAD)]
    fed: list[bytes] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(consumer.run)

        async def feed() -> None:
            for block in blocks:
                await consumer.feed(block)
                fed.append(block)
            consumer.close()

        tasks.start_soon(feed)
        await anyio.wait_all_tasks_blocked()
        assert fed == blocks[: upload_receiver._AHEAD]
        going_on.release(len(blocks))

    assert got == blocks


async def test_a_stop_cuts_off_an_upload_that_does_not_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uvicorn_server, "_STOP_GRACE", 0.02)

    async with httpx.AsyncClient() as http, anyio.create_task_group() as tasks:
        async with running(storage=tmp_path) as server:
            api = Caller(http, server.api_user, server.api_key)
            http.base_url = httpx.URL(server.url)
            metadata = await announce(api, new_id(), checksum=CHECKSUM)

            tasks.start_soon(put, api, metadata, stalled())
            await until(lambda: names_in(stored(tmp_path)))
        assert names_in(stored(tmp_path)) == []
        tasks.cancel_scope.cancel()


async def test_a_signed_address_needs_no_key(api: Caller) -> None:
    component_id = new_id()
    await put(api, await announce(api, component_id))
    await api.call(
        create("FileComponent", id=component_id),
        create("ComponentLocation", component_id=component_id),
    )
    (row,) = await api.query("select url from ComponentLocation")

    response = await api.http.get(row["url"]["value"])

    assert response.content == CONTENT


async def test_a_signature_is_valid_for_its_own_use_only(api: Caller) -> None:
    """Clients choose the id of a component, and it may look like another signed text."""
    uploads = api.http._transport.app.state.engine.uploads  # type: ignore[attr-defined]
    announced = (await announce(api, "x"))["url"].rpartition("/")[2]
    content = announced[43:]
    component_id = f"put{content}"
    await api.create("FileComponent", id=component_id)
    await api.create("ComponentLocation", component_id=component_id)
    (row,) = await api.query("select url from ComponentLocation")
    signature = row["url"]["value"].rpartition("=")[2]

    forged = await api.http.put(f"/upload/{signature}{content}", content=CONTENT)

    assert uploads.is_signature("get", component_id, signature)
    assert forged.status_code == 403


async def test_addresses_are_valid_for_the_next_server_with_the_database(tmp_path: Path) -> None:
    kept = {"database": tmp_path / "ftrack.db", "storage": tmp_path / "files"}
    component_id = new_id()
    async with calling(**kept) as api:
        metadata = await announce(api, component_id, checksum=CHECKSUM)
    async with calling(**kept) as api:
        path = httpx.URL(metadata["url"]).path
        uploaded = await api.http.put(path, content=CONTENT, headers=metadata["headers"])
        await api.create("FileComponent", id=component_id)
        await api.create("ComponentLocation", component_id=component_id)
        (row,) = await api.query("select url from ComponentLocation")
    async with calling(**kept) as api:
        read = await api.http.get(httpx.URL(row["url"]["value"]).raw_path.decode())
    async with calling() as api:
        elsewhere = await api.http.put(path, content=CONTENT)

    assert uploaded.status_code == 200
    assert read.content == CONTENT
    assert elsewhere.status_code == 403


async def test_a_range_of_a_file_can_be_requested(api: Caller) -> None:
    component_id = new_id()
    await put(api, await announce(api, component_id))

    response = await api.http.get(
        f"/component/get?id={component_id}&username={api.user}&apiKey={api.key}",
        headers={"Range": "bytes=0-4"},
    )

    assert (response.status_code, response.content) == (206, CONTENT[:5])


async def test_a_removed_file_cannot_be_read(api: Caller) -> None:
    component_id = new_id()
    await put(api, await announce(api, component_id))
    query = {"id": component_id, "username": api.user, "apiKey": api.key}

    statuses = [
        (await api.http.get("/component/remove", params=query)).status_code for _ in range(2)
    ]

    assert statuses == [200, 404]
    assert (await get(api, component_id)).status_code == 404
