"""An action that makes a report of a project, as a file attached to its Job.

A port of "create-report" of ftrack's recipes: https://github.com/ftrackhq/ftrack-recipes
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from io import StringIO

from pydantic import BaseModel, ConfigDict

from aioftrackjobs import RunningJob
from aioftrackjobs.actions import Actions, Launch

actions = Actions()


class Report(BaseModel):
    """What the report has."""

    model_config = ConfigDict(json_schema_extra={"submit_button_label": "Create"})

    title: str
    descriptions: bool = True


async def name_of_project(launch: Launch) -> Mapping[str, str]:
    """Return a title that names the project."""
    (project,) = await launch.selection("Project", "name")
    return {"title": f"Report of {project['name']}"}


@actions.action("Create report", on="Project", many=False, defaults=name_of_project)
async def create_report(launch: Launch, form: Report, job: RunningJob) -> str:
    """Lists the shots of a project, with their status."""
    (project,) = await launch.selection("Project", "name")
    shots = await launch.session.query(
        "select name, description, status.name from Shot where project_id is {id} order by name",
        id=project["id"],
    ).all()
    file = StringIO()
    table = csv.writer(file)
    table.writerow([form.title])
    async for shot in job.track(shots):
        text = [shot["description"] or ""] if form.descriptions else []
        table.writerow([shot["name"], *text, shot["status"]["name"] if shot["status"] else ""])
    await job.attach(file.getvalue().encode(), name=f"{project['name']}_report.csv")
    return f"{len(shots)} shots (click to download)"
