"""A studio's hook: what happens when an artist publishes the frames of a task.

It is called with an open session by whatever listens for publishes. Its tests, which need no
ftrack of the studio's, are in test_publish_hook.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from anyio.to_thread import run_sync

from aioftrackjobs import AsyncSession, job_context


async def on_publish(session: AsyncSession, task_id: str, frames: Sequence[Path]) -> None:
    """Attach a manifest of the frames to a Job, and have the task reviewed.

    Raises:
        FileNotFoundError: If a frame is missing; then the task stays as it is.
    """
    task = await session.query(
        "select name, parent.name from Task where id is {task_id}", task_id=task_id
    ).one()
    review = await session.query('Status where name is "Pending review"').one()
    description = f"Publish {task['parent']['name']} {task['name']}"

    async with job_context(session, description=description) as job:
        lines = []
        for frame in frames:
            digest = hashlib.sha256(await run_sync(frame.read_bytes)).hexdigest()
            lines.append(f"{digest}  {frame.name}\n")
            job.progress(len(lines), frame.name, total=len(frames))
        await job.attach("".join(lines).encode(), name="manifest.txt")
        # Its own unit of work: nothing else that the program has recorded goes along.
        async with session.unit_of_work():
            task["status_id"] = review["id"]
