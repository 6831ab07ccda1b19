"""Answers that are JSON of the right form and belong to another request, or to none."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from aioftrackjobs import (
    AsyncSession,
    CommitUncertainError,
    Job,
    MalformedResponseError,
    ServerError,
    TransportError,
    job_context,
)
from aioftrackjobs.config.retry import NO_RETRIES, RetryPolicy
from aioftrackjobs.devserver import ServerHandle
from aioftrackjobs.protocol.operations import Delete
from aioftrackjobs.transport import WireRequest, WireResponse

from .relay import Relay, Send
from .settings import connected

#: What arrives in place of the results of the writes that were sent, by name.
ODD: dict[str, Callable[[list[dict[str, Any]]], object]] = {
    "null": lambda writes: [None] * len(writes),
    "lists": lambda writes: [[]] * len(writes),
    "objects": lambda writes: [{}] * len(writes),
    "true": lambda writes: [True] * len(writes),
    "too few": lambda writes: [_applied(each) for each in writes[1:]],
    "too many": lambda writes: [_applied(each) for each in [*writes, *writes]],
    "another query": lambda writes: [{"action": "query", "data": [], "metadata": {}}] * len(writes),
    "another entity": lambda writes: [_applied({**each, "entity_key": ["x"]}) for each in writes],
    "another action": lambda writes: [
        {**_applied(each), "action": "create" if each["action"] != "create" else "update"}
        for each in writes
    ],
    "another type": lambda writes: [
        _applied({**each, "entity_type": "User", "action": "update"}) for each in writes
    ],
    "deleted": lambda writes: [{"action": "delete", "data": True}] * len(writes),
    "no key": lambda writes: [{"action": each["action"], "data": {}} for each in writes],
}


def _applied(write: dict[str, Any]) -> dict[str, object]:
    row = {"__entity_type__": write["entity_type"], "id": write["entity_key"][0]}
    return {"action": write["action"], "data": row}


def answering(
    odd: Callable[[list[dict[str, Any]]], object],
    *,
    times: int,
    arrives: bool,
    page: WireResponse | None = None,
) -> Callable[[WireRequest, Send], Any]:
    """Return a handler for a relay: the first requests with writes are answered oddly.

    Args:
        odd: Returns the answer.
        times: How many of them.
        arrives: Whether they reach the server all the same.
        page: What arrives in place of that.
    """
    left = times

    async def handle(request: WireRequest, send: Send) -> WireResponse:
        nonlocal left
        assert isinstance(request.body, bytes)
        operations = json.loads(request.body)
        if not left or operations[0]["action"] not in ("create", "update", "delete"):
            return await send(request)
        left -= 1
        if arrives:
            await send(request)
        return page or WireResponse(200, json.dumps(odd(operations)).encode())

    return handle


@pytest.mark.every_loop
@pytest.mark.either_loop
@pytest.mark.parametrize("arrives", [False, True], ids=["not applied", "applied"])
@pytest.mark.parametrize("name", ODD)
async def test_an_odd_answer_neither_loses_nor_repeats_a_commit(
    server: ServerHandle, name: str, *, arrives: bool
) -> None:
    async with connected(server, retry=RetryPolicy(first_delay=0.001)) as session:
        kept = session.create(Job, {"status": "queued", "data": {"is": "old"}})
        await session.commit()
        Relay(session, answering(ODD[name], times=1, arrives=arrives))

        made = session.create(Job, {"status": "queued", "data": {"is": "made"}})
        kept["data"] = {"is": "new"}
        await session.commit()

        assert session.recorded_operations == session.uncertain_operations == ()
    assert {job["id"]: job["data"] for job in server.inspector.jobs()} == {
        made.id: {"is": "made"},
        kept.id: {"is": "new"},
    }


@pytest.mark.every_loop
@pytest.mark.either_loop
@pytest.mark.parametrize("name", [name for name in ODD if name != "deleted"])
async def test_a_delete_with_an_odd_answer_is_done(server: ServerHandle, name: str) -> None:
    async with connected(server, retry=RetryPolicy(first_delay=0.001)) as session:
        job = session.create(Job, {"status": "queued"})
        await session.commit()
        Relay(session, answering(ODD[name], times=1, arrives=False))

        session.delete(job)
        await session.commit()

    assert server.inspector.jobs() == []


CHANGES: dict[str, Callable[[AsyncSession, Job, Job], object]] = {
    "create": lambda session, *_: session.create(Job, {"status": "queued", "data": {"is": "new"}}),
    "update": lambda _, kept, __: kept.update(data={"is": "new"}),
    "delete": lambda session, _, other: session.delete(other),
}
CHANGES["all"] = lambda *given: [CHANGES[each](*given) for each in ("create", "update", "delete")]


@pytest.mark.every_loop
@pytest.mark.either_loop
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("status", [302, 401, 403, 404, 451])
async def test_a_proxy_that_refuses_a_response_hides_no_commit(
    server: ServerHandle, change: str, status: int
) -> None:
    """A filter of a network may refuse what a server responds after it has applied a request."""
    page = WireResponse(status, b"<h1>Blocked</h1>", {"location": "file:///etc/passwd"})
    async with connected(server, retry=RetryPolicy(first_delay=0.001)) as session:
        kept, other = [session.create(Job, {"status": "queued", "data": {}}) for _ in "ab"]
        await session.commit()
        before = _contents(server)
        for arrives in (False, True):
            relay = Relay(session, answering(lambda _: None, times=1, arrives=arrives, page=page))
            CHANGES[change](session, kept, other)
            if arrives:
                await _settled(session)
                assert session.recorded_operations == ()
            else:
                with pytest.raises(ServerError, match=f"HTTP {status}"):
                    await session.commit()
                assert session.recorded_operations
                session.rollback()
            relay.end()
            assert session.uncertain_operations == ()
            assert (_contents(server) != before) == arrives


@pytest.mark.every_loop
async def test_a_proxy_that_refuses_a_response_leaves_no_job_running(server: ServerHandle) -> None:
    page = WireResponse(403, b"<h1>Blocked</h1>")
    async with connected(server, retry=RetryPolicy(first_delay=0.001)) as session:
        relay = Relay(session, answering(lambda _: None, times=1, arrives=True, page=page))
        async with job_context(session, description="Publish") as job:
            pass
        relay.end()
    assert [(each["id"], each["status"]) for each in server.inspector.jobs()] == [(job.id, "done")]


@pytest.mark.every_loop
async def test_it_is_not_known_what_was_applied_if_the_query_is_lost_too(
    server: ServerHandle,
) -> None:
    async def handle(request: WireRequest, send: Send) -> WireResponse:
        assert isinstance(request.body, bytes)
        if json.loads(request.body)[0]["action"] == "query":
            raise TransportError("lost")
        await send(request)
        return WireResponse(403, b"<h1>Blocked</h1>")

    async with connected(server, retry=NO_RETRIES) as session:
        relay = Relay(session, handle)
        session.create(Job, {"status": "queued"})
        with pytest.raises(CommitUncertainError) as caught:
            await session.commit()
        relay.end()
        await caught.value.resolve()
    assert len(server.inspector.jobs()) == 1


async def _settled(session: AsyncSession) -> None:
    """Commit. That an entity is gone is no proof that this has deleted it."""
    try:
        await session.commit()
    except CommitUncertainError as error:
        if not any(isinstance(each, Delete) for each in error.operations):
            raise
        await error.resolve()


def _contents(server: ServerHandle) -> dict[str, object]:
    return {each["id"]: each["data"] for each in server.inspector.jobs()}


@pytest.mark.every_loop
async def test_each_of_many_commits_in_one_request_gets_its_own_result(
    server: ServerHandle,
) -> None:
    """The results come in another order, so that it is not known which commit was applied."""
    async with connected(server, retry=RetryPolicy(first_delay=0.001)) as session:
        jobs = [session.create(Job, {"status": "queued", "data": {"n": 0}}) for _ in range(9)]
        await session.commit()
        handle = answering(
            lambda writes: [_applied(each) for each in writes[::-1]], times=9, arrives=False
        )
        Relay(session, handle)

        async def change(job: Job) -> None:
            job["data"] = {"n": 1}
            await session.commit()

        async with anyio.create_task_group() as group:
            for job in jobs:
                group.start_soon(change, job)

    assert [job["data"] for job in server.inspector.jobs()] == [{"n": 1}] * len(jobs)


async def test_a_server_that_answers_nothing_else_leaves_a_commit_uncertain(
    server: ServerHandle,
) -> None:
    async with connected(server, retry=NO_RETRIES) as session:
        relay = Relay(session, answering(ODD["null"], times=1, arrives=False))
        session.create(Job, {"status": "queued"})
        with pytest.raises(CommitUncertainError) as caught:
            await session.commit()

        assert isinstance(caught.value.__cause__, MalformedResponseError)
        assert "result 1 of 1 is not that of the create of Job(" in str(caught.value.__cause__)
        assert session.health.last_error == str(caught.value.__cause__)
        relay.end()
        await caught.value.resolve()

    assert len(server.inspector.jobs()) == 1


@pytest.mark.parametrize(
    "result",
    [
        {"action": "query", "data": [{"__entity_type__": "User", "id": "u"}]},
        {"action": "query", "data": {"__entity_type__": "Job", "id": "j"}},
        {"action": "update", "data": {"__entity_type__": "Job", "id": "j"}},
        {"action": "delete", "data": True},
        {"action": "query", "data": None},
        None,
        [],
    ],
    ids=json.dumps,
)
async def test_the_answer_to_another_request_is_none_to_a_query(
    session: AsyncSession, result: object
) -> None:
    job = session.create(Job, {"status": "queued"})
    await session.commit()
    odd = [json.dumps([result]).encode()] * 2

    async def handle(request: WireRequest, send: Send) -> WireResponse:
        return WireResponse(200, odd.pop()) if odd else await send(request)

    Relay(session, handle)

    assert await session.query("select id from Job").of(Job).all() == [job]
    assert not odd
