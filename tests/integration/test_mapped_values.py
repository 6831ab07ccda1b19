"""Metadata and custom attributes as dictionaries, with the official client beside this one."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from aioftrackjobs import (
    AsyncSession,
    Entity,
    InvalidValueError,
    NotLoadedError,
    ServerError,
    UnknownAttributeError,
    job_context,
)

if TYPE_CHECKING:
    from tests.integration.conftest import Official

CHOICES = json.dumps([{"menu": "A", "value": "a"}, {"menu": "B", "value": "b"}])
ENUMERATOR = {"multiSelect": False, "data": CHOICES}

#: Custom attributes of shots: key, type, default, configuration.
ATTRIBUTES: list[tuple[str, str, object, dict[str, object]]] = [
    ("fstart", "number", 1001, {"isdecimal": False}),
    ("due", "date", None, {}),
    ("final", "boolean", False, {}),
    ("look", "enumerator", "a", ENUMERATOR),
    ("note", "text", "-", {}),
]


@pytest.fixture
async def shot(session: AsyncSession) -> Entity:
    """A shot of a server with custom attributes, one of which is inherited."""
    types = {each["name"]: each for each in await session.query("CustomAttributeType").all()}
    shot = await session.query("select name, object_type_id, parent.name from Shot").first()
    assert shot is not None
    for key, kind, default, config in ATTRIBUTES:
        values = {"key": key, "type": types[kind], "default": default}
        place = {"entity_type": "task", "object_type_id": shot["object_type_id"]}
        more = {"label": key, "config": json.dumps(config)}
        session.create("CustomAttributeConfiguration", {**values, **place, **more})
    values = {"key": "fps", "type": types["number"], "default": 24, "is_hierarchical": True}
    more = {"label": "fps", "config": "{}", "entity_type": "show"}
    session.create("CustomAttributeConfiguration", {**values, **more})
    await session.commit()
    return shot


async def their_values(official: Official, shot: Entity, name: str) -> dict[str, Any]:
    """Return a map of values as the official client reads it."""

    def read(theirs: Any) -> dict[str, Any]:
        return dict(theirs.get("Shot", shot["id"])[name])

    return await official.run(read)


async def test_what_one_client_writes_in_metadata_the_other_reads(
    session: AsyncSession, shot: Entity, official: Official
) -> None:
    def write(theirs: Any) -> None:
        found = theirs.get("Shot", shot["id"])
        found["metadata"]["theirs"] = "1"
        found["metadata"]["gone"] = "2"
        theirs.commit()

    await official.run(write)
    await session.populate(shot, "metadata")
    assert dict(shot["metadata"]) == {"theirs": "1", "gone": "2"}

    shot["metadata"]["ours"] = "3"
    shot["metadata"]["theirs"] = "4"
    del shot["metadata"]["gone"]
    assert shot["metadata"] == {"theirs": "4", "ours": "3"}
    await session.commit()

    assert shot["metadata"] == {"theirs": "4", "ours": "3"}
    assert await their_values(official, shot, "metadata") == {"theirs": "4", "ours": "3"}


async def test_what_one_client_writes_in_custom_attributes_the_other_reads(
    session: AsyncSession, shot: Entity, official: Official
) -> None:
    def write(theirs: Any) -> None:
        found = theirs.get("Shot", shot["id"])
        found["custom_attributes"]["fstart"] = 1042
        found["custom_attributes"]["final"] = True
        theirs.commit()

    await official.run(write)
    await session.populate(shot, "custom_attributes")
    ours = shot["custom_attributes"]
    assert dict(ours) == {
        "fstart": 1042,
        "due": None,
        "final": True,
        "look": ["a"],
        "note": "-",
        "fps": 24,
    }

    ours.update(due=date(2026, 1, 31), look="b", note="x")
    del ours["fstart"]
    await session.commit()

    theirs = await their_values(official, shot, "custom_attributes")
    assert (theirs["look"], theirs["note"], theirs["fstart"]) == (["b"], "x", None)
    assert theirs["due"].date() == date(2026, 1, 31)
    assert ours["due"] == datetime(2026, 1, 31, tzinfo=UTC)


async def test_an_entity_is_created_with_its_values_in_one_commit(
    session: AsyncSession, shot: Entity, official: Official
) -> None:
    with pytest.raises(NotLoadedError, match="custom_attributes"):
        session.create("Shot", {"name": "early", "custom_attributes": {"fstart": 1}})
    assert session.recorded_operations == ()

    known = await session.custom_attributes()
    made = session.create(
        "Shot",
        {
            "name": "sh999",
            "parent": shot["parent"],
            "metadata": {"a": "1"},
            "custom_attributes": {"fstart": 7, "look": "b"},
        },
    )
    made["metadata"]["b"] = "2"
    assert dict(made["metadata"]) == {"a": "1", "b": "2"}
    assert made["custom_attributes"]["fstart"] == 7
    await session.commit()

    assert {each.key for each in known} >= {"fstart", "fps"}
    assert made["custom_attributes"]["look"] == ["b"]
    assert await their_values(official, made, "metadata") == {"a": "1", "b": "2"}
    theirs = await their_values(official, made, "custom_attributes")
    assert (theirs["fstart"], theirs["look"]) == (7, ["b"])


async def test_a_hierarchical_value_is_that_of_the_nearest_entity_above(
    session: AsyncSession, other: AsyncSession, shot: Entity
) -> None:
    project = await session.query("Project").first()
    assert project is not None
    await session.populate([project, shot["parent"]], "custom_attributes")
    project["custom_attributes"]["fps"] = 25
    await session.commit()

    query = f"select name, custom_attributes from Shot where id is {shot['id']}"
    assert (await other.query(query).one())["custom_attributes"]["fps"] == 25
    shot["parent"]["custom_attributes"]["fps"] = 48
    await session.commit()
    (found,) = await other.query(query).all()
    assert found["custom_attributes"]["fps"] == 48
    async for found in other.query(query):
        found["custom_attributes"]["fps"] = 50
    await other.commit()
    await session.populate(shot, ["custom_attributes"])
    assert shot["custom_attributes"]["fps"] == 50
    task = await other.query("select custom_attributes from Task where parent.id is {id}",
                             id=shot["id"]).first()  # fmt: skip
    assert task is not None
    assert task["custom_attributes"] == {"fps": 50}


async def test_inherited_values_that_are_not_loaded_are_not_taken_for_the_default(
    session: AsyncSession, shot: Entity
) -> None:
    await session.custom_attributes()
    made = session.create("Shot", {"name": "sh999", "parent": shot["parent"]})

    assert made["custom_attributes"]["fstart"] == 1001
    with pytest.raises(NotLoadedError, match="populate"):
        made["custom_attributes"]["fps"]
    assert "not loaded" in repr(made["custom_attributes"])


WRONG: list[tuple[str, object, str]] = [
    ("fstart", "x", "a number, as its type is number"),
    ("fstart", 1.5, "a whole number"),
    ("fstart", True, "a number"),
    ("final", 1, "True or False"),
    ("due", "soon", "a date"),
    ("look", "c", "one of 'a', 'b'"),
    ("look", ["a", "b"], "one value"),
    ("look", [1], "a list of texts"),
    ("note", 5, "a text"),
]


async def test_a_wrong_value_is_refused_with_the_type_and_the_choices(
    session: AsyncSession, shot: Entity
) -> None:
    await session.populate(shot, "custom_attributes")

    for key, value, hint in WRONG:
        with pytest.raises(InvalidValueError, match=hint):
            shot["custom_attributes"].update({"note": "y", key: value})

    assert session.recorded_operations == ()
    with pytest.raises(UnknownAttributeError, match=r"fstat.*Did you mean 'fstart'"):
        shot["custom_attributes"]["fstat"] = 5
    assert "fstat" not in shot["custom_attributes"]
    assert shot["custom_attributes"].get("fstat", 3) == 3


async def test_metadata_can_be_assigned_as_a_whole(session: AsyncSession, shot: Entity) -> None:
    await session.populate(shot, "metadata")
    shot["metadata"] = {"a": "1", "b": "2"}
    await session.commit()

    shot["metadata"] = {"b": "3", "c": "4"}
    shot["metadata"] |= {"d": "5"}
    with pytest.raises(InvalidValueError, match=r"json\.dumps"):
        shot.update({"name": "sh011", "metadata": {"e": 6}})
    for wrong in ({"": "x"}, {5: "x"}):
        with pytest.raises(InvalidValueError, match="key"):
            shot["metadata"] = wrong
    shot.update({"name": "sh012", "metadata": {"b": "3", "c": "4", "d": "5"}})
    await session.commit()

    await session.populate(shot, "name, metadata")
    assert (shot["name"], shot["metadata"]) == ("sh012", {"b": "3", "c": "4", "d": "5"})
    assert repr(shot["metadata"]) == "{'b': '3', 'c': '4', 'd': '5'}"
    assert shot["metadata"] != {"b": "3"}


async def test_a_rollback_takes_values_back(session: AsyncSession, shot: Entity) -> None:
    await session.populate(shot, "metadata, custom_attributes")
    shot["metadata"]["kept"] = "1"
    await session.commit()
    shot["metadata"]["dropped"] = "2"
    shot["custom_attributes"]["fstart"] = 5
    del shot["metadata"]["kept"]

    session.rollback()

    assert dict(shot["metadata"]) == {"kept": "1"}
    assert shot["custom_attributes"]["fstart"] == 1001


async def test_a_key_can_be_deleted_and_set_again(session: AsyncSession, shot: Entity) -> None:
    await session.populate(shot, "metadata")
    shot["metadata"]["a"] = "1"
    await session.commit()
    del shot["metadata"]["a"]
    await session.commit()
    assert "a" not in shot["metadata"]
    shot["metadata"]["a"] = "2"
    await session.commit()

    await session.populate(shot, "metadata")
    assert dict(shot["metadata"]) == {"a": "2"}


async def test_two_tasks_add_keys_without_losing_those_of_each_other(
    session: AsyncSession, other: AsyncSession, shot: Entity
) -> None:
    theirs = await other.query(f"select metadata from Shot where id is {shot['id']}").one()
    await session.populate(shot, "metadata")

    async def add(connected: AsyncSession, entity: Entity, key: str) -> None:
        entity["metadata"][key] = key
        await connected.commit()

    async with anyio.create_task_group() as group:
        for number in range(4):
            group.start_soon(add, session, shot, f"a{number}")
            group.start_soon(add, other, theirs, f"b{number}")

    await session.populate(shot, "metadata")
    assert sorted(shot["metadata"]) == [f"{kind}{number}" for kind in "ab" for number in range(4)]


async def test_an_attachment_has_metadata(
    session: AsyncSession, other: AsyncSession, shot: Entity
) -> None:
    async with job_context(session, description="render") as job:
        file = await job.attach(b"frames", name="x.txt", data={"metadata": {"take": "3"}})

    found = await other.query("select metadata from FileComponent where id is {i}", i=file.id).one()
    assert dict(found["metadata"]) == {"take": "3"}
    assert dict(file["metadata"]) == {"take": "3"}


async def test_values_that_no_query_has_brought_are_not_loaded(
    session: AsyncSession, shot: Entity
) -> None:
    with pytest.raises(NotLoadedError, match=r"populate\(shot, \"metadata\"\)"):
        shot["metadata"]
    with pytest.raises(NotLoadedError, match="metadata"):
        shot["metadata"] = {"a": "1"}
    query = f"select name, metadata.key, parent.metadata from Shot where id is {shot['id']}"
    found = await session.query(query).one()
    assert dict(found["metadata"]) == dict(found["parent"]["metadata"]) == {}


async def test_a_refused_commit_keeps_the_values_for_the_next_one(
    session: AsyncSession, shot: Entity
) -> None:
    await session.populate(shot, "metadata")
    shot["metadata"]["a"] = "1"
    user = session.create("User", {"username": session.api_user})
    with pytest.raises(ServerError):
        await session.commit()
    assert dict(shot["metadata"]) == {"a": "1"}
    session.delete(user)
    await session.commit()

    await session.populate(shot, "metadata")
    assert dict(shot["metadata"]) == {"a": "1"}
