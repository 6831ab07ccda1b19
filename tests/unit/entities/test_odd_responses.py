"""Malformed responses are decoded as far as possible, and refused with a clear error otherwise."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Awaitable, Sequence
from typing import Any, ClassVar

import pytest

from aioftrackjobs.entities.identity_map import IdentityMap, IncompleteRowError
from aioftrackjobs.errors import (
    EntityError,
    MalformedResponseError,
    UnknownEntityTypeError,
)
from aioftrackjobs.models import Entity, EntityTypes, Job, User, parse_job_data


class IgnoringOwner:
    """An owner that ignores all changes."""

    def record_update(self, entity: Entity, name: str, value: object) -> None: ...

    def record_reset(self, entity: Entity, name: str) -> None: ...

    def load_missing(self, entity: Any, name: str) -> None: ...

    def attributes_of(self, entity_type: str) -> tuple[str, ...]:
        return ()

    def relations_of(self, entity_type: str) -> frozenset[str]:
        return frozenset()

    def mapping_of(self, entity: Any, name: str) -> Any:
        return None

    def redact(self, text: str) -> str:
        return text.replace("SECRET", "***")

    def wait_for_job(self, job: Any, timeout: float | None, /) -> Awaitable[Any]:
        raise NotImplementedError

    def files_of(self, location: Any, /) -> Any:
        raise NotImplementedError

    def component_url(self, component_id: str, size: int | None = None) -> str:
        return component_id


class Task(Entity):
    entity_type: ClassVar[str] = "Task"

    name: str | None = None


class MyJob(Job):
    @property
    def shot(self) -> object:
        return parse_job_data(self["data"]).get("shot")


@pytest.fixture
def types() -> EntityTypes:
    return EntityTypes()


@pytest.fixture
def identity(types: EntityTypes) -> IdentityMap:
    return IdentityMap(types, IgnoringOwner())


def row(entity_type: str = "Job", **values: object) -> dict[str, object]:
    return {"__entity_type__": entity_type, **values}


def schema(entity_type: str, **changes: object) -> dict[str, object]:
    properties = {"id": {"type": "string"}, "name": {"type": "string"}}
    return {"id": entity_type, "primary_key": ["id"], "properties": properties, **changes}


def without(document: dict[str, object], name: str) -> dict[str, object]:
    return {key: value for key, value in document.items() if key != name}


# Rows


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param(row(status="done"), id="no id"),
        pytest.param(row(id=None), id="null"),
        pytest.param(row(id=["j"]), id="list"),
        pytest.param(row(id={}), id="mapping"),
        pytest.param(row("JobComponent", component_id="c", job_id=None), id="null in a key"),
        pytest.param(row("JobComponent", component_id="c", job_id=[]), id="list in a key"),
        pytest.param(row("a\0b", id="x"), id="NUL in the type"),
        pytest.param(row("\ud800", id="x"), id="lone surrogate as the type"),
        pytest.param(row("", id="x"), id="empty type"),
        pytest.param(row("a b", id="x"), id="two words as the type"),
    ],
)
def test_a_row_without_a_type_or_a_key_is_refused(
    identity: IdentityMap, odd: dict[str, object]
) -> None:
    with pytest.raises(IncompleteRowError):
        identity.decode([odd])


def test_an_integer_may_be_a_key(identity: IdentityMap) -> None:
    (event,) = identity.decode([row("Event", id=5)])

    assert event["id"] == 5


def test_a_row_that_could_not_be_decoded_leaves_no_entity(identity: IdentityMap) -> None:
    broken = row(id="j", status="done", user=row("User"))
    with pytest.raises(IncompleteRowError) as caught:
        identity.decode([broken])

    (job,) = identity.decode([row(id="j")])

    assert caught.value.__traceback__ is not None  # which holds a reference to the entity
    assert job["id"] == "j"


@pytest.mark.parametrize("names", [["a", "a"], ["a", "b"], ["a", "b", "a"], ["b", "a", "a"]])
def test_the_last_of_several_rows_of_an_entity_counts(
    identity: IdentityMap, names: list[str]
) -> None:
    rows = [{"__entity_type__": "Task", "id": "t", "name": name} for name in names]
    jobs = [
        {"__entity_type__": "Job", "id": str(number), "task": row}
        for number, row in enumerate(rows)
    ]

    found = identity.decode([{"__entity_type__": "Task", "id": "t", "name": "before"}, *jobs])

    assert {id(job["task"]) for job in found[1:]} == {id(found[0])}
    assert found[0]["name"] == names[-1]
    assert identity.decode(rows[0])["name"] == names[0], "a later response is newer"


def test_an_entity_that_is_gone_is_forgotten_and_its_successor_stays(
    identity: IdentityMap,
) -> None:
    row = {"__entity_type__": "Job", "id": "j", "user": {"__entity_type__": "User", "id": "u"}}
    first = identity.decode(row)
    gone = weakref.ref(first)
    del first
    gc.collect()
    assert gone() is None
    assert identity.find("Job", ["j"]) is None

    second = identity.decode(row)

    assert len(identity) == 2
    assert identity.find("Job", ["j"]) is second
    assert identity.decode(row) is second
    assert identity.keys_of("Job") == [("j",)]
    del second
    gc.collect()
    assert len(identity) == 0


def test_a_response_that_is_nested_too_deep_is_refused(identity: IdentityMap) -> None:
    nested: list[object] = []
    for _ in range(5000):
        nested = [nested]

    with pytest.raises(MalformedResponseError, match="nested too deep"):
        identity.decode(nested)


def test_an_impossible_time_stays_a_string(identity: IdentityMap) -> None:
    odd = {"__type__": "datetime", "value": "0001-01-01T00:00:00+05:00"}

    (job,) = identity.decode([row(id="j", created_at=odd)])

    assert job["created_at"] == odd


# Job data


@pytest.mark.parametrize(
    "data", ["[" * 200_000, '{"a":' * 200_000, f'{{"n": {"1" * 5000}}}'], ids=["[", "{", "digits"]
)
def test_data_that_cannot_be_parsed_is_treated_as_no_json(identity: IdentityMap, data: str) -> None:
    (job,) = identity.decode([row(id="j", data=data)])

    assert job.description is None


def test_numbers_that_json_does_not_allow_are_read_as_none(
    identity: IdentityMap,
) -> None:
    data = '{"nan": NaN, "low": -Infinity, "high": 1e999, "pi": 3.14}'
    (job,) = identity.decode([row(id="j", data=data)])

    job.description = "x"

    assert parse_job_data(job.data) == {
        "nan": None,
        "low": None,
        "high": None,
        "pi": 3.14,
        "description": "x",
    }


# Schemas


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(None, id="null"),
        pytest.param([], id="list"),
        pytest.param(without(schema("Shot"), "id"), id="no id"),
        pytest.param(schema("Shot", id=["Shot"]), id="list as id"),
        pytest.param(schema("a\0b"), id="NUL in the id"),
        pytest.param(without(schema("Shot"), "primary_key"), id="no key"),
        pytest.param(schema("Shot", primary_key=[]), id="empty key"),
        pytest.param(schema("Shot", primary_key="id"), id="text as key"),
        pytest.param(schema("Shot", primary_key=[["id"]]), id="nested key"),
        pytest.param(schema("Shot", properties=["id"]), id="list of properties"),
        pytest.param(schema("Shot", properties={"id": True}), id="odd property"),
        pytest.param(schema("Shot", computed={"id": 1}), id="mapping of computed"),
    ],
)
def test_a_malformed_schema_is_refused_and_changes_nothing(
    types: EntityTypes, document: object
) -> None:
    types.load_schemas([schema("Task")])

    with pytest.raises(MalformedResponseError):
        types.load_schemas([schema("Task", primary_key=["code"]), document])

    assert types.model("Task").primary_key_attributes == ("id",)
    with pytest.raises(UnknownEntityTypeError):
        types.model("Shot")


def test_a_property_of_several_types_is_not_a_scalar(types: EntityTypes) -> None:
    properties = {"id": {"type": "string"}, "any": {"type": ["string", "null"]}}

    types.load_schemas([schema("Task", properties=properties)])

    assert types.default_projections("Task") == ("id",)
    assert types.attributes_of("Task") == ("id", "any")


# Types that came later


def test_rows_of_a_type_that_is_missing_in_the_schemas_are_decoded(
    types: EntityTypes, identity: IdentityMap
) -> None:
    types.load_schemas([schema("Task")])

    entry, link = identity.decode(
        [row("Wormhole", id="w", depth=3), row("NoteComponent", component_id="c", note_id="n")]
    )

    assert (type(entry).__name__, entry["depth"]) == ("Wormhole", 3)
    assert link.primary_key_attributes == ("component_id", "note_id")
    with pytest.raises(UnknownEntityTypeError):
        types.model("Wormhole")


# A user's own classes


def test_a_users_class_is_the_class_of_its_type_from_then_on(identity: IdentityMap) -> None:
    (before,) = identity.decode([row("Task", id="a", name="anim")])

    assert identity.model(Task) is Task
    (known, new) = identity.decode([row("Task", id="a"), row("Task", id="b")])

    assert identity.model("Task") is Task
    assert before is known
    assert isinstance(known, Task)
    assert isinstance(new, Task)
    assert known.name == "anim"


def test_a_users_class_may_derive_from_a_typed_one(identity: IdentityMap) -> None:
    identity.model(MyJob)
    (job,) = identity.decode([row(id="j", data='{"shot": "sh010"}')])

    assert isinstance(job, MyJob)
    assert job.shot == "sh010"
    assert identity.model(Job) is MyJob


def test_a_users_class_is_known_to_one_session_only(identity: IdentityMap) -> None:
    identity.model(MyJob)

    assert EntityTypes().model("Job") is Job


def test_a_users_class_loads_the_plain_values_of_its_type(types: EntityTypes) -> None:
    class Narrow(Task):
        default_projections: ClassVar[tuple[str, ...]] = ("id",)

    types.load_schemas([schema("Task")])
    types.register(Task)
    assert types.default_projections("Task") == ("id", "name")

    types.register(Narrow)
    assert types.default_projections("Task") == ("id",)


def _refused(types: EntityTypes) -> Sequence[tuple[type[Entity], str]]:
    class Nameless(Entity):
        pass

    class OtherTask(Entity):
        entity_type: ClassVar[str] = "Task"

    class OtherUser(Entity):
        entity_type: ClassVar[str] = "User"

    class Metadata(Entity):
        entity_type: ClassVar[str] = "Metadata"

    types.register(Task)
    return [
        (Entity, "Entity has no entity type"),
        (Nameless, "Nameless has no entity type"),
        (OtherTask, "Task is: derive it from that"),
        (OtherUser, "models._job.User is: derive"),
        (Metadata, r"primary_key_attributes: .* = \('parent_id', 'key'\)"),
    ]


@pytest.mark.parametrize("number", range(5))
def test_a_class_that_cannot_be_the_class_of_its_type_is_refused(
    types: EntityTypes, identity: IdentityMap, number: int
) -> None:
    model, reason = _refused(types)[number]

    with pytest.raises(EntityError, match=reason):
        identity.model(model)


def test_a_users_class_of_an_unknown_type_is_refused(types: EntityTypes) -> None:
    types.load_schemas([schema("Shot")])

    with pytest.raises(UnknownEntityTypeError, match="Task"):
        types.register(Task)


def test_an_entity_without_an_entity_type_cannot_be_made() -> None:
    user = User(id="u")

    with pytest.raises(EntityError, match="has no entity type"):
        Entity(id="x")
    with pytest.raises(EntityError, match="has no entity type"):
        user["thumbnail"] = {"id": "x"}


def make_generic(types: EntityTypes, **values: Any) -> Entity:
    return types.model("Shot")(**values)


def test_a_generic_entity_can_be_made(types: EntityTypes) -> None:
    assert make_generic(types, id="s", name="sh010")["name"] == "sh010"
