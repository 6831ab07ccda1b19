"""Responses have the shapes that were recorded from a real server.

Source:
    protocol.md: the examples and rules marked [F], a recorded real response.
"""

from __future__ import annotations

from typing import Any

from aioftrackjobs.devserver import running
from aioftrackjobs.protocol.schemas import schema_hash

from .caller import Caller, create, delete, new_id, query, ref, update

SERVER = "3a372bde-05bc-11e4-8908-20c9d081909b"


async def tasks_of_one_status(api: Caller) -> list[str]:
    """Make two tasks with the same status, and return their ids."""
    (project,) = await api.query("select id from Project limit 1")
    (status,) = await api.query('select id from Status where state.short is "NOT_STARTED" limit 1')
    made = [
        await api.create(
            "Task",
            name=name,
            project_id=project["id"],
            parent_id=project["id"],
            status_id=status["id"],
        )
        for name in ("recorded a", "recorded b")
    ]
    return [task["id"] for task in made]


async def test_server_information_has_the_recorded_fields(api: Caller) -> None:
    """Section 2.4."""
    (result,) = await api.call({"action": "query_server_information"})

    assert result.keys() >= {
        "storage_scenario",
        "schema_hash",
        "version",
        "is_timezone_support_enabled",
    }
    assert "action" not in result
    assert result["storage_scenario"] == {"data": {}, "scenario": "ftrack.automatic"}
    assert (result["version"], result["is_timezone_support_enabled"]) == ("dev", True)


async def test_the_schema_hash_is_that_of_the_schemas(api: Caller) -> None:
    """Section 8.3; the schemas come as a list, not wrapped (section 2.3)."""
    information, schemas = await api.call(
        {"action": "query_server_information"}, {"action": "query_schemas"}
    )

    assert isinstance(schemas, list)
    assert information["schema_hash"] == schema_hash(schemas)


async def test_a_row_has_its_type_its_key_and_the_system_projections(api: Caller) -> None:
    """Section 3.5: `showid` appears as `project_id`, and the classifier's column too."""
    (first, _) = await tasks_of_one_status(api)

    (row,) = await api.query(f'select name from Task where id is "{first}"')

    assert row["__entity_type__"] == "Task"
    assert row.keys() >= {"id", "name", "project_id", "object_type_id", "context_type"}
    assert "status_id" not in row


async def test_a_repeated_entity_is_a_bare_reference(api: Caller) -> None:
    """Section 3.5, the recorded example of two tasks with one status."""
    ids = await tasks_of_one_status(api)
    listed = ", ".join(f'"{each}"' for each in ids)

    first, second = await api.query(f"select status.state.short from Task where id in ({listed})")

    assert first["status"]["state"]["short"] == "NOT_STARTED"
    assert first["status"].keys() >= {"__entity_type__", "id", "state"}
    assert second["status"] == {"__entity_type__": "Status", "id": first["status"]["id"]}


async def test_an_attribute_without_a_value_is_null_when_selected(api: Caller) -> None:
    """Section 3.5, from the schema generator's snapshots."""
    user = await api.create("User", username="recorded")

    (row,) = await api.query(f'select email, thumbnail_id from User where id is "{user["id"]}"')

    assert row["email"] is None
    assert row["thumbnail_id"] is None


async def test_a_limited_page_has_the_next_offset(api: Caller) -> None:
    """Section 4.9: with `limit 1` the real server returned 1, with `limit 2` 2."""
    for number in range(3):
        await api.create("Job", data=str(number))

    one, two = await api.call(
        query("select id from Job limit 1"), query("select id from Job limit 2")
    )

    assert one["metadata"]["next"]["offset"] == 1
    assert two["metadata"]["next"]["offset"] == 2


async def test_a_new_user_comes_with_the_servers_defaults(api: Caller) -> None:
    """Section 3.6: what was sent, what the server sets, and nothing that has no value."""
    (result,) = await api.call(create("User", username="new", first_name="N", last_name="U"))

    key = result["data"]["id"]
    assert result == {
        "action": "create",
        "data": {
            "__entity_type__": "User",
            "id": key,
            "username": "new",
            "first_name": "N",
            "last_name": "U",
            "is_active": False,
            "is_otp_enabled": False,
            "is_totp_enabled": False,
            "require_details_update": False,
            "user_type_id": "ac9fa5aa-4361-11e0-b7cc-0019bb4983d8",
            "resource_type": "user",
        },
    }


async def test_the_result_of_an_update_has_what_changed(api: Caller) -> None:
    """Section 3.6: the changed attribute, the key and the system projections only."""
    user = await api.create("User", username="old", email="a@b.test")

    (result,) = await api.call(update("User", user["id"], username="newer"))

    assert result["data"]["username"] == "newer"
    assert result["data"]["id"] == user["id"]
    assert "email" not in result["data"]


def upload(component: str, link: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the creations that register a file, as the JavaScript client has them."""
    location = {"component_id": component, "location_id": SERVER, "resource_identifier": component}
    return (
        create("FileComponent", id=component, name="data", file_type=".json", size=13),
        create("ComponentLocation", id=link, **location),
    )


async def test_a_new_component_comes_with_its_locations(api: Caller) -> None:
    """Section 3.5: the location is sent with the component, and is a reference in its place."""
    component, link = new_id(), new_id()

    made, located = await api.call(*upload(component, link))

    assert made["data"] == {
        "__entity_type__": "FileComponent",
        "id": component,
        "name": "data",
        "file_type": ".json",
        "size": 13,
        "system_type": "file",
        "component_locations": [
            {
                "__entity_type__": "ComponentLocation",
                "id": link,
                "component_id": component,
                "location_id": SERVER,
                "resource_identifier": component,
            }
        ],
    }
    assert located == {"action": "create", "data": ref("ComponentLocation", link)}


async def test_a_location_that_is_created_first_is_sent_first(api: Caller) -> None:
    component, link = new_id(), new_id()
    file, location = upload(component, link)

    located, made = await api.call(location, file)

    assert located["data"]["resource_identifier"] == component
    assert made["data"]["component_locations"] == [ref("ComponentLocation", link)]


async def test_a_location_that_is_deleted_at_once_is_not_sent(api: Caller) -> None:
    component, link = new_id(), new_id()

    made, located, _ = await api.call(*upload(component, link), delete("ComponentLocation", link))

    assert "component_locations" not in made["data"]
    assert located["data"]["resource_identifier"] == component


async def test_repeated_entities_are_whole_if_requested(api: Caller) -> None:
    """Section 1.2: `denormalize`."""
    component, link = new_id(), new_id()

    response = await api.post(
        *upload(component, link), **{"ftrack-api-options": "strict:1;denormalize:1"}
    )

    made, located = response.json()
    assert made["data"]["component_locations"] == [located["data"]]
    assert located["data"]["resource_identifier"] == component


async def test_repeats_across_a_batch_are_references(api: Caller) -> None:
    """Section 3.5: the identity map spans the whole response."""
    component, link = new_id(), new_id()
    results = await api.call(
        *upload(component, link),
        query(f'select component.name from ComponentLocation where id is "{link}"'),
    )

    assert results[0]["data"]["name"] == "data"
    assert results[2]["data"] == [
        {**ref("ComponentLocation", link), "component": ref("FileComponent", component)}
    ]


async def test_an_upload_has_the_recorded_response(api: Caller) -> None:
    """Section 6.3: no action, but the address, its headers and the component."""
    component = new_id()

    (result,) = await api.call(
        {
            "action": "get_upload_metadata",
            "component_id": component,
            "file_name": "a.txt",
            "file_size": 13,
        }
    )

    assert result.keys() >= {"url", "headers", "component_id"}
    assert result["component_id"] == component
    assert result["headers"]["Content-Length"] == "13"
    assert "action" not in result


async def test_times_are_naive_and_in_whole_seconds(api: Caller) -> None:
    """Section 3.1."""
    await api.create("Job", data="x")

    (row,) = await api.query("select created_at from Job limit 1")

    assert row["created_at"]["__type__"] == "datetime"
    assert len(row["created_at"]["value"]) == len("2022-10-10T10:12:09")


async def test_a_global_key_acts_for_any_user() -> None:
    """Section 1.2."""
    import httpx

    async with (
        running(global_api_key="for-everybody") as server,
        httpx.AsyncClient(base_url=server.url) as http,
    ):
        rows = await Caller(http, "maya", "for-everybody").query("select username from User")
        refused = await Caller(http, "maya", "another").post(query("User"))

    assert rows
    assert refused.json()["exception"] == "InvalidCredentialsError"
