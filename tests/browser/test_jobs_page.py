"""The jobs page in a browser: it shows what happens, and does what its user wants."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.to_thread import run_sync

from aioftrackjobs import AsyncSession, JobStoppedError, job_context
from aioftrackjobs.devserver import ServerHandle, running
from tests.devserver.browsing import add_job, lease
from tests.devserver.caller import Caller, create, delete

playwright = pytest.importorskip("playwright.async_api", reason="Playwright is not installed")
expect = playwright.expect

Open = Callable[..., Any]


@pytest.fixture
async def session(server: ServerHandle) -> Any:
    async with AsyncSession(server.url, server.api_key, server.api_user) as session:
        yield session


async def test_a_user_logs_in_by_key_and_out(chromium: Any, server: ServerHandle) -> None:
    context = await chromium.new_context(base_url=server.url)
    page = await context.new_page()
    await page.goto("/pages/jobs/none")
    await page.get_by_label("User").fill("maya")
    await page.get_by_label("API key").fill("wrong")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("alert")).to_have_text("This user does not have this key.")
    await expect(page.get_by_label("User")).to_have_value("maya")
    await page.get_by_label("API key").fill(server.api_keys["maya"])
    await page.get_by_role("button", name="Log in").click()
    await expect(page.get_by_role("alert")).to_contain_text("There is no such Job")
    assert await page.evaluate("document.cookie") == ""
    await page.get_by_role("link", name="Back to the Jobs").click()
    await expect(page.get_by_text("No Jobs yet.")).to_be_visible()
    await page.get_by_role("button", name="Log out").click()
    await expect(page.get_by_label("API key")).to_be_visible()
    await context.close()


async def test_a_job_appears_and_ends_without_a_reload(
    server: ServerHandle, session: AsyncSession, open_page: Open
) -> None:
    page = await open_page(server)
    await page.evaluate("window.notReloaded = true")
    rows = page.locator("#rows > li")
    await expect(page.locator("#live")).to_have_text("Live")
    async with job_context(session, description="Render sh010", interval=0.05) as job:
        await expect(rows).to_have_count(1)
        await expect(rows.locator(".title")).to_have_text("Render sh010")
        await expect(page.get_by_text("No Jobs yet.")).to_be_hidden()
        job.progress(30, "frame 30", total=40)
        await expect(rows.get_by_role("progressbar")).to_have_attribute("value", "0.750")
        await expect(rows).to_contain_text("frame 30")
        await expect(rows.locator(".lease")).to_contain_text("alive")
        await job.attach(b"a report", name="report.txt")
        await expect(rows.get_by_role("link", name="report.txt")).to_be_visible()
        job.finish("40 frames")
    await expect(rows.locator(".dot")).to_have_text("done")
    await expect(rows).to_contain_text("40 frames")
    await expect(page.locator("#say")).to_have_text("Render sh010: done")
    await expect(page.locator(".chip", has_text="Done")).to_contain_text("1")
    assert await page.evaluate("window.notReloaded")
    async with page.expect_download() as download:
        await rows.get_by_role("link", name="report.txt").click()
    assert (await download.value).suggested_filename == "report.txt"


async def test_the_newest_job_is_at_the_top(
    server: ServerHandle, api: Caller, open_page: Open
) -> None:
    await add_job(api, description="b", ago=20)
    page = await open_page(server)
    await expect(page.locator("#live")).to_have_text("Live")
    for name, ago in (("d", 0.0), ("a", 30.0), ("c", 10.0)):
        await add_job(api, description=name, ago=ago)
        await expect(page.locator(".title", has_text=name)).to_be_visible()
    assert await page.locator(".title").all_inner_texts() == ["d", "c", "b", "a"]


async def test_html_in_a_job_stays_text(
    server: ServerHandle, api: Caller, session: AsyncSession, open_page: Open
) -> None:
    html = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>"
    page = await open_page(server)
    job = await add_job(api, description=html, lease=lease(90, host=html), stop={"by": html})
    component = await session.create_component(html.encode(), name="traceback.txt")
    session.create("JobComponent", {"job_id": job, "component_id": component.id})
    await session.commit()
    await expect(page.locator(".title")).to_have_text(html)
    await page.locator(".what").click()
    await expect(page.get_by_role("heading", name=html)).to_be_visible()
    await expect(page.locator("#files pre")).to_have_text(html)
    await page.reload()
    await expect(page.locator(".title")).to_have_text(html)
    assert await page.evaluate("window.hacked") is None


async def test_jobs_are_found_by_status_user_text_and_keys(
    server: ServerHandle, api: Caller, open_page: Open
) -> None:
    for number, (user, status) in enumerate(
        (("maya", "done"), ("maya", "running"), ("noor", "running"), ("noor", "failed"))
    ):
        await add_job(api, status, user=user, ago=100.0 - number, description=f"Job {number}")
    page = await open_page(server)
    titles = page.locator(".title")
    await expect(titles).to_have_text(["Job 3", "Job 2", "Job 1", "Job 0"])
    await page.get_by_role("link", name="Running").click()
    await expect(titles).to_have_text(["Job 2", "Job 1"])
    await page.get_by_label("User").select_option("noor")
    await expect(titles).to_have_text(["Job 2"])
    await add_job(api, "running", user="maya", ago=5, description="Other")
    await add_job(api, "running", user="noor", description="New")
    await expect(titles).to_have_text(["New", "Job 2"])
    await page.locator("body").click(position={"x": 5, "y": 400})
    await page.keyboard.press("/")
    await page.keyboard.type("job")
    await expect(titles).to_have_text(["Job 2"])
    assert page.url.endswith("/?status=running&user=noor&q=job")
    await page.reload()
    await expect(titles).to_have_text(["Job 2"])
    await expect(page.get_by_label("Search")).to_have_value("job")
    await page.get_by_label("Search").fill("none of them")
    await page.get_by_role("link", name="Show all").click()
    await expect(titles).to_have_count(6)
    await page.keyboard.press("j")
    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("Enter")
    panel = page.get_by_role("complementary", name="Job")
    await expect(panel.get_by_role("heading", level=1)).to_have_text("Other")
    await page.keyboard.press("Escape")
    await expect(panel).to_be_hidden()
    await expect(page.locator(".what").nth(1)).to_be_focused()


async def test_a_job_is_stopped(
    server: ServerHandle, session: AsyncSession, open_page: Open
) -> None:
    page = await open_page(server)
    with pytest.raises(JobStoppedError, match="stopped by developer: wrong shot"):
        async with job_context(session, description="Render", interval=0.05) as job:
            row = page.locator("#rows > li")
            await row.hover()
            await row.get_by_role("link", name="Stop Render").click()
            reason = page.get_by_label("Reason")
            await expect(reason).to_be_focused()
            await reason.fill("x" * 201)
            await page.get_by_role("button", name="Stop Job").click()
            await expect(page.get_by_role("alert")).to_contain_text("200 characters, not 201")
            await expect(reason).to_have_value("x" * 201)
            job.progress(0.5)  # what is typed stays when the Job changes
            await expect(
                page.get_by_role("complementary").get_by_text("50 %", exact=True)
            ).to_be_visible()
            await expect(reason).to_have_value("x" * 201)
            await reason.fill("wrong shot")
            await page.keyboard.press("Enter")
            await expect(row.locator(".dot")).to_have_text("stopping")
            while True:
                job.advance()
                await anyio.sleep(0.02)
    await expect(row.locator(".dot")).to_have_text("failed")
    await expect(row).to_contain_text("stopped by developer: wrong shot")
    await expect(page.get_by_role("button", name="Stop Job")).to_be_hidden()


async def test_lost_jobs_are_failed(server: ServerHandle, api: Caller, open_page: Open) -> None:
    page = await open_page(server)
    await add_job(api, description="Dying", lease=lease(0.5))
    row = page.locator("#rows > li")
    await expect(row.locator(".dot")).to_have_text("running")
    await expect(row.locator(".dot")).to_have_text("lost")
    await page.get_by_role("button", name="Fail 1 lost").click()
    await expect(page.get_by_role("status").get_by_text("1 lost Job was failed.")).to_be_visible()
    await expect(row.locator(".dot")).to_have_text("failed")
    await expect(page.get_by_role("button", name="lost")).to_be_hidden()


async def test_a_page_outlives_its_job_a_reset_and_a_restart(
    open_page: Open, api: Caller, server: ServerHandle
) -> None:
    saved = await run_sync(server.inspector.save)
    job = await add_job(api, description="First")
    page = await open_page(server)
    await page.locator(".what").click()
    await expect(page.get_by_role("heading", name="First")).to_be_visible()
    await api.call(delete("Job", job))
    await expect(page.get_by_role("complementary")).to_contain_text("There is no such Job")
    await add_job(api, description="Second")
    await expect(page.locator(".title")).to_have_text(["Second"])
    await run_sync(server.inspector.restore, saved)
    await expect(page.get_by_text("No Jobs yet.")).to_be_visible()


async def test_a_page_outlives_a_restart(tmp_path: Path, open_page: Open) -> None:
    options: Any = {"database": tmp_path / "ftrack.db", "api_key": "kept"}
    async with running(**options) as server:
        page = await open_page(server)
        await expect(page.locator("#live")).to_have_text("Live")
        await page.evaluate("window.notReloaded = true")
    await expect(page.locator("#live")).to_have_text("Reconnecting")
    port = int(server.url.rpartition(":")[2])
    async with running(port=port, **options) as server:
        async with AsyncSession(server.url, "kept", server.api_user) as session:
            async with job_context(session, description="After the restart"):
                await expect(page.locator(".title")).to_have_text("After the restart")
                await expect(page.locator("#live")).to_have_text("Live")
    assert await page.evaluate("window.notReloaded")


async def test_it_works_without_scripts(server: ServerHandle, api: Caller, open_page: Open) -> None:
    await add_job(api, "running", description="Render", lease=lease(60))
    await add_job(api, "done", description="Done one")
    page = await open_page(server, java_script_enabled=False)
    await page.get_by_role("link", name="Running").click()
    await expect(page.locator(".title")).to_have_text(["Render"])
    await page.get_by_role("link", name="All").click()
    await page.get_by_label("Search").fill("done one")
    await page.keyboard.press("Enter")
    await expect(page.locator(".title")).to_have_text(["Done one"])
    await page.goto("/?status=running")
    await page.locator(".what").click()
    await page.get_by_label("Reason").fill("x" * 201)
    await page.get_by_role("button", name="Stop Job").click()
    await expect(page.get_by_role("alert")).to_contain_text("A reason takes 200 characters")
    await page.get_by_label("Reason").fill("enough")
    await page.get_by_role("button", name="Stop Job").click()
    await expect(page.get_by_text("requested by developer: enough")).to_be_visible()


async def test_many_jobs_stay_responsive(
    server: ServerHandle, api: Caller, open_page: Open, record_property: Callable[..., None]
) -> None:
    """What is measured is in the report of the run; a slow machine fails nothing."""
    operations = [
        create("Job", status=("running", "done")[n % 2], data=json.dumps(_data(n)))
        for n in range(2000)
    ]
    created = [each["data"]["id"] for each in await api.call(*operations)]
    page = await open_page(server)
    await expect(page.locator("#rows > li")).to_have_count(2000)
    await expect(page.locator("#live")).to_have_text("Live")
    paint = await page.evaluate(
        "performance.getEntriesByName('first-contentful-paint')[0].startTime"
    )
    probe = await page.context.new_cdp_session(page)
    await probe.send("Performance.enable")

    async def spent() -> dict[str, float]:
        metrics = (await probe.send("Performance.getMetrics"))["metrics"]
        return {each["name"]: each["value"] * 1000 for each in metrics}

    before = await spent()
    for number in range(10):
        data = json.dumps({**_data(0), "description": f"Changed {number}"})
        await api.update("Job", created[0], data=data)
        await expect(page.locator(f"#job-{created[0]} .title")).to_have_text(f"Changed {number}")
    after = await spent()
    for name in ("ScriptDuration", "LayoutDuration", "RecalcStyleDuration"):
        record_property(f"{name} of an update, ms", round((after[name] - before[name]) / 10, 1))
    record_property("first paint, ms", round(paint))
    await page.get_by_label("Search").fill("Job 1999")
    await expect(page.locator("#rows > li")).to_have_count(1)
    await page.get_by_label("Search").fill("")
    await expect(page.locator("#rows > li")).to_have_count(2000)


def _data(number: int) -> dict[str, Any]:
    return {
        "description": f"Job {number} (5 %)",
        "base_description": f"Job {number}",
        "progress": 0.05,
    }
