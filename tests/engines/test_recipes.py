"""The recipes of docs/engines.md that need no engine, and the farms that can be started."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import anyio
import pytest

from aioftrackjobs import AsyncSession, job_context

from . import services
from .farm import LONG, Farm
from .pool_work import render

ROOT = Path(__file__).parents[2]


@pytest.fixture
async def pool(
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[tuple[ProcessPoolExecutor, Any]]:
    # A child imports what it runs by its name, and pytest leaves the tests out of the path.
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT)])
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(1, mp_context=context) as executor:
        yield executor, manager


async def run(pool: tuple[ProcessPoolExecutor, Any], session: AsyncSession, shot: str) -> int:
    executor, manager = pool
    reports = manager.Queue()
    async with job_context(session, description=f"Render {shot}") as job:
        done = asyncio.get_running_loop().run_in_executor(executor, render, shot, reports)
        done.add_done_callback(lambda _: reports.put(None))
        while (report := await asyncio.to_thread(reports.get)) is not None:
            job.progress(report[0], total=report[1])
        return await done


@pytest.mark.smoke
@pytest.mark.slow
async def test_a_process_pool(
    pool: tuple[ProcessPoolExecutor, Any], session: AsyncSession, farm: Farm
) -> None:
    assert await run(pool, session, "sh010") != os.getpid()
    for shot, error in (("broken", OSError), ("killed", BrokenProcessPool)):
        with pytest.raises(error):
            await run(pool, session, shot)
    jobs = await session.query("select status, data from Job order by created_at").all()
    texts = sorted((str(job["status"]), str(job["data"])) for job in jobs)
    assert [status for status, _ in texts] == ["done", "failed", "failed"]
    assert "Render broken (100 %) - failed: OSError: disk full" in texts[1][1]
    assert "Render killed (100 %) - failed: BrokenProcessPool" in texts[2][1]


@pytest.mark.slow
@pytest.mark.timeout(6 * LONG)
@pytest.mark.parametrize(
    ("command", "last"),
    [
        pytest.param(
            [sys.executable, "-m", "aioftrackjobs", "demo", "--farm", "--jobs=3"],
            "3 shots are done",
            id="demo",
        ),
        pytest.param(
            [str(ROOT / "examples/render_farm/start.sh"), "sh010", "sh020"],
            "done Render sh020",
            id="example",
        ),
    ],
)
async def test_a_whole_farm(command: list[str], last: str) -> None:
    pytest.importorskip("procrastinate", reason="procrastinate is not installed")
    pytest.importorskip("psycopg", reason="psycopg is not installed", exc_type=ImportError)
    try:
        services.find_program("initdb")
    except services.Missing as missing:
        pytest.skip(str(missing))
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = await anyio.run_process(command, env={**os.environ, "PATH": path}, check=False)
    output = done.stdout.decode()
    assert done.returncode == 0, output + done.stderr.decode()
    assert last in output


async def test_a_farm_says_what_is_missing(tmp_path: Path) -> None:
    pytest.importorskip("procrastinate", reason="procrastinate is not installed")
    code = (
        "import pathlib, sys\n"
        "pathlib.Path.glob = lambda *_: ()\n"
        "sys.argv = ['aioftrackjobs', 'demo', '--farm']\n"
        "from aioftrackjobs.cli import main\n"
        "main()\n"
    )
    env = {**os.environ, "PATH": str(tmp_path)}
    done = await anyio.run_process([sys.executable, "-c", code], env=env, check=False)
    assert done.returncode == 2
    assert b"PostgreSQL: initdb is missing" in done.stderr
