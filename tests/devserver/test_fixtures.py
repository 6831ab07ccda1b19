"""Servers that start empty, or with the entities of a fixture."""

from __future__ import annotations

import json
import pickle
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from aioftrackjobs.devserver import ServerStartError, create_app, running
from aioftrackjobs.protocol.upload import BUILTIN_LOCATIONS

from .caller import Caller, names_in, query, update

Start = Callable[..., AbstractAsyncContextManager[Caller]]
PROJECT = {"__entity_type__": "Project", "id": "p", "name": "film", "full_name": "The film"}
SCHEMA = {"__entity_type__": "ProjectSchema", "id": "s", "name": "Schema"}
ADA = {"__entity_type__": "User", "id": "ada", "username": "ada", "is_active": True}


@asynccontextmanager
async def started(**options: Any) -> AsyncIterator[Caller]:
    app = create_app(**options)
    engine = app.state.engine
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://ftrack.test") as http:
        yield Caller(http, engine.api_user, engine.api_key)
    engine.close()


def entity(entity_type: str, **data: Any) -> dict[str, Any]:
    return {"__entity_type__": entity_type, **data}


async def names(api: Caller, expression: str, name: str = "name") -> list[Any]:
    return [row[name] for row in await api.query(expression)]


async def test_a_fresh_server_is_useful() -> None:
    async with started() as api:
        assert await names(api, "select name from Location") == [e.name for e in BUILTIN_LOCATIONS]
        assert len(await api.query("User")) == 4
        assert len(await api.query("Project")) == 1
        for entity_type in ("Sequence", "Shot", "Task", "Status", "Type", "Priority", "AssetType"):
            assert len(await api.query(entity_type)) > 1, entity_type


async def test_all_tasks_have_statuses_types_and_a_project() -> None:
    async with started() as api:
        rows = await api.query("select status.name, type.name, project.name, parent.name from Task")

    assert all(row["status"] and row["type"] and row["project"] and row["parent"] for row in rows)


async def test_an_empty_server_has_what_authentication_needs_and_no_more() -> None:
    async with started(empty=True, api_user="ada") as api:
        assert await names(api, "select username from User", "username") == ["ada"]
        assert len(await api.query("Location")) == len(BUILTIN_LOCATIONS)
        for entity_type in ("Context", "Status", "Type", "Job", "AssetType", "ObjectType"):
            assert await api.query(entity_type) == [], entity_type


async def test_a_running_server_can_be_empty_and_have_a_fixture() -> None:
    async with running(empty=True, fixture=[ADA]) as server, httpx.AsyncClient() as http:
        response = await http.post(
            f"{server.url}/api",
            json=[query("select username from User order by username")],
            headers={"ftrack-user": "ada", "ftrack-api-key": server.api_keys["ada"]},
        )

    assert [row["username"] for row in response.json()[0]["data"]] == ["ada", "developer"]


async def test_entries_may_name_each_other_in_any_order(tmp_path: Path) -> None:
    path = tmp_path / "film.json"
    entries = [
        entity("Job", type="api_job", status="queued", user=entity("User", id="ada")),
        entity("Task", id="t", name="comp", parent_id="sh", status=entity("Status", id="wip")),
        entity("Shot", id="sh", name="sh010", parent=entity("Project", id="p")),
        PROJECT | {"project_schema_id": "s"},
        entity("Status", id="wip", name="Working"),
        SCHEMA,
        ADA,
    ]
    path.write_text(json.dumps(entries))

    async with started(fixture=path) as api:
        (task,) = await api.query(
            "select status.name, parent.name, project.name from Task where id is t"
        )
        (job,) = await api.query("select user.username from Job")

    assert task["status"]["name"] == "Working"
    assert (task["parent"]["name"], task["project"]["name"]) == ("sh010", "film")
    assert job["user"]["username"] == "ada"


async def test_entries_that_name_each_other_in_a_circle_are_loaded() -> None:
    entries = [
        entity("FileComponent", id="thumb", name="a", version_id="v"),
        entity("AssetVersion", id="v", thumbnail_id="thumb"),
    ]
    async with started(fixture=entries) as api:
        assert await names(api, "select thumbnail_id from AssetVersion", "thumbnail_id") == [
            "thumb"
        ]


async def test_collections_may_name_entries_that_come_later() -> None:
    entries = [
        entity("SequenceComponent", id="seq", name="s", members=[entity("FileComponent", id="f")]),
        entity("FileComponent", id="f", name="1"),
    ]
    async with started(fixture=entries) as api:
        (row,) = await api.query("select members.name from SequenceComponent")

    assert [member["name"] for member in row["members"]] == ["1"]


async def test_what_is_there_already_is_brought_up_to_date(tmp_path: Path) -> None:
    database = tmp_path / "ftrack.db"
    for name in ("Film", "Feature film"):
        fixture = [SCHEMA, PROJECT | {"full_name": name, "project_schema_id": "s"}, ADA]
        async with started(database=database, fixture=fixture) as api:
            assert await names(api, "select full_name from Project where id is p", "full_name") == [
                name
            ]
            assert len(await api.query("User where username is ada")) == 1


async def test_a_fixture_overrides_immutable_values_of_the_seed() -> None:
    async with started() as api:
        (seeded,) = await api.query("select id, created_at from Project")
    made = {"__type__": "datetime", "value": "2020-01-01T00:00:00"}
    fixture = [entity("Project", id=seeded["id"], created_at=made)]

    async with started(fixture=fixture) as api:
        (loaded,) = await api.query("select created_at, name from Project")
        refused = await api.refused(update("Project", seeded["id"], created_at=None))

    assert seeded["created_at"] != loaded["created_at"] == made
    assert loaded["name"] == "demo"
    assert "cannot be changed" in refused["content"]


async def test_the_acting_user_may_come_with_the_fixture() -> None:
    async with started(fixture=[ADA], api_user="ada") as api:
        assert await names(api, "select id from User where username is ada", "id") == ["ada"]


async def test_a_fixture_replaces_a_seeded_user() -> None:
    maya = entity("User", id="m", username="maya", is_active=True)

    async with started(fixture=[maya]) as api:
        assert await names(api, "select id from User where username is maya", "id") == ["m"]


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        pytest.param(5, "must be an object", id="number"),
        pytest.param({"id": "x"}, "must be an object with an '__entity_type__'", id="no-type"),
        pytest.param(entity("Jobb"), "Job", id="unknown-type"),
        pytest.param(entity("Job", id="j", stats="queued"), "status", id="unknown-attribute"),
        pytest.param(entity("Job", id="j", status=5), "status", id="wrong-value"),
        pytest.param(entity("JobComponent", job_id="j"), "component_id", id="no-key"),
        pytest.param(entity("Location", id="l"), "name is required", id="not-complete"),
        pytest.param(
            entity("Job", id="j", user_id="missing"),
            "user_id leads nowhere: there is no Resource 'missing'",
            id="broken-reference",
        ),
        pytest.param(
            entity("User", id="u", username="ada", is_active=True), "another user", id="namesake"
        ),
        pytest.param(
            entity("SequenceComponent", id="q", members=[entity("FileComponent", id="g")]),
            "does not exist",
            id="broken-collection",
        ),
    ],
)
def test_the_entry_that_cannot_be_loaded_is_named(tmp_path: Path, entry: Any, reason: str) -> None:
    path, database = tmp_path / "fixture.json", tmp_path / "ftrack.db"
    path.write_text(json.dumps([ADA, entry]))

    with pytest.raises(ServerStartError) as caught:
        create_app(database=database, fixture=path)

    assert (caught.value.option, caught.value.subject) == ("fixture", str(path))
    assert reason in caught.value.reason
    assert str(caught.value).startswith(f"cannot load the fixture {path}: entry 2")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


async def test_all_of_a_fixture_is_loaded_or_nothing(tmp_path: Path) -> None:
    database = tmp_path / "ftrack.db"
    with pytest.raises(ServerStartError, match="cannot load the fixture"):
        create_app(database=database, fixture=[ADA, entity("Job", user_id="missing")])

    async with started(database=database) as api:
        assert await api.query("User where username is ada") == []
        assert len(await api.query("Project")) == 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(None, "No such file", id="missing"),
        pytest.param("[{", "not JSON", id="cut-off"),
        pytest.param("[" * 5000, "not JSON", id="deep"),
        pytest.param(
            '{"__entity_type__": "Job"}', "does not hold a list of entities", id="one-entity"
        ),
    ],
)
def test_a_file_that_is_no_fixture_is_named(
    tmp_path: Path, content: str | None, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary, path = tmp_path / "temporary", tmp_path / "fixture.json"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    if content is not None:
        path.write_text(content)

    with pytest.raises(ServerStartError, match=reason) as caught:
        create_app(fixture=path)

    assert str(path) in str(caught.value)
    assert names_in(temporary) == []


async def test_a_fixture_has_a_history_of_its_own() -> None:
    """What it changes of the demo project is no change of a user; who reads a note is said."""
    async with started() as api:
        task, *_ = await api.query("select status_id from Task")
        other, *_ = await api.query(f"Status where id is_not {task['status_id']}")
        maya, *_ = await api.query("User where username is maya")
    note = entity("Note", id="n", content="Too dark", user_id=maya["id"])
    entries = [entity("Task", id=task["id"], status_id=other["id"]), note]

    async with started(fixture=entries) as api:
        assert await names(api, f"select status_id from Task where id is {task['id']}", "status_id")
        assert await api.query("StatusChange") == await api.query("Recipient") == []
        await api.update("Task", task["id"], status_id=task["status_id"])
        assert len(await api.query("StatusChange")) == 1
