"""Uploads in parts: announced, sent in any order, completed, or abandoned."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from aioftrackjobs.devserver import Limits, create_app
from aioftrackjobs.devserver.api.request import Caller as Requester
from aioftrackjobs.devserver.files import storage
from aioftrackjobs.devserver.files.storage import EARLIER, INCOMING, PART, Storage
from aioftrackjobs.devserver.store import database
from aioftrackjobs.devserver.store.database import Database

from .caller import Caller, create, names_in, new_id, stored
from .test_uploads import calling, get

PIECES = [b"a" * 5000, b"b" * 5000, b"c" * 17]
CONTENT = b"".join(PIECES)


class Upload:
    """One upload in parts, as a client sees it."""

    def __init__(self, api: Caller, metadata: dict[str, Any]) -> None:
        self.api = api
        self.component_id = metadata["component_id"]
        self.upload_id = metadata["upload_id"]
        self.urls = {each["part_number"]: each["signed_url"] for each in metadata["urls"]}
        self.tags: dict[int, str] = {}

    async def put(self, number: int, content: bytes) -> httpx.Response:
        response = await self.api.http.put(self.urls[number], content=content)
        if response.status_code == 200:
            self.tags[number] = response.headers["ETag"]
        return response

    async def put_all(self) -> None:
        for number in (3, 1, 2):
            await self.put(number, PIECES[number - 1])

    def completion(self, **fields: Any) -> dict[str, Any]:
        parts = [
            {"part_number": number, "e_tag": tag.replace('"', "")}
            for number, tag in sorted(self.tags.items())
        ]
        return {
            "action": "complete_multipart_upload",
            "upload_id": self.upload_id,
            "component_id": self.component_id,
            "parts": parts,
            **fields,
        }


async def announced(api: Caller, **fields: Any) -> Upload:
    operation = {
        "action": "get_upload_metadata",
        "component_id": new_id(),
        "file_name": "film.mov",
        "file_size": len(CONTENT),
        "parts": len(PIECES),
    }
    (metadata,) = await api.call(operation | fields)
    return Upload(api, metadata)


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[Caller]:
    """A caller of a server whose files stay in the test's folder."""
    app = create_app(storage=tmp_path)
    engine = app.state.engine
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://ftrack.test") as http:
        yield Caller(http, engine.api_user, engine.api_key)
    engine.close()


async def test_parts_become_the_file(kept: Caller, tmp_path: Path) -> None:
    upload = await announced(kept)
    assert sorted(upload.urls) == [1, 2, 3]

    await upload.put_all()
    (result,) = await kept.call(upload.completion())

    assert upload.tags[1] == f'"{hashlib.md5(PIECES[0]).hexdigest()}"'
    assert result["action"] == "complete_multipart_upload"
    assert result["component_id"] == upload.component_id
    assert (await kept.http.get(result["url"])).content == CONTENT
    assert (await get(kept, upload.component_id)).content == CONTENT
    assert names_in(stored(tmp_path)) == [upload.component_id]


async def test_parts_may_be_sent_at_once_and_again(kept: Caller, tmp_path: Path) -> None:
    upload = await announced(kept)
    async with anyio.create_task_group() as tasks:
        for number in (1, 2, 3):
            tasks.start_soon(upload.put, number, b"not this")
    await upload.put_all()

    await kept.call(upload.completion())

    assert (await get(kept, upload.component_id)).content == CONTENT
    assert names_in(stored(tmp_path)) == [upload.component_id]


async def test_the_digest_of_the_whole_is_checked_if_it_was_announced(kept: Caller) -> None:
    right = base64.b64encode(hashlib.md5(CONTENT).digest()).decode()
    wrong = base64.b64encode(hashlib.md5(b"").digest()).decode()
    good, bad = [await announced(kept, checksum=checksum) for checksum in (right, wrong)]
    for upload in (good, bad):
        await upload.put_all()

    await kept.call(good.completion())
    error = await kept.refused(bad.completion())

    assert error["exception"] == "TransferError"
    assert (await get(kept, bad.component_id)).status_code == 404


@pytest.mark.parametrize(
    ("change", "exception"),
    [
        (lambda _: {"parts": None}, "ValidationError"),
        (lambda _: {"parts": ["x"]}, "ValidationError"),
        (lambda up: {"parts": up.completion()["parts"][:2]}, "ValidationError"),
        (lambda up: {"parts": up.completion()["parts"] * 2}, "ValidationError"),
        (lambda up: {"parts": [{"part_number": True, "e_tag": up.tags[1]}]}, "ValidationError"),
        (lambda _: {"parts": [{"part_number": 1, "e_tag": "../../x"}]}, "ValidationError"),
        (lambda _: {"parts": [{"part_number": n, "e_tag": "0" * 32} for n in (1, 2, 3)]},
         "TransferError"),
        (lambda _: {"upload_id": "forged"}, "TransferError"),
        (lambda _: {"upload_id": None}, "ValidationError"),
        (lambda up: {"upload_id": up.urls[1].rpartition("/")[2]}, "TransferError"),
        (lambda _: {"component_id": "other"}, "ValidationError"),
    ],
    ids=["no-list", "no-objects", "missing", "twice", "no-number", "no-tag", "wrong-tag", "forged",
         "no-upload", "part-as-upload", "other-component"],
)  # fmt: skip
async def test_what_does_not_fit_is_refused_and_can_be_put_right(
    kept: Caller, change: Any, exception: str
) -> None:
    upload = await announced(kept)
    await upload.put_all()

    error = await kept.refused(upload.completion(**change(upload)))
    assert (await get(kept, upload.component_id)).status_code == 404
    await kept.call(upload.completion())

    assert error["exception"] == exception
    assert (await get(kept, upload.component_id)).content == CONTENT


async def test_the_size_must_be_what_was_announced(kept: Caller, tmp_path: Path) -> None:
    upload = await announced(kept)
    await upload.put_all()
    await upload.put(3, b"short")
    too_long = await upload.put(2, CONTENT + b"!")

    error = await kept.refused(upload.completion())

    assert too_long.status_code == 413
    assert "the parts have 10005" in error["content"]
    assert [name for name in names_in(stored(tmp_path)) if not name.startswith(PART)] == []


async def test_a_refused_batch_completes_nothing(kept: Caller, tmp_path: Path) -> None:
    upload = await announced(kept)
    await upload.put_all()
    before = names_in(stored(tmp_path))

    await kept.refused(upload.completion(), {"action": "query", "expression": "("})
    twice = await kept.refused(upload.completion(), upload.completion())

    assert "completed twice" in twice["content"]
    assert names_in(stored(tmp_path)) == before


@pytest.mark.parametrize("earlier", [None, b"earlier"])
async def test_a_commit_that_fails_leaves_what_was_there(
    kept: Caller, tmp_path: Path, earlier: bytes | None
) -> None:
    """The file is in place before the commit, so that rows never exist without it."""
    upload = await announced(kept)
    await upload.put_all()
    if earlier is not None:
        (stored(tmp_path) / upload.component_id).write_bytes(earlier)
    before = names_in(stored(tmp_path))
    dangling = {"action": "create", "entity_type": "Job", "entity_data": {"user_id": "nobody"}}

    error = await kept.refused(upload.completion(), dangling)

    assert error["exception"] == "IntegrityError"
    assert names_in(stored(tmp_path)) == before
    if earlier is not None:
        assert (stored(tmp_path) / upload.component_id).read_bytes() == earlier
    await kept.call(upload.completion())
    assert (await get(kept, upload.component_id)).content == CONTENT
    assert names_in(stored(tmp_path)) == [upload.component_id]


async def test_the_file_is_in_place_before_the_commit(
    kept: Caller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = await announced(kept)
    await upload.put_all()
    seen: list[bool] = []
    commit = Database._commit

    def committing(store: Database) -> None:
        seen.append((stored(tmp_path) / upload.component_id).is_file())
        commit(store)

    monkeypatch.setattr(Database, "_commit", committing)
    await kept.call(upload.completion())

    assert seen == [True]


@pytest.mark.parametrize("checked", [True, False], ids=["digest", "size"])
async def test_a_completion_may_be_repeated(tmp_path: Path, checked: bool) -> None:
    """Its client may not have received the response, if the server was killed just then."""
    checksum = base64.b64encode(hashlib.md5(CONTENT).digest()).decode() if checked else None
    kept = {"database": tmp_path / "ftrack.db", "storage": tmp_path / "files"}
    async with calling(**kept) as api:
        upload = await announced(api, checksum=checksum)
        await upload.put_all()
        await api.call(upload.completion())
    async with calling(**kept) as api:
        (result,) = await api.call(upload.completion())
        assert (await get(api, upload.component_id)).content == CONTENT

    assert result["component_id"] == upload.component_id
    assert names_in(stored(tmp_path / "files")) == [upload.component_id]


async def test_a_completion_is_not_repeated_for_another_file(kept: Caller, tmp_path: Path) -> None:
    checksum = base64.b64encode(hashlib.md5(CONTENT).digest()).decode()
    upload = await announced(kept, checksum=checksum)
    await upload.put_all()
    await kept.call(upload.completion())

    for content in (CONTENT + b"!", bytes(len(CONTENT)), None):
        path = stored(tmp_path) / upload.component_id
        path.unlink() if content is None else path.write_bytes(content)
        error = await kept.refused(upload.completion())
        assert error["exception"] == "TransferError"


async def test_a_batch_that_only_mentions_completion_waits_for_its_turn(api: Caller) -> None:
    """The operations decide that, not the text of the request."""
    engine = api.http._transport.app.state.engine  # type: ignore[attr-defined]
    caller = Requester(engine.credentials.check(api.user, api.key), "http://x")
    note = {"content": "complete_multipart_upload", "action": "complete_multipart_upload"}
    body = json.dumps([create("Note", **note)]).encode()

    assert not engine.parse(body, caller).completes_uploads


async def test_a_file_of_the_same_size_is_not_taken_for_an_upload(
    kept: Caller, tmp_path: Path
) -> None:
    upload = await announced(kept)
    await upload.put_all()
    for part in stored(tmp_path).glob(f"{PART}*"):
        part.unlink()
    (stored(tmp_path) / upload.component_id).write_bytes(bytes(len(CONTENT)))

    assert (await kept.refused(upload.completion()))["exception"] == "TransferError"


async def test_completed_uploads_are_not_remembered_for_ever(
    kept: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = [await announced(kept) for _ in range(2)]
    await first.put_all()
    await second.put_all()
    await kept.call(first.completion())
    monkeypatch.setattr(database, "_COMPLETED_KEPT", -1.0)

    await kept.call(second.completion())

    assert (await kept.refused(first.completion()))["exception"] == "TransferError"


@pytest.mark.parametrize("parts", [0, -1, 10_001, True, "3", 1.5, []])
async def test_the_number_of_parts_is_checked(api: Caller, parts: Any) -> None:
    operation = {"action": "get_upload_metadata", "component_id": new_id(), "parts": parts}

    error = await api.refused({**operation, "file_name": "x", "file_size": 1})

    assert error["exception"] == "ValidationError"
    assert "'parts'" in error["content"]


async def test_a_file_may_be_too_big_to_announce() -> None:
    app = create_app(limits=Limits(upload=1000))
    engine = app.state.engine
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://ftrack.test") as http:
        api = Caller(http, engine.api_user, engine.api_key)
        operation = {"action": "get_upload_metadata", "component_id": new_id(), "file_name": "x"}
        error = await api.refused({**operation, "file_size": 1001})
    engine.close()

    assert error["content"] == "A file takes 1000 bytes at most."


async def test_parts_that_are_never_completed_are_removed_with_the_server(tmp_path: Path) -> None:
    app = create_app(storage=tmp_path)
    engine = app.state.engine
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://ftrack.test") as http:
        api = Caller(http, engine.api_user, engine.api_key)
        await (await announced(api)).put(1, PIECES[0])
        assert len(names_in(stored(tmp_path))) == 1
    engine.close()

    assert names_in(stored(tmp_path)) == []


async def test_an_upload_is_carried_on_with_the_next_server(tmp_path: Path) -> None:
    kept = {"database": tmp_path / "ftrack.db", "storage": tmp_path / "files"}
    async with calling(**kept) as api:
        upload = await announced(api)
        upload.urls = {number: httpx.URL(url).path for number, url in upload.urls.items()}
        await upload.put(3, PIECES[2])
        await upload.put(1, PIECES[0])
    async with calling(**kept) as upload.api:
        await upload.put(2, PIECES[1])
        await upload.api.call(upload.completion())

    assert (stored(tmp_path / "files") / upload.component_id).read_bytes() == CONTENT
    assert names_in(stored(tmp_path / "files")) == [upload.component_id]


async def test_removing_a_component_removes_its_parts_and_no_others(
    kept: Caller, tmp_path: Path
) -> None:
    given_up, other = await announced(kept), await announced(kept)
    await given_up.put(1, PIECES[0])
    await other.put_all()

    removed = await get(kept, given_up.component_id, action="remove")
    again = await get(kept, given_up.component_id, action="remove")
    await kept.call(other.completion())

    assert (removed.status_code, again.status_code) == (200, 404)
    assert names_in(stored(tmp_path)) == [other.component_id]


def left_behind(folder: Path) -> None:
    """Put into *folder* what killed servers leave behind: two days ago, and just now."""
    two_days_ago = time.time() - 2 * 24 * 3600
    for age in ("old", "young"):
        for name in (*(f"{prefix}{age}" for prefix in (INCOMING, PART, EARLIER)), age):
            stored(folder).mkdir(exist_ok=True)
            (stored(folder) / name).touch()
            if age == "old":
                os.utime(stored(folder) / name, (two_days_ago, two_days_ago))


def test_what_a_dead_server_left_is_removed(tmp_path: Path) -> None:
    """No client can resume an incomplete file; an upload in parts can be resumed for a day."""
    left_behind(tmp_path)

    Storage(tmp_path).close()

    assert names_in(stored(tmp_path)) == [f"{PART}young", "old", "young"]


def test_what_is_arriving_at_another_server_is_left_alone(tmp_path: Path) -> None:
    with closing(Storage(tmp_path)), closing(Storage(tmp_path)):
        left_behind(tmp_path)
        with closing(Storage(tmp_path)):
            young = [f"{EARLIER}old", f"{EARLIER}young", f"{INCOMING}young", f"{PART}young"]
            assert names_in(stored(tmp_path)) == [*young, "old", "young"]


def test_a_folder_without_locks_is_swept_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "fcntl", None)
    left_behind(tmp_path)

    Storage(tmp_path).close()

    assert {f"{INCOMING}young", f"{PART}young"} <= set(names_in(stored(tmp_path)))
    assert not {f"{INCOMING}old", f"{PART}old"} & set(names_in(stored(tmp_path)))


async def test_a_server_that_runs_for_long_sweeps_too(
    kept: Caller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_behind(tmp_path)
    await (await announced(kept)).put(1, PIECES[0])
    assert f"{PART}old" in names_in(stored(tmp_path))

    kept.http._transport.app.state.engine.storage._next_sweep = 0  # type: ignore[attr-defined]
    await (await announced(kept)).put(1, PIECES[0])

    assert not {f"{INCOMING}old", f"{PART}old"} & set(names_in(stored(tmp_path)))
    assert {f"{INCOMING}young", f"{PART}young"} <= set(names_in(stored(tmp_path)))
