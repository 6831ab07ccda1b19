"""Worker processes with host names of their own, and what has become of the Jobs of their tasks."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import anyio
import anyio.abc

from aioftrackjobs import AsyncSession, Job, JobKey

#: Seconds for what takes long on a machine with much to do.
LONG = 50.0


async def until(condition: Callable[[], Awaitable[object]], seconds: float = LONG) -> None:
    """Wait until *condition* returns a true value."""
    with anyio.fail_after(seconds):
        while not await condition():
            await anyio.sleep(0.05)


class Farm:
    """Some workers.

    Args:
        session: Looks at their Jobs.
        env: Their environment.
    """

    def __init__(self, session: AsyncSession, env: Mapping[str, str]) -> None:
        self._session, self._env = session, env
        self._workers: list[anyio.abc.Process] = []

    async def start(self, program: str, host: str, **env: str) -> anyio.abc.Process:
        """Start a worker: a module of this folder, on a host of this name."""
        worker = await anyio.open_process(
            [sys.executable, "-m", f"tests.engines.{program}"],
            env={**self._env, "WORKER_HOST": host, **env},
            stdout=None,
            stderr=None,
        )
        self._workers.append(worker)
        return worker

    async def close(self) -> None:
        """Kill all workers."""
        with anyio.CancelScope(shield=True):
            for worker in self._workers:
                if worker.returncode is None:
                    worker.kill()
                await worker.wait()

    async def job(self, key: JobKey) -> tuple[str, str | None]:
        """Return the status and the text of the Job of a task."""
        found = await self._session.get(Job, key)
        assert found is not None, key
        return found.status, found.description

    async def counts(self) -> Counter[str]:
        """Return how many Jobs have each status."""
        jobs = await self._session.query("select id, status from Job").of(Job).all()
        return Counter(str(job.status) for job in jobs)

    async def counts_are(self, **expected: int) -> bool:
        """Return whether there are as many Jobs of each status as *expected*, and no others."""
        return await self.counts() == expected

    async def hosts(self) -> set[str]:
        """Return the hosts that run Jobs now."""
        running = 'select data from Job where status is "running"'
        jobs = await self._session.query(running).of(Job).all()
        data: list[dict[str, Any]] = [json.loads(job["data"]) for job in jobs]
        return {each["lease"]["host"] for each in data if "lease" in each}
