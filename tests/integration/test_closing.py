"""What becomes of Jobs, requests and transfers when their session is closed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import TaskStatus

from aioftrackjobs import (
    AsyncSession,
    FtrackJobsError,
    Job,
    JobStatus,
    RunningJob,
    SessionStateError,
    job_context,
)
from aioftrackjobs.config.timings import Timings
from aioftrackjobs.devserver import ServerHandle
from aioftrackjobs.session import connection_of
from aioftrackjobs.transport import WireRequest, WireResponse

from ..tables import turns
from .journals import entries, journaled
from .outages import OUTAGES, Outage, relayed
from .relay import Relay, Send
from .waiting import until

#: Seconds: a test that waits for so long exceeds its time limit.
NEVER = 600.0

#: Closing waits only for what has a limit of its own.
TIMES = Timings(closing_grace=NEVER, closing_wait=0.1, closing_linger=0.1)

REASON = "the session was closed while the Job was running"


def opened(server: ServerHandle, url: str | None = None, timings: Timings = TIMES) -> AsyncSession:
    return AsyncSession(url or server.url, server.api_key, server.api_user, timings=timings)


class Blocks:
    """Blocks of Jobs in tasks that are not cancelled when the session closes.

    Attributes:
        jobs: The Jobs that have begun.
        ends: What became of each block.
    """

    def __init__(self, group: anyio.abc.TaskGroup) -> None:
        self._group = group
        self.jobs: list[RunningJob] = []
        self.ends: list[BaseException | str] = []
        self.leave = anyio.Event()

    async def enter(
        self,
        session: AsyncSession,
        do: Callable[[RunningJob], Awaitable[object]] | None = None,
        *,
        grace: float = 10.0,
    ) -> RunningJob:
        """Enter a block that waits for :attr:`leave`, and then awaits *do*."""
        count = len(self.jobs)
        self._group.start_soon(self._run, session, do, grace)
        await until(lambda: len(self.jobs) > count)
        return self.jobs[-1]

    def cancel(self) -> None:
        """Cancel the tasks of all blocks."""
        self._group.cancel_scope.cancel()

    async def _run(
        self,
        session: AsyncSession,
        do: Callable[[RunningJob], Awaitable[object]] | None,
        grace: float,
    ) -> None:
        try:
            async with job_context(session, description="Render", grace=grace) as job:
                self.jobs.append(job)
                await self.leave.wait()
                if do is not None:
                    await do(job)
        except BaseException as exc:
            self.ends.append(exc)
            if not isinstance(exc, Exception):
                raise
        else:
            self.ends.append("left")


@asynccontextmanager
async def outliving(
    server: ServerHandle, *uses: Callable[[RunningJob], Awaitable[object]] | None
) -> AsyncIterator[Blocks]:
    """Give blocks whose session was closed, and let them be left; each awaits one of *uses*."""
    async with anyio.create_task_group() as group:
        blocks = Blocks(group)
        async with opened(server) as session:
            for use in uses:
                await blocks.enter(session, use)
        yield blocks
        blocks.leave.set()


class Gate:
    """Holds the requests of a session until it is opened."""

    def __init__(self, session: AsyncSession) -> None:
        self.arrived, self.open = anyio.Event(), anyio.Event()
        Relay(session, self._send)

    async def _send(self, request: WireRequest, send: Send) -> WireResponse:
        self.arrived.set()
        await self.open.wait()
        return await send(request)


def ends_of(server: ServerHandle, *jobs: RunningJob) -> list[tuple[str, str]]:
    found = [server.inspector.job(job.id) for job in jobs]
    return [(each["status"], each["data"]["description"]) for each in found]


async def close(session: AsyncSession) -> None:
    await session.__aexit__(None, None, None)


# Jobs that run


@pytest.mark.every_loop
async def test_jobs_that_run_fail_when_their_session_is_closed(
    server: ServerHandle, caplog: pytest.LogCaptureFixture
) -> None:
    async with outliving(server, None, None, None) as blocks:
        failed = ends_of(server, *blocks.jobs)

    assert failed == [("failed", f"Render - failed: {REASON}")] * 3
    assert all(job.id in caplog.text for job in blocks.jobs)
    assert ends_of(server, *blocks.jobs) == failed
    assert blocks.ends == ["left"] * 3


async def fail(_: RunningJob) -> None:
    raise ValueError("mine")


@pytest.mark.every_loop
async def test_a_block_that_is_left_after_that_raises_only_its_own_error(
    server: ServerHandle, caplog: pytest.LogCaptureFixture
) -> None:
    async with outliving(server, None, fail) as blocks:
        caplog.clear()

    assert {str(each) for each in blocks.ends} == {"left", "mine"}
    assert caplog.records == []


@pytest.mark.every_loop
async def test_a_block_that_is_cancelled_after_that_is_just_cancelled(
    server: ServerHandle, caplog: pytest.LogCaptureFixture
) -> None:
    async with outliving(server, None) as blocks:
        failed = ends_of(server, *blocks.jobs)
        caplog.clear()
        blocks.cancel()

    assert isinstance(blocks.ends[0], anyio.get_cancelled_exc_class())
    assert ends_of(server, *blocks.jobs) == failed
    assert caplog.records == []


async def test_in_such_a_block_progress_does_nothing_and_an_attachment_is_refused(
    server: ServerHandle, caplog: pytest.LogCaptureFixture
) -> None:
    async def use(job: RunningJob) -> None:
        job.progress(0.5, "half")
        assert job.entity.id == job.id
        async for _ in job.track([1, 2, 3]):
            pass
        with pytest.raises(SessionStateError, match="closed"):
            await job.attach(b"text", name="report.txt")

    async with outliving(server, use) as blocks:
        failed = ends_of(server, *blocks.jobs)
        caplog.clear()

    assert blocks.ends == ["left"]
    assert ends_of(server, *blocks.jobs) == failed
    assert caplog.records == []


@pytest.mark.every_loop
async def test_nested_jobs_all_fail(server: ServerHandle) -> None:
    inner: list[RunningJob] = []
    async with anyio.create_task_group() as group:
        blocks = Blocks(group)
        session = opened(server)

        async def nest(_: RunningJob) -> None:
            async with job_context(session, description="Render") as job:
                inner.append(job)
                await anyio.sleep_forever()

        async with session:
            await blocks.enter(session, nest)
            blocks.leave.set()
            await until(lambda: inner)
        failed = ends_of(server, *blocks.jobs, *inner)
        group.cancel_scope.cancel()

    assert failed == [("failed", f"Render - failed: {REASON}")] * 2


@pytest.mark.every_loop
async def test_a_joined_job_is_left_to_its_owner(
    server: ServerHandle, caplog: pytest.LogCaptureFixture
) -> None:
    async with anyio.create_task_group() as group, opened(server) as owner:
        left = anyio.Event()

        async def join(session: AsyncSession, *, task_status: TaskStatus[None]) -> None:
            async with job_context(session, job=job.id, join=True) as joined:
                joined.progress(0.5, "half")
                task_status.started()
                await left.wait()
                joined.progress(0.6, "more")

        async with job_context(owner, description="Render") as job:
            async with opened(server) as session:
                await group.start(join, session)
            assert ends_of(server, job) == [("running", "Render (50 %, half)")]
            caplog.clear()
            left.set()

    assert ends_of(server, job) == [("done", "Render")]
    assert caplog.records == []


async def test_a_reason_that_the_block_has_given_is_kept(server: ServerHandle) -> None:
    async with anyio.create_task_group() as group:
        blocks = Blocks(group)
        async with opened(server) as session:
            job = await blocks.enter(session)
            job.fail("2 frames are missing")
        blocks.leave.set()

    assert ends_of(server, job) == [("failed", "Render - failed: 2 frames are missing")]


async def test_the_final_status_waits_in_the_journal_if_the_server_is_away(
    server: ServerHandle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "jobs.journal"
    async with relayed(server.url) as line, anyio.create_task_group() as group:
        blocks = Blocks(group)
        session = AsyncSession(line.url, server.api_key, server.api_user, journal=path)
        async with session:
            job = await blocks.enter(session, grace=0.1)
            await line.begin("refuses")
        blocks.leave.set()
        assert REASON in str(entries(path)[job.id])
        await line.end(group)

        async with AsyncSession(line.url, server.api_key, server.api_user, journal=path):
            await until(lambda: ends_of(server, job)[0][0] == "failed")
        group.cancel_scope.cancel()

    assert ends_of(server, job) == [("failed", f"Render - failed: {REASON}")]


# Jobs that begin or end


@pytest.mark.every_loop
async def test_closing_waits_for_a_job_that_ends(server: ServerHandle) -> None:
    async with anyio.create_task_group() as group:
        blocks = Blocks(group)
        async with opened(server) as session:
            await blocks.enter(session)
            gate = Gate(session)
            blocks.leave.set()
            await gate.arrived.wait()
            group.start_soon(_open_during_closing, gate, session)

    assert ends_of(server, *blocks.jobs) == [("done", "Render")]
    assert blocks.ends == ["left"]


async def _open_during_closing(gate: Gate, session: AsyncSession) -> None:
    await until(lambda: connection_of(session).is_closing)
    await turns()
    gate.open.set()


@pytest.mark.every_loop
async def test_a_job_whose_beginning_closing_interrupts_is_refused_and_fails(
    server: ServerHandle,
) -> None:
    errors: list[Exception] = []

    async def begin(session: AsyncSession) -> None:
        with pytest.raises(SessionStateError, match="closed") as caught:
            async with job_context(session, description="Render"):
                pytest.fail("the block was entered")
        errors.append(caught.value)

    async with anyio.create_task_group() as group:
        async with opened(server) as session:
            await session.current_user()
            gate = Gate(session)
            group.start_soon(begin, session)
            await gate.arrived.wait()
            group.start_soon(_open_during_closing, gate, session)

    assert len(errors) == 1
    (job,) = server.inspector.jobs()
    assert (job["status"], job["data"]["description"]) == ("failed", f"Render - failed: {REASON}")


async def test_a_job_that_is_begun_by_its_id_fails_too_if_closing_interrupts_that(
    server: ServerHandle, other: AsyncSession
) -> None:
    queued = other.create(
        Job,
        {
            "user": await other.current_user(),
            "status": "queued",
            "data": '{"description": "Render"}',
        },
    )
    await other.commit()

    async def begin(session: AsyncSession) -> None:
        with pytest.raises(SessionStateError, match="closed"):
            async with job_context(session, job=queued.id):
                pytest.fail("the block was entered")

    async with anyio.create_task_group() as group, opened(server) as session:
        group.start_soon(begin, session)
        # It is read back after a while, in which no request is in progress.
        await until(lambda: server.inspector.job(queued)["status"] == "running")

    job = server.inspector.job(queued)
    assert (job["status"], job["data"]["description"]) == ("failed", f"Render - failed: {REASON}")


@pytest.mark.every_loop
async def test_a_job_that_begins_while_the_session_closes_is_refused(server: ServerHandle) -> None:
    async with anyio.create_task_group() as group:
        blocks = Blocks(group)
        session = await opened(server).__aenter__()
        await blocks.enter(session)
        gate = Gate(session)
        group.start_soon(close, session)
        await gate.arrived.wait()
        with pytest.raises(SessionStateError, match="closed"):
            async with job_context(session):
                pytest.fail("the block was entered")
        gate.open.set()
        blocks.leave.set()

    assert len(server.inspector.jobs()) == 1


# How long it takes


async def in_each_outage(check: Callable[[Outage], Coroutine[Any, Any, None]]) -> None:
    """Await *check* in all outages beside each other, because it mostly waits."""
    async with anyio.create_task_group() as group:
        for outage in OUTAGES:
            group.start_soon(check, outage)


@pytest.mark.other_client
async def test_the_grace_of_the_jobs_bounds_closing_in_an_outage(server: ServerHandle) -> None:
    ends: dict[Outage, list[BaseException | str]] = {}

    async def check(outage: Outage) -> None:
        async with relayed(server.url) as line, anyio.create_task_group() as group:
            blocks = Blocks(group)
            session = await opened(server, line.url).__aenter__()
            for _ in range(3):
                job = await blocks.enter(session, grace=0.1)
                job.progress(0.5)
            await line.begin(outage)
            await close(session)
            blocks.leave.set()
        ends[outage] = blocks.ends

    await in_each_outage(check)
    assert ends == dict.fromkeys(OUTAGES, ["left"] * 3)


@pytest.mark.other_client
async def test_a_job_ends_within_its_grace_in_an_outage_and_closing_does_not_wait(
    server: ServerHandle,
) -> None:
    async def check(outage: Outage) -> None:
        async with relayed(server.url) as line:
            session = await opened(server, line.url).__aenter__()
            with pytest.raises(FtrackJobsError):
                async with job_context(session, grace=0.1) as job:
                    job.progress(0.5)
                    await line.begin(outage)
            await close(session)

    await in_each_outage(check)


@pytest.mark.other_client
async def test_closing_gives_up_what_forgotten_tasks_cannot_send(server: ServerHandle) -> None:
    errors: dict[Outage, list[FtrackJobsError]] = {outage: [] for outage in OUTAGES}

    async def commit(session: AsyncSession, outage: Outage) -> None:
        async with session.unit_of_work() as unit:
            session.create("Job", {"user_id": "x"})
            try:
                await unit.commit()
            except FtrackJobsError as exc:
                errors[outage].append(exc)
                unit.rollback()

    async def check(outage: Outage) -> None:
        # What the server that hangs has received is given up after the grace of closing.
        times = replace(TIMES, closing_grace=0.2) if outage == "hangs" else TIMES
        async with relayed(server.url) as line, anyio.create_task_group() as group:
            session = await opened(server, line.url, times).__aenter__()
            await session.current_user()
            await line.begin(outage)
            for _ in range(12):
                group.start_soon(commit, session, outage)
            await until(lambda: session.health.commits_queued + session.health.commits_sent >= 12)
            await close(session)

    await in_each_outage(check)
    assert {outage: len(found) for outage, found in errors.items()} == dict.fromkeys(OUTAGES, 12)


async def test_closing_gives_up_transfers_of_forgotten_tasks(server: ServerHandle) -> None:
    sending = anyio.Event()

    async def hold_files(request: WireRequest, send: Send) -> WireResponse:
        if request.method == "PUT":
            sending.set()
            await anyio.sleep_forever()
        return await send(request)

    async def attach(job: RunningJob) -> None:
        await job.attach(b"text", name="report.txt")

    async with anyio.create_task_group() as group:
        blocks = Blocks(group)
        session = await opened(server).__aenter__()
        await blocks.enter(session, attach)
        Relay(session, hold_files)
        blocks.leave.set()
        await sending.wait()
        await close(session)

    assert ends_of(server, *blocks.jobs) == [("failed", f"Render - failed: {REASON}")]
    assert isinstance(blocks.ends[0], SessionStateError)


# Who closes, and how


@pytest.mark.every_loop
async def test_closing_that_is_cancelled_goes_on_to_its_end(server: ServerHandle) -> None:
    async with anyio.create_task_group() as group:
        blocks = Blocks(group)
        session = await opened(server).__aenter__()
        await blocks.enter(session)
        gate = Gate(session)
        with anyio.CancelScope() as scope:
            group.start_soon(_cancel_then_open, gate, scope)
            await close(session)
            await anyio.lowlevel.checkpoint()
        failed = ends_of(server, *blocks.jobs)
        blocks.leave.set()

    assert scope.cancelled_caught
    assert failed == [("failed", f"Render - failed: {REASON}")]


async def _cancel_then_open(gate: Gate, scope: anyio.CancelScope) -> None:
    await gate.arrived.wait()
    scope.cancel()
    await turns()
    gate.open.set()


@pytest.mark.every_loop
async def test_an_error_closes_the_session_and_comes_out(server: ServerHandle) -> None:
    async with anyio.create_task_group() as group:
        blocks = Blocks(group)
        with pytest.raises(ValueError, match="mine"):
            async with opened(server) as session:
                await blocks.enter(session)
                raise ValueError("mine")
        failed = ends_of(server, *blocks.jobs)
        blocks.leave.set()

    assert failed == [("failed", f"Render - failed: {REASON}")]


@pytest.mark.every_loop
async def test_two_tasks_may_close_a_session_at_once_and_neither_has_opened_it(
    server: ServerHandle, caplog: pytest.LogCaptureFixture
) -> None:
    async with anyio.create_task_group() as group:
        blocks = Blocks(group)
        session = await opened(server).__aenter__()
        await blocks.enter(session)
        async with anyio.create_task_group() as closing:
            closing.start_soon(close, session)
            closing.start_soon(close, session)
        failed = ends_of(server, *blocks.jobs)
        blocks.leave.set()

    assert failed == [("failed", f"Render - failed: {REASON}")]
    assert caplog.text.count(blocks.jobs[0].id) == 1


async def test_the_journal_forgets_jobs_that_closing_has_ended(
    server: ServerHandle, tmp_path: Path
) -> None:
    path = tmp_path / "jobs.journal"
    async with anyio.create_task_group() as group:
        blocks = Blocks(group)
        async with journaled(server, path) as session:
            await blocks.enter(session)
        assert entries(path) == {}
        blocks.leave.set()

    assert JobStatus(server.inspector.job(blocks.jobs[0].id)["status"]) is JobStatus.FAILED


async def test_the_warning_of_many_jobs_names_some_and_their_number(
    server: ServerHandle, caplog: pytest.LogCaptureFixture
) -> None:
    async with anyio.create_task_group() as group:
        blocks = Blocks(group)
        async with opened(server) as session:
            for _ in range(30):
                await blocks.enter(session)
        blocks.leave.set()
    (text,) = (each.getMessage() for each in caplog.records if "is closed while" in each.msg)
    assert text.count("<Job ") == 10
    assert text.endswith(" and 20 more")
