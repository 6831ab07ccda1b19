"""How the pages look: the pictures of the documentation, and what each width and scheme needs."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from aioftrackjobs import AsyncSession
from aioftrackjobs.devserver import ServerHandle
from tests.devserver.browsing import add_job, lease
from tests.devserver.caller import Caller

playwright = pytest.importorskip("playwright.async_api", reason="Playwright is not installed")
expect = playwright.expect

Open = Callable[..., Any]

#: Status, user, seconds since it began and ended, text, progress or end, and more of its data.
JOBS: list[tuple[str, str, float, float, str, object, dict[str, Any]]] = [
    ("queued", "maya", 12, 0, "Render sh060 lighting", None, {}),
    ("queued", "noor", 44, 0, "Publish sq020 playlist", None, {}),
    ("running", "maya", 65, 0, "Transcode sh010 comp v012", (0.81, "frame 194 of 240"),
     {"lease": lease(170, "farm03")}),
    ("running", "maya", 190, 0, "Render sh020 lighting", (0.42, "frame 1042 of 1100"),
     {"lease": lease(150, "farm07")}),
    ("running", "noor", 900, 0, "Deliver episode 104", (0.07, "uploading 3 of 41"),
     {"lease": lease(120, "io01"), "stop": {"by": "maya", "reason": "wrong folder"}}),
    ("failed", "maya", 3700, 3500, "Render sh030 crowd", "OSError: [Errno 28] No space left", {}),
    ("running", "jenkins", 5200, 0, "Simulate sh045 river", (0.63, "step 630 of 1000"),
     {"lease": lease(-420, "farm11")}),
    ("failed", "noor", 9000, 8800, "Publish sh050 anim", "stopped by noor: wrong shot", {}),
    *(("done", ("maya", "noor", "developer")[n % 3], 11000 + n * 4000, 10900 + n * 4000,
       f"Transcode sh{100 + n * 10} comp v00{n % 7 + 1}", f"{n * 7 + 96} frames", {})
      for n in range(12)),
]  # fmt: skip

TRACEBACK = b"""Traceback (most recent call last):
  File "render.py", line 88, in render
    image.write(path)
  File "/opt/tools/exr.py", line 214, in write
    raise OSError(errno, text)
OSError: [Errno 28] No space left
"""


async def _fill(server: ServerHandle, api: Caller) -> None:
    ids = dict[str, str]()
    for status, user, began, ended, base, shown, more in JOBS:
        text = base
        if isinstance(shown, tuple):
            text, more = (
                f"{base} ({shown[0] * 100:.0f} %, {shown[1]})",
                {**more, "progress": shown[0]},
            )
        elif shown:
            text = f"{base} - {'failed: ' if status == 'failed' else ''}{shown}"
        data = {"description": text, "base_description": base, **more}
        ids[base] = await add_job(api, status, user=user, ago=began, **data)
        if ended:
            at = (datetime.now(UTC) - timedelta(seconds=ended)).isoformat(timespec="seconds")
            time = {"__type__": "datetime", "value": at[:19]}
            await api.update("Job", ids[base], finished_at=time)
    files = {"Render sh030 crowd": ("traceback.txt", TRACEBACK)}
    files |= dict.fromkeys(list(ids)[8:12], ("report.pdf", b"x" * 120000))
    async with AsyncSession(server.url, server.api_key, server.api_user) as session:
        for base, (name, content) in files.items():
            component = await session.create_component(content, name=name)
            session.create("JobComponent", {"job_id": ids[base], "component_id": component.id})
        await session.commit()


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
    await _fill(server, api)
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
    await _fill(server, api)
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
