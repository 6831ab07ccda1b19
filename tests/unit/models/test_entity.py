"""Entities: a mapping with remote and local values apart, and a pydantic model."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from datetime import UTC, date, datetime, timedelta, timezone
from enum import Enum
from typing import Any, ClassVar
from uuid import UUID

import arrow
import pydantic
import pytest

from aioftrackjobs.errors import (
    ImmutableAttributeError,
    InvalidKeyError,
    NotLoadedError,
    UnknownAttributeError,
    UnserialisableValueError,
    UnsupportedLocationError,
)
from aioftrackjobs.models import (
    Collection,
    Component,
    Entity,
    EntityTypes,
    FileComponent,
    Job,
    JobComponent,
    JobStatus,
    Location,
    RowPlan,
    User,
)
from aioftrackjobs.protocol.operations import NOT_SET


class Book:
    """An owner that records the changes that are reported to it."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Any]] = []

    def record_update(self, entity: Entity, name: str, value: object) -> None:
        self.heard.append((name, value))

    def record_reset(self, entity: Entity, name: str) -> object:
        self.heard.append((name, "reset"))
        return NOT_SET

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
        return f"https://ftrack.test/{component_id}"


def loaded(model: type[Entity], owner: Book | None = None, **row: Any) -> Any:
    """Return an entity as it is decoded from a response."""
    plan = RowPlan(model)
    entity = plan.new_entity(owner)
    plan.load(entity, row, lambda value: value)
    return entity


@pytest.fixture
def book() -> Book:
    return Book()


@pytest.fixture
def job(book: Book) -> Job:
    made: Job = loaded(Job, book, id="j1", status="running", data='{"description": "x", "kept": 1}')
    return made


# Mapping


def test_an_entity_is_a_pydantic_model_and_a_mutable_mapping(job: Job) -> None:
    assert isinstance(job, pydantic.BaseModel)
    assert isinstance(job, MutableMapping)


def test_items_and_attributes_are_the_same(job: Job) -> None:
    job.status = JobStatus.FAILED
    assert job["status"] == "failed"

    job["status"] = "done"

    assert dict(job)["status"] is job["status"] is JobStatus.DONE


def test_keys_items_and_values_are_the_loaded_ones(job: Job) -> None:
    assert list(job) == list(job.keys()) == ["id", "status", "data"]
    assert dict(job.items())["id"] == "j1"
    assert list(job.values())[1] == "running"
    assert len(job) == 3
    assert "status" in job
    assert "user" not in job


def test_local_values_are_read_first_and_dropped_by_clear(job: Job, book: Book) -> None:
    job["status"] = "done"
    job["user_id"] = "u"

    job.clear()

    assert job["status"] == "running"
    assert "user_id" not in job
    assert book.heard[-2:] == [("status", "reset"), ("user_id", "reset")]


def test_deleting_an_item_takes_back_the_local_change_only(job: Job) -> None:
    job["status"] = "done"

    del job["status"]
    del job["status"]

    assert job["status"] == "running"


def test_pop_returns_the_value_and_takes_back_the_change(job: Job) -> None:
    job["status"] = "done"

    assert job.pop("status") == "done"
    assert job["status"] == "running"
    assert job.pop("nonsense", "default") == "default"


@pytest.mark.parametrize(
    "use", [lambda job: job.pop("user", None), lambda job: job.setdefault("user", None)]
)
def test_an_attribute_that_is_not_loaded_is_neither_popped_nor_overwritten(
    job: Job, book: Book, use: Callable[[Job], object]
) -> None:
    with pytest.raises(NotLoadedError, match="user"):
        use(job)

    assert book.heard == []


def test_unknown_attributes_are_popped_with_a_default_only(job: Job) -> None:
    assert job.pop("nonsense", default=None) is None
    with pytest.raises(UnknownAttributeError):
        job.pop("nonsense")
    with pytest.raises(UnknownAttributeError):
        job.setdefault("nonsense", 1)


def test_setdefault_sets_a_missing_attribute_of_a_new_entity() -> None:
    job = Job()

    assert job.setdefault("data", "{}") == "{}"
    assert job.setdefault("data", "other") == job.data == "{}"
    with pytest.raises(UnknownAttributeError):
        job.setdefault("nonsense", 1)


@pytest.mark.parametrize(
    "use",
    [
        lambda entity: entity.pop("id"),
        lambda entity: entity.pop("id", None),
        lambda entity: entity.__delitem__("id"),
        lambda entity: delattr(entity, "id"),
    ],
    ids=["pop", "pop with a default", "del", "delattr"],
)
@pytest.mark.parametrize("make", [lambda: Job(id="j"), lambda: loaded(Job, id="j")])
def test_the_key_cannot_be_deleted(use: Callable[[Job], object], make: Callable[[], Job]) -> None:
    job = make()

    with pytest.raises(ImmutableAttributeError):
        use(job)

    assert job.id == "j"


def test_clear_and_popitem_leave_the_key_of_a_new_entity() -> None:
    job, link = Job(id="j", data="{}"), JobComponent(component_id="c", job_id="j")

    assert job.popitem() == ("data", "{}")
    job.clear()

    assert dict(job) == {"id": "j"}
    with pytest.raises(KeyError, match="no local change"):
        job.popitem()
    link.clear()
    assert dict(link) == {"component_id": "c", "job_id": "j"}


def test_popitem_takes_back_the_latest_change(job: Job) -> None:
    job["status"] = "done"
    job["user_id"] = "u"

    assert job.popitem() == ("user_id", "u")
    assert job.popitem() == ("status", "done")
    with pytest.raises(KeyError):
        job.popitem()


def test_update_and_setdefault_record_what_they_change(job: Job, book: Book) -> None:
    job.update({"status": "done"}, user_id="u")
    assert job.setdefault("user_id", "other") == "u"

    assert book.heard == [("status", "done"), ("user_id", "u")]


def test_get_returns_the_default_only_for_unknown_attributes(job: Job) -> None:
    assert job.get("status") == "running"
    assert job.get("nonsense", 5) == 5
    with pytest.raises(NotLoadedError):
        job.get("user", None)


def test_reading_an_attribute_that_is_not_loaded_says_how_to_load_it(job: Job) -> None:
    with pytest.raises(NotLoadedError, match=r'await session\.populate\(job, "user"\)') as caught:
        _ = job["user"]

    assert (caught.value.entity_type, caught.value.attribute) == ("Job", "user")
    with pytest.raises(NotLoadedError):
        _ = job.user


@pytest.mark.parametrize("access", ["read", "write"])
def test_an_unknown_attribute_suggests_a_similar_one(job: Job, book: Book, access: str) -> None:
    with pytest.raises(UnknownAttributeError, match="'status'"):
        if access == "read":
            _ = job["statsu"]
        else:
            job["statsu"] = "done"
    assert book.heard == []


def test_the_key_cannot_be_changed(job: Job, book: Book) -> None:
    with pytest.raises(ImmutableAttributeError):
        job["id"] = "other"
    job["id"] = "j1"  # what it is already


def test_an_invalid_value_is_refused_before_anything_is_recorded(job: Job, book: Book) -> None:
    with pytest.raises(ValueError, match="JobStatus"):
        job["status"] = "paused"
    with pytest.raises(ValueError, match="valid string"):
        job["user_id"] = 5

    assert book.heard == []
    assert job["status"] == "running"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("status", ["x"]),
        ("data", [1]),
        ("user", [1]),
        ("job_components", ["x"]),
        ("job_components", [User(id="u")]),
        ("user", JobComponent(component_id="c", job_id="j")),
        ("user_id", [User(id="u")]),
    ],
)
def test_lists_are_validated(job: Job, book: Book, name: str, value: object) -> None:
    with pytest.raises(ValueError, match=name):
        job[name] = value

    assert book.heard == []


def test_collections_of_typed_and_generic_entities_may_be_set(book: Book) -> None:
    task = EntityTypes().model("Task")(id="t")
    one, other = loaded(User, book, id="a", assignments=(task,)), loaded(User, book, id="b")

    other["assignments"] = one["assignments"]
    other.timelogs = [task]
    task["users"] = [one]

    assert book.heard == [("assignments", (task,)), ("timelogs", (task,))]
    assert list(task["users"]) == [one]


def test_an_entity_without_loaded_attributes_is_true() -> None:
    assert loaded(Job)


# Identity


@pytest.mark.parametrize("model", ["Job", "JobComponent", "User", "FileComponent", "Location"])
def test_a_users_class_needs_no_imports_for_inherited_fields(model: str) -> None:
    lines = (
        f"from aioftrackjobs import {model}",
        f"class Own({model}): pass",
        "own = Own(**dict.fromkeys(Own.primary_key_attributes, '1'))",
        "own[Own.primary_key_attributes[0]] = '1'",
    )
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_frozen_field_of_a_users_class_stays_as_it_is(book: Book) -> None:
    class Shot(Entity):
        entity_type: ClassVar[str] = "Shot"
        code: str = pydantic.Field("sh010", frozen=True)
        name: str = ""

    shot = loaded(Shot, book, id="1", code="sh020")
    with pytest.raises(ValueError, match="frozen"):
        shot["code"] = "sh030"
    shot["name"] = "new"

    assert shot["code"] == "sh020"
    assert book.heard == [("name", "new")]


def test_entities_are_equal_by_type_and_key() -> None:
    one, same = loaded(Job, id="a", status="done"), loaded(Job, id="a")
    other, user = loaded(Job, id="b"), loaded(User, id="a")

    assert one == same
    assert hash(one) == hash(same)
    assert one != other
    assert one != user
    assert one != "a"
    assert len({one, same, other, user}) == 3


def test_an_entity_without_a_key_equals_only_itself() -> None:
    one, other = loaded(JobComponent), loaded(JobComponent)

    assert one == one
    assert one != other
    with pytest.raises(InvalidKeyError):
        one.__ftrack_reference__()


def test_repr_shows_the_key_the_status_and_the_text(job: Job) -> None:
    assert repr(job) == str(job) == '<Job j1 running "x">'


# Merge


def test_merge_copies_remote_and_local_values_and_returns_the_changes(book: Book) -> None:
    target = loaded(Job, book, id="j", status="queued")
    source = loaded(Job, id="j", status="running", user_id="u")
    source["data"] = "{}"

    changes = target.merge(source)

    assert changes == [
        {
            "type": "remote_attribute",
            "name": "status",
            "old_value": "queued",
            "new_value": "running",
        },
        {"type": "remote_attribute", "name": "user_id", "old_value": None, "new_value": "u"},
        {"type": "local_attribute", "name": "data", "old_value": None, "new_value": "{}"},
    ]
    assert target["status"] == "running"
    assert book.heard == [("data", "{}")]
    assert target.merge(source) == []


# Typed models


def test_an_entity_that_merges_a_key_has_a_new_reference() -> None:
    blank = loaded(Job, id="1")
    assert blank.__ftrack_reference__().key == (("id", "1"),)

    blank.merge(loaded(Job, id="2"))

    assert blank.id == "2"
    assert blank.__ftrack_reference__().key == (("id", "2"),)


def test_a_job_of_another_type_is_refused() -> None:
    with pytest.raises(ValueError, match="api_job"):
        Job(type="sync_job")


def test_a_new_job_has_the_defaults_of_the_schema_and_an_id() -> None:
    job = Job(user_id="u")

    assert (job.type, job.status) == ("api_job", JobStatus.QUEUED)
    assert len(job.id) == 36
    assert Job().id != Job().id
    assert "data" not in job


def test_an_unknown_status_of_the_server_stays_a_string() -> None:
    assert loaded(Job, id="j", status="paused").status == "paused"
    assert loaded(Job, id="j", status=None).status is None


@pytest.mark.parametrize(
    "data", ["", "not json", "[1]", '"text"', "null", None, "{", '{"description": 5}']
)
def test_malformed_data_has_no_description(data: str | None) -> None:
    assert loaded(Job, id="j", data=data).description is None


def test_the_description_reads_and_writes_its_key_and_keeps_the_others(job: Job) -> None:
    assert job.description == "x"

    job.description = "new"

    assert json.loads(job["data"]) == {"description": "new", "kept": 1}


def test_the_description_cannot_be_set_over_data_that_is_not_loaded(book: Book) -> None:
    job = loaded(Job, book, id="j")

    with pytest.raises(NotLoadedError):
        job.description = "x"
    assert book.heard == []


def test_the_description_of_a_job_without_its_data_is_not_loaded() -> None:
    with pytest.raises(NotLoadedError, match='"data"'):
        _ = loaded(Job, id="j").description


def test_a_new_job_without_data_has_no_description() -> None:
    assert Job().description is None


def test_a_property_of_a_users_class_raises_the_error_of_the_missing_attribute() -> None:
    class Shot(Entity):
        entity_type: ClassVar[str] = "Shot"

        @property
        def label(self) -> str:
            return f"shot {self['name']}"

    with pytest.raises(NotLoadedError) as caught:
        _ = loaded(Shot, id="s").label

    assert caught.value.attribute == "name"


@pytest.mark.parametrize("year", [1, 9999])
def test_a_time_that_cannot_be_converted_to_utc_is_refused(job: Job, book: Book, year: int) -> None:
    edge = datetime.min if year == 1 else datetime.max

    with pytest.raises(ValueError, match="no time in UTC"):
        job["finished_at"] = edge.replace(tzinfo=timezone(timedelta(hours=5 if year == 1 else -5)))

    assert book.heard == []


def test_a_mapping_as_data_becomes_json_text() -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)

    job = Job(data={"description": "ü", "at": moment})

    assert job.data == '{"description": "ü", "at": "2026-01-01T00:00:00+00:00"}'


def test_data_that_json_cannot_hold_is_named_by_its_path(job: Job) -> None:
    with pytest.raises(UnserialisableValueError) as caught:
        job["data"] = {"frames": [{"paths": {1, 2}}]}

    assert caught.value.path == "Job.data.frames[0].paths"


def test_a_time_without_a_time_zone_is_refused() -> None:
    job = Job()

    with pytest.raises(ValueError, match="has no time zone"):
        job["finished_at"] = datetime(2026, 1, 1)
    with pytest.raises(ValueError, match="has no time zone"):
        job["finished_at"] = "2026-01-01T00:00:00"
    assert "finished_at" not in job


class Shoot(Entity):
    """An entity type without declared attributes."""

    entity_type: ClassVar[str] = "Shoot"


def test_a_date_counts_from_midnight_in_utc() -> None:
    for day in (date(2026, 1, 2), "2026-01-02"):
        assert Job(finished_at=day).finished_at == datetime(2026, 1, 2, tzinfo=UTC)


class Choice(Enum):
    RUNNING = "running"


def test_members_of_any_enumeration_stand_for_their_value() -> None:
    assert Job(status=Choice.RUNNING).status is JobStatus.RUNNING
    assert Shoot(id="x", status=Choice.RUNNING)["status"] == "running"


@pytest.mark.parametrize("model", [Job, Shoot])
@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(datetime(2026, 1, 1, 1, 2, 3, 999_999, UTC), id="microseconds"),
        pytest.param(arrow.get("2026-01-01T03:02:03.5+02:00"), id="arrow"),
    ],
)
def test_times_are_kept_in_whole_seconds_as_the_server_stores_them(
    model: type[Entity], moment: object
) -> None:
    entity = model(id="x", finished_at=moment)
    other = model(id="y")
    other["finished_at"] = moment

    assert entity["finished_at"] == other["finished_at"] == datetime(2026, 1, 1, 1, 2, 3, 0, UTC)


def test_ids_may_be_uuids() -> None:
    job = Job(id=UUID(int=1), user_id=UUID(int=2))

    assert (job.id, job.user_id) == (str(UUID(int=1)), str(UUID(int=2)))


def test_subtypes_are_components() -> None:
    assert issubclass(FileComponent, Component)
    assert FileComponent.entity_type == "FileComponent"


def test_attributes_beyond_the_model_are_kept() -> None:
    job = loaded(Job, id="j", priority_of_a_newer_server=3)

    assert job["priority_of_a_newer_server"] == 3
    assert job.priority_of_a_newer_server == 3


def test_only_the_server_location_has_urls(book: Book) -> None:
    component = loaded(FileComponent, book, id="c1")
    server = loaded(Location, book, id="3a372bde-05bc-11e4-8908-20c9d081909b")

    assert server.get_url(component) == "https://ftrack.test/c1"
    with pytest.raises(UnsupportedLocationError):
        loaded(Location, book, id="other").get_url(component)


# Generic entities


def test_generic_entities_have_the_key_of_their_type_on_real_servers() -> None:
    types = EntityTypes()

    assert types.model("Task").primary_key_attributes == ("id",)
    assert types.model("Metadata").primary_key_attributes == ("parent_id", "key")
    assert types.model("Task") is types.model("Task")
    assert types.model("Task").__name__ == "Task"


def test_a_server_attribute_named_like_a_method_is_read_as_an_item() -> None:
    entity = loaded(EntityTypes().model("AssetVersionList"), id="l", items="theirs")

    assert entity["items"] == "theirs"
    assert dict(entity.items()) == {"id": "l", "items": "theirs"}


# Collections


def test_a_collection_records_the_whole_new_list(book: Book) -> None:
    links = tuple(loaded(JobComponent, component_id=name, job_id="j") for name in "abc")
    job = loaded(Job, book, id="j", job_components=links)
    view = job["job_components"]

    view.append(links[0])
    del view[1]
    view[0] = links[2]
    view.insert(0, links[1])

    assert isinstance(view, Collection)
    assert [link["component_id"] for link in view] == ["b", "c", "c", "a"]
    assert view == job["job_components"] == list(view)
    assert view[1:] == [links[2], links[2], links[0]]
    assert [len(value) for _, value in book.heard] == [4, 3, 3, 4]
    job.clear()
    assert view == links


def _extended(job: Job, items: list[JobComponent]) -> None:
    job["job_components"].extend(iter(items))


def _added(job: Job, items: list[JobComponent]) -> None:
    job["job_components"] += items


def _added_to_the_attribute(job: Job, items: list[JobComponent]) -> None:
    assert job.job_components is not None
    job.job_components += items


def _doubled(job: Job, items: list[JobComponent]) -> None:
    job["job_components"] = items
    job["job_components"].extend(job["job_components"])


def _reversed(job: Job, _: list[JobComponent]) -> None:
    job["job_components"].reverse()


def _cleared(job: Job, _: list[JobComponent]) -> None:
    job["job_components"].clear()


def _removed(job: Job, _: list[JobComponent]) -> None:
    job["job_components"].remove(job["job_components"][1])


def _popped(job: Job, _: list[JobComponent]) -> None:
    job["job_components"].pop()


@pytest.mark.parametrize(
    ("change", "after", "updates"),
    [
        pytest.param(_extended, "abcxy", 1, id="extend"),
        pytest.param(_added, "abcxy", 1, id="+= on an item"),
        pytest.param(_added_to_the_attribute, "abcxy", 1, id="+= on an attribute"),
        pytest.param(_doubled, "xyxy", 2, id="extend by itself"),
        pytest.param(_reversed, "cba", 1, id="reverse"),
        pytest.param(_cleared, "", 1, id="clear"),
        pytest.param(_removed, "ac", 1, id="remove"),
        pytest.param(_popped, "ab", 1, id="pop"),
    ],
)
def test_one_change_of_a_collection_is_one_update(
    book: Book, change: Callable[[Job, list[JobComponent]], None], after: str, updates: int
) -> None:
    links = {name: JobComponent(component_id=name, job_id="j") for name in "abcxy"}
    job = loaded(Job, book, id="j", job_components=tuple(links[name] for name in "abc"))

    change(job, [links["x"], links["y"]])

    assert "".join(link["component_id"] for link in job["job_components"]) == after
    assert len(book.heard) == updates
    assert book.heard[-1] == ("job_components", tuple(links[name] for name in after))


def test_an_empty_collection_is_falsy_and_not_missing() -> None:
    job = loaded(Job, id="j", job_components=())

    assert not job["job_components"]
    assert repr(job["job_components"]) == "[]"


# pydantic


def test_dumping_ends_cycles_with_a_reference() -> None:
    user = loaded(User, id="u", username="maya")
    job = loaded(Job, id="j", status="done", user=user)
    RowPlan(User).load(user, {"assignments": (job,)}, lambda value: value)

    assert job.model_dump() == {
        "__entity_type__": "Job",
        "id": "j",
        "status": "done",
        "user": {
            "__entity_type__": "User",
            "id": "u",
            "username": "maya",
            "assignments": [{"__entity_type__": "Job", "id": "j"}],
        },
    }
    assert json.loads(job.model_dump_json())["user"]["username"] == "maya"


def test_a_copy_is_detached(job: Job, book: Book) -> None:
    double = copy.copy(job)

    double["status"] = "done"

    assert double == job
    assert job["status"] == "running"
    assert book.heard == []


def test_a_copy_may_have_other_values(job: Job, book: Book) -> None:
    double = job.model_copy(update={"id": "j2", "status": "done"})

    assert (double.id, dict(double)["status"], double.description) == ("j2", JobStatus.DONE, "x")
    assert job.status == "running"
    assert job.model_copy(deep=True) == job
    assert book.heard == []
    with pytest.raises(ValueError, match="JobStatus"):
        job.model_copy(update={"status": "paused"})


def test_a_pickled_entity_comes_back_detached_with_its_values(book: Book) -> None:
    user = loaded(User, book, id="u", username="maya")
    job = loaded(Job, book, id="j", status="running", user=user)
    RowPlan(User).load(user, {"timelogs": (job,)}, lambda value: value)
    job["status"] = "done"
    book.heard.clear()

    again = pickle.loads(pickle.dumps(job))
    again["status"] = "failed"

    assert type(again) is Job
    assert again == job
    assert dict(again)["user"].username == "maya"
    assert dict(again)["user"]["timelogs"][0] is again
    del again["status"]
    assert again["status"] == "running"
    assert book.heard == []


def test_a_pickled_generic_entity_keeps_its_type_and_key() -> None:
    entry = loaded(EntityTypes().model("Metadata"), parent_id="p", key="k", value="v")

    again = pickle.loads(pickle.dumps(entry))

    assert again == entry
    assert (type(again).__name__, again["value"]) == ("Metadata", "v")
    assert again.__ftrack_reference__() == entry.__ftrack_reference__()


def test_a_constructed_entity_is_detached_and_usable() -> None:
    job = Job.model_construct(status="paused", job_components=[])

    assert (job.status, job.type, len(job.id)) == ("paused", "api_job", 36)
    assert isinstance(job["job_components"], Collection)
    assert "data" not in job
    job["status"] = "done"
    assert job.status == "done"


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        pytest.param({"include": {"id", "status"}}, ["id", "status"], id="include"),
        pytest.param({"include": {"id": True}}, ["id"], id="include as a mapping"),
        pytest.param({"exclude": {"data"}}, ["__entity_type__", "id", "status"], id="exclude"),
        pytest.param(
            {"exclude": {"data": True, "status": {"x"}}},
            ["__entity_type__", "id", "status"],
            id="exclude as a mapping",
        ),
        pytest.param({"include": {"id", "data"}, "exclude": {"data"}}, ["id"], id="both"),
        pytest.param({"include": set()}, [], id="nothing"),
    ],
)
def test_dumps_include_and_exclude_attributes(
    job: Job, choice: dict[str, Any], names: list[str]
) -> None:
    assert list(job.model_dump(**choice)) == names
    assert list(json.loads(job.model_dump_json(**choice))) == names


def test_dumps_inside_another_model_include_and_exclude_attributes(job: Job) -> None:
    class Reply(pydantic.BaseModel):
        jobs: list[Job]

    dumped = Reply(jobs=[job]).model_dump(exclude={"jobs": {"__all__": {"data"}}})

    assert dumped == {"jobs": [{"__entity_type__": "Job", "id": "j1", "status": "running"}]}
