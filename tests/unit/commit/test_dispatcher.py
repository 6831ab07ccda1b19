"""The dispatcher: requests that end while it is found out what became of others."""

from __future__ import annotations

import gc
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from weakref import ref

import anyio
import pytest

from aioftrackjobs.background import BackgroundTasks
from aioftrackjobs.commit.api_client import ApiClient
from aioftrackjobs.commit.dispatcher import Dispatcher
from aioftrackjobs.commit.request import Applied, NotApplied, Outcome, PendingRequest
from aioftrackjobs.protocol.operations import Create, Operation, Update
from aioftrackjobs.protocol.values import Reference
from aioftrackjobs.retry import NO_RETRIES, Pauses, RetryPolicy
from aioftrackjobs.transport import Download, WireRequest, WireResponse

Wire = list[dict[str, Any]]


class Server:
    """Answers by what the test tells it to, or with success.

    Attributes:
        answer: Returns what a request gets: results, or an error object with a status.
        batches: The operations of each request.
    """

    def __init__(self) -> None:
        self.answer: Callable[[Wire], Coroutine[Any, Any, tuple[int, Any] | None]] = self._agree
        self.batches: list[Wire] = []

    async def _agree(self, _: Wire) -> None: ...

    async def send(self, request: WireRequest) -> WireResponse:
        assert isinstance(request.body, bytes)
        operations: Wire = json.loads(request.body)
        self.batches.append(operations)
        told = await self.answer(operations)
        status, answer = told or (200, [{"data": []} for _ in operations])
        return WireResponse(status, json.dumps(answer).encode())

    def stream(self, request: WireRequest) -> AbstractAsyncContextManager[Download]:
        raise NotImplementedError


async def nothing() -> None: ...


@asynccontextmanager
async def dispatching(
    server: Server, retry: RetryPolicy = NO_RETRIES, **options: Any
) -> AsyncIterator[Dispatcher]:
    host = BackgroundTasks(nothing)
    await host.start()
    dispatcher = Dispatcher(host, retry=retry, pauses=Pauses(), **options)
    dispatcher.open(ApiClient(server, url="", headers={}))
    try:
        yield dispatcher
    finally:
        await host.aclose(nothing)


def create(key: str) -> Create:
    """Return a create under a key of the user's choice."""
    return Create(Reference("Job", (("id", key),)), {"data": "new"})


def update(key: str, data: str = "changed") -> Update:
    return Update(Reference("Job", (("id", key),)), {"data": data})


def submit(dispatcher: Dispatcher, *changes: Operation) -> PendingRequest:
    return dispatcher.submit(changes, ignore)


def ignore(_: Outcome) -> None: ...


def is_question(operations: Wire) -> bool:
    return bool(operations[0]["action"] == "query")


async def test_what_waits_for_a_withdrawn_half_ends_with_the_session() -> None:
    server, answers, hangs = Server(), anyio.Event(), anyio.Event()

    async def answer(operations: Wire) -> tuple[int, Any] | None:
        if not is_question(operations):
            hangs.set()
            await anyio.sleep_forever()
        await answers.wait()  # nothing is told, so that the creates have to travel alone
        return 200, {"exception": "ServerError", "content": "nobody may ask"}

    server.answer = answer
    async with (
        dispatching(server, max_requests=1) as dispatcher,
        anyio.create_task_group() as group,
    ):
        submit(dispatcher, create("first"))
        half = submit(dispatcher, create("second"), update("shared"))
        behind = [submit(dispatcher, update("shared")) for _ in range(3)]
        scope = anyio.CancelScope()

        async def give_up() -> None:
            with scope:
                await dispatcher.wait(half)

        group.start_soon(give_up)
        await anyio.wait_all_tasks_blocked()
        answers.set()
        await hangs.wait()
        scope.cancel()
        await anyio.wait_all_tasks_blocked()
        assert half.outcome is not None

        dispatcher.abandon()

        assert all(isinstance(request.outcome, NotApplied) for request in behind)
        with anyio.fail_after(5):
            for request in behind:
                await dispatcher.wait(request)


async def test_too_many_requests_are_the_fault_of_no_commit_and_bring_no_more() -> None:
    server = Server()

    async def answer(_: Wire) -> tuple[int, Any]:
        return 429, {"exception": "TooManyRequestsError", "content": "slow down"}

    server.answer = answer
    async with dispatching(server) as dispatcher:
        requests = [submit(dispatcher, update(key)) for key in "abcd"]
        for request in requests:
            assert isinstance(await dispatcher.wait(request), NotApplied)

    assert len(server.batches) == 1


async def test_a_question_that_meets_too_many_requests_is_asked_again() -> None:
    server = Server()

    async def answer(operations: Wire) -> tuple[int, Any] | None:
        if is_question(operations) and len(server.batches) == 1:
            return 429, {"exception": "TooManyRequestsError", "content": "slow down"}
        return None

    server.answer = answer
    soon = RetryPolicy(first_delay=0.01)
    async with dispatching(server, soon) as dispatcher:
        request = submit(dispatcher, create("a"), create("b"))
        assert isinstance(await dispatcher.wait(request), Applied)

    asked, again, sent = server.batches
    assert is_question(asked)
    assert asked == again
    assert [each["action"] for each in sent] == ["create", "create"]


async def test_who_holds_an_old_commit_does_not_hold_those_that_came_after_it() -> None:
    async with dispatching(Server()) as dispatcher:
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
async def test_waits_that_are_cancelled_leave_nothing_behind() -> None:
    server, answers = Server(), anyio.Event()
    server.answer = lambda _: answers.wait()
    async with dispatching(server) as dispatcher, anyio.create_task_group() as group:
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
            answers.set()
            await request.ended()
