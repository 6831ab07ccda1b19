"""Commits that create entities under keys that users chose.

Another client may have used such a key, so the entity's existence does not prove which client has
created it. A server may also keep a part of a batch that it refuses. Each commit must have the
outcome that it would have alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioftrackjobs import (
    AsyncSession,
    CommitUncertainError,
    ConnectError,
    DuplicateEntryError,
    FtrackJobsError,
    Job,
    ValidationError,
)
from aioftrackjobs.commit.request import Applied, NotApplied, Outcome, PendingRequest, Unknown
from aioftrackjobs.commit.unit_of_work import UnitOfWork
from aioftrackjobs.config.retry import RetryPolicy
from aioftrackjobs.devserver import ServerHandle
from aioftrackjobs.devserver.faults.kinds import NotAtomic
from aioftrackjobs.session import context_of

from ..tables import Tables, turns

BAD = "bad"


@pytest.fixture
def tables() -> Tables:
    return served(atomic=False)


def served(*, atomic: bool) -> Tables:
    tables = Tables()
    tables.atomic = atomic
    tables.refuses = lambda each: BAD in str(each.get("entity_data", {}).get("data"))
    return tables


def job_row(key: str, data: str) -> dict[str, str]:
    """Return what a server has after a Job was created with *data*."""
    values = {"type": "api_job", "status": "queued", "data": data}
    return {"__entity_type__": "Job", "id": key, **values}


async def commit(
    session: AsyncSession, *created: tuple[str | None, str], ends: list[str] | None = None
) -> None:
    """Create Jobs of (key or None, data) in one commit; add how it ended to *ends*."""
    async with session.unit_of_work() as unit:
        for key, data in created:
            session.create(Job, {"data": data} if key is None else {"id": key, "data": data})
        end = await end_of(unit)
        if ends is not None:
            ends.append(end)
        unit.rollback()


async def end_of(unit: UnitOfWork) -> str:
    """Commit, and return the name of the error, or that it was applied."""
    try:
        await unit.commit()
    except FtrackJobsError as exc:
        return type(exc).__name__
    return "applied"


async def together(
    session: AsyncSession, *commits: Sequence[tuple[str | None, str]], kind: str = "Job"
) -> list[str]:
    """Submit *commits* at once, in their order, and return how each ended."""
    context = context_of(session)
    requests: list[PendingRequest] = []
    for creates in commits:
        unit = context.new_unit()
        for key, data in creates:
            values = {"data": data} if key is None else {"id": key, "data": data}
            context.create(kind, values, unit=unit)
        requests.append(unit.post(lambda _: None))
    for request in requests:
        await request.ended()
    return [_name_of(request.outcome) for request in requests]


def _name_of(outcome: Outcome | None) -> str:
    match outcome:
        case Applied():
            return "applied"
        case NotApplied(error):
            return type(error).__name__
        case Unknown():
            return CommitUncertainError.__name__
        case None:
            return "not ended"


# A key that is free


async def test_a_free_key_is_not_refused_because_of_the_next_commit(tables: Tables) -> None:
    async with tables.session() as session:
        ends = await together(session, [("k", "mine")], [(None, BAD)], [("l", "its")])

    assert ends == ["applied", "ValidationError", "applied"]
    assert {key: row["data"] for key, row in tables.rows.items()} == {"k": "mine", "l": "its"}


async def test_a_kept_part_of_a_refused_commit_is_not_sent_again(tables: Tables) -> None:
    async with tables.session() as session:
        session.create(Job, {"id": "k", "data": "mine"})
        bad = session.create(Job, {"id": "l", "data": BAD})
        with pytest.raises(ValidationError):
            await session.commit()

        assert [each.target.key for each in session.recorded_operations] == [(("id", "l"),)]
        bad["data"] = "better"
        await session.commit()

    assert tables.data_of(bad) == "better"
    assert tables.rows["k"]["data"] == "mine"


async def test_commits_with_chosen_keys_are_sent_alone_after_one_query_each(
    tables: Tables,
) -> None:
    commits: list[list[tuple[str | None, str]]] = [
        [(None, "x")],
        [("k", "x"), ("l", "x")],
        [(None, "x")],
        [("m", "x")],
    ]
    async with tables.session() as session:
        await together(session, *commits)

    assert tables.queries == 2
    assert sorted(len(batch) for batch in tables.batches) == [1, 1, 1, 2]


async def test_keys_that_are_made_cause_no_query(tables: Tables) -> None:
    async with tables.session() as session:
        for _ in range(10):
            session.create(Job, {"data": "x"})
        await session.commit()

    assert tables.queries == 0


# A key that is taken


@pytest.mark.parametrize("atomic", [True, False])
@pytest.mark.parametrize("data", ["the same", "other"])
@pytest.mark.parametrize("place", [0, 1, 2])
async def test_a_key_of_another_client_is_taken_with_any_values(
    data: str, place: int, *, atomic: bool
) -> None:
    """Also with the same values: keys serve as locks, which only one client may get."""
    tables = served(atomic=atomic)
    tables.rows["k"] = job_row("k", "the same")
    commits: list[list[tuple[str | None, str]]] = [[(None, "x")], [(None, BAD)]]
    commits.insert(place, [("k", data)])
    async with tables.session() as session:
        ends = await together(session, *commits)

    assert ends.pop(place) == "DuplicateEntryError"
    assert ends == ["applied", "ValidationError"]
    assert tables.rows["k"]["data"] == "the same"
    assert len(tables.rows) == 2


async def test_a_commit_whose_first_key_is_taken_is_refused_as_a_whole() -> None:
    tables = served(atomic=True)
    tables.rows["k"] = job_row("k", "same")
    async with tables.session() as session:
        session.create(Job, {"id": "k", "data": "same"})
        session.create(Job, {"data": "rest"})
        with pytest.raises(DuplicateEntryError):
            await session.commit()
        assert len(session.recorded_operations) == 2
        session.rollback()

    assert tables.rows.keys() == {"k"}


@pytest.mark.parametrize("atomic", [True, False])
async def test_of_two_callers_with_one_key_the_first_has_it(*, atomic: bool) -> None:
    tables = served(atomic=atomic)
    async with tables.session() as session:
        ends = await together(
            session, [("k", "same")], [("k", "same")], [(None, BAD)], [("k", "other")]
        )

    assert ends == [
        "applied",
        "DuplicateEntryError",
        "ValidationError",
        "DuplicateEntryError",
    ]
    assert {key: row["data"] for key, row in tables.rows.items()} == {"k": "same"}


async def test_of_two_unordered_units_with_one_key_one_has_it(tables: Tables) -> None:
    """Unordered units do not wait for other units about the same entity."""
    async with tables.session() as session:
        units = [unordered_unit(session) for _ in range(2)]
        ends: list[str] = []

        async def run(unit: UnitOfWork) -> None:
            ends.append(await end_of(unit))

        async with anyio.create_task_group() as group:
            for unit in units:
                group.start_soon(run, unit)

    assert sorted(ends) == ["DuplicateEntryError", "applied"]
    assert tables.rows.keys() == {"k"}


def unordered_unit(session: AsyncSession) -> UnitOfWork:
    """Return a unit of work without an order among others; all of them create the same Job."""
    unit = context_of(session).new_unit(unordered=True)
    context_of(session).create(Job, {"id": "k", "data": "same"}, unit=unit)
    return unit


async def test_a_commit_that_uses_its_key_twice_is_refused(tables: Tables) -> None:
    async with tables.session() as session:
        session.create(Job, {"id": "k", "data": "same"})
        session.create(Job, {"id": "k", "data": "same"})
        with pytest.raises(DuplicateEntryError):
            await session.commit()
        session.rollback()


# A lost response


def retrying() -> RetryPolicy:
    async def sleep(_: float) -> None:
        await anyio.lowlevel.checkpoint()

    return RetryPolicy(jitter=0, sleep=sleep)


@pytest.mark.parametrize("fault", ["lost request", "lost response"])
@pytest.mark.parametrize("others", [0, 1])
async def test_an_entity_created_before_its_response_was_lost_is_found(
    tables: Tables, fault: str, others: int
) -> None:
    tables.faults.append(fault)
    async with tables.session(retry=retrying()) as session:
        ends = await together(session, [("k", "mine")], *[[("l", "x")]] * others)

    assert ends == ["applied"] * (1 + others)
    assert tables.rows["k"]["data"] == "mine"
    assert len(tables.applied) == 1 + others


async def test_a_key_that_was_taken_before_is_refused_although_a_response_was_lost(
    tables: Tables,
) -> None:
    tables.rows["k"] = job_row("k", "mine")
    tables.faults.append("lost request")
    async with tables.session(retry=retrying()) as session:
        ends = await together(session, [("k", "mine")], [(None, "x")])

    assert ends == ["DuplicateEntryError", "applied"]


async def test_a_key_that_was_taken_while_the_server_was_away_is_taken(tables: Tables) -> None:
    async def sleep(_: float) -> None:
        tables.rows["k"] = job_row("k", "same")

    tables.faults.append("refused connection")
    async with tables.session(retry=RetryPolicy(jitter=0, sleep=sleep)) as session:
        ends = await together(session, [("k", "same")], [(None, "x")])

    assert ends == ["DuplicateEntryError", "applied"]


async def test_other_values_than_were_sent_leave_a_commit_uncertain(tables: Tables) -> None:
    """Either another client has changed the entity, or another client has created it."""

    async def sleep(_: float) -> None:
        tables.rows["k"] = job_row("k", "other")

    tables.faults.append("lost response")
    async with tables.session(retry=RetryPolicy(jitter=0, sleep=sleep)) as session:
        ends: list[str] = []
        await commit(session, ("k", "mine"), ends=ends)

    assert ends == [CommitUncertainError.__name__]
    assert tables.rows["k"]["data"] == "other"


async def test_a_key_that_is_taken_meanwhile_leaves_a_commit_uncertain(tables: Tables) -> None:
    """The key was free at the query; now an entity has it whose values are not those sent."""

    def refuses(_: dict[str, Any]) -> bool:
        tables.rows.setdefault("k", job_row("k", "other"))
        return False

    tables.refuses = refuses
    async with tables.session() as session:
        ends = await together(session, [("k", "mine"), ("l", "mine")], [("m", "mine")])

    assert ends == ["CommitUncertainError", "applied"]


# What cannot be queried


@pytest.mark.parametrize("atomic", [True, False])
async def test_outcomes_are_true_for_types_that_cannot_be_queried(*, atomic: bool) -> None:
    tables = served(atomic=atomic)
    tables.hides = {"Secret"}
    tables.rows["t"] = {"__entity_type__": "Secret", "id": "t"}
    ends: dict[str, str] = {}
    async with tables.session() as session, anyio.create_task_group() as group:

        async def make(name: str, kind: str, values: Mapping[str, object]) -> None:
            async with session.unit_of_work() as unit:
                session.create(kind, values)
                ends[name] = await end_of(unit)
                unit.rollback()

        group.start_soon(make, "job", "Job", {"id": "j", "data": "x"})
        group.start_soon(make, "free", "Secret", {"id": "s", "data": "x"})
        group.start_soon(make, "taken", "Secret", {"id": "t", "data": "x"})
        group.start_soon(make, "made", "Job", {"data": "x"})
        group.start_soon(make, "bad", "Job", {"data": BAD})

    assert ends == {
        "job": "applied",
        "free": "applied",
        "taken": "DuplicateEntryError",
        "made": "applied",
        "bad": "ValidationError",
    }
    assert len(tables.rows) == 4


async def test_a_refused_query_about_one_create_affects_no_other(tables: Tables) -> None:
    """The server may not know its type or an attribute."""
    tables.hides = {"Nonsense"}
    tables.refuses = lambda each: each["entity_type"] == "Nonsense"
    ends: list[str] = []
    async with tables.session() as session, anyio.create_task_group() as group:

        async def make(kind: str) -> None:
            async with session.unit_of_work() as unit:
                session.create(kind, {"data": "x"})
                ends.append(f"{kind} {await end_of(unit)}")
                unit.rollback()

        group.start_soon(make, "Job")
        group.start_soon(make, "Nonsense")
        group.start_soon(make, "Job")

    assert sorted(ends) == ["Job applied", "Job applied", "Nonsense ValidationError"]
    assert len(tables.rows) == 2


async def test_a_made_key_that_cannot_be_queried_is_uncertain_not_refused(
    tables: Tables,
) -> None:
    tables.hides = {"Secret"}
    async with tables.session() as session:
        ends = await together(session, [(None, "x")], [(None, BAD)], kind="Secret")

    assert ends == ["CommitUncertainError", "ValidationError"]


# Cancellation


async def test_a_commit_cancelled_while_its_group_is_reconciled_is_settled(
    tables: Tables,
) -> None:
    """What the server has applied of a refused group is settled, and the rest is sent."""
    tables.gate = anyio.Event()
    ends: list[str] = []
    cancelled: list[tuple[Job, UnitOfWork]] = []
    async with tables.session() as session, anyio.create_task_group() as group:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as callers:
                for data in ["before", BAD, "x", "after"]:
                    if data in ("before", "after"):
                        unit = context_of(session).new_unit()
                        job = context_of(session).create(Job, {"data": data}, unit=unit)
                        cancelled.append((job, unit))
                        callers.start_soon(unit.commit)
                    else:
                        group.start_soon(make_one, session, data, ends)
                    await anyio.lowlevel.checkpoint()
                await turns()
                tables.gate.set()
                tables.gate = anyio.Event()  # for the query
                while not tables.queries:
                    await turns(1)
                scope.cancel()
        await turns()
        tables.gate.set()

    assert len(tables.batches[0]) == 4
    assert sorted(ends) == ["ValidationError", "applied"]
    for job, unit in cancelled:
        assert unit.recorded_operations == ()
        assert tables.data_of(job) == job.data
    assert len(tables.applied) == len(tables.rows) == 3


async def make_one(session: AsyncSession, data: str, ends: list[str]) -> None:
    await commit(session, (None, data), ends=ends)


async def test_a_commit_cancelled_during_the_query_before_it_is_not_sent(tables: Tables) -> None:
    async with tables.session() as session, anyio.create_task_group() as group:
        tables.gate = anyio.Event()
        unit = context_of(session).new_unit()
        context_of(session).create(Job, {"data": "x", "id": "k"}, unit=unit)
        ends: list[str] = []
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as callers:
                callers.start_soon(unit.commit)
                group.start_soon(commit_all, session, [("l", "x"), ("m", "x")], ends)
                while not tables.queries:
                    await turns(1)
                scope.cancel()
        assert len(unit.recorded_operations) == 1
        tables.gate.set()

    assert ends == ["applied"]
    assert tables.rows.keys() == {"l", "m"}


async def commit_all(
    session: AsyncSession, created: Sequence[tuple[str | None, str]], ends: list[str]
) -> None:
    await commit(session, *created, ends=ends)


async def test_a_commit_that_was_not_sent_because_a_query_was_lost_is_pending_again(
    tables: Tables,
) -> None:
    tables.faults.append("lost query")
    async with tables.session() as session:
        session.create(Job, {"id": "k", "data": "x"})
        session.create(Job, {"id": "l", "data": "x"})
        with pytest.raises(ConnectError, match="not sent"):
            await session.commit()

        assert len(session.recorded_operations) == 2
        assert tables.batches == []
        await session.commit()

    assert tables.rows.keys() == {"k", "l"}


# Any group, on any server


class Model:
    """A server as a dictionary, to which commits are sent alone and in order.

    Attributes:
        rows: The data of the entities with chosen keys.
        made: The data of all other entities.
    """

    def __init__(self, rows: dict[str, str], *, atomic: bool) -> None:
        self.rows = dict(rows)
        self.made: list[str] = []
        self._atomic = atomic

    def send(self, creates: Sequence[tuple[str | None, str]]) -> str:
        before = dict(self.rows), list(self.made)
        for key, data in creates:
            if error := self._refuse(key, data):
                if self._atomic:
                    self.rows, self.made = before
                return error
            if key is None:
                self.made.append(data)
            else:
                self.rows[key] = data
        return "applied"

    def _refuse(self, key: str | None, data: str) -> str | None:
        if data == BAD:
            return "ValidationError"
        return "DuplicateEntryError" if key in self.rows else None


KEYS = st.sampled_from(["k", "l", "m", None])
DATA = st.sampled_from(["same", "same", "other", BAD])
COMMITS = st.lists(st.lists(st.tuples(KEYS, DATA), min_size=1, max_size=3), min_size=1, max_size=8)
ROWS = st.dictionaries(st.sampled_from(["k", "l"]), st.sampled_from(["same", "other"]))


@pytest.mark.long
@given(commits=COMMITS, before=ROWS, atomic=st.booleans())
async def test_each_commit_of_a_group_has_the_outcome_that_it_would_have_alone(
    commits: list[list[tuple[str | None, str]]], before: dict[str, str], *, atomic: bool
) -> None:
    tables, model = served(atomic=atomic), Model(before, atomic=atomic)
    for key, data in before.items():
        tables.rows[key] = job_row(key, data)
    async with tables.session() as session:
        ends = await together(session, *commits)

    assert ends == [model.send(each) for each in commits]
    chosen = {key: row["data"] for key, row in tables.rows.items() if len(key) == 1}
    assert chosen == model.rows
    made = [row["data"] for key, row in tables.rows.items() if len(key) > 1]
    assert sorted(made) == sorted(model.made)


async def test_outcomes_are_true_on_the_embedded_server(
    session: AsyncSession, server: ServerHandle
) -> None:
    """Some values have another form when the server returns them."""
    user = await session.current_user()
    missing_user = "00000000-0000-4000-8000-00000000dead"
    keys = [str(UUID(int=number)) for number in range(3)]
    server.faults.inject(NotAtomic(), times=None)
    ends: dict[int, str] = {}

    async def make(index: int, values: Mapping[str, object]) -> None:
        async with session.unit_of_work() as unit:
            session.create(Job, {"id": keys[index], "data": json.dumps({"n": index}), **values})
            ends[index] = await end_of(unit)
            unit.rollback()

    async with anyio.create_task_group() as group:
        group.start_soon(make, 0, {"user": user, "finished_at": datetime(2026, 1, 2, tzinfo=UTC)})
        group.start_soon(make, 1, {"user_id": missing_user})
        group.start_soon(make, 2, {"user_id": user["id"], "status": "running"})

    assert [ends[index] for index in range(3)] == ["applied", "ServerError", "applied"]
