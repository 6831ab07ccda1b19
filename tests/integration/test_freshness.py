"""Which value an entity has if responses arrive in another order than their requests."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import anyio
import httpx
import pytest
from anyio.abc import ByteStream

from aioftrackjobs import AsyncSession, CommitUncertainError, Job, User
from aioftrackjobs.config.retry import NO_RETRIES
from aioftrackjobs.devserver import ServerHandle
from aioftrackjobs.devserver.faults.kinds import Drop
from aioftrackjobs.models import remote_value
from aioftrackjobs.session import context_of

from .wires import listening, receive_request, response


class DelayingProxy:
    """A proxy that delays the responses to some requests.

    Attributes:
        delays: Responses to requests that contain this text are delayed.
        delayed: An event: the server has sent such a response.
        release: An event that ends the delay.
    """

    def __init__(self, server: ServerHandle) -> None:
        self._url = server.url
        self.delays: bytes | None = None
        self.delayed = anyio.Event()
        self.release = anyio.Event()

    async def handle(self, stream: ByteStream) -> None:
        async with httpx.AsyncClient() as client:
            while True:
                request = await receive_request(stream)
                replaced = {"host", "content-length", "connection"}
                headers = {k: v for k, v in request.headers.items() if k not in replaced}
                forwarded = await client.post(
                    self._url + request.target, content=request.body, headers=headers
                )
                if self.delays is not None and self.delays in request.body:
                    self.delayed.set()
                    await self.release.wait()
                await stream.send(response("200 OK", forwarded.content))


@pytest.fixture
def proxy(server: ServerHandle) -> DelayingProxy:
    return DelayingProxy(server)


@pytest.fixture
async def slow(server: ServerHandle, proxy: DelayingProxy) -> AsyncIterator[AsyncSession]:
    """A session that connects through the delaying proxy."""
    async with (
        listening(proxy.handle) as port,
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
async def test_a_response_that_is_older_than_a_write_does_not_overwrite_it(
    slow: AsyncSession,
    other: AsyncSession,
    proxy: DelayingProxy,
    read: Callable[[AsyncSession, Job], Coroutine[Any, Any, None]],
) -> None:
    job = slow.create(Job, {"status": "queued", "data": "old"})
    await slow.commit()
    theirs = await other.get(Job, job.id)
    assert theirs is not None
    theirs["data"] = "theirs"
    await other.commit()

    proxy.delays = b'"query"'
    async with anyio.create_task_group() as group:
        group.start_soon(read, slow, job)
        await proxy.delayed.wait()
        job["status"] = "running"
        await slow.commit()
        proxy.release.set()

    assert job["status"] == "running"
    assert job["data"] == "theirs", "what was not written is brought up to date"


@pytest.mark.parametrize("read", [query, get, populate, call])
async def test_a_response_that_is_older_than_a_later_read_does_not_overwrite_it(
    slow: AsyncSession,
    other: AsyncSession,
    proxy: DelayingProxy,
    read: Callable[[AsyncSession, Job], Coroutine[Any, Any, None]],
) -> None:
    theirs = other.create(Job, {"status": "queued", "data": "old"})
    await other.commit()
    job = await slow.query(f"select id from Job where id is {theirs.id}").of(Job).one()
    proxy.delays = b"order by id"
    async with anyio.create_task_group() as group:
        group.start_soon(slow.query("select id, status, data from Job order by id").all)
        await proxy.delayed.wait()
        theirs["status"], theirs["data"] = "done", "new"
        await other.commit()
        await read(slow, job)
        proxy.release.set()

    assert (job["status"], job["data"]) == ("done", "new")


async def test_attributes_that_later_reads_do_not_load_come_from_the_earlier_one(
    slow: AsyncSession, other: AsyncSession, proxy: DelayingProxy
) -> None:
    theirs = other.create(Job, {"status": "queued", "data": "old"})
    await other.commit()
    proxy.delays = b"order by id"
    async with anyio.create_task_group() as group:
        group.start_soon(slow.query("select status, data, type from Job order by id").all)
        await proxy.delayed.wait()
        theirs["status"], theirs["data"] = "done", "new"
        await other.commit()
        one = await slow.query(f"select status from Job where id is {theirs.id}").one()
        two = await slow.query(f"select data from Job where id is {theirs.id}").one()
        proxy.release.set()

    assert one is two
    assert (one["status"], one["data"], one["type"]) == ("done", "new", "api_job")
    theirs["status"] = "failed"
    await other.commit()
    assert (await slow.query("select status from Job").one())["status"] == "failed"


async def test_loading_the_current_user_is_a_read(slow: AsyncSession, proxy: DelayingProxy) -> None:
    me = await slow.query("User where username is {name}", name=slow.api_user).of(User).one()
    proxy.delays = b"limit 1"
    async with anyio.create_task_group() as group:
        group.start_soon(slow.current_user)
        await proxy.delayed.wait()
        me["first_name"] = "New"
        await slow.commit()
        proxy.release.set()

    assert await slow.current_user() is me
    assert me.first_name == "New"


async def test_a_late_response_with_the_current_user_does_not_overwrite_later_reads(
    slow: AsyncSession, proxy: DelayingProxy
) -> None:
    proxy.delays = b"limit 1"
    async with anyio.create_task_group() as group:
        group.start_soon(slow.current_user)
        await proxy.delayed.wait()
        me = await slow.query("User where username is {name}", name=slow.api_user).of(User).one()
        me["first_name"] = "New"
        await slow.commit()
        proxy.release.set()

    assert me.first_name == "New"


async def test_a_read_that_is_sent_after_the_write_loads_what_others_wrote(
    slow: AsyncSession, other: AsyncSession, proxy: DelayingProxy
) -> None:
    job = slow.create(Job, {"status": "queued"})
    await slow.commit()
    proxy.delays = b"select username"
    async with anyio.create_task_group() as group:
        group.start_soon(slow.query("select username from User").all)
        await proxy.delayed.wait()
        job["status"] = "running"
        await slow.commit()
        theirs = await other.get(Job, job.id)
        assert theirs is not None
        theirs["status"] = "done"
        await other.commit()

        await slow.query(expression(job)).all()
        assert job["status"] == "done"
        proxy.release.set()

    assert job["status"] == "done"


async def test_writes_that_no_open_read_can_overwrite_are_forgotten(
    slow: AsyncSession, proxy: DelayingProxy
) -> None:
    reads = context_of(slow).reads
    job = slow.create(Job, {"status": "queued"})
    await slow.commit()
    assert not reads.remembered_writes(), "nothing is remembered while nothing is read"

    proxy.delays = b"select username"
    async with anyio.create_task_group() as group:
        group.start_soon(slow.query("select username from User").all)
        await proxy.delayed.wait()
        for status in ("running", "done", "running"):
            job["status"] = status
            await slow.commit()
        assert reads.remembered_writes() == 1
        proxy.release.set()

    assert not reads.remembered_writes()
    assert not reads.open_reads


async def test_entities_without_references_are_forgotten_while_a_read_is_open(
    slow: AsyncSession, proxy: DelayingProxy
) -> None:
    context = context_of(slow)
    proxy.delays = b"select username"
    async with anyio.create_task_group() as group:
        group.start_soon(slow.query("select username from User").all)
        await proxy.delayed.wait()
        for _ in range(10):
            async with slow.unit_of_work():
                slow.create(Job, {"status": "done"})
        gc.collect()
        assert len(context.identity) <= 1
        assert context.reads.remembered_writes() <= 2
        proxy.release.set()


# Commits


async def test_the_last_change_in_a_commit_stays(session: AsyncSession) -> None:
    """The response to the create has an older value than the update in the same request."""
    job = session.create(Job, {"status": "queued"})
    session.create(Job, {"status": "queued"})
    job["status"] = "running"
    await session.commit()

    assert job["status"] == "running"


async def test_a_create_that_is_found_late_does_not_overwrite_later_writes(
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


async def test_an_update_that_is_sent_again_is_the_latest_write(
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
