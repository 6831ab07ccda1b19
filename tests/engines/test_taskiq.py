"""taskiq, also on Redis: each of its tasks is one ftrack Job, whatever becomes of it."""

# No "from __future__ import annotations": taskiq evaluates those of tasks, which are local here.

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest

from aioftrackjobs import AsyncSession, Verdict, current_job, recover
from aioftrackjobs.devserver import ServerHandle

from ..amounts import amount
from .farm import LONG, Farm, until

taskiq = pytest.importorskip("taskiq", reason="taskiq is not installed")
pytest.importorskip("taskiq_redis", reason="taskiq-redis is not installed")

from redis.asyncio import Redis
from taskiq import (
    Context,
    InMemoryBroker,
    SimpleRetryMiddleware,
    SmartRetryMiddleware,
    TaskiqDepends,
)

from aioftrackjobs.integrations.taskiq import FtrackJob, FtrackJobs

from .taskiq_broker import make_broker

TASKS = amount(30, 1000)


@pytest.fixture
def jobs(server: ServerHandle) -> FtrackJobs:
    return FtrackJobs(AsyncSession(server.url, server.api_key, server.api_user))


@pytest.fixture
async def broker(jobs: FtrackJobs) -> AsyncIterator[Any]:
    """A broker that runs tasks in this process."""
    broker = InMemoryBroker().with_middlewares(SimpleRetryMiddleware(), jobs)
    await broker.startup()
    yield broker
    await broker.shutdown()


async def test_progress_of_async_and_plain_functions(
    broker: Any, jobs: FtrackJobs, farm: Farm
) -> None:
    @broker.task(task_name="async")
    async def render(job: FtrackJob) -> str:
        assert current_job() is job
        job.finish("3 frames")
        return job.id

    @broker.task(task_name="plain")
    def copy(job: FtrackJob) -> str:
        time.sleep(0.01)
        assert current_job() is job
        return job.id

    for task, text in ((render, "async - 3 frames"), (copy, "plain")):
        sent = await task.kiq()
        result = await sent.wait_result(timeout=LONG)
        assert result.return_value == str(jobs.key(sent.task_id))
        await broker.wait_all()
        assert await farm.job(jobs.key(sent.task_id)) == ("done", text)


async def test_a_job_is_queued_where_its_task_is_sent(
    server: ServerHandle, redis_url: str, farm: Farm, session: AsyncSession
) -> None:
    producer = AsyncSession(server.url, server.api_key, server.api_user)
    broker = make_broker(redis_url, "waits", producer)
    await broker.startup()
    await broker.find_task("render").kiq(shot="sh010", seconds=0)
    await broker.shutdown()
    assert await farm.counts() == {"queued": 1}
    (job,) = await session.query("select data from Job").all()
    assert '"Render sh010"' in job["data"]


async def test_a_task_is_sent_although_ftrack_is_away(redis_url: str) -> None:
    away = AsyncSession("http://127.0.0.1:9", "key", "user")
    broker = make_broker(redis_url, "away", away)
    await broker.startup()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("aioftrackjobs.integrations._tasks._QUEUEING", 0.05)
        sent = await broker.find_task("render").kiq(shot="sh010", seconds=0)
    redis: Any = Redis.from_url(redis_url)
    ((_, message),) = await redis.xrange("away")
    await redis.aclose()
    assert sent.task_id.encode() in message[b"data"]
    await broker.shutdown()


async def test_three_attempts_make_one_job(
    broker: Any, jobs: FtrackJobs, farm: Farm, session: AsyncSession
) -> None:
    texts = list[str]()

    @broker.task(task_name="flaky", retry_on_error=True, max_retries=3)
    async def flaky(job: FtrackJob, context: Annotated[Context, TaskiqDepends()]) -> int:
        texts.append(str((await session.query("select data from Job").one())["data"]))
        if len(texts) < 3:
            raise OSError("disk busy")
        return len(texts)

    sent = await flaky.kiq()
    await until(lambda: farm.counts_are(done=1))
    assert (await sent.wait_result(timeout=LONG)).return_value == 3
    assert await farm.job(jobs.key(sent.task_id)) == ("done", "flaky")


@pytest.mark.parametrize("middleware", [SimpleRetryMiddleware, SmartRetryMiddleware])
async def test_an_attempt_says_that_it_is_tried_again(
    jobs: FtrackJobs, farm: Farm, middleware: Any
) -> None:
    release = asyncio.Event()
    broker = InMemoryBroker().with_middlewares(middleware(), jobs)
    await broker.startup()
    attempts = list[int]()

    async def gate() -> None:
        attempts.append(1)
        if len(attempts) > 1:
            await release.wait()

    @broker.task(task_name="flaky", retry_on_error=True, max_retries=2)
    async def flaky(_: Annotated[None, TaskiqDepends(gate)], job: FtrackJob) -> None:
        raise OSError("disk busy")

    sent = await flaky.kiq()  # type: ignore[call-overload]
    await until(lambda: farm.counts_are(queued=1))
    text = "flaky - attempt 2 of 2, after OSError: disk busy"
    assert await farm.job(jobs.key(sent.task_id)) == ("queued", text)
    release.set()
    await until(lambda: farm.counts_are(failed=1))
    text = "flaky - failed: OSError: disk busy"
    assert await farm.job(jobs.key(sent.task_id)) == ("failed", text)
    await broker.wait_all()
    await broker.shutdown()


async def test_reasons(broker: Any, jobs: FtrackJobs, farm: Farm) -> None:
    @broker.task(task_name="broken")
    async def broken(job: FtrackJob) -> None:
        raise OSError("disk full")

    @broker.task(task_name="slow", timeout=0.1)
    async def slow(job: FtrackJob) -> None:
        await asyncio.sleep(LONG)

    for task, reason in ((broken, "OSError: disk full"), (slow, "timed out after 0.1 s")):
        sent = await task.kiq()
        await broker.wait_all()
        text = f"{task.task_name} - failed: {reason}"
        assert await farm.job(jobs.key(sent.task_id)) == ("failed", text)
        assert (await sent.wait_result(timeout=LONG)).is_err


async def test_a_task_that_requeues_itself_is_one_job(
    broker: Any, jobs: FtrackJobs, farm: Farm
) -> None:
    runs = list[int]()

    @broker.task(task_name="again")
    async def again(job: FtrackJob, context: Annotated[Context, TaskiqDepends()]) -> None:
        runs.append(1)
        if len(runs) < 2:
            await context.requeue()

    sent = await again.kiq()
    await until(lambda: farm.counts_are(done=1))
    assert len(runs) == 2
    assert await farm.job(jobs.key(sent.task_id)) == ("done", "again")
    await broker.wait_all()


async def test_a_stopped_job_stops_its_task(
    broker: Any, jobs: FtrackJobs, farm: Farm, session: AsyncSession
) -> None:
    begun = asyncio.Event()

    @broker.task(task_name="render")
    async def render(job: FtrackJob) -> None:
        begun.set()
        await asyncio.sleep(LONG)

    sent = await render.kiq()
    await begun.wait()
    await session.stop_job(jobs.key(sent.task_id), "wrong shot", by="maya")
    await until(lambda: farm.counts_are(failed=1))
    text = "render - failed: stopped by maya: wrong shot"
    assert await farm.job(jobs.key(sent.task_id)) == ("failed", text)
    await broker.wait_all()


@pytest.mark.parametrize(
    ("within", "end"),
    [
        pytest.param(None, ("failed", "render - failed: its worker was stopped"), id="fails"),
        pytest.param(60, ("queued", "render - its worker was stopped"), id="delivered-again"),
    ],
)
async def test_the_stop_of_a_worker_leaves_no_job_running(
    server: ServerHandle, farm: Farm, within: float | None, end: tuple[str, str]
) -> None:
    own = AsyncSession(server.url, server.api_key, server.api_user)
    jobs = FtrackJobs(own, redelivered_within=within)
    broker = InMemoryBroker().with_middlewares(jobs)
    await broker.startup()
    begun, release = asyncio.Event(), asyncio.Event()

    @broker.task(task_name="render")
    async def render(job: FtrackJob) -> None:
        begun.set()
        await release.wait()

    sent = await render.kiq()  # type: ignore[call-overload]
    await begun.wait()
    await broker.shutdown()  # the receiver of taskiq waits for its tasks for some time only
    assert await farm.job(jobs.key(sent.task_id)) == end
    release.set()
    await broker.wait_all()
    assert await farm.job(jobs.key(sent.task_id)) == end


@pytest.mark.smoke
@pytest.mark.slow
@pytest.mark.timeout(20 * LONG)
async def test_each_task_is_one_job_although_a_worker_is_killed(
    server: ServerHandle, session: AsyncSession, farm: Farm, redis_url: str
) -> None:
    """Two workers on two hosts; one is killed in the midst, and its tasks go to the other."""
    producer = AsyncSession(server.url, server.api_key, server.api_user)
    broker = make_broker(redis_url, "renders", producer)
    await broker.startup()
    render = broker.find_task("render")
    sent = [await render.kiq(shot=f"sh{number:04}", seconds=0.05) for number in range(TASKS)]
    assert await farm.counts() == {"queued": TASKS}
    env = {"REDIS": redis_url, "QUEUE": "renders"}
    victim = await farm.start("taskiq_broker", "farm01", **env)
    await until(farm.hosts)
    victim.kill()
    await victim.wait()
    await farm.start("taskiq_broker", "farm02", **env)
    verdicts = {each.verdict for each in (await recover(session)).jobs}
    assert verdicts <= {Verdict.REDELIVERED, Verdict.ALIVE}
    seconds = LONG if TASKS < 100 else 15 * LONG

    async def are_done() -> bool:
        # Workers look for the tasks of dead ones only when another task arrives.
        await broker.find_task("tick").kiq()
        await asyncio.sleep(0.3)
        return await farm.counts_are(done=TASKS)

    await until(are_done, seconds=seconds)
    await broker.shutdown()
    found = await session.query("select id from Job").all()
    key = FtrackJobs(producer, queue="renders").key
    assert {each["id"] for each in found} == {str(key(each.task_id)) for each in sent}


# Examples of taskiq's documentation, with the middleware added


async def test_the_first_steps(broker: Any, jobs: FtrackJobs, farm: Farm) -> None:
    @broker.task
    async def best_task_ever(job: FtrackJob) -> None:
        """Solve all problems in the world."""
        await asyncio.sleep(0.01)

    sent = await best_task_ever.kiq()
    result = await sent.wait_result(timeout=LONG)
    assert not result.is_err
    await broker.wait_all()
    status, text = await farm.job(jobs.key(sent.task_id))
    assert (status, text) == ("done", best_task_ever.task_name)


async def test_state_and_dependencies(broker: Any, jobs: FtrackJobs, farm: Farm) -> None:
    async def common(job: FtrackJob) -> int:
        job.progress(0.5, "common")
        return 1

    @broker.task(task_name="sum", ftrack_job="Add {0} and {second}")
    async def add(
        first: int, second: int, job: FtrackJob, one: Annotated[int, TaskiqDepends(common)]
    ) -> int:
        return first + second + one

    sent = await add.kiq(1, second=2)
    assert (await sent.wait_result(timeout=LONG)).return_value == 4
    await broker.wait_all()
    assert await farm.job(jobs.key(sent.task_id)) == ("done", "Add 1 and 2")
