"""An action with which administrators stop Jobs of all users, also while they run.

A port of the "Job Killer" of AYON: https://github.com/ynput/ayon-ftrack. That sets the status of
Jobs that go on working; this one ends their work, if they run with aioftrackjobs.
"""

from __future__ import annotations

from pydantic import BaseModel, Field

from aioftrackjobs import Job
from aioftrackjobs.actions import Actions, Launch

actions = Actions()


async def active_jobs(launch: Launch) -> list[tuple[str, str]]:
    """Return the id of each Job that has not ended, with its user, text and age."""
    jobs = (
        await launch.session.query(
            "select status, data, created_at, user.username from Job"
            ' where status in ("queued", "running") order by created_at desc limit 100'
        )
        .of(Job)
        .all()
    )
    return [
        (
            job.id,
            f"{job.user.username if job.user else 'no user'} - {job.description or 'no text'} -"
            f" {job.created_at:%d.%m.%Y %H:%M}",
        )
        for job in jobs
    ]


class Kill(BaseModel):
    """Choose the Jobs that are to fail."""

    jobs: list[str] = Field(min_length=1)
    reason: str = ""


@actions.action(
    "Kill Jobs", job=None, roles={"Administrator"}, choices={"jobs": active_jobs}, timeout=60
)
async def kill_jobs(launch: Launch, form: Kill) -> str:
    """Stops Jobs that are queued or running."""
    by = launch.user.username if launch.user else None
    for job_id in form.jobs:
        await launch.session.stop_job(job_id, form.reason or None, by=by)
    states = await launch.session.wait_for(form.jobs, timeout=10)
    ended = sum(state.has_ended for state in states)
    return f"{ended} of {len(states)} Jobs have ended"
