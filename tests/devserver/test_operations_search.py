"""``search`` and ``query_server_information``."""

from __future__ import annotations

from typing import Any

import pytest

from .caller import Caller, create, new_id


async def search(api: Caller, **fields: Any) -> list[dict[str, Any]]:
    (result,) = await api.call({"action": "search", **fields})
    assert result["action"] == "search"
    assert result["metadata"] == {"next": {"offset": None}}
    found: list[dict[str, Any]] = result["data"]
    return found


async def test_every_term_must_occur_in_some_text(api: Caller) -> None:
    await api.create("User", username="ada", first_name="Ada", last_name="Lovelace")
    await api.create("User", username="adam", first_name="Adam", last_name="Smith")

    expression = "select username from User"
    both = await search(api, expression=expression, entity_type="User", terms=["ADA"])
    one = await search(api, expression=expression, entity_type="User", terms=["ada", "love"])

    assert [row["username"] for row in both] == ["ada", "adam"]
    assert [row["username"] for row in one] == ["ada"]


async def test_a_type_is_enough_and_no_terms_find_everything(api: Caller) -> None:
    found = await search(api, entity_type="Location")

    assert len(found) == 5
    assert found[0].keys() == {"__entity_type__", "id"}


@pytest.mark.parametrize("term", ["100%", "a_b", 'say "hi"', "it's", "back\\slash", "%"])
async def test_terms_stand_for_themselves(api: Caller, term: str) -> None:
    await api.call(create("Location", name=f"x {term} y"), create("Location", name="100 a-b"))

    found = await search(api, expression="select name from Location", terms=[term])

    assert [row["name"] for row in found] == [f"x {term} y"]


async def test_criteria_order_and_page_of_the_expression_are_kept(api: Caller) -> None:
    await api.call(*(create("Location", name=f"disk {n}", label="new") for n in range(4)))
    operation = {
        "action": "search",
        "expression": 'select name from Location where label is "new" '
        "order by name descending offset 1 limit 2",
        "terms": ["disk"],
    }

    (result,) = await api.call(operation)

    assert [row["name"] for row in result["data"]] == ["disk 2", "disk 1"]
    assert result["metadata"]["next"]["offset"] == 3


async def test_a_context_holds_what_is_below_it(api: Caller) -> None:
    project, *_ = await api.query("Project")
    ids = {name: new_id() for name in ("Folder", "Sequence", "Shot", "Task", "other")}
    await api.call(
        create("Folder", id=ids["Folder"], name="a", parent_id=project["id"]),
        create("Sequence", id=ids["Sequence"], name="b", parent_id=ids["Folder"]),
        create("Shot", id=ids["Shot"], name="c", parent_id=ids["Sequence"]),
        create("Task", id=ids["Task"], name="d", parent_id=ids["Shot"]),
        create("Folder", id=ids["other"], name="e", parent_id=project["id"]),
    )

    tasks = await search(api, entity_type="Task", context_id=ids["Sequence"])
    everything = await search(api, entity_type="TypedContext", context_id=ids["Folder"])
    in_project = await search(api, entity_type="TypedContext", context_id=project["id"])
    elsewhere = await search(api, entity_type="Task", context_id=ids["other"])

    assert [row["id"] for row in tasks] == [ids["Task"]]
    assert [row["__entity_type__"] for row in everything] == ["Folder", "Sequence", "Shot", "Task"]
    assert {*ids.values()} <= {row["id"] for row in in_project}
    assert elsewhere == []


async def test_notes_are_found_by_content_and_context(api: Caller) -> None:
    task, *_ = await api.query("Task")
    (user,) = await api.query("User where username is maya")
    note = {"content": "Too dark", "parent_id": task["id"], "parent_type": "Task"}
    await api.create("Note", **note, user_id=user["id"])

    found = await search(api, entity_type="Note", terms=["dark"], context_id=task["id"])

    assert len(found) == 1


async def test_object_types_narrow_typed_contexts(api: Caller) -> None:
    shot, *_ = await api.query("select object_type_id from Shot")

    found = await search(api, entity_type="TypedContext", object_type_ids=[shot["object_type_id"]])

    assert {row["__entity_type__"] for row in found} == {"Shot"}


@pytest.mark.parametrize(
    ("fields", "content"),
    [
        ({}, "needs an 'expression'"),
        ({"expression": 5}, "needs an 'expression'"),
        ({"entity_type": []}, "must be a name"),
        ({"entity_type": "Usr"}, "did you mean 'User'"),
        ({"entity_type": "User", "expression": "Job"}, "is about Job"),
        ({"entity_type": "User", "terms": "x"}, "must be a list of texts"),
        ({"entity_type": "User", "terms": [1]}, "must be a list of texts"),
        ({"entity_type": "User", "context_id": "x"}, "is in no context"),
        ({"entity_type": "Task", "context_id": 5}, "must be a context's id"),
        ({"entity_type": "User", "object_type_ids": ["x"]}, "Unknown attribute"),
        ({"entity_type": "JobComponent", "terms": ["x"]}, "no text to search"),
        ({"expression": "select count(id) from Job group by status"}, "cannot group"),
    ],
)
async def test_malformed_searches_are_refused(
    api: Caller, fields: dict[str, Any], content: str
) -> None:
    error = await api.refused({"action": "search", **fields})

    assert error["exception"] == "ValidationError"
    assert content in error["content"]


async def information(api: Caller, **fields: Any) -> dict[str, Any]:
    (result,) = await api.call({"action": "query_server_information", **fields})
    assert isinstance(result, dict)
    return result


async def test_server_information_has_by_default_what_real_servers_send(api: Caller) -> None:
    """The fields of the recorded response (docs/protocol.md, section 2.4)."""
    facts = await information(api)

    assert facts.keys() == {
        "version",
        "schema_hash",
        "is_timezone_support_enabled",
        "storage_scenario",
    }


async def test_values_select_facts_and_unknown_ones_are_left_out(api: Caller) -> None:
    facts = await information(api, values=["user_information", "schema_hash", "moon_phase"])

    assert facts.keys() == {"user_information", "schema_hash"}
    user = facts["user_information"]
    assert user["username"] == api.user
    assert user["is_global_access_key"] is False
    assert "__entity_type__" not in user


@pytest.mark.parametrize("values", ["schema_hash", [1], {}])
async def test_values_must_be_names(api: Caller, values: Any) -> None:
    error = await api.refused({"action": "query_server_information", "values": values})

    assert error["exception"] == "ValidationError"
