"""Uploads to and downloads from the server location, over a real socket."""

from __future__ import annotations

import hashlib
import io
import os
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import anyio
import httpx
import pytest

from aioftrackjobs import (
    AsyncSession,
    FileChangedError,
    FileComponent,
    Job,
    Location,
    ServerError,
    TransferError,
    UnsupportedLocationError,
    job_context,
)
from aioftrackjobs.devserver import ServerHandle, running
from aioftrackjobs.devserver.faults.kinds import HtmlPage
from aioftrackjobs.session import context_of
from aioftrackjobs.transfers.content import open_content
from aioftrackjobs.transfers.spool import CHUNK


async def server_location(session: AsyncSession) -> Location:
    return await session.query('Location where name is "ftrack.server"').of(Location).one()


async def components(session: AsyncSession) -> list[str]:
    return [row["id"] for row in await session.query("select id from Component").all()]


@pytest.mark.other_client
async def test_an_uploaded_file_can_be_downloaded(session: AsyncSession, tmp_path: Path) -> None:
    source = tmp_path / "my file.v1.txt"
    source.write_bytes(os.urandom(3 * CHUNK + 17))

    component = await session.create_component(source, data={"name": "Report"})
    target = await session.download(component, tmp_path / "back.bin")

    assert target.read_bytes() == source.read_bytes()
    assert type(component) is FileComponent
    assert (component.name, component.file_type, component.size) == (
        "Report",
        ".txt",
        3 * CHUNK + 17,
    )
    assert {path.name for path in tmp_path.iterdir()} == {"my file.v1.txt", "back.bin"}


async def test_the_component_is_registered_in_the_location(
    session: AsyncSession, other: AsyncSession
) -> None:
    location = await server_location(session)

    component = await session.create_component(b"x", name="x.txt", location=location)

    link = await other.query(
        "select resource_identifier, location_id from ComponentLocation where component_id is {id}",
        id=component.id,
    ).one()
    assert (link["resource_identifier"], link["location_id"]) == (component.id, location.id)


class Chunked:
    def __init__(self, *chunks: bytes) -> None:
        self._chunks = chunks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            yield chunk


@pytest.mark.other_client
@pytest.mark.parametrize(
    "make_source",
    [
        pytest.param(lambda: b"hello world", id="bytes"),
        pytest.param(lambda: io.BytesIO(b"hello world"), id="file object"),
        pytest.param(lambda: Chunked(b"hello ", b"", b"world"), id="async iterator"),
    ],
)
async def test_bytes_and_file_objects_are_uploaded_under_a_name(
    session: AsyncSession, tmp_path: Path, make_source: Callable[[], bytes]
) -> None:
    component = await session.create_component(make_source(), name="hello.txt")

    await session.download(component.id, tmp_path / "x")

    assert (tmp_path / "x").read_bytes() == b"hello world"
    assert (component.name, component.file_type, component.size) == ("hello", ".txt", 11)


@pytest.mark.other_client
async def test_an_empty_file_is_uploaded_and_downloaded(
    session: AsyncSession, tmp_path: Path
) -> None:
    component = await session.create_component(b"", name="empty")

    await session.download(component, tmp_path / "x")

    assert (tmp_path / "x").read_bytes() == b""


async def test_the_url_serves_the_file(session: AsyncSession) -> None:
    location = await server_location(session)
    component = await session.create_component(b"hello", name="a.txt", location=location)

    async with httpx.AsyncClient() as client:
        response = await client.get(location.get_url(component))

    assert response.content == b"hello"


async def test_credentials_in_urls_are_percent_encoded(server: ServerHandle) -> None:
    async with AsyncSession(server.url, "k+/=& y", "user+name@studio") as session:
        location = context_of(
            session
        ).create(  # a location that was not queried is enough for a URL
            Location,
            {"id": "3a372bde-05bc-11e4-8908-20c9d081909b", "name": "ftrack.server"},
            unit=context_of(session).tasks.to_record(),
        )
        url = httpx.URL(location.get_url(FileComponent(id="c1")))
        session.rollback()

    assert dict(url.params) == {"id": "c1", "username": "user+name@studio", "apiKey": "k+/=& y"}


# Bad input


@pytest.mark.parametrize("make", ["missing", "pipe"])
async def test_an_unreadable_source_is_named_and_registers_nothing(
    session: AsyncSession, tmp_path: Path, make: str
) -> None:
    path = tmp_path / make
    if make == "pipe":
        os.mkfifo(path)

    with pytest.raises(TransferError, match=make):
        await session.create_component(path)

    assert await components(session) == []


async def test_a_source_without_a_path_needs_a_name(session: AsyncSession) -> None:
    with pytest.raises(TransferError, match="needs a file name"):
        await session.create_component(b"x")


async def test_another_location_is_rejected_before_anything_is_sent(session: AsyncSession) -> None:
    other = await session.query('Location where name is "ftrack.unmanaged"').of(Location).one()

    with pytest.raises(UnsupportedLocationError, match=r"ftrack\.server"):
        await session.create_component(b"x", name="x", location=other)


@pytest.mark.parametrize("change", ["grow", "shrink"])
async def test_a_file_that_changes_while_it_is_read_is_noticed(tmp_path: Path, change: str) -> None:
    path = tmp_path / "render.exr"
    path.write_bytes(b"x" * 100)

    async with open_content(path) as content:
        if change == "grow":
            with path.open("ab") as file:
                file.write(b"more")
        else:
            os.truncate(path, 50)
        with pytest.raises(FileChangedError, match=r"render\.exr"):
            async for _ in content.chunks():
                pass
            await content.require_unchanged()


async def test_a_file_that_grows_during_its_upload_registers_nothing(
    session: AsyncSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "render.exr"
    path.write_bytes(b"x" * 100)
    call = session._connection.call

    async def grow_then_call(operations: list[dict[str, object]]) -> list[object]:
        with path.open("ab") as file:
            file.write(b"more")
        return await call(operations)  # type: ignore[arg-type]

    monkeypatch.setattr(session._connection, "call", grow_then_call)
    with pytest.raises(FileChangedError):
        await session.create_component(path)
    monkeypatch.undo()

    assert await components(session) == []
    assert session.recorded_operations == ()


async def test_a_file_removed_during_its_upload_is_uploaded_whole(
    session: AsyncSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The upload reads the descriptor that it opened, not the path."""
    path = tmp_path / "render.exr"
    path.write_bytes(b"x" * 100)
    call = session._connection.call

    async def remove_then_call(operations: list[dict[str, object]]) -> list[object]:
        path.unlink(missing_ok=True)
        return await call(operations)  # type: ignore[arg-type]

    monkeypatch.setattr(session._connection, "call", remove_then_call)
    component = await session.create_component(path)
    monkeypatch.undo()

    await session.download(component, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"x" * 100


async def test_a_file_that_is_rewritten_during_its_upload_registers_nothing(
    session: AsyncSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"x" * 100)
    written = path.stat().st_mtime_ns
    call = session._connection.call

    async def corrupt_then_call(operations: list[dict[str, object]]) -> list[object]:
        path.write_bytes(b"y" * 100)  # the same size and time, so that only the checksum differs
        os.utime(path, ns=(written, written))
        return await call(operations)  # type: ignore[arg-type]

    monkeypatch.setattr(session._connection, "call", corrupt_then_call)
    with pytest.raises(FileChangedError, match="written to"):
        await session.create_component(path)
    monkeypatch.undo()

    assert await components(session) == []


async def test_a_rejected_registration_removes_the_file(tmp_path: Path) -> None:
    async with (
        running(storage=tmp_path) as server,
        AsyncSession(server.url, server.api_key, server.api_user) as session,
    ):
        with pytest.raises(ServerError, match="version"):
            await session.create_component(b"x", {"version_id": "no such one"}, name="x.txt")

        assert await components(session) == []
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


async def test_an_html_page_is_no_response_to_an_upload(
    server: ServerHandle, session: AsyncSession
) -> None:
    """A proxy, for example, sends its login form with status 200."""
    server.faults.inject(HtmlPage(), on="uploads")
    component = await session.create_component(b"frames", name="a.txt")
    assert server.inspector.content(component.id) == b"frames"


@pytest.mark.other_client
async def test_a_cancelled_upload_registers_nothing(session: AsyncSession, tmp_path: Path) -> None:
    path = tmp_path / "big.bin"
    path.write_bytes(b"x" * (8 * CHUNK))

    for checkpoints in (1, 5, 20, 50):

        async def cancel(scope: anyio.CancelScope, count: int) -> None:
            for _ in range(count):
                await anyio.lowlevel.checkpoint()
            scope.cancel()

        async with anyio.create_task_group() as group:
            group.start_soon(cancel, group.cancel_scope, checkpoints)
            await session.create_component(path)

    assert await components(session) == []


@pytest.mark.other_client
async def test_a_missing_file_raises_and_leaves_nothing(
    session: AsyncSession, tmp_path: Path
) -> None:
    with pytest.raises(TransferError, match="no file"):
        await session.download("missing", tmp_path / "x")

    assert list(tmp_path.iterdir()) == []


async def test_a_download_replaces_an_existing_file_only_when_complete(
    session: AsyncSession, tmp_path: Path
) -> None:
    component = await session.create_component(b"new", name="a")
    target = tmp_path / "a"
    target.write_bytes(b"old")

    with pytest.raises(TransferError):
        await session.download("missing", target)
    assert target.read_bytes() == b"old"
    await session.download(component, target)

    assert target.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [target]


async def test_a_download_to_a_directory_or_a_missing_one_is_rejected(
    session: AsyncSession, tmp_path: Path
) -> None:
    component = await session.create_component(b"new", name="a")

    with pytest.raises(TransferError, match="directory"):
        await session.download(component, tmp_path)
    with pytest.raises(TransferError, match="cannot be written"):
        await session.download(component, tmp_path / "none" / "a")


async def test_the_checksum_is_that_of_the_content(tmp_path: Path) -> None:
    data = os.urandom(2 * CHUNK + 1)
    (tmp_path / "a").write_bytes(data)

    async with open_content(tmp_path / "a") as content:
        assert content.size == len(data)
        digest = hashlib.md5(data, usedforsecurity=False).digest()
        assert await content.checksum() == b64encode(digest).decode()


async def test_the_progress_of_an_attachment_is_that_of_the_job(
    session: AsyncSession, other: AsyncSession, tmp_path: Path
) -> None:
    (tmp_path / "plates").mkdir()
    (tmp_path / "plates" / "a.exr").write_bytes(bytes(3_000_000))

    async with job_context(session, description="plates") as job:
        component = await job.attach(tmp_path / "plates", report_progress=True)
        job.fail("looked at")

    after = await other.get(Job, job.id)
    assert after is not None
    assert "100 %, uploaded 2.9 MiB of 2.9 MiB" in str(after.description)
    assert (component.name, component.file_type) == ("plates", ".zip")
