"""Progress of many Jobs: written together, and at most once in an interval."""

from __future__ import annotations

import gc
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack

import anyio
import anyio.lowlevel
import pytest

from aioftrackjobs import AsyncSession, Job, job_context
from aioftrackjobs.commit.lane import GROUP_OPERATIONS
from aioftrackjobs.config.retry import NO_RETRIES
from aioftrackjobs.devserver import ServerHandle
from aioftrackjobs.errors import ConnectError
from aioftrackjobs.session import jobs_of
from aioftrackjobs.transport import Download, WireRequest, WireResponse

from ..tables import result_of
from .relay import Relay, Send
from .settings import connected
from .waiting import until

#: Longer than any test takes.
NEVER = 3600.0


class Wire:
    """Responds to each write, and counts the requests that carry progress."""

    def __init__(self) -> None:
        self.reports: list[list[str]] = []
        self.gate = anyio.Event()
        self.gate.set()
        self.reported = anyio.Event()
        self.away = False

    async def send(self, request: WireRequest) -> WireResponse:
        assert isinstance(request.body, bytes)
        operations = json.loads(request.body)
        texts = [each.get("entity_data", {}).get("data") or "{}" for each in operations]
        reports = [text for text in texts if "progress" in json.loads(text)]
        if reports:
            self.reports.append(reports)
            self.reported.set()
            await self.gate.wait()
            if self.away:
                raise ConnectError("away")
        odd = {"action": "query", "data": {}}  # it does not say what others have written
        results = [result_of(each) if "entity_key" in each else odd for each in operations]
        return WireResponse(200, json.dumps(results).encode())

    def stream(self, request: WireRequest) -> AbstractAsyncContextManager[Download]:
        raise NotImplementedError("it has no files")


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
async def session(wire: Wire) -> AsyncIterator[AsyncSession]:
    async with AsyncSession(
        "https://ftrack.test", "SECRET", "maya", retry=NO_RETRIES, transport=wire
    ) as opened:
        yield opened


@pytest.fixture
async def user(session: AsyncSession) -> object:
    made = session.create("User", {"username": "maya"})
    session.rollback()
    return made


async def turns(number: int = 30) -> None:
    for _ in range(number):
        await anyio.lowlevel.checkpoint()


@pytest.mark.asyncio_only  # on trio, the task that enters a block has to leave it
async def test_many_jobs_share_a_request_per_500_and_interval(
    session: AsyncSession, wire: Wire, user: Job
) -> None:
    number = 2 * GROUP_OPERATIONS + 10
    async with AsyncExitStack() as stack:
        jobs = []
        async with anyio.create_task_group() as group:

            async def enter() -> None:
                context = job_context(session, user=user, interval=3600)
                jobs.append(await stack.enter_async_context(context))

            for _ in range(number):
                group.start_soon(enter)
        for done in range(10):
            for job in jobs:
                job.progress(done, total=10)
        await until(lambda: sum(map(len, wire.reports)) >= number)
        for job in jobs:
            job.progress(1.0)
        await turns()

        assert [len(reports) for reports in wire.reports] == [
            GROUP_OPERATIONS,
            GROUP_OPERATIONS,
            10,
        ]
        assert {json.loads(text)["progress"] for text in wire.reports[0]} == {0.9}
        wire.reports.clear()
        await stack.aclose()
    written = {json.loads(text)["progress"] for reports in wire.reports for text in reports}
    assert written == {1.0}, "the final report has what came after the round"


async def test_reports_during_a_write_lead_to_one_more_write(
    session: AsyncSession, wire: Wire, user: Job
) -> None:
    wire.gate = anyio.Event()
    async with job_context(session, user=user, interval=0) as job:
        job.progress(0.001)
        await wire.reported.wait()
        for number in range(2, 1000):
            job.progress(number, total=1000)
            await anyio.lowlevel.checkpoint()
        assert len(wire.reports) == 1
        wire.reported = anyio.Event()
        wire.gate.set()
        await wire.reported.wait()
        await turns()
        assert [json.loads(text)["progress"] for (text,) in wire.reports] == [0.001, 0.999]


async def test_a_request_that_hangs_does_not_hold_up_other_jobs(
    session: AsyncSession, wire: Wire, user: Job
) -> None:
    async with (
        job_context(session, user=user, interval=0) as slow,
        job_context(session, user=user, interval=0) as other,
    ):
        gate = wire.gate = anyio.Event()
        slow.progress(0.1)
        await wire.reported.wait()
        wire.gate, wire.reported = anyio.Event(), anyio.Event()
        wire.gate.set()
        other.progress(0.2)
        await wire.reported.wait()
        assert len(wire.reports) == 2
        gate.set()


async def test_a_write_that_fails_is_logged_and_the_next_report_tries_again(
    session: AsyncSession, wire: Wire, user: Job, caplog: pytest.LogCaptureFixture
) -> None:
    async with job_context(session, user=user, interval=0) as job:
        wire.away = True
        job.progress(0.1)
        await until(lambda: "progress was not written" in caplog.text)
        wire.away, wire.reported = False, anyio.Event()
        job.progress(0.2)
        await wire.reported.wait()

    assert json.loads(wire.reports[1][0])["progress"] == 0.2


async def test_writes_that_fail_together_are_one_line_in_the_log(
    session: AsyncSession, wire: Wire, user: Job, caplog: pytest.LogCaptureFixture
) -> None:
    async with AsyncExitStack() as stack:
        contexts = [job_context(session, user=user, interval=0) for _ in range(20)]
        jobs = [await stack.enter_async_context(each) for each in contexts]
        wire.away = True
        for job in jobs:
            job.progress(0.1)
        await until(lambda: "progress was not written" in caplog.text)
        await turns()
        wire.away = False

    (message,) = [each.getMessage() for each in caplog.records if "progress" in each.getMessage()]
    assert message == "progress was not written for 20 Jobs; the work goes on: away"


async def test_writers_of_intervals_that_no_job_uses_are_forgotten(
    session: AsyncSession, wire: Wire, user: Job
) -> None:
    async def run(interval: float) -> None:
        async with job_context(session, user=user, interval=interval) as job:
            job.progress(0.5)

    for number in range(50):
        await run(number / 10_000)
    gc.collect()
    await run(0.5)

    assert len(jobs_of(session).progress) < 10
    assert wire.reports


async def test_a_job_that_has_ended_is_not_reported_any_more(
    session: AsyncSession, wire: Wire, user: Job
) -> None:
    async with job_context(session, user=user, interval=0) as job:
        job.progress(0.1)
        await wire.reported.wait()
        job.progress(0.2)  # written with the final status
    wire.reports.clear()
    job.progress(0.3)
    await turns()

    assert wire.reports == []


async def test_a_job_that_is_refused_is_written_apart_from_the_others(
    server: ServerHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Together with them, each round would be sent again and again in smaller parts."""
    monkeypatch.setattr("aioftrackjobs.jobs.channels._REFUSAL_PAUSE", NEVER)
    monkeypatch.setattr("aioftrackjobs.jobs.channels._LONGEST_REFUSAL_PAUSE", NEVER)
    rounds, refusals = 0, 0

    async def refuse(request: WireRequest, send: Send) -> WireResponse:
        nonlocal rounds, refusals
        body = request.body if isinstance(request.body, bytes) else b""
        if b'"update"' in body and b'"done"' not in body:
            if refused.id.encode() in body:
                refusals += 1
                return WireResponse(200, b'{"exception": "ValidationError", "content": "no"}')
            rounds += 1
        return await send(request)

    async with connected(server) as session, AsyncExitStack() as blocks:
        jobs = [
            await blocks.enter_async_context(job_context(session, interval=0.01)) for _ in range(8)
        ]
        refused = jobs[3]
        relay = Relay(session, refuse)

        async def report_until(condition: Callable[[], bool]) -> None:
            while not condition():
                for job in jobs:
                    job.progress(rounds % 100 / 100)
                await anyio.sleep(0.01)

        with anyio.fail_after(20):
            await report_until(lambda: refusals > 0 and rounds > 5)
            before, rounds = refusals, 0
            await report_until(lambda: rounds > 5)
        assert refusals == before
        relay.end()
