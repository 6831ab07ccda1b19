"""The end of a Job, and of a commit, while other things happen at the same time."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import tempfile
from collections.abc import AsyncIterator

import anyio
import httpx
import pytest

from aioftrackjobs import AsyncSession, Job, JobStatus, RunningJob, job_context
from aioftrackjobs.config.retry import NO_RETRIES, RetryPolicy
from aioftrackjobs.config.timings import Timings
from aioftrackjobs.devserver import ServerHandle
from aioftrackjobs.devserver.faults.kinds import Drop
from aioftrackjobs.session import connection_of, context_of
from aioftrackjobs.transport import WireRequest, WireResponse

from ..tables import result_of
from .relay import Relay, Send
from .waiting import until


class Slow:
    """Holds a session's requests until the test opens the gate."""

    def __init__(self, session: AsyncSession) -> None:
        self.gate = anyio.Event()
        self.arrived = anyio.Event()
        Relay(session, self._wait_and_send)

    async def _wait_and_send(self, request: WireRequest, send: Send) -> WireResponse:
        self.arrived.set()
        await self.gate.wait()
        return await send(request)


async def status_of(session: AsyncSession, job: RunningJob) -> JobStatus | str:
    found = await session.get(Job, job.id)
    assert found is not None
    return found.status


@pytest.mark.every_client
@pytest.mark.asyncio_only
@pytest.mark.parametrize("cancels", [1, 2, 3])
async def test_a_cancellation_by_asyncio_does_not_interrupt_a_final_status(
    session: AsyncSession, other: AsyncSession, cancels: int
) -> None:
    begun: list[RunningJob] = []
    inside = anyio.Event()

    async def work() -> None:
        async with job_context(session, description="x") as job:
            begun.append(job)
            inside.set()
            await asyncio.sleep(3600)

    task = asyncio.create_task(work())
    await inside.wait()
    slow = Slow(session)
    task.cancel()
    await slow.arrived.wait()
    for _ in range(cancels - 1):
        task.cancel()
        await asyncio.sleep(0)
    slow.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert await status_of(other, begun[0]) is JobStatus.FAILED


@pytest.mark.every_client
@pytest.mark.asyncio_only
async def test_a_timeout_that_fires_during_the_end_leaves_the_job_done(
    session: AsyncSession, other: AsyncSession
) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(None) as timeout:
            async with job_context(session) as job:
                slow = Slow(session)
                timeout.reschedule(asyncio.get_running_loop().time() + 0.05)
                asyncio.get_running_loop().call_later(0.2, slow.gate.set)

    assert await status_of(other, job) is JobStatus.DONE


@pytest.mark.every_client
@pytest.mark.asyncio_only
async def test_the_blocks_error_is_the_context_of_a_cancellation_during_the_end(
    session: AsyncSession, other: AsyncSession
) -> None:
    begun: list[RunningJob] = []
    slow: list[Slow] = []

    async def work() -> None:
        async with job_context(session) as job:
            begun.append(job)
            slow.append(Slow(session))
            raise ValueError("mine")

    task = asyncio.create_task(work())
    await until(lambda: slow)
    await slow[0].arrived.wait()
    task.cancel()
    await asyncio.sleep(0)
    slow[0].gate.set()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task

    assert isinstance(caught.value.__context__, ValueError)
    assert await status_of(other, begun[0]) is JobStatus.FAILED


@pytest.mark.every_client
@pytest.mark.filterwarnings("ignore:Async generator '.*stream':ResourceWarning")  # trio reports it
@pytest.mark.parametrize("how", ["aclose", "dropped"])
async def test_an_abandoned_async_generator_fails_its_job(
    session: AsyncSession, other: AsyncSession, how: str
) -> None:
    begun: list[RunningJob] = []

    async def stream() -> AsyncIterator[int]:
        async with job_context(session, description="stream") as job:
            begun.append(job)
            yield 1
            yield 2

    generator = stream()
    assert await anext(generator) == 1
    if how == "aclose":
        await generator.aclose()  # type: ignore[attr-defined]
    else:
        del generator
        gc.collect()

    async def has_failed() -> bool:
        return await status_of(other, begun[0]) == JobStatus.FAILED

    await until(has_failed)


@pytest.mark.every_client
async def test_closing_the_session_waits_for_jobs_that_are_ending(
    server: ServerHandle, other: AsyncSession
) -> None:
    begun: list[RunningJob] = []
    inside, scope = anyio.Event(), anyio.CancelScope()

    async with (
        anyio.create_task_group() as group,
        AsyncSession(server.url, server.api_key, server.api_user) as session,
    ):

        async def work() -> None:
            with scope:
                async with job_context(session) as job:
                    begun.append(job)
                    inside.set()
                    await anyio.sleep_forever()

        group.start_soon(work)
        await inside.wait()
        scope.cancel()

    assert await status_of(other, begun[0]) is JobStatus.FAILED


@pytest.mark.parametrize(
    "text", [os.fsdecode(b"frame\xff.exr"), "bad \udc80", "nul \0", "{braces} %s"]
)
async def test_a_job_ends_with_any_text_in_its_description(
    session: AsyncSession, other: AsyncSession, text: str
) -> None:
    async with job_context(session, description=text) as done:
        done.progress(0.5, text)
    async with job_context(session) as failed:
        failed.fail(text)
    with pytest.raises(ZeroDivisionError):
        async with job_context(session) as raised:
            raise ZeroDivisionError(text)

    assert await status_of(other, done) is JobStatus.DONE
    assert await status_of(other, failed) is JobStatus.FAILED
    assert await status_of(other, raised) is JobStatus.FAILED


async def test_a_job_ends_although_its_data_cannot_be_written_again(
    session: AsyncSession, other: AsyncSession
) -> None:
    async with job_context(session) as job:
        found = await other.get(Job, job.id)
        assert found is not None
        found["data"] = '{"theirs": "\\ud800"}'
        await other.commit()
        await session.populate(job.entity, "data")

    after = await other.get(Job, job.id)
    assert after is not None
    assert after.status is JobStatus.DONE


async def test_a_full_disk_does_not_hide_the_blocks_error(
    session: AsyncSession, other: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nonexistent")
    with pytest.raises(ZeroDivisionError):
        async with job_context(session) as job:
            raise ZeroDivisionError

    assert await status_of(other, job) is JobStatus.FAILED


@pytest.mark.every_client
async def test_a_report_that_hangs_does_not_overwrite_the_final_status(
    session: AsyncSession, other: AsyncSession
) -> None:
    hung = anyio.Event()
    go_on = anyio.Event()

    async def hang_on_progress(request: WireRequest, send: Send) -> WireResponse:
        assert isinstance(request.body, bytes)
        (operation, *_) = json.loads(request.body)
        if operation.get("entity_data", {}).keys() == {"__entity_type__", "data"} and not (
            hung.is_set()
        ):
            hung.set()
            await go_on.wait()
        return await send(request)

    Relay(session, hang_on_progress)
    with pytest.raises(ValueError, match="late"):
        async with job_context(
            session, description="x", grace=1.5, interval=0, attach_traceback=False
        ) as job:
            job.progress(0.5)
            await hung.wait()
            raise ValueError("late")
    assert await status_of(other, job) is JobStatus.FAILED
    go_on.set()

    with anyio.fail_after(10):
        while True:
            found = await other.get(Job, job.id)
            assert found is not None
            if not connection_of(session).dispatcher.is_idle:
                await anyio.lowlevel.checkpoint()
                continue
            if found.description == "x (50 %) - failed: ValueError: late":
                break
            await anyio.lowlevel.checkpoint()


# Units of work at the same time


async def test_many_attempts_to_send_a_final_status_fit_into_its_grace(
    server: ServerHandle, other: AsyncSession
) -> None:
    policy = RetryPolicy(budget=1000, first_delay=100, longest_delay=100)
    timings = Timings(expedited_pause=0.01)
    async with AsyncSession(
        server.url, server.api_key, server.api_user, retry=policy, timings=timings
    ) as session:
        with anyio.fail_after(20):
            async with job_context(session, description="x") as job:
                server.faults.inject(Drop(), times=3)
    assert not server.faults.planned
    assert await status_of(other, job) is JobStatus.DONE


async def test_a_response_shortens_all_pauses(server: ServerHandle, session: AsyncSession) -> None:
    """A response shows that the server is back, so a waiting request is retried at once."""
    policy = RetryPolicy(budget=1000, first_delay=100, longest_delay=100)
    timings = Timings(expedited_pause=0.01)
    async with AsyncSession(
        server.url, server.api_key, server.api_user, retry=policy, timings=timings
    ) as waiting:
        server.faults.inject(Drop(), on="writes")
        waiting.create("User", {"username": "late"})
        with anyio.fail_after(20):
            async with anyio.create_task_group() as group:
                group.start_soon(waiting.commit)
                await until(lambda: waiting.health.failing_since is not None)
                await waiting.query("select id from User").first()
    assert await session.query('User where username is "late"').one()


async def test_units_do_not_overtake_each_other_on_one_entity(
    session: AsyncSession, other: AsyncSession
) -> None:
    job = session.create(Job, {})
    await session.commit()
    slow = Slow(session)
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:

            async def first() -> None:
                async with session.unit_of_work():
                    job.status = JobStatus.RUNNING

            group.start_soon(first)
            await slow.arrived.wait()
            scope.cancel()

    async def second() -> None:
        async with session.unit_of_work():
            job.status = JobStatus.FAILED

    async with anyio.create_task_group() as group:
        group.start_soon(second)
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        slow.gate.set()

    found = await other.get(Job, job.id)
    assert found is not None
    assert found.status is JobStatus.FAILED


@pytest.mark.every_client
async def test_a_withdrawn_commit_keeps_the_order_of_the_others(
    session: AsyncSession, other: AsyncSession
) -> None:
    job = session.create(Job, {})
    await session.commit()
    slow = Slow(session)

    async def set_status(status: JobStatus) -> None:
        async with session.unit_of_work():
            job.status = status

    async with anyio.create_task_group() as group:
        group.start_soon(set_status, JobStatus.RUNNING)
        await slow.arrived.wait()
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as inner:
                inner.start_soon(set_status, JobStatus.DONE)
                for _ in range(10):
                    await anyio.lowlevel.checkpoint()
                scope.cancel()
        group.start_soon(set_status, JobStatus.FAILED)
        for _ in range(10):
            await anyio.lowlevel.checkpoint()
        slow.gate.set()

    found = await other.get(Job, job.id)
    assert found is not None
    assert found.status is JobStatus.FAILED
    assert connection_of(session).dispatcher.is_idle


async def test_a_rollback_during_a_commit_that_is_refused_is_not_undone() -> None:
    arrived, go_on = anyio.Event(), anyio.Event()

    async def refuse(request: httpx.Request) -> httpx.Response:
        arrived.set()
        await go_on.wait()
        return httpx.Response(200, json={"exception": "ValidationError", "content": "no"})

    async with (
        httpx.AsyncClient(transport=httpx.MockTransport(refuse)) as client,
        AsyncSession(
            "http://ftrack.test", "key", "user", client=client, retry=NO_RETRIES
        ) as session,
    ):
        job = session.create(Job, {"status": "running"})
        async with anyio.create_task_group() as group:
            group.start_soon(session.commit)
            await arrived.wait()
            group.cancel_scope.cancel()
        session.rollback()
        go_on.set()
        await context_of(session).tasks.to_act_on().settled()

        assert session.recorded_operations == ()
        job["status"] = "done"
        assert session.recorded_operations == ()


async def test_recording_in_a_unit_that_has_ended_is_refused(session: AsyncSession) -> None:
    go_on = anyio.Event()

    async def outlive() -> None:
        await go_on.wait()
        with pytest.raises(Exception, match="has ended"):
            session.create("Job", {})

    async with anyio.create_task_group() as group:
        async with session.unit_of_work():
            group.start_soon(outlive)
        go_on.set()


# An error of one caller affects no other


async def test_a_value_that_cannot_be_encoded_ends_no_other_request(
    session: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    dispatcher = connection_of(session).dispatcher
    with pytest.raises(Exception, match="cannot be sent"):
        await dispatcher.call([{"action": "query", "expression": object()}])  # type: ignore[dict-item]

    assert await session.query("User").all()


@pytest.mark.every_client
async def test_a_clients_own_failure_is_an_error_and_ends_nothing() -> None:
    calls = 0

    def fail(_: httpx.Request) -> httpx.Response:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise RuntimeError("a bug in a transport")
        return httpx.Response(200, json=[{"version": "dev"}])

    async with (
        httpx.AsyncClient(transport=httpx.MockTransport(fail)) as client,
        AsyncSession(
            "http://ftrack.test", "key", "user", client=client, retry=NO_RETRIES
        ) as session,
    ):
        with pytest.raises(Exception, match="RuntimeError"):
            await session.server_information()
        assert await session.server_information() == {"version": "dev"}


@pytest.mark.every_client
async def test_a_closed_client_is_an_error_and_nothing_is_uncertain() -> None:
    client = httpx.AsyncClient()
    await client.aclose()
    async with AsyncSession(
        "http://ftrack.test", "key", "user", client=client, retry=NO_RETRIES
    ) as session:
        session.create(Job, {})
        with pytest.raises(Exception, match="closed"):
            await session.commit()
        assert len(session.recorded_operations) == 1
        session.rollback()


async def test_a_commit_whose_response_is_malformed_is_applied_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def respond(request: httpx.Request) -> httpx.Response:
        (operation,) = json.loads(request.content)
        result = result_of(operation)
        result["data"]["user"] = {"__entity_type__": "Metadata", "malformed": 1}
        return httpx.Response(200, json=[result])

    async with (
        httpx.AsyncClient(transport=httpx.MockTransport(respond)) as client,
        AsyncSession(
            "http://ftrack.test", "key", "user", client=client, retry=NO_RETRIES
        ) as session,
    ):
        session.create(Job, {})
        await session.commit()
        assert session.recorded_operations == session.uncertain_operations == ()

    assert "response is malformed" in caplog.text


async def test_an_error_inside_the_list_of_results_is_a_refusal_too() -> None:
    def respond(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=[{"exception": "ValidationError", "content": "no"}])

    async with (
        httpx.AsyncClient(transport=httpx.MockTransport(respond)) as client,
        AsyncSession(
            "http://ftrack.test", "key", "user", client=client, retry=NO_RETRIES
        ) as session,
    ):
        session.create(Job, {})
        with pytest.raises(Exception, match="ValidationError: no"):
            await session.commit()
        assert len(session.recorded_operations) == 1
        session.rollback()
