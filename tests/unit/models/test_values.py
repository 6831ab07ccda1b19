"""Values that attributes cannot have are refused at once, wherever they enter."""

from __future__ import annotations

import copy
import pickle
import re
import rlcompleter
import uuid
import warnings
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pydantic
import pytest

import aioftrackjobs
from aioftrackjobs import (
    ArgumentError,
    AsyncSession,
    Component,
    Entity,
    EntityError,
    FileComponent,
    InvalidValueError,
    Job,
    JobComponent,
    JobStatus,
    Location,
    NotLoadedError,
    UnknownAttributeError,
    UnknownEntityTypeError,
    UnserialisableValueError,
    User,
)
from aioftrackjobs.models import RowPlan
from aioftrackjobs.models._values import MAPS

TASK = (
    "id",
    "name",
    "status",
    "status_id",
    "parent_id",
    "assignments",
    "metadata",
    "custom_attributes",
)
KEY = "k3y-0f-4-studi0"


class Owner:
    """An owner that hides a key, and has the schema of a task."""

    def record_update(self, entity: Entity, name: str, value: object) -> None: ...

    def record_reset(self, entity: Entity, name: str) -> None: ...

    def load_missing(self, entity: Any, name: str) -> None: ...

    def attributes_of(self, entity_type: str) -> tuple[str, ...]:
        return TASK if entity_type == "Task" else ()

    def relations_of(self, entity_type: str) -> frozenset[str]:
        return frozenset(("status", "assignments") if entity_type == "Task" else ())

    def mapping_of(self, entity: Any, name: str) -> Any:
        return None

    def redact(self, text: str) -> str:
        return text.replace(KEY, "***")

    def wait_for_job(self, job: Any, timeout: float | None, /) -> Awaitable[Any]:
        raise NotImplementedError

    def files_of(self, location: Any, /) -> Any:
        raise NotImplementedError

    def component_url(self, component_id: str, size: int | None = None) -> str:
        return component_id


class Task(Entity):
    entity_type: ClassVar[str] = "Task"


def loaded(model: type[Entity], **row: Any) -> Any:
    """Return an entity that a session owns, as it is decoded from a response."""
    plan = RowPlan(model)
    entity = plan.new_entity(Owner())
    plan.load(entity, row, lambda value: value)
    return entity


def by_hand(model: type[Entity], name: str, value: object) -> None:
    model(**{name: value})


def by_attribute(model: type[Entity], name: str, value: object) -> None:
    setattr(loaded(model, id="1"), name, value)


def by_item(model: type[Entity], name: str, value: object) -> None:
    loaded(model, id="1")[name] = value


def by_update(model: type[Entity], name: str, value: object) -> None:
    loaded(model, id="1").update({name: value})


def by_keyword_update(model: type[Entity], name: str, value: object) -> None:
    loaded(model, id="1").update(**{name: value})


def by_setdefault(model: type[Entity], name: str, value: object) -> None:
    loaded(model).setdefault(name, value)


def by_copy(model: type[Entity], name: str, value: object) -> None:
    loaded(model, id="1").model_copy(update={name: value})


def by_create(model: type[Entity], name: str, value: object) -> None:
    session = offline_session()
    session._context.create(model, {name: value}, unit=session._context.new_unit())


def by_unit_of_work(model: type[Entity], name: str, value: object) -> None:
    offline_session()._context.new_unit().set(loaded(model, id="1"), **{name: value})


def offline_session() -> AsyncSession:
    return AsyncSession("http://ftrack.test", KEY, "maya")


WAYS = (
    by_hand,
    by_attribute,
    by_item,
    by_update,
    by_keyword_update,
    by_setdefault,
    by_copy,
    by_create,
    by_unit_of_work,
)

WRONG: list[tuple[type[Entity], str, Any, str]] = [
    (Job, "status", "runing", "'running'"),
    (Job, "status", "", "'failed'"),
    (Job, "status", 5, "'done'"),
    (Job, "status", None, "'done'"),
    (Job, "status", ["running"], "'done'"),
    (Job, "type", "render", "'api_job'"),
    (Job, "user_id", 5, "valid string"),
    (Job, "user_id", ["u"], "valid string"),
    (Job, "user_id", User(id="u"), "an entity goes into the attribute 'user'"),
    (Job, "user", "maya", "User"),
    (Job, "user", {"username": "maya"}, "entity"),
    (Job, "user", 5, "User"),
    (Job, "data", 5, "valid string"),
    (Job, "data", ["a"], "valid string"),
    (Job, "created_at", "soon", "valid datetime"),
    (Job, "created_at", 1_700_000_000, "valid datetime"),
    (Job, "job_components", [{"component_id": "c"}], "entity"),
    (Job, "job_components", [1], "JobComponent"),
    (Job, "job_components", "c", "valid"),
    (User, "is_active", "perhaps", "True or False"),
    (User, "metadata", {"a": 1}, "Metadata"),
    (User, "custom_attributes", {"a": 1}, "entity"),
    (Component, "size", "big", "whole number"),
    (Component, "size", 1.5, "whole number"),
    (FileComponent, "metadata", {"a": 1}, "Metadata"),
    (FileComponent, "metadata", [{"key": "a", "value": 1}], "Metadata"),
    (FileComponent, "metadata", "a", "Metadata"),
    (FileComponent, "container", {"id": "1"}, "entity"),
    (Location, "name", 5, "valid string"),
    (Task, "metadata", {"a": 1}, "Metadata"),
    (Task, "custom_attributes", {"fstart": 1001}, "entity"),
    (Task, "parent", {"id": "1"}, "entity"),
    (Task, "parent_id", User(id="u"), "an entity goes into the attribute 'parent'"),
    (Task, "links", [{"id": "1"}], "entity"),
    (Task, "links", [["1"]], "entity"),
]


@pytest.mark.parametrize("way", WAYS)
def test_a_wrong_value_is_an_error_that_names_all_there_is_to_know(
    way: Callable[..., None],
) -> None:
    for model, attribute, value, hint in WRONG:
        if way is by_create and isinstance(value, dict) and attribute in MAPS:
            continue  # a session takes dictionaries there
        name = attribute
        if model is Task and way is not by_hand and name in ("parent", "links"):
            name = "status"  # the owner has the schema of the type
        case = f"{model.entity_type}.{attribute} = {value!r}"

        with pytest.raises(ValueError, match=re.escape(hint)) as caught:
            way(model, name, value)

        error, text = caught.value, str(caught.value)
        assert isinstance(error, InvalidValueError), case
        assert isinstance(error, EntityError), case
        assert (error.entity_type, error.attribute) == (model.entity_type, name), case
        assert text.startswith(f"{model.entity_type}.{name} cannot be "), case
        assert "pydantic" not in text, case
        # pydantic's error says the same with less.
        assert error.__cause__ is error.__context__ is None, case
        if isinstance(value, str | int | None):
            assert error.value == value, case
            assert repr(value) in text, case


def test_the_error_of_a_misspelt_status_has_the_allowed_ones_and_suggests_one() -> None:
    with pytest.raises(InvalidValueError) as caught:
        Job(status="runing")

    for error in (caught.value, pickle.loads(pickle.dumps(caught.value)), copy.copy(caught.value)):
        assert error.allowed == ("queued", "running", "done", "failed")
        assert str(error) == (
            "Job.status cannot be 'runing': it must be a JobStatus: 'queued', 'running', 'done' or "
            "'failed'. Did you mean 'running'?"
        )


def test_a_missing_value_is_an_error_that_says_so() -> None:
    class Render(Job):
        shot: str

    with pytest.raises(InvalidValueError) as caught:
        Render(status="queued")  # type: ignore[call-arg]

    assert str(caught.value) == (
        "Job.shot cannot be None: its class has no default, so that it must be given"
    )


@pytest.mark.parametrize(
    "value", [b"abc", bytearray(b"abc"), memoryview(b"abc")], ids=["bytes", "array", "view"]
)
@pytest.mark.parametrize("way", WAYS)
def test_bytes_are_no_text(way: Callable[..., None], value: object) -> None:
    for model, name in ((Job, "user_id"), (Job, "data"), (Job, "status"), (User, "username")):
        with pytest.raises(UnserialisableValueError, match=name):
            way(model, name, value)


@pytest.mark.parametrize("way", WAYS)
def test_a_path_is_no_text(way: Callable[..., None]) -> None:
    with pytest.raises(InvalidValueError, match="valid string"):
        way(Location, "description", Path("x"))


@pytest.mark.parametrize("way", WAYS[1:])
def test_a_misspelt_attribute_is_an_error_that_suggests_the_right_one(
    way: Callable[..., None],
) -> None:
    for model, name, right in ((Job, "staus", "status"), (User, "user_name", "username")):
        with pytest.raises(UnknownAttributeError, match=f"Did you mean '{right}'"):
            way(model, name, "x")


def test_a_misspelt_keyword_is_an_error_too() -> None:
    with pytest.raises(UnknownAttributeError, match="Did you mean 'status'"):
        Job(staus="running")


def test_reading_a_misspelt_attribute_suggests_the_right_one() -> None:
    job = loaded(Job, id="1", status="running")

    with pytest.raises(UnknownAttributeError, match="Did you mean 'status'"):
        job.staus  # noqa: B018
    with pytest.raises(UnknownAttributeError, match="Did you mean 'status'"):
        job["staus"]
    assert job.get("staus", 5) == 5
    assert not hasattr(job, "staus")


def test_relations_of_a_generic_type_are_entities_once_its_schema_is_known() -> None:
    task, status = loaded(Task, id="1"), loaded(Task, id="2")

    for value in ("2", 2, {"id": "2"}, ["2"], uuid.uuid4()):
        with pytest.raises(InvalidValueError, match=r"Task\.status cannot be"):
            task["status"] = value
    task["status"] = status
    task["status"] = None
    task["assignments"] = [status]
    task["assignments"] = []
    task["status_id"] = "2"
    with pytest.raises(UnknownAttributeError, match="Did you mean 'status_id'"):
        task["status_di"] = "2"


def test_an_update_is_made_as_a_whole_or_not_at_all() -> None:
    job = loaded(Job, id="1", status="queued")

    with pytest.raises(InvalidValueError):
        job.update({"user_id": "u"}, status="runing")
    assert dict(job) == {"id": "1", "status": "queued"}

    job.update([("user_id", "u")], status="running")
    assert (job.user_id, job.status) == ("u", JobStatus.RUNNING)


def test_a_uuid_object_is_an_id() -> None:
    key = uuid.uuid4()
    job = Job(id=key, user_id=key)

    assert (job.id, job.user_id) == (str(key), str(key))
    job["user_id"] = key
    job["id"] = key  # it is the same
    assert job.user_id == str(key)
    assert JobComponent(job_id=key, component_id=key).job_id == str(key)
    task = loaded(Task, id="1")
    task["status_id"] = key
    assert task["status_id"] == str(key)


def test_the_key_appears_in_no_error_and_no_repr() -> None:
    job = loaded(Job, id="1", status="running", data=f'{{"description": "with {KEY}"}}')
    session = offline_session()
    unit = session._context.new_unit()

    for act in (
        lambda: setattr(job, "status", KEY),
        lambda: session._context.create(Job, {"status": KEY}, unit=unit),
        lambda: unit.set(job, status=KEY),
        lambda: job.update(status=f"x{KEY}y"),
    ):
        with pytest.raises(InvalidValueError) as caught:
            act()
        assert KEY not in str(caught.value) + repr(caught.value) + repr(vars(caught.value))
    assert repr(job) == '<Job 1 running "with ***">'


def test_a_long_value_is_shortened() -> None:
    with pytest.raises(InvalidValueError) as caught:
        Job(status="x" * 10_000)

    assert len(str(caught.value)) < 250
    with pytest.raises(InvalidValueError):
        Component(size="9" * 10_000)
    with pytest.raises(InvalidValueError):
        Job(user_id=10**10_000)


def test_other_models_may_hold_entities_and_report_wrong_values_as_pydantic_does() -> None:
    class Reply(pydantic.BaseModel):
        job: Job

    with pytest.raises(pydantic.ValidationError, match=r"job\n.*Job\.status cannot be 'runing'"):
        Reply.model_validate({"job": {"status": "runing"}})

    job = Job(status="running", user=User(username="maya"))
    again = Reply.model_validate(Reply(job=job).model_dump()).job
    assert again == job
    assert dict(again)["user"]["username"] == "maya"
    assert "__entity_type__" not in again


# What people see of an entity


@pytest.mark.parametrize(
    ("entity", "text"),
    [
        (loaded(Job, id="4f2", status="running"), "<Job 4f2 running>"),
        (
            loaded(Job, id="4f2", status="running", data='{"description": "Render sh010"}'),
            '<Job 4f2 running "Render sh010">',
        ),
        (loaded(Job, id="4f2", status="paused", data="no JSON"), "<Job 4f2 paused>"),
        (loaded(Job, id="4f2", status=5, data=5), "<Job 4f2>"),
        (loaded(User, id="7", username="maya"), '<User 7 "maya">'),
        (loaded(FileComponent, id="7", name="plate"), '<FileComponent 7 "plate">'),
        (loaded(Location, id="7", name="ftrack.server"), '<Location 7 "ftrack.server">'),
        (loaded(JobComponent, job_id="j", component_id="c"), "<JobComponent c j>"),
        (loaded(Task, id="7", name="comp", status=loaded(Task, id="1", name="Approved")),
         '<Task 7 "Approved" "comp">'),
        (loaded(Task, id="7", content="two\nlines"), '<Task 7 "two lines">'),
        (loaded(Task, id=None), "<Task (no key)>"),
        (loaded(Job), "<Job (no key)>"),
        (Job.__new__(Job), "<Job>"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_the_repr_shows_what_people_know_an_entity_by(entity: Entity, text: str) -> None:
    assert repr(entity) == str(entity) == f"{entity}" == text


def test_the_repr_is_never_long() -> None:
    long = "word " * 100_000
    for entity in (
        loaded(Job, id=long, status=long, data=f'{{"description": "{long}"}}'),
        loaded(User, id=long, username=long),
        loaded(Task, id=long, name=long, status=loaded(Task, id=long, name=long)),
        loaded(JobComponent, job_id=long, component_id=long),
    ):
        assert len(repr(entity)) < 160
    job = loaded(Job, id="1", job_components=tuple(loaded(Task, id=str(n)) for n in range(500)))
    assert len(repr(job["job_components"])) < 160


def test_pydantics_own_representations_show_no_other_values() -> None:
    component = loaded(User, id="1", username="maya", thumbnail_url={"value": f"x?apiKey={KEY}"})

    assert KEY not in repr(list(component.__rich_repr__())) + repr(list(component.__repr_args__()))


@pytest.mark.parametrize("name", [5, None, b"status", ("status",)], ids=repr)
def test_the_name_of_an_attribute_is_a_text(name: Any) -> None:
    for entity in (loaded(Job, id="1"), loaded(Location, id="1"), Job(), Task(id="1")):
        acts: list[Callable[[], object]] = [
            partial(entity.__getitem__, name),
            partial(entity.setdefault, name),
            partial(entity.update, {name: 1}),
            partial(entity.__setitem__, name, 1),
            partial(entity.__delitem__, name),
        ]
        for act in acts:
            with pytest.raises(UnknownAttributeError):
                act()
        assert name not in entity
        assert entity.get(name, "default") == "default"


@pytest.mark.parametrize("text", [5, b"text", ["text"], {"a": 1}], ids=repr)
def test_a_description_is_a_text(text: Any) -> None:
    job = Job()

    with pytest.raises(InvalidValueError, match=r"Job\.description cannot be"):
        job.description = text
    job.description = None
    assert job.description is None


def test_what_is_no_entity_is_refused() -> None:
    job, location = Job(), Location(name="ftrack.server")
    unit = offline_session()._context.new_unit()
    acts: list[Callable[[], object]] = [
        lambda: job.merge("x"),  # type: ignore[arg-type]
        lambda: job.merge({"status": "done"}),  # type: ignore[arg-type]
        lambda: job.model_copy(update=[1]),  # type: ignore[arg-type]
        lambda: location.get_url(None),  # type: ignore[arg-type]
        lambda: location.get_url("id"),  # type: ignore[arg-type]
        lambda: unit.set("job", status="done"),  # type: ignore[arg-type]
    ]

    for act in acts:
        with pytest.raises(ArgumentError):
            act()


@pytest.mark.parametrize(
    ("name", "likely"),
    [("job", "Job"), ("jobs", "Job"), (" Job", "Job"), ("job component", "JobComponent"),
     ("users", "User"), ("note", "Note"), ("assetVersion", "AssetVersion")],
)  # fmt: skip
def test_a_misspelt_type_suggests_the_likely_one(name: str, likely: str) -> None:
    with pytest.raises(UnknownEntityTypeError, match=f"Did you mean '{likely}'"):
        offline_session()._context.model(name)


def test_completion_reads_all_names_without_a_warning() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for entity in (loaded(Job, id="1"), loaded(Task, id="1"), Job()):
            assert "primary_key_attributes" in dir(entity)
            for name in dir(entity):
                getattr(entity, name, None)
    assert [str(each.message) for each in caught] == []


def test_dir_lists_what_can_be_read() -> None:
    job = loaded(Job, id="1", status="running", priority=5)

    assert {"id", "status", "user", "data", "description", "priority", "get"} <= set(dir(job))
    assert {"name", "assignments"} <= set(dir(loaded(Task, id="1")))
    assert "stray" in dir(loaded(User, id="1", stray=1))
    found = rlcompleter.Completer({"job": job}).attr_matches("job.sta")
    assert [each for each in found if "status" in each] == ["job.status"]
    assert "status" in job._ipython_key_completions_()
    with pytest.raises(NotLoadedError):
        job.user  # noqa: B018


def test_every_typed_model_has_a_repr_without_values() -> None:
    for name in aioftrackjobs.__all__:
        model = getattr(aioftrackjobs, name)
        if isinstance(model, type) and issubclass(model, Entity) and model is not Entity:
            assert repr(model.__new__(model)) == f"<{model.entity_type}>"
            assert repr(loaded(model)).startswith(f"<{model.entity_type} ")
