"""How the pages look: the pictures of the documentation, and what each width and scheme needs."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from aioftrackjobs.devserver import ServerHandle
from tests.devserver.caller import Caller
from tests.sample_jobs import add_sample_jobs

playwright = pytest.importorskip("playwright.async_api", reason="Playwright is not installed")
expect = playwright.expect

Open = Callable[..., Any]


def _keep(picture: bytes, path: Path) -> None:
    """Keep a picture in the few colours that it has."""
    path.parent.mkdir(exist_ok=True)
    with Image.open(io.BytesIO(picture)) as image:
        colours = image.convert("RGB").quantize(255, Image.Quantize.MAXCOVERAGE)
        colours.save(path, optimize=True)


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_a_picture_is_taken(
    server: ServerHandle, api: Caller, open_page: Open, pictures: Path, scheme: str
) -> None:
    await add_sample_jobs(server, api)
    viewport = {"width": 1280, "height": 640}
    page = await open_page(server, color_scheme=scheme, viewport=viewport)
    await expect(page.locator("#live")).to_have_text("Live")
    (running,) = server.inspector.find('select id, data from Job where data like "%sh020%"')
    data = running["data"].replace("0.42", "0.43").replace("42 %", "43 %")
    await api.update("Job", running["id"], data=data)
    await expect(page.locator(".percent", has_text="43 %")).to_be_visible()
    _keep(await page.screenshot(), pictures / f"jobs-{scheme}.png")
    await page.get_by_text("Render sh030 crowd").click()
    await expect(page.get_by_text("image.write(path)")).to_be_visible()
    await page.mouse.move(5, 600)
    _keep(await page.screenshot(), pictures / f"job-{scheme}.png")

    assert all(path.stat().st_size < 100_000 for path in pictures.iterdir())


@pytest.mark.parametrize("path", ["/", "/pages/requests", "/pages/actions"])
async def test_a_page_fits_and_all_its_controls_have_names(
    server: ServerHandle, api: Caller, open_page: Open, path: str
) -> None:
    await add_sample_jobs(server, api)
    page = await open_page(server, path)
    for width in (1600, 1000, 700, 360):
        await page.set_viewport_size({"width": width, "height": 800})
        assert await page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, width
    nameless = await page.evaluate(
        """[...document.querySelectorAll("a, button, select, input:not([type=hidden]), textarea")]
        .filter((each) => !(each.ariaLabel || each.labels?.length || each.innerText.trim()
          || each.textContent.trim())).map((each) => each.outerHTML)"""
    )
    assert nameless == []
    assert await page.evaluate("document.querySelectorAll('h1').length") == 1
