"""Requests that are applied after they were repeated, and after a newer commit."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from aioftrackjobs import AsyncSession, Job, TransportError, job_context
from aioftrackjobs.config.retry import RetryPolicy
from aioftrackjobs.devserver import ServerHandle
from aioftrackjobs.session import connection_of
from aioftrackjobs.transport import WireRequest, WireResponse

from .relay import Relay, Send
from .settings import connected
from .waiting import until

pytestmark = pytest.mark.every_loop

RETRY = RetryPolicy(first_delay=0.001)


@dataclass
class Slow:
    """Keeps the first request that has some bytes, and sends it when :meth:`arrive` is called."""

    contains: bytes
    kept: WireRequest | None = None
    send: Send | None = None
    requests: list[bytes] = field(default_factory=list)

    async def handle(self, request: WireRequest, send: Send) -> WireResponse:
        assert isinstance(request.body, bytes)
        self.requests.append(request.body)
        if self.kept is None and self.contains in request.body:
            self.kept, self.send = (
                WireRequest("POST", request.url, request.headers, request.body),
                send,
            )
            raise TransportError("no response in time")
        return await send(request)

    async def arrive(self) -> bytes:
        """Send it, and return what the server responds."""
        assert self.kept is not None
        assert self.send is not None
        return (await self.send(self.kept)).body


def status(server: ServerHandle, key: str) -> str:
    return str(server.inspector.job(key)["status"])


def is_now(server: ServerHandle, key: str, expected: str) -> Callable[[], bool]:
    return lambda: status(server, key) == expected


async def set_twice(session: AsyncSession, slow: Slow) -> Job:
    """Create a Job, and set a status whose response is lost, and another one."""
    job = session.create(Job, {"status": "queued"})
    await session.commit()
    Relay(session, slow.handle)
    for each in ("running", "done"):
        job["status"] = each
        await session.commit()
    return job


async def test_an_old_value_that_comes_back_late_is_overwritten(
    server: ServerHandle, caplog: pytest.LogCaptureFixture
) -> None:
    slow = Slow(b'"running"')
    async with connected(server, retry=RETRY, timeout=0.3) as session:
        job = await set_twice(session, slow)

        await slow.arrive()
        assert status(server, job.id) == "running"
        await until(is_now(server, job.id, "done"))

        await slow.arrive()  # once more, as after a proxy's own repetition
        await until(is_now(server, job.id, "done"))
    assert "was applied late" in caplog.text


async def test_what_another_client_sets_meanwhile_stays(
    server: ServerHandle, caplog: pytest.LogCaptureFixture
) -> None:
    slow = Slow(b'"running"')
    async with connected(server, retry=RETRY, timeout=0.3) as session, connected(server) as other:
        job = await set_twice(session, slow)
        theirs = await other.get(Job, job.id)
        assert theirs is not None
        theirs["status"] = "failed"
        await other.commit()
        seen = len(slow.requests)
        await until(lambda: len(slow.requests) >= seen + 3)  # three looks

        assert status(server, job.id) == "failed"
        caplog.clear()
    assert "applied late" not in caplog.text


async def test_a_late_create_of_what_was_deleted_is_deleted_again(server: ServerHandle) -> None:
    slow = Slow(b'"create"')
    async with connected(server, retry=RETRY, timeout=0.3) as session:
        Relay(session, slow.handle)
        job = session.create(Job, {"status": "queued"})
        await session.commit()
        session.delete(job)
        await session.commit()

        assert job.id.encode() in await slow.arrive()  # it is there again, perhaps not for long
        await until(lambda: server.inspector.jobs() == [])


async def test_a_finished_job_is_done_again_after_a_late_report(server: ServerHandle) -> None:
    slow = Slow(b"halfway")
    async with connected(server, retry=RETRY, timeout=0.3) as session:
        async with job_context(session, description="x", interval=0.01) as running:
            Relay(session, slow.handle)
            running.progress(0.5, "halfway")
            await until(lambda: slow.kept is not None)
        ended = server.inspector.job(running.id)

        await slow.arrive()
        assert server.inspector.job(running.id)["data"] != ended["data"]
        await until(lambda: server.inspector.job(running.id)["data"] == ended["data"])


async def test_a_session_that_closes_looks_once_more_and_says_what_may_change(
    server: ServerHandle, caplog: pytest.LogCaptureFixture
) -> None:
    slow = Slow(b'"running"')
    async with connected(server, retry=RETRY, timeout=60) as session:
        job = await set_twice(session, slow)
        await slow.arrive()

    assert status(server, job.id) == "done"
    assert f"bring back old values of Job({job.id})" in caplog.text


async def test_nothing_is_read_where_no_newer_value_is_at_risk(server: ServerHandle) -> None:
    slow = Slow(b'"running"')
    async with connected(server, retry=RETRY) as session:
        job = session.create(Job, {"status": "queued"})
        await session.commit()
        Relay(session, slow.handle)
        job["status"] = "running"
        await session.commit()
        sent = len(slow.requests)
        await connection_of(session).dispatcher.late_writes.look()

        assert len(slow.requests) == sent


async def test_commits_without_losses_leave_nothing_to_watch(
    server: ServerHandle, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with connected(server) as session:
        job = session.create(Job, {"status": "queued"})
        for each in ("running", "done"):
            await session.commit()
            job["status"] = each
        await session.commit()
    assert caplog.messages == []
