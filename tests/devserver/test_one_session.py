"""What the official client reads in the session that wrote it.

After a commit it keeps what the answer told it and never asks again for what it has, so an
answer that leaves something out leaves the session with stale data. Other tests read in a
second session; these do not.
"""

from __future__ import annotations

from typing import Any

import ftrack_api
import pytest

from aioftrackjobs.devserver import ServerHandle

from .test_official_client import with_session


@pytest.fixture
def server(any_server: ServerHandle) -> ServerHandle:
    """All of it works with the schemas that come with the server, and with real ones."""
    return any_server


async def test_metadata_is_there_after_the_commit(server: ServerHandle) -> None:
    def work(session: ftrack_api.Session) -> None:
        sequence = session.query("Sequence").first()
        sequence["metadata"] = {"key1": "1", "key2": "2"}
        session.commit()
        assert dict(sequence["metadata"].items()) == {"key1": "1", "key2": "2"}
        sequence["metadata"]["key1"] = "one"
        session.commit()
        del sequence["metadata"]["key2"]
        sequence["metadata"]["key3"] = "3"
        session.commit()
        assert dict(sequence["metadata"].items()) == {"key1": "one", "key3": "3"}

    await with_session(server, work)


async def test_members_are_there_after_the_commit(server: ServerHandle) -> None:
    def work(session: ftrack_api.Session) -> None:
        container = session.create("ContainerComponent", {"name": "plates"})
        for name in ("left", "right"):
            container["members"].append(session.create("FileComponent", {"name": name}))
            session.commit()
        assert [each["name"] for each in container["members"]] == ["left", "right"]
        assert container["members"][0]["container"] is container
        container["members"].remove(container["members"][0])
        session.commit()
        assert [each["name"] for each in container["members"]] == ["right"]

    await with_session(server, work)


async def test_notes_and_replies_are_there_after_the_commit(server: ServerHandle) -> None:
    def work(session: ftrack_api.Session) -> None:
        maya = session.query("User where username is maya").one()
        task = session.query("Task").first()
        note = task.create_note("Too dark", author=maya, recipients=[maya])
        session.commit()
        reply = note.create_reply("Fixed", author=maya)
        session.commit()
        assert list(task["notes"]) == [note]
        assert list(note["replies"]) == [reply]
        assert [each["resource_id"] for each in note["recipients"]] == [maya["id"]]
        assert reply["in_reply_to"] is note

    await with_session(server, work)


async def test_an_emptied_collection_is_empty_after_the_commit(server: ServerHandle) -> None:
    def work(session: ftrack_api.Session) -> None:
        project = session.query("Project").first()
        project["metadata"]["rate"] = "24"
        session.commit()
        project["metadata"] = {}
        session.commit()
        assert dict(project["metadata"].items()) == {}
        assert session.query("Metadata").all() == []

    await with_session(server, work)


def names_of(words: Any) -> list[str]:
    return [each["name"] for each in words]


async def test_a_project_schema_tells_statuses_and_types(server: ServerHandle) -> None:
    def work(session: ftrack_api.Session) -> None:
        schema = session.query("Project").first()["project_schema"]
        for task in session.query("Task"):
            assert task["status"] in schema.get_statuses("Task", task["type_id"])
            assert task["type"] in schema.get_types("Task")
        for shot in session.query("Shot"):
            assert shot["status"] in schema.get_statuses("Shot")
            assert shot["type"] in schema.get_types("Shot")
        assert "Compositing" in names_of(schema.get_types("Task"))
        assert "Approved" in names_of(schema.get_statuses("AssetVersion"))
        assert "Ready to start" not in names_of(schema.get_statuses("AssetVersion"))
        assert {"Task", "Shot", "Folder"} <= set(names_of(schema["object_types"]))
        with pytest.raises(ValueError, match="Folder"):
            schema.get_statuses("Folder")

    await with_session(server, work)


async def test_a_workflow_is_overridden_for_a_type(server: ServerHandle) -> None:
    def work(session: ftrack_api.Session) -> None:
        schema = session.query("ProjectSchema").first()
        lighting = session.query("Type where name is Lighting").one()
        done = session.query("Status where name is Done").one()
        workflow = session.create("WorkflowSchema", {"name": "Short"})
        workflow["statuses"].append(done)
        session.create(
            "ProjectSchemaOverride",
            {
                "project_schema_id": schema["id"],
                "type_id": lighting["id"],
                "workflow_schema": workflow,
            },
        )
        session.commit()
        assert schema.get_statuses("Task", lighting["id"]) == [done]
        assert len(schema.get_statuses("Task")) > 1

    await with_session(server, work)


async def test_what_has_two_names_is_one_thing(server: ServerHandle) -> None:
    def work(session: ftrack_api.Session) -> None:
        workflow = session.create("WorkflowSchema", {"name": "Own"})
        schema = session.create("ProjectSchema", {"_task_workflow": workflow})
        task = session.query("ObjectType where name is Task").one()
        allowed = session.create(
            "Schema", {"object_type_id": task["id"], "project_schema_id": schema["id"]}
        )
        session.commit()
        assert schema["task_workflow_schema"] is workflow
        assert allowed["type_id"] == task["id"]
        assert list(schema["object_type_schemas"]) == list(schema["_schemas"]) == [allowed]
        assert session.query(f'Schema where type_id is "{task["id"]}"').one() is allowed

    await with_session(server, work)
