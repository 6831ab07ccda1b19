"""The official Python client, unmodified, works with the server."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from anyio.to_thread import run_sync

from aioftrackjobs.devserver import ServerHandle

with warnings.catch_warnings():
    # It pins a pyparsing that imports a deprecated module.
    warnings.simplefilter("ignore", DeprecationWarning)
    import ftrack_api
    import ftrack_api.exception
    import ftrack_api.symbol


def session_of(server: ServerHandle, **changes: Any) -> ftrack_api.Session:
    arguments = {
        "server_url": server.url,
        "api_key": server.api_key,
        "api_user": server.api_user,
        "schema_cache_path": False,
        "plugin_paths": [],
    }
    return ftrack_api.Session(**(arguments | changes))


async def with_session(server: ServerHandle, work: Callable[[ftrack_api.Session], None]) -> None:
    """Run *work* in a thread: the client blocks."""

    def run() -> None:
        session = session_of(server)
        try:
            work(session)
        finally:
            session.close()

    await run_sync(run)


@pytest.fixture
def report(tmp_path: Path) -> Path:
    path = tmp_path / "report.txt"
    path.write_text("all frames rendered\n" * 100)
    return path


async def test_the_tutorial_runs_as_it_is_written(server: ServerHandle, report: Path) -> None:
    def work(session: ftrack_api.Session) -> None:
        user = session.query(f'User where username is "{server.api_user}"').one()
        job = session.create(
            "Job",
            {"user": user, "status": "running", "data": json.dumps({"description": "My job"})},
        )
        session.commit()
        assert (job["status"], job["type"], job["user"]) == ("running", "api_job", user)

        location = session.query('Location where name is "ftrack.server"').one()
        component = session.create_component(
            str(report), data={"name": "My file"}, location=location
        )
        session.create("JobComponent", {"component_id": component["id"], "job_id": job["id"]})
        job["status"] = "done"
        session.commit()
        assert job["finished_at"] is not None

        (attached,) = job["job_components"]
        response = requests.get(location.get_url(attached["component"]), timeout=10)
        assert response.text == report.read_text()
        assert "My%20file.txt" in response.headers["Content-Disposition"]

    await with_session(server, work)


async def test_another_session_sees_what_was_written(server: ServerHandle) -> None:
    def work(session: ftrack_api.Session) -> None:
        job = session.create("Job", {"status": "running", "data": '{"a": 1}'})
        session.commit()
        other = session_of(server)
        found = other.get("Job", job["id"])
        assert (found["status"], found["data"]) == ("running", '{"a": 1}')
        found["data"] = None
        other.commit()
        session.populate(job, "data, user.username")
        assert job["data"] is None
        other.close()

    await with_session(server, work)


async def test_more_than_a_page_is_paged(server: ServerHandle) -> None:
    def work(session: ftrack_api.Session) -> None:
        user = session.query("User").first()
        for _ in range(1000):
            session.create("Job", {"user": user})
        session.commit()
        other = session_of(server)
        jobs = other.query("select id, user.username from Job").all()
        assert len({job["id"] for job in jobs}) == 1000
        assert {job["user"]["username"] for job in jobs} == {user["username"]}
        other.close()

    await with_session(server, work)


async def test_entities_are_ensured_and_deleted(server: ServerHandle) -> None:
    def work(session: ftrack_api.Session) -> None:
        for first_name in ("Bo", "Bob"):
            user = session.ensure(
                "User", {"username": "bob", "first_name": first_name}, ["username"]
            )
        assert user["first_name"] == "Bob"
        session.delete(user)
        session.commit()
        assert session.query("User where username is bob").first() is None

    await with_session(server, work)


async def test_metadata_is_a_dictionary(server: ServerHandle) -> None:
    def work(session: ftrack_api.Session) -> None:
        component = session.create("FileComponent", {"name": "x"})
        component["metadata"]["a"] = "1"
        session.commit()
        component["metadata"]["b"] = "2"
        del component["metadata"]["a"]
        session.commit()
        other = session_of(server)
        found = other.get("FileComponent", component["id"])
        assert dict(found["metadata"].items()) == {"b": "2"}
        other.close()

    await with_session(server, work)


async def test_a_sequence_is_uploaded_with_its_members(
    server: ServerHandle, tmp_path: Path
) -> None:
    for frame in (1, 2, 3):
        (tmp_path / f"sh010.{frame:04d}.exr").write_bytes(bytes([frame]))

    def work(session: ftrack_api.Session) -> None:
        location = session.query('Location where name is "ftrack.server"').one()
        made = session.create_component(f"{tmp_path}/sh010.%04d.exr [1-3]", location=location)
        other = session_of(server)
        found = other.get("SequenceComponent", made["id"])
        assert [member["name"] for member in found["members"]] == ["0001", "0002", "0003"]
        assert found["system_type"] == "sequence"
        other.close()

    await with_session(server, work)


async def test_generic_types_work(server: ServerHandle) -> None:
    def work(session: ftrack_api.Session) -> None:
        project = session.query("Project").one()
        task = session.create("Task", {"name": "anim", "parent": project})
        note = task.create_note("Nice", author=session.query("User").first())
        asset = session.create("Asset", {"name": "anim", "parent": task})
        version = session.create("AssetVersion", {"asset": asset, "task": task})
        session.commit()
        assert task["project"] is project
        assert task["status"]["state"]["short"] == "NOT_STARTED"
        assert session.query(f'Note where parent_id is "{task["id"]}"').one() is note
        assert session.query('AssetVersion where asset.name is "anim"').one() is version

    await with_session(server, work)


async def test_a_removed_component_is_not_in_its_location(
    server: ServerHandle, report: Path
) -> None:
    def work(session: ftrack_api.Session) -> None:
        location = session.query('Location where name is "ftrack.server"').one()
        component = session.create_component(str(report), location=location)
        url = location.get_url(component)
        location.remove_component(component)
        assert requests.get(url, timeout=10).status_code == 404
        assert session.query("ComponentLocation").all() == []

    await with_session(server, work)


@pytest.mark.parametrize(
    ("expression", "text"),
    [("Job where id is {x", "ParseError"), ("Jbo where id is x", "did you mean 'Job'")],
)
async def test_refusals_are_server_errors_with_a_text(
    server: ServerHandle, expression: str, text: str
) -> None:
    def work(session: ftrack_api.Session) -> None:
        with pytest.raises(ftrack_api.exception.ServerError) as caught:
            session.call([{"action": "query", "expression": expression}])
        assert text in str(caught.value)

    await with_session(server, work)


async def test_a_wrong_key_fails_at_the_start(server: ServerHandle) -> None:
    def work() -> None:
        with pytest.raises(ftrack_api.exception.ServerError, match="InvalidCredentialsError"):
            session_of(server, api_key="wrong")

    await run_sync(work)


def session_with_cache(server: ServerHandle, folder: Path) -> tuple[ftrack_api.Session, list[str]]:
    """Return a session and the actions that its start took."""
    actions: list[str] = []

    class Recorded(ftrack_api.Session):  # type: ignore[misc]
        def call(self, data: list[dict[str, Any]]) -> Any:
            actions.extend(operation["action"] for operation in data)
            return super().call(data)

    session = Recorded(
        server_url=server.url,
        api_key=server.api_key,
        api_user=server.api_user,
        schema_cache_path=str(folder),
        plugin_paths=[],
    )
    return session, actions


async def test_a_second_start_finds_the_schemas_in_the_cache(
    server: ServerHandle, tmp_path: Path
) -> None:
    """The client computes the same hash from the schemas that it has stored."""

    def run() -> None:
        for expected in (
            ["query_server_information", "query_schemas"],
            ["query_server_information"],
        ):
            session, actions = session_with_cache(server, tmp_path)
            assert actions == expected
            assert session.query("User").first() is not None
            session.close()

    await run_sync(run)


async def test_notes_have_authors_and_replies(server: ServerHandle) -> None:
    def work(session: ftrack_api.Session) -> None:
        maya = session.query("User where username is maya").one()
        task = session.query("Task").first()
        note = task.create_note("Too dark", author=maya)
        reply = note.create_reply("Fixed", author=maya)
        session.commit()
        other = session_of(server)
        found = other.get("Note", note["id"])
        assert found["content"] == "Too dark"
        assert found["author"]["username"] == "maya"
        assert [each["content"] for each in found["replies"]] == ["Fixed"]
        assert [each["id"] for each in found["replies"]] == [reply["id"]]
        other.close()

    await with_session(server, work)


async def test_custom_attributes_are_a_dictionary(server: ServerHandle) -> None:
    def work(session: ftrack_api.Session) -> None:
        kind = session.create("CustomAttributeType", {"name": "number"})
        shot = session.query("select object_type_id from Shot").first()
        session.create(
            "CustomAttributeConfiguration",
            {
                "key": "fstart",
                "label": "Frame start",
                "entity_type": "task",
                "object_type_id": shot["object_type_id"],
                "type": kind,
                "config": "{}",
                "default": 1001,
            },
        )
        session.commit()
        other = session_of(server)
        project = other.query("Project").first()
        made = other.create("Shot", {"name": "sh999", "parent": project})
        made["custom_attributes"]["fstart"] = 1042
        other.commit()
        made["custom_attributes"]["fstart"] = 1043
        other.commit()
        other.close()
        third = session_of(server)
        assert third.get("Shot", made["id"])["custom_attributes"]["fstart"] == 1043
        third.close()

    await with_session(server, work)


async def test_custom_attributes_of_saved_entities_are_there(server: ServerHandle) -> None:
    def work(session: ftrack_api.Session) -> None:
        task = session.query("select object_type_id from Task").first()
        late = session_of(server)
        for key, default, kind, object_type_id in (
            ("fps", 24, "task", task["object_type_id"]),
            ("final", False, "task", task["object_type_id"]),
            ("desk", "none", "user", None),
            ("code", "-", "show", None),
        ):
            data = {"key": key, "default": default, "entity_type": kind, "config": "{}"}
            session.create(
                "CustomAttributeConfiguration", {**data, "object_type_id": object_type_id}
            )
        session.commit()

        task = late.get("Task", task["id"])
        user = late.query("User where username is maya").one()
        assert dict(task["custom_attributes"]) == {"fps": 24, "final": False}
        assert late.query("Project").first()["custom_attributes"]["code"] == "-"
        task["custom_attributes"]["fps"] = 25
        task["custom_attributes"]["final"] = True
        user["custom_attributes"]["desk"] = ["3", "4"]
        late.commit()
        made = late.create("Task", {"name": "made", "parent": task["parent"]})
        late.commit()
        late.close()

        other = session_of(server)
        assert dict(other.get("Task", task["id"])["custom_attributes"]) == {
            "fps": 25,
            "final": True,
        }
        assert other.get("User", user["id"])["custom_attributes"]["desk"] == ["3", "4"]
        found = other.get("Task", made["id"])
        assert found["custom_attributes"]["fps"] == 24
        found["custom_attributes"]["fps"] = 50
        other.commit()
        other.close()
        session.populate(found := session.get("Task", made["id"]), "custom_attributes.value")
        assert found["custom_attributes"]["fps"] == 50

    await with_session(server, work)


async def test_notes_have_recipients(server: ServerHandle) -> None:
    def work(session: ftrack_api.Session) -> None:
        maya = session.query("User where username is maya").one()
        group = session.create("Group", {"name": "Lighting", "local": True})
        session.commit()
        task = session.query("Task").first()
        note = task.create_note("Too dark", author=maya, recipients=[maya, group])
        session.commit()

        other = session_of(server)
        found = other.get("Note", note["id"])
        caller = session.query(f"User where username is {session.api_user}").one()
        ids = {each["resource_id"] for each in found["recipients"]}
        assert ids == {maya["id"], group["id"], caller["id"]}
        people = {each["recipient"].entity_type for each in found["recipients"]}
        assert people == {"User", "Group"}
        assert other.query("Note where recipients.user.username is maya").one() == found
        other.delete(found)
        other.commit()
        assert other.query("Recipient").all() == []
        other.close()

    await with_session(server, work)


async def test_a_timer_runs_once_and_becomes_a_timelog(server: ServerHandle) -> None:
    def work(session: ftrack_api.Session) -> None:
        user = session.query("User where username is maya").one()
        task = session.query("Task").first()
        user.start_timer(task, comment="light")
        with pytest.raises(ftrack_api.exception.NotUniqueError):
            user.start_timer(task)
        session.rollback()
        timelog = user.stop_timer()
        assert (timelog["comment"], timelog["context"]) == ("light", task)
        assert 0 <= timelog["duration"] < 60

    await with_session(server, work)


async def test_lists_are_populated_at_once(server: ServerHandle) -> None:
    def work(session: ftrack_api.Session) -> None:
        for number in range(3):
            session.create("Job", {"data": str(number), "user": session.query("User").first()})
        session.commit()
        other = session_of(server)
        jobs = other.query("Job").all()
        other.populate(jobs, "data, status, user.username")
        with other.auto_populating(False):
            assert sorted(job["data"] for job in jobs) == ["0", "1", "2"]
            assert all(job["user"]["username"] for job in jobs)
        other.close()

    await with_session(server, work)


def ended(session: ftrack_api.Session, job: Any) -> str:
    deadline = time.monotonic() + 10
    while job["status"] in {"queued", "running"} and time.monotonic() < deadline:
        session.populate(job, "status, data")
    return str(job["status"])


async def test_media_is_encoded(server: ServerHandle, tmp_path: Path) -> None:
    pillow = pytest.importorskip("PIL.Image")
    pillow.new("RGB", (64, 32), "blue").save(tmp_path / "plate.png")

    def work(session: ftrack_api.Session) -> None:
        job = session.encode_media(str(tmp_path / "plate.png"))
        data = json.loads(job["data"])
        assert data["keep_original"] is False
        assert data["output"][0]["format"] == "image/jpeg"
        assert ended(session, job) == "done"

        (attached,) = job["job_components"]
        assert attached["component_id"] == data["output"][0]["component_id"]
        location = session.get("Location", ftrack_api.symbol.SERVER_LOCATION_ID)
        url = location.get_thumbnail_url(attached["component"], size=16)
        assert requests.get(url, timeout=10).headers["content-type"] == "image/jpeg"
        assert session.query(f'Component where id is "{data["source_component_id"]}"').all() == []

    await with_session(server, work)


async def test_small_operations_have_the_shapes_that_the_client_reads(
    server: ServerHandle,
) -> None:
    def work(session: ftrack_api.Session) -> None:
        user = session.query("User where username is maya").one()
        task = session.query("Task").first()
        session.send_user_invite(user)
        user.send_invite()
        assert session.get_widget_url("tasks").startswith(server.url)
        page = session.get_widget_url("info", entity=task, theme="dark")
        assert requests.get(page, timeout=10).status_code == 200
        with pytest.raises(ftrack_api.exception.ServerError, match="ValidationError"):
            session.reset_remote("password", entity=user)
        maya = session_of(server, api_user="maya", api_key=server.api_keys["maya"])
        with pytest.raises(ftrack_api.exception.ServerError, match="PermissionError"):
            maya.reset_remote("api_key", entity=maya.query("User where username is noor").one())
        api_key = maya.reset_remote("api_key", entity=user)["api_key"]
        maya.close()
        other = session_of(server, api_user="maya", api_key=api_key)
        assert other.query("User where username is maya").one()["id"] == user["id"]
        other.close()

    await with_session(server, work)


async def test_strict_sessions_get_the_same_errors(server: ServerHandle) -> None:
    def run() -> None:
        session = session_of(server, strict_api=True)
        with pytest.raises(ftrack_api.exception.ServerError, match="ValidationError"):
            session.query("select id from Jbo").all()
        (counted,) = session.call(
            [{"action": "query", "expression": "select count(id) from User group by is_active"}]
        )
        assert counted["data"][0]["count_id"] >= 3
        session.close()

    await run_sync(run)
