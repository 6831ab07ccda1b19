"""A service that offers actions in ftrack's web interface, each of which runs as a Job.

Set FTRACK_SERVER, FTRACK_API_USER and FTRACK_API_KEY, then:

    aioftrackjobs actions action_service:actions --reload

or, without the command, ``python action_service.py``. On SIGINT or SIGTERM the Jobs that run end as
failed. Tests are in test_action_service.py; they need neither ftrack nor a browser.
"""

from __future__ import annotations

import anyio
import delivery_action
import job_killer_action
import notes_action
import report_action
from pydantic import BaseModel, Field

from aioftrackjobs import AsyncSession, RunningJob, shutdown_on_signals
from aioftrackjobs.actions import Actions, Launch, stop_my_jobs

actions = Actions()
for module in (report_action, delivery_action, job_killer_action, notes_action):
    actions.include(module.actions)
actions.include(stop_my_jobs)


class Frames(BaseModel):
    """Which frames are rendered of each shot."""

    first: int = Field(1001, ge=0)
    count: int = Field(24, ge=1, le=1000)


@actions.action("Render", variant="preview", on="Shot", unique="selection", timeout=3600)
async def render(launch: Launch, form: Frames, job: RunningJob) -> str:
    """Renders a preview of the selected shots."""
    shots = await launch.selection("Shot", "name")
    for shot in shots:
        async with job.stage(shot["name"]):
            async for frame in job.track(range(form.first, form.first + form.count)):
                await render_frame(shot["name"], frame)
    return f"{len(shots) * form.count} frames of {len(shots)} shots"


async def render_frame(shot: str, frame: int) -> None:
    """Stand in for a renderer: ``await anyio.run_process([...])``."""
    if frame < 1001:
        raise ValueError(f"{shot} has no frame {frame}")
    await anyio.sleep(0.001)


async def main() -> None:
    """Serve the actions until a signal ends the program."""
    async with AsyncSession() as session, shutdown_on_signals(session):
        await actions.serve(session)


if __name__ == "__main__":
    anyio.run(main)
