"""To which unit of work a change belongs: that of its task, of its block, or of the session.

Most tests need a server without sockets, to see what is sent in which order.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import logging
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any
from weakref import ref

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest
import trio
from starlette.background import BackgroundTasks

from aioftrackjobs import AsyncSession, EntityError, Job, ServerError, SessionStateError
from aioftrackjobs.commit.unit_of_work import UnitOfWork
from aioftrackjobs.session import context_of

from ..tables import Tables, turns

Commit = Callable[[AsyncSession], Awaitable[object]]
pytestmark = pytest.mark.every_loop


@pytest.fixture
def tables() -> Tables:
    return Tables()


@pytest.fixture
async def session(tables: Tables) -> AsyncIterator[AsyncSession]:
    async with tables.session() as opened:
        yield opened


@pytest.fixture
async def jobs(session: AsyncSession, tables: Tables) -> list[Job]:
    """Three Jobs that the server has."""
    async with session.unit_of_work():
        made = [session.create(Job, {"status": "queued", "data": "old"}) for _ in range(3)]
    tables.batches.clear()
    tables.arrived = anyio.Event()
    return made


async def at_once(work: Callable[[Job, str], Coroutine[Any, Any, None]], jobs: list[Job]) -> None:
    """Run *work* in a task for each Job, with a text of its own."""
    async with anyio.create_task_group() as group:
        for number, job in enumerate(jobs):
            group.start_soon(work, job, str(number))


def sent(tables: Tables) -> list[tuple[str, object]]:
    """Return the writes that were sent: the action, and the data if there are any."""
    return [
        (each["action"], each.get("entity_data", {}).get("data"))
        for batch in tables.batches
        for each in batch
    ]


# Tasks beside each other


async def test_a_commit_does_not_send_what_another_task_has_recorded(
    session: AsyncSession, tables: Tables, jobs: list[Job]
) -> None:
    one, two, three = jobs
    recorded = anyio.Event()

    async def roll_back() -> None:
        one["data"] = "half done"
        session.create(Job, {"data": "half done"})
        recorded.set()
        await turns()
        assert len(session.recorded_operations) == 2
        session.rollback()

    async def commit() -> None:
        two["data"] = "two"
        await recorded.wait()
        await session.commit()

    async def change() -> None:
        three["data"] = "three"
        await recorded.wait()
        await turns(40)
        await session.commit()

    async with anyio.create_task_group() as group:
        for each in (roll_back, commit, change):
            group.start_soon(each)

    assert sorted(sent(tables)) == [("update", "three"), ("update", "two")]
    assert one["data"] == "old"
    assert three["data"] == "three"


async def test_a_task_that_records_does_not_record_in_the_unit_that_it_inherits(
    session: AsyncSession, tables: Tables, jobs: list[Job]
) -> None:
    one, two, _ = jobs
    one["data"] = "of the parent"

    async def child() -> None:
        two["data"] = "of the child"
        assert session.modified == [two]
        await session.commit()
        await session.commit()
        assert session.recorded_operations == ()

    async with anyio.create_task_group() as group:
        group.start_soon(child)

    assert sent(tables) == [("update", "of the child")]
    assert session.modified == [one]
    session.rollback()


async def test_a_task_that_has_recorded_nothing_acts_on_the_unit_that_it_inherits(
    session: AsyncSession, jobs: list[Job]
) -> None:
    jobs[0]["data"] = "half done"
    made = session.create(Job, {"data": "new"})
    session.delete(jobs[1])
    seen = list[object]()

    async def child() -> None:
        seen.extend([len(session.recorded_operations), session.created, session.modified])
        seen.append(session.deleted)
        session.rollback()

    async with anyio.create_task_group() as group:
        group.start_soon(child)

    assert seen == [3, [made], [jobs[0]], [jobs[1]]]
    assert session.recorded_operations == ()
    assert jobs[0]["data"] == "old"


async def test_a_task_does_not_act_on_what_its_parent_records_in_a_later_transaction(
    session: AsyncSession, tables: Tables, jobs: list[Job]
) -> None:
    """As a request that ends with ``session.rollback()``, and has recorded nothing."""
    go_on = anyio.Event()

    async def child(act: Callable[[], object]) -> None:
        await go_on.wait()
        result = act()
        if isinstance(result, Awaitable):
            await result

    jobs[0]["data"] = "committed"
    async with anyio.create_task_group() as group:
        group.start_soon(child, session.commit)
        await turns()
        await session.commit()
        group.start_soon(child, session.rollback)
        await turns()
        jobs[1]["data"] = "half done"
        go_on.set()
    assert sent(tables) == [("update", "committed")]
    assert session.modified == [jobs[1]]

    async with anyio.create_task_group() as group:
        group.start_soon(session.commit)
    assert tables.data_of(jobs[1]) == "half done"


async def test_a_task_retries_the_refused_commit_of_its_parent(
    session: AsyncSession, tables: Tables, jobs: list[Job]
) -> None:
    tables.refuses = lambda _: True
    jobs[0]["data"] = "new"
    with pytest.raises(ServerError):
        await session.commit()
    tables.refuses = lambda _: False
    async with anyio.create_task_group() as group:
        group.start_soon(session.commit)
    assert tables.data_of(jobs[0]) == "new"


async def test_a_rollback_of_what_the_parent_has_recorded_is_logged(
    session: AsyncSession, jobs: list[Job], caplog: pytest.LogCaptureFixture
) -> None:
    jobs[0]["data"] = "of the parent"

    async def fail() -> None:
        session.rollback()

    async def fail_in_a_block() -> None:
        async with session.unit_of_work():
            session.rollback()

    async with anyio.create_task_group() as group:
        group.start_soon(fail_in_a_block)
    assert jobs[0]["data"] == "of the parent"
    assert caplog.messages == []

    async with anyio.create_task_group() as group:
        group.start_soon(fail, name="worker")
    (message,) = caplog.messages
    assert message.startswith("task 'worker' rolls back 1 uncommitted operation(s) of task ")
    assert f"data of Job {jobs[0].id}" in message


@pytest.mark.asyncio_only  # a thread of trio has the unit of its task
async def test_a_rollback_of_what_other_threads_have_recorded_is_logged(
    session: AsyncSession, tables: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    recorded = threading.Barrier(2)

    def work(*, commits: bool) -> None:
        anyio.from_thread.run_sync(session.create, Job, {"data": str(commits)})
        recorded.wait(10)
        if not commits:
            anyio.from_thread.run_sync(session.rollback)
        recorded.wait(10)
        if commits:
            anyio.from_thread.run(session.commit)

    async def in_a_block(function: Callable[[], None]) -> None:
        async with session.unit_of_work():
            await anyio.to_thread.run_sync(function)

    for run in (in_a_block, anyio.to_thread.run_sync):
        async with anyio.create_task_group() as group:
            for commits in (True, False):
                group.start_soon(run, functools.partial(work, commits=commits))
        assert sent(tables) == [("create", "True")]
    (message,) = caplog.messages
    assert message.startswith("a callback rolls back 2 uncommitted operation(s) of callbacks: Job ")
    assert "async with session.unit_of_work()" in message


async def test_a_child_that_rolls_back_what_was_refused_logs_nothing(
    session: AsyncSession, tables: Tables, jobs: list[Job], caplog: pytest.LogCaptureFixture
) -> None:
    tables.refuses = lambda _: True
    jobs[0]["data"] = "refused"

    async def commit() -> None:
        with pytest.raises(ServerError):
            await session.commit()
        session.rollback()

    async with anyio.create_task_group() as group:
        group.start_soon(commit)

    assert session.recorded_operations == ()
    assert caplog.messages == []


COMMITS = {
    "wait_for": lambda session: asyncio.wait_for(session.commit(), 5),
    "gather": lambda session: asyncio.gather(session.commit(), asyncio.sleep(0)),
    "create_task": lambda session: asyncio.create_task(session.commit()),
    "ensure_future": lambda session: asyncio.ensure_future(session.commit()),
    "shield": lambda session: asyncio.shield(session.commit()),
    "wait": lambda session: asyncio.wait([asyncio.create_task(session.commit())]),
    "partial": lambda session: asyncio.create_task(functools.partial(session.commit)()),
    "run_coroutine_threadsafe": lambda session: _from_a_thread(session),
    "empty context": lambda session: asyncio.create_task(
        session.commit(), context=contextvars.Context()
    ),
}


async def _from_a_thread(session: AsyncSession) -> None:
    loop = asyncio.get_running_loop()

    def work() -> None:
        asyncio.run_coroutine_threadsafe(session.commit(), loop).result(5)

    await asyncio.to_thread(work)


@pytest.mark.asyncio_only
@pytest.mark.parametrize("commit", COMMITS.values(), ids=COMMITS)
async def test_a_commit_in_a_task_of_its_own_is_that_of_the_caller(
    session: AsyncSession, tables: Tables, jobs: list[Job], commit: Commit
) -> None:
    async def work(job: Job, data: str) -> None:
        job["data"] = data
        await turns()
        await commit(session)
        assert session.recorded_operations == ()
        assert tables.data_of(job) == data

    await at_once(work, jobs)


async def test_a_task_of_a_task_group_commits_what_its_parent_has_recorded(
    session: AsyncSession, tables: Tables, jobs: list[Job]
) -> None:
    async def work(job: Job, data: str) -> None:
        job["data"] = data
        async with anyio.create_task_group() as group:
            group.start_soon(session.commit)
        assert tables.data_of(job) == data

    await at_once(work, jobs)


@pytest.mark.asyncio_only
async def test_a_task_group_of_asyncio_commits_what_the_caller_has_recorded(
    session: AsyncSession, tables: Tables, jobs: list[Job]
) -> None:
    jobs[0]["data"] = "new"
    async with asyncio.TaskGroup() as group:
        group.create_task(session.commit())

    assert tables.data_of(jobs[0]) == "new"


async def test_a_nursery_commits_what_the_caller_has_recorded(
    session: AsyncSession, tables: Tables, jobs: list[Job], anyio_backend: str
) -> None:
    if anyio_backend != "trio":
        pytest.skip("about trio")
    jobs[0]["data"] = "new"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.commit)

    assert tables.data_of(jobs[0]) == "new"


async def test_a_worker_thread_commits_what_its_task_has_recorded(
    session: AsyncSession, tables: Tables, jobs: list[Job]
) -> None:
    async def work(job: Job, data: str) -> None:
        job["data"] = data
        await anyio.to_thread.run_sync(lambda: anyio.from_thread.run(session.commit))
        assert tables.data_of(job) == data

    await at_once(work, jobs)


async def test_a_worker_thread_records_in_the_unit_of_its_task(
    session: AsyncSession, tables: Tables, jobs: list[Job]
) -> None:
    """By way of the event loop. The task has a unit, because it has recorded something before."""

    async def work(job: Job, data: str) -> None:
        job["data"] = data

        def in_thread() -> None:
            anyio.from_thread.run_sync(session.create, Job, {"data": data})
            anyio.from_thread.run(session.commit)

        await anyio.to_thread.run_sync(in_thread)
        assert session.recorded_operations == ()

    await at_once(work, jobs)

    assert len(tables.batches) <= 3
    assert sorted(sent(tables)) == [(kind, n) for kind in ("create", "update") for n in "012"]


async def test_a_block_is_inherited_by_the_tasks_that_start_in_it(
    session: AsyncSession, tables: Tables, jobs: list[Job]
) -> None:
    async def change(job: Job) -> None:
        job["data"] = "new"
        await turns()

    async with session.unit_of_work(), anyio.create_task_group() as group:
        for job in jobs:
            group.start_soon(change, job)

    assert len(tables.batches) == 1
    assert sent(tables) == [("update", "new")] * 3


async def test_after_a_block_a_task_has_its_own_unit_again(
    session: AsyncSession, tables: Tables, jobs: list[Job]
) -> None:
    jobs[0]["data"] = "own"
    async with session.unit_of_work():
        jobs[1]["data"] = "of the block"
        assert session.modified == [jobs[1]]

    assert sent(tables) == [("update", "of the block")]
    assert session.modified == [jobs[0]]
    await session.commit()


async def test_ensure_commits_nothing_of_its_caller(
    session: AsyncSession, tables: Tables, jobs: list[Job], anyio_backend: str
) -> None:
    jobs[0]["data"] = "half done"
    await session.ensure(Job, {"id": "0" * 8, "data": "ensured"}, ["id"])

    assert sent(tables) == [("create", "ensured")]
    assert jobs[0]["data"] == "half done"
    session.rollback()


# Outside of tasks


@pytest.mark.asyncio_only
async def test_a_callback_records_in_the_unit_that_it_inherits(
    session: AsyncSession, tables: Tables, jobs: list[Job]
) -> None:
    loop = asyncio.get_running_loop()

    async def work(job: Job) -> None:
        job["data"] = "of the task"
        loop.call_soon(job.__setitem__, "data", "of the callback")
        await turns()
        await session.commit()
        assert tables.data_of(job) == "of the callback"

    async with anyio.create_task_group() as group:
        for job in jobs:
            group.start_soon(work, job)


async def test_a_callback_without_a_task_records_in_the_unit_of_the_session(
    session: AsyncSession, tables: Tables, jobs: list[Job], anyio_backend: str
) -> None:
    """A task commits that unit if it has recorded nothing, and inherited nothing."""
    if anyio_backend == "asyncio":
        loop = asyncio.get_running_loop()
        loop.call_soon(jobs[0].__setitem__, "data", "new")
    else:
        token = trio.lowlevel.current_trio_token()
        token.run_sync_soon(jobs[0].__setitem__, "data", "new")
    await turns()
    assert session.modified == [jobs[0]]

    jobs[1]["data"] = "of the task"
    assert session.modified == [jobs[1]]
    session.rollback()

    async def commit() -> None:
        await session.commit()

    if anyio_backend == "asyncio":
        await asyncio.create_task(commit(), context=contextvars.Context())
    else:
        context = contextvars.Context()
        async with trio.open_nursery() as nursery:
            task = trio.lowlevel.spawn_system_task(commit, context=context)
            del task, nursery
        await turns(60)
    assert sent(tables) == [("update", "new")]


@pytest.mark.asyncio_only
async def test_a_task_with_nothing_of_its_own_commits_what_callbacks_have_recorded(
    session: AsyncSession, tables: Tables, jobs: list[Job]
) -> None:
    loop, called = asyncio.get_running_loop(), asyncio.Event()
    jobs[0]["data"] = "of the task"
    await session.commit()

    def call() -> None:
        jobs[1]["data"] = "of the callback"
        called.set()

    thread = threading.Thread(target=loop.call_soon_threadsafe, args=(call,))
    thread.start()
    await called.wait()
    thread.join()
    assert session.modified == [jobs[1]]
    await session.commit()

    assert sent(tables) == [("update", "of the task"), ("update", "of the callback")]


@pytest.mark.asyncio_only
async def test_a_callback_after_the_end_of_its_task_records_in_the_unit_of_the_session(
    session: AsyncSession, tables: Tables, jobs: list[Job]
) -> None:
    loop, called = asyncio.get_running_loop(), asyncio.Event()

    def change() -> None:
        jobs[1]["data"] = "late"
        called.set()

    async def work() -> None:
        jobs[0]["data"] = "of the task"
        await session.commit()
        loop.call_later(0.01, change)

    await asyncio.create_task(work())
    await called.wait()
    assert context_of(session).tasks.default.modified == [jobs[1]]
    await session.commit()
    assert tables.data_of(jobs[1]) == "late"


async def test_what_runs_in_a_copied_context_belongs_to_its_task(
    session: AsyncSession, tables: Tables, jobs: list[Job]
) -> None:
    async def work(job: Job) -> None:
        contextvars.copy_context().run(job.__setitem__, "data", "copied")
        await turns()
        assert session.modified == [job]
        await session.commit()
        assert tables.data_of(job) == "copied"

    async with anyio.create_task_group() as group:
        for job in jobs:
            group.start_soon(work, job)


@pytest.mark.asyncio_only
async def test_tasks_with_one_context_have_units_of_their_own(
    session: AsyncSession, tables: Tables, jobs: list[Job]
) -> None:
    context = contextvars.copy_context()

    async def work(job: Job) -> None:
        job["data"] = "one"
        await asyncio.sleep(0)
        job["status"] = "running"
        await asyncio.sleep(0)
        assert session.modified == [job]
        await session.commit()

    await asyncio.gather(*(asyncio.create_task(work(job), context=context) for job in jobs))
    assert all(tables.data_of(job) == "one" for job in jobs)


@pytest.mark.asyncio_only
@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are of Python 3.12")
async def test_eager_tasks_have_units_of_their_own(
    session: AsyncSession, tables: Tables, jobs: list[Job]
) -> None:
    loop = asyncio.get_running_loop()
    eager: Any = asyncio.eager_task_factory  # type: ignore[attr-defined,unused-ignore]
    loop.set_task_factory(eager)
    try:
        jobs[0]["data"] = "of the parent"

        async def child() -> None:
            jobs[1]["data"] = "of the child"
            await session.commit()

        await asyncio.create_task(child())
        assert sent(tables) == [("update", "of the child")]
        assert session.modified == [jobs[0]]
        await asyncio.create_task(session.commit())
    finally:
        loop.set_task_factory(None)
    assert tables.data_of(jobs[0]) == "of the parent"


# What is recorded in one task and committed in another


def run_tests_in_tasks(*steps: Callable[[], Awaitable[None]]) -> None:
    """Run each step in a task of its own with one context, as pytest-asyncio does."""
    context = contextvars.copy_context()
    with asyncio.Runner() as runner:
        for step in steps:
            runner.run(step(), context=context)  # type: ignore[arg-type]


def test_a_fixture_records_and_its_test_commits() -> None:
    tables, state = Tables(), dict[str, Any]()

    async def set_up() -> None:
        state["opening"] = tables.session()
        state["session"] = session = await state["opening"].__aenter__()
        state["job"] = session.create(Job, {"data": "of the fixture"})

    async def test() -> None:
        await state["session"].commit()

    async def tear_down() -> None:
        state["session"].delete(state["job"])
        await state["session"].commit()
        await state["opening"].__aexit__(None, None, None)

    run_tests_in_tasks(set_up, test, tear_down)

    assert [action for action, _ in sent(tables)] == ["create", "delete"]


def test_a_session_is_used_between_two_runs_of_its_loop() -> None:
    tables = Tables()
    with asyncio.Runner() as runner:
        opening = tables.session()
        session = runner.run(opening.__aenter__())
        job = session.create(Job, {"data": "new"})
        runner.run(session.commit())
        assert tables.data_of(job) == "new"
        runner.run(opening.__aexit__(None, None, None))


async def test_a_generator_records_in_the_task_that_runs_it(
    session: AsyncSession, tables: Tables
) -> None:
    async def make(count: int) -> AsyncIterator[Job]:
        for number in range(count):
            yield session.create(Job, {"data": str(number)})

    async def work() -> None:
        made = [job async for job in make(2)]
        assert session.created == made
        await session.commit()

    async with anyio.create_task_group() as group:
        group.start_soon(work)
        group.start_soon(work)
    assert [len(batch) for batch in tables.batches] in ([2, 2], [4])


async def test_a_dependency_with_a_unit_of_work_serves_each_request(
    session: AsyncSession, tables: Tables, jobs: list[Job]
) -> None:
    """As with ``Depends`` of FastAPI, for requests at the same time."""

    @asynccontextmanager
    async def dependency() -> AsyncIterator[AsyncSession]:
        async with session.unit_of_work():
            yield session

    async def request(job: Job, data: str) -> None:
        async with dependency() as own:
            job["data"] = data
            await turns()
            if data == "1":
                own.rollback()

    async with anyio.create_task_group() as group:
        for number, job in enumerate(jobs):
            group.start_soon(request, job, str(number))

    assert sorted(sent(tables)) == [("update", "0"), ("update", "2")]
    assert jobs[1]["data"] == "old"


# One entity in several tasks


async def test_a_rollback_leaves_the_value_of_another_task(
    session: AsyncSession, tables: Tables, jobs: list[Job]
) -> None:
    job = jobs[0]
    job["data"] = "of the parent"

    async def roll_back(value: str) -> None:
        job["data"] = value
        assert job["data"] == value
        session.rollback()

    async with anyio.create_task_group() as group:
        group.start_soon(roll_back, "of the child")
    assert job["data"] == "of the parent"
    async with anyio.create_task_group() as group:
        group.start_soon(roll_back, "of the parent")
    assert job["data"] == "of the parent"

    await session.commit()
    assert tables.data_of(job) == "of the parent"


async def test_a_rollback_shows_the_latest_value_of_the_others(
    session: AsyncSession, jobs: list[Job]
) -> None:
    job, rolled_back = jobs[0], anyio.Event()
    job["data"] = "first"

    async def record(value: str) -> None:
        job["data"] = value
        await rolled_back.wait()
        session.rollback()

    async with anyio.create_task_group() as group:
        group.start_soon(record, "second")
        await turns()
        async with session.unit_of_work() as unit:
            job["data"] = "third"
            unit.rollback()
        assert job["data"] == "second"
        rolled_back.set()
    assert job["data"] == "first"
    session.rollback()
    assert job["data"] == "old"


async def test_a_failed_ensure_leaves_the_value_of_its_caller(
    session: AsyncSession, tables: Tables, jobs: list[Job]
) -> None:
    job = jobs[0]
    job["data"] = "wanted"
    tables.refuses = lambda operation: operation["action"] == "update"

    with pytest.raises(Exception, match="refused"):
        await session.ensure(Job, {"id": job.id, "data": "wanted"}, ["id"])

    assert job["data"] == "wanted"
    session.rollback()


async def test_the_last_commit_wins(session: AsyncSession, tables: Tables, jobs: list[Job]) -> None:
    job, recorded = jobs[0], anyio.Event()

    async def early() -> None:
        job["data"] = "recorded first"
        await recorded.wait()
        await session.commit()

    async def late() -> None:
        await turns()
        job["data"] = "recorded last"
        recorded.set()
        await turns(60)
        assert job["data"] == "recorded last"
        assert tables.data_of(job) == "recorded first"
        await session.commit()

    async with anyio.create_task_group() as group:
        group.start_soon(early)
        group.start_soon(late)
    assert tables.data_of(job) == job["data"] == "recorded last"


@pytest.mark.parametrize("take_back", ["clear", "delitem", "pop", "popitem"])
async def test_taking_back_is_for_the_changes_of_the_own_task(
    session: AsyncSession, tables: Tables, jobs: list[Job], take_back: str
) -> None:
    job = jobs[0]
    job["data"] = "of the parent"

    async def child() -> None:
        job["status"] = "running"
        job["data"] = "of the child"
        match take_back:
            case "clear":
                job.clear()
            case "delitem":
                del job["status"], job["data"]
            case "pop":
                assert job.pop("data") == "of the child"
                job.pop("status")
            case "popitem":
                assert dict([job.popitem(), job.popitem()]).keys() == {"data", "status"}
                with pytest.raises(KeyError):
                    job.popitem()
        await session.commit()

    async with anyio.create_task_group() as group:
        group.start_soon(child)
    assert sent(tables) == []
    assert (job["data"], job["status"]) == ("of the parent", "queued")
    await session.commit()
    assert sent(tables) == [("update", "of the parent")]


# Entities that another task creates


async def test_a_change_is_not_sent_before_the_creation_by_another_task(
    session: AsyncSession, tables: Tables
) -> None:
    job = session.create(Job, {"data": "created"})
    refused = anyio.Event()

    async def change() -> None:
        job["data"] = "changed"
        with pytest.raises(EntityError, match="not yet created"):
            await session.commit()
        assert session.modified == [job]
        refused.set()
        await created.wait()
        await session.commit()

    created = anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(change)
        await refused.wait()
        assert tables.batches == []
        await session.commit()
        created.set()

    assert sent(tables) == [("create", "created"), ("update", "changed")]


async def test_a_change_waits_for_the_creation_in_progress(
    session: AsyncSession, tables: Tables
) -> None:
    tables.gate = anyio.Event()
    job = session.create(Job, {"data": "created"})

    async def change() -> None:
        job["data"] = "changed"
        await session.commit()

    async with anyio.create_task_group() as group:
        group.start_soon(session.commit)
        await tables.arrived.wait()
        group.start_soon(change)
        await turns()
        tables.gate.set()

    assert sent(tables) == [("create", "created"), ("update", "changed")]


async def test_a_change_is_not_sent_after_a_creation_that_is_refused(
    session: AsyncSession, tables: Tables
) -> None:
    tables.gate = anyio.Event()
    tables.refuses = lambda operation: operation["action"] == "create"
    job = session.create(Job, {"data": "created"})
    errors = list[Exception]()

    async def commit() -> None:
        try:
            await session.commit()
        except Exception as exc:  # noqa: BLE001 - that is what is tested
            errors.append(exc)

    async def change() -> None:
        job["data"] = "changed"
        await commit()
        session.rollback()

    async with anyio.create_task_group() as group:
        group.start_soon(commit)
        await tables.arrived.wait()
        group.start_soon(change)
        await turns()
        tables.gate.set()

    assert [action for action, _ in sent(tables)] == ["create"]
    assert sorted(type(each).__name__ for each in errors) == ["EntityError", "ValidationError"]
    session.rollback()


async def test_a_link_is_not_sent_before_the_creation_by_another_task(
    session: AsyncSession, tables: Tables
) -> None:
    job = session.create(Job, {"data": "created"})

    async def link() -> None:
        session.create("JobComponent", {"job_id": job.id, "component_id": "c" * 8})
        with pytest.raises(EntityError, match="not yet created"):
            await session.commit()
        session.rollback()

    async with anyio.create_task_group() as group:
        group.start_soon(link)
    assert tables.batches == []
    await session.commit()


async def test_a_change_of_what_was_never_created_is_an_error(
    session: AsyncSession, tables: Tables
) -> None:
    job = session.create(Job, {"data": "created"})
    recorded, rolled_back = anyio.Event(), anyio.Event()

    async def change() -> None:
        job["data"] = "changed"
        recorded.set()
        await rolled_back.wait()
        with pytest.raises(EntityError, match="rolled back"):
            await session.commit()
        session.rollback()
        await session.commit()

    async with anyio.create_task_group() as group:
        group.start_soon(change)
        await recorded.wait()
        session.rollback()
        rolled_back.set()
    assert tables.batches == []


async def test_a_delete_before_the_creation_by_another_task_is_refused(
    session: AsyncSession, tables: Tables
) -> None:
    job = session.create(Job, {"data": "created"})

    async def delete() -> None:
        with pytest.raises(EntityError, match="not yet created"):
            session.delete(job)

    async with anyio.create_task_group() as group:
        group.start_soon(delete)
    await session.commit()
    assert sent(tables) == [("create", "created")]


# Tasks that end


async def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    await turns(3)
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("end", ["return", "error", "cancelled"])
async def test_a_task_that_ends_with_changes_logs_which(
    session: AsyncSession,
    jobs: list[Job],
    caplog: pytest.LogCaptureFixture,
    end: str,
) -> None:
    made = list[str]()

    async def work() -> None:
        made.append(session.create(Job, {"data": "secret value"}).id)
        jobs[0]["status"] = "running"
        jobs[0]["data"] = "secret value"
        session.delete(jobs[1])
        if end == "error":
            raise OSError("broken")
        if end == "cancelled":
            await anyio.sleep_forever()

    async def start() -> None:
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(work, name="the worker")
                if end == "cancelled":
                    await turns()
                    group.cancel_scope.cancel()
        except ExceptionGroup:
            pass

    await start()

    (text,) = await warnings_of(caplog)
    assert "the worker" in text
    assert f"Job {made[0]} created" in text
    assert f"status, data of Job {jobs[0].id}" in text
    assert f"Job {jobs[1].id} deleted" in text
    assert "secret value" not in text


async def test_what_nobody_can_commit_is_rolled_back(
    session: AsyncSession, jobs: list[Job], caplog: pytest.LogCaptureFixture
) -> None:
    made = list[Job]()

    async def work() -> None:
        jobs[0]["data"] = "never sent"
        made.append(session.create(Job, {"data": "new"}))

    async with anyio.create_task_group() as group:
        group.start_soon(work)

    assert len(await warnings_of(caplog)) == 1
    gc.collect()
    assert jobs[0]["data"] == "old"
    assert len(await warnings_of(caplog)) == 1
    with pytest.raises(EntityError, match="never created"):
        made[0]["data"] = "changed"
    with pytest.raises(EntityError, match="does not belong"):
        session.delete(made[0])
    assert made[0]["data"] == "new"
    assert session.recorded_operations == ()


@pytest.mark.asyncio_only
async def test_a_task_that_leaves_its_commit_to_another_logs_nothing(
    session: AsyncSession, tables: Tables, jobs: list[Job], caplog: pytest.LogCaptureFixture
) -> None:
    tasks = list[asyncio.Task[None]]()

    async def work() -> None:
        jobs[0]["data"] = "new"
        tasks.append(asyncio.create_task(session.commit()))

    await asyncio.create_task(work())
    await tasks[0]
    assert await warnings_of(caplog) == []
    assert tables.data_of(jobs[0]) == "new"


async def test_a_child_commits_what_its_parent_has_left(
    session: AsyncSession, tables: Tables, jobs: list[Job], caplog: pytest.LogCaptureFixture
) -> None:
    parent_ended = anyio.Event()

    async def child() -> None:
        await parent_ended.wait()
        await session.commit()

    async def parent(group: anyio.abc.TaskGroup) -> None:
        jobs[0]["data"] = "new"
        group.start_soon(child)

    async with anyio.create_task_group() as group:
        group.start_soon(parent, group)
        await turns()
        gc.collect()
        parent_ended.set()
    assert tables.data_of(jobs[0]) == "new"
    assert len(await warnings_of(caplog)) == 1


async def test_a_commit_that_is_refused_after_its_task_has_ended_is_logged(
    session: AsyncSession, tables: Tables, jobs: list[Job], caplog: pytest.LogCaptureFixture
) -> None:
    tables.gate = anyio.Event()
    tables.refuses = lambda operation: operation.get("entity_data", {}).get("data") == "bad"
    scope = anyio.CancelScope()

    async def work() -> None:
        jobs[0]["data"] = "bad"
        with scope:
            await session.commit()

    async with anyio.create_task_group() as group:
        group.start_soon(work)
        await tables.arrived.wait()
        scope.cancel()
    assert await warnings_of(caplog) == []
    tables.gate.set()
    with anyio.fail_after(20):
        while not (texts := await warnings_of(caplog)):
            await turns()
    assert f"data of Job {jobs[0].id}" in texts[0]


async def test_a_session_that_closes_names_what_no_task_has_committed(
    tables: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    made = list[Job]()

    async def work(session: AsyncSession) -> None:
        made.append(session.create(Job, {"data": "new"}))
        await anyio.sleep_forever()

    async with anyio.create_task_group() as group:
        async with tables.session() as session:
            group.start_soon(work, session)
            await turns()
            made.append(session.create(Job, {"data": "new"}))
        group.cancel_scope.cancel()

    (text,) = await warnings_of(caplog)
    assert "2 uncommitted" in text
    assert all(f"Job {job.id} created" in text for job in made)


async def test_a_session_that_an_error_closes_names_only_what_others_have_recorded(
    tables: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    made = list[Job]()

    async def work(session: AsyncSession) -> None:
        made.append(session.create(Job, {"data": "new"}))
        await anyio.sleep_forever()

    async with anyio.create_task_group() as group:
        with pytest.raises(OSError, match="broken"):
            async with tables.session() as session:
                group.start_soon(work, session)
                await turns()
                session.create(Job, {"data": "new"})
                raise OSError("broken")
        group.cancel_scope.cancel()

    (text,) = await warnings_of(caplog)
    assert "1 uncommitted" in text
    assert f"Job {made[0].id} created" in text


async def test_a_change_after_the_session_was_closed_is_an_error(tables: Tables) -> None:
    async with tables.session() as session:
        job = session.create(Job, {"data": "new"})
        await session.commit()

    with pytest.raises(SessionStateError, match="not open"):
        job["data"] = "newer"
    assert job["data"] == "new"


async def test_tasks_that_have_ended_leave_nothing_behind(
    session: AsyncSession, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(number: int) -> None:
        job = session.create(Job, {"data": "new"})
        others.append(ref(job))
        if number % 2:
            await session.commit()
        if number % 3 == 0:
            async with session.unit_of_work():
                job["data"] = "newer" if number % 2 else "other"
                session.rollback()

    others = list[ref[Job]]()
    context = context_of(session)
    caplog.set_level(logging.CRITICAL)
    await work(1)
    gc.collect()
    before = sum(isinstance(each, UnitOfWork) for each in gc.get_objects())
    others.clear()
    for _ in range(10):
        async with anyio.create_task_group() as group:
            for number in range(100):
                group.start_soon(work, number)
    await turns()
    gc.collect()

    assert sum(isinstance(each, UnitOfWork) for each in gc.get_objects()) <= before
    assert len(context.tasks.all) <= 2
    assert len(context.creators) == 0
    assert [each for each in others if each() is not None] == []


async def test_a_task_that_uses_many_sessions_keeps_none(tables: Tables) -> None:
    sessions = list[ref[AsyncSession]]()
    for _ in range(5):
        async with tables.session() as session:
            session.create(Job, {"data": "new"})
            await session.commit()
            sessions.append(ref(session))
    del session
    gc.collect()

    assert [each for each in sessions if each() is not None] == []


# Generators that are left, frameworks, and portals


@pytest.mark.asyncio_only
async def test_a_block_in_a_generator_that_is_left_does_not_keep_its_consumer(
    session: AsyncSession, tables: Tables, jobs: list[Job], caplog: pytest.LogCaptureFixture
) -> None:
    async def generate() -> AsyncIterator[int]:
        async with session.unit_of_work():
            jobs[0]["data"] = "of the generator"
            yield 1
            yield 2

    jobs[1]["data"] = "before"
    async for _ in generate():
        break
    gc.collect()
    await turns()

    (text,) = await warnings_of(caplog)
    assert "generator" in text
    assert f"data of Job {jobs[0].id}" in text
    jobs[2]["data"] = "after"
    assert session.modified == [jobs[1], jobs[2]]
    await session.commit()
    assert sorted(sent(tables)) == [("update", "after"), ("update", "before")]


async def test_a_task_that_outlives_a_block_cannot_record(
    session: AsyncSession, jobs: list[Job]
) -> None:
    block_ended = anyio.Event()

    async def outlive() -> None:
        await block_ended.wait()
        with pytest.raises(SessionStateError, match="unit of work has ended"):
            jobs[0]["data"] = "late"

    async with anyio.create_task_group() as group:
        async with session.unit_of_work():
            group.start_soon(outlive)
            await turns()
        block_ended.set()


async def test_blocks_that_end_in_another_order_than_they_began_end(
    session: AsyncSession, tables: Tables, jobs: list[Job]
) -> None:
    outer, inner = session.unit_of_work(), session.unit_of_work()
    await outer.__aenter__()
    jobs[0]["data"] = "outer"
    await inner.__aenter__()
    jobs[1]["data"] = "inner"
    await outer.__aexit__(None, None, None)
    await inner.__aexit__(None, None, None)
    jobs[2]["data"] = "own"

    assert sorted(sent(tables)) == [("update", "inner"), ("update", "outer")]
    assert session.modified == [jobs[2]]
    await session.commit()


@pytest.mark.asyncio_only
async def test_frameworks_see_that_commit_is_to_be_awaited(
    session: AsyncSession, tables: Tables, jobs: list[Job]
) -> None:
    """Starlette would otherwise call it in a thread, and drop the coroutine."""
    jobs[0]["data"] = "new"
    tasks = BackgroundTasks()
    tasks.add_task(session.commit)
    await tasks()

    assert tables.data_of(jobs[0]) == "new"
    assert asyncio.iscoroutinefunction(session.commit)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_call_over_a_portal_records_and_commits(tables: Tables, backend: str) -> None:
    async def work(session: AsyncSession, data: str) -> None:
        session.create(Job, {"data": data})
        await turns()
        await session.commit()

    with (
        anyio.from_thread.start_blocking_portal(backend) as portal,
        portal.wrap_async_context_manager(tables.session()) as session,
    ):
        ends = [portal.start_task_soon(work, session, str(number)) for number in range(3)]
        for end in ends:
            end.result(5)
        with pytest.raises(SessionStateError, match="another thread"):
            session.create(Job)

    assert sorted(sent(tables)) == [("create", "0"), ("create", "1"), ("create", "2")]


def test_a_call_over_a_portal_that_does_not_commit_is_warned_of(
    tables: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    """Each call is a task of its own, and the next one inherits nothing of it."""
    with (
        anyio.from_thread.start_blocking_portal() as portal,
        portal.wrap_async_context_manager(tables.session()) as session,
    ):
        job = portal.call(session.create, Job, {"data": "new"})
        portal.call(session.commit)

    assert sent(tables) == []
    assert f"Job {job.id} created" in caplog.text


async def test_a_block_is_entered_once(tables: Tables) -> None:
    async with tables.session() as session:
        block = session.unit_of_work()
        async with block:
            with pytest.raises(SessionStateError, match=r"call session\.unit_of_work\(\) again"):
                await block.__aenter__()
        with pytest.raises(SessionStateError, match="entered once"):
            async with block:
                pass
