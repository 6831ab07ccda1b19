"""``job_context(attach_log=True)``: what the code of a block logs becomes an attachment."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import anyio
import pytest
from anyio.to_thread import run_sync

from aioftrackjobs import (
    ArgumentError,
    AsyncSession,
    JobLogFilter,
    RetryPolicy,
    RunningJob,
    job_context,
)
from aioftrackjobs.devserver import ServerHandle
from aioftrackjobs.testing import BadGateway

from .settings import connected

logger = logging.getLogger("studio.render")


@pytest.fixture(autouse=True)
def level() -> Iterator[None]:
    logger.setLevel(logging.INFO)
    yield
    logger.setLevel(logging.NOTSET)


async def attached(session: AsyncSession, job: RunningJob, folder: Path) -> dict[str, str]:
    """Return the texts of all that is attached to *job*, by their file names."""
    links = await session.query(
        "select component.name, component.file_type from JobComponent where job_id is {id}",
        id=job.id,
    ).all()
    found: dict[str, str] = {}
    for link in links:
        component = link["component"]
        target = folder / f"{len(found)}"
        await session.download(component, target)
        found[component["name"] + component["file_type"]] = target.read_text()
    return found


@pytest.mark.every_loop
async def test_the_log_of_a_job_that_is_done_is_attached(
    session: AsyncSession, tmp_path: Path
) -> None:
    before = list(logging.getLogger().handlers)
    logger.info("before")
    async with job_context(session, description="work", attach_log=True) as job:
        logger.info("frame %d", 1)
        await run_sync(logger.warning, "from a thread")
        async with anyio.create_task_group() as group:
            group.start_soon(log_in_a_task)
    logger.info("afterwards")

    found = await attached(session, job, tmp_path)
    assert list(found) == ["log.txt"]
    lines = [line.partition("studio.render: ")[2] for line in found["log.txt"].splitlines()]
    assert [line for line in lines if line] == ["frame 1", "from a thread", "from a task"]
    assert logging.getLogger().handlers == before


async def log_in_a_task() -> None:
    logger.info("from a task")


@pytest.mark.asyncio_only
async def test_threads_of_asyncio_belong_to_the_block_and_other_threads_do_not(
    session: AsyncSession, tmp_path: Path
) -> None:
    async with job_context(session, description="work", attach_log=True) as job:
        await asyncio.to_thread(logger.info, "inherited")
        thread = Thread(target=logger.info, args=("foreign",))
        thread.start()
        await asyncio.to_thread(thread.join)

    log = (await attached(session, job, tmp_path))["log.txt"]
    assert "inherited" in log
    assert "foreign" not in log


async def test_the_traceback_of_a_failure_is_at_the_end_of_the_log(
    session: AsyncSession, tmp_path: Path
) -> None:
    with pytest.raises(ZeroDivisionError):
        async with job_context(session, description="work", attach_log=True) as job:
            logger.info("about to divide")
            1 / 0  # noqa: B018

    found = await attached(session, job, tmp_path)
    assert list(found) == ["log.txt"]
    beginning, _, rest = found["log.txt"].partition("Traceback")
    assert "about to divide" in beginning
    assert rest.rstrip().endswith("ZeroDivisionError: division by zero")


async def test_a_failure_without_a_log_has_its_traceback_as_usual(
    session: AsyncSession, tmp_path: Path
) -> None:
    with pytest.raises(ZeroDivisionError):
        async with job_context(session, description="work", attach_log=True) as job:
            1 / 0  # noqa: B018

    assert list(await attached(session, job, tmp_path)) == ["traceback.txt"]


async def test_without_records_nothing_is_attached(session: AsyncSession, tmp_path: Path) -> None:
    async with job_context(session, description="work", attach_log=True) as job:
        pass

    assert await attached(session, job, tmp_path) == {}


async def test_jobs_side_by_side_have_logs_of_their_own_and_outer_ones_both(
    session: AsyncSession, tmp_path: Path
) -> None:
    jobs: dict[str, RunningJob] = {}
    all_run = anyio.Event()

    async def work(name: str) -> None:
        async with job_context(session, description=name, attach_log=True) as job:
            jobs[name] = job
            if len(jobs) == 3:
                all_run.set()
            await all_run.wait()
            logger.info("record of %s", name)

    with anyio.fail_after(20):
        async with job_context(session, description="outer", attach_log=True) as jobs["outer"]:
            async with anyio.create_task_group() as group:
                group.start_soon(work, "one")
                group.start_soon(work, "two")

    for name, other in (("one", "two"), ("two", "one")):
        log = (await attached(session, jobs[name], tmp_path))["log.txt"]
        assert f"record of {name}" in log
        assert f"record of {other}" not in log
    log = (await attached(session, jobs["outer"], tmp_path))["log.txt"]
    assert "record of one" in log
    assert "record of two" in log


async def test_secrets_are_kept_out_of_the_log(
    server: ServerHandle, session: AsyncSession, tmp_path: Path
) -> None:
    address = "https://store.test/a?X-Amz-Signature=hidden123&part=1"
    async with job_context(session, description="work", attach_log=True) as job:
        logger.info("the key is %s, the file at %s", server.api_key, address)

    log = (await attached(session, job, tmp_path))["log.txt"]
    assert "the key is ***" in log
    assert server.api_key not in log
    assert "hidden123" not in log


async def test_a_long_log_keeps_its_beginning_and_its_end(
    session: AsyncSession, tmp_path: Path
) -> None:
    async with job_context(session, description="work", attach_log=True) as job:
        for number in range(100):
            logger.info("record %d: %s", number, "x" * 5000)

    log = (await attached(session, job, tmp_path))["log.txt"]
    assert len(log) < 300 * 1024
    assert "record 0:" in log
    assert "record 99:" in log
    assert "record 50:" not in log
    assert "records are left out]" in log


async def test_a_record_that_cannot_be_formatted_harms_nothing(
    session: AsyncSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    async with job_context(session, description="work", attach_log=True) as job:
        logger.info("%d frames", "many")
        logger.info("good")

    assert "good" in (await attached(session, job, tmp_path))["log.txt"]


async def test_a_log_that_cannot_be_attached_changes_nothing_else(
    server: ServerHandle, caplog: pytest.LogCaptureFixture
) -> None:
    async with connected(server, retry=RetryPolicy(budget=0)) as session:
        async with job_context(session, description="work", attach_log=True) as job:
            logger.info("x")
            server.faults.inject(BadGateway(), on="uploads", times=None)
        assert job.entity["status"] == "done"

    assert "its log was not attached" in caplog.text


def test_warnings_of_a_program_without_handlers_stay_visible(server: ServerHandle) -> None:
    program = """if True:
        import asyncio, logging, sys
        from aioftrackjobs import AsyncSession, job_context

        async def main():
            async with AsyncSession(*sys.argv[1:]) as session:
                async with job_context(session, description="work", attach_log=True):
                    logging.getLogger("studio").warning("black frame")
                    logging.getLogger("studio").info("not shown")

        asyncio.run(main())
    """
    arguments = [server.url, server.api_key, server.api_user]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=50
    )
    assert (done.returncode, done.stderr) == (0, "black frame\n")


async def test_attach_log_is_a_flag(session: AsyncSession) -> None:
    with pytest.raises(ArgumentError, match="attach_log"):
        job_context(session, attach_log="failure")  # type: ignore[arg-type]


async def test_a_filter_names_the_job_in_each_record(session: AsyncSession) -> None:
    records: list[logging.LogRecord] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    handler = Kept()
    handler.addFilter(JobLogFilter())
    studio = logging.getLogger("studio.of.a.test")
    studio.addHandler(handler)
    try:
        studio.warning("before")
        async with job_context(session, description="Render sh010") as job:
            studio.warning("in the block")
            await run_sync(studio.warning, "in a thread")
        studio.warning("after")
    finally:
        studio.removeHandler(handler)

    named = [(vars(each)["ftrack_job_id"], vars(each)["ftrack_job"]) for each in records]
    assert named == [("", ""), (job.id, "Render sh010"), (job.id, "Render sh010"), ("", "")]


def test_a_record_about_another_job_keeps_its_id() -> None:
    record = logging.makeLogRecord({"ftrack_job_id": "another"})

    assert JobLogFilter().filter(record)
    assert (vars(record)["ftrack_job_id"], vars(record)["ftrack_job"]) == ("another", "")
