"""How a Job ends: by what its block decides, and by what ends the block."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import pytest
from anyio.to_thread import run_sync

from aioftrackjobs import AsyncSession, Job, JobStatus, RunningJob, job_context
from aioftrackjobs.devserver import ServerHandle

from .waiting import shows, until


class Begun:
    """Runs a block as a Job that waits until it is cancelled.

    Attributes:
        jobs: The Jobs that have begun.
        inside: Set when a block has begun.
        seconds: How long the latest block has run.
    """

    def __init__(self, session: AsyncSession) -> None:
        self._session = session
        self.jobs: list[RunningJob] = []
        self.inside = anyio.Event()
        self.seconds = 0.0

    async def run(self, decide: Callable[[RunningJob], object] = lambda _: None) -> None:
        async with job_context(self._session, description="Render") as job:
            self.jobs.append(job)
            decide(job)
            self.inside.set()
            entered = time.monotonic()
            try:
                await anyio.sleep_forever()
            finally:
                self.seconds = time.monotonic() - entered


@pytest.fixture
def begun(session: AsyncSession) -> Begun:
    return Begun(session)


async def end_of(session: AsyncSession, job: RunningJob) -> tuple[str, str | None]:
    found = await session.get(Job, job.id)
    assert found is not None
    return str(found.status), found.description


async def data_of(session: AsyncSession, job: RunningJob) -> dict[str, Any]:
    found = await session.get(Job, job.id)
    assert found is not None
    data: dict[str, Any] = json.loads(found["data"])
    return data


async def run_program(server: ServerHandle, code: str) -> None:
    """Run a Python program against *server* to its end."""
    environment = {
        "FTRACK_SERVER": server.url,
        "FTRACK_API_KEY": server.api_key,
        "FTRACK_API_USER": server.api_user,
    }
    await anyio.run_process([sys.executable, "-c", code], env=environment, check=False)


# Decided by the block


@pytest.mark.every_loop
async def test_finish_says_what_was_done(session: AsyncSession, other: AsyncSession) -> None:
    async with job_context(session, description="Publish") as job:
        job.progress(3, "3 of 3", total=3)
        job.finish("3 files delivered")

    assert await end_of(other, job) == ("done", "Publish - 3 files delivered")
    assert (await data_of(other, job))["base_description"] == "Publish"


async def test_a_job_that_is_done_shows_no_progress(
    session: AsyncSession, other: AsyncSession
) -> None:
    async with job_context(session, description="Publish", interval=0.01) as with_text:
        with_text.progress(1.0, "3 of 3")
        with_text.finish()
    async with job_context(session, interval=0.01) as without_text:
        without_text.progress(0.5, "half")
        await shows(other, without_text, "50 %, half")

    assert await end_of(other, with_text) == ("done", "Publish")
    assert await end_of(other, without_text) == ("done", None)


async def test_the_first_decision_wins(session: AsyncSession, other: AsyncSession) -> None:
    cases: dict[str, tuple[Callable[[Any], object], tuple[str, str]]] = {
        "finish, fail": (lambda job: (job.finish("ok"), job.fail("no")), ("done", "Render - ok")),
        "fail, finish": (
            lambda job: (job.fail("no"), job.finish("ok")),
            ("failed", "Render - failed: no"),
        ),
        "fail twice": (
            lambda job: (job.fail("one"), job.fail("two")),
            ("failed", "Render - failed: one"),
        ),
        "finish twice": (lambda job: (job.finish("1"), job.finish("2")), ("done", "Render - 1")),
        "finish without a text": (lambda job: (job.finish(), job.fail("no")), ("done", "Render")),
        "fail without a text": (lambda job: job.fail(None), ("failed", "Render")),
        "an error": (lambda job: job.fail(OSError("disk")), ("failed", "Render - failed: disk")),
        "a number": (lambda job: job.finish(7), ("done", "Render - 7")),
        "two lines": (lambda job: job.finish("a\n b"), ("done", "Render - a b")),
        "a space": (lambda job: job.finish(" "), ("done", "Render")),
    }
    found = {}
    for name, (decide, _) in cases.items():
        async with job_context(session, description="Render") as job:
            decide(job)
        found[name] = await end_of(other, job)

    assert found == {name: end for name, (_, end) in cases.items()}


@pytest.mark.every_loop
@pytest.mark.parametrize(
    ("decide", "end"),
    [
        (lambda job: job.finish("3 files"), ("done", "Render - 3 files")),
        (lambda job: job.fail("black"), ("failed", "Render - failed: black")),
        (lambda job: setattr(job.entity, "status", "done"), ("done", "Render")),
        (lambda job: setattr(job.entity, "status", "queued"), ("queued", "Render")),
    ],
)
async def test_a_cancellation_changes_no_decision(
    begun: Begun,
    other: AsyncSession,
    decide: Callable[[RunningJob], object],
    end: tuple[str, str],
) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(begun.run, decide)
        await begun.inside.wait()
        group.cancel_scope.cancel()

    assert await end_of(other, begun.jobs[0]) == end


async def test_an_error_after_a_decision_is_not_hidden(
    session: AsyncSession, other: AsyncSession
) -> None:
    def finish(job: RunningJob) -> None:
        job.finish("3 files")

    def fail(job: RunningJob) -> None:
        job.fail("black")

    def set_done(job: RunningJob) -> None:
        job.entity.status = JobStatus.DONE

    def set_failed(job: RunningJob) -> None:
        job.entity.status = JobStatus.FAILED

    full = OSError("disk full")
    hidden = ("failed", "Render - failed: OSError: disk full")
    cases: list[tuple[Callable[[RunningJob], None], BaseException, tuple[str, str]]] = [
        (finish, full, ("failed", "Render - 3 files - failed: OSError: disk full")),
        (fail, full, ("failed", "Render - failed: black")),
        (set_done, full, hidden),
        (set_failed, full, hidden),
        (finish, SystemExit(0), ("done", "Render - 3 files")),
        (fail, SystemExit(0), ("failed", "Render - failed: black")),
        (finish, KeyboardInterrupt(), ("done", "Render - 3 files")),
    ]
    found = []
    for decide, error, _ in cases:
        with pytest.raises(type(error)):
            async with job_context(session, description="Render") as job:
                decide(job)
                raise error
        found.append((decide.__name__, repr(error), await end_of(other, job)))

    assert found == [(decide.__name__, repr(error), end) for decide, error, end in cases]


# Set on the entity


@pytest.mark.every_loop
@pytest.mark.parametrize("is_committed", [True, False])
@pytest.mark.parametrize("status", ["failed", "done", "queued", "running"])
async def test_a_status_that_the_block_sets_is_respected(
    session: AsyncSession, other: AsyncSession, status: str, is_committed: bool
) -> None:
    async with job_context(session, description="Render") as job:
        job.entity["status"] = status
        if is_committed:
            await session.commit()
            assert (await end_of(other, job))[0] == status
        job.progress(0.5)
    await session.commit()

    assert (await end_of(other, job))[0] == ("done" if status == "running" else status)
    assert session.recorded_operations == ()


@pytest.mark.every_loop
@pytest.mark.parametrize("is_committed", [True, False])
async def test_a_text_that_the_block_sets_is_respected(
    session: AsyncSession, other: AsyncSession, is_committed: bool
) -> None:
    async with job_context(session, description="Render", interval=0.01) as job:
        job.progress(0.25)
        job.entity.description = "Render v2"
        if is_committed:
            await session.commit()
            assert "Render v2" in str((await end_of(other, job))[1])
        assert job.description == "Render v2"
        job.progress(0.5)
        await shows(other, job, "Render v2 (50 %)")
    await session.commit()

    assert await end_of(other, job) == ("done", "Render v2")
    assert session.recorded_operations == ()


async def test_a_unit_of_work_around_the_block_sends_nothing_of_the_job_later(
    session: AsyncSession, other: AsyncSession
) -> None:
    async with session.unit_of_work():
        task = session.create("User", {"username": "later"})
        async with job_context(session, description="Render") as job:
            job.entity.status = JobStatus.RUNNING
            job.entity.description = "Render v2"

    assert await end_of(other, job) == ("done", "Render v2")
    assert await other.get("User", task["id"])


async def test_other_keys_of_the_data_that_the_block_sets_are_kept(
    session: AsyncSession, other: AsyncSession
) -> None:
    async with job_context(session, description="Render", data={"kept": 1}) as job:
        data = json.loads(job.entity["data"])
        job.progress(0.5)
        job.entity["data"] = {**data, "frames": [1, 2]}

    found = await data_of(other, job)
    assert found == {"description": "Render", "kept": 1, "frames": [1, 2], "progress": 0.5}


@pytest.mark.parametrize("progress", [None, 0.5])
async def test_data_and_status_that_the_block_takes_back_do_not_count(
    session: AsyncSession, other: AsyncSession, progress: float | None
) -> None:
    async with job_context(session, description="x", interval=0) as job:
        if progress is not None:
            job.progress(progress)
        job.entity["data"] = {"description": "y", "mine": 1}
        job.entity["data"] = {"description": "z", "mine": 2}
        job.entity["status"] = "failed"
        assert job.description == "z"
        del job.entity["data"]
        del job.entity["status"]
        assert job.description == "x"
    found = await other.get(Job, job.id)
    assert found is not None
    assert found["status"] == "done"
    data = await data_of(other, job)
    assert (data["description"], "mine" in data) == ("x", False)
    assert session.recorded_operations == ()


async def test_a_text_that_is_set_after_data_stays_when_these_are_taken_back(
    session: AsyncSession, other: AsyncSession
) -> None:
    async with job_context(session, description="x") as job:
        job.entity["data"] = {"description": "y"}
        job.description = "z"
        del job.entity["data"]
    assert (await data_of(other, job))["description"] == "z"


@pytest.mark.parametrize("has_reported", [False, True])
async def test_a_text_that_was_rolled_back_does_not_count(
    session: AsyncSession, other: AsyncSession, *, has_reported: bool
) -> None:
    async with job_context(session, description="x", interval=0) as job:
        job.entity["data"] = {"description": "y"}
        if has_reported:
            job.progress(0.5)
            await shows(other, job, "y (50 %)")
        session.rollback()
        assert job.description == "x"
        async with session.unit_of_work() as unit:
            job.entity["data"] = {"description": "z"}
            unit.rollback()
        assert job.description == "x"
    assert (await data_of(other, job))["description"] == "x"


async def test_a_status_that_was_rolled_back_does_not_count(
    session: AsyncSession, other: AsyncSession
) -> None:
    async with job_context(session, description="Render") as job:
        job.entity.status = JobStatus.FAILED
        session.rollback()

    assert await end_of(other, job) == ("done", "Render")


async def test_after_the_block_the_entity_is_the_programs_again(
    session: AsyncSession, other: AsyncSession
) -> None:
    async with job_context(session, description="Render") as job:
        pass
    job.entity.description = "afterwards"
    job.entity.status = JobStatus.FAILED
    await session.commit()

    assert await end_of(other, job) == ("failed", "afterwards")


# Text


@pytest.mark.every_loop
async def test_the_description_can_be_read_and_set_at_any_moment(
    session: AsyncSession, other: AsyncSession
) -> None:
    async with job_context(session, interval=0.01) as job:
        assert job.description is None
        job.description = "Render"
        job.progress(0.5)
        await run_sync(lambda: setattr(job, "description", f"{job.description} v2"))
        assert job.description == "Render v2"
        await shows(other, job, "Render v2 (50 %)")
        job.description = None
        await shows(other, job, "50 %")
        job.message = "on"
        assert job.message == "on"
        job.description = 7  # type: ignore[assignment]

    assert await end_of(other, job) == ("done", "7")


@pytest.mark.parametrize("data", [{"description": "theirs", "a": 1}, '{"description": "theirs"}'])
async def test_a_description_in_the_given_data_is_the_text_of_the_job(
    session: AsyncSession, other: AsyncSession, data: Any
) -> None:
    async with job_context(session, data=data, interval=0.01) as job:
        assert job.description == "theirs"
        job.progress(0.5)
        await shows(other, job, "theirs (50 %)")

    assert await end_of(other, job) == ("done", "theirs")


async def test_a_description_in_the_given_data_replaces_that_of_an_existing_job(
    session: AsyncSession, other: AsyncSession
) -> None:
    made = other.create(Job, {"data": {"description": "old"}})
    await other.commit()
    async with job_context(session, job=made.id, data={"description": "new"}) as job:
        job.progress(0.5)

    assert await end_of(other, job) == ("done", "new")


# What ends the block


EXITS: list[tuple[BaseException, tuple[str, str]]] = [
    (SystemExit(), ("done", "Render")),
    (SystemExit(0), ("done", "Render")),
    (SystemExit(None), ("done", "Render")),
    (SystemExit(3), ("failed", "Render - failed: the process exits with 3")),
    (SystemExit("no license"), ("failed", "Render - failed: no license")),
    (SystemExit(""), ("failed", "Render - failed: the process exits with 1")),
    (BaseExceptionGroup("g", [SystemExit(0)]), ("done", "Render")),
    (
        BaseExceptionGroup("g", [SystemExit(0), BaseExceptionGroup("h", [SystemExit(4)])]),
        ("failed", "Render - failed: the process exits with 4"),
    ),
    (
        BaseExceptionGroup("g", [SystemExit(0), ValueError("bad")]),
        ("failed", "Render - failed: ValueError: bad"),
    ),
    (KeyboardInterrupt(), ("failed", "Render - failed: interrupted")),
    (
        BaseExceptionGroup("g", [KeyboardInterrupt(), ValueError("bad")]),
        ("failed", "Render - failed: ValueError: bad"),
    ),
    (GeneratorExit(), ("failed", "Render - failed: closed before its end")),
]


@pytest.mark.every_loop
async def test_an_exit_says_how_the_job_ends(session: AsyncSession, other: AsyncSession) -> None:
    found = []
    for error, _ in EXITS:
        with pytest.raises(type(error)):
            async with job_context(session, description="Render") as job:
                raise error
        found.append((repr(error), await end_of(other, job)))

    assert found == [(repr(error), end) for error, end in EXITS]


_EXITS = """
import asyncio, sys
import anyio
from aioftrackjobs import AsyncSession, job_context

async def leave(code):
    await anyio.sleep(0.01)
    sys.exit(code)

async def in_anyio(code):
    async with anyio.create_task_group() as group:
        group.start_soon(leave, code)
        await anyio.sleep(60)

async def in_asyncio(code):
    async with asyncio.TaskGroup() as group:
        group.create_task(leave(code))
        await anyio.sleep(60)

async def main(block, code, name):
    async with AsyncSession() as session, job_context(session, description=name):
        await block(code)

for block, backend in ((in_asyncio, "asyncio"), (in_anyio, "asyncio"), (in_anyio, "trio")):
    for code in (0, 3):
        try:
            anyio.run(main, block, code, f"{block.__name__} {backend} {code}", backend=backend)
        except BaseException:
            pass
"""


async def test_an_exit_in_a_task_of_the_block_is_an_exit(
    server: ServerHandle, other: AsyncSession
) -> None:
    await run_program(server, _EXITS)

    found = {job.description: job.status for job in await other.query("Job").of(Job).all()}
    expected = {}
    for name in ("in_asyncio asyncio", "in_anyio asyncio", "in_anyio trio"):
        expected[f"{name} 0"] = JobStatus.DONE
        expected[f"{name} 3 - failed: the process exits with 3"] = JobStatus.FAILED
    assert found == expected


Work = Callable[[], Coroutine[Any, Any, None]]


async def _asyncio_timeout(work: Work, limit: float) -> None:
    async with asyncio.timeout(limit):
        await work()


async def _wait_for(work: Work, limit: float) -> None:
    await asyncio.wait_for(work(), limit)


async def _awaited_task(work: Work, limit: float) -> None:
    async with asyncio.timeout(limit):
        await asyncio.create_task(work())


async def _gathered(work: Work, limit: float) -> None:
    async with asyncio.timeout(limit):
        await asyncio.gather(work())


async def _group_in_a_timeout(work: Work, limit: float) -> None:
    async with asyncio.timeout(limit), asyncio.TaskGroup() as group:
        group.create_task(work())


async def _timeout_in_a_generator(work: Work, limit: float) -> None:
    @asynccontextmanager
    async def limited() -> AsyncIterator[None]:
        async with asyncio.timeout(limit):
            yield

    async with limited():
        await work()


async def _fail_after(work: Work, limit: float) -> None:
    with anyio.fail_after(limit):
        await work()


async def _move_on_after(work: Work, limit: float) -> None:
    with anyio.move_on_after(limit) as scope:
        await work()
    if scope.cancelled_caught:
        raise TimeoutError


async def timed_out(
    begun: Begun, other: AsyncSession, limited: Callable[[Work, float], Awaitable[None]]
) -> tuple[object, object]:
    """Let a limit end the block; return how the Job ended, without its correct number of seconds.

    The limit is a short one, or a longer one if the block was not entered in time.
    """
    for limit in (0.1, 1.0, 10.0):
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            await limited(begun.run, limit)
        if begun.jobs:
            break
    longest = time.monotonic() - started

    status, text = await end_of(other, begun.jobs[0])
    match = re.search(r"after ([\d.]+) s", str(text))
    assert match, text
    rounded = 0.5 * 0.1 ** len(match[1].partition(".")[2])
    assert begun.seconds - rounded <= float(match[1]) <= longest + rounded
    return status, str(text).replace(match[1], "SECONDS")


TIMED_OUT = "failed", "Render - failed: timed out after SECONDS s"


@pytest.mark.asyncio_only
@pytest.mark.parametrize(
    "limited",
    [
        _asyncio_timeout,
        _wait_for,
        _awaited_task,
        _gathered,
        _group_in_a_timeout,
        _timeout_in_a_generator,
    ],
)
async def test_a_timeout_of_asyncio_is_the_reason(
    begun: Begun, other: AsyncSession, limited: Callable[[Work, float], Awaitable[None]]
) -> None:
    assert await timed_out(begun, other, limited) == TIMED_OUT


@pytest.mark.every_loop
@pytest.mark.parametrize("limited", [_fail_after, _move_on_after])
async def test_a_deadline_of_anyio_is_the_reason(
    begun: Begun, other: AsyncSession, limited: Callable[[Work, float], Awaitable[None]]
) -> None:
    assert await timed_out(begun, other, limited) == TIMED_OUT


@pytest.mark.asyncio_only
async def test_the_message_of_a_cancellation_is_the_reason(
    begun: Begun, other: AsyncSession
) -> None:
    task = asyncio.create_task(begun.run())
    await begun.inside.wait()
    task.cancel("by operator")
    with pytest.raises(asyncio.CancelledError):
        await task

    end = await end_of(other, begun.jobs[0])
    assert end == ("failed", "Render - failed: cancelled: by operator")


@pytest.mark.asyncio_only
@pytest.mark.parametrize("make_group", [asyncio.TaskGroup, anyio.create_task_group])
@pytest.mark.parametrize("is_in_body", [True, False])
async def test_the_message_of_a_cancellation_reaches_the_tasks_of_a_group(
    begun: Begun, other: AsyncSession, make_group: Callable[[], Any], is_in_body: bool
) -> None:
    async def run() -> None:
        async with make_group() as group:
            start = group.start_soon if hasattr(group, "start_soon") else _starter(group)
            start(begun.run)
            if is_in_body:
                await anyio.sleep_forever()

    task = asyncio.create_task(run())
    await begun.inside.wait()
    task.cancel("by operator")
    with pytest.raises(asyncio.CancelledError):
        await task

    end = await end_of(other, begun.jobs[0])
    assert end == ("failed", "Render - failed: cancelled: by operator")


def _starter(group: asyncio.TaskGroup) -> Callable[[Any], Any]:
    return lambda function: group.create_task(function())


@pytest.mark.asyncio_only
async def test_a_message_of_a_cancellation_may_be_any_value(
    begun: Begun, other: AsyncSession
) -> None:
    task = asyncio.create_task(begun.run())
    await begun.inside.wait()
    task.cancel(signal.SIGHUP)
    with pytest.raises(asyncio.CancelledError):
        await task

    status, text = await end_of(other, begun.jobs[0])
    assert (status, text) == ("failed", f"Render - failed: cancelled: {signal.SIGHUP}")


@pytest.mark.every_loop
async def test_without_a_reason_a_block_was_just_cancelled(
    begun: Begun, other: AsyncSession
) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(begun.run)
        await begun.inside.wait()
        group.cancel_scope.cancel()

    assert await end_of(other, begun.jobs[0]) == ("failed", "Render - failed: cancelled")


@pytest.mark.asyncio_only
@pytest.mark.parametrize("is_child", [True, False])
async def test_the_error_of_another_task_of_asyncio_is_the_reason(
    begun: Begun, other: AsyncSession, is_child: bool
) -> None:
    async def fail() -> None:
        await begun.inside.wait()
        raise RuntimeError("sibling")

    with pytest.raises(ExceptionGroup):
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
            if is_child:
                group.create_task(begun.run())
            else:
                await begun.run()

    reason = "cancelled because another task failed: RuntimeError: sibling"
    assert await end_of(other, begun.jobs[0]) == ("failed", f"Render - failed: {reason}")


@pytest.mark.asyncio_only
async def test_an_inner_deadline_that_has_passed_is_no_reason(
    begun: Begun, session: AsyncSession, other: AsyncSession
) -> None:
    async with anyio.create_task_group() as group:

        async def work() -> None:
            async with job_context(session, description="Render") as job:
                begun.jobs.append(job)
                with suppress(TimeoutError):
                    async with asyncio.timeout(0):
                        await anyio.sleep_forever()
                begun.inside.set()
                await anyio.sleep_forever()

        group.start_soon(work)
        await begun.inside.wait()
        group.cancel_scope.cancel()

    assert await end_of(other, begun.jobs[0]) == ("failed", "Render - failed: cancelled")


_INTERRUPTED = """
import asyncio, os, signal
from aioftrackjobs import AsyncSession, job_context

async def main():
    async with AsyncSession() as session, job_context(session, description="Render"):
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGINT)
        await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_ctrl_c_of_a_program_on_asyncio_is_the_reason(
    server: ServerHandle, other: AsyncSession
) -> None:
    await run_program(server, _INTERRUPTED)

    (job,) = await other.query("Job").of(Job).all()
    assert (job.status, job.description) == (JobStatus.FAILED, "Render - failed: interrupted")


async def test_a_status_that_the_block_itself_has_set_stops_nothing(
    session: AsyncSession, other: AsyncSession, caplog: pytest.LogCaptureFixture
) -> None:
    async with job_context(session, description="Render", interval=0.01, stop_on="any") as job:
        job.entity.status = JobStatus.FAILED
        await session.commit()
        for step in range(3):  # each of these is preceded by a read
            job.progress(step, total=4)

            async def is_written(step: int = step) -> bool:
                return (await data_of(other, job)).get("progress") == step / 4

            await until(is_written)
        assert not job.stop_requested

    assert await end_of(other, job) == ("failed", "Render (50 %)")
    assert "its block goes on" not in caplog.text
