"""Uploads that are cancelled or refused: how soon they end, and what they leave."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest

from aioftrackjobs import (
    AsyncSession,
    CommitUncertainError,
    DuplicateEntryError,
    FileComponent,
    FtrackJobsError,
    JobDeletedError,
    ServerError,
    job_context,
)
from aioftrackjobs.config.retry import NO_RETRIES, RetryPolicy
from aioftrackjobs.config.timings import Timings
from aioftrackjobs.devserver import ServerHandle, running
from aioftrackjobs.errors import ConnectError, TransportError
from aioftrackjobs.journal import Entry, Owner, this_process
from aioftrackjobs.journal._file import JournalFile
from aioftrackjobs.protocol.upload import PartSizes
from aioftrackjobs.session import context_of, jobs_of
from aioftrackjobs.testing import BadGateway, Drop, Hang, NotAtomic, Refuse, SeenRequest
from aioftrackjobs.transfers.upload import upload
from aioftrackjobs.transport import WireRequest, WireResponse

from .journals import DEAD, entries, journaled
from .relay import Relay, Send
from .waiting import until


class Studio:
    """A server whose files can be listed."""

    def __init__(self, handle: ServerHandle, folder: Path) -> None:
        self.handle = handle
        self._folder = folder

    def left(self) -> list[object]:
        """Return the files, and the entities of uploads."""
        found: list[object] = [path.name for path in self._folder.iterdir()]
        for kind in ("Component", "ComponentLocation", "JobComponent"):
            found += self.handle.inspector.find(kind)
        return found

    @asynccontextmanager
    async def session(self, **options: Any) -> AsyncIterator[AsyncSession]:
        server = self.handle
        async with AsyncSession(server.url, server.api_key, server.api_user, **options) as session:
            yield session


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Studio]:
    async with running(storage=folder) as handle:
        yield Studio(handle, folder / "components")


@pytest.fixture
async def studio(tmp_path: Path) -> AsyncIterator[Studio]:
    async with opened(tmp_path / "files") as made:
        yield made


def announces(request: SeenRequest) -> bool:
    return any(each["action"] == "get_upload_metadata" for each in request.operations)


def registers(request: SeenRequest) -> bool:
    return any(each["action"] == "create" for each in request.operations)


def completes(request: SeenRequest) -> bool:
    return any(each["action"] == "complete_multipart_upload" for each in request.operations)


async def cancel_upload(session: AsyncSession, is_reached: Callable[[], object]) -> None:
    """Start an upload, cancel it at a point, and wait for its end."""
    sizes = PartSizes((), largest=1000, fewest=3)
    body = bytes(5000)
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: upload(context_of(session), body, data={}, name="a", sizes=sizes))
        await until(is_reached)
        group.cancel_scope.cancel()


# Cancelled


STAGES: dict[str, Any] = {
    "announced": announces,
    "sent": "uploads",
    "completed": completes,
    "registered": registers,
}


@pytest.mark.other_client
async def test_a_cancelled_upload_leaves_nothing(tmp_path: Path) -> None:
    left: dict[tuple[str, bool], list[object]] = {}

    async def check(stage: str, applied: bool) -> None:
        async with opened(tmp_path / f"{stage} {applied}") as studio:
            faults = studio.handle.faults
            # The first request of that stage gets no response, until the session gives up waiting.
            faults.inject(Hang(applied=applied), on=STAGES[stage])
            async with studio.session(timeout=0.7, retry=RetryPolicy(first_delay=0.01)) as session:
                await cancel_upload(session, lambda: faults.injected)
                with suppress(TimeoutError):
                    await until(lambda: studio.left() == [])
            left[stage, applied] = studio.left()

    async with anyio.create_task_group() as group:  # each of them mostly waits
        for stage in STAGES:
            group.start_soon(check, stage, False)
            group.start_soon(check, stage, True)

    assert left == {(stage, applied): [] for stage in STAGES for applied in (False, True)}


async def test_a_server_that_never_responds_delays_no_cancellation(studio: Studio) -> None:
    """It ends long before the time limit of this test."""
    async with studio.session(timeout=600, timings=Timings(closing_grace=0.1)) as session:
        gone = anyio.Event()

        async def hang(request: WireRequest, send: Send) -> WireResponse:
            if b"create" in (request.body if isinstance(request.body, bytes) else b""):
                gone.set()
            if gone.is_set():
                await anyio.sleep_forever()
            return await send(request)

        Relay(session, hang)
        await cancel_upload(session, gone.is_set)
    assert gone.is_set()


@pytest.mark.parametrize("kind", [ConnectError, TransportError])
async def test_what_cannot_be_removed_is_noted_and_removed_by_a_later_session(
    studio: Studio, tmp_path: Path, kind: type[FtrackJobsError]
) -> None:
    path = tmp_path / "jobs.journal"
    async with journaled(studio.handle, path, timings=Timings(closing_grace=0.2)) as session:
        away = anyio.Event()

        async def lose(request: WireRequest, send: Send) -> WireResponse:
            if b"create" in (request.body if isinstance(request.body, bytes) else b""):
                away.set()
            if away.is_set():
                raise kind("away")
            return await send(request)

        Relay(session, lose)
        await cancel_upload(session, away.is_set)

    (noted,) = entries(path)
    assert studio.left() == [noted]
    async with journaled(studio.handle, path, timings=Timings(last_request_delay=0.0)):
        await until(lambda: studio.left() == [])
    assert entries(path) == {}


async def test_what_cannot_be_removed_at_once_is_removed_later(studio: Studio) -> None:
    studio.handle.faults.inject(Refuse("ValidationError"), on=registers)
    studio.handle.faults.inject(BadGateway(), on=lambda request: "remove" in request.path, times=3)
    async with studio.session(retry=RetryPolicy(first_delay=0.01)) as session:
        with pytest.raises(ServerError, match="Refused"):
            await session.create_component(b"abc", name="a.txt")
        await until(lambda: studio.left() == [])
    assert len(studio.handle.faults.injected) == 4


async def test_a_server_that_forbids_removals_is_a_warning(
    studio: Studio, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "jobs.journal"
    studio.handle.faults.inject(Refuse("ValidationError"), on=registers)
    async with journaled(studio.handle, path) as session:

        async def forbid(request: WireRequest, send: Send) -> WireResponse:
            return WireResponse(403, b"") if "remove" in request.url else await send(request)

        Relay(session, forbid)
        with pytest.raises(ServerError, match="Refused"):
            await session.create_component(b"abc", name="a.txt")
    assert entries(path).keys() == set(studio.left())
    assert "does not remove the file" in caplog.text


# Refused


async def _attached_to_a_deleted_job(session: AsyncSession) -> None:
    with pytest.raises(JobDeletedError):
        async with job_context(session, description="x", attach_traceback=False) as job:
            async with session.unit_of_work() as unit:
                session.delete(job.entity)
                await unit.commit()
            with pytest.raises(JobDeletedError, match=job.id):
                await job.attach(b"abc", name="a.txt")


async def test_a_file_for_a_job_that_is_deleted_leaves_nothing(studio: Studio) -> None:
    async with studio.session() as session:
        await _attached_to_a_deleted_job(session)
        assert studio.left() == []


async def test_what_a_server_keeps_of_a_refused_registration_is_deleted(studio: Studio) -> None:
    """It does not roll back: component and location exist, and the link does not."""
    async with studio.session() as session:
        studio.handle.faults.inject(NotAtomic())
        await _attached_to_a_deleted_job(session)
        assert studio.left() == []
    assert [type(each.fault) for each in studio.handle.faults.injected] == [NotAtomic]


async def test_a_file_is_attached_by_one_commit(studio: Studio) -> None:
    async with studio.session() as session, job_context(session) as job:
        commits: list[list[str]] = []

        async def note(request: WireRequest, send: Send) -> WireResponse:
            if isinstance(request.body, bytes):
                found = [each.get("entity_type") for each in json.loads(request.body)]
                commits.extend([found] if "FileComponent" in found else [])
            return await send(request)

        Relay(session, note)
        await job.attach(b"abc", name="a.txt")
    assert commits == [["FileComponent", "ComponentLocation", "JobComponent"]]


@pytest.mark.parametrize("applied", [True, False])
async def test_an_uncertain_registration_is_settled_by_its_error(
    studio: Studio, tmp_path: Path, applied: bool
) -> None:
    path = tmp_path / "jobs.journal"
    studio.handle.faults.inject(Drop(applied=applied), on=registers)
    async with journaled(studio.handle, path, retry=NO_RETRIES) as session:
        with pytest.raises(CommitUncertainError) as caught:
            await session.create_component(b"abc", name="a.txt")
        (noted,) = entries(path)
        if applied:
            await caught.value.resolve()
            assert await session.get(FileComponent, noted) is not None
            assert studio.handle.inspector.content(noted) == b"abc"
        else:
            studio.handle.faults.inject(Refuse("ValidationError"), on=registers)
            with pytest.raises(ServerError, match="Refused"):
                await caught.value.resolve()
            assert studio.left() == []
    assert entries(path) == {}


async def test_no_upload_overwrites_the_file_of_another_component(studio: Studio) -> None:
    async with studio.session() as session:
        component = await session.create_component(b"first", name="a.txt")
        with pytest.raises(DuplicateEntryError, match=component.id):
            await session.create_component(b"second", {"id": component.id}, name="a.txt")
        assert studio.handle.inspector.content(component.id) == b"first"


# Noted


async def test_a_file_that_was_not_sent_needs_no_removal(studio: Studio) -> None:
    async with studio.session() as session:
        studio.handle.faults.inject(Refuse("ValidationError"), on=announces)
        removals: list[str] = []

        async def note(request: WireRequest, send: Send) -> WireResponse:
            removals.extend([request.url] if "remove" in request.url else [])
            return await send(request)

        Relay(session, note)
        with pytest.raises(ServerError, match="Refused"):
            await session.create_component(b"abc", name="a.txt")
    assert removals == []


async def test_uploads_that_a_session_left_are_removed_by_the_next_one(
    studio: Studio, tmp_path: Path
) -> None:
    """Also if the process of the first one lives on."""
    path = tmp_path / "jobs.journal"
    owner = Owner("ended", this_process(), studio.handle.url, studio.handle.api_user)
    file = JournalFile(path, owner)
    left = [Entry("upload", "0" * 32, "ended", 1.0), Entry("job", "1" * 32, "ended", 1.0)]
    file.write(time.time(), left, [])
    file.end()
    file.close()
    async with journaled(studio.handle, path, timings=Timings(last_request_delay=0.0)) as session:
        assert await jobs_of(session).replay.deliver()
    assert entries(path).keys() == {"1" * 32}


PAGE = {"content-type": "text/html; charset=utf-8"}
REFUSAL = b'{"exception": "EntityNotFoundError", "content": "There is no file."}'


@pytest.mark.parametrize(
    ("response", "is_gone"),
    [
        pytest.param(WireResponse(200, b"{}"), True, id="removed"),
        pytest.param(WireResponse(204, b""), True, id="removed, without content"),
        pytest.param(WireResponse(404, REFUSAL), True, id="the server has no such file"),
        pytest.param(WireResponse(410, REFUSAL), True, id="it has it no more"),
        pytest.param(WireResponse(404, b""), False, id="404 of a gateway"),
        pytest.param(WireResponse(404, b"<h1>Not found</h1>", PAGE), False, id="404 page"),
        pytest.param(WireResponse(404, b"[]"), False, id="404, and another JSON"),
        pytest.param(WireResponse(200, b"sign in", PAGE), False, id="page"),
        pytest.param(WireResponse(200, b" \n<!DOCTYPE html>"), False, id="page of no type"),
        pytest.param(WireResponse(302, b"", {"location": "/login"}), False, id="redirection"),
        pytest.param(WireResponse(400, REFUSAL), False, id="400"),
        pytest.param(WireResponse(401, b""), False, id="401"),
        pytest.param(WireResponse(403, b""), False, id="403"),
        pytest.param(WireResponse(408, b""), False, id="408"),
        pytest.param(WireResponse(429, b"", {"retry-after": "1"}), False, id="429"),
        pytest.param(WireResponse(503, b"<html>", PAGE), False, id="503"),
    ],
)
async def test_only_the_server_itself_knows_that_a_file_is_gone(
    studio: Studio, tmp_path: Path, response: WireResponse, is_gone: bool
) -> None:
    path = tmp_path / "jobs.journal"
    leave_upload(studio, path)
    timings = Timings(last_request_delay=0.0)
    async with journaled(
        studio.handle, path, timings=timings, retry=RetryPolicy(first_delay=0.01)
    ) as session:
        tried = 0

        async def respond(request: WireRequest, send: Send) -> WireResponse:
            nonlocal tried
            if "remove" not in request.url:
                return await send(request)
            tried += 1
            return response if tried < 3 else await send(request)

        Relay(session, respond)
        await until(lambda: entries(path) == {})
    assert tried == (1 if is_gone else 3)


async def test_a_removal_that_is_refused_for_long_is_given_up(
    studio: Studio, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "jobs.journal"
    leave_upload(studio, path)
    timings = Timings(last_request_delay=0.0, refusal_limit=0.2)
    async with journaled(
        studio.handle, path, timings=timings, retry=RetryPolicy(first_delay=0.01)
    ) as session:

        async def forbid(request: WireRequest, send: Send) -> WireResponse:
            return WireResponse(403, b"") if "remove" in request.url else await send(request)

        Relay(session, forbid)
        await until(lambda: entries(path) == {})
    assert caplog.text.count("does not remove the file") == 1


def leave_upload(studio: Studio, path: Path) -> None:
    """Leave an upload in a journal, as a process that was killed in the midst of it."""
    file = JournalFile(path, Owner("dead", DEAD, studio.handle.url, studio.handle.api_user))
    file.write(time.time(), [Entry("upload", "0" * 32, "dead", 1.0)], [])
    file.close()
