"""The pages about requests, faults and actions in a browser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from aioftrackjobs.devserver import ServerHandle
from tests.devserver.acting import MESSAGE, offering
from tests.devserver.browsing import add_job
from tests.devserver.caller import Caller, query

playwright = pytest.importorskip("playwright.async_api", reason="Playwright is not installed")
expect = playwright.expect

Open = Callable[..., Any]


async def test_requests_events_and_faults_appear_as_they_come(
    server: ServerHandle, api: Caller, open_page: Open
) -> None:
    page = await open_page(server, "/pages/requests")
    rows = page.locator("#rows > li")
    await expect(page.locator("#live")).to_have_text("Live")
    await add_job(api, "queued", description="<script>window.hacked = 1</script>")
    await expect(rows.filter(has_text="create Job")).to_contain_text("200")
    await expect(rows.filter(has_text="ftrack.update")).to_contain_text("add Job")
    await rows.filter(has_text="create Job").locator("summary").click()
    await expect(rows.locator("details[open] pre")).to_contain_text("window.hacked = 1")

    await page.locator("[name=fault]").select_option("refuse")
    await page.get_by_label("Settings").fill("kind=ValidationError colour=red")
    await page.get_by_role("button", name="Inject").click()
    await expect(page.get_by_role("alert")).to_contain_text("'colour=red' is not a setting of it")
    await expect(page.get_by_label("Settings")).to_have_value("kind=ValidationError colour=red")
    await page.get_by_label("Settings").fill("kind=ValidationError")
    await page.get_by_role("button", name="Inject").click()
    await expect(page.get_by_text("Refuse(kind='ValidationError'")).to_be_visible()
    await api.refused(query("Job"))
    await expect(page.get_by_role("heading", name="Injected (1)")).to_be_visible()
    await expect(rows.first).to_contain_text("ValidationError: Refused by an injected fault.")
    await expect(rows.locator("details[open]")).to_have_count(1)
    await page.get_by_role("link", name="Faults").click()
    await expect(rows).to_have_count(1)
    await page.get_by_label("Seed").fill("42")
    await page.get_by_role("button", name="Start again").click()
    await expect(page.get_by_role("heading", name="Injected (1)")).to_be_hidden()
    assert server.faults.seed == 42
    assert await page.evaluate("window.hacked") is None


async def test_an_action_is_tried_from_the_menu_to_the_message(
    server: ServerHandle, open_page: Open
) -> None:
    fields = [
        {"type": "text", "name": "frames", "label": "Frames", "value": "1-10"},
        {"type": "number", "name": "chunk", "label": "Chunk"},
    ]

    def launch(data: dict[str, Any]) -> Any:
        if "values" not in data:
            return {"items": fields, "title": "Render options"}
        return {"success": True, "message": f"Sent {data['values']['frames']}"}

    items = [{"label": "Render", "variant": "4K", "actionIdentifier": "render"}]
    async with offering(server, items, launch) as other:
        page = await open_page(server, "/pages/actions")
        await page.get_by_label("anim Task").first.check()
        await page.get_by_role("button", name="Render 4K").click()
        await expect(page.get_by_role("heading", name="Render options")).to_be_visible()
        await page.get_by_label("Frames").fill("5-6")
        await page.get_by_label("Chunk").fill("many")
        await page.get_by_role("button", name="Submit").click()
        await expect(page.get_by_role("alert")).to_have_text("Chunk: 'many' is no number.")
        await expect(page.get_by_label("Frames")).to_have_value("5-6")
        await expect(page.get_by_label("Chunk")).to_have_value("many")
        await page.get_by_label("Chunk").fill("2")
        await page.keyboard.press("Enter")
        await expect(page.get_by_text("Sent 5-6")).to_be_visible()
        await expect(page.get_by_label("anim Task").first).to_be_checked()
        await page.get_by_role("button", name="Other actions").click()
        await expect(page.get_by_role("button", name="Render 4K")).to_be_visible()
        await other.publish(MESSAGE, data={"success": True, "message": "Frames are ready"})
        await expect(page.get_by_text("Frames are ready")).to_be_visible()
