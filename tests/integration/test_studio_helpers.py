"""Notes, thumbnails, encoded media, sequences and statuses, with the official client beside."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from PIL import Image

from aioftrackjobs import (
    ArgumentError,
    AsyncSession,
    Entity,
    EntityError,
    ServerError,
    TransferError,
    UnknownAttributeError,
    UnknownEntityTypeError,
    UnsupportedLocationError,
)
from aioftrackjobs.devserver import ServerHandle
from aioftrackjobs.devserver.faults.kinds import Refuse, SeenRequest
from aioftrackjobs.errors import MalformedResponseError
from aioftrackjobs.session import connection_of
from aioftrackjobs.transport import WireRequest, WireResponse

if TYPE_CHECKING:
    from tests.integration.conftest import Official


@pytest.fixture
async def shot(session: AsyncSession) -> Entity:
    found = await session.query("select name, parent.name, project_id from Shot").first()
    assert found is not None
    return found


@pytest.fixture
async def version(session: AsyncSession, shot: Entity) -> Entity:
    """A version of an asset of the shot."""
    asset = session.create("Asset", {"name": "comp", "parent": shot})
    version = session.create("AssetVersion", {"asset": asset})
    await session.commit()
    return version


@pytest.fixture
def picture() -> bytes:
    """A picture of 64 times 48 pixels."""
    file = io.BytesIO()
    Image.new("RGB", (64, 48), (200, 30, 30)).save(file, "PNG")
    return file.getvalue()


# Notes


async def test_a_note_is_committed_with_the_rest(
    session: AsyncSession, shot: Entity, official: Official
) -> None:
    maya = await session.query("User where username is maya").one()
    category = await session.query("NoteCategory where name is Internal").one()
    note = await session.create_note(shot, "Approved.", recipients=[maya], category=category)
    reply = await session.create_note(note, "Thank you!", author=maya)
    assert [each.entity_type for each in session.created].count("Note") == 2
    await session.commit()

    def read(theirs: Any) -> tuple[Any, ...]:
        (found,) = theirs.get("Shot", shot["id"])["notes"]
        people = sorted(each["user"]["username"] for each in found["recipients"])
        (answer,) = found["replies"]
        names = (found["author"]["username"], found["category"]["name"])
        return found["content"], *names, people, answer["content"], answer["author"]["username"]

    assert await official.run(read) == (
        "Approved.",
        session.api_user,
        "Internal",
        sorted(["maya", session.api_user]),
        "Thank you!",
        "maya",
    )
    assert reply["in_reply_to_id"] == note["id"]


async def test_what_is_no_note_is_refused(
    session: AsyncSession, other: AsyncSession, shot: Entity
) -> None:
    foreign = await other.query("User").first()
    assert foreign is not None

    wrong: list[dict[str, Any]] = [
        {"recipients": [foreign]},
        {"author": foreign},
        {"category": foreign},
        {"labels": [foreign]},
    ]
    for options in wrong:
        with pytest.raises(EntityError, match="does not belong"):
            await session.create_note(shot, "a", **options)
    with pytest.raises(EntityError, match="does not belong"):
        await session.create_note(foreign, "a")
    for content in (None, 5, b"x"):
        with pytest.raises(ArgumentError, match="content"):
            await session.create_note(shot, content)  # type: ignore[arg-type]
    assert session.recorded_operations == ()


# Statuses and types of a project


async def test_statuses_and_types_are_those_of_the_official_client(
    session: AsyncSession, shot: Entity, official: Official
) -> None:
    project = await session.query("Project").first()
    assert project is not None

    def read(theirs: Any) -> dict[str, list[str]]:
        schema = theirs.query("Project").first()["project_schema"]
        ask: dict[str, Callable[[], list[Any]]] = {
            "tasks": lambda: schema.get_statuses("Task"),
            "versions": lambda: schema.get_statuses("AssetVersion"),
            "shots": lambda: schema.get_statuses("Shot"),
            "task types": lambda: schema.get_types("Task"),
            "shot types": lambda: schema.get_types("Shot"),
        }
        return {name: sorted(each["name"] for each in call()) for name, call in ask.items()}

    ours = {
        "tasks": await session.statuses(project, "Task"),
        "versions": await session.statuses(project, "AssetVersion"),
        "shots": await session.statuses(project, "Shot"),
        "task types": await session.types(project),
        "shot types": await session.types(project, "Shot"),
    }
    theirs = await official.run(read)
    assert {name: sorted(e["name"] for e in found) for name, found in ours.items()} == theirs
    assert ours["tasks"][0]["name"] == "Not started"


async def test_a_type_of_tasks_may_have_a_workflow_of_its_own(session: AsyncSession) -> None:
    project = await session.query("select project_schema.name from Project").first()
    assert project is not None
    kind, other_kind = (await session.types(project))[:2]
    status = await session.query("Status where name is Approved").one()
    workflow = session.create("WorkflowSchema", {"name": "short"})
    session.create(
        "WorkflowSchemaStatus", {"workflow_schema_id": workflow["id"], "status_id": status["id"]}
    )
    session.create(
        "ProjectSchemaOverride",
        {
            "project_schema_id": project["project_schema"]["id"],
            "type_id": kind["id"],
            "workflow_schema": workflow,
        },
    )
    await session.commit()

    schema = project["project_schema"]
    assert await session.statuses(schema, "Task", task_type=kind) == [status]
    assert len(await session.statuses(schema, "Task", task_type=other_kind)) > 1


async def test_statuses_of_what_has_none_are_an_error(session: AsyncSession, shot: Entity) -> None:
    project = await session.query("Project").first()
    assert project is not None
    with pytest.raises(UnknownEntityTypeError, match="'Shot'"):
        await session.statuses(project, "Shots")
    with pytest.raises(EntityError, match="User has no statuses"):
        await session.statuses(project, "User")
    with pytest.raises(ArgumentError, match="project"):
        await session.types(shot)


# Pictures and media


async def test_a_thumbnail_is_that_of_its_entity(
    session: AsyncSession, shot: Entity, picture: bytes, official: Official
) -> None:
    component = await session.create_thumbnail(shot, picture, name="sh010.png")

    assert shot["thumbnail_id"] == component.id
    found = await official.run(lambda theirs: theirs.get("Shot", shot["id"])["thumbnail"]["name"])
    assert found == "thumbnail"
    location = await session.query("Location where name is 'ftrack.server'").one()
    async with httpx.AsyncClient() as client:
        shown = await client.get(location.get_thumbnail_url(component, 32))  # type: ignore[attr-defined]
    assert Image.open(io.BytesIO(shown.content)).size == (32, 24)


async def test_what_has_no_thumbnail_is_refused_and_nothing_is_uploaded(
    session: AsyncSession, picture: bytes
) -> None:
    job = session.create("Job", {"status": "queued", "user": await session.current_user()})
    await session.commit()

    with pytest.raises(UnknownAttributeError, match="thumbnail_id"):
        await session.create_thumbnail(job, picture, name="x.png")

    assert await session.query("FileComponent where name is 'thumbnail'").count() == 0


async def test_a_thumbnail_needs_a_location_that_serves_files(session: AsyncSession) -> None:
    other = await session.query("Location where name is_not 'ftrack.server'").first()
    component = session.create("FileComponent")
    assert other is not None
    with pytest.raises(UnsupportedLocationError):
        other.get_thumbnail_url(component)  # type: ignore[attr-defined]
    with pytest.raises(ArgumentError, match="size"):
        other.get_thumbnail_url(component, 0)  # type: ignore[attr-defined]


async def test_encoded_media_belong_to_the_version(
    session: AsyncSession, other: AsyncSession, version: Entity, picture: bytes
) -> None:
    job = await session.encode_media(picture, version=version, name="beauty.png")
    state = await job.wait(timeout=20)

    assert state.is_done, state
    query = "select components.name, thumbnail_id from AssetVersion where id is {id}"
    found = await other.query(query, id=version["id"]).one()
    assert "ftrackreview-image" in [each["name"] for each in found["components"]]
    assert found["thumbnail_id"] is not None
    # What was uploaded to be encoded goes, and what was there before stays.
    assert await other.query("Component where name is beauty").count() == 0
    kept = await session.create_component(picture, name="kept.png", version=version)
    await (await session.encode_media(kept)).wait(timeout=20)
    found = await other.query("select version_id from Component where name is kept").one()
    assert found["version_id"] == version["id"]


async def test_media_that_cannot_be_encoded_leave_nothing_behind(
    session: AsyncSession, version: Entity, picture: bytes, server: ServerHandle
) -> None:
    session.delete(version)
    await session.commit()

    with pytest.raises((ServerError, EntityError)):
        await session.encode_media(picture, version=version, name="gone.png")

    assert await session.query("Component where name is gone").count() == 0


def requests_to(action: str) -> Callable[[SeenRequest], bool]:
    """Return what finds the requests with an operation of this kind."""
    return lambda request: any(each["action"] == action for each in request.operations or ())


async def test_what_is_uploaded_to_be_encoded_goes_if_the_server_refuses(
    session: AsyncSession, version: Entity, picture: bytes, server: ServerHandle
) -> None:
    server.faults.inject(Refuse(), on=requests_to("encode_media"))

    with pytest.raises(ServerError, match="injected fault"):
        await session.encode_media(picture, version=version, name="gone.png")

    assert server.inspector.find("Component where name is gone") == []


async def test_what_is_uploaded_to_be_encoded_and_cannot_go_is_logged(
    session: AsyncSession,
    picture: bytes,
    server: ServerHandle,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server.faults.inject(Refuse(text="first"), on=requests_to("encode_media"))
    server.faults.inject(Refuse(text="second"), on=requests_to("delete"), probability=1.0)

    with pytest.raises(ServerError, match="first"):
        await session.encode_media(picture, name="stays.png")

    (component,) = server.inspector.find("Component where name is stays")
    assert any(
        record.name == "aioftrackjobs.transfers.media"
        and component["id"] in record.getMessage()
        and "second" in record.getMessage()
        for record in caplog.records
    )


@pytest.mark.parametrize(
    "response", [{}, {"job_id": 5}, {"job_id": "unknown"}], ids=["none", "number", "unknown"]
)
async def test_a_response_that_names_no_job_is_malformed(
    session: AsyncSession,
    server: ServerHandle,
    picture: bytes,
    monkeypatch: pytest.MonkeyPatch,
    response: dict[str, Any],
) -> None:
    component = await session.create_component(picture, name="kept.png")
    send = connection_of(session).transport.send

    async def answer(request: WireRequest) -> WireResponse:
        if not isinstance(request.body, bytes) or b"encode_media" not in request.body:
            return await send(request)
        return WireResponse(200, json.dumps([{"action": "encode_media", **response}]).encode())

    monkeypatch.setattr(connection_of(session).transport, "send", answer)
    with pytest.raises(MalformedResponseError, match="no Job"):
        await session.encode_media(component)


# Sequences


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    for frame in range(1001, 1006):
        (tmp_path / f"sh010.{frame}.exr").write_bytes(b"x" * (frame - 1000))
    (tmp_path / "sh010.01003.exr").write_bytes(b"another padding")
    (tmp_path / "sh010.1002.exr.bak").write_bytes(b"another tail")
    (tmp_path / "sh010.10001.exr").write_bytes(b"frame 10001")
    return tmp_path


@pytest.fixture
async def nothing_left(session: AsyncSession) -> AsyncIterator[None]:
    """The test leaves no component on the server."""
    before = await session.query("Component").count()
    yield
    assert await session.query("Component").count() == before


@pytest.mark.parametrize(
    ("pattern", "members"),
    [
        ("sh010.%04d.exr", {"1001", "1002", "1003", "1004", "1005", "10001"}),
        ("sh010.%04d.exr [1001-1003, 1005]", {"1001", "1002", "1003", "1005"}),
        ("sh010.%d.exr [1001]", {"1001"}),
        ("sh010.%05d.exr", {"01003", "10001"}),
    ],
)
async def test_a_sequence_is_a_component_with_a_member_for_each_file(
    session: AsyncSession,
    version: Entity,
    official: Official,
    frames: Path,
    pattern: str,
    members: set[str],
) -> None:
    seen: list[tuple[int, int | None]] = []
    made = await session.create_sequence(
        str(frames / pattern),
        {"metadata": {"take": "3"}},
        version=version,
        progress=lambda done, total: seen.append((done, total)),
    )

    def read(theirs: Any) -> tuple[Any, ...]:
        found = theirs.get("SequenceComponent", made.id)
        location = theirs.query("Location where name is 'ftrack.server'").one()
        sizes = sum(each["size"] for each in found["members"])
        there = theirs.get_component_availability(found)[location["id"]]
        names = {each["name"] for each in found["members"]}
        facts = (found["name"], found["file_type"], found["version"]["id"])
        return *facts, names, sizes, there, dict(found["metadata"])

    name, file_type, version_id, names, size, there, metadata = await official.run(read)
    assert (name, file_type, version_id) == ("sh010", ".exr", version["id"])
    assert (names, there, metadata) == (members, 100.0, {"take": "3"})
    assert made.size == size
    assert seen[-1] == (size, size)
    member = await session.query(
        "FileComponent where container_id is {id} and name is {name}",
        id=made.id,
        name=min(members),
    ).one()
    path = await session.download(member, frames / "back.exr")
    assert path.read_bytes() == (frames / f"sh010.{min(members)}.exr").read_bytes()


@pytest.mark.usefixtures("nothing_left")
async def test_a_frame_that_is_missing_ends_the_upload_before_it_begins(
    session: AsyncSession, frames: Path
) -> None:
    with pytest.raises(TransferError, match=r"sh010\.1006\.exr"):
        await session.create_sequence(str(frames / "sh010.%04d.exr [1001-1007]"))
    with pytest.raises(TransferError, match="no files"):
        await session.create_sequence(str(frames / "other.%04d.exr"))
    with pytest.raises(TransferError, match="nowhere"):
        await session.create_sequence(str(frames / "nowhere" / "a.%04d.exr"))


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "a.exr",
        "a.%s.exr",
        "a.%04d.%04d.exr",
        "a.%d [",
        "a.%d [3-1]",
        "a.%d [x]",
        "a.%d [1-999999999]",
        "a.%d []",
    ],
)
async def test_what_is_no_pattern_is_refused(session: AsyncSession, pattern: str) -> None:
    with pytest.raises(ArgumentError, match="pattern"):
        await session.create_sequence(pattern)


@pytest.mark.usefixtures("nothing_left")
async def test_a_sequence_that_cannot_be_registered_leaves_no_files(
    session: AsyncSession, frames: Path
) -> None:
    with pytest.raises(EntityError):
        await session.create_sequence(str(frames / "sh010.%04d.exr"), {"pading": 4})
    with pytest.raises(ServerError):
        await session.create_sequence(
            str(frames / "sh010.%04d.exr [1001-1003]"), {"version_id": "no such version"}
        )
