"""A worker of procrastinate, as a process of its own: `DATABASE` says where its jobs are."""

from __future__ import annotations

import asyncio
import os

from procrastinate import App, PsycopgConnector, RetryStrategy

import tests.engines.simulated_host  # noqa: F401 - before a session knows its host
from aioftrackjobs import AsyncSession, current_job
from aioftrackjobs.integrations.procrastinate import ftrack_jobs

app = App(connector=PsycopgConnector(conninfo=os.environ["DATABASE"]))


@app.task(name="render", retry=RetryStrategy(max_attempts=5))
async def render(shot: str, seconds: float) -> None:
    job = current_job()
    job.progress(0.5, shot)
    await asyncio.sleep(seconds)


@app.task(name="mend")
async def mend() -> None:
    """Try the jobs again whose worker is gone, as procrastinate's documentation shows it."""
    for job in await app.job_manager.get_stalled_jobs(seconds_since_heartbeat=2):
        await app.job_manager.retry_job(job)


async def main() -> None:
    async with AsyncSession() as session, app.open_async():
        await app.run_worker_async(
            queues=["default"],
            concurrency=int(os.environ.get("CONCURRENCY", "8")),
            fetch_job_polling_interval=0.2,
            update_heartbeat_interval=0.5,
            stalled_worker_timeout=2,
            shutdown_graceful_timeout=0.2,
            worker_middleware=[
                ftrack_jobs(
                    session,
                    description=lambda job: f"Render {job.task_kwargs.get('shot')}",
                    redelivered_within=3600,
                )
            ],
        )


if __name__ == "__main__":
    asyncio.run(main())
