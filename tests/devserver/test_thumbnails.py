"""Thumbnails of images, and what clients show where there is none."""

from __future__ import annotations

import io
import sys
from typing import Any

import httpx
import pytest

from .caller import Caller, new_id
from .test_encode_media import image, pillow, upload


async def thumbnail(api: Caller, component_id: str, **query: Any) -> httpx.Response:
    parameters = {"id": component_id, "username": api.user, "apiKey": api.key, **query}
    return await api.http.get("/component/thumbnail", params=parameters)


@pytest.mark.parametrize(
    ("query", "size"), [({}, (300, 150)), ({"size": 100}, (100, 50)), ({"size": 9999}, (640, 320))]
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
async def test_a_thumbnail_fits_and_is_never_enlarged(
    api: Caller, query: dict[str, int], size: tuple[int, int], kind: str
) -> None:
    written = io.BytesIO()
    pillow.open(io.BytesIO(image())).convert("RGB").save(written, kind)
    component_id = await upload(api, written.getvalue(), ".png")

    response = await thumbnail(api, component_id, **query)

    made = pillow.open(io.BytesIO(response.content))
    assert (made.size, made.format) == (size, kind)
    assert response.headers["content-type"] == f"image/{kind.lower()}"


async def test_a_transparent_image_keeps_its_transparency(api: Caller) -> None:
    component_id = await upload(api, image(mode="RGBA"), ".png")

    response = await thumbnail(api, component_id)

    assert response.headers["content-type"] == "image/png"
    assert pillow.open(io.BytesIO(response.content)).mode == "RGBA"


async def test_a_file_that_is_no_image_has_no_thumbnail(
    api: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = await upload(api, b"words", ".png")
    bomb = await upload(api, image((200, 200)), ".png")
    monkeypatch.setattr("aioftrackjobs.devserver.files.thumbnails._MOST_PIXELS", 100)

    responses = [await thumbnail(api, each) for each in (text, bomb, new_id())]

    assert [response.status_code for response in responses] == [404, 404, 404]
    assert {response.json()["exception"] for response in responses} == {"EntityNotFoundError"}


@pytest.mark.parametrize("size", ["0", "-1", "x", "1e3", "123456"])
async def test_the_size_of_a_thumbnail_is_a_number(api: Caller, size: str) -> None:
    component_id = await upload(api, image(), ".png")

    assert (await thumbnail(api, component_id, size=size)).status_code == 400


async def test_without_pillow_thumbnails_are_refused(
    api: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    component_id = await upload(api, image(), ".png")

    assert (await thumbnail(api, component_id)).status_code == 501


async def test_an_entity_without_a_thumbnail_has_a_placeholder(api: Caller) -> None:
    response = await api.http.get("/img/thumbnail2.png")

    assert pillow.open(io.BytesIO(response.content)).size == (64, 64)
