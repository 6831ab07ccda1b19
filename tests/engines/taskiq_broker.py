"""A broker of taskiq on Redis streams, for workers that are processes of their own."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from taskiq import SmartRetryMiddleware
from taskiq_redis import RedisStreamBroker

import tests.engines.simulated_host  # noqa: F401 - before a session knows its host
from aioftrackjobs import AsyncSession
from aioftrackjobs.integrations.taskiq import FtrackJob, FtrackJobs


def make_broker(url: str, queue: str, session: AsyncSession) -> Any:
    """Return a broker whose tasks are delivered again after a second."""
    broker = RedisStreamBroker(
        url,
        queue_name=queue,
        consumer_group_name=queue,
        xread_block=100,
        idle_timeout=2000,
        unacknowledged_lock_timeout=1.0,
    )
    jobs = FtrackJobs(session, queue=queue, redelivered_within=3600)
    broker = broker.with_middlewares(SmartRetryMiddleware(default_delay=0), jobs)

    @broker.task(task_name="render", ftrack_job="Render {shot}")
    async def render(shot: str, seconds: float, job: FtrackJob) -> None:
        job.progress(0.5, shot)
        await asyncio.sleep(seconds)

    @broker.task(task_name="tick")
    async def tick() -> None: ...

    return broker


if __name__ == "__main__":
    from taskiq.api import run_receiver_task

    async def main() -> None:
        broker = make_broker(os.environ["REDIS"], os.environ["QUEUE"], AsyncSession())
        await run_receiver_task(broker, run_startup=True, max_async_tasks=8)

    asyncio.run(main())
