"""The form of entities in responses (docs/protocol.md, section 3.5)."""

from __future__ import annotations

from typing import Any

import pytest

from .caller import Caller, create, new_id, query


async def test_every_entity_carries_type_and_key_and_what_was_selected(api: Caller) -> None:
    job = await api.create("Job", data="{}")

    rows = await api.query("select status, data, finished_at, user from Job")

    assert rows == [
        {
            "__entity_type__": "Job",
            "id": job["id"],
            "status": "queued",
            "data": "{}",
            "finished_at": None,
            "user": None,
        }
    ]


async def test_without_select_the_default_projections_are_sent(api: Caller) -> None:
    (row,) = await api.query("Project")

    assert row.keys() == {"__entity_type__", "id", "name", "context_type"}


async def test_system_projections_are_always_sent(api: Caller) -> None:
    (row,) = await api.query("select name from Task limit 1")

    assert row.keys() == {
        "__entity_type__",
        "id",
        "name",
        "project_id",
        "context_type",
        "object_type_id",
    }


async def test_dates_are_naive_utc_in_whole_seconds(api: Caller) -> None:
    sent = {"__type__": "datetime", "value": "2026-11-21T20:13:32.213857+02:00"}
    await api.create("Job", created_at=sent)

    (row,) = await api.query("select created_at from Job")

    assert row["created_at"] == {"__type__": "datetime", "value": "2026-11-21T18:13:32"}


async def test_flags_are_booleans(api: Caller) -> None:
    (row,) = await api.query("select is_active, is_otp_enabled from User where username is maya")

    assert (row["is_active"], row["is_otp_enabled"]) == (True, False)


async def test_relations_nest_and_collections_are_lists(api: Caller) -> None:
    component_id, job_id = new_id(), new_id()
    await api.call(
        create("FileComponent", id=component_id, name="log"),
        create("Job", id=job_id),
        create("JobComponent", job_id=job_id, component_id=component_id),
    )

    (row,) = await api.query("select job_components.component.name from Job")

    assert row["job_components"] == [
        {
            "__entity_type__": "JobComponent",
            "component_id": component_id,
            "job_id": job_id,
            "component": {
                "__entity_type__": "FileComponent",
                "id": component_id,
                "system_type": "file",
                "version_id": None,
                "name": "log",
            },
        }
    ]


async def users_of_two_jobs(api: Caller, *expressions: str) -> list[Any]:
    (user,) = await api.query("User where username is maya")
    await api.call(create("Job", user_id=user["id"]), create("Job", user_id=user["id"]))
    results = await api.call(*map(query, expressions))
    return [row["user"] for result in results for row in result["data"]]


async def test_a_repeated_entity_is_sent_once_and_then_as_a_reference(api: Caller) -> None:
    first, second = await users_of_two_jobs(api, "select user.username from Job")

    assert first["username"] == "maya"
    assert second == {"__entity_type__": "User", "id": first["id"]}


async def test_repeated_entities_are_known_across_the_whole_batch(api: Caller) -> None:
    expression = "select user.username from Job"

    first, *others = await users_of_two_jobs(api, expression, expression)

    assert others == [{"__entity_type__": "User", "id": first["id"]}] * 3


async def test_a_later_place_that_selects_more_gets_what_is_missing(api: Caller) -> None:
    users = await users_of_two_jobs(
        api, "select user.username from Job", "select user.username, user.email from Job"
    )

    assert users[2] == {
        "__entity_type__": "User",
        "id": users[0]["id"],
        "email": "maya@example.com",
    }


async def test_cycles_are_cut_by_references(api: Caller) -> None:
    expression = "select name, parent.name, parent.children.name from Shot where name is sh030"
    rows = await api.query(expression)

    (shot,) = rows
    assert shot["parent"]["children"] == [{"__entity_type__": "Shot", "id": shot["id"]}]


@pytest.mark.parametrize("options", ["strict:1;denormalize:1", "denormalize=true;strict=1"])
async def test_denormalized_responses_repeat_the_data(api: Caller, options: str) -> None:
    await users_of_two_jobs(api)

    response = await api.post(
        query("select user.username from Job"), **{"ftrack-api-options": options}
    )

    (result,) = response.json()
    assert [row["user"]["username"] for row in result["data"]] == ["maya", "maya"]


async def test_related_entities_are_sent_under_their_own_type(api: Caller) -> None:
    (row,) = await api.query("select parent.name from Sequence limit 1")

    assert row["parent"]["__entity_type__"] == "Project"


async def test_computed_addresses_are_objects(api: Caller) -> None:
    component_id = new_id()
    await api.call(
        create("FileComponent", id=component_id),
        create("ComponentLocation", component_id=component_id),
    )

    (row,) = await api.query("select component_locations.url.value from Component")

    address = row["component_locations"][0]["url"]["value"]
    assert address.startswith(f"http://ftrack.test/component/get?id={component_id}&signature=")
    assert api.key not in address


async def test_restricted_and_hidden_attributes_are_not_sent(api: Caller) -> None:
    error = await api.refused(query("select state_id from Status"))

    assert error["exception"] == "ValidationError"


async def test_the_result_of_a_create_has_the_defaults(api: Caller) -> None:
    component = await api.create("FileComponent", name="log", file_type=".txt", size=3)

    assert component == {
        "__entity_type__": "FileComponent",
        "id": component["id"],
        "name": "log",
        "file_type": ".txt",
        "size": 3,
        "system_type": "file",
    }


async def test_the_result_of_an_update_has_the_change_alone(api: Caller) -> None:
    job = await api.create("Job", data="{}")

    result = await api.update("Job", job["id"], data=None)

    assert result == {"__entity_type__": "Job", "id": job["id"], "data": None}
