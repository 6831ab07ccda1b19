"""Creates, updates and deletes, and batches."""

from __future__ import annotations

import re
from typing import Any

import pytest

from .caller import Caller, create, delete, new_id, query, ref, update


async def test_keys_are_taken_from_either_place_or_made(api: Caller) -> None:
    by_key, by_data = new_id(), new_id()

    results = await api.call(
        {"action": "create", "entity_type": "Job", "entity_key": [by_key], "entity_data": {}},
        create("Job", id=by_data),
        create("Job"),
    )

    keys = [result["data"]["id"] for result in results]
    assert keys[:2] == [by_key, by_data]
    assert re.fullmatch(r"[0-9a-f-]{36}", keys[2])


async def test_defaults_and_creation_date_are_filled_in(api: Caller) -> None:
    job = await api.create("Job")

    assert (job["status"], job["type"]) == ("queued", "api_job")
    assert job["created_at"]["__type__"] == "datetime"


@pytest.mark.parametrize("status", ["done", "failed"])
async def test_a_finished_job_gets_its_date_and_loses_it_when_reopened(
    api: Caller, status: str
) -> None:
    job = await api.create("Job")

    finished = await api.update("Job", job["id"], status=status)
    reopened = await api.update("Job", job["id"], status="running")

    assert finished["finished_at"]["__type__"] == "datetime"
    assert reopened["finished_at"] is None


async def test_a_relation_may_be_written_as_reference_or_as_key(api: Caller) -> None:
    (user,) = await api.query("User where username is maya")

    await api.call(create("Job", user=ref("User", user["id"])), create("Job", user_id=user["id"]))

    assert len(await api.query("Job where user.username is maya")) == 2


async def test_the_key_of_an_update_may_be_a_bare_string(api: Caller) -> None:
    job = await api.create("Job")

    await api.call({**update("Job", status="done"), "entity_key": job["id"]})

    assert len(await api.query("Job where status is done")) == 1


async def test_a_failing_operation_undoes_the_whole_batch(api: Caller) -> None:
    await api.refused(create("Job"), create("Location", name="x"), create("Job", status="paused"))

    assert await api.query("Job") == []
    assert await api.query("Location where name is x") == []


async def test_required_attributes_are_checked_when_the_batch_is_done(api: Caller) -> None:
    """The official test of deferred validation (docs/protocol.md, section 2.2)."""
    location_id = new_id()

    await api.call(
        create("Location", id=location_id),
        create("Location", name="other"),
        update("Location", location_id, name="late"),
    )

    assert [
        row["name"]
        for row in await api.query('select name from Location where name in ("late", "other")')
    ] == ["late", "other"]


async def test_a_missing_required_attribute_is_refused(api: Caller) -> None:
    error = await api.refused(create("Location"))

    assert error["exception"] == "ValidationError"
    assert error["content"] == "Location.name is required."


async def test_references_may_point_forward_within_a_batch(api: Caller) -> None:
    job_id, component_id = new_id(), new_id()

    await api.call(
        create("JobComponent", job_id=job_id, component_id=component_id),
        create("FileComponent", id=component_id),
        create("Job", id=job_id),
    )

    assert len(await api.query("Job where job_components any ()")) == 1


@pytest.mark.parametrize(
    "data", [{"user_id": "nobody"}, {"user": {"__entity_type__": "User", "id": "nobody"}}]
)
async def test_a_reference_to_nothing_is_an_integrity_error(
    api: Caller, data: dict[str, Any]
) -> None:
    error = await api.refused(create("Job", **data))

    assert error["exception"] == "IntegrityError"
    assert "user_id of a Job is 'nobody'" in error["content"]
    assert await api.query("Job") == []


async def test_a_key_can_be_used_once(api: Caller) -> None:
    job = await api.create("Job")

    assert (await api.refused(create("Job", id=job["id"])))["exception"] == "DuplicateEntryError"


@pytest.mark.parametrize("operation", [update("Job", "gone", status="done"), delete("Job", "gone")])
async def test_what_does_not_exist_cannot_be_changed(
    api: Caller, operation: dict[str, Any]
) -> None:
    assert (await api.refused(operation))["exception"] == "EntityNotFoundError"


@pytest.mark.parametrize(
    ("data", "content"),
    [
        ({"status": "paused"}, "'paused' is not a value of Job.status"),
        ({"status": 5}, "Job.status takes text"),
        ({"data": {"description": "x"}}, "Job.data takes text, not an object"),
        ({"created_at": "soon"}, "Job.created_at takes a date"),
        ({"created_at": {"__type__": []}}, "Job.created_at takes a date"),
        ({"sttus": "done"}, "did you mean 'status'"),
        ({"user": "maya"}, "Job.user takes a reference"),
        ({"user": {"__entity_type__": "Location", "id": "x"}}, "Job.user takes a User"),
        ({"user": {"__entity_type__": "User"}}, "lacks id"),
        ({"job_components": "x"}, "takes a list"),
        ({"user": None, "user_id": "x"}, "given twice"),
    ],
)
async def test_values_of_the_wrong_kind_are_refused(
    api: Caller, data: dict[str, Any], content: str
) -> None:
    error = await api.refused(create("Job", **data))

    assert error["exception"] == "ValidationError"
    assert content in error["content"]


@pytest.mark.parametrize(
    ("entity_type", "data"),
    [
        ("FileComponent", {"size": True}),
        ("FileComponent", {"size": 1.5}),
        ("FileComponent", {"size": 2**70}),
        ("User", {"username": "x", "is_active": 1}),
        ("JobComponent", {"url": {"value": "x"}}),
        ("JobComponent", {"job_id": "x"}),
    ],
)
async def test_numbers_flags_and_computed_values_are_checked(
    api: Caller, entity_type: str, data: dict[str, Any]
) -> None:
    error = await api.refused(create(entity_type, **data))

    assert error["exception"] == "ValidationError"


@pytest.mark.parametrize("key", [None, [], ["a", "b"], [None], {"id": "a"}, [["a"]]])
async def test_a_key_that_does_not_fit_is_refused(api: Caller, key: Any) -> None:
    error = await api.refused({**update("Job"), "entity_key": key})

    assert error["exception"] == "ValidationError"
    assert "id" in error["content"]


async def test_immutable_attributes_keep_their_value(api: Caller) -> None:
    job = await api.create("Job")

    await api.call(update("Job", job["id"], type="api_job"))
    error = await api.refused(update("Job", job["id"], type="other"))

    assert error["content"] == "Job.type cannot be changed."


async def test_a_deleted_job_takes_its_attachments_along(api: Caller) -> None:
    job_id, component_id = new_id(), new_id()
    await api.call(
        create("Job", id=job_id),
        create("FileComponent", id=component_id),
        create("JobComponent", job_id=job_id, component_id=component_id),
    )

    (result,) = await api.call(delete("Job", job_id))

    assert result == {"action": "delete", "data": True}
    assert await api.query("JobComponent") == []
    assert len(await api.query("Component")) == 1


async def test_a_deleted_user_leaves_the_jobs(api: Caller) -> None:
    user = await api.create("User", username="gone")
    await api.create("Job", user_id=user["id"])

    await api.call(delete("User", user["id"]))

    assert [row["user_id"] for row in await api.query("select user_id from Job")] == [None]


async def test_a_deleted_component_takes_locations_and_metadata_along(api: Caller) -> None:
    component_id = new_id()
    await api.call(
        create("FileComponent", id=component_id),
        create("ComponentLocation", component_id=component_id),
        create("Metadata", parent_id=component_id, parent_type="FileComponent", key="k", value="v"),
    )

    await api.call(delete("Component", component_id))

    assert await api.query("ComponentLocation") == []
    assert await api.query("Metadata") == []


async def test_a_deleted_note_takes_its_replies_along(api: Caller) -> None:
    (user,) = await api.query("select id from User limit 1")
    await api.call(
        create("Note", id="a", content="a", user_id=user["id"]),
        create("Note", id="b", content="b", user_id=user["id"], in_reply_to_id="a"),
        create("Note", id="c", content="c", user_id=user["id"], in_reply_to_id="b"),
        create("Note", id="other", content="other", user_id=user["id"]),
    )

    await api.call(delete("Note", "a"))

    assert [row["id"] for row in await api.query("Note")] == ["other"]


async def test_a_list_replaces_what_a_collection_held(api: Caller) -> None:
    ids = {name: new_id() for name in ("sequence", "a", "b", "c")}
    await api.call(
        create("SequenceComponent", id=ids["sequence"]),
        *(
            create("FileComponent", id=ids[name], name=name, container_id=ids["sequence"])
            for name in "ab"
        ),
        create("FileComponent", id=ids["c"], name="c"),
    )

    members = [ref("FileComponent", ids[name]) for name in "bc"]
    await api.update("SequenceComponent", ids["sequence"], members=members)

    (row,) = await api.query("select members.name from SequenceComponent")
    assert [member["name"] for member in row["members"]] == ["b", "c"]
    assert len(await api.query("FileComponent where container_id is none")) == 1


async def test_a_result_repeats_the_target_of_a_relation(api: Caller) -> None:
    """Clients use it as an entity, so it has type and key only, whatever else was sent."""
    container, member = await api.create("ContainerComponent"), await api.create("FileComponent")
    sent = {**ref("FileComponent", member["id"]), "name": "not so"}

    changed = await api.update("ContainerComponent", container["id"], members=[sent])
    job = await api.create("Job", user={"id": (await api.query("User limit 1"))[0]["id"]})
    cleared = await api.update("Job", job["id"], user=None)

    assert changed["members"] == [ref("FileComponent", member["id"])]
    assert job["user"]["__entity_type__"] == "User"
    assert cleared["user"] is None


async def test_metadata_that_drops_out_is_deleted(api: Caller) -> None:
    component = await api.create("FileComponent")
    await api.create(
        "Metadata", parent_id=component["id"], parent_type="FileComponent", key="k", value="v"
    )

    await api.update("FileComponent", component["id"], metadata=[])

    assert await api.query("Metadata") == []


async def test_a_typed_context_is_of_the_type_its_object_type_says(api: Caller) -> None:
    (shot,) = await api.query("select object_type_id, project_id from Shot limit 1")

    made = await api.create(
        "TypedContext",
        name="sh020",
        object_type_id=shot["object_type_id"],
        parent=ref("Shot", shot["id"]),
    )

    assert made["__entity_type__"] == "Shot"
    assert made["project_id"] == shot["project_id"]


async def test_a_subtype_is_changed_through_its_supertype_only(api: Caller) -> None:
    component = await api.create("FileComponent")

    await api.update("Component", component["id"], name="new")
    error = await api.refused(update("SequenceComponent", component["id"], name="newer"))

    assert error["exception"] == "EntityNotFoundError"


@pytest.mark.parametrize(
    ("operation", "content"),
    [
        ({"action": "dance"}, "Invalid action u'dance'"),
        ({}, "must name its 'action'"),
        ({"action": []}, "must name its 'action'"),
        ({"action": "parse_query"}, "does not support 'parse_query'"),
        ({"action": "query"}, "needs an 'expression'"),
        ({"action": "query", "expression": 5}, "needs an 'expression'"),
        ({"action": "create"}, "no 'entity_type'"),
        ({"action": "create", "entity_type": "Jbo"}, "did you mean 'Job'"),
        ({"action": "create", "entity_type": "Job", "entity_data": []}, "must be an object"),
        ("query", "must be an object"),
    ],
)
async def test_malformed_operations_are_refused(api: Caller, operation: Any, content: str) -> None:
    assert content in (await api.refused(operation))["content"]


async def test_an_empty_batch_has_an_empty_response(api: Caller) -> None:
    assert await api.call() == []


async def test_a_refused_query_undoes_the_writes_before_it(api: Caller) -> None:
    await api.refused(create("Job"), query("Job where"))

    assert await api.query("Job") == []


async def test_what_went_along_may_be_deleted_again_in_the_same_batch(api: Caller) -> None:
    job_id, component_id = new_id(), new_id()
    await api.call(
        create("Job", id=job_id),
        create("FileComponent", id=component_id),
        create("JobComponent", job_id=job_id, component_id=component_id),
    )

    await api.call(delete("Job", job_id), delete("JobComponent", component_id, job_id))

    assert await api.query("JobComponent") == []


async def test_a_username_is_one_users(api: Caller) -> None:
    user = await api.create("User", username="ada")

    created = await api.refused(create("User", username="ada"))
    renamed = await api.refused(update("User", user["id"], username="maya"))
    await api.update("User", user["id"], username="ada", first_name="Ada")

    assert created["exception"] == renamed["exception"] == "DuplicateEntryError"


async def test_versions_are_numbered_and_the_latest_is_marked(api: Caller) -> None:
    await api.call(*(create("Asset", id=key, name=key) for key in ("a", "b")))

    async def versions() -> list[tuple[str, int, bool]]:
        rows = await api.query(
            "select version, is_latest_version from AssetVersion where asset_id in (a, b)"
        )
        return [(row["id"], row["version"], row["is_latest_version"]) for row in rows]

    for key, data in {"a1": {}, "a2": {}, "a7": {"version": 7}, "a8": {}}.items():
        await api.call(create("AssetVersion", id=key, asset_id="a", **data))
    await api.call(create("AssetVersion", id="b1", asset={"__entity_type__": "Asset", "id": "b"}))
    assert await versions() == [
        ("a1", 1, False),
        ("a2", 2, False),
        ("a7", 7, False),
        ("a8", 8, True),
        ("b1", 1, True),
    ]

    await api.call(
        update("AssetVersion", "a8", asset_id="b"),
        update("AssetVersion", "a2", is_latest_version=False),
        delete("AssetVersion", "a7"),
    )
    assert await versions() == [
        ("a1", 1, False),
        ("a2", 2, True),
        ("a8", 8, True),
        ("b1", 1, False),
    ]
