"""A hook of a studio, which runs when an artist publishes the frames of a task.

The program that listens for such events calls it with an open session. Its tests are in
test_publish_hook.py. They need no ftrack server of the studio.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from anyio.to_thread import run_sync

from aioftrackjobs import AsyncSession, job_context


async def on_publish(session: AsyncSession, task_id: str, frames: Sequence[Path]) -> None:
    """Attach a manifest of the frames to a Job, and set the task to "Pending review".

    Raises:
        FileNotFoundError: A frame is missing. The task has not changed.
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
        # A unit of work of its own commits nothing else that the program has recorded.
        async with session.unit_of_work():
            task["status_id"] = review["id"]
