"""Mapped collections, written as the official client writes them, and relations of all kinds."""

from __future__ import annotations

from typing import Any

import pytest

from .caller import Caller, delete, query, update


def create(name: str, /, **data: Any) -> dict[str, Any]:
    return {"action": "create", "entity_type": name, "entity_data": data}


def key_of(name: str, **key: str) -> dict[str, str]:
    return {"__entity_type__": name, **key}


@pytest.fixture
async def task(api: Caller) -> str:
    """A task below a shot below a sequence below a project of its own."""
    (schema,) = await api.query("ProjectSchema limit 1")
    parts = [
        create("Project", id="p", name="p", project_schema_id=schema["id"]),
        create("Sequence", id="q", name="q", parent_id="p"),
        create("Shot", id="h", name="h", parent_id="q"),
        create("Task", id="t", name="t", parent_id="h"),
    ]
    configurations = [
        create(
            "CustomAttributeConfiguration",
            id=f"c-{key}",
            key=key,
            entity_type="task",
            config="{}",
            default="none",
        )
        for key in ("fps", "note")
    ]
    await api.call(*parts, *configurations)
    return "t"


async def metadata_of(api: Caller, task: str) -> dict[str, str]:
    (row,) = await api.query(f"select metadata.key, metadata.value from Task where id is {task}")
    return {each["key"]: each["value"] for each in row["metadata"]}


async def values_of(api: Caller, key: str, entity_type: str = "Task") -> dict[str, Any]:
    (row,) = await api.query(
        "select custom_attributes.key, custom_attributes.value "
        f"from {entity_type} where id is {key}"
    )
    return {each["key"]: each["value"] for each in row["custom_attributes"]}


async def test_metadata_is_replaced_by_the_list_of_its_references(api: Caller, task: str) -> None:
    """Protocol reference, section 3.4."""
    entries = [
        create("Metadata", parent_id=task, parent_type="Task", key=key, value=value)
        for key, value in (("a", "1"), ("b", "2"))
    ]
    references = [key_of("Metadata", parent_id=task, key=key) for key in "ab"]
    await api.call(*entries, update("Task", task, metadata=references))
    assert await metadata_of(api, task) == {"a": "1", "b": "2"}

    await api.call(
        update("Metadata", task, "a", value="3"),
        update("Task", task, metadata=references[:1]),
        delete("Metadata", task, "b"),
    )
    assert await metadata_of(api, task) == {"a": "3"}


async def test_custom_attributes_are_created_generally_and_read_specifically(
    api: Caller, task: str
) -> None:
    """The official client creates a CustomAttributeValue for any kind of entity."""
    value = create("CustomAttributeValue", configuration_id="c-fps", entity_id=task, value=25)
    reference = key_of("CustomAttributeValue", configuration_id="c-fps", entity_id=task)
    await api.call(value, update("Task", task, custom_attributes=[reference]))

    (row,) = await api.query(f"select custom_attributes from Task where id is {task}")
    assert {
        "__entity_type__": "ContextCustomAttributeValue",
        "configuration_id": "c-fps",
        "entity_id": task,
        "key": "fps",
        "value": 25,
    } in row["custom_attributes"]
    assert await values_of(api, task) == {"fps": 25, "note": "none"}
    assert await api.query("UserCustomAttributeValue") == []
    assert [row["id"] for row in await api.query("Task where custom_attributes.value > 24")] == [
        task
    ]


async def test_custom_attributes_are_changed_and_start_again(api: Caller, task: str) -> None:
    key = ("c-fps", task)
    await api.create("ContextCustomAttributeValue", configuration_id=key[0], entity_id=task)

    await api.update("CustomAttributeValue", *key, value="x")
    changed = await values_of(api, task)
    await api.update("Task", task, custom_attributes=[])
    dropped = await values_of(api, task)
    await api.update("CustomAttributeValue", *key, value="x")
    await api.call(delete("CustomAttributeValue", *key))

    assert changed == {"fps": "x", "note": "none"}
    assert dropped == await values_of(api, task) == {"fps": "none", "note": "none"}


@pytest.mark.parametrize("last", ["configuration", "entity"])
@pytest.mark.parametrize(
    ("kind", "entity_type", "data"),
    [
        ("task", "Shot", {"name": "n", "parent_id": "p"}),
        ("show", "Project", {"name": "n", "project_schema_id": "s"}),
        ("user", "User", {"username": "n", "is_active": True}),
        ("asset", "Asset", {"name": "n", "context_id": "h"}),
        ("assetversion", "AssetVersion", {"asset_id": "a"}),
    ],
)
async def test_entities_have_a_value_of_each_custom_attribute_that_is_for_them(
    api: Caller, task: str, last: str, kind: str, entity_type: str, data: dict[str, Any]
) -> None:
    await api.call(
        create("ProjectSchema", id="s", name="s"), create("Asset", id="a", context_id=task)
    )
    shot, other = "bad911de-3bd6-47b9-8b46-3476e237cb36", "11c137c0-ee7e-4f9c-91c5-8c77cec22b2c"
    is_task, is_user, is_show = (kind == each for each in ("task", "user", "show"))
    meant: dict[str, dict[str, Any]] = {
        "own": {"object_type_id": shot if is_task else None},
        "in-project": {"project_id": None if is_user else "new" if is_show else "p"},
        "elsewhere": {"project_id": "other"},
        "of-another-kind": {"entity_type": "show" if is_user else "user"},
        "of-another-type": {"object_type_id": other, "entity_type": "task"},
        "inherited": {"entity_type": "show", "is_hierarchical": True},
    }
    configurations = [
        create(
            "CustomAttributeConfiguration",
            **{"id": key, "key": key, "entity_type": kind, "config": "", "default": 7, **criteria},
        )
        for key, criteria in meant.items()
    ]
    entity = create(entity_type, id="new", **data)
    await api.call(*([entity, *configurations] if last == "configuration" else configurations))
    if last == "entity":
        await api.call(entity)

    values = await values_of(api, "new", entity_type)

    assert {key for key, value in values.items() if value == 7} == {"own", "in-project"}
    assert ("inherited" in values) is not is_user


async def test_a_hierarchical_value_is_that_of_its_entity_alone(api: Caller, task: str) -> None:
    """As documented: clients search for the first value upwards."""
    data = {"id": "c", "key": "c", "entity_type": "show", "config": "", "default": 7}
    await api.call(create("CustomAttributeConfiguration", **data, is_hierarchical=True))

    await api.call(update("CustomAttributeValue", "c", "h", value=24))

    assert (await values_of(api, "h", "Shot"))["c"] == 24
    assert (await values_of(api, task))["c"] is None


async def test_a_changed_default_is_for_new_entities(api: Caller, task: str) -> None:
    """As documented."""
    data = {"id": "c", "key": "c", "entity_type": "task", "config": "", "default": 7}
    await api.call(create("CustomAttributeConfiguration", **data))

    await api.update("CustomAttributeConfiguration", "c", default=8)

    await api.create("Task", id="new", name="new", parent_id="h")
    assert (await values_of(api, task))["c"] == 7
    assert (await values_of(api, "new"))["c"] == 8


async def test_values_come_with_what_makes_a_configuration_match(api: Caller, task: str) -> None:
    data = {"id": "c", "key": "c", "entity_type": "user", "config": ""}
    await api.call(create("CustomAttributeConfiguration", **data))
    assert "c" not in await values_of(api, task)

    change = update("CustomAttributeConfiguration", "c")
    await api.call({**change, "entity_data": {"entity_type": "task"}})

    assert "c" in await values_of(api, task)


async def test_values_may_be_of_any_kind(api: Caller, task: str) -> None:
    kinds = [True, False, ["a", "é"], [1, 2.5, True], [], "true", 1, 2.5, "", None]
    for value in kinds:
        sent = await api.update("ContextCustomAttributeValue", "c-fps", task, value=value)
        read = (await values_of(api, task))["fps"]
        assert (sent["value"], type(read)) == (value, type(value))
        assert read == value
    for value in ({"a": 1}, [["a"]], [None], [2**64]):
        error = await api.refused(update("CustomAttributeValue", "c-fps", task, value=value))
        assert error["exception"] == "ValidationError"


@pytest.mark.parametrize(
    ("value", "criterion", "found"),
    [
        (True, "value is true", True),
        (True, "value is False", False),
        (False, "value in (1, false)", True),
        ("true", 'value is "true"', True),
        (True, "value > 24", False),
        ("x", "value > 24", False),
        (25, "value > 24", True),
        ("q", 'value > "p"', True),
        (["a", "é"], 'value like "%é%"', True),
    ],
)
async def test_values_of_any_kind_are_found(
    api: Caller,
    task: str,
    value: Any,
    criterion: str,
    found: bool,
) -> None:
    await api.update("ContextCustomAttributeValue", "c-fps", task, value=value)

    rows = await api.query(f"Task where custom_attributes any (key is fps and {criterion})")

    assert [row["id"] for row in rows] == [task] * found


@pytest.mark.parametrize("first", ["value", "configuration"])
async def test_a_value_has_the_key_of_its_configuration(api: Caller, task: str, first: str) -> None:
    parts = [
        create("CustomAttributeValue", configuration_id="late", entity_id=task, value="v"),
        create("CustomAttributeConfiguration", id="late", key="old", entity_type="task", config=""),
    ]
    await api.call(*(parts if first == "value" else reversed(parts)))
    await api.update("CustomAttributeConfiguration", "late", key="new")

    (row,) = await api.query(
        "select key, value from ContextCustomAttributeValue "
        f"where configuration_id is late and entity_id is {task}"
    )

    assert (row["key"], row["value"]) == ("new", "v")


async def test_values_and_links_go_with_their_entities(api: Caller, task: str) -> None:
    (user,) = await api.query("User where username is maya")
    await api.call(
        create("CustomAttributeValue", configuration_id="c-fps", entity_id=task, value="v"),
        create(
            "CustomAttributeLinkConfiguration",
            id="c",
            key="lead",
            entity_type="task",
            entity_type_to="user",
            config="",
        ),
        create("CustomAttributeLink", configuration_id="c", from_id=task, to_id=user["id"]),
    )
    lead = "Task where custom_attribute_links any (configuration.key is lead and user.username is "
    assert len(await api.query(f"{lead}maya)")) == 1
    assert await api.query(f"{lead}jenkins)") == []
    assert len(await api.query("UserCustomAttributeLink")) == 1
    assert await api.query("ContextCustomAttributeLink") == []
    assert len(await api.query("ContextCustomAttributeLinkFrom")) == 1

    await api.call(delete("Task", task))

    assert await api.query(f"CustomAttributeValue where entity_id is {task}") == []
    assert await api.query("CustomAttributeLinkFrom") == []
    await api.call(delete("CustomAttributeConfiguration", "c-fps"))
    assert await api.query("CustomAttributeValue where configuration_id is c-fps") == []


async def test_links_cannot_be_selected(api: Caller) -> None:
    error = await api.refused(query("select custom_attribute_links from Task"))

    assert "cannot be selected" in error["content"]


async def test_labels_are_the_categories_of_notes(api: Caller) -> None:
    """Both types are documented to live in one table."""
    (user,) = await api.query("User where username is maya")
    await api.call(
        create("NoteCategory", id="client", name="Client feedback"),
        create("Note", id="n", user_id=user["id"], category_id="client"),
        create("NoteLabelLink", note_id="n", label_id="client"),
    )

    (note,) = await api.query(
        "select category.name, note_label_links.label.name from Note where "
        'note_label_links.label.name is "Client feedback"'
    )

    assert note["category"]["__entity_type__"] == "NoteCategory"
    (label,) = await api.query("NoteLabel where id is client")
    assert label == {"__entity_type__": "NoteLabel", "id": "client"}


@pytest.mark.usefixtures("task")
@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ('TypedContext where ancestors any (name is "q")', ["h", "t"]),
        ('TypedContext where descendants any (name is "t")', ["q", "h"]),
        ('Task where ancestors any (name is "t")', []),
        ("TypedContext where not ancestors any () and project_id is p", ["q"]),
        ("TypedContext where not descendants any () and project_id is p", ["t"]),
        ("Project where descendants any (name is t)", ["p"]),
    ],
)
async def test_ancestors_and_descendants_are_all_above_and_below(
    api: Caller, expression: str, found: list[str]
) -> None:
    rows = await api.query(f"select name from {expression}")

    assert [row["name"] for row in rows] == found


async def test_ancestors_can_be_selected(api: Caller, task: str) -> None:
    (found,) = await api.query(f"select ancestors.name from Task where id is {task}")
    (project,) = await api.query("select descendants.name from Project where id is p")

    assert [each["name"] for each in found["ancestors"]] == ["q", "h"]
    assert [each["name"] for each in project["descendants"]] == ["q", "h", "t"]


async def test_collections_hold_only_entities_of_their_type(api: Caller, task: str) -> None:
    """A status' tasks are Tasks, though shots have the same status."""
    await api.create("Status", id="s", name="own", is_active=True)
    await api.call(update("Task", task, status_id="s"), update("Shot", "h", status_id="s"))

    (row,) = await api.query("select tasks.name from Status where id is s")

    assert [each["name"] for each in row["tasks"]] == ["t"]
    assert await api.query('Status where tasks any (name is "h")') == []


async def test_attributes_of_subtypes_are_known_to_general_types(api: Caller) -> None:
    await api.create("SequenceComponent", name="frames", padding=4)

    (row,) = await api.query("select padding, name from Component where padding > 3")

    assert (row["name"], row["padding"]) == ("frames", 4)


async def test_a_custom_attribute_may_be_deleted_and_set_again_in_a_batch(api: Caller) -> None:
    """The same whether the configuration is for the entity or not, and however it is sent."""
    (shot,) = await api.query("select id from Shot limit 1")
    data = {"id": "fps", "key": "fps", "entity_type": "user", "config": "{}"}
    configuration = create("CustomAttributeConfiguration", **data)
    key = ["fps", shot["id"]]
    named = {"configuration_id": key[0], "entity_id": key[1]}

    await api.call(
        configuration,
        update("CustomAttributeValue", *key, value=2),
        create("CustomAttributeValue", **named, value=3),
        delete("CustomAttributeValue", *key),
        create("CustomAttributeValue", **named, value=4),
        update("ContextCustomAttributeValue", *key, value=5),
    )

    rows = await api.query(f'select value from CustomAttributeValue where entity_id is "{key[1]}"')
    assert [row["value"] for row in rows] == [5]
