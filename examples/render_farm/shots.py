"""The queue of the farm: its task, and the ftrack Job that each of its jobs runs as.

``FARM_DATABASE`` says how to connect to PostgreSQL; ``FTRACK_SERVER``, ``FTRACK_API_USER`` and
``FTRACK_API_KEY`` name the ftrack server.
"""

from __future__ import annotations

import os

from procrastinate import App, PsycopgConnector, RetryStrategy

from aioftrackjobs import current_job

#: Seconds for which a shot may wait, or its worker be missed, before ``recover`` gives it up.
REDELIVERED = 3600

app = App(connector=PsycopgConnector(conninfo=os.environ.get("FARM_DATABASE", "")))


@app.task(name="render", retry=RetryStrategy(max_attempts=2, wait=2))
async def render(shot: str, frames: int) -> None:
    """Render a shot; put the command of your renderer in place of the one here."""
    job = current_job()
    for frame in range(1, frames + 1):
        await job.run(["sleep", "0.2"], quiet=True)
        job.progress(frame, f"frame {frame}", total=frames)
