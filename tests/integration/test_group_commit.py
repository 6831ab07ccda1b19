"""Group commit: which commits share a request, and the outcome of each."""

from __future__ import annotations

import json
from typing import Any

import anyio
import anyio.lowlevel
import httpx
import pytest

from aioftrackjobs import (
    AsyncSession,
    CommitUncertainError,
    DuplicateEntryError,
    FtrackJobsError,
    Job,
    JobStatus,
    ServerError,
    SessionStateError,
    UnserialisableValueError,
    ValidationError,
)
from aioftrackjobs.commit import lane
from aioftrackjobs.commit.dispatcher import MAX_REQUESTS
from aioftrackjobs.commit.lane import GROUP_OPERATIONS
from aioftrackjobs.config.retry import RetryPolicy
from aioftrackjobs.config.timings import Timings
from aioftrackjobs.devserver import ServerHandle
from aioftrackjobs.devserver.faults.kinds import Delay, Drop, NotAtomic

from ..tables import Tables, turns
from .waiting import until


@pytest.fixture
def tables() -> Tables:
    return Tables()


async def create(session: AsyncSession, data: str = "{}", **values: Any) -> Job:
    async with session.unit_of_work():
        return session.create(Job, {"data": data, **values})


async def create_many(session: AsyncSession, number: int) -> list[Job]:
    made: list[Job] = []
    async with anyio.create_task_group() as group:
        for index in range(number):

            async def make(index: int = index) -> None:
                made.append(await create(session, f'{{"n": {index}}}'))

            group.start_soon(make)
    return made


# Which commits share a request


async def test_commits_that_arrive_together_share_a_request_in_their_order(
    tables: Tables,
) -> None:
    came: list[int] = []
    async with tables.session() as session, anyio.create_task_group() as group:

        async def make(number: int) -> None:
            came.append(number)  # trio starts tasks in any order
            await create(session, f'{{"n": {number}}}')

        for number in range(100):
            group.start_soon(make, number)

    assert [len(batch) for batch in tables.batches] == [100]
    numbers = [json.loads(each["entity_data"]["data"])["n"] for each in tables.batches[0]]
    assert numbers == came


async def test_a_lone_commit_is_sent_without_waiting_for_others(tables: Tables) -> None:
    tables.gate = anyio.Event()
    async with tables.session() as session, anyio.create_task_group() as group:
        group.start_soon(create, session)
        await turns()
        assert len(tables.batches) == 1
        tables.gate.set()


async def test_commits_that_arrive_during_a_request_share_the_next(
    tables: Tables,
) -> None:
    tables.gate = anyio.Event()
    async with (
        tables.session(timings=Timings(max_hold=60.0)) as session,
        anyio.create_task_group() as group,
    ):
        for _ in range(40):
            group.start_soon(create, session)
            await turns()
        assert tables.most_in_progress == 1
        tables.gate.set()

    assert [len(batch) for batch in tables.batches] == [1, 39]


async def test_a_slow_request_holds_no_commits_back(tables: Tables) -> None:
    tables.gate = anyio.Event()
    async with (
        tables.session(timings=Timings(max_hold=0.02)) as session,
        anyio.create_task_group() as group,
    ):
        group.start_soon(create, session)
        await tables.arrived.wait()
        tables.arrived = anyio.Event()
        for _ in range(3):
            group.start_soon(create, session)
        await tables.arrived.wait()  # while the first waits for its response
        assert [len(batch) for batch in tables.batches] == [1, 3]
        tables.gate.set()


async def test_the_number_of_concurrent_requests_is_bounded(tables: Tables) -> None:
    tables.gate = anyio.Event()
    async with (
        tables.session(timings=Timings(max_hold=0.0)) as session,
        anyio.create_task_group() as group,
    ):
        for _ in range(MAX_REQUESTS + 40):
            group.start_soon(create, session)
            await turns()  # each has a request of its own, as long as there are any
        assert tables.most_in_progress == MAX_REQUESTS
        tables.gate.set()

    assert [len(batch) for batch in tables.batches] == [1] * MAX_REQUESTS + [40]


async def test_without_group_commit_each_has_a_request(tables: Tables) -> None:
    async with tables.session(group_commit=False) as session:
        await create_many(session, 30)

    assert [len(batch) for batch in tables.batches] == [1] * 30


async def test_what_a_request_carries_is_bounded(tables: Tables) -> None:
    async with tables.session() as session:
        await create_many(session, GROUP_OPERATIONS + 10)

    assert [len(batch) for batch in tables.batches] == [GROUP_OPERATIONS, 10]


async def test_its_bytes_are_bounded_too(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "GROUP_BYTES", 10_000)
    async with tables.session() as session, anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(create, session, "ä" * 1_000)

    assert sum(map(len, tables.batches)) == 10
    assert all(
        len(json.dumps(batch, ensure_ascii=False).encode()) < 11_000 for batch in tables.batches
    )
    assert len(tables.batches) < 10


async def test_a_commit_above_the_limit_travels_alone_and_whole(tables: Tables) -> None:
    async with tables.session() as session, anyio.create_task_group() as group:

        async def create_a_lot() -> None:
            async with session.unit_of_work():
                for _ in range(GROUP_OPERATIONS + 100):
                    session.create(Job, {})

        group.start_soon(create, session)
        group.start_soon(create_a_lot)
        group.start_soon(create, session)

    sizes = sorted(map(len, tables.batches))
    assert sizes.pop() == GROUP_OPERATIONS + 100
    assert sum(sizes) == 2, "which share a request if they came one after the other"


async def test_reads_travel_alone_and_beside_writes(tables: Tables) -> None:
    tables.gate = anyio.Event()
    async with tables.session() as session, anyio.create_task_group() as group:
        group.start_soon(create, session)
        await turns()
        group.start_soon(session.query("select id from Job where id is x").all)
        await turns()
        assert tables.in_progress == 2
        tables.gate.set()


# Order


async def test_operations_on_one_entity_keep_their_order(tables: Tables) -> None:
    async with tables.session() as session:
        job = await create(session)
        tables.gate = anyio.Event()

        async def change(number: int) -> None:
            async with session.unit_of_work():
                job["data"] = f'{{"n": {number}}}'

        async with anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(change, number)
                group.start_soon(create, session)
                await turns(3)
            tables.gate.set()

    changes = [each for batch in tables.batches for each in batch if each["action"] == "update"]
    numbers = [json.loads(each["entity_data"]["data"])["n"] for each in changes]
    assert numbers == list(range(20))
    assert tables.data_of(job) == '{"n": 19}'


async def test_a_reference_to_an_entity_waits_for_its_creation(tables: Tables) -> None:
    tables.gate = anyio.Event()
    async with (
        tables.session(timings=Timings(max_hold=0.0)) as session,
        anyio.create_task_group() as group,
    ):
        created = session.create(Job, {})
        group.start_soon(session.commit)
        await turns()
        group.start_soon(
            create,
            session,
            json.dumps({}),
        )
        async with session.unit_of_work() as unit:
            session.create("JobComponent", {"job_id": created.id, "component_id": "c"})
            group.start_soon(unit.commit)
            await turns()
            named = [each for batch in tables.batches for each in batch if "job_id" in each]
            assert named == []
            assert [len(batch) for batch in tables.batches] == [1, 1], "others are sent beside it"
            tables.gate.set()

    assert tables.batches[2][0]["entity_data"]["job_id"] == created.id


async def test_a_delete_waits_for_links_to_the_entity(
    server: ServerHandle,
) -> None:
    async with AsyncSession(
        server.url, server.api_key, server.api_user, group_commit=False
    ) as session:
        job = session.create(Job, {"status": "done"})
        component = session.create("FileComponent", {"name": "a", "size": 1})
        await session.commit()
        server.faults.inject(Delay(0.2), on="writes")
        async with anyio.create_task_group() as group:
            async with session.unit_of_work() as linking:
                session.create("JobComponent", {"job_id": job.id, "component_id": component["id"]})
                group.start_soon(linking.commit)
                await until(lambda: server.faults.injected)
                async with session.unit_of_work():
                    session.delete(job)

        assert await session.get(Job, job.id) is None


# Isolation


@pytest.mark.parametrize("atomic", [True, False])
async def test_a_refused_group_is_bisected_until_the_bad_commits_are_alone(
    tables: Tables, *, atomic: bool
) -> None:
    tables.atomic = atomic
    tables.refuses = lambda each: "bad" in each.get("entity_data", {}).get("data", "")
    refused: list[ServerError] = []
    async with tables.session() as session:

        async def make(index: int) -> None:
            async with session.unit_of_work() as unit:
                text = json.dumps({"bad" if index in (3, 50, 51) else "good": index})
                session.create(Job, {"data": text})
                try:
                    await unit.commit()
                except ServerError as exc:
                    refused.append(exc)
                    assert len(unit.recorded_operations) == 1, "pending again"
                    unit.rollback()

        async with anyio.create_task_group() as group:
            for index in range(100):
                group.start_soon(make, index)

    assert [type(error) for error in refused] == [ValidationError] * 3
    made = sorted(json.loads(row["data"])["good"] for row in tables.rows.values())
    assert made == [index for index in range(100) if index not in (3, 50, 51)]


@pytest.mark.parametrize("atomic", [True, False])
async def test_updates_and_deletes_of_a_refused_group_are_applied_once(
    tables: Tables, *, atomic: bool
) -> None:
    async with tables.session() as session:
        jobs = await create_many(session, 12)
        tables.atomic = atomic
        tables.refuses = lambda each: each["entity_key"] == [jobs[7].id]
        errors: list[FtrackJobsError] = []

        async def change(index: int, job: Job) -> None:
            try:
                async with session.unit_of_work():
                    if index % 3 == 0:
                        session.delete(job)
                    else:
                        job.status = JobStatus.DONE
            except ServerError as exc:
                errors.append(exc)

        async with anyio.create_task_group() as group:
            for index, job in enumerate(jobs):
                group.start_soon(change, index, job)

    assert len(errors) == 1
    assert f"refused: {jobs[7].id}" in str(errors[0])
    assert tables.rows.keys() == {job.id for index, job in enumerate(jobs) if index % 3}
    done = [key for key, row in tables.rows.items() if row.get("status") == "done"]
    assert sorted(done) == sorted(
        job.id for index, job in enumerate(jobs) if index % 3 and index != 7
    )


async def test_a_query_after_a_refusal_is_repeated(server: ServerHandle) -> None:
    """Otherwise a connection that breaks just then would leave all of the group uncertain."""
    policy = RetryPolicy(first_delay=0.0)
    errors: list[Exception] = []

    async def commit_bad(session: AsyncSession) -> None:
        try:
            await create(session, user_id="nobody")
        except ServerError as exc:
            errors.append(exc)

    async with AsyncSession(server.url, server.api_key, server.api_user, retry=policy) as session:
        server.faults.inject(Drop(), on="reads", times=3)
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(create, session)
            group.start_soon(commit_bad, session)

    assert len(errors) == 1
    assert len(server.inspector.jobs()) == 5
    assert len(server.faults.injected) == 3


async def test_the_rest_of_a_refused_commit_is_sent_again_if_its_request_is_lost(
    server: ServerHandle,
) -> None:
    policy = RetryPolicy(first_delay=0.0)
    async with AsyncSession(server.url, server.api_key, server.api_user, retry=policy) as session:
        kept = session.create(Job, {"data": "kept"})
        bad = session.create(Job, {"user_id": "nobody"})
        server.faults.inject(NotAtomic())
        server.faults.inject(Drop(), on=lambda each: each.writes and len(each.operations) == 1)

        with pytest.raises(ServerError):
            await session.commit()

        assert len(server.faults.injected) == 2
        assert [each["id"] for each in server.inspector.jobs()] == [kept.id]
        assert session.created == [bad]
        session.rollback()


async def test_what_a_server_did_of_a_withdrawn_commit_is_not_pending_again(
    tables: Tables,
) -> None:
    tables.atomic = False
    tables.refuses = lambda each: each["entity_data"].get("data") == "bad"
    tables.faults += ["none", "refused connection"]
    pausing = anyio.Event()

    async def sleep(_: float) -> None:
        pausing.set()
        await anyio.sleep_forever()

    async with tables.session(retry=RetryPolicy(sleep=sleep)) as session:
        kept = session.create(Job, {"data": "kept"})
        bad = session.create(Job, {"data": "bad"})
        async with anyio.create_task_group() as group:
            group.start_soon(session.commit)
            await pausing.wait()
            group.cancel_scope.cancel()

        assert session.created == [bad]
        assert list(tables.rows) == [kept.id]
        session.rollback()


async def test_what_a_server_did_of_a_refused_commit_is_not_sent_again(tables: Tables) -> None:
    tables.atomic = False
    async with tables.session() as session:
        old = await create(session)
        tables.refuses = lambda each: each["action"] == "update"
        created = session.create(Job, {"data": "first"})
        old["data"] = "second"
        with pytest.raises(ValidationError):
            await session.commit()

        assert [type(each).__name__ for each in session.recorded_operations] == ["Update"]
        assert created.id in tables.rows
        tables.refuses = lambda _: False
        await session.commit()

    assert tables.data_of(old) == "second"
    assert [each["action"] for each in tables.batches[-1]] == ["update"]


async def test_a_taken_key_refuses_only_the_commit_that_chose_it(tables: Tables) -> None:
    async with tables.session() as session:
        taken = await create(session, "old")
        errors: list[FtrackJobsError] = []

        async def take() -> None:
            try:
                await create(session, "new", id=taken.id)
            except ServerError as exc:
                errors.append(exc)

        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(create, session)
            group.start_soon(take)

    assert [type(error) for error in errors] == [DuplicateEntryError]
    assert tables.data_of(taken) == "old"
    assert len(tables.rows) == 11


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param(("name", "\ud800"), id="found when it is recorded"),
        pytest.param(("\ud800", "value"), id="found when it is encoded"),
    ],
)
async def test_a_value_without_a_wire_form_ends_no_other_commit(
    tables: Tables, odd: tuple[str, str]
) -> None:
    async with tables.session() as session:
        errors: list[FtrackJobsError] = []

        async def make_odd() -> None:
            try:
                async with session.unit_of_work() as unit:
                    task = session.create("Task", {})
                    task[odd[0]] = odd[1]
                    try:
                        await unit.commit()
                    finally:
                        assert len(unit.recorded_operations) == 2, "pending again"
            except UnserialisableValueError as exc:
                errors.append(exc)

        async with anyio.create_task_group() as group:
            group.start_soon(create, session)
            group.start_soon(make_odd)
            group.start_soon(create, session)

    assert len(errors) == 1
    assert len(tables.rows) == 2


async def test_a_lost_response_leaves_all_of_the_group_uncertain(tables: Tables) -> None:
    tables.faults += ["lost response", "lost query"]
    uncertain: list[CommitUncertainError] = []
    async with tables.session() as session:

        async def make() -> None:
            try:
                await create(session)
            except CommitUncertainError as exc:
                uncertain.append(exc)

        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(make)

    assert [len(error.operations) for error in uncertain] == [1] * 5
    assert len(tables.batches) == 1


async def test_credentials_that_are_refused_are_not_tried_for_each_commit(tables: Tables) -> None:
    requests: list[httpx.Request] = []

    def refuse(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        error = {"exception": "InvalidCredentialsError", "content": "no"}
        return httpx.Response(200, json=error)

    errors: list[str] = []
    async with (
        httpx.AsyncClient(transport=httpx.MockTransport(refuse)) as client,
        AsyncSession("https://ftrack.test", "SECRET", "maya", client=client) as session,
    ):

        async def make() -> None:
            try:
                await create(session)
            except FtrackJobsError as exc:
                errors.append(type(exc).__name__)

        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(make)

    assert errors == ["AuthenticationError"] * 20
    assert len(requests) == 1


# A server that reorders what is in a batch (docs/protocol.md, section 2.2)


async def test_a_commit_survives_a_server_that_reorders_it(tables: Tables) -> None:
    tables.reorders = True
    async with tables.session() as session:
        job = session.create(Job, {})
        link = session.create("JobComponent", {"job_id": job.id, "component_id": "c"})
        await session.commit()

    assert job.id in tables.rows
    assert tables.rows[link["component_id"]]["job_id"] == job.id


async def test_a_commit_that_is_refused_in_stages_leaves_nothing(tables: Tables) -> None:
    tables.reorders = True
    tables.refuses = lambda each: each["entity_type"] == "JobComponent"
    async with tables.session() as session:
        job = session.create(Job, {})
        session.create("JobComponent", {"job_id": job.id, "component_id": "c"})
        with pytest.raises(ServerError):
            await session.commit()

        assert tables.rows == {}
        assert len(session.recorded_operations) == 2
        tables.refuses = lambda _: False
        await session.commit()

    assert len(tables.rows) == 2


# Cancellation and closing


async def test_a_cancelled_caller_withdraws_what_was_not_sent(tables: Tables) -> None:
    tables.gate = anyio.Event()
    async with tables.session() as session:
        async with anyio.create_task_group() as group:
            for _ in range(MAX_REQUESTS):
                group.start_soon(create, session)
                await turns()
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as cancelled:
                    for _ in range(30):
                        cancelled.start_soon(create, session, "late")
                    await turns()
                    scope.cancel()
            group.start_soon(create, session)
            await turns()
            tables.gate.set()

        assert session.recorded_operations == ()
    assert len(tables.rows) == MAX_REQUESTS + 1
    assert all(row["data"] != "late" for row in tables.rows.values())


async def test_closing_sends_what_waits(tables: Tables) -> None:
    tables.gate = anyio.Event()
    errors: list[BaseException] = []

    async def make(session: AsyncSession) -> None:
        try:
            await create(session)
        except FtrackJobsError as exc:
            errors.append(exc)

    async with anyio.create_task_group() as group:
        async with tables.session() as session:
            for _ in range(MAX_REQUESTS + 5):
                group.start_soon(make, session)
                await turns()
            group.start_soon(open_later, tables.gate)

    assert errors == []
    assert len(tables.rows) == MAX_REQUESTS + 5


async def open_later(gate: anyio.Event) -> None:
    await turns()
    gate.set()


async def test_a_commit_after_closing_is_refused_and_stays_recorded(tables: Tables) -> None:
    async with tables.session() as session:
        async with session.unit_of_work() as unit:
            session.create(Job, {})
            await session.__aexit__(None, None, None)
            with pytest.raises(SessionStateError, match="closed"):
                await unit.commit()
            assert len(unit.recorded_operations) == 1
            unit.rollback()

    assert tables.rows == {}


async def test_concurrent_calls_query_the_current_user_once(tables: Tables) -> None:
    async with tables.session() as session:
        tables.rows["maya"] = {"__entity_type__": "User", "id": "u", "username": "maya"}
        async with anyio.create_task_group() as group:
            for _ in range(50):
                group.start_soon(session.current_user)

    assert tables.queries == 1
