"""Celery on Redis, with its prefork pool: one Job for each task, whatever becomes of it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import anyio
import pytest

from aioftrackjobs import AsyncSession, Job, JobKey, job_key
from aioftrackjobs.devserver import ServerHandle

from ..amounts import amount
from .farm import Farm, until

pytest.importorskip("celery", reason="Celery is not installed")
pytest.importorskip("redis", reason="Redis's client is not installed")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(240),  # a worker takes seconds to start, and tens on a busy machine
    pytest.mark.skipif(sys.platform == "win32", reason="Celery has no prefork pool there"),
]

TASKS = amount(30, 1000)

#: Seconds for what a worker does after its start.
_LONG = 150.0


@pytest.fixture
def tasks(redis_url: str, server: ServerHandle, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module of the worker, whose tasks this process sends."""
    monkeypatch.setenv("BROKER", redis_url)
    monkeypatch.setenv("FTRACK_SERVER", server.url)
    monkeypatch.setenv("FTRACK_API_KEY", server.api_key)
    monkeypatch.setenv("FTRACK_API_USER", server.api_user)
    monkeypatch.delenv("WORKER_HOST", raising=False)
    name = f"{__package__}.celery_worker"
    sys.modules.pop(name, None)
    celery_worker = import_module(name)
    yield celery_worker
    celery_worker.FarmTask.ftrack_session.close()
    celery_worker.app.close()


async def start(farm: Farm, url: str, path: Path, host: str = "one", **env: str) -> Any:
    env = {"FTRACK_JOBS_JOURNAL": str(path / f"journal-{host}"), **env}
    return await farm.start("celery_worker", host, BROKER=url, **env)


async def send(task: Any, *args: Any) -> Any:
    """Send a task, in a thread: that is blocking code."""
    return await anyio.to_thread.run_sync(lambda: task.delay(*args))


def key_of(result: Any) -> JobKey:
    """Return the key of the Job of a task that was sent."""
    return job_key("celery", "celery", result.id)


async def ended(session: AsyncSession, result: Any) -> tuple[str, str | None]:
    """Return the status and the text of the Job of a task when it has ended."""
    found: list[Job | None] = []

    async def has_ended() -> bool:
        found[:] = [await session.get(Job, key_of(result))]
        return found[0] is not None and found[0].status in ("done", "failed")

    await until(has_ended, _LONG)
    (job,) = found
    assert job is not None
    return str(job.status), job.description


async def test_each_way_in_which_a_task_ends(
    tasks: Any, farm: Farm, session: AsyncSession, redis_url: str, tmp_path: Path
) -> None:
    """All in one worker, because that takes seconds to start."""
    await start(farm, redis_url, tmp_path)
    sent = {
        name: await send(getattr(tasks, name), *arguments)
        for name, arguments in {
            "bake": ("sh010",),
            "flaky": (),
            "autoretried": (),
            "ignored": (),
            "broken": (),
            "soft": (),
            "hard": (),
            "killed": (str(tmp_path / "killed"),),
        }.items()
    }
    ends = {name: await ended(session, each) for name, each in sent.items()}

    assert ends == {
        "bake": ("done", "Bake sh010"),
        "flaky": ("done", "flaky"),
        "autoretried": ("failed", "autoretried - failed: OSError: no license"),
        "ignored": ("done", "ignored"),
        "broken": ("failed", "broken - failed: ValueError: no cache"),
        "soft": ("failed", "soft - failed: timed out after 1 s"),
        "hard": ("failed", "hard - failed: timed out after 1 s"),
        "killed": ("done", "killed"),
    }
    jobs = await session.query("Job").of(Job).all()
    assert len(jobs) == len(sent)
    flaky = await session.get(Job, key_of(sent["flaky"]))
    assert flaky is not None
    await session.populate(flaky, "job_components.component.name")
    assert sorted(each["component"]["name"] for each in flaky["job_components"]) == [
        "attempt0",
        "attempt1",
        "attempt2",
    ]


async def test_a_task_that_is_revoked_fails_as_such(
    tasks: Any, farm: Farm, session: AsyncSession, redis_url: str, tmp_path: Path
) -> None:
    running = await send(tasks.bake, "sh010", 60)
    waiting = await send(tasks.bake, "sh020", 60)
    assert await farm.job(key_of(running)) == ("queued", "Bake sh010")  # there is no worker
    await start(farm, redis_url, tmp_path, CONCURRENCY="1")

    async def runs() -> bool:
        return (await farm.job(key_of(running)))[0] == "running"

    await until(runs, _LONG)
    await anyio.to_thread.run_sync(waiting.revoke)
    await anyio.to_thread.run_sync(lambda: running.revoke(terminate=True))

    assert await ended(session, running) == ("failed", "Bake sh010 - failed: terminated")
    assert await ended(session, waiting) == ("failed", "Bake sh020 - failed: revoked")


@pytest.mark.smoke
async def test_tasks_of_a_killed_worker_are_delivered_to_another_one(
    tasks: Any, farm: Farm, redis_url: str, tmp_path: Path
) -> None:
    """Two hosts, one of which is killed, with all of its processes, while it works."""
    first = await start(farm, redis_url, tmp_path, VISIBILITY="3")
    results = [await send(tasks.bake, f"sh{number:03}", 0.5) for number in range(TASKS)]

    async def has_begun() -> bool:
        return (await farm.counts())["running"] > 0

    await until(has_begun, _LONG)
    kill_tree(first.pid)
    for host in ("two", "three"):
        await start(farm, redis_url, tmp_path, host, VISIBILITY="3", CONCURRENCY="4")

    async def all_are_done() -> bool:
        return await farm.counts_are(done=len(results))

    await until(all_are_done, _LONG)
    assert {(await farm.job(key_of(each)))[0] for each in results} == {"done"}


def kill_tree(pid: int) -> None:
    """Kill a process and its children, none of which can do anything any more."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for each in (pid, *map(int, children)):
        os.kill(each, signal.SIGKILL)
