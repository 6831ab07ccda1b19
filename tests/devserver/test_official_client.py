"""The official Python client, unmodified, does its work against the server."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from anyio.to_thread import run_sync

from aioftrackjobs.devserver import ServerHandle

with warnings.catch_warnings():
    # It pins a pyparsing that imports a deprecated module.
    warnings.simplefilter("ignore", DeprecationWarning)
    import ftrack_api
    import ftrack_api.exception


def session_of(server: ServerHandle, **changes: Any) -> ftrack_api.Session:
    arguments = {
        "server_url": server.url,
        "api_key": server.api_key,
        "api_user": server.api_user,
        "schema_cache_path": False,
        "plugin_paths": [],
    }
    return ftrack_api.Session(**(arguments | changes))


async def with_session(server: ServerHandle, work: Callable[[ftrack_api.Session], None]) -> None:
    """Run *work* in a thread: the client blocks."""

    def run() -> None:
        session = session_of(server)
        try:
            work(session)
        finally:
            session.close()

    await run_sync(run)


@pytest.fixture
def report(tmp_path: Path) -> Path:
    path = tmp_path / "report.txt"
    path.write_text("all frames rendered\n" * 100)
    return path


async def test_the_tutorial_runs_as_it_is_written(server: ServerHandle, report: Path) -> None:
    def work(session: ftrack_api.Session) -> None:
        user = session.query(f'User where username is "{server.api_user}"').one()
        job = session.create(
            "Job",
            {"user": user, "status": "running", "data": json.dumps({"description": "My job"})},
        )
        session.commit()
        assert (job["status"], job["type"], job["user"]) == ("running", "api_job", user)

        location = session.query('Location where name is "ftrack.server"').one()
        component = session.create_component(
            str(report), data={"name": "My file"}, location=location
        )
        session.create("JobComponent", {"component_id": component["id"], "job_id": job["id"]})
        job["status"] = "done"
        session.commit()
        assert job["finished_at"] is not None

        (attached,) = job["job_components"]
        response = requests.get(location.get_url(attached["component"]), timeout=10)
        assert response.text == report.read_text()
        assert "My%20file.txt" in response.headers["Content-Disposition"]

    await with_session(server, work)


async def test_another_session_sees_what_was_written(server: ServerHandle) -> None:
    def work(session: ftrack_api.Session) -> None:
        job = session.create("Job", {"status": "running", "data": '{"a": 1}'})
        session.commit()
        other = session_of(server)
        found = other.get("Job", job["id"])
        assert (found["status"], found["data"]) == ("running", '{"a": 1}')
        found["data"] = None
        other.commit()
        session.populate(job, "data, user.username")
        assert job["data"] is None
        other.close()

    await with_session(server, work)


async def test_more_than_a_page_is_paged(server: ServerHandle) -> None:
    def work(session: ftrack_api.Session) -> None:
        user = session.query("User").first()
        for _ in range(1000):
            session.create("Job", {"user": user})
        session.commit()
        other = session_of(server)
        jobs = other.query("select id, user.username from Job").all()
        assert len({job["id"] for job in jobs}) == 1000
        assert {job["user"]["username"] for job in jobs} == {user["username"]}
        other.close()

    await with_session(server, work)


async def test_entities_are_ensured_and_deleted(server: ServerHandle) -> None:
    def work(session: ftrack_api.Session) -> None:
        for first_name in ("Bo", "Bob"):
            user = session.ensure(
                "User", {"username": "bob", "first_name": first_name}, ["username"]
            )
        assert user["first_name"] == "Bob"
        session.delete(user)
        session.commit()
        assert session.query("User where username is bob").first() is None

    await with_session(server, work)


async def test_metadata_is_a_dictionary(server: ServerHandle) -> None:
    def work(session: ftrack_api.Session) -> None:
        component = session.create("FileComponent", {"name": "x"})
        component["metadata"]["a"] = "1"
        session.commit()
        component["metadata"]["b"] = "2"
        del component["metadata"]["a"]
        session.commit()
        other = session_of(server)
        found = other.get("FileComponent", component["id"])
        assert dict(found["metadata"].items()) == {"b": "2"}
        other.close()

    await with_session(server, work)


async def test_a_sequence_is_uploaded_with_its_members(
    server: ServerHandle, tmp_path: Path
) -> None:
    for frame in (1, 2, 3):
        (tmp_path / f"sh010.{frame:04d}.exr").write_bytes(bytes([frame]))

    def work(session: ftrack_api.Session) -> None:
        location = session.query('Location where name is "ftrack.server"').one()
        made = session.create_component(f"{tmp_path}/sh010.%04d.exr [1-3]", location=location)
        other = session_of(server)
        found = other.get("SequenceComponent", made["id"])
        assert [member["name"] for member in found["members"]] == ["0001", "0002", "0003"]
        assert found["system_type"] == "sequence"
        other.close()

    await with_session(server, work)


async def test_generic_types_work(server: ServerHandle) -> None:
    def work(session: ftrack_api.Session) -> None:
        project = session.query("Project").one()
        task = session.create("Task", {"name": "anim", "parent": project})
        note = task.create_note("Nice", author=session.query("User").first())
        asset = session.create("Asset", {"name": "anim", "parent": task})
        version = session.create("AssetVersion", {"asset": asset, "task": task})
        session.commit()
        assert task["project"] is project
        assert task["status"]["state"]["short"] == "NOT_STARTED"
        assert session.query(f'Note where parent_id is "{task["id"]}"').one() is note
        assert session.query('AssetVersion where asset.name is "anim"').one() is version

    await with_session(server, work)


async def test_a_removed_component_is_gone_from_its_location(
    server: ServerHandle, report: Path
) -> None:
    def work(session: ftrack_api.Session) -> None:
        location = session.query('Location where name is "ftrack.server"').one()
        component = session.create_component(str(report), location=location)
        url = location.get_url(component)
        location.remove_component(component)
        assert requests.get(url, timeout=10).status_code == 404
        assert session.query("ComponentLocation").all() == []

    await with_session(server, work)


@pytest.mark.parametrize(
    ("expression", "text"),
    [("Job where id is {x", "ParseError"), ("Jbo where id is x", "did you mean 'Job'")],
)
async def test_refusals_are_server_errors_with_a_text(
    server: ServerHandle, expression: str, text: str
) -> None:
    def work(session: ftrack_api.Session) -> None:
        with pytest.raises(ftrack_api.exception.ServerError) as caught:
            session.call([{"action": "query", "expression": expression}])
        assert text in str(caught.value)

    await with_session(server, work)


async def test_a_wrong_key_fails_at_the_start(server: ServerHandle) -> None:
    def work() -> None:
        with pytest.raises(ftrack_api.exception.ServerError, match="InvalidCredentialsError"):
            session_of(server, api_key="wrong")

    await run_sync(work)
