"""Uploads that stall, and more uploads than are received at the same time."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from aioftrackjobs.devserver import Limits
from aioftrackjobs.devserver.files.storage import IncomingFile, Storage

from .caller import names_in, new_id, stored
from .test_uploads import CHECKSUM, CONTENT, announce, calling, put, stalled
from .waiting import until


@pytest.mark.parametrize("parts", [None, 2], ids=["whole", "part"])
async def test_an_upload_that_stops_arriving_is_abandoned_and_leaves_nothing(
    tmp_path: Path, parts: int | None
) -> None:
    async with calling(storage=tmp_path, limits=Limits(idle=0.05)) as api:
        metadata = await announce(api, new_id(), parts=parts)
        url = metadata["url"] if parts is None else metadata["urls"][0]["signed_url"]
        # httpx would read the response only when it has sent all of the body.
        host = f"{api.http.base_url.host}", api.http.base_url.port or 80
        head = f"PUT {httpx.URL(url).path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        async with await anyio.connect_tcp(*host) as stream:
            await stream.send(f"{head}Content-Length: {len(CONTENT)}\r\n\r\n".encode())
            await stream.send(CONTENT[:100])
            with anyio.fail_after(10):
                result = b"".join([chunk async for chunk in stream])
        left = names_in(stored(tmp_path))

    head, _, body = result.decode().partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 408")
    assert json.loads(body)["exception"] == "RequestError"
    assert left == []


class Watched:
    """Counts the uploads that a server receives at once, and the threads of this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = self.most = self.threads = 0
        self._lock = threading.Lock()
        make, discard = Storage.incoming, IncomingFile.discard

        def counted(storage: Storage, component_id: str, *, hashed: bool) -> IncomingFile:
            self._count(1)
            return make(storage, component_id, hashed=hashed)

        def uncounted(incoming: IncomingFile) -> None:
            discard(incoming)
            self._count(-1)

        monkeypatch.setattr(Storage, "incoming", counted)
        monkeypatch.setattr(IncomingFile, "discard", uncounted)

    def _count(self, step: int) -> None:
        with self._lock:
            self.now += step
            self.most = max(self.most, self.now)
            self.threads = max(self.threads, threading.active_count())


async def test_many_uploads_wait_for_their_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All are done, and neither threads nor files grow with their number."""
    watched, before = Watched(monkeypatch), threading.active_count()
    done: list[int] = []
    async with calling(storage=tmp_path, limits=Limits(uploads=3)) as api:

        async def upload(metadata: Any) -> None:
            response = await put(api, metadata)
            done.append(response.status_code)

        announced = [await announce(api, new_id(), checksum=CHECKSUM) for _ in range(50)]
        async with anyio.create_task_group() as tasks:
            for metadata in announced:
                tasks.start_soon(upload, metadata)

    assert done == [200] * 50
    assert watched.most == 3
    # Two consumers for each, one to wait for them, and the server's own.
    assert watched.threads <= before + 3 * 3 + 3
    assert len(names_in(stored(tmp_path))) == 50


async def test_an_upload_that_waits_too_long_gets_retry_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(monkeypatch)
    limits = Limits(uploads=2, queue_timeout=0.05)
    async with (
        calling(storage=tmp_path, limits=limits) as api,
        anyio.create_task_group() as tasks,
    ):
        for _ in range(2):
            tasks.start_soon(put, api, await announce(api, new_id()), stalled())
        await until(lambda: watched.now == 2)
        metadata = await announce(api, new_id(), checksum=CHECKSUM)

        refused = await put(api, metadata)
        tasks.cancel_scope.cancel()
    await until(lambda: watched.now == 0)

    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "5"
    assert refused.json()["exception"] == "TransferError"
    assert "2 uploads are running" in refused.json()["content"]
    assert names_in(stored(tmp_path)) == []


async def test_a_client_that_disconnects_releases_its_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    async with calling(limits=Limits(uploads=1)) as api:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(put, api, await announce(api, new_id()), stalled())
            await until(lambda: watched.now == 1)
            tasks.cancel_scope.cancel()

        response = await put(api, await announce(api, new_id(), checksum=CHECKSUM))

    assert response.status_code == 200
