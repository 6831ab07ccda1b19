"""``aioftrackjobs actions`` and ``stop``, as users run them."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from anyio.to_thread import run_sync

from aioftrackjobs import AsyncSession, Job
from aioftrackjobs.cli.serve_actions import NoActionsError, load_actions
from aioftrackjobs.devserver import ServerHandle

Until = Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]

SERVICE = """
import anyio
from aioftrackjobs.actions import Actions, stop_my_jobs

actions = Actions()
actions.include(stop_my_jobs)


@actions.action("Render {number}")
async def render() -> None:
    await anyio.sleep_forever()
"""


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "my_service.py"
    path.write_text(SERVICE.replace("{number}", "1"))
    monkeypatch.chdir(tmp_path)
    return path


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
async def test_a_service_starts_again_when_its_file_changes_and_ends_its_jobs(
    launch: Any,
    server: ServerHandle,
    session: AsyncSession,
    ftrack: dict[str, str],
    service: Path,
    until: Until,
) -> None:
    arguments = ("-m", "aioftrackjobs", "actions", "my_service:actions", "--reload")
    program = launch(*arguments, env=ftrack)
    await program.shows("Serving Stop my Jobs, Render 1, until Ctrl-C.")

    async def offers(label: str) -> bool:
        items = await run_sync(partial(server.actions.discover, timeout=0.2))
        return label in [item["label"] for item in items]

    await until(lambda: offers("Render 1"))
    reply = await run_sync(server.actions.launch, "render")
    assert reply["success"] is True

    service.write_text(SERVICE.replace("{number}", "2"))
    await until(lambda: offers("Render 2"))
    (job,) = await session.query("Job").of(Job).all()
    assert job.status == "failed"
    assert job.description is not None
    assert "SIGTERM" in job.description

    program.send(signal.SIGTERM)
    assert await program.end() == 128 + signal.SIGTERM


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("my_service", "write MODULE:NAME"),
        (":actions", "write MODULE:NAME"),
        ("my_service:", "write MODULE:NAME"),
        (".my_service:actions", "write MODULE:NAME"),
        ("nowhere:actions", "there is no module nowhere"),
        ("my_service.nowhere:actions", "there is no module my_service.nowhere"),
        ("my_service:render", "render is no Actions"),
        ("my_service:nothing.here", "nothing.here is no Actions"),
    ],
)
def test_what_is_no_registry_is_named(service: Path, target: str, problem: str) -> None:
    with pytest.raises(NoActionsError, match=problem):
        load_actions(target)


async def test_what_is_no_registry_is_a_mistake(
    command: Callable[..., Any], ftrack: dict[str, str]
) -> None:
    ended = await run_sync(lambda: command("actions", "nowhere:actions", env=ftrack))

    assert ended.code == 2
    assert ended.err == (
        "aioftrackjobs: nowhere:actions names no actions: there is no module nowhere\n"
    )


def test_a_module_that_lacks_something_shows_its_own_error(service: Path) -> None:
    service.with_name("lacking.py").write_text("import not_installed")
    with pytest.raises(ModuleNotFoundError, match="not_installed"):
        load_actions("lacking:actions")
    assert os.getcwd() in sys.path  # noqa: PTH109 - as Python has it
