"""Tests of action_service.py, with the ftrack server of the pytest plugin of aioftrackjobs.

    pip install "aioftrackjobs[server]" pytest
    pytest test_action_service.py

With pytest-asyncio, mark the tests with pytest.mark.asyncio instead of pytest.mark.anyio.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import anyio
import delivery_action
import pytest
from action_service import actions
from anyio.to_thread import run_sync

from aioftrackjobs import AsyncSession, Entity, Job, job_context
from aioftrackjobs.testing import FtrackServer

pytestmark = pytest.mark.anyio


async def one(session: AsyncSession, query: str) -> Entity:
    return await session.query(query).one()


async def publish(session: AsyncSession, *files: Path) -> Entity:
    """Return a new version of an asset, with *files* as its components."""
    shot = await one(session, 'Shot where name is "sh010"')
    asset = session.create("Asset", {"name": "plate", "context_id": shot["id"]})
    version = session.create("AssetVersion", {"asset_id": asset["id"]})
    await session.commit()
    for path in files:
        await session.create_component(path, {"name": path.stem, "version_id": version["id"]})
    return version


async def test_a_preview_is_rendered_as_a_job(
    ftrack_server: FtrackServer, ftrack_session: AsyncSession
) -> None:
    shot = await one(ftrack_session, 'Shot where name is "sh010"')
    launch = partial(actions.launch_for_test, ftrack_session, "render", selection=[shot])

    done = await launch(values={"first": 1001, "count": 3})
    failed = await launch(values={"first": 1, "count": 3})
    again = await launch(values={"first": 1001, "count": 0})

    assert done.messages == [{"type": "message", "success": True, "message": "3 frames of 1 shots"}]
    assert failed.job is not None
    assert failed.job.is_failed
    assert "sh010 has no frame 1" in failed.messages[0]["message"]
    assert again.job is None
    assert "greater than or equal to 1" in str(again.reply["items"])
    assert [job["status"] for job in ftrack_server.jobs()] == ["done", "failed"]


async def test_a_report_lists_the_shots_in_an_attached_file(
    ftrack_server: FtrackServer, ftrack_session: AsyncSession
) -> None:
    project = await one(ftrack_session, "Project")
    launch = partial(actions.launch_for_test, ftrack_session, "create_report", selection=[project])

    form = await launch()
    assert form.reply["items"][1]["value"] == f"Report of {project['name']}"
    done = await launch(values={"title": "Shots", "descriptions": False})

    assert done.job is not None
    assert done.job.is_done
    (job,) = ftrack_server.jobs()
    (file,) = job["attachments"]
    lines = ftrack_server.content(file["id"]).decode().splitlines()
    assert lines[0] == "Shots"
    assert len(lines) == 1 + len(ftrack_server.find("Shot"))
    assert lines[1].startswith("sh010,")


async def test_a_delivery_has_the_chosen_components_of_all_versions(
    ftrack_server: FtrackServer,
    ftrack_session: AsyncSession,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(delivery_action, "ROOT", tmp_path / "out")
    for name in ("main.mov", "small.jpg"):
        (tmp_path / name).write_bytes(name.encode())
    version = await publish(ftrack_session, tmp_path / "main.mov", tmp_path / "small.jpg")
    launch = partial(actions.launch_for_test, ftrack_session, "deliver", selection=[version])

    assert (await launch(user="maya")).reply["success"] is False  # it is for certain roles
    form = await launch()
    assert {item["name"]: item["type"] for item in form.reply["items"] if "name" in item} == {
        "session": "text",
        "components": "enumerator",
        "template": "enumerator",
        "folder": "text",
    }
    values: dict[str, Any] = {"session": "260301", "components": ["main"]}
    done = await launch(values={**values, "template": delivery_action.Template.BY_ASSET})

    assert done.job is not None
    assert done.job.is_done
    (delivered,) = (path for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert delivered.relative_to(tmp_path / "out").parts[:2] == ("260301", "plate")
    assert delivered.read_bytes() == b"main.mov"
    for outside in ("../elsewhere", "..", "/etc"):
        assert (await launch(values={**values, "session": outside})).job is None


async def test_a_delivery_notes_the_date_and_lists_custom_attributes(
    ftrack_server: FtrackServer, ftrack_session: AsyncSession, tmp_path: Path
) -> None:
    (tmp_path / "main.mov").write_bytes(b"main")
    kinds = {each["name"]: each for each in await ftrack_session.query("CustomAttributeType").all()}
    shot = await one(ftrack_session, 'select object_type_id from Shot where name is "sh010"')
    for key, kind, place in (
        ("fstart", "number", {"entity_type": "task", "object_type_id": shot["object_type_id"]}),
        ("delivered", "date", {"entity_type": "assetversion"}),
    ):
        values = {"key": key, "label": key, "type": kinds[kind], "config": "{}", **place}
        ftrack_session.create("CustomAttributeConfiguration", values)
    await ftrack_session.commit()
    await ftrack_session.custom_attributes()
    await ftrack_session.populate(shot, "custom_attributes")
    shot["custom_attributes"]["fstart"] = 1042
    await ftrack_session.commit()
    version = await publish(ftrack_session, tmp_path / "main.mov")
    values = {"session": "a", "components": "main", "folder": str(tmp_path / "out")}

    done = await actions.launch_for_test(
        ftrack_session, "deliver", selection=[version], values=values
    )

    assert done.job is not None
    assert done.job.is_done, done.messages
    (job,) = ftrack_server.jobs()
    (file,) = job["attachments"]
    head, row = ftrack_server.content(file["id"]).decode().splitlines()
    assert (head, row.endswith(",sh010,1042")) == ("file,shot,fstart", True)
    await ftrack_session.populate(version, "custom_attributes")
    assert f"{version['custom_attributes']['delivered']:%Y}" > "2025"


async def test_the_same_note_is_written_about_all_that_is_selected(
    ftrack_server: FtrackServer, ftrack_session: AsyncSession
) -> None:
    tasks = await ftrack_session.query("Task limit 3").all()
    category = await ftrack_session.query("NoteCategory").first()
    assert category is not None
    launch = partial(actions.launch_for_test, ftrack_session, "write_notes", selection=tasks)

    form = await launch()
    assert category["id"] in [each["value"] for each in form.reply["items"][-1]["data"]]
    await launch(values={"text": "Use the new plates.", "category": category["id"]})

    notes = ftrack_server.find("select content, parent_id from Note")
    assert {note["parent_id"] for note in notes} == {task["id"] for task in tasks}
    assert {note["content"] for note in notes} == {"Use the new plates."}


async def test_a_delivery_without_its_files_fails_and_says_which(
    ftrack_server: FtrackServer, ftrack_session: AsyncSession, tmp_path: Path
) -> None:
    (tmp_path / "main.mov").write_bytes(b"main")
    version = await publish(ftrack_session, tmp_path / "main.mov")
    (tmp_path / "out").write_text("no folder")
    values = {"session": "a", "components": "main", "folder": str(tmp_path / "out")}

    failed = await actions.launch_for_test(
        ftrack_session, "deliver", selection=[version], values=values
    )

    assert failed.job is not None
    assert failed.job.is_failed
    (job,) = ftrack_server.jobs()
    assert "1 of 1 files are missing" in job["description"]
    assert [file["name"] for file in job["attachments"]] == ["problems.txt"]


async def test_jobs_are_killed_while_they_run(
    ftrack_server: FtrackServer, ftrack_session: AsyncSession
) -> None:
    queued = ftrack_session.create(Job, {"status": "queued", "data": {"description": "Wait"}})
    await ftrack_session.commit()
    ended, running = list[str](), anyio.Event()

    async def run() -> None:
        try:
            async with job_context(ftrack_session, description="Render"):
                running.set()
                await anyio.sleep_forever()
        except Exception as error:  # noqa: BLE001 - the test compares it
            ended.append(str(error))

    launch = partial(actions.launch_for_test, ftrack_session, "kill_jobs")
    async with anyio.create_task_group() as group:
        group.start_soon(run)
        await running.wait()
        form = (await launch()).reply
        choices = [each["value"] for each in form["items"][1]["data"]]
        assert queued.id in choices
        outcome = await launch(values={"jobs": choices, "reason": "lunch"})

    assert outcome.reply["message"] == "2 of 2 Jobs have ended"
    assert {job["status"] for job in ftrack_server.jobs()} == {"failed"}
    assert ended == [f"stopped by {ftrack_session.api_user}: lunch"]


async def test_the_web_interface_finds_the_actions(
    ftrack_server: FtrackServer, ftrack_session: AsyncSession
) -> None:
    shot = await one(ftrack_session, 'Shot where name is "sh010"')
    async with anyio.create_task_group() as group:
        group.start_soon(actions.serve, ftrack_session)
        items: list[dict[str, Any]] = []
        while not items:
            discover = partial(ftrack_server.actions.discover, [shot], user="maya", timeout=0.5)
            items = await run_sync(discover)
        group.cancel_scope.cancel()

    assert [item["label"] for item in items] == ["Stop my Jobs", "Render"]
