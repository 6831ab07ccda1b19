"""What the official client reads in the session that wrote it.

After a commit the session keeps the values of the response and never queries them again. If a
value is missing in the response, the session has stale data. Other tests read in a second
session; these do not.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import ftrack_api
import pytest

from aioftrackjobs.devserver import ServerHandle

from .caller import Caller, create
from .test_official_client import with_session


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


async def test_a_project_schema_has_statuses_and_types(server: ServerHandle) -> None:
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


def published(session: ftrack_api.Session, count: int) -> tuple[Any, list[Any]]:
    """Publish *count* versions of a new asset of the first shot, one commit each."""
    asset = session.create("Asset", {"name": "plate", "parent": session.query("Shot").first()})
    versions = []
    for _ in range(count):
        versions.append(session.create("AssetVersion", {"asset": asset}))
        session.commit()
    return asset, versions


async def test_versions_are_numbered_by_the_server(server: ServerHandle) -> None:
    def work(session: ftrack_api.Session) -> None:
        asset, versions = published(session, 2)
        assert [each["version"] for each in versions] == [1, 2]
        assert {each["user"]["username"] for each in versions} == {server.api_user}
        own = session.create("AssetVersion", {"asset": asset, "version": 7})
        for _ in range(2):
            versions.append(session.create("AssetVersion", {"asset": asset}))
        session.commit()
        assert own["version"] == 7
        assert [each["version"] for each in versions] == [1, 2, 8, 9]
        _, (other,) = published(session, 1)
        assert other["version"] == 1

    await with_session(server, work)


async def test_the_latest_version_is_known_by_itself(server: ServerHandle) -> None:
    def work(session: ftrack_api.Session) -> None:
        latest = "AssetVersion where is_latest_version is True"
        asset, (first, second) = published(session, 2)
        assert asset["latest_version"] is second
        assert (first["is_latest_version"], second["is_latest_version"]) == (False, True)
        assert session.query(latest).all() == [second]
        second["version"] = 0
        session.commit()
        assert session.query(latest).all() == [first]
        session.delete(first)
        session.commit()
        session.populate(second, "is_latest_version")
        assert second["is_latest_version"] is True

    await with_session(server, work)


async def test_a_version_moved_to_another_asset_may_be_its_latest(server: ServerHandle) -> None:
    def work(session: ftrack_api.Session) -> None:
        one, (first, second) = published(session, 2)
        other, (third,) = published(session, 1)
        second["asset"] = other
        session.commit()
        for version in (first, second, third):
            session.populate(version, "is_latest_version")
        found = [each["is_latest_version"] for each in (first, second, third)]
        assert found == [True, True, False]
        session.populate([one, other], "latest_version.version")
        assert (one["latest_version"], other["latest_version"]) == (first, second)

    await with_session(server, work)


async def test_clients_cannot_write_which_version_is_the_latest(server: ServerHandle) -> None:
    def work(session: ftrack_api.Session) -> None:
        asset, (_, second) = published(session, 2)
        third = session.create(
            "AssetVersion", {"asset": asset, "version": 1, "is_latest_version": True}
        )
        session.commit()
        session.populate(third, "is_latest_version")
        assert third["is_latest_version"] is False
        assert session.query("AssetVersion where is_latest_version is True").all() == [second]

    await with_session(server, work)


async def test_a_version_has_a_link_from_the_project_down(server: ServerHandle) -> None:
    def work(session: ftrack_api.Session) -> None:
        asset, (version,) = published(session, 1)
        names = [each["name"] for each in version["link"]]
        assert names == ["demo", "sq010", "sh010", "plate v1"]
        assert [each["type"] for each in version["link"]] == [
            "Project",
            "TypedContext",
            "TypedContext",
            "AssetVersion",
        ]
        assert version["link"][-1]["id"] == version["id"]
        assert version["link"][:-1] == asset["parent"]["link"]
        loose = session.create("AssetVersion", {})
        session.commit()
        assert loose["link"] is None

    await with_session(server, work)


async def test_logged_time_is_summed_and_compared_with_the_bid(server: ServerHandle) -> None:
    def work(session: ftrack_api.Session) -> None:
        user = session.query("User").first()
        task, other = session.query("Task").all()[:2]

        def logged(entity: Any) -> tuple[float, float]:
            session.populate(entity, "time_logged, bid_time_logged_difference")
            return entity["time_logged"], entity["bid_time_logged_difference"]

        assert logged(task) == (0, 0)
        task["bid"] = 10000
        timelogs = [
            session.create("Timelog", {"user": user, "context": task, "duration": duration})
            for duration in (3600, 60)
        ]
        session.commit()
        assert logged(task) == (3660, 6340)
        assert session.query("Task where time_logged > 3600").all() == [task]
        assert session.query("Task order by time_logged desc").first() is task
        timelogs[0]["context"] = other
        timelogs[1]["duration"] = 120
        session.commit()
        assert (logged(task), logged(other)) == ((120, 9880), (3600, -3600))
        session.delete(timelogs[1])
        session.commit()
        assert logged(task) == (0, 10000)

    await with_session(server, work)


def configure(session: ftrack_api.Session, key: str, kind: str, **data: Any) -> None:
    """Create a custom attribute of a known type for shots."""
    shot = session.query("select object_type_id from Shot").first()
    session.create(
        "CustomAttributeConfiguration",
        {
            "key": key,
            "label": key,
            "entity_type": "task",
            "object_type_id": shot["object_type_id"],
            "type": session.query(f'CustomAttributeType where name is "{kind}"').one(),
            "config": "{}",
            **data,
        },
    )
    session.commit()


async def test_a_custom_attribute_may_be_a_date(server: ServerHandle) -> None:
    def work(session: ftrack_api.Session) -> None:
        configure(session, "due", "date", default=None)
        first, second, *_ = session.query("Shot").all()
        first["custom_attributes"]["due"] = datetime(2026, 2, 3, tzinfo=UTC)
        second["custom_attributes"]["due"] = date(2026, 3, 1)
        session.commit()
        assert first["custom_attributes"]["due"] == datetime(2026, 2, 3, tzinfo=UTC)
        second["custom_attributes"]["due"] = datetime.fromisoformat("2026-03-01T12:30:00.75+02:00")
        session.commit()
        session.populate(second, "custom_attributes.value")
        assert second["custom_attributes"]["due"] == datetime(2026, 3, 1, 10, 30, tzinfo=UTC)
        for test, shots in {
            'value > "2026-02-03"': [second],
            'value >= "2026-02-03" and value before "2026-03-01"': [first],
            'value is "2026-02-03"': [first],
            'value is_not "2026-02-03"': [second],
            'value in ("2026-02-03", "2026-03-01T10:30:00Z")': [first, second],
            'value < "a"': [],
            "value > 1": [],
        }.items():
            found = session.query(f"Shot where custom_attributes any (key is due and {test})")
            assert found.all() == shots, test
        first["custom_attributes"]["due"] = None
        session.commit()
        assert first["custom_attributes"]["due"] is None

    await with_session(server, work)


async def test_a_custom_attribute_may_start_with_a_date(server: ServerHandle) -> None:
    def work(session: ftrack_api.Session) -> None:
        configure(session, "start", "date", default=datetime(2026, 1, 1, 9, tzinfo=UTC))
        shot = session.query("Shot").first()
        assert shot["custom_attributes"]["start"] == datetime(2026, 1, 1, 9, tzinfo=UTC)

    await with_session(server, work)


@pytest.mark.parametrize("value", [{"__type__": "date", "value": "soon"}, {"a": 1}, [{"a": 1}]])
async def test_other_objects_are_no_values_of_custom_attributes(
    remote: Caller, value: object
) -> None:
    error = await remote.refused(
        create("CustomAttributeConfiguration", key="k", config="{}", default=value)
    )

    assert error["exception"] == "ValidationError"


@pytest.mark.parametrize(
    "kind",
    [
        "text",
        "boolean",
        "date",
        "enumerator",
        "dynamic enumerator",
        "number",
        "expression",
        "notificationtype",
        "url",
    ],
)
async def test_custom_attributes_are_of_types_that_are_there(
    server: ServerHandle, kind: str
) -> None:
    def work(session: ftrack_api.Session) -> None:
        assert session.query(f'CustomAttributeType where name is "{kind}"').one()["core"] is True

    await with_session(server, work)
