"""The pages in Chromium; the tests are skipped where it, or Playwright, is not installed."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest

from aioftrackjobs.devserver import ServerHandle
from tests.devserver.browsing import visiting
from tests.devserver.caller import Caller

_NAMES = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
async def chromium() -> AsyncIterator[Any]:
    """A browser for all tests."""
    playwright = pytest.importorskip("playwright.async_api", reason="Playwright is not installed")
    path = next(filter(None, map(shutil.which, _NAMES)), None)
    if path is None:
        pytest.skip(f"there is no Chromium on this machine: {', '.join(_NAMES)}")
    async with playwright.async_playwright() as driver:
        playwright.expect.set_options(timeout=30_000)
        # In a container, only root may make sandboxes, and Chromium makes none for root.
        browser = await driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        await browser.close()


@pytest.fixture
async def api(server: ServerHandle) -> AsyncIterator[Caller]:
    """A client of the server."""
    async with httpx.AsyncClient(base_url=server.url, timeout=30) as http:
        yield Caller(http, server.api_user, server.api_key)


@pytest.fixture
async def open_page(chromium: Any) -> AsyncIterator[Callable[..., Any]]:
    """Open a page as a user who has logged in; an error of a script fails the test at its end."""
    errors = list[str]()
    async with AsyncExitStack() as stack:

        async def open_page(server: ServerHandle, path: str = "/", **options: Any) -> Any:
            context = await chromium.new_context(base_url=server.url, **options)
            stack.push_async_callback(context.close)
            async with visiting(server) as visitor:
                cookies = [
                    {"name": name, "value": value, "url": server.url}
                    for name, value in visitor.http.cookies.items()
                ]
            await context.add_cookies(cookies)
            page = await context.new_page()
            page.set_default_timeout(10_000)
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.on("console", lambda message: _note(errors, message))
            await page.goto(path)
            return page

        yield open_page
    assert errors == []


def _note(errors: list[str], message: Any) -> None:
    if "Content Security Policy" in message.text:
        errors.append(message.text)
