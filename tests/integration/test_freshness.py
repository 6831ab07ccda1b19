"""Which value an entity has when answers come in another order than they were asked for."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import anyio
import httpx
import pytest
from anyio.abc import ByteStream

from aioftrackjobs import AsyncSession, CommitUncertainError, Job, User
from aioftrackjobs.devserver import ServerHandle
from aioftrackjobs.devserver.faults import Drop
from aioftrackjobs.models import remote_value
from aioftrackjobs.retry import NO_RETRIES
from aioftrackjobs.session import context_of

from .wires import listening, receive_request, response


class Keeper:
    """Stands before a server, and keeps back answers until it is told to let them go.

    Attributes:
        about: Answers to requests that hold this are kept back.
        answered: The server has given such an answer.
        release: Lets them go.
    """

    def __init__(self, server: ServerHandle) -> None:
        self._url = server.url
        self.about: bytes | None = None
        self.answered = anyio.Event()
        self.release = anyio.Event()

    async def handle(self, stream: ByteStream) -> None:
        async with httpx.AsyncClient() as client:
            while True:
                request = await receive_request(stream)
                kept = {"host", "content-length", "connection"}
                headers = {k: v for k, v in request.headers.items() if k not in kept}
                answer = await client.post(
                    self._url + request.target, content=request.body, headers=headers
                )
                if self.about is not None and self.about in request.body:
                    self.answered.set()
                    await self.release.wait()
                await stream.send(response("200 OK", answer.content))


@pytest.fixture
def keeper(server: ServerHandle) -> Keeper:
    return Keeper(server)


@pytest.fixture
async def slow(server: ServerHandle, keeper: Keeper) -> AsyncIterator[AsyncSession]:
    """A session whose answers pass the keeper."""
    async with (
        listening(keeper.handle) as port,
        AsyncSession(f"http://127.0.0.1:{port}", server.api_key, server.api_user) as session,
    ):
        yield session


# Reads


async def query(session: AsyncSession, job: Job) -> None:
    (found,) = await session.query(expression(job)).all()
    assert found is job


async def get(session: AsyncSession, job: Job) -> None:
    assert await session.get(Job, job.id) is job


async def populate(session: AsyncSession, job: Job) -> None:
    await session.populate(job, "status, data")


async def call(session: AsyncSession, job: Job) -> None:
    await session.call([{"action": "query", "expression": expression(job)}])


def expression(job: Job) -> str:
    return f"select id, status, data from Job where id is {job.id}"


@pytest.mark.parametrize("read", [query, get, populate, call])
async def test_an_answer_that_is_older_than_a_write_does_not_undo_it(
    slow: AsyncSession,
    other: AsyncSession,
    keeper: Keeper,
    read: Callable[[AsyncSession, Job], Coroutine[Any, Any, None]],
) -> None:
    job = slow.create(Job, {"status": "queued", "data": "old"})
    await slow.commit()
    theirs = await other.get(Job, job.id)
    assert theirs is not None
    theirs["data"] = "theirs"
    await other.commit()

    keeper.about = b'"query"'
    async with anyio.create_task_group() as group:
        group.start_soon(read, slow, job)
        await keeper.answered.wait()
        job["status"] = "running"
        await slow.commit()
        keeper.release.set()

    assert job["status"] == "running"
    assert job["data"] == "theirs", "what was not written is brought up to date"


@pytest.mark.parametrize("read", [query, get, populate, call])
async def test_an_answer_that_is_older_than_a_later_read_does_not_undo_it(
    slow: AsyncSession,
    other: AsyncSession,
    keeper: Keeper,
    read: Callable[[AsyncSession, Job], Coroutine[Any, Any, None]],
) -> None:
    theirs = other.create(Job, {"status": "queued", "data": "old"})
    await other.commit()
    job = await slow.query(f"select id from Job where id is {theirs.id}").of(Job).one()
    keeper.about = b"order by id"
    async with anyio.create_task_group() as group:
        group.start_soon(slow.query("select id, status, data from Job order by id").all)
        await keeper.answered.wait()
        theirs["status"], theirs["data"] = "done", "new"
        await other.commit()
        await read(slow, job)
        keeper.release.set()

    assert (job["status"], job["data"]) == ("done", "new")


async def test_what_later_reads_do_not_bring_comes_from_the_earlier_one(
    slow: AsyncSession, other: AsyncSession, keeper: Keeper
) -> None:
    theirs = other.create(Job, {"status": "queued", "data": "old"})
    await other.commit()
    keeper.about = b"order by id"
    async with anyio.create_task_group() as group:
        group.start_soon(slow.query("select status, data, type from Job order by id").all)
        await keeper.answered.wait()
        theirs["status"], theirs["data"] = "done", "new"
        await other.commit()
        one = await slow.query(f"select status from Job where id is {theirs.id}").one()
        two = await slow.query(f"select data from Job where id is {theirs.id}").one()
        keeper.release.set()

    assert one is two
    assert (one["status"], one["data"], one["type"]) == ("done", "new", "api_job")
    theirs["status"] = "failed"
    await other.commit()
    assert (await slow.query("select status from Job").one())["status"] == "failed"


async def test_who_the_session_acts_as_is_a_read_too(slow: AsyncSession, keeper: Keeper) -> None:
    me = await slow.query("User where username is {name}", name=slow.api_user).of(User).one()
    keeper.about = b"limit 1"
    async with anyio.create_task_group() as group:
        group.start_soon(slow.current_user)
        await keeper.answered.wait()
        me["first_name"] = "New"
        await slow.commit()
        keeper.release.set()

    assert await slow.current_user() is me
    assert me.first_name == "New"


async def test_who_it_acts_as_is_asked_again_if_others_have_read_meanwhile(
    slow: AsyncSession, keeper: Keeper
) -> None:
    keeper.about = b"limit 1"
    async with anyio.create_task_group() as group:
        group.start_soon(slow.current_user)
        await keeper.answered.wait()
        me = await slow.query("User where username is {name}", name=slow.api_user).of(User).one()
        me["first_name"] = "New"
        await slow.commit()
        keeper.release.set()

    assert me.first_name == "New"


async def test_a_read_that_began_after_the_write_brings_what_others_wrote(
    slow: AsyncSession, other: AsyncSession, keeper: Keeper
) -> None:
    job = slow.create(Job, {"status": "queued"})
    await slow.commit()
    keeper.about = b"select username"
    async with anyio.create_task_group() as group:
        group.start_soon(slow.query("select username from User").all)
        await keeper.answered.wait()
        job["status"] = "running"
        await slow.commit()
        theirs = await other.get(Job, job.id)
        assert theirs is not None
        theirs["status"] = "done"
        await other.commit()

        await slow.query(expression(job)).all()
        assert job["status"] == "done"
        keeper.release.set()

    assert job["status"] == "done"


async def test_what_no_read_under_way_can_undo_is_forgotten(
    slow: AsyncSession, keeper: Keeper
) -> None:
    reads = context_of(slow).reads
    job = slow.create(Job, {"status": "queued"})
    await slow.commit()
    assert not reads.remembered_writes(), "nothing is remembered while nothing is read"

    keeper.about = b"select username"
    async with anyio.create_task_group() as group:
        group.start_soon(slow.query("select username from User").all)
        await keeper.answered.wait()
        for status in ("running", "done", "running"):
            job["status"] = status
            await slow.commit()
        assert reads.remembered_writes() == 1
        keeper.release.set()

    assert not reads.remembered_writes()
    assert not reads.open_reads


async def test_what_nobody_holds_is_forgotten_while_a_read_is_under_way(
    slow: AsyncSession, keeper: Keeper
) -> None:
    context = context_of(slow)
    keeper.about = b"select username"
    async with anyio.create_task_group() as group:
        group.start_soon(slow.query("select username from User").all)
        await keeper.answered.wait()
        for _ in range(10):
            async with slow.unit_of_work():
                slow.create(Job, {"status": "done"})
        gc.collect()
        assert len(context.identity) <= 1
        assert context.reads.remembered_writes() <= 2
        keeper.release.set()


# Commits


async def test_a_change_after_others_in_a_commit_is_what_stays(session: AsyncSession) -> None:
    """The server's answer to the create is older than the update that travels with it."""
    job = session.create(Job, {"status": "queued"})
    session.create(Job, {"status": "queued"})
    job["status"] = "running"
    await session.commit()

    assert job["status"] == "running"


async def test_a_create_that_is_found_late_does_not_undo_what_was_written_since(
    server: ServerHandle,
) -> None:
    async with AsyncSession(
        server.url, server.api_key, server.api_user, retry=NO_RETRIES
    ) as session:
        job = session.create(Job, {"status": "queued", "data": "old"})
        job["status"] = "running"
        server.faults.inject(Drop(applied=True), on="writes")
        with pytest.raises(CommitUncertainError) as caught:
            await session.commit()
        async with session.unit_of_work():
            job["status"] = "done"

        await caught.value.resolve()

        assert job["status"] == remote_value(job, "status") == "done"
        assert job["data"] == "old"
        assert session.recorded_operations == session.uncertain_operations == ()


async def test_an_update_that_is_sent_again_is_the_latest(
    server: ServerHandle, other: AsyncSession
) -> None:
    async with AsyncSession(
        server.url, server.api_key, server.api_user, retry=NO_RETRIES
    ) as session:
        job = session.create(Job, {"status": "queued"})
        await session.commit()
        job["status"] = "running"
        server.faults.inject(Drop(applied=True), on="writes")
        with pytest.raises(CommitUncertainError) as caught:
            await session.commit()
        async with session.unit_of_work():
            job["status"] = "done"

        await caught.value.resolve()

        theirs = await other.get(Job, job.id)
        assert theirs is not None
        assert job["status"] == theirs["status"] == "running"
