"""Malformed responses, types that a server has added since, and the users' own classes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any, ClassVar

import httpx
import pytest
import respx

from aioftrackjobs import (
    AsyncSession,
    Entity,
    EntityError,
    FtrackJobsError,
    Job,
    MalformedResponseError,
    UnknownAttributeError,
    UnknownEntityTypeError,
)

URL = "http://ftrack.test"
API = f"{URL}/api"

TASK: dict[str, Any] = {
    "id": "Task",
    "primary_key": ["id"],
    "properties": {"id": {"type": "string"}, "name": {"type": "string"}, "parent_id": {}},
}


class Task(Entity):
    entity_type: ClassVar[str] = "Task"

    name: str | None = None

    @property
    def label(self) -> str:
        return f"task {self.name}"


@pytest.fixture
async def session() -> AsyncIterator[AsyncSession]:
    async with AsyncSession(URL, "SECRET-KEY", "maya") as opened:
        yield opened


def responding(
    *rows: object, schemas: object = (TASK,), **changes: object
) -> Callable[[httpx.Request], httpx.Response]:
    """Return a server that responds to each query with *rows*, and applies every change."""

    def respond(request: httpx.Request) -> httpx.Response:
        results: list[object] = []
        for operation in json.loads(request.content):
            match operation["action"]:
                case "query":
                    results.append({"action": "query", "data": rows, "metadata": None, **changes})
                case "query_schemas":
                    results.append(schemas)
                case action:
                    data = {"id": operation["entity_key"][0], **operation.get("entity_data", {})}
                    results.append({"action": action, "data": data})
        return httpx.Response(200, json=results)

    return respond


# Pages


@pytest.mark.parametrize(
    "metadata",
    [[1], "next", {"next": "x"}, {"next": [1]}, {"next": {"offset": "500"}}, {"next": 5}],
    ids=str,
)
async def test_a_page_without_a_valid_next_offset_is_an_error(
    session: AsyncSession, respx_mock: respx.MockRouter, metadata: object
) -> None:
    row = {"__entity_type__": "Job", "id": "j"}
    respx_mock.post(API).mock(side_effect=responding(row, metadata=metadata))

    with pytest.raises(MalformedResponseError, match="which page follows"):
        await session.query("Job").all()


@pytest.mark.parametrize(
    "metadata", [None, {}, [], {"next": None}, {"next": {}}, {"next": {"offset": None}}], ids=str
)
async def test_several_forms_of_metadata_mark_the_last_page(
    session: AsyncSession, respx_mock: respx.MockRouter, metadata: object
) -> None:
    row = {"__entity_type__": "Job", "id": "j"}
    respx_mock.post(API).mock(side_effect=responding(row, metadata=metadata))

    assert len(await session.query("Job").all()) == 1


# Rows


@pytest.mark.parametrize(
    "row",
    [
        {"__entity_type__": "Job"},
        {"__entity_type__": "Job", "id": None},
        {"__entity_type__": "Job", "id": ["j"]},
        {"__entity_type__": "Job", "id": {}},
        {"__entity_type__": "Job", "id": "j", "user": {"__entity_type__": "User"}},
        {"__entity_type__": "a\0b", "id": "x"},
        {"__entity_type__": "a b", "id": "x"},
    ],
    ids=str,
)
async def test_a_malformed_row_is_refused(
    session: AsyncSession, respx_mock: respx.MockRouter, row: object
) -> None:
    respx_mock.post(API).mock(side_effect=responding(row))

    with pytest.raises(MalformedResponseError):
        await session.query("Job").all()


@pytest.mark.parametrize(
    "value",
    [
        {"__type__": "datetime", "value": "0001-01-01T00:00:00+05:00"},
        {"__type__": ["datetime"], "value": "x"},
        {"__type__": "datetime"},
        {"__entity_type__": 5},
        [[[]]],
        "[" * 100_000,
    ],
    ids=lambda value: str(value)[:40],
)
@pytest.mark.parametrize("name", ["data", "created_at", "status", "user", "job_components", "new"])
async def test_malformed_values_do_not_make_a_response_unreadable(
    session: AsyncSession, respx_mock: respx.MockRouter, name: str, value: object
) -> None:
    row = {"__entity_type__": "Job", "id": "j", "data": None, name: value}
    respx_mock.post(API).mock(side_effect=responding(row))

    job = await session.query("Job").of(Job).one()

    assert name in job
    assert job.description is None


# Schemas


@pytest.mark.parametrize(
    "schemas",
    [
        [None],
        ["Task"],
        [{}],
        [{"id": "Task"}],
        [TASK, {**TASK, "id": None}],
        [{**TASK, "properties": ["id"]}],
        [{**TASK, "primary_key": 5}],
    ],
    ids=str,
)
async def test_malformed_schemas_are_an_error_and_are_queried_again(
    session: AsyncSession, respx_mock: respx.MockRouter, schemas: object
) -> None:
    row = {"__entity_type__": "Task", "id": "t"}
    route = respx_mock.post(API).mock(side_effect=responding(row, schemas=schemas))

    with pytest.raises(MalformedResponseError):
        await session.query("Task").all()

    route.mock(side_effect=responding(row))
    assert len(await session.query("Task").all()) == 1


async def test_a_type_that_the_studio_added_later_is_read(
    session: AsyncSession, respx_mock: respx.MockRouter
) -> None:
    rows = [{"__entity_type__": name, "id": "x", "name": "n"} for name in ("Task", "Wormhole")]
    respx_mock.post(API).mock(side_effect=responding(*rows))
    await session.schemas()

    found = await session.query("select name from TypedContext").all()

    assert [(entity.entity_type, entity["name"]) for entity in found] == [
        ("Task", "n"),
        ("Wormhole", "n"),
    ]
    with pytest.raises(UnknownEntityTypeError, match="Wormhole"):
        session.create("Wormhole", {})
    with pytest.raises(UnknownEntityTypeError, match="Wormhole"):
        await session.get("Wormhole", "x")


# Entities whose local changes are discarded


async def test_a_created_entity_that_is_cleared_can_be_committed(
    session: AsyncSession, respx_mock: respx.MockRouter
) -> None:
    route = respx_mock.post(API).mock(side_effect=responding())
    job = session.create(Job, {"id": "j", "status": "running"})
    job["data"] = "{}"

    job.clear()
    await session.commit()

    (sent,) = json.loads(route.calls.last.request.content)
    assert (sent["action"], sent["entity_key"]) == ("create", ["j"])
    assert "data" not in sent["entity_data"]
    assert (job.id, job.status) == ("j", "running")


async def test_a_created_entity_that_is_cleared_can_be_rolled_back(session: AsyncSession) -> None:
    job = session.create(Job, {"id": "j"})

    job.clear()
    session.rollback()

    assert session.recorded_operations == ()
    assert job.id == "j"


# ensure


def updates(route: respx.Route) -> list[dict[str, Any]]:
    operations = [op for call in route.calls for op in json.loads(call.request.content)]
    return [op["entity_data"] for op in operations if op["action"] == "update"]


async def test_ensure_compares_with_the_server_and_not_with_local_changes(
    session: AsyncSession, respx_mock: respx.MockRouter
) -> None:
    row = {"__entity_type__": "Job", "id": "j", "status": "running", "user_id": "u"}
    route = respx_mock.post(API).mock(side_effect=responding(row))
    job = await session.query("Job").one()
    job["status"] = "done"

    await session.ensure("Job", {"id": "j", "status": "done"}, ["id"])
    await session.ensure("Job", {"id": "j", "user_id": "u"}, ["id"])

    assert updates(route) == [{"__entity_type__": "Job", "status": "done"}]


async def test_ensure_sets_what_the_response_does_not_contain(
    session: AsyncSession, respx_mock: respx.MockRouter
) -> None:
    row = {"__entity_type__": "Job", "id": "j"}
    route = respx_mock.post(API).mock(side_effect=responding(row))

    await session.ensure("Job", {"id": "j", "user_id": None}, ["id"])

    assert updates(route) == [{"__entity_type__": "Job", "user_id": None}]


# A user's own classes


async def test_entities_are_instances_of_a_users_class(
    session: AsyncSession, respx_mock: respx.MockRouter
) -> None:
    row = {"__entity_type__": "Task", "id": "t", "name": "anim"}
    route = respx_mock.post(API).mock(side_effect=responding(row))
    before = await session.query("select name from Task").one()

    got = await session.get(Task, "t")
    (found,) = await session.query("Task").of(Task).all()
    made = session.create(Task, {"name": "layout", "parent_id": "p"})
    await session.commit()

    assert got is found is before
    assert isinstance(got, Task)
    assert isinstance(made, Task)
    assert (got.label, made.label) == ("task anim", "task layout")
    assert b"select id, name, parent_id from Task" in route.calls[-2].request.content


async def test_a_users_class_may_be_used_before_the_schemas_are_known(
    session: AsyncSession,
) -> None:
    made = session.create(Task, {"name": "anim", "parent_id": "p"})

    assert made.label == "task anim"
    session.rollback()


async def test_misspelt_attributes_of_a_users_class_are_refused_once_known(
    session: AsyncSession, respx_mock: respx.MockRouter
) -> None:
    respx_mock.post(API).mock(side_effect=responding())
    await session.schemas()

    with pytest.raises(UnknownAttributeError, match="'name'"):
        session.create(Task, {"nane": "anim"})


async def test_jobs_are_instances_of_a_users_class(
    session: AsyncSession, respx_mock: respx.MockRouter
) -> None:
    class Render(Job):
        @property
        def frames(self) -> int:
            return len(self["data"])

    row = {"__entity_type__": "Job", "id": "j", "data": "{}"}
    respx_mock.post(API).mock(side_effect=responding(row))

    found = await session.query("Job").of(Render).one()
    made = session.create(Render, {"data": {}})

    assert (found.frames, made.frames) == (2, 2)
    assert isinstance(session.create("Job", {}), Render)
    session.rollback()


async def test_a_class_without_an_entity_type_is_refused(session: AsyncSession) -> None:
    class Nameless(Entity):
        pass

    with pytest.raises(EntityError, match="Nameless has no entity type"):
        session.create(Nameless, {})
    with pytest.raises(EntityError, match="Nameless has no entity type"):
        await session.get(Nameless, "x")
    with pytest.raises(FtrackJobsError, match="Nameless has no entity type"):
        session.query("Task").of(Nameless)
    assert session.query("Task").of(Entity).expression == "Task"
