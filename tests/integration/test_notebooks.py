"""What a notebook shows: entities and rows as tables, a running Job as a bar that moves."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import anyio
import pytest

from aioftrackjobs import AsyncSession, Job, job_context


async def test_rows_and_entities_are_tables(session: AsyncSession) -> None:
    user = await session.current_user()
    data = {"description": "<script>alert(1)</script>"}
    for _ in range(60):
        session.create("Job", {"user": user, "status": "queued", "data": data})
    await session.commit()

    jobs = await session.query(Job).all()
    html: str = jobs._repr_html_()  # type: ignore[attr-defined]

    assert isinstance(jobs, list)
    assert html.count("<tr>") == 51  # the head, and at most fifty rows
    assert "and 10 more" in html
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    task = await session.query("select name, parent.name, metadata, link from Task").first()
    assert task is not None
    table: str = task._repr_html_()
    assert "<caption>Task</caption>" in table
    assert ">name<" in table
    assert "&lt;Shot" in table


async def test_a_table_shows_no_secret(session: AsyncSession) -> None:
    user = await session.current_user()
    component = await session.create_component(b"x", name="x.txt")
    await session.populate(component, "component_locations.url")
    location = (component.component_locations or [])[0]

    assert "component/get" in str(location["url"])
    assert session._connection.credentials.api_key.reveal() not in location._repr_html_()
    assert "developer" in user._repr_html_()


class Display:
    """In place of a front end of IPython: what is shown, each time it changes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shown: list[str] = []
        self.changed = anyio.Event()
        module: Any = ModuleType("IPython.display")
        module.HTML = str
        module.display = self.display
        monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
        monkeypatch.setitem(sys.modules, "IPython.display", module)

    def display(self, html: str, *, display_id: bool) -> Display:
        assert display_id
        self.update(html)
        return self

    def update(self, html: str) -> None:
        self.shown.append(html)
        self.changed.set()
        self.changed = anyio.Event()

    async def until(self, text: str) -> None:
        with anyio.fail_after(20):
            while text not in self.shown[-1]:
                await self.changed.wait()


async def test_a_running_job_is_a_bar_that_moves(
    session: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    display = Display(monkeypatch)
    async with job_context(session, description="Contact <sheet>") as job:
        job._ipython_display_()
        assert "running" in display.shown[0]
        assert "Contact &lt;sheet&gt;" in display.shown[0]
        job.progress(0.42)
        await display.until("width:42%")
    await display.until("done")

    assert "width:100%" in display.shown[-1]


async def test_a_job_that_fails_is_shown_as_failed(
    session: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    display = Display(monkeypatch)
    with pytest.raises(ValueError, match="black"):
        async with job_context(session, description="Contact sheet") as job:
            job._ipython_display_()
            raise ValueError("black frames")

    await display.until("failed")
