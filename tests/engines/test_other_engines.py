"""The recipes of docs/engines.md for engines without an integration: each with one task that fails
at its first attempt, and is one Job all the same."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import partial, wraps
from importlib import import_module
from typing import Any

import anyio
import anyio.to_thread
import pytest

from aioftrackjobs import AsyncSession, JobKey, blocking, job_context, job_key
from aioftrackjobs.devserver import ServerHandle

from .farm import LONG, Farm, until

pytestmark = pytest.mark.filterwarnings("ignore")  # those of the engines


@pytest.fixture
async def blocking_session(server: ServerHandle) -> AsyncIterator[blocking.Session]:
    session = blocking.Session(server.url, server.api_key, server.api_user)
    yield session
    await anyio.to_thread.run_sync(session.close)


class Flaky:
    """Work that fails at its first attempt."""

    def __init__(self) -> None:
        self.attempts = 0

    def __call__(self, error: Callable[[str], Exception] = OSError) -> str:
        self.attempts += 1
        if self.attempts == 1:
            raise error("disk busy")
        return "baked"


#: What the module of a worker has.
_in_worker = dict[str, Any]()


def bake(shot: str) -> str:
    """A task of Dask, which sends it by its name."""
    worker = import_module("distributed").get_worker()
    key = job_key("dask", "farm", worker.get_current_task())
    with blocking.job_context(_in_worker["session"], job=key, description=f"Bake {shot}") as job:
        for _ in job.track(range(3)):
            pass
        return str(_in_worker["flaky"]())


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_streaq(redis_url: str, session: AsyncSession, farm: Farm) -> None:
    streaq = pytest.importorskip("streaq", reason="streaq is not installed")
    flaky = Flaky()
    worker = streaq.Worker(redis_url=redis_url, queue_name="bakes", handle_signals=False)

    @worker.middleware
    def as_job(task: Callable[..., Any]) -> Callable[..., Any]:
        async def run(*args: Any, **kwargs: Any) -> Any:
            context = as_job.context
            key = job_key("streaq", "bakes", context.task_id, redelivered_within=3600)
            text, again = f"Bake {args[0]}", streaq.StreaqRetry
            async with job_context(session, job=key, description=text, retry_on=again):
                return await task(*args, **kwargs)

        return run

    @worker.task(name="bake")
    async def bake(shot: str) -> str:
        return flaky(partial(streaq.StreaqRetry, delay=0))

    async with anyio.create_task_group() as group:
        await group.start(worker.run_async)
        task = await bake.enqueue("sh010")
        with anyio.fail_after(LONG):
            result = await task.result()
        group.cancel_scope.cancel()
    assert (result.success, result.result, flaky.attempts) == (True, "baked", 2)
    assert await farm.job(job_key("streaq", "bakes", task.id)) == ("done", "Bake sh010")


async def test_dramatiq(redis_url: str, blocking_session: blocking.Session, farm: Farm) -> None:
    dramatiq = pytest.importorskip("dramatiq", reason="Dramatiq is not installed")
    redis = pytest.importorskip("dramatiq.brokers.redis", reason="Redis's client is not installed")
    current_message = dramatiq.middleware.CurrentMessage
    flaky, retries = Flaky(), 2
    broker = redis.RedisBroker(url=redis_url)
    broker.add_middleware(current_message())

    def as_job(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def run(*args: Any) -> Any:
            message = current_message.get_current_message()
            key = key_of(message)
            is_last = message.options.get("retries", 0) >= retries
            again = () if is_last else Exception
            text = f"Bake {args[0]}"
            with blocking.job_context(blocking_session, job=key, description=text, retry_on=again):
                return function(*args)

        return run

    def key_of(message: Any) -> JobKey:
        return job_key("dramatiq", "farm", message.message_id, redelivered_within=3600)

    @dramatiq.actor(
        broker=broker, actor_name="bake", max_retries=retries, min_backoff=1, max_backoff=5
    )
    @as_job
    def bake(shot: str) -> None:
        flaky()

    message = bake.send("sh010")
    worker = dramatiq.Worker(broker, worker_timeout=50, worker_threads=2)
    worker.start()
    try:
        await until(lambda: farm.counts_are(done=1))
    finally:
        await anyio.to_thread.run_sync(worker.stop)
        broker.close()
    assert await farm.job(key_of(message)) == ("done", "Bake sh010")


@pytest.mark.slow
async def test_dask(
    blocking_session: blocking.Session, farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    distributed = pytest.importorskip("distributed", reason="Dask is not installed")
    monkeypatch.setitem(_in_worker, "session", blocking_session)
    monkeypatch.setitem(_in_worker, "flaky", Flaky())

    def run() -> Any:
        options = {"processes": False, "n_workers": 1, "dashboard_address": None}
        with distributed.Client(**options) as client:
            future = client.submit(bake, "sh010", key="bake-sh010", retries=2)
            return future.result(timeout=LONG)

    assert await anyio.to_thread.run_sync(run) == "baked"
    assert await farm.job(job_key("dask", "farm", "bake-sh010")) == ("done", "Bake sh010")
