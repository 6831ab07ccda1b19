"""The tutorial of the official client, with the session made async, and nothing else changed.

Source:
    The official documentation's page on jobs; docs/protocol.md, section 5.2.
"""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from aioftrackjobs import AsyncSession
from aioftrackjobs.devserver import ServerHandle


@pytest.fixture
async def user(session: AsyncSession) -> object:
    return await session.query("User where username is {name}", name=session.api_user).one()


async def test_create_a_running_job_for_a_user(
    session: AsyncSession, other: AsyncSession, user: object
) -> None:
    job = session.create("Job", {"user": user, "status": "running"})
    await session.commit()

    theirs = await other.query("select status, user.username from Job").one()
    assert theirs["status"] == "running"
    assert theirs["user"]["username"] == session.api_user
    assert theirs["id"] == job["id"]


async def test_create_a_job_with_a_description(
    session: AsyncSession, other: AsyncSession, user: object
) -> None:
    session.create(
        "Job",
        {
            "user": user,
            "status": "running",
            "data": json.dumps({"description": "My custom job description."}),
        },
    )
    await session.commit()

    theirs = await other.query("select data from Job").one()
    assert json.loads(theirs["data"]) == {"description": "My custom job description."}


async def test_set_the_status_of_a_job(
    session: AsyncSession, other: AsyncSession, user: object
) -> None:
    job = session.create("Job", {"user": user, "status": "running"})
    await session.commit()

    job["status"] = "done"
    await session.commit()

    assert (await other.query("select status from Job").one())["status"] == "done"


async def test_attach_a_file_and_download_it_again(
    session: AsyncSession,
    other: AsyncSession,
    user: object,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "file.txt"
    path.write_text("hello from the tutorial")
    job = session.create("Job", {"user": user, "status": "running"})
    await session.commit()

    server_location = await session.query('Location where name is "ftrack.server"').one()
    component = await session.create_component(
        path, data={"name": "My file"}, location=server_location
    )
    session.create("JobComponent", {"component_id": component["id"], "job_id": job["id"]})
    await session.commit()

    job = await other.get("Job", job["id"])  # type: ignore[assignment]
    server_location = await other.query('Location where name is "ftrack.server"').one()
    await other.populate(job, "job_components.component")
    for job_component in job["job_components"]:
        print(server_location.get_url(job_component["component"]))  # type: ignore[attr-defined]  # noqa: T201

    (url,) = capsys.readouterr().out.split()
    async with httpx.AsyncClient() as client:
        assert (await client.get(url)).text == "hello from the tutorial"


async def test_the_tutorial_needs_only_the_environment(
    server: ServerHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FTRACK_SERVER", server.url)
    monkeypatch.setenv("FTRACK_APIKEY", server.api_key)
    monkeypatch.setenv("FTRACK_API_USER", server.api_user)
    monkeypatch.delenv("FTRACK_API_KEY", raising=False)

    async with AsyncSession() as session:
        user = await session.query("User where username is {n}", n=session.api_user).one()
        session.create("Job", {"user": user, "status": "running"})
        await session.commit()
        assert len(await session.query("Job").all()) == 1
