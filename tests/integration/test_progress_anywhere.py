"""Progress is reported from any thread, callback and signal handler, and never ends the work."""

from __future__ import annotations

import asyncio
import datetime
import json
import math
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import pytest
from anyio.to_thread import run_sync

from aioftrackjobs import AsyncSession, Job, JobStatus, RunningJob, current_job, job_context
from aioftrackjobs.devserver import ServerHandle

from .waiting import description_of, shows, until


@pytest.mark.every_loop
async def test_a_worker_thread_reports(session: AsyncSession, other: AsyncSession) -> None:
    def copy(report: Callable[..., None]) -> None:
        for done in range(1000):
            report(done, "copying", total=1998)

    async with job_context(session, description="Copy", interval=0.01) as job:
        await run_sync(copy, job.progress)
        assert await shows(other, job, "Copy (50 %, copying)")


@pytest.mark.every_loop
async def test_a_thread_without_an_event_loop_reports(
    session: AsyncSession, other: AsyncSession
) -> None:
    async with job_context(session, description="Copy", interval=0.01) as job:
        thread = threading.Thread(target=job.progress, args=(0.25, "alone"))
        thread.start()
        thread.join()
        assert await shows(other, job, "Copy (25 %, alone)")


@pytest.mark.every_loop
async def test_a_portal_reports(session: AsyncSession, other: AsyncSession) -> None:
    async with job_context(session, description="Copy", interval=0.01) as job:
        async with anyio.from_thread.BlockingPortal() as portal:
            await run_sync(partial(portal.call, job.progress, 0.25))
            assert await shows(other, job, "Copy (25 %)")
        await run_sync(partial(anyio.from_thread.run_sync, job.progress, 0.5))
        assert await shows(other, job, "Copy (50 %)")


def _in_a_portal_of_its_own(job: RunningJob) -> None:
    with anyio.from_thread.start_blocking_portal("asyncio") as portal:
        portal.call(job.progress, 0.75)


@pytest.mark.every_loop
async def test_a_task_of_another_event_loop_reports(
    session: AsyncSession, other: AsyncSession
) -> None:
    async with job_context(session, description="Copy", interval=0.01) as job:
        await run_sync(_in_a_portal_of_its_own, job)
        assert await shows(other, job, "Copy (75 %)")


def _call_soon(job: RunningJob) -> None:
    asyncio.get_running_loop().call_soon(job.progress, 0.5)


def _call_later(job: RunningJob) -> None:
    asyncio.get_running_loop().call_later(0, job.progress, 0.5)


def _call_soon_threadsafe(job: RunningJob) -> None:
    loop = asyncio.get_running_loop()
    threading.Thread(target=loop.call_soon_threadsafe, args=(job.progress, 0.5)).start()


def _done_callback(job: RunningJob) -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.add_done_callback(lambda _: job.progress(0.5))
    future.set_result(None)


def _signal_handler_of_the_loop(job: RunningJob) -> None:
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, job.progress, 0.5)
    signal.raise_signal(signal.SIGUSR1)


@pytest.mark.asyncio_only
@pytest.mark.parametrize(
    "start",
    [_call_soon, _call_later, _call_soon_threadsafe, _done_callback, _signal_handler_of_the_loop],
)
async def test_a_callback_of_the_event_loop_reports(
    session: AsyncSession, other: AsyncSession, start: Callable[[RunningJob], None]
) -> None:
    async with job_context(session, description="Copy", interval=0.01) as job:
        start(job)
        assert await shows(other, job, "Copy (50 %)")


@pytest.mark.asyncio_only
async def test_a_protocol_of_a_subprocess_reports(
    session: AsyncSession, other: AsyncSession
) -> None:
    async with job_context(session, description="Encode", interval=0.01) as job:

        class Output(asyncio.SubprocessProtocol):
            def pipe_data_received(self, fd: int, data: bytes) -> None:
                job.progress(int(data), "ffmpeg", total=100)

        program = [sys.executable, "-c", "import sys; sys.stdout.write(str(40))"]
        transport, _ = await asyncio.get_running_loop().subprocess_exec(
            Output, *program, stdin=None, stderr=None
        )
        assert await shows(other, job, "Encode (40 %, ffmpeg)")
        transport.close()


@pytest.fixture
def no_handler() -> Iterator[None]:
    before = signal.getsignal(signal.SIGUSR1)
    yield
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.every_loop
@pytest.mark.usefixtures("no_handler")
async def test_a_signal_handler_reports_while_the_event_loop_waits(
    session: AsyncSession, other: AsyncSession
) -> None:
    async with job_context(session, description="Copy", interval=0.01) as job:
        signal.signal(signal.SIGUSR1, lambda *_: job.progress(0.5))

        async def send() -> None:
            await run_sync(partial(signal.pthread_kill, threading.main_thread().ident or 0, 10))

        await send()
        assert await shows(other, job, "Copy (50 %)")


@pytest.mark.every_loop
async def test_a_thread_decides_the_end_and_sets_the_text(
    session: AsyncSession, other: AsyncSession
) -> None:
    def work(job: RunningJob) -> None:
        job.description = "Copy sh010"
        assert job.description == "Copy sh010"
        job.message = "half"
        assert job.message == "half"
        job.advance()
        job.fail("disk full")

    async with job_context(session, description="Copy") as job:
        thread = threading.Thread(target=work, args=(job,))
        thread.start()
        thread.join()  # the event loop has had no turn when the block ends

    found = await other.get(Job, job.id)
    assert found is not None
    assert found.status is JobStatus.FAILED
    assert found.description == "Copy sh010 (half, 1) - failed: disk full"


@pytest.mark.every_loop
async def test_reports_of_many_threads_at_once_lose_nothing(
    session: AsyncSession, other: AsyncSession
) -> None:
    def work(job: RunningJob) -> None:
        for _ in range(500):
            job.advance()

    async with job_context(session, description="Count") as job:
        job.progress(0, total=4000)
        async with anyio.create_task_group() as group:
            for _ in range(8):
                group.start_soon(run_sync, work, job)
        job.fail("looked at")

    assert await description_of(other, job) == "Count (100 %, 4000 of 4000) - failed: looked at"


class Array:
    """Has no truth value when it is compared, as arrays of numpy."""

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        raise ValueError("ambiguous")


async def test_a_total_that_cannot_be_compared_does_not_end_the_work(
    session: AsyncSession,
) -> None:
    async with job_context(session, description="Count") as job:
        total: Any = Array()
        assert [item async for item in job.track([1, 2], total=total)] == [1, 2]


# After the end


@pytest.mark.every_loop
async def test_after_the_end_of_the_block_a_report_does_nothing(
    session: AsyncSession, other: AsyncSession
) -> None:
    async with job_context(session, description="Copy") as job:
        job.progress(0.5)
    job.progress(0.75)
    job.advance()
    job.message = "late"
    job.description = "late"
    job.finish("late")
    job.fail("late")
    await run_sync(job.progress, 0.8)
    async for _ in job.track([1, 2]):
        pass
    async with job.stage("late"):
        pass

    found = await other.get(Job, job.id)
    assert found is not None
    assert (found.status, found.description) == (JobStatus.DONE, "Copy")
    assert json.loads(found["data"]) == {"description": "Copy", "progress": 0.5}


@pytest.mark.every_loop
async def test_a_report_to_a_closed_session_does_nothing(
    server: ServerHandle, caplog: pytest.LogCaptureFixture
) -> None:
    async with AsyncSession(server.url, server.api_key, server.api_user) as session:
        async with job_context(session, description="Copy") as job:
            pass
    ended = server.inspector.job(job.id)
    job.progress(0.5)
    await run_sync(job.progress, 0.5)

    assert server.inspector.job(job.id) == ended
    assert caplog.messages == []


def test_a_report_after_the_end_of_the_event_loop_does_nothing(server: ServerHandle) -> None:
    jobs: list[RunningJob] = []

    async def main() -> None:
        session = AsyncSession(server.url, server.api_key, server.api_user)
        await session.__aenter__()
        context = job_context(session, description="left open")
        jobs.append(await context.__aenter__())

    asyncio.run(main())
    left_open = server.inspector.job(jobs[0].id)
    with ThreadPoolExecutor(1) as thread:
        for report in (partial(jobs[0].progress, 0.5), jobs[0].advance, jobs[0].finish):
            assert report() is None
            assert thread.submit(report).result() is None

    assert server.inspector.job(jobs[0].id) == left_open
    # Newer Pythons end the generator of the open block when the event loop ends.
    assert left_open["status"] == ("failed" if sys.version_info >= (3, 13) else "running")


# What makes no sense


class Broken:
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __float__ = __str__


NO_PROGRESS: dict[str, tuple[Any, Any]] = {
    "none": (None, None),
    "text": ("half", None),
    "a number as text": ("0.5", None),
    "bytes": (b"1", None),
    "nan": (math.nan, None),
    "infinite": (math.inf, None),
    "infinite and negative": (-math.inf, None),
    "negative": (-1, None),
    "complex": (1j, None),
    "huge": (10**400, None),
    "list": ([], None),
    "signalling nan": (Decimal("sNaN"), None),
    "broken": (Broken(), None),
    "of nothing": (1, 0),
    "of less than nothing": (1, -3),
    "of nan": (1, math.nan),
    "of infinite": (1, math.inf),
    "of text": (1, "ten"),
    "of broken": (1, Broken()),
}


async def test_what_is_no_progress_is_one_warning(
    session: AsyncSession, other: AsyncSession, caplog: pytest.LogCaptureFixture
) -> None:
    for name, (done, total) in NO_PROGRESS.items():
        caplog.clear()
        async with job_context(session, description=name, interval=0.01) as job:
            job.progress(0.25)
            for _ in range(3):
                job.progress(done, "on", total=total)
            assert await shows(other, job, f"{name} (25 %, on)")

        warnings = [record for record in caplog.records if record.levelname == "WARNING"]
        assert len(warnings) == 1, name
        assert "cannot be shown as progress" in caplog.text, name
        assert warnings[0].pathname == __file__, name
        found = await other.get(Job, job.id)
        assert found is not None
        assert found.status is JobStatus.DONE, name


async def test_nonsense_after_the_end_of_the_job_is_ignored_like_all_reports(
    session: AsyncSession, caplog: pytest.LogCaptureFixture
) -> None:
    async with job_context(session, description="x") as job:
        pass
    job.progress(None)  # type: ignore[arg-type]
    job.advance("half")  # type: ignore[arg-type]
    job.stage("encode", weight="much")  # type: ignore[arg-type]
    assert caplog.text == ""


NUMBERS: list[tuple[Any, Any, str]] = [
    (Decimal("0.5"), None, "50 %"),
    (Fraction(1, 2), None, "50 %"),
    (Decimal(1), Fraction(4), "25 %"),
    (True, 2, "50 %"),
    (5, 4, "100 %"),
    (1 + 1e-12, None, "100 %"),
    (-1e-12, None, "0 %"),
    (999, 1000, "99 %"),
]


async def test_any_number_is_progress(
    session: AsyncSession, other: AsyncSession, caplog: pytest.LogCaptureFixture
) -> None:
    for done, total, text in NUMBERS:
        name = f"{done!r} of {total!r}"
        async with job_context(session, description=name, interval=0.01) as job:
            job.progress(done, total=total)
            assert await shows(other, job, f"{name} ({text})")

        assert "WARNING" not in caplog.text, name


async def test_numbers_of_numpy_are_progress(session: AsyncSession, other: AsyncSession) -> None:
    numpy = pytest.importorskip("numpy")
    async with job_context(session, description="Copy", interval=0.01) as job:
        job.progress(numpy.float32(0.5))
        assert await shows(other, job, "Copy (50 %)")
        job.progress(numpy.int64(3), total=numpy.array(4))
        assert await shows(other, job, "Copy (75 %)")


async def test_an_amount_without_a_total_is_shown_as_it_is(
    session: AsyncSession, other: AsyncSession, caplog: pytest.LogCaptureFixture
) -> None:
    async with job_context(session, description="Copy", interval=0.01) as job:
        for number in range(46):
            job.progress(number, "frames")
        assert await shows(other, job, "Copy (45, frames)")
        found = await other.get(Job, job.id)
        assert found is not None
        assert "progress" not in json.loads(found["data"])
        job.progress(0.5)
        assert await shows(other, job, "Copy (50 %)")

    assert caplog.text.count("without a total") == 1


MESSAGES: list[tuple[Any, str]] = [
    (Path("plates/a.exr"), "50 %, plates/a.exr"),
    (datetime.date(2026, 3, 1), "50 %, 2026-03-01"),
    (Broken(), "50 %"),
    ("bad \udc80", "50 %, bad ?"),
    ("two\n\tlines", "50 %, two lines"),
    ("", "50 %"),
    ("nul \0", "50 %, nul ?"),
]


async def test_any_message_is_shown(session: AsyncSession, other: AsyncSession) -> None:
    for message, shown in MESSAGES:
        async with job_context(session, description="Copy", interval=0.01) as job:
            job.progress(0.5, message)
            assert await shows(other, job, f"Copy ({shown})")


async def test_texts_of_any_length_still_travel(session: AsyncSession, other: AsyncSession) -> None:
    async with job_context(session, description="d" * 10_000_000, interval=0.01) as job:
        job.progress(0.5, "m" * 10_000_000)
        job.fail("r" * 10_000_000)

    found = await other.get(Job, job.id)
    assert found is not None
    assert found.status is JobStatus.FAILED
    assert len(found.description or "") < 3000


async def test_a_handler_of_the_log_may_report_too(
    session: AsyncSession, other: AsyncSession, caplog: pytest.LogCaptureFixture
) -> None:
    import logging

    class Shown(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            current_job().message = record.getMessage()

    log = logging.getLogger("aioftrackjobs.jobs.reports")
    async with job_context(session, description="Copy", interval=0.01) as job:
        handler = Shown()
        log.addHandler(handler)
        try:
            await run_sync(job.progress, math.nan)
        finally:
            log.removeHandler(handler)
        assert "cannot be shown" in str(job.message)


# Where the Job is found


@pytest.mark.every_loop
async def test_the_current_job_is_found_in_threads_tasks_and_generators(
    session: AsyncSession,
) -> None:
    found: list[RunningJob] = []

    async def child() -> None:
        await anyio.lowlevel.checkpoint()
        found.append(current_job())

    async def generate() -> AsyncIterator[RunningJob]:
        yield current_job()

    async with job_context(session) as job:
        found.append(await run_sync(current_job))
        async with anyio.create_task_group() as group:
            group.start_soon(child)
        found += [each async for each in generate()]

    assert found == [job] * 3


@pytest.mark.asyncio_only
async def test_the_current_job_is_found_in_callbacks(session: AsyncSession) -> None:
    loop = asyncio.get_running_loop()
    found: list[RunningJob] = []
    async with job_context(session) as job:
        loop.call_soon(lambda: found.append(current_job()))
        found.append(await asyncio.to_thread(current_job))
        await until(lambda: len(found) == 2)

    assert found == [job, job]


@pytest.mark.every_loop
async def test_code_that_outlives_a_block_reports_on_the_job_around_it(
    session: AsyncSession, other: AsyncSession
) -> None:
    has_ended, has_reported = anyio.Event(), anyio.Event()

    async def outlive() -> None:
        await has_ended.wait()
        current_job().progress(0.5, "after all")
        has_reported.set()

    async with job_context(session, description="outer", interval=0.01) as outer:
        async with anyio.create_task_group() as group:
            async with job_context(session, description="inner") as inner:
                group.start_soon(outlive)
            has_ended.set()
            await has_reported.wait()
        assert await shows(other, outer, "outer (50 %, after all)")

    assert await description_of(other, inner) == "inner"


@pytest.mark.every_loop
async def test_code_that_outlives_all_blocks_reports_without_effect(
    session: AsyncSession, other: AsyncSession
) -> None:
    has_ended = anyio.Event()

    async def outlive() -> None:
        await has_ended.wait()
        current_job().progress(0.5, "too late")

    async with anyio.create_task_group() as group:
        async with job_context(session, description="x") as job:
            group.start_soon(outlive)
        has_ended.set()

    assert await description_of(other, job) == "x"
    with pytest.raises(LookupError):
        current_job()


@pytest.mark.every_loop
@pytest.mark.asyncio_only  # blocks of trio cannot end in another order than they begin
async def test_blocks_that_end_in_another_order_do_not_hide_each_other(
    session: AsyncSession,
) -> None:
    first, second = job_context(session), job_context(session)
    await first.__aenter__()
    inner = await second.__aenter__()
    await first.__aexit__(None, None, None)
    assert current_job() is inner
    await second.__aexit__(None, None, None)
    with pytest.raises(LookupError):
        current_job()


# Transfers


@pytest.mark.other_client
async def test_a_callback_of_an_upload_finds_the_job(
    session: AsyncSession, other: AsyncSession, tmp_path: Path
) -> None:
    def show(done: int, total: int | None) -> None:
        current_job().progress(done, "uploading", total=total)

    async with job_context(session, description="Publish", interval=0.01) as job:
        await session.create_component(b"x" * 100_000, name="a.bin", progress=job.progress)
        assert await shows(other, job, "Publish (100 %)")
        component = await session.create_component(b"x" * 100_000, name="a.bin", progress=show)
        assert await shows(other, job, "Publish (100 %, uploading)")
        job.progress(0)
        assert await shows(other, job, "Publish (0 %)")
        await session.download(component, tmp_path / "a.bin", progress=show)
        assert await shows(other, job, "Publish (100 %, uploading)")


@pytest.mark.other_client
@pytest.mark.parametrize("error", [ZeroDivisionError("mine"), KeyboardInterrupt(), SystemExit(3)])
async def test_an_error_of_a_callback_ends_its_upload_and_nothing_else(
    session: AsyncSession, other: AsyncSession, error: BaseException
) -> None:
    def show(done: int, total: int | None) -> None:
        raise error

    with pytest.raises(type(error)):
        await session.create_component(b"x" * 100_000, name="a.bin", progress=show)

    assert await session.create_component(b"y", name="b.bin")
    assert len(await other.query("FileComponent").all()) == 1


# Other event loops


_PLAIN = """
import asyncio, sys, threading
import {runner}
from aioftrackjobs import AsyncSession, job_context

async def main():
    async with AsyncSession() as session:
        async with job_context(session, description="Copy", interval=0.01) as job:
            loop = asyncio.get_running_loop()
            assert type(loop).__module__.startswith("{runner}")
            reports = (
                lambda: asyncio.to_thread(job.progress, 0.1),
                lambda: loop.call_soon(job.progress, 0.2),
                lambda: loop.call_soon_threadsafe(job.progress, 0.3),
                lambda: threading.Thread(target=job.progress, args=(0.4,)).start(),
            )
            for number, report in enumerate(reports, 1):
                coroutine = report()
                if number == 1:
                    await coroutine
                while True:
                    jobs = await session.query("select data from Job").all()
                    if f'"progress": 0.{{number}}' in jobs[0]["data"]:
                        break
                    await asyncio.sleep(0.01)
{runner}.run(main())
print("all shown")
"""


@pytest.mark.parametrize("runner", ["asyncio", "uvloop"])
async def test_it_works_without_a_task_or_a_context_of_anyio(
    server: ServerHandle, runner: str
) -> None:
    pytest.importorskip(runner)
    environment = {
        "FTRACK_SERVER": server.url,
        "FTRACK_API_KEY": server.api_key,
        "FTRACK_API_USER": server.api_user,
    }
    done = await anyio.run_process(
        [sys.executable, "-W", "error", "-c", _PLAIN.format(runner=runner)],
        env=environment,
        check=False,
        stderr=subprocess.STDOUT,
    )
    assert done.stdout.decode().splitlines()[-1:] == ["all shown"], done.stdout.decode()
