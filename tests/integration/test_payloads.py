"""Commit payloads of both clients, for generated sequences of operations, have equal effects.

Each sequence is recorded in the unmodified official client and in ours; what each would send is
captured and applied to a naive server. What differs on purpose (an entity created again under
the key of a deleted one, which the official client cannot) is left out of the sequences.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aioftrackjobs import AsyncSession, Entity

if TYPE_CHECKING:
    from tests.integration.conftest import Official

from ..amounts import amount
from ..tables import result_of

SEQUENCES = amount(40, 1000)
SAVED = {("Job", "j0"), ("Job", "j1"), ("User", "u0")}
NEW = {("Job", "n0"), ("User", "n1")}
TARGETS = sorted(SAVED | NEW)
VALUES: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "Job": {
        "status": st.sampled_from(["queued", "running", "done", "failed"]),
        "data": st.none() | st.sampled_from(['{"description": "x"}', "ü {braces}"]),
        "user": st.just("u0"),
    },
    "User": {
        "username": st.sampled_from(["ada", "o'brien", 'say "hi"']),
        "email": st.none() | st.just("a@b.test"),
        "is_active": st.booleans(),
    },
}

State = dict[tuple[str, str], dict[str, Any]]
Step = tuple[str, tuple[str, str], str, Any]


@st.composite
def steps(draw: st.DrawFn) -> list[Step]:
    """Return a lawful sequence: nothing is created twice, or changed when it is not there."""
    alive, used = set(SAVED), set(SAVED)
    changed: set[tuple[tuple[str, str], str]] = set()
    sequence: list[Step] = []
    for _ in range(draw(st.integers(1, 14))):
        target = draw(st.sampled_from(TARGETS))
        kind = target[0]
        name = draw(st.sampled_from(sorted(VALUES[kind])))
        value = draw(VALUES[kind][name])
        action = draw(st.sampled_from(["set", "set", "set", "reset", "delete", "create"]))
        if target not in used:
            values = {
                each: draw(VALUES[kind][each])
                for each in draw(st.sets(st.sampled_from(sorted(VALUES[kind]))))
            }
            sequence.append(("create", target, "", values))
            changed |= {(target, each) for each in values}
            alive.add(target)
            used.add(target)
        elif target in alive and action == "delete" and target != ("User", "u0"):
            sequence.append(("delete", target, "", None))
            alive.discard(target)
        elif target in alive and action == "set":
            sequence.append(("set", target, name, value))
            changed.add((target, name))
        elif target in alive and action == "reset" and (target, name) in changed:
            sequence.append(("reset", target, name, None))
            changed.discard((target, name))
    return sequence


def replay(sequence: list[Step], create: Any, delete: Any, known: dict[Any, Any]) -> None:
    """Record *sequence*: the two clients have the same mapping interface."""

    def value_of(name: str, value: Any) -> Any:
        return known["User", "u0"] if name == "user" else value

    for action, target, name, value in sequence:
        if action == "create":
            values = {each: value_of(each, given) for each, given in value.items()}
            known[target] = create(target[0], {"id": target[1], **values})
        elif action == "set":
            known[target][name] = value_of(name, value)
        elif action == "delete":
            delete(known[target])
        else:
            del known[target][name]


def apply(payload: list[dict[str, Any]], defaults: dict[str, dict[str, Any]]) -> State:
    """A naive server: raises KeyError or AssertionError where a real one would refuse."""
    state: State = {target: {} for target in SAVED}
    for operation in payload:
        target = operation["entity_type"], operation["entity_key"][0]
        match operation["action"]:
            case "create":
                assert target not in state
                state[target] = {**defaults[target[0]], **operation["entity_data"]}
            case "update":
                state[target].update(operation["entity_data"])
            case "delete":
                del state[target]
    return state


class Peer:
    """An official session whose calls are captured instead of sent."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self.defaults = {
            schema["id"]: {
                name: fragment["default"]
                for name, fragment in schema["properties"].items()
                if "default" in fragment and name != "id"
            }
            for schema in session.schemas
            if schema["id"] in VALUES
        }

    def payload(self, sequence: list[Step]) -> list[dict[str, Any]]:
        session, sent = self.session, []

        def call(data: list[dict[str, Any]]) -> list[dict[str, Any]]:
            sent.extend(json.loads(session.encode(data)))
            return [{"action": "delete", "data": True} for _ in data]

        session.cache.clear()
        session.recorded_operations.clear()
        known = {
            (kind, key): session._create(kind, {"id": key}, reconstructing=True)
            for kind, key in sorted(SAVED)
        }
        original, session.call = session.call, call
        try:
            with session.auto_populating(False):
                replay(sequence, session.create, session.delete, known)
                session.commit()
        finally:
            session.call = original
        return sent


async def our_payload(sequence: list[Step]) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        operations = json.loads(request.content)
        if operations[0]["action"] == "query":
            kind, is_known, key = operations[0]["expression"].partition("|")
            rows = [{"__entity_type__": kind, "id": key}] if is_known else []  # the key is free
            return httpx.Response(200, json=[{"data": rows, "metadata": {}}] * len(operations))
        sent.extend(operations)
        return httpx.Response(200, json=[result_of(each) for each in operations])

    async with (
        httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client,
        AsyncSession("http://ftrack.test", "key", "user", client=client) as session,
    ):
        known: dict[Any, Entity] = {}
        for kind, key in sorted(SAVED):
            (found,) = await session.call([{"action": "query", "expression": f"{kind}|{key}"}])
            known[kind, key] = found["data"][0]
        replay(sequence, session.create, session.delete, known)
        await session.commit()
    return sent


@pytest.fixture
def compared() -> Iterator[list[int]]:
    counted: list[int] = []
    yield counted
    assert len(counted) >= SEQUENCES * 0.8, "fewer sequences were compared than promised"


@pytest.mark.long
async def test_payloads_have_equal_effects(official: Official, compared: list[int]) -> None:
    def compare_all(session: Any) -> None:
        peer = Peer(session)

        @settings(
            max_examples=SEQUENCES,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        )
        @given(steps())
        def compare(sequence: list[Step]) -> None:
            theirs = peer.payload(sequence)
            ours = asyncio.run(our_payload(sequence))

            assert apply(ours, peer.defaults) == apply(theirs, peer.defaults)
            assert {operation["entity_key"][0] for operation in ours} == {
                operation["entity_key"][0] for operation in theirs
            }
            assert len(ours) <= len(theirs)
            compared.append(len(ours))

        compare()

    with anyio.fail_after(240):
        await official.run(compare_all)


async def test_the_official_clients_defects_are_not_ours(session: AsyncSession) -> None:
    """Creating again after a delete sends both; see also test_recording."""
    job = session.create("Job", {})
    await session.commit()
    session.delete(job)
    session.create("Job", {"id": job["id"]})

    await session.commit()

    assert session.recorded_operations == ()
    assert await session.get("Job", job["id"]) is not None
