"""A file database, its files and running uploads survive a server killed at any moment.

``AIOFTRACKJOBS_KILLS`` sets how often it is killed, 10 times if it does not.
"""

from __future__ import annotations

import hashlib
import random
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from aioftrackjobs.devserver import create_app
from aioftrackjobs.devserver.api.uploads import COMPLETE
from aioftrackjobs.devserver.auth import api_keys
from aioftrackjobs.devserver.files.storage import PART
from aioftrackjobs.devserver.schema.loader import builtin_model
from aioftrackjobs.devserver.store.database import Database
from aioftrackjobs.devserver.store.tables import Tables

from ..amounts import amount
from .caller import Caller, create, names_in, new_id, stored, update
from .served import API_KEY, Served, served
from .test_uploads import get
from .waiting import until

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kills as POSIX does")

ROUNDS = amount(2, 30)
WRITERS = 4
BATCH = 5
#: Seconds that the server is written to before it is killed, at most.
LOAD = 0.4
#: Parts of an upload, and bytes of a part: enough for most kills to find one in the middle.
PARTS = 4
PART_SIZE = 200_000
#: Files that are also downloaded after each kill; all are compared on the disk.
SAMPLE = 5


class InParts:
    """One upload in parts, which a client resumes with the next server."""

    def __init__(self, metadata: dict[str, Any], content: bytes) -> None:
        self.content = content
        self.component_id: str = metadata["component_id"]
        self._upload_id = metadata["upload_id"]
        self._paths = [httpx.URL(each["signed_url"]).raw_path.decode() for each in metadata["urls"]]
        self._tags: list[str] = []
        self.is_completing = False

    async def resume(self, api: Caller) -> None:
        """Send what no server has acknowledged yet, then complete it."""
        while len(self._tags) < PARTS:
            start = len(self._tags) * PART_SIZE
            part = self.content[start : start + PART_SIZE]
            response = await api.http.put(self._paths[len(self._tags)], content=part)
            assert response.status_code == 200, response.text
            self._tags.append(response.headers["ETag"])
        self.is_completing = True
        parts = [{"part_number": n, "e_tag": tag} for n, tag in enumerate(self._tags, 1)]
        operation = {
            "action": COMPLETE,
            "upload_id": self._upload_id,
            "component_id": self.component_id,
            "parts": parts,
        }
        await api.call(create("FileComponent", id=self.component_id), operation)


class Written:
    """What was sent, and which of that the server has acknowledged."""

    def __init__(self) -> None:
        self.batches: set[str] = set()
        self.updates: list[tuple[list[str], int]] = []
        self.files: dict[str, bytes] = {}
        self.sent: dict[str, str] = {}
        self.running: list[InParts] = []
        self.completed_without_response = 0


async def write_batches(api: Caller, written: Written) -> None:
    """Create jobs, each batch with a name of its own."""
    while True:
        name = new_id()
        await api.call(*(create("Job", data=name) for _ in range(BATCH)))
        written.batches.add(name)


async def write_updates(api: Caller, written: Written) -> None:
    """Count up in two jobs at once."""
    names = [result["data"]["id"] for result in await api.call(create("Job"), create("Job"))]
    step = 0
    written.updates.append((names, step))
    while True:
        step += 1
        await api.call(*(update("Job", name, data=str(step)) for name in names))
        written.updates[-1] = names, step


async def write_files(api: Caller, written: Written) -> None:
    """Upload files that are big enough to be cut in two."""
    while True:
        component_id, content = new_id(), random.randbytes(300_000)
        written.sent[component_id] = hashlib.md5(content).hexdigest()
        operation = {
            "action": "get_upload_metadata",
            "component_id": component_id,
            "file_name": "a.bin",
            "file_size": len(content),
        }
        (result,) = await api.call(operation)
        response = await api.http.put(result["url"], content=content, headers=result["headers"])
        if response.status_code == 200:
            written.files[component_id] = content


async def write_parts(api: Caller, written: Written) -> None:
    """Upload files in parts, the one that a killed server has left first."""
    while True:
        if not written.running:
            component_id, content = new_id(), random.randbytes(PARTS * PART_SIZE)
            operation = {
                "action": "get_upload_metadata",
                "component_id": component_id,
                "file_name": "a.bin",
                "file_size": len(content),
                "parts": PARTS,
            }
            (metadata,) = await api.call(operation)
            written.sent[component_id] = hashlib.md5(content).hexdigest()
            written.running.append(InParts(metadata, content))
        upload = written.running[0]
        await upload.resume(api)
        written.files[upload.component_id] = upload.content
        written.running.clear()


Writer = Callable[[Caller, Written], Coroutine[Any, Any, None]]


async def until_killed(writer: Writer, api: Caller, written: Written) -> None:
    with suppress(httpx.TransportError):
        await writer(api, written)


async def write_and_kill(server: Served, written: Written) -> None:
    """Write to *server* with all writers, and kill it meanwhile."""
    async with httpx.AsyncClient(base_url=server.url) as http:
        api = Caller(http, "developer", API_KEY)
        async with anyio.create_task_group() as writing:
            for writer in [*[write_batches] * WRITERS, write_updates, write_files, write_parts]:
                writing.start_soon(until_killed, writer, api, written)
            await until(lambda: written.files)  # on a busy machine the first takes long
            await anyio.sleep(random.uniform(LOAD / 4, LOAD))
            server.kill()


async def check(server: Served, folder: Path, written: Written) -> None:
    """Check that all acknowledged changes exist, and none in part."""
    async with httpx.AsyncClient(base_url=server.url, timeout=30) as http:
        api = Caller(http, "developer", API_KEY)
        rows = await api.query("select id, data from Job")
        await settle(api, written)
        sample = random.sample(sorted(written.files), min(SAMPLE, len(written.files)))
        for name in sample:
            assert (await get(api, name)).content == written.files[name]
    sizes = Counter(row["data"] for row in rows)
    found = {row["id"]: row["data"] for row in rows}
    assert written.batches <= sizes.keys()
    assert {sizes[name] for name in sizes if name and "-" in name} <= {BATCH}
    for names, step in written.updates:
        first, second = (int(found[name] or 0) for name in names)
        assert first == second  # one batch changes both
        assert first in (step, step + 1)  # the last one may have had no response
    for component_id, content in written.files.items():
        assert (stored(folder / "files") / component_id).read_bytes() == content
    for path in stored(folder / "files").iterdir():
        if not path.name.startswith("."):
            assert hashlib.md5(path.read_bytes()).hexdigest() == written.sent[path.name]
    # Incomplete files are removed; parts stay for clients that resume their upload.
    names = [name for name in names_in(stored(folder / "files")) if name.startswith(".")]
    assert all(name.startswith(PART) for name in names)


async def settle(api: Caller, written: Written) -> None:
    """Count an upload as completed if its completion was done and the response was lost."""
    for upload in [each for each in written.running if each.is_completing]:
        found = await api.query(f'FileComponent where id is "{upload.component_id}"')
        if found:  # it was created in the same batch
            written.files[upload.component_id] = upload.content
            written.running.remove(upload)
            written.completed_without_response += 1


@pytest.mark.slow
@pytest.mark.long
async def test_a_killed_server_loses_nothing_it_has_acknowledged(tmp_path: Path) -> None:
    written = Written()
    for _ in range(ROUNDS):
        with served(tmp_path) as server:
            await check(server, tmp_path, written)
            await write_and_kill(server, written)
    with served(tmp_path) as server:
        await check(server, tmp_path, written)

    assert len(written.batches) > ROUNDS
    assert len(written.files) > 0
    parts = [name for name in names_in(stored(tmp_path / "files")) if name.startswith(PART)]
    assert len(parts) <= PARTS * (written.completed_without_response + 1)
    database = sqlite3.connect(tmp_path / "ftrack.db")
    assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()


def test_a_database_that_was_made_and_not_filled_is_filled_next_time(tmp_path: Path) -> None:
    """A server that is killed at its start leaves that: filling is one batch."""
    path = tmp_path / "ftrack.db"
    Database(Tables(builtin_model()), path).close()

    create_app(database=path).state.engine.close()

    store = Database(Tables(builtin_model()), path)
    with store.transaction() as transaction:
        assert api_keys(builtin_model(), transaction).keys() >= {"developer", "maya"}
        assert transaction.read("Context", {"name": "demo"}) is not None
    store.close()


async def test_a_full_disk_is_an_error(tmp_path: Path) -> None:
    store = Database(Tables(builtin_model()), tmp_path / "ftrack.db")
    (pages,) = store.driver.execute("PRAGMA page_count").fetchone()
    store.driver.execute(f"PRAGMA max_page_count = {pages}")

    with pytest.raises(sqlite3.OperationalError, match="full"):
        with store.transaction() as transaction:
            for _ in range(1000):
                transaction.insert("Job", {"_type": "Job", "id": new_id(), "data": "x" * 1000})

    with store.transaction() as transaction:
        assert transaction.fetch(transaction.tables["Job"].select()) == []
    store.close()
