"""An action that delivers files of asset versions to a folder, named by a template.

It is like "Delivery" of AYON (https://github.com/ynput/ayon-ftrack), which has 793 lines, with
ftrack alone: versions are selected, or are in selected review sessions, and files are those of
their components. A list of the files, with the custom attributes of their shots, is attached to the
Job. If versions have a custom attribute "delivered", it gets the date.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from enum import Enum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from aioftrackjobs import Entity, FtrackJobsError, RunningJob
from aioftrackjobs.actions import Actions, Launch

actions = Actions()

#: The custom attribute of versions with the date of their delivery.
DELIVERED = "delivered"

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
    wanted = "version, asset.name, asset.parent.name, components.name, components.file_type"
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


def table(rows: list[dict[str, object]]) -> str:
    """Return *rows* as CSV, with all columns that any of them has."""
    text = io.StringIO()
    writer = csv.DictWriter(text, dict.fromkeys(name for row in rows for name in row))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


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
    versions = await versions_of(launch)
    files = [
        (version, component)
        for version in versions
        for component in version["components"]
        if component["name"] in form.components
    ]
    shots = [each["asset"]["parent"] for each in versions]
    await launch.session.populate([*versions, *shots], "custom_attributes")
    root, problems, delivered = Path(form.folder or ROOT), list[str](), list[dict[str, object]]()
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
            shot = version["asset"]["parent"]
            delivered.append({"file": path, "shot": shot["name"], **shot["custom_attributes"]})
        except (FtrackJobsError, OSError) as error:
            problems.append(f"{path}: {error}")
    if problems:
        await job.attach("\n".join(problems).encode(), name="problems.txt")
        job.fail(f"{len(problems)} of {len(files)} files are missing (click to download)")
    else:
        await job.attach(table(delivered).encode(), name="delivered.csv")
        async with launch.session.unit_of_work():
            for version in versions:
                if DELIVERED in version["custom_attributes"]:
                    version["custom_attributes"][DELIVERED] = datetime.now(UTC).date()
    return f"{len(files)} files in {root / form.session}"
