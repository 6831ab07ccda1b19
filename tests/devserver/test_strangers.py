"""What a server gives to those who have no key: nothing to read, to remove or to hold up."""

from __future__ import annotations

import io
import os
import sqlite3
import stat
from pathlib import Path

import httpx
import pytest

from aioftrackjobs.devserver import create_app, running

from .caller import Caller, create, names_in, new_id, stored
from .test_encode_media import http_of, image, pillow, upload


@pytest.mark.skipif(os.name != "posix", reason="has no such permissions")
async def test_only_its_owner_can_read_a_database(tmp_path: Path) -> None:
    database = tmp_path / "ftrack.db"
    sqlite3.connect(database).close()
    database.chmod(0o644)
    async with running(database=database) as server:
        async with httpx.AsyncClient(base_url=server.url) as http:
            await Caller(http, server.api_user, server.api_key).call(create("Job"))
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}

    assert modes == {"ftrack.db": 0o600, "ftrack.db-wal": 0o600, "ftrack.db-shm": 0o600}


async def test_no_key_is_in_a_database(tmp_path: Path) -> None:
    keys = [f"chosen-{new_id()}"]
    async with running(database=tmp_path / "ftrack.db", api_key=keys[0]) as server:
        keys += server.api_keys.values()
        async with httpx.AsyncClient(base_url=server.url) as http:
            api = Caller(http, server.api_user, server.api_key)
            (user,) = await api.query(f"User where username is {api.user}")
            operation = {"action": "reset_remote", "reset_type": "api_key"}
            entity = {"entity_type": "User", "entity_key": user["id"]}
            (result,) = await api.call(operation | entity)
            keys.append(result["data"]["api_key"])
        content = b"".join(path.read_bytes() for path in tmp_path.iterdir())

    assert len(keys) > 3
    assert not [key for key in keys if key.encode() in content]


async def test_a_chosen_key_stays_valid_if_the_next_server_is_not_given_it(tmp_path: Path) -> None:
    for api_key in ("chosen", None, None):
        async with (
            running(database=tmp_path / "ftrack.db", api_key=api_key) as server,
            httpx.AsyncClient(base_url=server.url) as http,
        ):
            for key in ("chosen", server.api_key):
                assert await Caller(http, server.api_user, key).query("Job") == []


async def test_files_of_the_user_in_the_storage_folder_stay_and_are_not_served(
    tmp_path: Path,
) -> None:
    private = tmp_path / "diary"
    private.write_text("private")
    (tmp_path / "folder").mkdir()
    app = create_app(storage=tmp_path)
    engine = app.state.engine
    async with http_of(app) as http:
        api = Caller(http, engine.api_user, engine.api_key)
        credentials = {"username": api.user, "apiKey": api.key}
        await upload(api, b"content", ".txt")
        found = [
            await http.get(f"/component/{action}", params={"id": "diary", **credentials})
            for action in ("get", "thumbnail", "remove")
        ]
        engine.restore(engine.save())
    engine.close()

    assert [response.status_code for response in found] == [404, 404, 404]
    assert private.read_text() == "private"
    assert names_in(stored(tmp_path)) == []
    assert names_in(tmp_path) == ["components", "diary", "folder"]


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"])
async def test_only_get_removes_a_file(api: Caller, method: str) -> None:
    component_id = await upload(api, b"content", ".txt")
    parameters = {"id": component_id, "username": api.user, "apiKey": api.key}

    response = await api.http.request(method, "/component/remove", params=parameters)

    assert response.status_code == 405
    assert (await api.http.get("/component/get", params=parameters)).content == b"content"
    assert (await api.http.get("/component/remove", params=parameters)).status_code == 200


@pytest.mark.parametrize("kind", ["EPS", "PCX", "PPM", "TGA", "ICO"])
async def test_only_listed_formats_become_pictures(api: Caller, kind: str) -> None:
    """An EPS is a program for Ghostscript, which Pillow would run."""
    written = io.BytesIO()
    pillow.open(io.BytesIO(image())).convert("RGB").save(written, kind)
    component_id = await upload(api, written.getvalue(), ".png")
    parameters = {"id": component_id, "username": api.user, "apiKey": api.key}

    assert (await api.http.get("/component/thumbnail", params=parameters)).status_code == 404


@pytest.mark.parametrize("kind", ["BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP"])
async def test_listed_formats_become_pictures(api: Caller, kind: str) -> None:
    written = io.BytesIO()
    pillow.open(io.BytesIO(image())).convert("RGB").save(written, kind)
    component_id = await upload(api, written.getvalue(), ".png")
    parameters = {"id": component_id, "username": api.user, "apiKey": api.key}

    assert (await api.http.get("/component/thumbnail", params=parameters)).status_code == 200
