"""The server without a socket: the same behaviour and faults, on each event loop."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anyio
import httpx
import pytest

from aioftrackjobs import (
    AsyncSession,
    CommitUncertainError,
    Job,
    TransferError,
    job_context,
)
from aioftrackjobs.config.retry import NO_RETRIES
from aioftrackjobs.testing import (
    BadGateway,
    Corrupt,
    Delay,
    Drop,
    FakeServer,
    Hang,
    Restart,
    SeenRequest,
    Throttle,
    TooManyRequests,
    Truncate,
)

from .waiting import until


@pytest.fixture(params=["asyncio", "trio"], scope="module")
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with FakeServer(seed=1) as server:
        yield server


async def _publish(session: AsyncSession) -> None:
    async with job_context(session, description="Publish") as job:
        job.progress(0.5)
        await job.attach(b"bytes of a report", name="report.txt")


async def test_session_works_as_on_a_socket(fake: FakeServer) -> None:
    async with fake.session() as session:
        await _publish(session)
        (job,) = fake.jobs()
        copy = await session.query("FileComponent").one()

    assert (job["status"], job["description"]) == ("done", "Publish")
    assert [file["name"] for file in job["attachments"]] == ["report.txt"]
    assert fake.content(job["attachments"][0]["id"]) == b"bytes of a report"
    assert copy["id"] == job["attachments"][0]["id"]


@pytest.mark.parametrize(
    ("fault", "on"),
    [
        pytest.param(Drop(), "writes", id="drop"),
        pytest.param(Drop(applied=True), "writes", id="drop-after"),
        pytest.param(Drop(applied=True), "uploads", id="drop-after-upload"),
        pytest.param(Truncate(), "writes", id="truncate"),
        pytest.param(BadGateway(applied=True), "writes", id="bad-gateway"),
        pytest.param(TooManyRequests(retry_after=0), "writes", id="too-many"),
        pytest.param(Delay(0.05), "any", id="delay"),
        pytest.param(Throttle(100_000), "uploads", id="throttle"),
        pytest.param(Restart(0.05), "writes", id="restart"),
    ],
)
async def test_job_ends_as_done_whatever_happens_once(
    fake: FakeServer, fault: Any, on: Any
) -> None:
    fake.faults.inject(fault, on=on)

    async with fake.session() as session:
        await _publish(session)

    (job,) = fake.jobs()
    assert job["status"] == "done"
    assert [fake.content(file["id"]) for file in job["attachments"]] == [b"bytes of a report"]
    assert [each.fault for each in fake.faults.injected] == [fault]


async def test_corrupted_upload_never_becomes_an_attachment(fake: FakeServer) -> None:
    fake.faults.inject(Corrupt(), times=3)  # as often as it is sent
    async with fake.session() as session:
        with pytest.raises(TransferError, match=r"report\.txt"):
            await _publish(session)

    (job,) = fake.jobs()
    assert job["status"] == "failed"
    assert "report.txt" not in [file["name"] for file in job["attachments"]]


async def test_client_gives_up_waiting(fake: FakeServer) -> None:
    fake.faults.inject(Hang())
    with anyio.fail_after(20):
        async with fake.client(timeout=0.05) as client:
            with pytest.raises(httpx.TimeoutException):
                await client.get("/")

    async with fake.client() as client:
        assert (await client.get("/")).status_code == 200


async def test_lost_response_without_retries_is_an_uncertain_commit(fake: FakeServer) -> None:
    fake.faults.inject(Drop(applied=True), on="writes", times=5)
    async with fake.session(retry=NO_RETRIES) as session:
        session.create(Job, {"user": await session.current_user()})
        with pytest.raises(CommitUncertainError):
            await session.commit()

    assert len(fake.jobs()) == 1


async def test_cancelled_request_leaves_the_server_usable(fake: FakeServer) -> None:
    fake.faults.inject(Hang())
    async with fake.client() as client:
        async with anyio.create_task_group() as group:
            group.start_soon(client.get, "/")
            await until(lambda: fake.faults.injected)
            group.cancel_scope.cancel()

        assert (await client.get("/")).status_code == 200


async def test_big_files_pass_both_ways(fake: FakeServer, tmp_path: Any) -> None:
    content = bytes(range(256)) * 50_000
    path = tmp_path / "film.mov"
    path.write_bytes(content)
    async with fake.session() as session:
        component = await session.create_component(path)
        copy = await session.download(component, tmp_path / "copy.mov")

    assert copy.read_bytes() == content


async def test_other_users_and_contents(fake: FakeServer) -> None:
    async with AsyncSession(*fake.credentials_of("maya"), client=fake.client()) as session:
        await _publish(session)

    assert [job["user"] for job in fake.jobs()] == ["maya"]
    with pytest.raises(LookupError, match=r"no user 'nobody' has an API key; .*maya"):
        fake.credentials_of("nobody")
    with FakeServer(empty=True) as other:
        assert other.find("Project") == []


async def test_announcing_an_upload_is_tried_again(fake: FakeServer) -> None:
    def announces(request: SeenRequest) -> bool:
        return any(each["action"] == "get_upload_metadata" for each in request.operations)

    fake.faults.inject(Drop(applied=True), on=announces, times=2)
    async with fake.session() as session:
        await _publish(session)

    assert [job["status"] for job in fake.jobs()] == ["done"]
    assert len(fake.faults.injected) == 2
