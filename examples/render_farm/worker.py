"""A worker of the farm; start as many as there are hosts: ``python worker.py``."""

from __future__ import annotations

import asyncio

from shots import REDELIVERED, app

from aioftrackjobs import AsyncSession, recover
from aioftrackjobs.integrations.procrastinate import ftrack_jobs

#: Seconds without a sign of life after which a worker counts as dead.
_STALLED = 10


async def _look_after_the_farm(session: AsyncSession) -> None:
    """Let the shots of dead workers run again; fail the Jobs that no worker will run."""
    while True:
        await asyncio.sleep(_STALLED / 2)
        for job in await app.job_manager.get_stalled_jobs(seconds_since_heartbeat=_STALLED):
            await app.job_manager.retry_job(job)
        await recover(session)


async def main() -> None:
    """Run shots until a signal ends the worker; each of the shots is an ftrack Job."""
    async with AsyncSession() as session, app.open_async(), asyncio.TaskGroup() as group:
        looking = group.create_task(_look_after_the_farm(session))
        await app.run_worker_async(
            concurrency=2,
            update_heartbeat_interval=2,
            stalled_worker_timeout=_STALLED,
            shutdown_graceful_timeout=5,
            worker_middleware=[ftrack_jobs(session, redelivered_within=REDELIVERED)],
        )
        looking.cancel()


if __name__ == "__main__":
    asyncio.run(main())
