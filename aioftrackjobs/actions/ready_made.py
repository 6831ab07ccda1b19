"""Ready-made actions: ``actions.include(stop_my_jobs)``."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from aioftrackjobs.actions.launch import Launch
from aioftrackjobs.actions.registry import Actions
from aioftrackjobs.errors import FtrackJobsError
from aioftrackjobs.models import Job
from aioftrackjobs.protocol.query import bind

#: The button that ftrack's web interface lacks: stops Jobs of the user who clicks.
stop_my_jobs: Actions = Actions()

#: Jobs that the form lists; the latest.
_MOST = 50

#: Characters of a text in the list.
_LONGEST = 80

_MINE = (
    'status in ("queued", "running") and user_id is {user} order by created_at desc'
    f" limit {_MOST}"
)


async def _jobs_of(launch: Launch) -> list[Job]:
    if launch.user is None:
        return []
    criteria = bind(_MINE, {"user": launch.user.id})
    query = launch.session.query(f"select id, status, data from Job where {criteria}")
    return await query.of(Job).all()


async def _choices(launch: Launch) -> list[tuple[str, str]]:
    return [
        (job.id, f"{(job.description or 'without a text')[:_LONGEST]} ({job.status})")
        for job in await _jobs_of(launch)
    ]


class _Stop(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(
        json_schema_extra={"submit_button_label": "Stop"}
    )

    jobs: list[str] = Field(min_length=1)
    reason: str = Field("", max_length=200, description="for the text of the Jobs")


@stop_my_jobs.action(
    "Stop my Jobs", job=None, identifier="aioftrackjobs.stop-my-jobs", choices={"jobs": _choices}
)
async def stop(launch: Launch, form: _Stop) -> dict[str, object]:
    """Stops Jobs that you have started: they fail, and say so."""
    by = launch.user.username if launch.user else None
    problems = []
    for job_id in form.jobs:
        try:
            await launch.session.stop_job(job_id, form.reason or None, by=by)
        except FtrackJobsError as exc:
            problems.append(f"{job_id}: {exc}")
    count = len(form.jobs) - len(problems)
    text = "1 Job is stopped" if count == 1 else f"{count} Jobs are stopped"
    return {"success": not problems, "message": "; ".join([text, *problems])}
