"""What others do to a Job while it runs: they write its data, stop it, end it, or delete it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import pytest

from aioftrackjobs import (
    AsyncSession,
    Job,
    JobDeletedError,
    JobStoppedError,
    PermissionDeniedError,
    RunningJob,
    ServerError,
    ValidationError,
    job_context,
    recover,
)
from aioftrackjobs.config.retry import NO_RETRIES
from aioftrackjobs.config.timings import Timings
from aioftrackjobs.devserver import ServerHandle
from aioftrackjobs.errors import ConnectError
from aioftrackjobs.jobs.stopping import StopOn
from aioftrackjobs.session import connection_of, jobs_of
from aioftrackjobs.transport import WireRequest, WireResponse

from .journals import ELSEWHERE, journaled
from .relay import Relay, Send
from .settings import QUICK, connected
from .waiting import until

STOP = {"by": "maya", "at": "2026-03-01T12:00:00+00:00", "reason": "wrong shot"}
OFTEN = replace(QUICK, job_read_interval=0.02)


def watching(server: ServerHandle, **options: Any) -> AbstractAsyncContextManager[AsyncSession]:
    """Open a session that reads its Jobs often."""
    return connected(server, **{"timings": OFTEN, **options})


class Reads:
    """Counts how often a session reads the Jobs that it runs."""

    def __init__(self, session: AsyncSession) -> None:
        self._count = 0
        Relay(session, self._note)

    async def _note(self, request: WireRequest, send: Send) -> WireResponse:
        response = await send(request)
        assert isinstance(request.body, bytes)
        self._count += b"from Job where id in" in request.body
        return response

    async def again(self) -> None:
        """Wait for a read that begins from now on, and for what becomes of it."""
        count = self._count + 3
        await until(lambda: self._count >= count)


async def get(session: AsyncSession, job_id: str) -> Job:
    job = await session.get(Job, job_id)
    assert job is not None
    return job


async def put(session: AsyncSession, job_id: str, data: object, **values: Any) -> None:
    """Write the *data* of a Job as a whole: as text, or as JSON."""
    job = await get(session, job_id)
    job["data"] = data if isinstance(data, str) else json.dumps(data)
    for name, value in values.items():
        job[name] = value
    await session.commit()


async def add(session: AsyncSession, job_id: str, **values: Any) -> None:
    """Add keys to the data of a Job."""
    await put(session, job_id, {**json.loads((await get(session, job_id))["data"]), **values})


async def drop(session: AsyncSession, job_id: str) -> None:
    session.delete(await get(session, job_id))
    await session.commit()


def drop_before(session: AsyncSession, other: AsyncSession, status: bytes, job_id: str) -> None:
    """Let *other* delete a Job right before *session* writes *status* to it."""

    async def relay(request: WireRequest, send: Send) -> WireResponse:
        assert isinstance(request.body, bytes)
        if b'"%b"' % status in request.body and await other.get(Job, job_id):
            await drop(other, job_id)
        return await send(request)

    Relay(session, relay)


def held(server: ServerHandle, job_id: str) -> dict[str, Any]:
    return server.inspector.job(job_id)


def data_of(server: ServerHandle, job_id: str) -> Mapping[str, Any]:
    data: Mapping[str, Any] = held(server, job_id)["data"]
    return data


# Their values in the data


@pytest.mark.every_loop
async def test_what_others_write_is_kept_by_each_kind_of_report(
    server: ServerHandle, other: AsyncSession
) -> None:
    async with watching(server) as session:
        async with job_context(session, description="x", data={"mine": 1}, interval=0) as job:
            await add(other, job.id, early=1)
            job.progress(0.5)
            await until(lambda: data_of(server, job.id).get("progress"))
            assert data_of(server, job.id)["early"] == 1
            await add(other, job.id, late=2)
            lease = data_of(server, job.id)["lease"]

            def is_renewed() -> bool:
                jobs_of(session).active.renew_all(older_than=0.0)
                return bool(data_of(server, job.id)["lease"] != lease)

            await until(is_renewed)
            assert data_of(server, job.id)["late"] == 2
            await add(other, job.id, last=3)
    assert data_of(server, job.id) == {
        "mine": 1,
        "early": 1,
        "late": 2,
        "last": 3,
        "description": "x",
        "progress": 0.5,
    }


async def test_what_others_write_is_kept_by_a_failure(
    server: ServerHandle, other: AsyncSession
) -> None:
    async with watching(server) as session:
        with pytest.raises(ZeroDivisionError):
            async with job_context(session, description="x", attach_traceback=False) as job:
                await add(other, job.id, theirs=[1, None, {"a": "b"}])
                raise ZeroDivisionError
    assert held(server, job.id)["status"] == "failed"
    assert data_of(server, job.id)["theirs"] == [1, None, {"a": "b"}]


async def test_keys_that_others_delete_stay_deleted(
    server: ServerHandle, other: AsyncSession
) -> None:
    async with watching(server) as session:
        async with job_context(session, description="x", data={"a": 1, "b": 2}) as job:
            await put(other, job.id, {"b": 2})
    assert data_of(server, job.id) == {"b": 2, "description": "x"}


@pytest.mark.parametrize(
    ("theirs", "kept"),
    [
        ("plain text", {"previous_data": "plain text"}),
        ("[1, 2]", {"previous_data": "[1, 2]"}),
        ('{"shot": "sh010"}', {"shot": "sh010"}),
        ("", {}),
        ("null", {}),
    ],
)
async def test_other_data_in_place_of_all_is_kept(
    server: ServerHandle, other: AsyncSession, theirs: str, kept: dict[str, Any]
) -> None:
    async with watching(server) as session:
        async with job_context(session, description="x", interval=0) as job:
            await put(other, job.id, theirs)
            job.progress(0.5)
            await until(lambda: "progress" in (data_of(server, job.id) or {}))
    found = data_of(server, job.id)
    assert {key: found[key] for key in found if key in ("previous_data", "shot")} == kept
    assert found["description"] == "x"


async def test_a_text_that_others_give_the_job_is_kept_with_the_progress(
    server: ServerHandle, other: AsyncSession
) -> None:
    async with watching(server) as session:
        async with job_context(session, description="x", interval=0) as job:
            job.progress(0.1)
            await until(lambda: held(server, job.id)["description"] == "x (10 %)")
            early = dict(data_of(server, job.id))
            await add(other, job.id, description="x, take 2")
            job.progress(0.2)
            await until(lambda: held(server, job.id)["description"] == "x, take 2 (20 %)")
            assert job.description == "x, take 2"
            await put(other, job.id, {**early, "theirs": 1})  # they have read it long before
            job.progress(0.3)
            await until(lambda: data_of(server, job.id)["progress"] == 0.3)
            assert held(server, job.id)["description"] == "x, take 2 (30 %)"
    assert held(server, job.id)["description"] == "x, take 2"
    assert data_of(server, job.id)["theirs"] == 1


async def test_the_last_reads_of_many_jobs_are_one_query(
    server: ServerHandle, other: AsyncSession
) -> None:
    reads: list[str] = []
    end = anyio.Event()

    async def note(request: WireRequest, send: Send) -> WireResponse:
        assert isinstance(request.body, bytes)
        reads.extend(
            each["expression"]
            for each in json.loads(request.body)
            if each["action"] == "query" and "from Job where id in" in each["expression"]
        )
        return await send(request)

    async with watching(server, timings=replace(QUICK, job_read_interval=1000)) as session:
        Relay(session, note)
        ids: list[str] = []

        async def work() -> None:
            async with job_context(session, description="x") as job:
                ids.append(job.id)
                await end.wait()

        async with anyio.create_task_group() as group:
            for _ in range(100):
                group.start_soon(work)
            await until(lambda: len(ids) == 100)
            for each in ids[::10]:
                await add(other, each, theirs=1)
            end.set()
    assert len(reads) <= 2
    assert all(data_of(server, each)["theirs"] == 1 for each in ids[::10])


async def test_a_server_that_allows_no_query_of_jobs_still_gets_reports(
    server: ServerHandle,
) -> None:
    """There is nothing then that could be kept, but a final status is never given up for it."""

    async def refuse(request: WireRequest, send: Send) -> WireResponse:
        assert isinstance(request.body, bytes)
        if b"from Job" in request.body:
            error = {"exception": "PermissionError", "content": "no"}
            return WireResponse(200, json.dumps(error).encode())
        return await send(request)

    async with watching(server) as session:
        Relay(session, refuse)
        async with job_context(session, description="x", interval=0) as job:
            job.progress(0.5)
            await until(lambda: "progress" in data_of(server, job.id))
    assert held(server, job.id)["status"] == "done"


async def test_a_job_that_its_user_may_not_read_counts_as_no_deleted_one(
    server: ServerHandle,
) -> None:
    reads, writes = 0, 0

    async def hide(request: WireRequest, send: Send) -> WireResponse:
        nonlocal reads, writes
        assert isinstance(request.body, bytes)
        if b"from Job" in request.body:
            reads += 1
            return WireResponse(200, b'[{"action": "query", "data": []}]')
        writes += 1
        return await send(request)

    async with watching(server) as session:
        async with job_context(session, description="x", interval=0) as job:
            Relay(session, hide)
            job.progress(0.5)
            await until(lambda: reads > 20)
            assert not job.stop_requested
            assert writes <= 3, "that of the progress, and one or two to see whether it is there"
    assert held(server, job.id)["status"] == "done"


async def test_a_refusal_is_no_deletion_of_a_job_that_its_user_may_not_read(
    server: ServerHandle,
) -> None:
    refused = 0

    async def hide(request: WireRequest, send: Send) -> WireResponse:
        nonlocal refused
        body = request.body if isinstance(request.body, bytes) else b""
        if b"from Job where" in body:
            return WireResponse(200, b'[{"action": "query", "data": []}]')
        if b'"create"' in body or b"refuse this" in body:
            refused += 1
            error = {"exception": "ValidationError", "content": "no"}
            return WireResponse(200, json.dumps(error).encode())
        return await send(request)

    async with watching(server) as session:
        async with job_context(session, description="x", interval=0) as job:
            Relay(session, hide)
            with pytest.raises(ValidationError):
                await job.attach(b"frames", name="frames.txt")
            assert (refused, job.stop_requested.kind) == (1, None)
            job.progress(0.5, "refuse this")
            await until(lambda: refused > 1)
            job.progress(0.6)
            await until(lambda: data_of(server, job.id).get("progress") == 0.6)
    assert held(server, job.id)["status"] == "done"


# Stop requests


async def stopped(server: ServerHandle, other: AsyncSession, stop: object, **options: Any) -> Job:
    """Run a Job until *stop* in its data has ended it."""
    async with watching(server) as session:
        with anyio.fail_after(20), pytest.raises(JobStoppedError):
            async with job_context(session, description="x", **options) as job:
                await add(other, job.id, stop=stop)
                await anyio.sleep_forever()
    return await get(other, job.id)


@pytest.mark.every_loop
async def test_a_stop_request_ends_the_block_and_fails_the_job(
    server: ServerHandle, other: AsyncSession
) -> None:
    async with watching(server) as session:
        with anyio.fail_after(20), pytest.raises(JobStoppedError) as caught:
            async with job_context(session, description="x") as job:
                await add(other, job.id, stop=STOP)
                await anyio.sleep_forever()
        assert job.stop_requested
        assert job.stop_requested.kind == "request"
        assert job.stop_requested.at == datetime(2026, 3, 1, 12, tzinfo=UTC)
        await anyio.sleep(0.05)  # nothing of the cancellation is left in the task
    assert (caught.value.by, caught.value.reason) == ("maya", "wrong shot")
    found = held(server, job.id)
    assert found["status"] == "failed"
    assert found["description"] == "x - failed: stopped by maya: wrong shot"
    assert await other.query("JobComponent").all() == [], "no traceback: nothing went wrong"


@pytest.mark.parametrize(
    ("stop", "text"),
    [
        ({"by": "maya"}, "stopped by maya"),
        ({"reason": "disk\nfull"}, "stopped: disk full"),
        ({"at": "yesterday"}, "stopped"),
        ({"by": {"id": 1}, "reason": "x", "at": 7, "more": []}, "stopped: x"),
        ({"by": "m" * 10_000}, f"stopped by {'m' * 199}…"),
    ],
)
async def test_a_stop_request_may_lack_parts(
    server: ServerHandle, other: AsyncSession, stop: object, text: str
) -> None:
    job = await stopped(server, other, stop)
    assert job.description == f"x - failed: {text}"


async def test_other_values_under_the_same_key_stop_nothing(
    server: ServerHandle, other: AsyncSession
) -> None:
    values = [None, False, True, 0, 1100, "", "soon", [], ["maya"], {}, {"by": ""}, {"frame": 7}]
    found: dict[str, object] = {}

    async def run(session: AsyncSession, value: object) -> None:
        async with job_context(session, description="x", interval=0) as job:
            await add(other, job.id, stop=value)
            job.progress(0.5)
            await until(lambda: data_of(server, job.id).get("progress"))
            await reads.again()
            requested = str(job.stop_requested) if job.stop_requested else None
        held_now = held(server, job.id)
        found[repr(value)] = (requested, held_now["status"], held_now["data"]["stop"])

    async with watching(server) as session:
        reads = Reads(session)
        async with anyio.create_task_group() as group:
            for value in values:
                group.start_soon(run, session, value)
    assert found == {repr(value): (None, "done", value) for value in values}


async def test_a_request_that_is_left_from_an_earlier_run_stops_nothing(
    server: ServerHandle, other: AsyncSession
) -> None:
    job = await stopped(server, other, STOP)
    async with watching(server) as session:
        async with job_context(session, job=job.id, interval=0) as again:
            assert "stop" not in data_of(server, job.id)
            again.progress(0.5)
            await until(lambda: data_of(server, job.id).get("progress"))
            assert not again.stop_requested
    assert held(server, job.id)["status"] == "done"


@pytest.mark.every_loop
async def test_a_request_that_comes_before_the_block_is_entered_ends_it(
    server: ServerHandle, other: AsyncSession
) -> None:
    """Another session may be found to begin the same Job, so that a beginning takes a while."""
    job = other.create(Job, {"status": "queued", "data": {"description": "x"}})
    await other.commit()
    asked = False

    async def ask(request: WireRequest, send: Send) -> WireResponse:
        nonlocal asked
        assert isinstance(request.body, bytes)
        response = await send(request)
        if b'"running"' in request.body and not asked:
            asked = True
            await add(other, job.id, stop=STOP)
        return response

    async with watching(server) as session:
        Relay(session, ask)
        with anyio.fail_after(20), pytest.raises(JobStoppedError):
            async with job_context(session, job=job.id):
                await anyio.sleep_forever()
    assert held(server, job.id)["description"] == "x - failed: stopped by maya: wrong shot"


async def test_a_lease_that_others_remove_is_written_again(
    server: ServerHandle, other: AsyncSession
) -> None:
    async with watching(server) as session:
        async with job_context(session, description="x") as job:
            for damaged in ({}, {"lease": "mine", "a": 1}):
                await put(other, job.id, damaged)
                await until(lambda: isinstance(data_of(server, job.id).get("lease"), dict))
    assert data_of(server, job.id) == {"description": "x", "a": 1}


async def test_a_block_with_never_goes_on_after_one_warning(
    server: ServerHandle, other: AsyncSession, caplog: pytest.LogCaptureFixture
) -> None:
    async with watching(server) as session:
        reads = Reads(session)
        async with job_context(session, description="x", stop_on="never") as job:
            await add(other, job.id, stop=STOP)
            await job.stop_requested.wait()
            await add(other, job.id, stop={**STOP, "reason": "again"})
            await reads.again()
            assert job.stop_requested.reason == "wrong shot"
    assert held(server, job.id)["status"] == "done"
    (message,) = [text for text in caplog.messages if "goes on" in text]
    assert "stopped by maya: wrong shot" in message


@pytest.mark.every_loop
async def test_loops_threads_and_tasks_see_the_flag(
    server: ServerHandle, other: AsyncSession
) -> None:
    def loop(job: RunningJob) -> str:
        deadline = time.monotonic() + 20
        while not job.stop_requested and time.monotonic() < deadline:
            time.sleep(0.002)
        return str(job.stop_requested)

    seen: list[str] = []
    async with watching(server) as session:
        async with (
            job_context(session, description="x", stop_on="never") as job,
            anyio.create_task_group() as group,
        ):

            async def wait() -> None:
                request = await job.stop_requested
                seen.append(str(request))

            assert not job.stop_requested
            group.start_soon(wait)
            group.start_soon(wait)
            await add(other, job.id, stop=STOP)
            seen.append(await anyio.to_thread.run_sync(loop, job))
    assert seen == ["stopped by maya: wrong shot"] * 3


@pytest.mark.every_loop
async def test_a_shield_in_the_block_is_respected(
    server: ServerHandle, other: AsyncSession
) -> None:
    steps: list[str] = []
    async with watching(server) as session:
        with anyio.fail_after(20), anyio.CancelScope(shield=True):  # around: that delays nothing
            with pytest.raises(JobStoppedError):
                async with job_context(session, description="x") as job:
                    with anyio.CancelScope(shield=True):
                        await add(other, job.id, stop=STOP)
                        await job.stop_requested
                        await anyio.sleep(0.1)
                        steps.append("saved")
                    await anyio.sleep_forever()
    assert steps == ["saved"]
    assert held(server, job.id)["status"] == "failed"


async def test_a_block_that_ends_by_itself_decides(
    server: ServerHandle, other: AsyncSession
) -> None:
    """Its own error wins over the cancellation, and so does its work if it is done all the same."""
    async with watching(server) as session:
        with pytest.raises(ZeroDivisionError):
            async with job_context(session, description="x", attach_traceback=False) as broken:
                await add(other, broken.id, stop=STOP)
                try:
                    await anyio.sleep_forever()
                finally:
                    raise ZeroDivisionError
        async with job_context(session, description="x") as done:
            with anyio.CancelScope(shield=True):
                await add(other, done.id, stop=STOP)
                await done.stop_requested
        await anyio.sleep(0.05)
    assert "ZeroDivisionError" in held(server, broken.id)["description"]
    assert held(server, done.id)["status"] == "done"


@pytest.mark.asyncio_only
@pytest.mark.parametrize("how", ["again", "new", "timeout", "gather", "group"])
async def test_code_of_asyncio_in_the_block_is_cancelled_too(
    server: ServerHandle, other: AsyncSession, how: str
) -> None:
    async def hang() -> None:
        match how:
            case "again":
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    raise
            case "new":
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    raise asyncio.CancelledError("mine") from None
            case "timeout":
                async with asyncio.timeout(60):
                    await asyncio.wait_for(asyncio.sleep(60), 60)
            case "gather":
                await asyncio.gather(asyncio.sleep(60), asyncio.sleep(60))
            case "group":
                async with asyncio.TaskGroup() as group:
                    group.create_task(asyncio.sleep(60))

    async with watching(server) as session:
        with pytest.raises(JobStoppedError):
            async with job_context(session, description="x") as job:
                await add(other, job.id, stop=STOP)
                await hang()
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling()
        await asyncio.sleep(0)
    assert held(server, job.id)["description"].endswith("stopped by maya: wrong shot")


@pytest.mark.every_loop
async def test_a_task_group_in_the_block_is_cancelled_with_it(
    server: ServerHandle, other: AsyncSession
) -> None:
    ended: list[str] = []

    async def work() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append("child")

    async with watching(server) as session:
        with anyio.fail_after(20), pytest.raises(JobStoppedError):
            async with job_context(session, description="x") as job:
                async with anyio.create_task_group() as group:
                    group.start_soon(work)
                    await add(other, job.id, stop=STOP)
    assert ended == ["child"]
    assert held(server, job.id)["description"].endswith("stopped by maya: wrong shot")


async def test_a_thread_of_the_block_ends_first(server: ServerHandle, other: AsyncSession) -> None:
    def render(job: RunningJob) -> str:
        while not job.stop_requested:
            time.sleep(0.002)
        return "half of it"

    async with watching(server) as session:
        with anyio.fail_after(20), pytest.raises(JobStoppedError):
            async with job_context(session, description="x") as job:
                async with anyio.create_task_group() as group:
                    group.start_soon(partial(add, other, job.id, stop=STOP))
                    result = await anyio.to_thread.run_sync(render, job)
                    await anyio.sleep_forever()
    assert result == "half of it"


async def test_a_nested_block_ends_with_the_one_around_it(
    server: ServerHandle, other: AsyncSession
) -> None:
    async with watching(server) as session:
        with anyio.fail_after(20), pytest.raises(JobStoppedError) as caught:
            async with job_context(session, description="outer") as outer:
                async with job_context(session, description="inner") as inner:
                    await add(other, outer.id, stop=STOP)
                    await anyio.sleep_forever()
        assert caught.value.job_id == outer.id
        with anyio.fail_after(20), pytest.raises(JobStoppedError) as caught:
            async with job_context(session, description="outer 2") as outer_2:
                async with job_context(session, description="inner 2") as inner_2:
                    await add(other, inner_2.id, stop=STOP)
                    await anyio.sleep_forever()
        assert caught.value.job_id == inner_2.id
    assert held(server, outer.id)["description"] == "outer - failed: stopped by maya: wrong shot"
    assert held(server, inner.id)["status"] == "failed"
    assert "cancelled" in held(server, inner.id)["description"]
    assert held(server, inner_2.id)["description"].startswith("inner 2 - failed: stopped by maya")
    assert "JobStoppedError: stopped by maya" in held(server, outer_2.id)["description"]


@pytest.mark.asyncio_only
async def test_a_block_that_is_left_in_another_task_goes_on(
    server: ServerHandle, other: AsyncSession, caplog: pytest.LogCaptureFixture
) -> None:
    """As fixtures of pytest-asyncio are entered and left: their first task has ended by then."""
    async with watching(server) as session:
        blocks = [job_context(session, description=name) for name in ("a", "b")]
        async with anyio.create_task_group() as group:
            for block in blocks:
                group.start_soon(block.__aenter__)
        first, second = [each.id for each in await other.query("Job").of(Job).all()]
        await add(other, first, stop=STOP)
        await until(lambda: "its block goes on" in caplog.text)
        for block in blocks:
            await asyncio.create_task(block.__aexit__(None, None, None))
    assert {held(server, each)["status"] for each in (first, second)} == {"done"}


@pytest.mark.every_loop
async def test_a_block_with_never_may_be_left_in_any_task(
    server: ServerHandle, other: AsyncSession
) -> None:
    async with watching(server) as session:
        block = job_context(session, description="x", stop_on="never")
        async with anyio.create_task_group() as group:
            group.start_soon(block.__aenter__)
        async with anyio.create_task_group() as group:
            group.start_soon(block.__aexit__, None, None, None)
    (job,) = server.inspector.jobs()
    assert job["status"] == "done"


@pytest.mark.asyncio_only
async def test_blocks_of_one_task_are_stopped_each_by_itself(
    server: ServerHandle, other: AsyncSession
) -> None:
    """Also if they are left in another order than with ``async with``."""
    async with watching(server) as session:
        first, second = (job_context(session, description=name) for name in ("a", "b"))
        job = await first.__aenter__()
        await second.__aenter__()
        await add(other, job.id, stop=STOP)
        try:
            with anyio.fail_after(20):
                await anyio.sleep_forever()
        except asyncio.CancelledError as error:
            with pytest.raises(JobStoppedError):
                await first.__aexit__(type(error), error, error.__traceback__)
        await second.__aexit__(None, None, None)
        await asyncio.sleep(0)
    assert {row["description"]: row["status"] for row in server.inspector.jobs()} == {
        "a - failed: stopped by maya: wrong shot": "failed",
        "b": "done",
    }


async def test_a_decided_end_stays(server: ServerHandle, other: AsyncSession) -> None:
    async with watching(server) as session:
        with anyio.fail_after(20), pytest.raises(JobStoppedError):
            async with job_context(session, description="x") as job:
                job.finish("3 files delivered")
                await add(other, job.id, stop=STOP)
                await anyio.sleep_forever()
    assert held(server, job.id)["status"] == "done"


@pytest.mark.parametrize(
    "row",
    [
        {"status": None, "data": None},
        {"status": 7, "data": {"stop": STOP}},
        {"status": ["running"], "data": "[" * 5000},
        {"status": "paused", "data": "{"},
        {},
        {"status": "running", "data": '{"stop": NaN, "description": 5}'},
    ],
)
async def test_odd_rows_end_no_block(server: ServerHandle, row: dict[str, Any]) -> None:
    reads = 0

    async def answer(request: WireRequest, send: Send) -> WireResponse:
        nonlocal reads
        assert isinstance(request.body, bytes)
        if b"from Job where id in" not in request.body:
            return await send(request)
        reads += 1
        odd = {"__entity_type__": "Job", "id": job.id, **row}
        return WireResponse(200, json.dumps([{"action": "query", "data": [odd]}]).encode())

    async with watching(server) as session:
        async with job_context(session, description="x", interval=0) as job:
            Relay(session, answer)
            job.progress(0.5)
            await until(lambda: reads > 3)
    assert held(server, job.id)["status"] == "done"
    assert held(server, job.id)["description"] == "x"


async def test_a_worker_goes_on_with_its_next_job(
    server: ServerHandle, other: AsyncSession
) -> None:
    done: list[str] = []
    async with watching(server) as session:

        @job_context(session, description="x")
        async def render(name: str) -> None:
            from aioftrackjobs import current_job

            if name == "second":
                await add(other, current_job().id, stop=STOP)
                await anyio.sleep_forever()
            done.append(name)

        with anyio.fail_after(20):
            for name in ("first", "second", "third"):
                try:
                    await render(name)
                except JobStoppedError as error:
                    done.append(str(error))
    assert done == ["first", "stopped by maya: wrong shot", "third"]


async def test_a_cancellation_from_outside_stays_one(
    server: ServerHandle, other: AsyncSession
) -> None:
    async with watching(server) as session:
        with anyio.CancelScope() as scope:
            async with job_context(session, description="x") as job:
                await add(other, job.id, stop=STOP)
                try:
                    await anyio.sleep_forever()
                finally:
                    scope.cancel()
                    await anyio.sleep(1)
        assert scope.cancelled_caught
    assert held(server, job.id)["status"] == "failed"


async def test_a_stop_request_is_seen_without_leases(
    server: ServerHandle, other: AsyncSession
) -> None:
    async with watching(server, lease=0) as session:
        with anyio.fail_after(20), pytest.raises(JobStoppedError):
            async with job_context(session, description="x") as job:
                await add(other, job.id, stop=STOP)
                await anyio.sleep_forever()


# Another status


@pytest.mark.parametrize("status", ["failed", "done", "queued"])
async def test_another_status_ends_the_block_on_request(
    server: ServerHandle, other: AsyncSession, status: str
) -> None:
    """The status that another client has set stays."""
    async with watching(server) as session:
        with (
            anyio.fail_after(20),
            pytest.raises(JobStoppedError, match=f"status was set to {status}"),
        ):
            async with job_context(session, description="x", stop_on="any") as job:
                await put(other, job.id, {"description": "node on fire"}, status=status)
                await anyio.sleep_forever()
    assert held(server, job.id)["status"] == status
    assert data_of(server, job.id) == {"description": "node on fire"}


async def test_another_status_is_a_warning_if_the_block_goes_on(
    server: ServerHandle, other: AsyncSession, caplog: pytest.LogCaptureFixture
) -> None:
    async with watching(server) as session:
        reads = Reads(session)
        async with job_context(session, description="x") as job:
            theirs = await get(other, job.id)
            theirs["status"] = "failed"
            await other.commit()
            await job.stop_requested
            await reads.again()
            assert job.stop_requested.kind == "status"
    assert held(server, job.id)["status"] == "done"
    (message,) = [text for text in caplog.messages if "goes on" in text]
    assert "its status was set to failed" in message


@pytest.mark.parametrize("stop_on", ["request", "any"])
async def test_a_failure_by_a_mistaken_recovery_is_corrected(
    server: ServerHandle, other: AsyncSession, stop_on: StopOn
) -> None:
    async with watching(server) as session:
        async with job_context(session, description="x", stop_on=stop_on) as job:
            data = json.loads((await get(other, job.id))["data"])
            over = {**data["lease"], **ELSEWHERE._asdict(), "until": "2020-01-01T00:00:00+00:00"}
            await add(other, job.id, lease=over)
            assert [each.id for each in (await recover(other)).failed] == [job.id]
            assert held(server, job.id)["status"] == "failed"
            await until(lambda: held(server, job.id)["status"] == "running")
            found = data_of(server, job.id)
            assert found["lease"]["holder"] == data["lease"]["holder"]
            assert (found["description"], "recovered" in found) == ("x", False)
            assert not job.stop_requested
    assert held(server, job.id)["status"] == "done"


# Deletion


@pytest.mark.every_loop
@pytest.mark.parametrize("stop_on", ["any", "request", "never"])
async def test_a_deleted_job_is_an_error_at_the_end_and_nothing_waits_for_it(
    server: ServerHandle, other: AsyncSession, tmp_path: Path, stop_on: StopOn
) -> None:
    async with journaled(server, tmp_path / "jobs.journal", timings=OFTEN) as session:
        sent: list[bytes] = []

        async def note(request: WireRequest, send: Send) -> WireResponse:
            assert isinstance(request.body, bytes)
            sent.append(request.body)
            return await send(request)

        with anyio.fail_after(20), pytest.raises(JobDeletedError) as caught:
            async with job_context(session, description="x", stop_on=stop_on) as job:
                with anyio.CancelScope(shield=True):
                    await drop(other, job.id)
                    await job.stop_requested
                    Relay(session, note)
                    await session.query("User").first()  # behind reads that were queued before
                    sent.clear()
                if stop_on == "any":
                    await anyio.sleep_forever()
                job.progress(0.5)
                await anyio.sleep(0.1)
        assert caught.value.job_id == job.id
        assert [each for each in sent if job.id.encode() in each] == []
        assert session.health.is_good
        assert session.health.final_reports_pending == 0
        assert connection_of(session).journal.unsettled() == []
        assert job.stop_requested.kind == "deleted"


async def test_the_blocks_error_wins_over_a_deletion(
    server: ServerHandle, other: AsyncSession, tmp_path: Path
) -> None:
    async with journaled(server, tmp_path / "jobs.journal", timings=OFTEN) as session:
        for waits in (True, False):
            with pytest.raises(ZeroDivisionError):
                async with job_context(session, description="x") as job:
                    await drop(other, job.id)
                    if waits:
                        await job.stop_requested
                    raise ZeroDivisionError
            assert session.health.final_reports_pending == 0
    assert await other.query("Job").all() == []


@pytest.mark.parametrize("interval", [0, 1])
async def test_a_deletion_that_no_read_has_shown_before_the_end(
    server: ServerHandle, other: AsyncSession, tmp_path: Path, interval: float
) -> None:
    async with journaled(server, tmp_path / "jobs.journal") as session:
        with pytest.raises(JobDeletedError):
            async with job_context(session, description="x", interval=interval) as job:
                await drop(other, job.id)
                job.progress(0.5)
        assert session.health.final_reports_pending == 0
        assert session.health.is_good
    assert await other.query("Job").all() == []


async def test_a_deletion_right_before_the_final_status(
    server: ServerHandle, other: AsyncSession, tmp_path: Path
) -> None:
    """The read has still seen the Job, and the write is refused."""
    async with journaled(server, tmp_path / "jobs.journal") as session:
        with pytest.raises(JobDeletedError):
            async with job_context(session, description="x") as job:
                drop_before(session, other, b"done", job.id)
        assert session.health.final_reports_pending == 0


async def test_a_job_that_is_deleted_during_its_beginning(
    server: ServerHandle, other: AsyncSession, tmp_path: Path
) -> None:
    job = other.create(Job, {"status": "queued", "data": {}})
    await other.commit()
    async with journaled(server, tmp_path / "jobs.journal") as session:
        drop_before(session, other, b"running", job.id)
        with pytest.raises(JobDeletedError) as caught:
            async with job_context(session, job=job.id):
                pass
        assert isinstance(caught.value.__cause__, ServerError)
        assert connection_of(session).journal.unsettled() == []
    assert await other.query("Job").all() == []


async def test_a_job_that_is_deleted_before_an_attachment(
    server: ServerHandle, other: AsyncSession
) -> None:
    async with watching(server) as session:
        with pytest.raises(JobDeletedError):
            async with job_context(session, description="x") as job:
                await drop(other, job.id)
                await job.attach(b"frames", name="frames.txt")
    assert await other.query("Job").all() == []


async def test_a_job_that_is_deleted_during_an_outage(
    server: ServerHandle, other: AsyncSession, tmp_path: Path
) -> None:
    away = False

    async def send_unless_away(request: WireRequest, send: Send) -> WireResponse:
        if away:
            raise ConnectError("away")
        return await send(request)

    async with journaled(server, tmp_path / "jobs.journal", retry=NO_RETRIES) as session:
        Relay(session, send_unless_away)
        async with job_context(session, description="x", grace=0.05) as job:
            away = True
            await drop(other, job.id)
        assert session.health.final_reports_pending == 1
        away = False
        await until(lambda: not session.health.final_reports_pending)
        assert connection_of(session).journal.unsettled() == []


@pytest.mark.parametrize("exception", ["PermissionError", "ValidationError"])
async def test_a_refusal_that_does_not_pass_is_an_error_and_yet_tried_again_later(
    server: ServerHandle, tmp_path: Path, exception: str
) -> None:
    """The program has to know of it, and a server that is not well may not mean what it says."""
    refuses = True

    async def refuse(request: WireRequest, send: Send) -> WireResponse:
        assert isinstance(request.body, bytes)
        if refuses and b'"done"' in request.body:
            error = {"exception": exception, "content": "no"}
            return WireResponse(200, json.dumps(error).encode())
        return await send(request)

    timings = Timings(replay_interval=0.01)
    async with journaled(server, tmp_path / "jobs.journal", timings=timings) as session:
        with pytest.raises(ServerError, match="no"):
            async with job_context(session, description="x", grace=0.3) as job:
                Relay(session, refuse)
        assert session.health.final_reports_pending == 1
        refuses = False
        await until(lambda: not session.health.final_reports_pending)
    assert held(server, job.id)["status"] == "done"


async def test_the_journal_gives_up_what_is_refused_for_ever(
    server: ServerHandle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    answers: list[Any] = [ConnectError("away")]

    async def answer(request: WireRequest, send: Send) -> WireResponse:
        if answers:
            (answer,) = answers
            if isinstance(answer, Exception):
                raise answer
            assert isinstance(request.body, bytes)
            if b'"done"' in request.body:
                return WireResponse(200, json.dumps(answer).encode())
        return await send(request)

    timings = Timings(replay_interval=0.01, refusal_limit=0.1)
    options = {"retry": NO_RETRIES, "timings": timings}
    async with journaled(server, tmp_path / "jobs.journal", **options) as session:
        async with job_context(session, description="x", grace=0.05):
            Relay(session, answer)
        assert session.health.final_reports_pending == 1
        answers[:] = [{"exception": "PermissionError", "content": "not yours"}]
        await until(lambda: not session.health.final_reports_pending)
    assert [text for text in caplog.messages if "not yours" in text]


async def test_the_journal_tries_again_what_may_pass_but_not_for_ever(
    server: ServerHandle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    refused = 0

    async def refuse(request: WireRequest, send: Send) -> WireResponse:
        nonlocal refused
        assert isinstance(request.body, bytes)
        if b'"done"' in request.body:
            refused += 1
            error = {"exception": "OperationalError", "content": "the database is away"}
            return WireResponse(200, json.dumps(error).encode())
        return await send(request)

    timings = Timings(replay_interval=0.01, refusal_limit=0.1)
    path = tmp_path / "jobs.journal"
    async with journaled(server, path, retry=NO_RETRIES, timings=timings) as session:
        async with job_context(session, description="x", grace=0.05):
            relay = Relay(session, refuse)
        assert session.health.final_reports_pending == 1
        await until(lambda: not session.health.final_reports_pending)
        assert refused > 2
        relay.end()
    assert [text for text in caplog.messages if "the server refuses its final status" in text]


def test_the_errors_can_be_copied() -> None:
    import copy
    import pickle

    for error in (JobStoppedError("j1", "maya", "why"), JobDeletedError("j1")):
        for twin in (copy.copy(error), pickle.loads(pickle.dumps(error))):
            assert (str(twin), vars(twin)) == (str(error), vars(error))
    assert not isinstance(JobDeletedError("j1"), PermissionDeniedError)


@pytest.mark.every_loop
async def test_a_mistaken_failure_is_corrected_although_its_note_was_overwritten(
    server: ServerHandle, other: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lease is over while a renewal is on its way, which overwrites what a recovery wrote."""
    monkeypatch.setattr(  # as another host sees it
        "aioftrackjobs.running.recovery.is_lost",
        lambda _, lease, now, grace: lease.is_over(now, grace),
    )
    is_recovered = False

    async def fails_it() -> bool:
        return bool((await recover(other, grace=0)).failed)

    async def handle(request: WireRequest, send: Send) -> WireResponse:
        nonlocal is_recovered
        if isinstance(request.body, bytes) and b'"update"' in request.body and not is_recovered:
            await until(fails_it)
            is_recovered = True
            assert "recovered" in data_of(server, job.id)
        return await send(request)

    async with watching(server, lease=1.0) as session:
        async with job_context(session, description="x", stop_on="any") as job:
            Relay(session, handle)
            jobs_of(session).active.renew_all(older_than=0.0)
            await until(lambda: is_recovered and held(server, job.id)["status"] == "running")
            assert not job.stop_requested
    assert held(server, job.id)["status"] == "done"
