"""Entities for the example queries of the docs/protocol.md, section 4.10."""

from __future__ import annotations

from typing import Any

SERVER = "3a372bde-05bc-11e4-8908-20c9d081909b"
REVIEW = "cd41be70-8809-11e3-b98a-20c9d081909b"


def create(name: str, /, **data: Any) -> dict[str, Any]:
    return {"action": "create", "entity_type": name, "entity_data": data}


def at(moment: str) -> dict[str, str]:
    return {"__type__": "datetime", "value": moment}


def appointment(key: str, context: str, resource: str, kind: str) -> dict[str, Any]:
    return create("Appointment", id=key, context_id=context, resource_id=resource, type=kind)


def metadata(parent: str, parent_type: str, key: str, value: str) -> dict[str, Any]:
    return create("Metadata", parent_id=parent, parent_type=parent_type, key=key, value=value)


def note(key: str, parent: str, **more: Any) -> dict[str, Any]:
    return create(
        "Note", id=key, parent_id=parent, parent_type="Task", **{"user_id": "bob", **more}
    )


PEOPLE = [
    create("User", id="bob", username="bob", first_name="Zoe", last_name="Doe"),
    create("User", id="jane", username="jane", first_name="Jane", last_name="Doe"),
    create("User", id="john", username="john_doe", first_name="John", last_name="Roe"),
    create("Group", id="artists", name="artists"),
    create("Membership", id="m", group_id="artists", user_id="john"),
]
CONTEXTS = [
    create("Status", id="omitted", name="Omitted", sort=9, is_active=True, color="#000"),
    create("Status", id="alike", name="Alike", sort=9, is_active=True),
    create("Priority", id="low", name="Low", sort=7),
    create("Priority", id="urgent", name="Urgent", sort=8),
    *[
        create(
            "Project",
            id=key,
            name=name,
            full_name=full_name,
            status=status,
            project_schema={"__entity_type__": "ProjectSchema", "id": "schema"},
        )
        for key, name, full_name, status in (
            ("got", "game_of_thrones", "The Game", "active"),
            ("old", "old_thrones", "An old one", "hidden"),
            ("p", "p", "Second thrones", "active"),
        )
    ],
    metadata("got", "Project", "some_key", "some_value"),
    metadata("p", "Project", "some_key", "other"),
    metadata("p", "Project", "other", "some_value"),
    metadata("bob", "User", "k", "some_value"),
    metadata("jane", "User", "k", "other"),
    create("Sequence", id="sq", name="sq", parent_id="p"),
    create("Sequence", id="sq2", name="sq", parent_id="got"),
    metadata("sq", "Sequence", "frame_padding", "4"),
    metadata("sq2", "Sequence", "frame_padding", "5"),
    create("Shot", id="sh", name="sh", parent_id="sq"),
    create("Shot", id="sh2", name="sh", parent_id="sq2"),
    create("Shot", id="c", name="c", parent_id="sq2"),
    create("Task", id="comp", name="comp", parent_id="sh", priority_id="low", bid=0.5),
    create("Task", id="anim", name="bar_foo_foobar", parent_id="sh", priority_id="urgent", bid=11),
    create("Task", id="left", name="left", parent_id="sh", status_id="omitted"),
    appointment("a1", "comp", "bob", "assignment"),
    appointment("a2", "anim", "bob", "assignment"),
    appointment("a3", "left", "bob", "assignment"),
    appointment("a4", "anim", "jane", "allocation"),
    appointment("a5", "got", "artists", "allocation"),
    appointment("a6", "p", "artists", "assignment"),
    *[
        create(
            "Timelog", id=f"log-{task}", context_id=task, user_id=user, start=at(start), duration=60
        )
        for task, user, start in (
            ("comp", "bob", "2026-03-01T10:00:00"),
            ("anim", "jane", "2025-03-01T10:00:00"),
        )
    ],
    create("Timer", id="timer", user_id="bob", start=at("2026-03-01T10:00:00")),
    create("Timer", id="timer2", user_id="jane", start=at("2026-03-01T10:00:00")),
]
CUSTOM = [
    create("CustomAttributeType", id="text", name="text"),
    create(
        "CustomAttributeConfiguration",
        id="conf",
        key="my_text_field",
        entity_type="task",
        type_id="text",
        config="{}",
    ),
    create(
        "CustomAttributeConfiguration",
        id="fps",
        key="fps",
        entity_type="show",
        is_hierarchical=True,
        config="{}",
    ),
    create(
        "CustomAttributeConfiguration",
        id="of-versions",
        key="note",
        entity_type="AssetVersion",
        config="{}",
    ),
    create("CustomAttributeValue", configuration_id="conf", entity_id="anim", value="bar"),
    create("ContextCustomAttributeValue", configuration_id="conf", entity_id="comp", value="foo"),
    create(
        "CustomAttributeLinkConfiguration",
        id="supervisor",
        key="supervisor",
        entity_type="task",
        entity_type_to="user",
        config="{}",
    ),
    create(
        "CustomAttributeLink", id="l1", configuration_id="supervisor", from_id="anim", to_id="jane"
    ),
    create(
        "CustomAttributeLink", id="l2", configuration_id="supervisor", from_id="comp", to_id="bob"
    ),
]
#: For the one example that comes from another client's tests: four tasks below a sequence, and
#: four beside a task of a certain name, of which it finds the last three by name.
NESTED = [
    create("Sequence", id="baz", name="baz", parent_id="old"),
    create("Shot", id="in-baz", name="blip", parent_id="baz"),
    create("Sequence", id="not-baz", name="zab", parent_id="old"),
    create("Shot", id="blah", name="blah", parent_id="not-baz"),
    create("Shot", id="blip", name="blip", parent_id="not-baz"),
    create("Task", id="fuz", name="fuz", parent_id="blah"),
    create("Task", id="fuz-elsewhere", name="fuz", parent_id="blip"),
    *[
        create(
            "Task", id=f"{parent}-{n}", name=f"bar{n}{parent}-foobar-foo", parent_id=parent, bid=bid
        )
        for parent in ("in-baz", "blah", "blip")
        for n, bid in enumerate((11, 12, 13, 14, 10))
    ],
]
PUBLISHED = [
    create("Asset", id="asset", name="n", context_id="sh"),
    create("Asset", id="asset2", name="n", context_id="sh2"),
    create("Asset", id="asset-c", name="n", context_id="c"),
    create("Asset", id="1", name="50 %abc% done", context_id="c"),
    create("AssetVersion", id="v", asset_id="asset", version=5),
    create("AssetVersion", id="v2", asset_id="asset", version=6),
    create("AssetVersion", id="v3", version=7),
    create("AssetVersion", id="a", version=5),
    create("AssetVersion", id="b", version=5),
    create(
        "ReviewSession",
        id="review",
        name="r",
        project_id="p",
        start_date=at("2026-03-01"),
        end_date=at("2026-04-01"),
    ),
    create(
        "ReviewSessionObject",
        id="shown",
        review_session_id="review",
        version_id="v",
        name="x",
        description="y",
        version="1",
    ),
    note("n-may", "x", date=at("2018-05-15T10:00:00")),
    note("n-old", "x", date=at("1969-05-15T10:00:00")),
    note("n-jane", "x", user_id="jane"),
    note("n-a", "a", thread_activity=at("2020-01-01T00:00:00")),
    note("n-b", "b", thread_activity=at("2021-01-01T00:00:00")),
    note("n-r", "a", in_reply_to_id="n-a"),
    note("n-v", "v"),
    note("n-o", "shown"),
]
FILES = [
    create("FileComponent", id="c1", name="b", file_type=".txt", version_id="v", size=3),
    create("FileComponent", id="c2", name="a", file_type=".txt", version_id="v", size=4),
    create("FileComponent", id="c3", name="a", version_id="v2"),
    create("FileComponent", id="c4", name="a", version_id="a"),
    create("FileComponent", id="c5", name="a", version_id="b"),
    create("FileComponent", id="c6", name="a", version_id="b"),
    create("Job", id="j1", user_id="bob", data='{"k": "value"}'),
    create("Job", id="j2", user_id="jane", status="running", data="50 %abc% done"),
    create("Job", id="j3", status="done"),
    create("Job", id="zz", user_id="jane", data="..."),
    create("Job", id="abc", user_id="jane", status="failed"),
    create("Job", id="123", user_id="jane", status="failed"),
    create("JobComponent", job_id="j1", component_id="c1"),
    create("JobComponent", job_id="j1", component_id="c2"),
    create("JobComponent", job_id="j2", component_id="c1"),
    create("ComponentLocation", id="cl1", component_id="c1", location_id=SERVER),
    create("ComponentLocation", id="cl2", component_id="c2", location_id=REVIEW),
    create("ComponentLocation", id="cl3", component_id="c3", location_id=SERVER),
    create("ComponentLocation", id="cl4", component_id="c4", location_id=SERVER),
    create("ComponentLocation", id="cl5", component_id="c5", location_id=REVIEW),
    create("Setting", name="storage_scenario", group="elsewhere", value="x"),
]


ENTITIES = [
    create("ProjectSchema", id="schema", name="Own"),
    *PEOPLE,
    *CONTEXTS,
    *NESTED,
    *CUSTOM,
    *PUBLISHED,
    *FILES,
]
