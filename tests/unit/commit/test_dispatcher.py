"""The dispatcher with its sender and reconciler, on a transport without sockets.

The first part follows the states of a request, as the diagram in ``commit/request.py`` has them.
"""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from weakref import ref

import anyio
import anyio.lowlevel
import pytest

from aioftrackjobs.background import BackgroundTasks
from aioftrackjobs.commit.api_client import ApiClient
from aioftrackjobs.commit.dispatcher import Dispatcher
from aioftrackjobs.commit.request import (
    Applied,
    NotApplied,
    Outcome,
    PendingRequest,
    Unknown,
    WithdrawnError,
)
from aioftrackjobs.config.retry import NO_RETRIES, Pauses, RetryPolicy
from aioftrackjobs.errors import (
    DuplicateEntryError,
    SessionStateError,
    TransportError,
    ValidationError,
)
from aioftrackjobs.protocol.operations import Create, Delete, Operation, Update
from aioftrackjobs.protocol.values import Reference

from ...tables import Tables, turns

Wire = dict[str, Any]

#: Data of an operation that the server refuses.
BAD = "bad"


@pytest.fixture
def tables() -> Tables:
    made = Tables()
    made.refuses = lambda operation: operation.get("entity_data", {}).get("data") == BAD
    return made


def add(tables: Tables, key: str, data: str) -> None:
    """Let a Job exist from the start."""
    tables.rows[key] = {"id": key, "data": data}


def stored(tables: Tables) -> dict[str, object]:
    """Return the data of the stored Jobs by id."""
    return {key: row["data"] for key, row in tables.rows.items()}


def queries(tables: Tables) -> list[list[Wire]]:
    return [request for request in tables.requests if request[0]["action"] == "query"]


async def no_pause(_: float) -> None:
    await anyio.lowlevel.checkpoint()


#: Three attempts, without waiting.
RETRIES = RetryPolicy(budget=0.35, jitter=0, clock=lambda: 0.0, sleep=no_pause)


async def nothing() -> None: ...


@asynccontextmanager
async def dispatching(
    tables: Tables, retry: RetryPolicy = NO_RETRIES, **options: Any
) -> AsyncIterator[Dispatcher]:
    background = BackgroundTasks(nothing)
    await background.start()
    dispatcher = Dispatcher(background, retry=retry, pauses=Pauses(), **options)
    dispatcher.open(ApiClient(tables, url="", headers={}))
    try:
        yield dispatcher
    finally:
        await background.aclose(nothing)


def job(key: str) -> Reference:
    return Reference("Job", (("id", key),))


def create(key: str, data: str = "new") -> Create:
    """Return a create under an id that was made for it."""
    return Create(job(key), {"data": data}, fresh=True)


def create_chosen(key: str, data: str = "new") -> Create:
    """Return a create under a key that a user chose."""
    return Create(job(key), {"data": data})


def update(key: str, data: str = "changed") -> Update:
    return Update(job(key), {"data": data})


def submit(dispatcher: Dispatcher, *operations: Operation) -> PendingRequest:
    return dispatcher.submit(operations, ignore)


def ignore(_: Outcome) -> None: ...


async def outcomes(dispatcher: Dispatcher, *requests: PendingRequest) -> list[Outcome]:
    with anyio.fail_after(20):
        return [await dispatcher.wait(request) for request in requests]


# From submission to each end


async def test_applied_commits_settle_before_their_callers_wake(tables: Tables) -> None:
    settled: list[Outcome] = []
    async with dispatching(tables) as dispatcher:
        request = dispatcher.submit([create("a")], settled.append)
        assert dispatcher.backlog().queued == 1

        outcome = await dispatcher.wait(request)

        assert settled == [outcome]
        assert isinstance(outcome, Applied)
        assert dispatcher.is_idle
        assert dispatcher.backlog().since is None
    assert stored(tables) == {"a": "new"}


async def test_a_commit_that_is_refused_alone_is_not_applied(tables: Tables) -> None:
    async with dispatching(tables) as dispatcher:
        (outcome,) = await outcomes(dispatcher, submit(dispatcher, create("a", BAD)))

    assert isinstance(outcome, NotApplied)
    assert isinstance(outcome.error, ValidationError)
    assert not outcome.done


@pytest.mark.parametrize("rolls_back", [True, False])
async def test_a_refused_group_is_bisected(tables: Tables, *, rolls_back: bool) -> None:
    """Only the commit at fault is refused, and the others are applied once."""
    tables.atomic = rolls_back
    async with dispatching(tables) as dispatcher:
        requests = [
            submit(dispatcher, create(key, BAD if key == "e" else "new")) for key in "abcdefgh"
        ]
        ends = await outcomes(dispatcher, *requests)

    assert [type(end) for end in ends] == [Applied] * 4 + [NotApplied] + [Applied] * 3
    assert stored(tables) == dict.fromkeys("abcdfgh", "new")
    assert len(tables.batches[0]) == 8, "they left together"
    assert len(tables.batches) <= 1 + 2 * 3


@pytest.mark.parametrize("fault", ["lost request", "lost response"])
async def test_a_lost_commit_is_reconciled_and_applied_once(tables: Tables, fault: str) -> None:
    add(tables, "old", "old")
    tables.faults.append(fault)
    async with dispatching(tables, RETRIES) as dispatcher:
        request = submit(dispatcher, create("a"), Delete(job("old")))
        (outcome,) = await outcomes(dispatcher, request)

    assert isinstance(outcome, Applied)
    assert stored(tables) == {"a": "new"}
    assert len(queries(tables)) == 1
    assert len(tables.batches) == (1 if fault == "lost response" else 2)


async def test_what_a_lost_commit_has_not_done_ends_uncertain_without_retries(
    tables: Tables,
) -> None:
    tables.faults.append("lost request")
    async with dispatching(tables) as dispatcher:
        request = submit(dispatcher, create("a"))
        (outcome,) = await outcomes(dispatcher, request)
        assert isinstance(outcome, Unknown)

        again = dispatcher.submit([create("a")], ignore, uncertain_because=outcome.error)
        (outcome,) = await outcomes(dispatcher, again)

    assert isinstance(outcome, Applied)
    assert [batch[0]["action"] for batch in tables.requests] == ["create", "query", "create"]


async def test_a_lost_commit_ends_uncertain_when_the_server_refuses_queries(
    tables: Tables,
) -> None:
    """It is sent again, and what it duplicates then may be its own."""
    tables.hides.add("Job")
    tables.faults.append("lost response")
    async with dispatching(tables, RETRIES) as dispatcher:
        (outcome,) = await outcomes(dispatcher, submit(dispatcher, create("a")))

    assert isinstance(outcome, Unknown)
    assert stored(tables) == {"a": "new"}


@pytest.mark.parametrize("fault", ["lost response", "none"])
async def test_a_commit_ends_uncertain_when_a_proxy_refuses_the_queries(
    tables: Tables, fault: str
) -> None:
    """Whether its response was lost, or the server has refused it and kept a part of it."""
    tables.atomic = False
    tables.refuses = lambda each: each["entity_key"] == ["bad"]
    tables.faults += [fault, "forbidden query"]
    async with dispatching(tables, RETRIES) as dispatcher:
        (outcome,) = await outcomes(dispatcher, submit(dispatcher, create("a"), create("bad")))

    assert isinstance(outcome, Unknown)
    assert stored(tables) == {"a": "new"}
    assert len(tables.batches) == 1, "it is not sent again without knowing more"


async def test_a_refused_group_ends_uncertain_when_a_proxy_refuses_the_queries(
    tables: Tables,
) -> None:
    tables.atomic = False
    tables.refuses = lambda each: each["entity_key"] == ["bad"]
    tables.faults += ["none", "forbidden query"]
    async with dispatching(tables, RETRIES) as dispatcher:
        requests = [submit(dispatcher, create(key)) for key in ("a", "bad", "b")]
        ends = await outcomes(dispatcher, *requests)

    assert [type(end) for end in ends] == [Unknown] * 3
    assert len(tables.batches) == 1


@pytest.mark.parametrize("fault", ["refused connection", "busy"])
async def test_what_the_server_did_not_take_is_sent_again_without_a_query(
    tables: Tables, fault: str
) -> None:
    tables.faults += [fault, fault]
    async with dispatching(tables, RETRIES) as dispatcher:
        (outcome,) = await outcomes(dispatcher, submit(dispatcher, create("a")))

    assert isinstance(outcome, Applied)
    assert queries(tables) == []


@pytest.mark.parametrize("fault", ["refused connection", "busy"])
async def test_a_group_is_not_applied_when_no_retries_are_left(tables: Tables, fault: str) -> None:
    """The failure concerns all requests: the group is not bisected."""
    tables.faults += [fault] * 3
    async with dispatching(tables, RETRIES) as dispatcher:
        requests = [submit(dispatcher, update(key)) for key in "abcd"]
        ends = await outcomes(dispatcher, *requests)

    assert [type(end) for end in ends] == [NotApplied] * 4
    assert len(tables.batches) == 3
    errors = {id(end.error) for end in ends if isinstance(end, NotApplied)}
    assert len(errors) == 4, "each caller raises an error of its own"


async def test_a_call_that_must_not_be_repeated_fails_when_its_response_is_lost(
    tables: Tables,
) -> None:
    operation: dict[str, Any] = {
        "action": "create",
        "entity_type": "Job",
        "entity_key": ["a"],
        "entity_data": {"data": "new"},
    }
    tables.faults.append("lost response")
    async with dispatching(tables, RETRIES) as dispatcher:
        with pytest.raises(TransportError, match="gone"):
            await dispatcher.call([operation])

    assert len(tables.requests) == 1


async def test_a_commit_is_withdrawn_only_before_it_is_sent(tables: Tables) -> None:
    tables.gate = anyio.Event()
    async with (
        dispatching(tables, max_requests=1) as dispatcher,
        anyio.create_task_group() as group,
    ):
        sent = submit(dispatcher, create("sent"))
        while not tables.requests:
            await anyio.lowlevel.checkpoint()
        queued = submit(dispatcher, create("queued"))
        held = submit(dispatcher, update("sent"))
        scope = anyio.CancelScope()

        async def give_up() -> None:
            with scope:
                async with anyio.create_task_group() as callers:
                    for request in (sent, queued, held):
                        callers.start_soon(dispatcher.wait, request)

        group.start_soon(give_up)
        await anyio.wait_all_tasks_blocked()
        scope.cancel()
        await anyio.wait_all_tasks_blocked()

        assert sent.outcome is None
        for request in (queued, held):
            assert isinstance(request.outcome, NotApplied)
            assert isinstance(request.outcome.error, WithdrawnError)
        tables.gate.set()
        assert isinstance((await outcomes(dispatcher, sent))[0], Applied)
        assert dispatcher.is_idle

    assert stored(tables) == {"sent": "new"}


@pytest.mark.parametrize("fault", ["refused connection", "busy"])
async def test_a_commit_can_be_withdrawn_between_two_attempts(tables: Tables, fault: str) -> None:
    """The server did not take it, so that it is not sent any more."""
    pausing, ends = anyio.Event(), anyio.Event()

    async def pause(_: float) -> None:
        pausing.set()
        await ends.wait()

    tables.faults.append(fault)
    async with (
        dispatching(tables, RetryPolicy(sleep=pause)) as dispatcher,
        anyio.create_task_group() as group,
    ):
        request = submit(dispatcher, create("a"))
        group.start_soon(dispatcher.wait, request)
        with anyio.fail_after(20):
            await pausing.wait()
        group.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await anyio.wait_all_tasks_blocked()
            ends.set()
            await anyio.wait_all_tasks_blocked()

    assert isinstance(request.outcome, NotApplied)
    assert isinstance(request.outcome.error, WithdrawnError)
    assert stored(tables) == {}
    assert len(tables.batches) == 1


async def test_commits_of_one_entity_keep_their_order(tables: Tables) -> None:
    """Each waits for the end of the one before it; those of other entities do not."""
    tables.faults.append("refused connection")
    async with dispatching(tables, RETRIES) as dispatcher:
        first = submit(dispatcher, create("a", "0"))
        requests = [submit(dispatcher, update("a", str(number))) for number in range(1, 5)]
        other = submit(dispatcher, create("b"))
        await outcomes(dispatcher, first, *requests, other)

    applied = [each["entity_data"]["data"] for each in tables.applied]
    assert [data for data in applied if data != "new"] == ["0", "1", "2", "3", "4"]
    assert stored(tables) == {"a": "4", "b": "new"}
    assert len(tables.batches[0]) == 2, "the create of b left with that of a"


async def test_an_urgent_commit_waits_for_one_of_its_entity_and_for_nothing_else(
    tables: Tables,
) -> None:
    tables.gate = anyio.Event()
    async with dispatching(tables) as dispatcher:
        first = submit(dispatcher, create("a", "0"))
        await turns()
        urgent = dispatcher.submit([update("a", "1")], ignore, {"is_urgent": True})
        other = dispatcher.submit([create("b")], ignore, {"is_urgent": True})
        with anyio.fail_after(20):
            while tables.in_progress < 2:
                await turns()
        tables.gate.set()
        ended = await outcomes(dispatcher, first, urgent, other)

    assert [type(each) for each in ended] == [Applied] * 3
    assert stored(tables) == {"a": "1", "b": "new"}


async def test_a_closed_dispatcher_ends_what_was_not_sent(tables: Tables) -> None:
    tables.gate = anyio.Event()
    async with dispatching(tables, max_requests=1) as dispatcher:
        sent = submit(dispatcher, create("a"))
        while not tables.requests:
            await anyio.lowlevel.checkpoint()
        queued, held = submit(dispatcher, create("b")), submit(dispatcher, update("a"))

        dispatcher.abandon()
        assert isinstance(queued.outcome, NotApplied)
        assert isinstance(queued.outcome.error, SessionStateError)
        with pytest.raises(SessionStateError, match="closed"):
            submit(dispatcher, create("c"))
        tables.gate.set()
        ends = await outcomes(dispatcher, sent, held)

    assert [type(end) for end in ends] == [Applied, NotApplied]


async def test_a_commit_that_cannot_be_encoded_ends_alone(tables: Tables) -> None:
    async with dispatching(tables) as dispatcher:
        odd = submit(dispatcher, create("\ud800"))
        good = [submit(dispatcher, create(key)) for key in "ab"]
        ends = await outcomes(dispatcher, odd, *good)

    assert [type(end) for end in ends] == [NotApplied, Applied, Applied]
    assert stored(tables) == {"a": "new", "b": "new"}


# Keys that users chose


@pytest.mark.parametrize("fault", ["none", "lost request"])
async def test_a_key_that_was_taken_is_not_taken_for_its_own(tables: Tables, fault: str) -> None:
    """The entity of another client has the very values that are sent."""
    add(tables, "k", "same")
    tables.faults.append(fault)
    async with dispatching(tables, RETRIES) as dispatcher:
        request = submit(dispatcher, create_chosen("k", "same"), create("a"))
        (outcome,) = await outcomes(dispatcher, request)

    assert isinstance(outcome, NotApplied)
    assert isinstance(outcome.error, DuplicateEntryError)
    assert stored(tables) == {"k": "same"}


async def test_a_commit_with_a_chosen_key_shares_no_request(tables: Tables) -> None:
    async with dispatching(tables) as dispatcher:
        requests = [
            submit(dispatcher, operation)
            for operation in (create("a"), create_chosen("k"), create("b"), create("c"))
        ]
        await outcomes(dispatcher, *requests)

    sent = [[each["entity_key"][0] for each in batch] for batch in tables.batches]
    assert sorted(sent) == [["a"], ["b", "c"], ["k"]]
    assert len(queries(tables)) == 1


async def test_a_query_that_meets_a_busy_server_is_repeated(tables: Tables) -> None:
    tables.faults.append("busy")
    async with dispatching(tables, RETRIES) as dispatcher:
        request = submit(dispatcher, create_chosen("a"), create_chosen("b"))
        assert isinstance((await outcomes(dispatcher, request))[0], Applied)

    first, again, sent = tables.requests
    assert first == again
    assert first[0]["action"] == "query"
    assert [each["action"] for each in sent] == ["create", "create"]


# Closing, and memory


async def test_what_waits_for_a_withdrawn_half_ends_with_the_session(
    tables: Tables,
) -> None:
    """The half waits to be sent again, behind the other one, when its caller gives up."""
    async with (
        dispatching(tables, max_requests=1) as dispatcher,
        anyio.create_task_group() as group,
    ):
        submit(dispatcher, create("first", BAD))
        half = submit(dispatcher, create("second"), update("shared"))
        behind = [submit(dispatcher, update("shared")) for _ in range(3)]
        scope = anyio.CancelScope()

        async def give_up() -> None:
            with scope:
                await dispatcher.wait(half)

        group.start_soon(give_up)
        while not queries(tables):
            await anyio.lowlevel.checkpoint()
        tables.gate = anyio.Event()
        while len(tables.batches) < 2:
            await anyio.lowlevel.checkpoint()
        scope.cancel()
        await anyio.wait_all_tasks_blocked()
        assert half.outcome is not None

        dispatcher.abandon()

        assert all(isinstance(request.outcome, NotApplied) for request in behind)
        await outcomes(dispatcher, *behind)
        tables.gate.set()


async def test_a_caller_that_keeps_an_old_commit_does_not_keep_later_ones(
    tables: Tables,
) -> None:
    add(tables, "a", "old")
    async with dispatching(tables) as dispatcher:
        first = latest = submit(dispatcher, update("a"))
        later: list[ref[PendingRequest]] = []
        for number in range(20):
            following = submit(dispatcher, update("a", f"{number}"))
            later.append(ref(following))
            await dispatcher.wait(latest)
            latest = following
        await dispatcher.wait(latest)
        del latest, following

    gc.collect()
    assert first.outcome is not None
    assert [each() for each in later] == [None] * 20


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_waits_that_are_cancelled_leave_nothing_behind(tables: Tables) -> None:
    tables.gate = anyio.Event()
    async with dispatching(tables) as dispatcher, anyio.create_task_group() as group:
        request = submit(dispatcher, update("a"))
        group.start_soon(dispatcher.wait, request)
        group.start_soon(request.ended)
        await anyio.wait_all_tasks_blocked()
        gc.collect()
        before = len(gc.get_objects())
        for _ in range(500):
            with anyio.move_on_after(0):
                await request.ended()
        gc.collect()

        assert len(gc.get_objects()) < before + 250
        with anyio.fail_after(20):
            tables.gate.set()
            await request.ended()
