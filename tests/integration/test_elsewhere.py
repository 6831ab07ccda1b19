"""A session that is used in another event loop, thread or process than the one that opened it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest

from aioftrackjobs import AsyncSession, Job, RunningJob, SessionStateError, job_context, recover
from aioftrackjobs.commit.unit_of_work import UnitOfWork
from aioftrackjobs.session import connection_of

from ..tables import Tables, turns
from .settings import QUICK

Use = Callable[["Opened"], Awaitable[object]]


class Opened:
    """An open session, with what belongs to it."""

    def __init__(
        self, session: AsyncSession, job: Job, running: RunningJob, unit: UnitOfWork
    ) -> None:
        self.session = session
        self.job = job
        self.running = running
        self.unit = unit
        self.query = session.query("select id from Job where id is x")


async def _call(function: Callable[..., object], *args: Any) -> None:
    function(*args)


async def _iterate(rows: AsyncIterator[object]) -> None:
    async for _ in rows:
        pass


async def _run_job(session: AsyncSession, **options: Any) -> None:
    async with job_context(session, **options):
        pass


async def _enter_block(session: AsyncSession) -> None:
    async with session.unit_of_work():
        pass


USES: dict[str, Use] = {
    "query": lambda o: o.session.query("select id from Job").all(),
    "query.all": lambda o: o.query.all(),
    "query.one": lambda o: o.query.one(),
    "query.first": lambda o: o.query.first(),
    "query, async for": lambda o: _iterate(aiter(o.query)),
    "get": lambda o: o.session.get(Job, "x"),
    "get without schemas": lambda o: o.session.get("Task", "x"),
    "populate": lambda o: o.session.populate(o.job, "data"),
    "call": lambda o: o.session.call([{"action": "query", "expression": "select id from Job"}]),
    "server_information": lambda o: o.session.server_information(),
    "schemas": lambda o: o.session.schemas(),
    "current_user": lambda o: o.session.current_user(),
    "create": lambda o: _call(o.session.create, Job),
    "delete": lambda o: _call(o.session.delete, o.job),
    "rollback": lambda o: _call(o.session.rollback),
    "recorded_operations": lambda o: _call(lambda: o.session.recorded_operations),
    "assignment": lambda o: _call(o.job.__setitem__, "data", "x"),
    "clear": lambda o: _call(o.job.clear),
    "commit": lambda o: o.session.commit(),
    "unit_of_work": lambda o: _enter_block(o.session),
    "unit.commit": lambda o: o.unit.commit(),
    "unit.rollback": lambda o: _call(o.unit.rollback),
    "ensure": lambda o: o.session.ensure(Job, {"id": "x"}),
    "create_component": lambda o: o.session.create_component(b"x", name="x.txt"),
    "download": lambda o: o.session.download("x", "x"),
    "exit": lambda o: o.session.__aexit__(None, None, None),
    "job_context": lambda o: _run_job(o.session, user="maya"),
    "job_context of a Job": lambda o: _run_job(o.session, job=o.job),
    "attach": lambda o: o.running.attach(b"x", name="x.txt"),
    "recover": lambda o: recover(o.session),
    "wait_for": lambda o: o.session.wait_for(o.job, timeout=1),
    "watch": lambda o: _iterate(aiter(o.session.watch(o.job))),
    "job.wait": lambda o: o.job.wait(timeout=1),
    "stop_job": lambda o: o.session.stop_job(o.job),
    "claim_job": lambda o: o.session.claim_job('Job where status is "queued"'),
    "stop_requested": lambda o: o.running.stop_requested.wait(),
}


async def in_other_loop(use: Coroutine[Any, Any, object]) -> BaseException | None:
    """Return the error that *use* ends with in a second event loop."""
    with anyio.fail_after(20):
        try:
            await use
        except Exception as exc:  # noqa: BLE001 - the caller looks at it
            return exc
    return None


def run_in(loop: str, use: Callable[[], Awaitable[object]]) -> BaseException | None:
    async def run() -> BaseException | None:
        async def awaited() -> object:
            return await use()

        return await in_other_loop(awaited())

    return anyio.run(run, backend=loop)


@contextmanager
def opened(tables: Tables) -> Iterator[tuple[asyncio.Runner, Opened]]:
    """Open a session in an event loop, and leave the loop without closing the session."""
    with asyncio.Runner() as runner:

        async def open_session() -> tuple[Any, Any, Opened]:
            opening = tables.session(timings=QUICK)
            session = await opening.__aenter__()
            block = session.unit_of_work()
            unit = await block.__aenter__()
            job = session.create(Job, {"data": "old"})
            await unit.commit()
            job["data"] = "recorded"
            running = job_context(session, job=job)
            entered = await running.__aenter__()
            return opening, running, Opened(session, job, entered, unit)

        opening, running, everything = runner.run(open_session())
        yield runner, everything

        async def close() -> None:
            everything.session.rollback()
            await running.__aexit__(None, None, None)
            await opening.__aexit__(None, None, None)

        runner.run(close())


@pytest.fixture
def tables() -> Tables:
    return Tables()


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_second_event_loop_is_refused(tables: Tables, loop: str) -> None:
    with opened(tables) as (_, everything):
        for name, use in USES.items():
            error = run_in(loop, partial(use, everything))

            assert isinstance(error, SessionStateError), name
            assert "another event loop" in str(error), name
            assert "async with AsyncSession" in str(error), name


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_an_event_loop_of_another_thread_is_refused(tables: Tables, loop: str) -> None:
    with opened(tables) as (_, everything), ThreadPoolExecutor(1) as thread:
        for name, use in USES.items():
            error = thread.submit(run_in, loop, partial(use, everything)).result()

            assert isinstance(error, SessionStateError), name
            assert "another thread" in str(error), name
            assert "anyio.from_thread.run(" in str(error), name


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_worker_thread_is_refused(tables: Tables, loop: str) -> None:
    async def main() -> None:
        async with tables.session() as session:
            job = session.create(Job, {"data": "old"})
            await session.commit()
            job["data"] = "recorded"
            functions: dict[str, Callable[[], object]] = {
                "create": lambda: session.create(Job),
                "delete": lambda: session.delete(job),
                "rollback": session.rollback,
                "recorded_operations": lambda: session.recorded_operations,
                "assignment": lambda: job.__setitem__("data", "x"),
                "clear": job.clear,
            }
            for name, function in functions.items():
                with pytest.raises(SessionStateError) as caught:
                    await anyio.to_thread.run_sync(function)
                assert "anyio.from_thread.run_sync(" in str(caught.value), name
                assert job["data"] == "recorded", name
            await session.commit()
            assert tables.data_of(job) == "recorded"

    anyio.run(main, backend=loop)


def test_a_worker_thread_hands_work_to_the_loop(tables: Tables) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()

        async with tables.session() as session:

            def run(work: Coroutine[Any, Any, Any]) -> Any:
                return asyncio.run_coroutine_threadsafe(work, loop).result(20)

            def in_thread(job: Job) -> None:
                assert run(session.query(f'select id from Job where id is "{job.id}"').all())
                run(session.commit())

            job = session.create(Job, {"data": "old"})
            await session.commit()
            job["data"] = "new"
            await asyncio.to_thread(in_thread, job)
            assert tables.data_of(job) == "new"

    asyncio.run(main())


def test_health_is_for_any_thread(tables: Tables) -> None:
    async def main() -> None:
        async with tables.session() as session:
            done = threading.Event()

            def watch() -> int:
                seen = 0
                while not done.is_set():
                    assert session.health.commits_queued >= 0
                    seen += 1
                return seen

            async def commit() -> None:
                for _ in range(20):
                    session.create(Job)
                    await session.commit()

            watching = asyncio.create_task(asyncio.to_thread(watch))
            await asyncio.gather(*(commit() for _ in range(20)))
            done.set()
            assert await watching

    asyncio.run(main())


def forked(uses: Mapping[str, Callable[[], object]]) -> dict[str, str]:
    """Return the name and text of the error that each of *uses* ends with in a forked process."""
    reading, writing = os.pipe()
    if (process := os.fork()) == 0:
        texts = dict.fromkeys(uses, "no error")
        for name, use in uses.items():
            try:
                use()
            except BaseException as exc:  # noqa: BLE001 - the parent looks at it
                texts[name] = f"{type(exc).__name__}: {exc}"
        os.write(writing, json.dumps(texts).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        found: dict[str, str] = json.load(pipe)
    os.waitpid(process, 0)
    return found


def step(running: Coroutine[Any, Any, None]) -> None:
    """Run it until it waits for something."""
    try:
        running.send(None)
    finally:
        running.close()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
@pytest.mark.parametrize(
    ("loop", "how"),
    [
        ("asyncio", "at once"),
        ("asyncio", "in a loop of its own"),
        ("trio", "at once"),  # it refuses to run inside its own run
    ],
)
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_forked_process_is_refused(tables: Tables, loop: str, how: str) -> None:
    async def main() -> None:
        async with tables.session() as session, session.unit_of_work() as unit:
            job = session.create(Job, {"data": "old"})
            await unit.commit()
            job["data"] = "recorded"
            async with job_context(session, job=job) as running:
                everything = Opened(session, job, running, unit)
                run = step if how == "at once" else asyncio.run
                uses = {name: partial(_use, run, use, everything) for name, use in USES.items()}
                for name, text in forked(uses).items():
                    assert text.startswith("SessionStateError: "), (name, text)
                    assert f"process {os.getpid()}" in text
                    assert "open one session in each process" in text
            assert len(session.recorded_operations) == 1
            session.rollback()

    anyio.run(main, backend=loop)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_forked_process_that_leaves_a_block_says_so(
    tables: Tables, loop: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with tables.session(timings=QUICK) as session:
            job = session.create(Job, {"data": "{}"})
            await session.commit()
            context = job_context(session, job=job)

            def leave() -> None:
                error = SystemExit(0)
                step(context.__aexit__(SystemExit, error, None))  # type: ignore[arg-type]

            def tell() -> None:
                raise RuntimeError(caplog.messages[-1])

            await context.__aenter__()
            texts = forked({"leave": leave, "tell": tell})
            assert "its failure was not reported: this session belongs to process" in texts["tell"]
            await context.__aexit__(None, None, None)
            assert tables.rows[job.id]["status"] == "done"

    anyio.run(main, backend=loop)


def _use(run: Callable[[Coroutine[Any, Any, None]], object], use: Use, everything: Opened) -> None:
    async def awaited() -> None:
        await use(everything)

    run(awaited())


# Sessions that are opened or closed more than once, or elsewhere


def test_a_session_of_an_earlier_event_loop_says_so(tables: Tables) -> None:
    """It was left open, as with ``asyncio.run(session.__aenter__())``."""
    session = AsyncSession("https://ftrack.test", "key", "maya", transport=tables)

    async def use() -> None:
        await session.query("select id from Job").all()

    asyncio.run(session.__aenter__())
    with pytest.raises(SessionStateError, match="one session in each event loop"):
        asyncio.run(use())
    with pytest.raises(SessionStateError, match="only once"):
        asyncio.run(session.__aenter__())
    asyncio.run(session.__aexit__(None, None, None))


@pytest.mark.parametrize("loops", [("asyncio", "asyncio"), ("asyncio", "trio"), ("trio", "trio")])
def test_a_session_that_was_closed_cannot_be_opened_again(
    tables: Tables, loops: tuple[str, str]
) -> None:
    session = AsyncSession("https://ftrack.test", "key", "maya", transport=tables)

    async def use() -> None:
        async with session:
            session.create(Job)
            await session.commit()

    anyio.run(use, backend=loops[0])
    with pytest.raises(SessionStateError, match="only once"):
        anyio.run(use, backend=loops[1])


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
@pytest.mark.parametrize("journal", [None, "journal.db"])
def test_two_tasks_cannot_open_one_session(
    tables: Tables, loop: str, journal: str | None, tmp_path: Path
) -> None:
    async def main() -> None:
        path = journal and tmp_path / journal
        session = AsyncSession("https://ftrack.test", "key", "maya", transport=tables, journal=path)
        errors = list[SessionStateError]()

        async def open_it() -> None:
            try:
                await session.__aenter__()
            except SessionStateError as exc:
                errors.append(exc)

        async with anyio.create_task_group() as group:
            group.start_soon(open_it)
            group.start_soon(open_it)
        assert [str(each) for each in errors] == [
            "a session can be opened only once; make a new one"
        ]
        await session.__aexit__(None, None, None)

    anyio.run(main, backend=loop)


def test_the_error_of_a_block_that_ends_elsewhere_is_not_hidden(
    tables: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(tables) as (_, everything):
        error = OSError("broken")
        assert run_in("asyncio", lambda: everything.session.__aexit__(OSError, error, None)) is None
        assert "another event loop" in caplog.text
        assert connection_of(everything.session).background.event_loop is not None


def test_a_job_that_ends_in_another_event_loop_says_so(tables: Tables) -> None:
    session = AsyncSession("https://ftrack.test", "key", "maya", transport=tables, timings=QUICK)
    with asyncio.Runner() as runner:

        async def begin() -> Any:
            await session.__aenter__()
            job = session.create(Job, {"data": "old"})
            await session.commit()
            running = job_context(session, job=job)
            await running.__aenter__()
            return running

        running = runner.run(begin())
        error = run_in("asyncio", lambda: running.__aexit__(None, None, None))
        assert isinstance(error, SessionStateError)
        assert "another event loop" in str(error)
        runner.run(turns())
        runner.run(session.__aexit__(None, None, None))


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_session_that_was_never_opened_says_so(tables: Tables, loop: str) -> None:
    session = AsyncSession("https://ftrack.test", "key", "maya", transport=tables)
    for name, use in (
        ("commit", session.commit),
        ("query", lambda: session.query("Job").all()),
        ("job_context", lambda: _run_job(session)),
        ("unit_of_work", lambda: _enter_block(session)),
    ):
        error = run_in(loop, use)
        assert isinstance(error, SessionStateError), name
        assert "async with AsyncSession" in str(error)
