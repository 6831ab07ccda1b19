"""Sends shots to the farm, and waits for their Jobs: ``python producer.py sh010 sh020``."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

from shots import REDELIVERED, app, render

from aioftrackjobs import AsyncSession
from aioftrackjobs.integrations.procrastinate import task_key


async def main(shots: Sequence[str]) -> int:
    """Send *shots*, and print how they end; return 0 if all are done."""
    async with AsyncSession() as session, app.open_async():
        keys = []
        for shot in shots:
            number = await render.defer_async(shot=shot, frames=12)
            keys.append(task_key(number, redelivered_within=REDELIVERED))
            await session.queue_job(keys[-1], description=f"Render {shot}")
        async for job in session.watch(keys):
            print(job.status, job.description, flush=True)
        return 0 if all(each.is_done for each in await session.wait_for(keys)) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
