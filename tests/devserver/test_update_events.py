"""``ftrack.update``, over a real socket, and the rows that are kept of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from aioftrackjobs.devserver import Limits, ServerHandle, running

from .caller import Caller, create, update
from .hub_client import HubClient, connected


@pytest.fixture
async def hub(server: ServerHandle) -> AsyncIterator[HubClient]:
    async with connected(server) as client:
        await client.subscribe("topic=ftrack.update")
        yield client


def delete(entity_type: str, *key: str) -> dict[str, Any]:
    return {"action": "delete", "entity_type": entity_type, "entity_key": list(key)}


async def entities_of(hub: HubClient) -> list[dict[str, Any]]:
    entities: list[dict[str, Any]] = (await hub.event())["data"]["entities"]
    return entities


async def first(remote: Caller, expression: str) -> dict[str, Any]:
    return (await remote.query(f"{expression} limit 1"))[0]


async def test_an_update_names_columns_parents_and_user(remote: Caller, hub: HubClient) -> None:
    task = await first(
        remote, "select id, status_id, object_type_id, parent.id, project.id from Task"
    )
    status = await first(remote, f'Status where id is_not "{task["status_id"]}"')
    user = await first(remote, f'User where username is "{remote.user}"')
    await remote.update("Task", task["id"], status_id=status["id"])
    event = await hub.event()
    (entity,) = event["data"]["entities"]
    parents = entity.pop("parents")
    assert entity == {
        "entityId": task["id"],
        "entityType": "task",
        "entity_type": "Task",
        "objectTypeId": task["object_type_id"],
        "parentId": task["parent"]["id"],
        "action": "update",
        "keys": ["statusid"],
        "changes": {"statusid": {"old": task["status_id"], "new": status["id"]}},
    }
    assert [each["entity_type"] for each in parents] == ["Task", "Shot", "Sequence", "Project"]
    assert [each["entityType"] for each in parents] == ["task", "task", "task", "show"]
    assert parents[0]["entityId"] == task["id"]
    assert [each["parentId"] for each in parents] == [
        *(each["entityId"] for each in parents[1:]),
        None,
    ]
    assert parents[-1]["entityId"] == task["project"]["id"]
    assert event["data"]["user"]["userid"] == user["id"]
    assert event["source"]["user"] == {"username": remote.user, "id": user["id"]}
    assert set(event) == {"topic", "id", "data", "sent", "source", "target", "inReplyToEvent"}


async def test_a_batch_is_one_event_and_a_refused_one_none(remote: Caller, hub: HubClient) -> None:
    project = await first(remote, "Project")
    ids = ["f1", "f2"]
    folders = [create("Folder", id=i, name=i, parent_id=project["id"]) for i in ids]
    await remote.refused(*folders, update("Folder", "missing", name="x"))
    await remote.call(*folders, update("Folder", "f2", name="second"))
    first_entity, second_entity = await entities_of(hub)
    assert [first_entity["entityId"], second_entity["entityId"]] == ids
    assert second_entity["action"] == "add"
    assert second_entity["changes"]["name"] == {"old": None, "new": "second"}
    assert second_entity["changes"]["object_typeid"]["old"] is None  # a default of the server
    await remote.call(update("Folder", "f1", name="f1"))  # nothing has changed
    await remote.call(create("Folder", id="f3", name="f3", parent_id="f1"), delete("Folder", "f3"))
    assert await hub.nothing_came()


async def test_what_is_deleted_by_cascade_is_in_the_event(remote: Caller, hub: HubClient) -> None:
    sequence = await first(remote, "select id, descendants.id from Sequence")
    below = {each["id"] for each in sequence["descendants"]}
    await remote.call(delete("Sequence", sequence["id"]))
    entities = {each["entityId"]: each for each in await entities_of(hub)}
    assert len(below) > 1
    assert below < set(entities)
    for own_id in below:
        assert entities[own_id]["action"] == "remove"
        assert entities[own_id]["parents"][-1]["entity_type"] == "Project"
        assert {each["new"] for each in entities[own_id]["changes"].values()} == {None}


async def test_what_triggers_change_is_in_the_event(remote: Caller, hub: HubClient) -> None:
    shot = await first(remote, "Shot")
    asset = await remote.create("Asset", name="plate", context_id=shot["id"])
    await remote.create("AssetVersion", asset_id=asset["id"])
    await hub.event()
    await hub.event()
    version = await remote.create("AssetVersion", asset_id=asset["id"])
    entities = {each["entityId"]: each for each in await entities_of(hub)}
    assert entities[version["id"]]["action"] == "add"
    earlier = [each for each in entities.values() if each["action"] == "update"]
    assert [each["changes"] for each in earlier] == [
        {"is_latest_version": {"old": True, "new": False}}
    ]
    chain = [each["entityType"] for each in entities[version["id"]]["parents"]]
    assert chain[:2] == ["assetversion", "asset"]
    assert chain[-1] == "show"


async def test_a_moved_entity(remote: Caller, hub: HubClient) -> None:
    one, other = await remote.query("select id from Sequence limit 2")
    shot = await first(remote, f'select id from Shot where parent_id is "{one["id"]}"')
    await remote.update("Shot", shot["id"], parent_id=other["id"])
    (entity,) = await entities_of(hub)
    assert entity["action"] == "move"
    assert entity["changes"]["parent_id"] == {"old": one["id"], "new": other["id"]}
    assert entity["parents"][1]["entityId"] == other["id"]


async def test_a_custom_attribute_is_a_change_of_its_entity(remote: Caller, hub: HubClient) -> None:
    kind = await first(remote, 'CustomAttributeType where name is "number"')
    settings = {"key": "fstart", "label": "fstart", "entity_type": "show", "config": "{}"}
    creation = create("CustomAttributeConfiguration", type_id=kind["id"], default=1)
    creation["entity_data"] |= settings
    configuration = (await remote.call(creation))[0]["data"]
    project = await first(remote, "Project")
    await hub.event()
    await remote.update(
        "ContextCustomAttributeValue", configuration["id"], project["id"], value=1042
    )
    (entity,) = await entities_of(hub)
    assert (entity["entityType"], entity["entityId"]) == ("show", project["id"])
    assert entity["changes"] == {"fstart": {"old": 1, "new": 1042}}


async def test_jobs_are_an_extension(remote: Caller, hub: HubClient) -> None:
    user = await first(remote, "User")
    job = await remote.create("Job", user_id=user["id"], status="running")
    await remote.update("Job", job["id"], status="done")
    (added,), (ended,) = await entities_of(hub), await entities_of(hub)
    assert (added["entityType"], added["action"], added["parents"]) == ("job", "add", [])
    assert set(ended["keys"]) == {"finished_at", "status"}
    assert ended["changes"]["status"] == {"old": "running", "new": "done"}


async def test_events_are_kept_with_numbers(remote: Caller) -> None:
    user = await first(remote, "User")
    job = await remote.create("Job", user_id=user["id"], status="running")
    (last,) = await remote.query("select id from Event order by id desc limit 1")
    await remote.refused(update("Job", job["id"], data="x"), update("Job", "missing", data="x"))
    for data in ("1", "2"):
        await remote.update("Job", job["id"], data=data)
    query = "select id, action, parent_type, parent_id, user.username, data, created_at from Event"
    rows = await remote.query(f"{query} where id > {last['id']} order by id")
    assert [row["id"] - last["id"] for row in rows] == [1, 2]
    assert {(row["action"], row["parent_type"], row["parent_id"]) for row in rows} == {
        ("update.job", "job", job["id"])
    }
    assert rows[0]["user"]["username"] == remote.user
    assert '"changes":{"data":{"old":null,"new":"1"}}' in rows[0]["data"]


async def test_another_user_s_changes_are_another_user_s(
    server: ServerHandle, hub: HubClient
) -> None:
    import httpx

    async with httpx.AsyncClient(base_url=server.url) as http:
        maya = Caller(http, "maya", server.api_keys["maya"])
        project = await first(maya, "Project")
        await maya.update("Project", project["id"], full_name="New")
    assert (await hub.event())["source"]["user"]["username"] == "maya"


async def test_events_go_on_after_a_reset(server: ServerHandle, remote: Caller) -> None:
    saved = server.inspector.save()
    project = await first(remote, "Project")
    for name in ("one", "two"):
        async with connected(server) as client:
            await client.subscribe("topic=ftrack.update")
            await remote.update("Project", project["id"], full_name=name)
            (entity,) = await entities_of(client)
            assert entity["changes"]["fullname"]["new"] == name
        server.inspector.restore(saved)


async def test_a_huge_batch_is_split_so_that_clients_can_read_it() -> None:
    import httpx

    async with (
        running(limits=Limits(event=20_000)) as server,
        connected(server) as client,
        httpx.AsyncClient(base_url=server.url) as http,
    ):
        await client.subscribe("topic=ftrack.update")
        remote = Caller(http, server.api_user, server.api_key)
        project = await first(remote, "Project")
        made = [create("Folder", name=f"f{n}", parent_id=project["id"]) for n in range(100)]
        await remote.call(*made)
        names = list[str]()
        while len(names) < 100:
            names += [each["changes"]["name"]["new"] for each in await entities_of(client)]
        assert names == [f"f{n}" for n in range(100)]


async def test_schemas_of_another_kind_end_in_no_failure() -> None:
    """Types that the server knows something about, without what it knows."""
    import httpx

    def schema(name: str, key: str, **properties: Any) -> dict[str, Any]:
        return {
            "id": name,
            "type": "object",
            "properties": {key: {"type": "string"}, **properties},
            "primary_key": [key],
            "required": [key],
            "immutable": [key],
            "default_projections": [key],
            "system_projections": [],
            "alias_for": None,
        }

    text = {"type": "string"}
    schemas = [
        schema("Event", "id", data=text),
        schema("CustomAttributeValue", "name", value=text),
        schema("CustomAttributeConfiguration", "code"),
        schema("Context", "path", parent_id=text),
        schema("Thing", "id", parent_id=text, alias_for=text),
        schema("User", "id", username=text),
    ]
    async with (
        running(schemas=schemas) as server,
        connected(server) as client,
        httpx.AsyncClient(base_url=server.url) as http,
    ):
        await client.subscribe("topic=*")
        remote = Caller(http, server.api_user, server.api_key)
        await remote.create("CustomAttributeValue", name="n", value="v")
        await remote.create("Context", path="p", parent_id="above")
        await remote.create("Thing", id="t", parent_id="p")
        await remote.call(update("CustomAttributeValue", "n", value="w"), delete("Thing", "t"))
        assert [each["action"] for each in await entities_of(client)] == ["add"]


async def test_events_of_a_folder_are_kept(api: Caller) -> None:
    project = await first(api, "Project")
    folder = await api.create("Folder", name="f", parent_id=project["id"])
    await api.update("Folder", folder["id"], name="g")
    await api.call(delete("Folder", folder["id"]))
    rows = await api.query("select action from Event order by id desc limit 3")
    assert [row["action"] for row in rows] == ["remove.task", "update.task", "add.task"]
