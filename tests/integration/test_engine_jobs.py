"""Jobs of an engine's tasks: one Job for each task, whatever its engine does with that."""

from __future__ import annotations

import copy
import json
import os
import pickle
import sys
import textwrap
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import anyio
import pytest

from aioftrackjobs import (
    ArgumentError,
    AsyncSession,
    Job,
    JobComponent,
    JobKey,
    JobOwnedError,
    JobStoppedError,
    NoResultFoundError,
    TransportError,
    Verdict,
    job_context,
    job_key,
    recover,
)
from aioftrackjobs.blocking import Session
from aioftrackjobs.blocking import job_context as blocking_context
from aioftrackjobs.config.retry import NO_RETRIES
from aioftrackjobs.devserver import ServerHandle
from aioftrackjobs.jobs.keys import REDELIVERY
from aioftrackjobs.jobs.ownership import LEASE, Lease
from aioftrackjobs.journal import Process
from aioftrackjobs.transport import WireRequest, WireResponse

from .journals import DEAD, ELSEWHERE, journaled
from .outages import relayed
from .relay import Relay, Send
from .settings import connected
from .waiting import until


class RetryError(Exception):
    """As those of engines by which a task asks for another attempt."""


def key_of(task: object = 1, within: float | timedelta | None = None) -> JobKey:
    return job_key("engine", "renders", str(task), redelivered_within=within)


async def stored(session: AsyncSession, job_id: object) -> tuple[str, dict[str, Any]]:
    found = await session.get(Job, str(job_id))
    assert found is not None
    return found.status, json.loads(found["data"])


async def count(session: AsyncSession) -> int:
    return len(await session.query(Job).all())


async def lost_job(
    session: AsyncSession, key: JobKey, process: Process, *, left: float = 100.0
) -> None:
    """Make the running Job of *key* whose worker is *process*."""
    lease = Lease("them", process, datetime.now(UTC) + timedelta(seconds=left))
    data = {"description": "Render", REDELIVERY: key.note(), LEASE: lease.encode()}
    session.create(Job, {"id": str(key), "status": "running", "data": data})
    await session.commit()


# Keys


def test_a_key_is_the_same_everywhere() -> None:
    namespace = UUID("f046fcfd-fda2-555b-945b-830d900ad848")
    expected = uuid5(namespace, '["celery","renders","42"]')
    for task in (42, "42"):
        assert job_key("celery", "renders", task) == expected
    key = job_key("celery", "renders", "42", redelivered_within=timedelta(minutes=1))
    assert (key, str(key), key.redelivered_within) == (expected, str(expected), 60)
    for copied in (copy.copy(key), pickle.loads(pickle.dumps(key))):
        assert (copied, copied.redelivered_within) == (key, 60)
    assert (key.engine, key.queue, key.task_id) == ("celery", "renders", "42")
    assert "celery" in repr(key)
    assert job_key("a", "b,c", "d") != job_key("a,b", "c", "d")
    assert job_key("a", "b", expected) == job_key("a", "b", str(expected))


@pytest.mark.parametrize(
    ("argument", "values", "within"),
    [
        pytest.param("engine", ("", "q", "1"), None, id="empty"),
        pytest.param("engine", (None, "q", "1"), None, id="none"),
        pytest.param("queue", ("e", " ", "1"), None, id="blank"),
        pytest.param("task_id", ("e", "q", True), None, id="bool"),
        pytest.param("task_id", ("e", "q", None), None, id="no-task"),
        pytest.param("task_id", ("e", "q", "a\0"), None, id="nul"),
        pytest.param("redelivered_within", ("e", "q", "1"), -1, id="negative"),
        pytest.param("redelivered_within", ("e", "q", "1"), float("nan"), id="nan"),
        pytest.param("redelivered_within", ("e", "q", "1"), "1h", id="text"),
    ],
)
def test_a_bad_key_is_refused(argument: str, values: tuple[Any, ...], within: Any) -> None:
    with pytest.raises(ArgumentError) as caught:
        job_key(*values, redelivered_within=within)
    assert caught.value.argument == argument


async def test_bad_arguments_are_refused(session: AsyncSession) -> None:
    with pytest.raises(ArgumentError):
        await session.queue_job("key")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError):
        await session.queue_job(key_of(), description=1)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError):
        job_context(session, retry_on=(1,))  # type: ignore[arg-type]
    with pytest.raises(NoResultFoundError):
        await session.queue_job(key_of(), user="nobody-of-this-name")
    assert await count(session) == 0


# One Job


@pytest.mark.every_loop
async def test_producer_and_worker_have_one_job(session: AsyncSession, other: AsyncSession) -> None:
    key = key_of(within=60)
    job = await session.queue_job(key, description="Render sh010", data={"shot": "sh010"})
    status, data = await stored(other, key)
    assert (job.id, status, data["description"]) == (str(key), "queued", "Render sh010")
    assert data[REDELIVERY].pop("until") > datetime.now(UTC).isoformat()
    assert data[REDELIVERY] == {
        "engine": "engine",
        "queue": "renders",
        "task": "1",
        "within": 60,
    }
    async with job_context(other, job=key_of(), description="of the worker") as running:
        status, data = await stored(session, key)
        assert (status, running.id, running.description) == ("running", job.id, "Render sh010")
        assert "until" not in data[REDELIVERY]
        assert data[REDELIVERY]["within"] == 60  # what the producer has said
    status, data = await stored(session, key)
    assert (status, data["shot"], await count(session)) == ("done", "sh010", 1)


@pytest.mark.every_loop
async def test_a_worker_creates_the_job_that_is_missing(session: AsyncSession) -> None:
    async with job_context(session, job=key_of(), description="Render", user=session.api_user):
        assert (await stored(session, key_of()))[0] == "running"
    before = await stored(session, key_of())
    found = await session.queue_job(key_of(), description="too late")
    assert (found.status, await stored(session, key_of())) == ("done", before)
    assert await count(session) == 1


@pytest.mark.every_loop
async def test_producers_and_workers_that_race_make_one_job(server: ServerHandle) -> None:
    ran = list[str]()

    async def work(session: AsyncSession) -> None:
        try:
            async with job_context(session, job=key_of(), description="Render") as job:
                ran.append(job.id)
        except JobOwnedError:  # two blocks of one session at the same moment
            pass

    async with connected(server) as one, connected(server) as two:
        async with anyio.create_task_group() as group:
            for session in (one, two):
                group.start_soon(session.queue_job, key_of())
                group.start_soon(work, session)
                group.start_soon(session.queue_job, key_of())
        assert await count(one) == 1
        assert ran
        assert (await stored(one, key_of()))[0] == "done"


async def test_a_queued_job_of_an_engine_is_not_for_daemons(session: AsyncSession) -> None:
    await session.queue_job(key_of())
    assert await session.claim_job("Job") is None
    job = await session.queue_job(description="for daemons")
    claimed = await session.claim_job("Job")
    assert claimed is not None
    assert claimed.id == job.id


async def test_a_stopped_job_does_not_run(session: AsyncSession) -> None:
    await session.queue_job(key_of(), description="Render")
    await session.stop_job(key_of(), "wrong shot", by="maya")
    before = await stored(session, key_of())
    with pytest.raises(JobStoppedError, match="stopped by maya: wrong shot"):
        async with job_context(session, job=key_of()):
            pytest.fail("it was stopped")
    assert await stored(session, key_of()) == before
    assert before[0] == "failed"


# Attempts


@pytest.mark.every_loop
async def test_three_attempts_are_one_job(session: AsyncSession, other: AsyncSession) -> None:
    key = key_of(within=60)
    for attempt, worker in enumerate((session, other, session), 1):
        if attempt < 3:
            with pytest.raises(RetryError):
                async with job_context(
                    worker, job=key, description="Render", retry_on=RetryError
                ) as job:
                    job.progress(0.5)
                    if attempt == 1:
                        await job.attach(b"1", name="first.log")
                    raise RetryError("disk busy")
            status, data = await stored(session, key)
            assert (status, data["description"]) == (
                "queued",
                "Render - queued again: RetryError: disk busy",
            )
            assert data["base_description"] == "Render"
            assert data[REDELIVERY]["until"] > datetime.now(UTC).isoformat()
            assert not {LEASE, "progress"} & set(data)
        else:
            async with job_context(worker, job=key):
                pass
    status, data = await stored(session, key)
    assert (status, data["description"], await count(session)) == ("done", "Render", 1)
    attached = await session.query("select component.name from JobComponent").of(JobComponent).all()
    assert [each["component"]["name"] for each in attached] == ["first"]


@pytest.mark.parametrize("error", [None, ValueError("x"), RetryError("x"), SystemExit(1)], ids=repr)
async def test_what_is_decided_first_is_queued_again(
    session: AsyncSession, error: BaseException | None
) -> None:
    try:
        async with job_context(
            session, job=key_of(), description="Render", retry_on=RetryError
        ) as job:
            job.requeue("attempt 2 of 3 in 4 s")
            job.fail("too late")
            if error is not None:
                raise error
    except (ValueError, RetryError, SystemExit) as caught:
        if caught is not error:
            raise
    status, data = await stored(session, key_of())
    assert (status, data["description"]) == ("queued", "Render - attempt 2 of 3 in 4 s")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        pytest.param(
            ExceptionGroup("", [RetryError("x"), RetryError("y")]),
            "RetryError: x (and 1 more)",
            id="all",
        ),
        pytest.param(ExceptionGroup("", [RetryError("x"), OSError("y")]), None, id="others"),
        pytest.param(OSError("disk full"), None, id="another"),
    ],
)
async def test_only_errors_of_the_engine_queue_again(
    session: AsyncSession, error: Exception, text: str | None
) -> None:
    with pytest.raises(type(error)):
        async with job_context(session, job=key_of(), description="Render", retry_on=(RetryError,)):
            raise error
    status, data = await stored(session, key_of())
    assert status == ("queued" if text else "failed")
    assert data["description"].startswith(
        f"Render - queued again: {text}" if text else "Render - f"
    )


@pytest.mark.every_loop
async def test_reasons_of_an_engine_are_those_of_the_job(session: AsyncSession) -> None:
    """An integration catches what the engine does, says why, and lets it go on."""
    for task, reason in enumerate(("timed out after 5 s", "aborted", "its worker was stopped")):
        with anyio.CancelScope() as scope:
            async with job_context(session, job=key_of(task)) as job:
                try:
                    scope.cancel()
                    await anyio.sleep_forever()
                except anyio.get_cancelled_exc_class():
                    job.fail(reason)
                    raise
        status, data = await stored(session, key_of(task))
        assert (status, data["description"]) == ("failed", f"failed: {reason}")


async def test_an_attempt_in_the_same_session_waits_for_the_end_of_the_one_before(
    session: AsyncSession,
) -> None:
    """A task may send itself again before its worker has said how the attempt has ended."""
    held = anyio.Event()

    async def hold(request: WireRequest, send: Send) -> WireResponse:
        if '"status":"queued"' in str(request.body).replace(" ", ""):
            held.set()
            await anyio.sleep(0.1)
        return await send(request)

    async def again() -> None:
        await held.wait()
        async with job_context(session, job=key_of()) as second:
            second.finish("second")

    async with anyio.create_task_group() as group:
        group.start_soon(again)
        async with job_context(session, job=key_of(), description="Render") as job:
            job.requeue()
            Relay(session, hold)
    status, data = await stored(session, key_of())
    assert (status, data["description"]) == ("done", "Render - second")


# Redelivery


@pytest.mark.parametrize("process", [ELSEWHERE, DEAD], ids=["another-host", "dead"])
async def test_a_task_that_is_delivered_again_takes_its_job(
    session: AsyncSession, process: Process
) -> None:
    await lost_job(session, key_of(), process)
    async with job_context(session, job=key_of()):
        assert (await stored(session, key_of()))[1][LEASE]["pid"] == os.getpid()
    assert (await stored(session, key_of()))[0] == "done"
    assert await count(session) == 1


async def test_a_worker_that_lives_after_all_writes_its_job_no_more(
    session: AsyncSession, other: AsyncSession
) -> None:
    async with job_context(session, job=key_of(), description="Render") as slow:
        async with job_context(other, job=key_of()) as again:
            again.finish("by the other")
        slow.finish("too late")
    status, data = await stored(session, key_of())
    assert (status, data["description"]) == ("done", "Render - by the other")


@pytest.mark.parametrize(
    ("within", "left", "verdict"),
    [
        pytest.param(3600, -10, Verdict.REDELIVERED, id="promised"),
        pytest.param(3600, 100, Verdict.REDELIVERED, id="lease-is-good"),
        pytest.param(100, -200, Verdict.FAILED, id="over"),
        pytest.param(100, -130, Verdict.REDELIVERED, id="clocks-differ"),
        pytest.param(None, -10, Verdict.FAILED, id="nothing-promised"),
    ],
)
async def test_a_recovery_leaves_to_the_engine_what_it_delivers_again(
    session: AsyncSession, within: float | None, left: float, verdict: Verdict
) -> None:
    await lost_job(session, key_of(within=within), DEAD, left=left)
    (found,) = (await recover(session)).jobs
    assert found.verdict is verdict
    is_failed = verdict is Verdict.FAILED
    assert (await stored(session, key_of()))[0] == ("failed" if is_failed else "running")
    async with job_context(session, job=key_of()):  # a recovery is no stop request
        pass
    assert (await stored(session, key_of()))[0] == "done"


async def test_a_queued_job_fails_that_its_engine_does_not_deliver(session: AsyncSession) -> None:
    await session.queue_job(key_of("waits", 3600), description="Render")
    await session.queue_job(key_of("for ever"), description="Render")
    await session.queue_job(key_of("lost", 0), description="Render")
    await session.queue_job(description="of no engine")
    await until(lambda: _lost(session, 1))
    status, data = await stored(session, key_of("lost"))
    assert status == "failed"
    assert data["description"].startswith("Render - failed: engine has not delivered it until 2")
    assert len(await session.query('Job where status is "queued"').all()) == 3


async def _lost(session: AsyncSession, expected: int) -> bool:
    return len((await recover(session, grace=0.0)).failed) == expected


@pytest.mark.parametrize(
    "promise",
    [
        {"engine": "x", "within": "y"},
        {"engine": "x", "within": True},
        {"engine": "x", "within": 1e300, "until": "2026-01-01"},
        {"engine": 1},
        "text",
        ["engine"],
    ],
    ids=repr,
)
async def test_odd_promises_disturb_no_recovery(session: AsyncSession, promise: Any) -> None:
    lease = Lease("them", DEAD, datetime(9999, 1, 1, tzinfo=UTC)).encode()
    data: Mapping[str, Any] = {REDELIVERY: promise, LEASE: lease}
    for status in ("running", "queued"):
        session.create(Job, {"status": status, "data": data})
    await session.commit()
    recovery = await recover(session)
    assert {each.verdict for each in recovery.jobs} <= {Verdict.FAILED, Verdict.REDELIVERED}


WORKER = textwrap.dedent(
    """
    import anyio
    from aioftrackjobs import AsyncSession, job_context, job_key

    async def main():
        async with AsyncSession() as session:
            key = job_key("engine", "renders", "1", redelivered_within=3600)
            async with job_context(session, job=key, description="Render"):
                print("runs", flush=True)
                await anyio.sleep_forever()

    anyio.run(main)
    """
)


@pytest.mark.slow
async def test_the_journal_leaves_the_job_of_a_killed_worker_to_its_engine(
    server: ServerHandle, session: AsyncSession, tmp_path: Path
) -> None:
    journal = tmp_path / "journal"
    env = {
        **os.environ,
        "FTRACK_SERVER": server.url,
        "FTRACK_API_KEY": server.api_key,
        "FTRACK_API_USER": server.api_user,
        "FTRACK_JOBS_JOURNAL": str(journal),
    }
    worker = await anyio.open_process([sys.executable, "-c", WORKER], env=env, stderr=None)
    async with worker:
        assert worker.stdout is not None
        assert (await worker.stdout.receive()).startswith(b"runs")
        worker.kill()
    async with journaled(server, journal) as heir:
        recovery = await recover(heir)
        assert [each.verdict for each in recovery.jobs] == [Verdict.REDELIVERED]
        assert (await stored(session, key_of()))[0] == "running"
        async with job_context(heir, job=key_of()):
            pass
        assert (await recover(heir)).jobs == ()
    assert (await stored(session, key_of()))[0] == "done"


# ftrack is away


async def test_an_attempt_that_ends_while_ftrack_is_away_is_delivered_later(
    server: ServerHandle, session: AsyncSession, tmp_path: Path
) -> None:
    journal = tmp_path / "journal"
    async with relayed(server.url) as line, anyio.create_task_group() as group:
        async with connected(server, line.url, journal=journal) as worker:
            async with job_context(worker, job=key_of(), description="Render", grace=0.2) as job:
                await line.begin("refuses")
                job.requeue("attempt 2 of 3 in 4 s")
            assert (await stored(session, key_of()))[0] == "running"
            await line.end(group)
            await until(lambda: _has(session, "Render - attempt 2 of 3 in 4 s"))
        group.cancel_scope.cancel()


async def _has(session: AsyncSession, text: str) -> bool:
    status, data = await stored(session, key_of())
    return (status, data["description"]) == ("queued", text)


async def test_a_producer_goes_on_without_ftrack(server: ServerHandle) -> None:
    async with connected(server, "http://127.0.0.1:9", retry=NO_RETRIES) as producer:
        with pytest.raises(TransportError):
            await producer.queue_job(key_of())


# Blocking code


def test_a_blocking_worker_has_the_same_job(server: ServerHandle) -> None:
    with Session(server.url, server.api_key, server.api_user) as session:
        session.queue_job(key_of(), description="Render")
        with blocking_context(session, job=key_of()) as job:
            job.requeue("attempt 2 of 2 in 4 s")
        found = session.get(Job, key_of())
        assert found is not None
        assert (found.status, found.description) == ("queued", "Render - attempt 2 of 2 in 4 s")
        with pytest.raises(RetryError):
            with blocking_context(session, job=key_of(), retry_on=RetryError):
                raise RetryError("x")
