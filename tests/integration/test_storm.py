"""A storm of calls cancelled at random moments, and the calm after it.

A session's requests are owned by the session, so a cancelled caller cannot tear one down. Plain
httpx 0.28 has its callers own them, and its pool (httpcore 1.0.9) loses a slot when a request is
cancelled at the wrong moment: after a storm like this on one ``httpx.AsyncClient`` with its
default limits, later requests wait for a connection that never comes, and end in ``PoolTimeout``.

``AIOFTRACKJOBS_STORM`` is the number of cancelled calls; 10 000 for the full storm.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import httpcore
import httpx
import httpx2
import pytest

from aioftrackjobs import AsyncSession, FtrackJobsError, Job, JobStatus
from aioftrackjobs.devserver import ServerHandle
from aioftrackjobs.models import owner_of, remote_value
from aioftrackjobs.session import connection_of

from ..amounts import amount

STORM = amount(500, 10_000)
CALM = STORM // 10 if STORM < 10_000 else 1_000

#: Calls that are in progress at once.
CROWD = 50


class Crowd:
    """Callers of all kinds, and the Jobs they have made."""

    def __init__(self, session: AsyncSession, folder: Path) -> None:
        self.session = session
        self.folder = folder
        self.random = random.Random(4)
        self.jobs: list[Job] = []
        self.component = ""
        self.done = 0

    @property
    def calls(self) -> list[Callable[[], Awaitable[object]]]:
        """What callers do: commits most of the time."""
        return [
            *[self.create, self.change, self.delete] * 3,
            self.query,
            self.upload,
            self.download,
        ]

    async def create(self) -> None:
        async with self.session.unit_of_work():
            self.jobs.append(self.session.create(Job, {"data": "{}"}))

    async def change(self) -> None:
        job = self.any_job()
        if job is not None:
            async with self.session.unit_of_work():
                job.status = self.random.choice(list(JobStatus))

    async def delete(self) -> None:
        job = self.any_job()
        if job is not None and self.random.random() < 0.3:
            async with self.session.unit_of_work():
                self.session.delete(job)

    async def query(self) -> None:
        await self.session.query("select id from Job limit 20").all()

    async def upload(self) -> None:
        await self.session.create_component(b"some bytes", name="some.txt")

    async def download(self) -> None:
        await self.session.download(self.component, self.folder / f"{self.random.random()}")

    def any_job(self) -> Job | None:
        attached = [job for job in self.jobs[-30:] if owner_of(job) is not None]
        return self.random.choice(attached) if attached else None

    async def cancelled(self, call: Callable[[], Awaitable[object]]) -> None:
        """Make a *call* that is cancelled at a random moment, or else may be refused."""
        with anyio.move_on_after(self.random.choice([0, 0.0005, 0.002, 0.01, 0.05])):
            with suppress(FtrackJobsError):  # a Job that another caller has deleted
                await call()
        self.done += 1

    async def run(self, number: int, one: Callable[[], Awaitable[object]]) -> None:
        limiter = anyio.CapacityLimiter(CROWD)

        async def run_one() -> None:
            async with limiter:
                await one()

        async with anyio.create_task_group() as group:
            for _ in range(number):
                group.start_soon(run_one)


async def cancel_two(call: Callable[[], Coroutine[Any, Any, object]], turns: int) -> None:
    """Make two calls at once, and cancel both after so many turns of the event loop."""
    async with anyio.create_task_group() as group:
        for _ in range(2):
            group.start_soon(call)
        for _ in range(turns):
            await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()


@pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
async def test_two_cancelled_calls_do_not_block_the_connections(
    server: ServerHandle, library: Any
) -> None:
    """With plain httpx, two cancelled requests can take the only connection for ever."""
    options = {
        "limits": library.Limits(max_connections=1),
        "timeout": library.Timeout(10, pool=0.2),
    }
    async with library.AsyncClient(**options) as client:
        await cancel_two(lambda: client.get(server.url), turns=0)
        if library is httpx and httpcore.__version__ == "1.0.9":
            with pytest.raises(httpx.PoolTimeout):
                await client.get(server.url)

    async with (
        library.AsyncClient(**options) as client,
        AsyncSession(server.url, server.api_key, server.api_user, client=client) as session,
    ):
        for turns in range(30):  # wherever they are by then
            await cancel_two(session.query("User").all, turns)
            assert await session.query("select id from User limit 1").all()


@pytest.mark.long
async def test_after_a_storm_of_cancellations_the_session_is_as_it_was(
    session: AsyncSession, other: AsyncSession, tmp_path: Path
) -> None:
    crowd = Crowd(session, tmp_path)
    crowd.component = (await session.create_component(b"some bytes", name="some.txt")).id
    await crowd.run(STORM, lambda: crowd.cancelled(crowd.random.choice(crowd.calls)))
    assert crowd.done == STORM

    with anyio.fail_after(60 + STORM / 100):
        await crowd.run(CALM, crowd.create)
        await crowd.run(CALM // 10, crowd.upload)
        await crowd.run(CALM // 10, crowd.download)
        stored = {
            job.id: job for job in await other.query("select id, status from Job").of(Job).all()
        }

    for job in crowd.jobs[-CALM:]:
        assert job.id in stored
    for job in crowd.jobs:
        if owner_of(job) is None:  # deleted, or never created
            assert job.id not in stored
        else:
            assert not job._local
            assert remote_value(job, "status") == stored[job.id].status
    assert session.recorded_operations == session.uncertain_operations == ()
    dispatcher = connection_of(session).dispatcher
    assert dispatcher.is_idle


@pytest.mark.long
@pytest.mark.parametrize("sort", ["commit", "query"])
async def test_a_storm_on_a_client_with_few_connections_leaks_none(
    server: ServerHandle, tmp_path: Path, sort: str
) -> None:
    """A caller's client with a small pool, where a leaked connection soon matters."""
    limits = httpx.Limits(max_connections=4)
    async with httpx.AsyncClient(limits=limits, timeout=httpx.Timeout(10, pool=5)) as client:
        async with AsyncSession(
            server.url, server.api_key, server.api_user, client=client
        ) as session:
            crowd = Crowd(session, tmp_path)
            call = crowd.create if sort == "commit" else crowd.query
            await crowd.run(STORM // 4, lambda: crowd.cancelled(call))
            await crowd.run(CALM // 4, call)
        pool = client._transport._pool  # type: ignore[attr-defined]
        assert all(connection.is_idle() for connection in pool.connections)
        assert len(pool.connections) <= 4
