"""The official client runs the tutorial, and each client reads what the other one wrote."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from aioftrackjobs import AsyncSession, Job, JobComponent, Location, User, job_context

if TYPE_CHECKING:
    from tests.integration.conftest import Official

AWKWARD = "grün \\ {x} 'single' 日本"


async def test_the_official_client_runs_the_tutorial(
    official: Official, session: AsyncSession, tmp_path: Path
) -> None:
    path = tmp_path / "file.txt"
    path.write_text("hello from the tutorial")

    def tutorial(theirs: Any) -> list[str]:
        user = theirs.query("User").first()
        job = theirs.create("Job", {"user": user, "status": "running"})
        theirs.commit()
        job["data"] = json.dumps({"description": AWKWARD})
        job["status"] = "done"
        theirs.commit()
        location = theirs.query('Location where name is "ftrack.server"').one()
        component = theirs.create_component(str(path), data={"name": "My file"}, location=location)
        theirs.create("JobComponent", {"component_id": component["id"], "job_id": job["id"]})
        theirs.commit()
        theirs.populate(job, "job_components")
        return [location.get_url(each["component"]) for each in job["job_components"]]

    (url,) = await official.run(tutorial)

    async with httpx.AsyncClient() as client:
        assert (await client.get(url)).text == "hello from the tutorial"
    job = await session.query("Job").of(Job).one()
    assert (job.status, job.description) == ("done", AWKWARD)
    await session.populate(job, "job_components.component.name")
    assert [link["component"]["name"] for link in job["job_components"]] == ["My file"]


async def test_the_official_client_reads_what_our_client_wrote(
    official: Official, session: AsyncSession, tmp_path: Path
) -> None:
    source = tmp_path / "report.txt"
    source.write_bytes(b"report " * 1000)
    user = await session.query("User").of(User).first()
    assert user is not None
    async with job_context(session, user=user, description=AWKWARD) as job:
        job.progress(0.5, "half")
        component = await job.attach(source, data={"name": "Report"})

    def look(theirs: Any) -> dict[str, Any]:
        found = theirs.get("Job", job.id)
        (link,) = found["job_components"]
        location = theirs.query('Location where name is "ftrack.server"').one()
        with closing(location.accessor.open(link["component"]["id"], "rb")) as file:
            content = file.read()
        return {
            "status": found["status"],
            "data": json.loads(found["data"]),
            "type": found["type"],
            "user": found["user"]["username"],
            "created": found["created_at"] is not None,
            "finished": found["finished_at"] is not None,
            "component": (
                link["component"].entity_type,
                link["component"]["id"],
                link["component"]["name"],
                link["component"]["file_type"],
                link["component"]["size"],
                link["component"]["system_type"],
            ),
            "available": location.get_component_availability(link["component"]),
            "bytes": content,
        }

    seen = await official.run(look)

    assert seen == {
        "status": "done",
        "data": {
            "description": AWKWARD,
            "progress": 0.5,
        },
        "type": "api_job",
        "user": user.username,
        "created": True,
        "finished": True,
        "component": ("FileComponent", component.id, "Report", ".txt", 7000, "file"),
        "available": 100.0,
        "bytes": source.read_bytes(),
    }


async def test_our_client_reads_and_changes_what_the_official_client_wrote(
    official: Official, session: AsyncSession
) -> None:
    def write(theirs: Any) -> str:
        data = json.dumps({"description": "theirs", "frames": [1, 2]})
        job = theirs.create("Job", {"user": theirs.query("User").first(), "data": data})
        theirs.commit()
        return str(job["id"])

    job_id = await official.run(write)

    async with job_context(session, job=job_id) as job:
        assert job.entity.description == "theirs"
        job.progress(1)

    def read(theirs: Any) -> dict[str, Any]:
        data: dict[str, Any] = json.loads(theirs.get("Job", job_id)["data"])
        return data

    assert await official.run(read) == {
        "description": "theirs",
        "frames": [1, 2],
        "progress": 1.0,
    }


async def test_generic_entities_are_exchanged_in_both_directions(
    official: Official, session: AsyncSession
) -> None:
    project = await session.query("Project").one()
    task = session.create(
        "Task", {"name": "ours", "project_id": project["id"], "parent_id": project["id"]}
    )
    await session.commit()

    def flow(theirs: Any) -> tuple[str, str]:
        found = theirs.query('Task where name is "ours"').one()
        found["description"] = "seen"
        note = theirs.create("Note", {"content": "n", "author": theirs.query("User").first()})
        theirs.commit()
        return str(found["id"]), str(note["id"])

    task_id, note_id = await official.run(flow)

    assert task_id == task["id"]
    await session.populate(task, "description")
    assert task["description"] == "seen"
    note = await session.get("Note", note_id)
    assert note is not None
    assert note["content"] == "n"


async def test_the_official_client_deletes_a_link_that_our_client_created(
    official: Official, session: AsyncSession
) -> None:
    job = session.create(Job, {})
    await session.commit()
    component = await session.create_component(b"x", name="x.txt")
    session.create(JobComponent, {"component_id": component.id, "job_id": job.id})
    await session.commit()

    def remove(theirs: Any) -> None:
        found = theirs.get("JobComponent", [component.id, job.id])
        theirs.delete(found)
        theirs.commit()

    await official.run(remove)

    await session.populate(job, "job_components")
    assert list(job["job_components"]) == []


async def test_both_clients_make_the_same_url(official: Official, session: AsyncSession) -> None:
    component = await session.create_component(b"x", name="x.txt")
    location = await session.query('Location where name is "ftrack.server"').of(Location).one()

    def theirs(peer: Any) -> str:
        found = peer.query('Location where name is "ftrack.server"').one()
        return str(found.get_url(peer.get("FileComponent", component.id)))

    ours, other = httpx.URL(location.get_url(component)), httpx.URL(await official.run(theirs))
    assert (ours.path, dict(ours.params)) == (other.path, dict(other.params))


@pytest.mark.parametrize("wrong", ["id is", "where", "((("])
async def test_both_clients_get_the_servers_text_of_a_syntax_error(
    official: Official, session: AsyncSession, wrong: str
) -> None:
    text = f"select id from Job where {wrong} offset 0 limit 500"

    def refused(theirs: Any) -> str:
        try:
            theirs.call([{"action": "query", "expression": text}])
        except Exception as exc:  # noqa: BLE001 - the peer's class is of no interest
            return str(getattr(exc, "message", exc))
        return "accepted"

    with pytest.raises(Exception, match="Failed to parse") as caught:
        await session.call([{"action": "query", "expression": text}])

    assert caught.value.detail in await official.run(refused)  # type: ignore[attr-defined]
