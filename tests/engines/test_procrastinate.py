"""procrastinate on PostgreSQL: each of its jobs is one ftrack Job, whatever becomes of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from aioftrackjobs import AsyncSession, Verdict, current_job, recover

from ..amounts import amount
from .farm import LONG, Farm, until

procrastinate = pytest.importorskip("procrastinate", reason="procrastinate is not installed")

from procrastinate import exceptions

from aioftrackjobs.integrations.procrastinate import ftrack_jobs, task_key

TASKS = amount(30, 1000)

#: What workers in these tests wait for, so that they notice all soon.
QUICK: dict[str, Any] = {
    "fetch_job_polling_interval": 0.1,
    "abort_job_polling_interval": 0.1,
    "install_signal_handlers": False,
}


@pytest.fixture
async def app(database: str) -> AsyncIterator[Any]:
    connector = procrastinate.PsycopgConnector(conninfo=database)
    app = procrastinate.App(connector=connector)
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        yield app


async def work(app: Any, session: AsyncSession, **options: Any) -> None:
    """Run all jobs that wait now, and end."""
    middleware = ftrack_jobs(session, **options)
    await app.run_worker_async(wait=False, worker_middleware=[middleware], **QUICK)


@asynccontextmanager
async def working(app: Any, session: AsyncSession, **options: Any) -> AsyncIterator[None]:
    """Run a worker, and stop it at the end of the block."""
    middleware = ftrack_jobs(session, redelivered_within=3600)
    options = {**QUICK, "shutdown_graceful_timeout": 0.1, **options}
    worker = asyncio.create_task(app.run_worker_async(worker_middleware=[middleware], **options))
    try:
        yield
    finally:
        worker.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.wait([worker])


async def run_one(app: Any, session: AsyncSession, task: Any, **options: Any) -> int:
    number: int = await task.defer_async()
    await work(app, session, **options)
    return number


async def test_progress_of_async_and_plain_functions(
    app: Any, session: AsyncSession, farm: Farm
) -> None:
    seen = list[str]()

    @app.task(name="sums.async")
    async def render() -> None:
        current_job().finish("3 frames")
        seen.append(current_job().id)

    @app.task(name="sums.plain")
    def copy() -> None:
        current_job().description = "Copy"
        time.sleep(0.01)
        seen.append(current_job().id)

    first = await run_one(app, session, render, user=lambda _: session.api_user)
    second = await run_one(app, session, copy)
    assert seen == [str(task_key(first)), str(task_key(second))]
    assert await farm.job(task_key(first)) == ("done", "sums.async - 3 frames")
    assert await farm.job(task_key(second)) == ("done", "Copy")


async def test_a_job_is_queued_where_it_is_deferred(
    app: Any, session: AsyncSession, farm: Farm
) -> None:
    @app.task(name="render")
    async def render() -> None: ...

    number = await render.defer_async()
    await session.queue_job(task_key(number), description="Render sh010")
    assert await farm.job(task_key(number)) == ("queued", "Render sh010")
    await work(app, session)
    assert await farm.job(task_key(number)) == ("done", "Render sh010")


async def test_three_attempts_make_one_job(app: Any, session: AsyncSession, farm: Farm) -> None:
    @app.task(name="flaky", retry=procrastinate.RetryStrategy(max_attempts=2), pass_context=True)
    async def flaky(context: Any) -> None:
        if context.job.attempts < 2:
            raise OSError("disk busy")

    number = await flaky.defer_async()
    texts = list[str | None]()
    for _ in range(3):
        await work(app, session)
        texts.append((await farm.job(task_key(number)))[1])
    assert texts[-1] == "flaky"
    assert await farm.counts() == {"done": 1}


async def test_an_attempt_says_when_it_is_tried_again(
    app: Any, session: AsyncSession, farm: Farm
) -> None:
    @app.task(name="flaky", retry=procrastinate.RetryStrategy(max_attempts=2, wait=3600))
    async def flaky() -> None:
        raise OSError("disk busy")

    number = await run_one(app, session, flaky, redelivered_within=7200)
    status, text = await farm.job(task_key(number))
    assert status == "queued"
    assert text is not None
    assert text.startswith("flaky - attempt 2 of 3 in 3")
    assert text.endswith(" s, after OSError: disk busy")
    assert [each.verdict for each in (await recover(session)).jobs] == []


async def test_a_failure_has_its_reason(app: Any, session: AsyncSession, farm: Farm) -> None:
    @app.task(name="broken")
    async def broken() -> None:
        raise OSError("disk full")

    number = await run_one(app, session, broken)
    assert await farm.job(task_key(number)) == ("failed", "broken - failed: OSError: disk full")


@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_an_abort_has_its_reason(
    app: Any, session: AsyncSession, farm: Farm, kind: str
) -> None:
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()

    @app.task(name="async", pass_context=True)
    async def render(_: Any) -> None:
        begun.set()
        await asyncio.sleep(LONG)

    @app.task(name="plain", pass_context=True)
    def copy(context: Any) -> None:
        loop.call_soon_threadsafe(begun.set)
        for _ in range(int(LONG / 0.01)):
            if context.should_abort():
                raise exceptions.JobAborted
            time.sleep(0.01)

    number = await (render if kind == "async" else copy).defer_async()
    async with working(app, session):
        await begun.wait()
        await app.job_manager.cancel_job_by_id_async(number, abort=True)
        await until(lambda: farm.counts_are(failed=1))
    assert await farm.job(task_key(number)) == ("failed", f"{kind} - failed: aborted")


@pytest.mark.parametrize(
    ("retry", "end"),
    [
        pytest.param(False, ("failed", "render - failed: its worker was stopped"), id="fails"),
        pytest.param(True, ("queued", "render - attempt 2 in 0 s, after cancelled"), id="again"),
    ],
)
async def test_the_stop_of_a_worker_leaves_no_job_running(
    app: Any, session: AsyncSession, farm: Farm, retry: Any, end: tuple[str, str]
) -> None:
    begun = asyncio.Event()

    @app.task(name="render", retry=retry)
    async def render() -> None:
        begun.set()
        await asyncio.sleep(LONG)

    number = await render.defer_async()
    async with working(app, session):
        await begun.wait()
    assert await farm.job(task_key(number)) == end


async def test_a_stopped_job_stays_stopped(app: Any, session: AsyncSession, farm: Farm) -> None:
    begun = asyncio.Event()

    @app.task(name="render", retry=2)
    async def render() -> None:
        begun.set()
        await asyncio.sleep(LONG)

    number = await render.defer_async()
    async with working(app, session):
        await begun.wait()
        await session.stop_job(task_key(number), "wrong shot", by="maya")
        await until(lambda: farm.counts_are(failed=1))
    await work(app, session)
    end = ("failed", "render - failed: stopped by maya: wrong shot")
    assert await farm.job(task_key(number)) == end


async def mend(app: Any) -> None:
    for job in await app.job_manager.get_stalled_jobs(seconds_since_heartbeat=2):
        await app.job_manager.retry_job(job)


@pytest.mark.smoke
@pytest.mark.slow
@pytest.mark.timeout(20 * LONG)
async def test_each_task_is_one_job_although_a_worker_is_killed(
    app: Any, session: AsyncSession, farm: Farm, database: str
) -> None:
    """Two workers on two hosts; one is killed in the midst, and its tasks go to the other."""
    render = app.configure_task("render", queue="default")
    numbers = await render.batch_defer_async(
        *({"shot": f"sh{number:04}", "seconds": 0.05} for number in range(TASKS))
    )
    victim = await farm.start("procrastinate_worker", "farm01", DATABASE=database)
    await until(farm.hosts)
    await farm.start("procrastinate_worker", "farm02", DATABASE=database)
    victim.kill()
    await victim.wait()
    assert all(
        each.verdict in (Verdict.REDELIVERED, Verdict.ALIVE)
        for each in (await recover(session)).jobs
    )

    async def is_done() -> bool:
        await mend(app)
        await asyncio.sleep(0.3)
        return await farm.counts_are(done=TASKS)

    await until(is_done, seconds=LONG if TASKS < 100 else 15 * LONG)
    found = await session.query("select id from Job").all()
    assert {each["id"] for each in found} == {str(task_key(number)) for number in numbers}


# Examples of procrastinate's documentation, with the middleware added


async def test_the_quickstart(app: Any, session: AsyncSession, farm: Farm) -> None:
    sums = dict[str, int]()

    @app.task(name="sum", queue="sums")
    def add(a: int, b: int) -> None:
        sums["result"] = a + b

    number = await add.defer_async(a=5, b=7)
    await work(app, session)
    assert sums == {"result": 12}
    assert await farm.job(task_key(number)) == ("done", "sum")


async def test_locks_schedules_and_periodic_tasks(
    app: Any, session: AsyncSession, farm: Farm
) -> None:
    order = list[str]()

    @app.task(name="customer", pass_context=True)
    async def write(context: Any, name: str) -> None:
        order.append(name)
        assert current_job().id == str(task_key(context.job.id))

    for name in ("a", "b"):
        await write.configure(lock="customer/3", schedule_in={"seconds": 0}).defer_async(name=name)
    await work(app, session, description=lambda job: f"Write {job.task_kwargs['name']}")
    await work(app, session)
    assert order == ["a", "b"]
    assert await farm.counts() == {"done": 2}


async def test_other_middlewares_and_results(app: Any, session: AsyncSession, farm: Farm) -> None:
    results = list[object]()

    async def note(call_next: Callable[[], Any], context: Any, worker: Any) -> Any:
        results.append(await call_next())
        return results[-1]

    @app.task(name="answer")
    async def answer() -> int:
        return 42

    number = await answer.defer_async()
    middlewares = [note, ftrack_jobs(session)]
    await app.run_worker_async(wait=False, worker_middleware=middlewares, **QUICK)
    assert results == [42]
    assert await farm.job(task_key(number)) == ("done", "answer")
