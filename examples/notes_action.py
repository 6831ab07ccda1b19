"""An action that writes one note about several tasks and versions.

It is like "Multiple Notes" of AYON (https://github.com/ynput/ayon-ftrack), which has 99 lines. That
commits each note on its own; here, all notes are written, or none.
"""

from __future__ import annotations

from pydantic import BaseModel, Field

from aioftrackjobs.actions import Actions, Launch

actions = Actions()


class Text(BaseModel):
    """Write a note about all that is selected."""

    text: str = Field(min_length=1, json_schema_extra={"multiline": True})
    category: str | None = None


async def categories(launch: Launch) -> list[tuple[str, str]]:
    """Return the categories that notes may have."""
    found = await launch.session.query("select name from NoteCategory").all()
    return [(each["id"], each["name"]) for each in found]


@actions.action(
    "Multiple notes",
    on=["AssetVersion", "Task"],
    discover=lambda launch: len(launch.selected) > 1,
    job=None,
    choices={"category": categories},
)
async def write_notes(launch: Launch, form: Text) -> str:
    """Writes the same note several times."""
    session = launch.session
    category = await session.get("NoteCategory", form.category) if form.category else None
    entities = [*await launch.selection("AssetVersion"), *await launch.selection("Task")]
    async with session.unit_of_work():
        for each in entities:
            await session.create_note(each, form.text, author=launch.user, category=category)
    return f"{len(entities)} notes written"
