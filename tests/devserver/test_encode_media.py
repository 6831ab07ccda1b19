"""``encode_media``: Jobs that the server runs in the background."""

from __future__ import annotations

import io
import json
import struct
import sys
import threading
from typing import Any

import anyio
import httpx
import pytest

from aioftrackjobs.devserver import create_app
from aioftrackjobs.devserver.api import encode_media
from aioftrackjobs.devserver.api.background import Background

from .caller import Caller, names_in, new_id, stored
from .test_uploads import get

UNDER_WAY = {"queued", "running"}
pillow = pytest.importorskip("PIL.Image")


def image(size: tuple[int, int] = (640, 320), kind: str = "PNG", mode: str = "RGB") -> bytes:
    written = io.BytesIO()
    pillow.new(mode, size, "red").save(written, kind)
    return written.getvalue()


async def upload(api: Caller, content: bytes, file_type: str) -> str:
    component_id = new_id()
    operation = {
        "action": "get_upload_metadata",
        "component_id": component_id,
        "file_name": f"x{file_type}",
        "file_size": len(content),
    }
    (metadata,) = await api.call(operation)
    response = await api.http.put(metadata["url"], content=content)
    assert response.status_code == 200
    await api.create("FileComponent", id=component_id, name="plate", file_type=file_type)
    return component_id


async def encode(api: Caller, component_id: str, **fields: Any) -> str:
    operation = {"action": "encode_media", "component_id": component_id, "version_id": None}
    (result,) = await api.call(operation | fields)
    job_id: str = result["job_id"]
    return job_id


async def job_of(api: Caller, job_id: str) -> dict[str, Any]:
    (row,) = await api.query(
        "select status, data, finished_at, user.username, "
        f"job_components.component.component_locations from Job where id is {job_id}"
    )
    return row | {"data": json.loads(row["data"])}


async def ended(api: Caller, job_id: str) -> dict[str, Any]:
    with anyio.fail_after(10):
        while (job := await job_of(api, job_id))["status"] in UNDER_WAY:  # noqa: ASYNC110
            await anyio.sleep(0.005)
    return job


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
async def test_an_image_is_encoded_as_a_jpeg(api: Caller, mode: str) -> None:
    source = await upload(api, image(mode=mode), ".png")

    job_id = await encode(api, source)
    (output,) = (await job_of(api, job_id))["data"]["output"]
    job = await ended(api, job_id)

    assert job["status"] == "done"
    assert job["finished_at"] is not None
    assert job["user"]["username"] == api.user
    assert job["data"]["source_component_id"] == source
    assert job["data"]["keep_original"] is True
    assert output["format"] == "image/jpeg"
    (attached,) = job["job_components"]
    assert attached["component_id"] == output["component_id"]
    assert len(attached["component"]["component_locations"]) == 1
    made = await get(api, output["component_id"])
    assert pillow.open(io.BytesIO(made.content)).format == "JPEG"
    (row,) = await api.query('select name, size from Component where name like "ftrackreview%"')
    assert (row["name"], row["size"]) == ("ftrackreview-image", len(made.content))


@pytest.mark.parametrize("original", [False, "False", "false"])
async def test_a_video_is_copied_and_the_source_removed_if_it_is_not_to_be_kept(
    api: Caller, original: object
) -> None:
    source = await upload(api, b"moving pictures", ".mp4")
    task, *_ = await api.query("Task")
    asset = await api.create("Asset", name="plate", parent=task)
    version = await api.create("AssetVersion", asset_id=asset["id"])

    job_id = await encode(api, source, keep_original=original, version_id=version["id"])
    job = await ended(api, job_id)

    output, picture = job["data"]["output"]
    assert (job["status"], output["format"]) == ("done", "video/mp4")
    assert (await get(api, output["component_id"])).content == b"moving pictures"
    assert (await get(api, picture["component_id"])).content[:4] == b"\x89PNG"
    assert (await get(api, source)).status_code == 404
    rows = await api.query("select name, version_id from FileComponent")
    expected = {("ftrackreview-mp4", version["id"]), ("thumbnail", version["id"])}
    assert {(row["name"], row["version_id"]) for row in rows} == expected


def _box(kind: bytes, *content: bytes) -> bytes:
    inside = b"".join(content)
    return struct.pack(">I4s", 8 + len(inside), kind) + inside


def movie(frames: int, rate: int, width: int, height: int) -> bytes:
    """Return the header of a movie with sound, as far as it is read."""
    times = struct.pack(">4xIIIII", 2, frames - 1, 1, 1, 1)
    sound = _box(b"trak", _box(b"mdia", _box(b"hdlr", bytes(8), b"soun")))
    video = _box(
        b"trak",
        _box(b"tkhd", bytes(76), struct.pack(">II", width << 16, height << 16)),
        _box(
            b"mdia",
            _box(b"mdhd", bytes(12), struct.pack(">II", rate, frames)),
            _box(b"hdlr", bytes(8), b"vide"),
            _box(b"minf", _box(b"stbl", _box(b"stts", times))),
        ),
    )
    long = struct.pack(">I4sQ", 1, b"mdat", 20) + bytes(4)
    return _box(b"ftyp", b"qt  ") + long + _box(b"moov", sound, video)


@pytest.mark.parametrize(
    ("content", "file_type", "facts"),
    [
        (image(), ".png", {"format": "image"}),
        (
            movie(150, 24, 1280, 720),
            ".mov",
            {"frameIn": 0, "frameOut": 149, "frameRate": 24.0, "width": 1280, "height": 720},
        ),
        (b"unreadable", ".mp4", {"frameIn": 0, "frameOut": 0, "frameRate": 25.0}),
    ],
    ids=["image", "movie", "unreadable"],
)
async def test_outputs_have_what_the_web_player_needs_and_versions_a_thumbnail(
    api: Caller, content: bytes, file_type: str, facts: dict[str, object]
) -> None:
    task, *_ = await api.query("Task")
    asset = await api.create("Asset", name="plate", parent=task)
    version = await api.create("AssetVersion", asset_id=asset["id"])
    source = await upload(api, content, file_type)

    job = await ended(api, await encode(api, source, version_id=version["id"]))

    outputs = job["data"]["output"]
    (row,) = await api.query(
        f"select value from Metadata where key is ftr_meta and parent_id is "
        f"{outputs[0]['component_id']}"
    )
    assert json.loads(row["value"]) == facts
    (shown,) = await api.query("select thumbnail_id, thumbnail_url from AssetVersion")
    assert shown["thumbnail_id"] == outputs[-1]["component_id"]
    assert outputs[-1]["format"].startswith("image/")
    assert (await api.http.get(shown["thumbnail_url"]["url"])).status_code == 200


@pytest.mark.parametrize(
    ("content", "file_type", "text"),
    [
        (b"words", ".txt", "neither an image nor a video"),
        (b"no image", ".png", "No picture can be made"),
    ],
)
async def test_what_cannot_be_encoded_fails_with_the_reason(
    api: Caller, content: bytes, file_type: str, text: str
) -> None:
    source = await upload(api, content, file_type)

    job = await ended(api, await encode(api, source))

    assert job["status"] == "failed"
    assert text in job["data"]["error"]
    assert job["finished_at"] is not None
    assert (await get(api, source)).content == content


async def test_a_component_without_a_file_fails(api: Caller) -> None:
    component = await api.create("FileComponent", file_type=".mov")

    job = await ended(api, await encode(api, component["id"]))

    assert (job["status"], "no file" in job["data"]["error"]) == ("failed", True)


async def test_without_pillow_an_image_cannot_be_encoded(
    api: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    source = await upload(api, image(), ".png")

    job = await ended(api, await encode(api, source))

    assert (job["status"], "Pillow" in job["data"]["error"]) == ("failed", True)


async def test_an_error_of_ours_fails_the_job_too(
    api: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise OSError("disk full")

    monkeypatch.setattr(encode_media, "picture_of", broken)
    source = await upload(api, image(), ".png")

    job = await ended(api, await encode(api, source))

    assert (job["status"], "disk full" in job["data"]["error"]) == ("failed", True)


@pytest.mark.parametrize(
    ("fields", "exception"),
    [
        ({"component_id": None}, "ValidationError"),
        ({"component_id": "gone"}, "EntityNotFoundError"),
        ({"version_id": "gone"}, "EntityNotFoundError"),
        ({"version_id": []}, "EntityNotFoundError"),
        ({"keep_original": 1}, "ValidationError"),
        ({"keep_original": "yes"}, "ValidationError"),
    ],
)
async def test_malformed_encodings_are_refused_and_leave_nothing(
    api: Caller, fields: dict[str, Any], exception: str
) -> None:
    component = await api.create("FileComponent", file_type=".png")
    operation = {"action": "encode_media", "component_id": component["id"], **fields}

    error = await api.refused(operation)

    assert error["exception"] == exception
    assert await api.query("Job") == []
    assert len(await api.query("Component")) == 1


async def test_a_refused_batch_starts_nothing(api: Caller) -> None:
    source = await upload(api, image(), ".png")

    await api.refused(
        {"action": "encode_media", "component_id": source}, {"action": "query", "expression": "("}
    )

    assert await api.query("Job") == []


async def test_running_jobs_fail_when_the_server_stops(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    database, storage = tmp_path / "jobs.db", tmp_path / "files"
    begun = threading.Event()

    def slow(*arguments: Any) -> None:
        begun.set()
        attempt = arguments[0]
        while True:
            attempt.check_stop()

    monkeypatch.setattr(encode_media, "_copy", slow)
    app = create_app(database=database, storage=storage, api_key="secret")
    async with http_of(app) as http:
        api = Caller(http, app.state.engine.api_user, "secret")
        source = await upload(api, b"film", ".mp4")
        jobs = [await encode(api, source) for _ in range(2)]
        assert await anyio.to_thread.run_sync(begun.wait, 10)
        app.state.engine.close()

    again = create_app(database=database, storage=storage, api_key="secret")
    async with http_of(again) as http:
        api = Caller(http, again.state.engine.api_user, "secret")
        for job_id in jobs:
            job = await job_of(api, job_id)
            assert job["status"] == "failed"
            assert job["data"]["error"] == "The server was stopped."
    again.state.engine.close()
    assert names_in(stored(storage)) == [source]


async def test_jobs_of_a_killed_server_fail_when_it_starts_again(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only its own Jobs: those of clients may still run."""
    monkeypatch.setattr(Background, "start", lambda *_: None)  # dies before it gets to it
    database = tmp_path / "jobs.db"
    app = create_app(database=database, api_key="secret")
    async with http_of(app) as http:
        api = Caller(http, app.state.engine.api_user, "secret")
        source = await upload(api, b"film", ".mp4")
        job_id = await encode(api, source)
        mine = await api.create("Job", status="running", data="{}")
    app.state.engine.close()

    again = create_app(database=database, api_key="secret")
    async with http_of(again) as http:
        api = Caller(http, again.state.engine.api_user, "secret")
        job = await job_of(api, job_id)
        untouched = await job_of(api, mine["id"])
    again.state.engine.close()

    assert (job["status"], job["data"]["error"]) == ("failed", "The server was killed.")
    assert job["data"]["source_component_id"] == source
    assert untouched["status"] == "running"


def http_of(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://ftrack.test")


async def test_a_job_that_is_deleted_while_it_runs_is_not_written(
    api: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    going_on = threading.Event()
    monkeypatch.setattr(encode_media, "_copy", lambda *_: going_on.wait(10))
    source = await upload(api, b"film", ".mp4")
    job_id = await encode(api, source)
    engine = api.http._transport.app.state.engine  # type: ignore[attr-defined]

    await api.call({"action": "delete", "entity_type": "Job", "entity_key": [job_id]})
    going_on.set()
    engine._services.background.close()

    assert await api.query("Job") == []
    assert names_in(engine.storage.folder) == [source]


@pytest.mark.parametrize("job_type", ["SYNC_USERS_LDAP", "ICONIK_SYNC_STRUCTURE"])
async def test_delayed_jobs_are_refused_and_make_no_job(api: Caller, job_type: str) -> None:
    error = await api.refused({"action": "delayed_job", "job_type": job_type})

    assert error["exception"] == "UnsupportedOperationError"
    assert "does not support 'delayed_job'" in error["content"]
    assert await api.query("Job") == []
