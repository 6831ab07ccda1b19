"""The dispatcher with its sender and reconciler, on a transport without sockets.

The first part follows the states of a request, as the diagram in ``commit/request.py`` has them.
"""

from __future__ import annotations

import gc
import json
import re
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
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
from aioftrackjobs.errors import (
    ConnectError,
    DuplicateEntryError,
    SessionStateError,
    TransportError,
    ValidationError,
)
from aioftrackjobs.protocol.operations import Create, Delete, Operation, Update
from aioftrackjobs.protocol.values import Reference
from aioftrackjobs.retry import NO_RETRIES, Pauses, RetryPolicy
from aioftrackjobs.transport import Download, WireRequest, WireResponse

Wire = dict[str, Any]

#: Data of an operation that the server refuses.
BAD = "bad"


class FakeTransport:
    """A transport with a server of Jobs behind it, in memory.

    Attributes:
        rows: The data of the Jobs, by id.
        batches: The operations of each request that has left.
        rolls_back: Whether a refused batch leaves nothing behind.
        faults: What happens to the next requests, one by one: "not sent", "lost request", "lost
            response", "busy", or "" for nothing.
        hangs: Requests wait for it; a test may put another event in its place.
        hides: Whether queries are refused.
    """

    def __init__(self) -> None:
        self.rows: dict[str, Any] = {}
        self.batches: list[list[Wire]] = []
        self.rolls_back = True
        self.faults: deque[str] = deque()
        self.hangs = anyio.Event()
        self.hangs.set()
        self.hides = False

    @property
    def queries(self) -> list[list[Wire]]:
        return [batch for batch in self.batches if batch[0]["action"] == "query"]

    @property
    def commits(self) -> list[list[Wire]]:
        return [batch for batch in self.batches if batch[0]["action"] != "query"]

    async def send(self, request: WireRequest) -> WireResponse:
        assert isinstance(request.body, bytes)
        operations: list[Wire] = json.loads(request.body)
        fault = self.faults.popleft() if self.faults else ""
        if fault == "not sent":
            raise ConnectError("refused")
        self.batches.append(operations)
        await self.hangs.wait()
        if fault == "lost request":
            raise TransportError("gone")
        if fault == "busy":
            return self._error(429, "TooManyRequestsError", "slow down")
        response = self._apply(operations)
        if fault == "lost response":
            raise TransportError("gone")
        return response

    def _apply(self, operations: list[Wire]) -> WireResponse:
        before = dict(self.rows)
        results = []
        for operation in operations:
            if error := self._refuse(operation):
                if self.rolls_back:
                    self.rows = before
                return self._error(200, *error)
            results.append({"data": self._apply_one(operation)})
        return WireResponse(200, json.dumps(results).encode())

    def _refuse(self, operation: Wire) -> tuple[str, str] | None:
        if operation["action"] == "query":
            return ("PermissionError", "no queries") if self.hides else None
        (key,) = operation["entity_key"]
        if operation.get("entity_data", {}).get("data") == BAD:
            return "ValidationError", f"{key} is bad"
        if (operation["action"] == "create") == (key in self.rows):
            kind = "DuplicateEntryError" if key in self.rows else "EntityNotFoundError"
            return kind, key
        return None

    def _apply_one(self, operation: Wire) -> Any:
        if operation["action"] == "query":
            asked = re.findall(r'"(.*?)"', operation["expression"])
            return [{"id": key, "data": self.rows[key]} for key in asked if key in self.rows]
        (key,) = operation["entity_key"]
        if operation["action"] == "delete":
            del self.rows[key]
            return True
        self.rows[key] = operation["entity_data"]["data"]
        return {"id": key}

    @staticmethod
    def _error(status: int, kind: str, text: str) -> WireResponse:
        return WireResponse(status, json.dumps({"exception": kind, "content": text}).encode())

    def stream(self, request: WireRequest) -> AbstractAsyncContextManager[Download]:
        raise NotImplementedError


@pytest.fixture
def transport() -> FakeTransport:
    return FakeTransport()


async def no_pause(_: float) -> None:
    await anyio.lowlevel.checkpoint()


#: Three attempts, without waiting.
RETRIES = RetryPolicy(budget=0.35, jitter=0, clock=lambda: 0.0, sleep=no_pause)


async def nothing() -> None: ...


@asynccontextmanager
async def dispatching(
    transport: FakeTransport, retry: RetryPolicy = NO_RETRIES, **options: Any
) -> AsyncIterator[Dispatcher]:
    background = BackgroundTasks(nothing)
    await background.start()
    dispatcher = Dispatcher(background, retry=retry, pauses=Pauses(), **options)
    dispatcher.open(ApiClient(transport, url="", headers={}))
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
    with anyio.fail_after(5):
        return [await dispatcher.wait(request) for request in requests]


# From submission to each end


async def test_applied_commits_settle_before_their_callers_wake(transport: FakeTransport) -> None:
    settled: list[Outcome] = []
    async with dispatching(transport) as dispatcher:
        request = dispatcher.submit([create("a")], settled.append)
        assert dispatcher.backlog().queued == 1

        outcome = await dispatcher.wait(request)

        assert settled == [outcome]
        assert isinstance(outcome, Applied)
        assert dispatcher.is_idle
        assert dispatcher.backlog().since is None
    assert transport.rows == {"a": "new"}


async def test_a_commit_that_is_refused_alone_is_not_applied(transport: FakeTransport) -> None:
    async with dispatching(transport) as dispatcher:
        (outcome,) = await outcomes(dispatcher, submit(dispatcher, create("a", BAD)))

    assert isinstance(outcome, NotApplied)
    assert isinstance(outcome.error, ValidationError)
    assert not outcome.done


@pytest.mark.parametrize("rolls_back", [True, False])
async def test_a_refused_group_is_bisected(transport: FakeTransport, *, rolls_back: bool) -> None:
    """Only the commit at fault is refused, and the others are applied once."""
    transport.rolls_back = rolls_back
    async with dispatching(transport) as dispatcher:
        requests = [
            submit(dispatcher, create(key, BAD if key == "e" else "new")) for key in "abcdefgh"
        ]
        ends = await outcomes(dispatcher, *requests)

    assert [type(end) for end in ends] == [Applied] * 4 + [NotApplied] + [Applied] * 3
    assert transport.rows == dict.fromkeys("abcdfgh", "new")
    assert len(transport.commits[0]) == 8, "they left together"
    assert len(transport.commits) <= 1 + 2 * 3


@pytest.mark.parametrize("fault", ["lost request", "lost response"])
async def test_a_lost_commit_is_reconciled_and_applied_once(
    transport: FakeTransport, fault: str
) -> None:
    transport.rows["old"] = "old"
    transport.faults.append(fault)
    async with dispatching(transport, RETRIES) as dispatcher:
        request = submit(dispatcher, create("a"), Delete(job("old")))
        (outcome,) = await outcomes(dispatcher, request)

    assert isinstance(outcome, Applied)
    assert transport.rows == {"a": "new"}
    assert len(transport.queries) == 1
    assert len(transport.commits) == (1 if fault == "lost response" else 2)


async def test_what_a_lost_commit_has_not_done_ends_uncertain_without_retries(
    transport: FakeTransport,
) -> None:
    transport.faults.append("lost request")
    async with dispatching(transport) as dispatcher:
        request = submit(dispatcher, create("a"))
        (outcome,) = await outcomes(dispatcher, request)
        assert isinstance(outcome, Unknown)

        again = dispatcher.submit([create("a")], ignore, uncertain_because=outcome.error)
        (outcome,) = await outcomes(dispatcher, again)

    assert isinstance(outcome, Applied)
    assert [batch[0]["action"] for batch in transport.batches] == ["create", "query", "create"]


async def test_a_lost_commit_ends_uncertain_when_the_server_refuses_queries(
    transport: FakeTransport,
) -> None:
    """It is sent again, and what it duplicates then may be its own."""
    transport.hides = True
    transport.faults.append("lost response")
    async with dispatching(transport, RETRIES) as dispatcher:
        (outcome,) = await outcomes(dispatcher, submit(dispatcher, create("a")))

    assert isinstance(outcome, Unknown)
    assert transport.rows == {"a": "new"}


@pytest.mark.parametrize("fault", ["not sent", "busy"])
async def test_what_the_server_did_not_take_is_sent_again_without_a_query(
    transport: FakeTransport, fault: str
) -> None:
    transport.faults += [fault, fault]
    async with dispatching(transport, RETRIES) as dispatcher:
        (outcome,) = await outcomes(dispatcher, submit(dispatcher, create("a")))

    assert isinstance(outcome, Applied)
    assert transport.queries == []


@pytest.mark.parametrize("fault", ["not sent", "busy"])
async def test_a_group_is_not_applied_when_no_retries_are_left(
    transport: FakeTransport, fault: str
) -> None:
    """The failure concerns all requests: the group is not bisected."""
    transport.faults += [fault] * 3
    async with dispatching(transport, RETRIES) as dispatcher:
        requests = [submit(dispatcher, update(key)) for key in "abcd"]
        ends = await outcomes(dispatcher, *requests)

    assert [type(end) for end in ends] == [NotApplied] * 4
    assert len(transport.batches) == (3 if fault == "busy" else 0)
    errors = {id(end.error) for end in ends if isinstance(end, NotApplied)}
    assert len(errors) == 4, "each caller raises an error of its own"


async def test_a_call_that_must_not_be_repeated_fails_when_its_response_is_lost(
    transport: FakeTransport,
) -> None:
    operation: dict[str, Any] = {
        "action": "create",
        "entity_type": "Job",
        "entity_key": ["a"],
        "entity_data": {"data": "new"},
    }
    transport.faults.append("lost response")
    async with dispatching(transport, RETRIES) as dispatcher:
        with pytest.raises(TransportError, match="gone"):
            await dispatcher.call([operation])

    assert len(transport.batches) == 1


async def test_a_commit_is_withdrawn_only_before_it_is_sent(transport: FakeTransport) -> None:
    transport.hangs = anyio.Event()
    async with (
        dispatching(transport, max_requests=1) as dispatcher,
        anyio.create_task_group() as group,
    ):
        sent = submit(dispatcher, create("sent"))
        while not transport.batches:
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
        transport.hangs.set()
        assert isinstance((await outcomes(dispatcher, sent))[0], Applied)
        assert dispatcher.is_idle

    assert transport.rows == {"sent": "new"}


@pytest.mark.parametrize("fault", ["not sent", "busy"])
async def test_a_commit_can_be_withdrawn_between_two_attempts(
    transport: FakeTransport, fault: str
) -> None:
    """The server did not take it, so that it is not sent any more."""
    pausing, ends = anyio.Event(), anyio.Event()

    async def pause(_: float) -> None:
        pausing.set()
        await ends.wait()

    transport.faults.append(fault)
    async with (
        dispatching(transport, RetryPolicy(sleep=pause)) as dispatcher,
        anyio.create_task_group() as group,
    ):
        request = submit(dispatcher, create("a"))
        group.start_soon(dispatcher.wait, request)
        with anyio.fail_after(5):
            await pausing.wait()
        group.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await anyio.wait_all_tasks_blocked()
            ends.set()
            await anyio.wait_all_tasks_blocked()

    assert isinstance(request.outcome, NotApplied)
    assert isinstance(request.outcome.error, WithdrawnError)
    assert transport.rows == {}
    assert len(transport.batches) == (1 if fault == "busy" else 0)


async def test_commits_of_one_entity_keep_their_order(transport: FakeTransport) -> None:
    """Each waits for the end of the one before it; those of other entities do not."""
    transport.faults.append("not sent")
    async with dispatching(transport, RETRIES) as dispatcher:
        first = submit(dispatcher, create("a", "0"))
        requests = [submit(dispatcher, update("a", str(number))) for number in range(1, 5)]
        other = submit(dispatcher, create("b"))
        await outcomes(dispatcher, first, *requests, other)

    sent = [each["entity_data"]["data"] for batch in transport.commits for each in batch]
    assert [data for data in sent if data != "new"] == ["0", "1", "2", "3", "4"]
    assert transport.rows == {"a": "4", "b": "new"}
    assert len(transport.commits[0]) == 2, "the create of b left with that of a"


async def test_a_closed_dispatcher_ends_what_was_not_sent(transport: FakeTransport) -> None:
    transport.hangs = anyio.Event()
    async with dispatching(transport, max_requests=1) as dispatcher:
        sent = submit(dispatcher, create("a"))
        while not transport.batches:
            await anyio.lowlevel.checkpoint()
        queued, held = submit(dispatcher, create("b")), submit(dispatcher, update("a"))

        dispatcher.abandon()
        assert isinstance(queued.outcome, NotApplied)
        assert isinstance(queued.outcome.error, SessionStateError)
        with pytest.raises(SessionStateError, match="closed"):
            submit(dispatcher, create("c"))
        transport.hangs.set()
        ends = await outcomes(dispatcher, sent, held)

    assert [type(end) for end in ends] == [Applied, NotApplied]


async def test_a_commit_that_cannot_be_encoded_ends_alone(transport: FakeTransport) -> None:
    async with dispatching(transport) as dispatcher:
        odd = submit(dispatcher, create("\ud800"))
        good = [submit(dispatcher, create(key)) for key in "ab"]
        ends = await outcomes(dispatcher, odd, *good)

    assert [type(end) for end in ends] == [NotApplied, Applied, Applied]
    assert transport.rows == {"a": "new", "b": "new"}


# Keys that users chose


@pytest.mark.parametrize("fault", ["", "lost request"])
async def test_a_key_that_was_taken_is_not_taken_for_its_own(
    transport: FakeTransport, fault: str
) -> None:
    """The entity of another client has the very values that are sent."""
    transport.rows["k"] = "same"
    transport.faults += ["", fault]
    async with dispatching(transport, RETRIES) as dispatcher:
        request = submit(dispatcher, create_chosen("k", "same"), create("a"))
        (outcome,) = await outcomes(dispatcher, request)

    assert isinstance(outcome, NotApplied)
    assert isinstance(outcome.error, DuplicateEntryError)
    assert transport.rows == {"k": "same"}


async def test_a_commit_with_a_chosen_key_shares_no_request(transport: FakeTransport) -> None:
    async with dispatching(transport) as dispatcher:
        requests = [
            submit(dispatcher, operation)
            for operation in (create("a"), create_chosen("k"), create("b"), create("c"))
        ]
        await outcomes(dispatcher, *requests)

    sent = [[each["entity_key"][0] for each in batch] for batch in transport.commits]
    assert sorted(sent) == [["a"], ["b", "c"], ["k"]]
    assert len(transport.queries) == 1


async def test_a_query_that_meets_a_busy_server_is_repeated(transport: FakeTransport) -> None:
    transport.faults.append("busy")
    async with dispatching(transport, RETRIES) as dispatcher:
        request = submit(dispatcher, create_chosen("a"), create_chosen("b"))
        assert isinstance((await outcomes(dispatcher, request))[0], Applied)

    first, again, sent = transport.batches
    assert first == again
    assert first[0]["action"] == "query"
    assert [each["action"] for each in sent] == ["create", "create"]


# Closing, and memory


async def test_what_waits_for_a_withdrawn_half_ends_with_the_session(
    transport: FakeTransport,
) -> None:
    """The half waits to be sent again, behind the other one, when its caller gives up."""
    async with (
        dispatching(transport, max_requests=1) as dispatcher,
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
        while not transport.queries:
            await anyio.lowlevel.checkpoint()
        transport.hangs = anyio.Event()
        while len(transport.commits) < 2:
            await anyio.lowlevel.checkpoint()
        scope.cancel()
        await anyio.wait_all_tasks_blocked()
        assert half.outcome is not None

        dispatcher.abandon()

        assert all(isinstance(request.outcome, NotApplied) for request in behind)
        await outcomes(dispatcher, *behind)
        transport.hangs.set()


async def test_a_caller_that_keeps_an_old_commit_does_not_keep_later_ones(
    transport: FakeTransport,
) -> None:
    transport.rows["a"] = "old"
    async with dispatching(transport) as dispatcher:
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
async def test_waits_that_are_cancelled_leave_nothing_behind(transport: FakeTransport) -> None:
    transport.hangs = anyio.Event()
    async with dispatching(transport) as dispatcher, anyio.create_task_group() as group:
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
        with anyio.fail_after(5):
            transport.hangs.set()
            await request.ended()
