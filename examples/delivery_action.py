"""An action that delivers files of asset versions to a folder, named by a template.

It is like "Delivery" of AYON (https://github.com/ynput/ayon-ftrack), with ftrack alone: versions
are selected, or are in selected review sessions, and files are those of their components.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from enum import Enum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from aioftrackjobs import Entity, FtrackJobsError, RunningJob
from aioftrackjobs.actions import Actions, Launch

actions = Actions()

#: Where deliveries go if the form does not say it.
ROOT = Path("deliveries")


class Template(Enum):
    """Where the files of a delivery go."""

    FLAT = "{session}/{asset}_v{version:03}_{component}{type}"
    BY_ASSET = "{session}/{asset}/v{version:03}/{component}{type}"


class Delivery(BaseModel):
    """Choose what the client gets."""

    model_config = ConfigDict(json_schema_extra={"submit_button_label": "Deliver"})

    session: str = Field(title="Name of the delivery", pattern=r"^\w[\w .-]*$")
    components: list[str] = Field(min_length=1)
    template: Template = Template.FLAT
    folder: str = Field("", json_schema_extra={"empty_text": "another folder than usual"})


async def versions_of(launch: Launch) -> list[Entity]:
    """Return the selected versions, and those in selected review sessions."""
    wanted = "version, asset.name, components.name, components.file_type"
    versions = await launch.selection("AssetVersion", wanted)
    for review in await launch.selection("ReviewSession"):
        versions += await launch.session.query(
            f"select {wanted} from AssetVersion where"
            " review_session_objects.review_session_id is {id}",
            id=review["id"],
        ).all()
    return list(dict.fromkeys(versions))


def plain(name: str) -> str:
    """Return *name* without what would lead to another folder."""
    return re.sub(r"[^\w.-]|\.{2,}", "_", name)


async def common_components(launch: Launch) -> list[str]:
    """Return the names of the components that all versions have."""
    versions = await versions_of(launch)
    names = [{component["name"] for component in each["components"]} for each in versions]
    common = set.intersection(*names) if names else set[str]()
    if not common:
        raise ValueError("the versions have no components in common")
    return sorted(common)


async def name_of_session(launch: Launch) -> Mapping[str, str]:
    """Return the name of the review session, or today's date."""
    reviews = await launch.selection("ReviewSession", "name")
    return {"session": reviews[0]["name"] if reviews else f"{date.today():%y%m%d}"}


@actions.action(
    "Delivery",
    on=["AssetVersion", "ReviewSession"],
    roles={"Administrator", "Project manager"},
    choices={"components": common_components},
    defaults=name_of_session,
    unique="selection",
)
async def deliver(launch: Launch, form: Delivery, job: RunningJob) -> str:
    """Delivers files to a client."""
    files = [
        (version, component)
        for version in await versions_of(launch)
        for component in version["components"]
        if component["name"] in form.components
    ]
    root, problems = Path(form.folder or ROOT), list[str]()
    async for version, component in job.track(files):
        path = root / form.template.value.format(
            session=form.session,
            asset=plain(version["asset"]["name"]),
            version=version["version"],
            component=plain(component["name"]),
            type=plain(component["file_type"]),
        )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            await launch.session.download(component, path)
        except (FtrackJobsError, OSError) as error:
            problems.append(f"{path}: {error}")
    if problems:
        await job.attach("\n".join(problems).encode(), name="problems.txt")
        job.fail(f"{len(problems)} of {len(files)} files are missing (click to download)")
    return f"{len(files)} files in {root / form.session}"
