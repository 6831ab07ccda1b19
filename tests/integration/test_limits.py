"""Limits of the queue and of requests: fairness, sizes, outcomes, closing."""

from __future__ import annotations

import json

import anyio
import pytest

from aioftrackjobs import (
    AsyncSession,
    CommitUncertainError,
    ConnectError,
    EntityError,
    FtrackJobsError,
    Job,
    JobStatus,
    ServerError,
    SessionStateError,
)
from aioftrackjobs.commit import lane
from aioftrackjobs.commit.dispatcher import MAX_REQUESTS, Dispatcher
from aioftrackjobs.config.timings import Timings
from aioftrackjobs.models import remote_value
from aioftrackjobs.session import connection_of

from ..tables import Tables, turns
from .waiting import until


@pytest.fixture
def tables() -> Tables:
    return Tables()


def dispatcher_of(session: AsyncSession) -> Dispatcher:
    return connection_of(session).dispatcher


async def create(session: AsyncSession, data: str = "{}") -> Job:
    async with session.unit_of_work():
        return session.create(Job, {"data": data})


# Fairness


async def test_a_task_with_huge_commits_does_not_starve_others(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "GROUP_OPERATIONS", 10)
    rounds, huge_commits = 20, 0
    async with tables.session() as session, anyio.create_task_group() as group:

        async def huge() -> None:
            nonlocal huge_commits
            while True:
                async with session.unit_of_work():
                    for _ in range(30):
                        session.create(Job, {})
                huge_commits += 1

        async def small() -> None:
            for _ in range(rounds):
                await create(session)

        group.start_soon(huge)
        async with anyio.create_task_group() as others:
            for _ in range(20):
                others.start_soon(small)
        group.cancel_scope.cancel()

    assert 0 < huge_commits <= 3 * rounds


# Callers who give up


async def test_callers_who_give_up_and_try_again_leave_nothing_queued(tables: Tables) -> None:
    tables.gate = anyio.Event()
    async with (
        tables.session(timings=Timings(max_hold=0.0)) as session,
        anyio.create_task_group() as group,
    ):
        for _ in range(MAX_REQUESTS):
            group.start_soon(create, session)
            await turns()
        dispatcher = dispatcher_of(session)
        for _ in range(200):
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as impatient:
                    impatient.start_soon(create, session)
                    await turns(2)
                    scope.cancel()
        assert len(dispatcher._ordinary.queue.commits) <= 2
        tables.gate.set()

    assert len(tables.rows) == MAX_REQUESTS


# Sizes and texts


async def test_a_group_that_is_too_big_for_the_server_is_bisected(tables: Tables) -> None:
    tables.most_operations = 7
    async with tables.session() as session, anyio.create_task_group() as group:
        for _ in range(100):
            group.start_soon(create, session)

    assert len(tables.rows) == 100
    assert len(tables.batches[0]) == 100


async def test_a_commit_that_is_too_big_for_the_server_is_refused_alone(tables: Tables) -> None:
    tables.most_operations = 7
    async with tables.session() as session, anyio.create_task_group() as group:
        async with session.unit_of_work() as unit:
            for _ in range(8):
                session.create(Job, {})
            for _ in range(10):
                group.start_soon(create, session)
            with pytest.raises(ServerError) as caught:
                await unit.commit()
            assert len(unit.recorded_operations) == 8
            unit.rollback()

    assert caught.value.status == 413
    assert len(tables.rows) == 10


async def test_any_text_travels_in_a_group(session: AsyncSession, other: AsyncSession) -> None:
    texts = ["ä", "日本語", "🎬 done", '\\"quoted\\"', "],[", "\u2028\u0000\x7f", "a\nb", "{x}"]
    jobs: list[Job] = []
    async with anyio.create_task_group() as group:

        async def make(text: str) -> None:
            jobs.append(await create(session, json.dumps({"description": text})))

        for text in texts:
            group.start_soon(make, text)

    ids = [job.id for job in jobs]
    found = await other.query("select id, data from Job where id in {ids}", ids=ids).of(Job).all()
    assert sorted(job.description or "" for job in found) == sorted(texts)


# Outcomes


async def test_a_second_commit_resolves_an_uncertain_first_one(tables: Tables) -> None:
    tables.gate = anyio.Event()
    tables.faults.append("lost response")
    errors: list[FtrackJobsError] = []
    async with tables.session() as session:

        async def commit() -> None:
            try:
                await session.commit()
            except CommitUncertainError as exc:
                errors.append(exc)

        session.create(Job, {})
        async with anyio.create_task_group() as group:
            group.start_soon(commit)
            group.start_soon(commit)
            await turns()
            tables.gate.set()
        assert session.recorded_operations == session.uncertain_operations == ()

    assert len(errors) == 1, "the first is uncertain; the second asks the server"
    assert len(tables.rows) == 1


async def test_each_caller_of_a_failed_group_gets_an_error_of_its_own(tables: Tables) -> None:
    tables.faults.append("refused connection")
    errors: list[ConnectError] = []
    async with tables.session() as session, anyio.create_task_group() as group:

        async def make() -> None:
            try:
                await create(session)
            except ConnectError as exc:
                errors.append(exc)

        for _ in range(5):
            group.start_soon(make)

    assert len(tables.batches) == 1
    assert len({id(error) for error in errors}) == 5
    assert len({str(error) for error in errors}) == 1


@pytest.mark.parametrize("atomic", [True, False])
async def test_a_change_before_a_delete_is_not_sent_after_it(
    tables: Tables, *, atomic: bool
) -> None:
    async with tables.session() as session:
        old, new = await create(session), await create(session)
        tables.atomic = atomic
        tables.refuses = lambda each: each.get("entity_data", {}).get("data") == "bad"
        old["data"] = "old"
        session.delete(old)
        new["data"] = "bad"
        with pytest.raises(ServerError, match="refused"):
            await session.commit()

        new["data"] = "good"
        if not atomic:  # nothing proves that the server has applied what it refused
            with pytest.raises(ServerError, match=f"EntityNotFoundError: {old.id}"):
                await session.commit()
            session.rollback()
            new["data"] = "good"
        await session.commit()

    assert tables.rows.keys() == {new.id}
    assert tables.data_of(new) == "good"


async def test_a_link_that_a_refused_group_has_created_is_not_refused(tables: Tables) -> None:
    tables.atomic = False
    tables.refuses = lambda each: each.get("entity_data", {}).get("data") == "bad"
    refused: list[str] = []
    async with tables.session() as session, anyio.create_task_group() as group:

        async def attach(component: str) -> None:
            async with session.unit_of_work():
                session.create(
                    "JobComponent", {"component_id": component, "job_id": f"job of {component}"}
                )

        async def spoil() -> None:
            try:
                await create(session, "bad")
            except ServerError as exc:
                refused.append(str(exc))

        group.start_soon(attach, "c1")
        group.start_soon(attach, "c2")
        group.start_soon(spoil)

    assert tables.rows.keys() == {"c1", "c2"}
    assert len(refused) == 1


async def test_what_a_stage_has_changed_is_not_pending_again(tables: Tables) -> None:
    tables.reorders = True
    async with tables.session() as session:
        other = await create(session)
        tables.refuses = lambda each: (
            each["entity_type"] == "JobComponent" and len(tables.batches[-1]) == 1
        )
        other["data"] = "changed"
        job = session.create(Job, {})
        session.create("JobComponent", {"job_id": job.id, "component_id": "c"})
        with pytest.raises(ServerError):
            await session.commit()

        assert tables.rows.keys() == {other.id}, "what was created is deleted again"
        assert tables.data_of(other) == remote_value(other, "data") == "changed"
        session.rollback()
        assert other["data"] == "changed"


async def test_an_entity_that_is_being_deleted_cannot_be_changed(tables: Tables) -> None:
    async with tables.session() as session:
        job = await create(session)
        session.delete(job)
        tables.gate = anyio.Event()
        async with anyio.create_task_group() as group:
            group.start_soon(session.commit)
            await turns()
            with pytest.raises(EntityError, match="is to be deleted"):
                job.status = JobStatus.DONE
            tables.gate.set()

        assert session.recorded_operations == ()


# Closing


async def test_all_callers_that_wait_when_the_session_closes_get_an_error(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables.gate = anyio.Event()
    ends: list[str] = []

    async def make(session: AsyncSession, job: Job | None = None) -> None:
        try:
            if job is None:
                await create(session)
            else:
                async with session.unit_of_work():
                    job.status = JobStatus.DONE
        except (CommitUncertainError, SessionStateError) as exc:
            ends.append(type(exc).__name__)

    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            async with tables.session(timings=Timings(closing_grace=0.05)) as session:
                tables.gate.set()
                job = await create(session)
                tables.gate = anyio.Event()
                dispatcher = dispatcher_of(session)
                tables.batches.clear()
                for _ in range(5):
                    group.start_soon(make, session, job)  # each waits for the one before it
                await until(lambda: tables.batches)
                for _ in range(MAX_REQUESTS - 1):
                    tables.arrived = anyio.Event()
                    group.start_soon(make, session)
                    await tables.arrived.wait()
                for _ in range(100):
                    group.start_soon(make, session)
                await turns()

    assert len(ends) == MAX_REQUESTS + 104
    assert [len(batch) for batch in tables.batches] == [1] * MAX_REQUESTS
    assert ends.count("CommitUncertainError") == MAX_REQUESTS, "only what was sent is uncertain"
    assert dispatcher.is_idle


async def test_a_job_that_ends_while_its_session_is_cut_off_does_not_hang(tables: Tables) -> None:
    host_ends: list[str] = []

    async def finish(session: AsyncSession) -> None:
        try:
            await connection_of(session).background.finish(anyio.sleep_forever)
        except SessionStateError as exc:
            host_ends.append(str(exc))

    with anyio.fail_after(10):
        async with (
            anyio.create_task_group() as group,
            tables.session(timings=Timings(closing_grace=0.05)) as session,
        ):
            group.start_soon(finish, session)
            await turns()

    assert host_ends == ["the session's background work has ended"]
