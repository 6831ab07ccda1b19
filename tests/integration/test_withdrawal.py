"""A cancelled request that was not sent is withdrawn, whatever it waits for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import ByteStream

from aioftrackjobs import AsyncSession, Job, User
from aioftrackjobs.commit.dispatcher import MAX_REQUESTS
from aioftrackjobs.devserver import ServerHandle
from aioftrackjobs.devserver.faults.kinds import TooManyRequests
from aioftrackjobs.session import connection_of

from .outages import Line, relayed
from .settings import connected
from .waiting import until
from .wires import listening

#: More than the requests that a session has in progress at once.
MANY = MAX_REQUESTS + 4

Away: TypeAlias = Callable[[ServerHandle], Any]


@asynccontextmanager
async def not_connected(server: ServerHandle) -> AsyncIterator[str]:
    """A server whose backlog is full: connections are neither accepted nor refused."""
    async with relayed(server.url) as line:
        await line.begin("accepts nothing")
        yield line.url


@asynccontextmanager
async def refused(server: ServerHandle) -> AsyncIterator[str]:
    async with relayed(server.url) as line:
        await line.begin("refuses")
        yield line.url


@asynccontextmanager
async def no_handshake(_: ServerHandle) -> AsyncIterator[str]:
    """A server that accepts connections, and never responds to a TLS handshake."""

    async with listening(_swallow) as port:
        yield f"https://127.0.0.1:{port}"


@asynccontextmanager
async def no_tunnel(_: ServerHandle) -> AsyncIterator[str]:
    """A proxy that is asked for a tunnel, and never responds."""
    async with listening(_swallow) as port:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
            patch.setenv("NO_PROXY", "127.0.0.1")
            yield "https://ftrack.invalid"


async def _swallow(stream: ByteStream) -> None:
    async for _ in stream:
        pass


@asynccontextmanager
async def retry_after(server: ServerHandle) -> AsyncIterator[str]:
    """A server that asks not to be called for half a minute."""
    server.faults.inject(TooManyRequests(30), on="calls", probability=1.0)
    yield server.url


WAYS: list[Away] = [not_connected, refused, no_handshake, no_tunnel, retry_after]


def is_idle(session: AsyncSession) -> bool:
    dispatcher = connection_of(session).dispatcher
    return dispatcher.is_idle and not dispatcher._ordinary._workers


async def commit(session: AsyncSession) -> None:
    session.create(Job, {"user_id": "x"})
    await session.commit()


async def query(session: AsyncSession) -> None:
    await session.query("User").all()


async def call(session: AsyncSession) -> None:
    await session.call([{"action": "query", "expression": "select id from User"}])


async def create_with_a_chosen_key(session: AsyncSession) -> None:
    session.create(Job, {"id": "mine", "user_id": "x"})
    await session.commit()


async def ensure(session: AsyncSession) -> None:
    await session.ensure(User, {"username": "maya"})


@pytest.mark.parametrize("way", WAYS)
async def test_a_cancelled_request_that_was_not_sent_is_withdrawn_at_once(
    server: ServerHandle, way: Away
) -> None:
    left: dict[str, int] = {}

    async def check(url: str, do: Callable[[AsyncSession], Coroutine[Any, Any, None]]) -> None:
        async with connected(server, url) as session:
            for _ in range(MANY):
                with anyio.move_on_after(0.02) as scope:
                    async with session.unit_of_work():
                        await do(session)
                assert scope.cancelled_caught, do.__name__
            await until(lambda: is_idle(session))
            left[do.__name__] = session.health.commits_sent + session.health.commits_queued

    acts = (commit, query, call, ensure, create_with_a_chosen_key)
    async with way(server) as url, anyio.create_task_group() as group:
        for do in acts:
            group.start_soon(check, url, do)

    assert left == {do.__name__: 0 for do in acts}


@pytest.mark.other_client
async def test_many_at_once_are_withdrawn_and_their_operations_are_pending_again(
    server: ServerHandle,
) -> None:
    pending: dict[str, list[int]] = {way.__name__: [] for way in WAYS}

    async def work(session: AsyncSession, way: Away) -> None:
        async with session.unit_of_work() as unit:
            session.create(Job, {"user_id": "x"})
            with anyio.move_on_after(0.1):
                await unit.commit()
            await unit.settled()  # some had been sent, and were refused
            pending[way.__name__].append(len(unit.recorded_operations))
            unit.rollback()

    async def check(way: Away) -> None:
        async with way(server) as url, connected(server, url, group_commit=False) as session:
            async with anyio.create_task_group() as group:
                for _ in range(MANY):
                    group.start_soon(work, session, way)
            await until(lambda: is_idle(session))

    async with anyio.create_task_group() as group:
        for way in WAYS:
            group.start_soon(check, way)

    assert pending == {way.__name__: [1] * MANY for way in WAYS}


@pytest.mark.other_client
async def test_what_was_withdrawn_is_not_applied_when_the_server_is_back(
    server: ServerHandle,
) -> None:
    async with (
        relayed(server.url) as line,
        connected(server, line.url) as session,
        anyio.create_task_group() as group,
    ):
        user = await session.current_user()
        await line.begin("refuses")
        job = session.create(Job, {"user": user})
        with anyio.move_on_after(0.05):
            await session.commit()
        job["status"] = "failed"
        await line.end(group)
        await session.current_user()
        assert await session.query("Job").all() == []

        await session.commit()
        group.cancel_scope.cancel()

    assert [each["status"] for each in server.inspector.jobs()] == ["failed"]


@pytest.mark.every_loop
async def test_of_a_group_that_connects_only_what_was_withdrawn_is_not_sent(
    server: ServerHandle,
) -> None:
    withdrawn: list[int] = []

    async def work(session: AsyncSession, number: int, cancelled: anyio.Event) -> None:
        async with session.unit_of_work() as unit:
            session.create(Job, {"user_id": user_id, "data": f'{{"description": "{number}"}}'})
            with anyio.CancelScope() as scope:
                if number % 2:
                    scope.deadline = anyio.current_time() + 0.1
                await unit.commit()
            if scope.cancelled_caught:
                withdrawn.append(len(unit.recorded_operations))
                cancelled.set()
                unit.rollback()

    async with relayed(server.url) as line:
        async with connected(server) as other:
            user_id = (await other.current_user()).id
        await line.begin("accepts nothing")
        async with (
            connected(server, line.url) as session,
            anyio.create_task_group() as group,
        ):
            async with anyio.create_task_group() as commits:
                cancelled = anyio.Event()
                for number in range(6):
                    commits.start_soon(work, session, number, cancelled)
                await cancelled.wait()
                await until(lambda: len(withdrawn) == 3)
                await line.end(group)
            group.cancel_scope.cancel()

    assert withdrawn == [1] * 3
    assert sorted(each["description"] for each in server.inspector.jobs()) == ["0", "2", "4"]


async def hang_with(
    status: str, line: Line, session: AsyncSession, group: anyio.abc.TaskGroup
) -> Job:
    """Let a task commit *status* to a new Job until a server that hangs has the request."""
    job = session.create(Job, {"user": await session.current_user()})
    await session.commit()
    await line.begin("hangs")
    requests = line.requests
    job["status"] = status
    group.start_soon(session.commit)
    await until(lambda: line.requests > requests)
    return job


@pytest.mark.other_client
async def test_a_commit_behind_one_that_hangs_is_withdrawn(server: ServerHandle) -> None:
    async with (
        relayed(server.url) as line,
        connected(server, line.url) as session,
    ):
        async with anyio.create_task_group() as group:
            job = await hang_with("running", line, session, group)
            requests = line.requests
            async with session.unit_of_work() as unit:
                job["status"] = "failed"
                with anyio.move_on_after(0.05):
                    await unit.commit()
                assert len(unit.recorded_operations) == 1
                unit.rollback()
            assert session.health.commits_queued == 0
            group.cancel_scope.cancel()
        assert line.requests == requests


@pytest.mark.other_client
async def test_what_was_sent_is_settled_although_its_caller_is_cancelled(
    server: ServerHandle,
) -> None:
    async with (
        relayed(server.url) as line,
        connected(server, line.url) as session,
        anyio.create_task_group() as group,
    ):
        async with anyio.create_task_group() as commits:
            await hang_with("failed", line, session, commits)
            commits.cancel_scope.cancel()
        assert session.recorded_operations == ()

        await line.end(group)
        await until(lambda: is_idle(session))
        group.cancel_scope.cancel()

    assert [each["status"] for each in server.inspector.jobs()] == ["failed"]
