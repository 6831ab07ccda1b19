"""Recorded operations become the fewest that have the same effect."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioftrackjobs.protocol.batching import fold
from aioftrackjobs.protocol.operations import (
    NOT_SET,
    Create,
    Delete,
    Operation,
    Update,
    encode_operation,
)
from aioftrackjobs.protocol.values import Reference

A, B, C = (Reference("User", (("id", name),)) for name in "abc")
J = Reference("Job", (("id", "j"),))
K = Reference("Job", (("id", "k"),))


@pytest.mark.parametrize(
    ("recorded", "sent"),
    [
        pytest.param(
            [Create(A, {"id": "a"}), Update(A, {"x": 1}), Update(A, {"x": 2})],
            [Create(A, {"id": "a", "x": 2})],
            id="updates of a create travel in it",
        ),
        pytest.param(
            [
                Create(A, {"username": "bob"}),
                Update(A, {"username": "foo"}),
                Update(A, {"email": "b"}),
                Create(B, {}),
                Update(B, {"email": "m"}),
                Update(A, {"email": "c"}),
                Update(A, {"first_name": "B"}),
                Create(C, {"email": "i"}),
                Delete(C),
            ],
            [
                Create(A, {"username": "foo"}),
                Create(B, {"email": "m"}),
                Update(A, {"email": "c", "first_name": "B"}),
            ],
            id="the official client's own example",
        ),
        pytest.param(
            [
                Update(J, {"status": "running"}),
                Update(K, {"status": "running"}),
                Update(J, {"data": "x"}),
                Update(J, {"status": "done"}),
            ],
            [Update(K, {"status": "running"}), Update(J, {"data": "x", "status": "done"})],
            id="only the last value of an attribute travels",
        ),
        pytest.param(
            [
                Update(J, {"status": "running"}),
                Update(J, {"data": "1"}),
                Update(J, {"status": "done"}),
                Delete(J),
            ],
            [Update(J, {"data": "1", "status": "done"}), Delete(J)],
            id="updates before a delete stay",
        ),
        pytest.param([Create(A, {}), Delete(A)], [], id="created and deleted is nothing"),
        pytest.param([Update(A, {"x": NOT_SET})], [], id="taken back is nothing"),
        pytest.param([Update(A, {"x": 1}), Update(A, {"x": NOT_SET})], [], id="set and taken back"),
        pytest.param(
            [Create(A, {"x": 1}), Update(A, {"x": NOT_SET})],
            [Create(A, {"x": 1})],
            id="taking back leaves what it was created with",
        ),
        pytest.param([Update(J, {"data": None})], [Update(J, {"data": None})], id="null travels"),
        pytest.param(
            [Delete(A), Create(A, {"x": 1})],
            [Delete(A), Create(A, {"x": 1})],
            id="deleted and created again is both",
        ),
        pytest.param(
            [Create(A, {"x": 1}), Delete(A), Create(A, {"x": 2})],
            [Create(A, {"x": 2})],
            id="only the last life travels",
        ),
        pytest.param(
            [Update(A, {"x": 1}), Delete(A), Create(A, {}), Update(A, {"x": 2})],
            [Update(A, {"x": 1}), Delete(A), Create(A, {"x": 2})],
            id="an update of another life is not merged across a delete",
        ),
    ],
)
def test_fold(recorded: list[Operation], sent: list[Operation]) -> None:
    assert list(fold(recorded)) == sent


operations = st.lists(
    st.one_of(
        st.builds(
            Create,
            st.sampled_from([A, B, C]),
            st.dictionaries(st.sampled_from("xy"), st.integers(0, 3)),
        ),
        st.builds(
            Update,
            st.sampled_from([A, B, C]),
            st.dictionaries(
                st.sampled_from("xyz"), st.integers(0, 3) | st.just(NOT_SET), max_size=2
            ),
        ),
        st.builds(Delete, st.sampled_from([A, B, C])),
    ),
    max_size=12,
)


def _lawful(recorded: list[Operation], alive: set[Reference]) -> list[Operation]:
    """Leave out what no session records: creating what exists, changing what does not."""
    kept: list[Operation] = []
    living = set(alive)
    for operation in recorded:
        exists = operation.target in living
        if isinstance(operation, Create) == exists:
            continue
        if isinstance(operation, Create):
            living.add(operation.target)
        if isinstance(operation, Delete):
            living.discard(operation.target)
        kept.append(operation)
    return kept


def _apply(sequence: list[Operation], alive: set[Reference]) -> dict[Reference, dict[str, Any]]:
    """A naive server: raises KeyError where a real one would refuse."""
    state: dict[Reference, dict[str, Any]] = {target: {} for target in alive}
    for operation in sequence:
        match operation:
            case Create(target, values):
                assert target not in state
                state[target] = dict(values)
            case Update(target, values):
                state[target].update(values)
            case Delete(target):
                del state[target]
    return state


def _without_taken_back(sequence: list[Operation]) -> list[Operation]:
    """The meaning of taking back: earlier updates of the attribute, in this life, are undone."""
    kept: list[Operation] = []
    for place, operation in enumerate(sequence):
        if not isinstance(operation, Update):
            kept.append(operation)
            continue
        values = {}
        for name, value in operation.values.items():
            undone = value is NOT_SET
            for later in sequence[place + 1 :]:
                if later.target != operation.target:
                    continue
                if not isinstance(later, Update):
                    break
                if later.values.get(name) is NOT_SET:
                    undone = True
            if not undone:
                values[name] = value
        kept.append(Update(operation.target, values))
    return kept


@given(operations, st.sets(st.sampled_from([A, B, C])))
def test_folding_keeps_the_effect(recorded: list[Operation], alive: set[Reference]) -> None:
    lawful = _lawful(recorded, alive)

    folded = list(fold(lawful))

    assert _apply(folded, alive) == _apply(_without_taken_back(lawful), alive)
    assert len(folded) <= len(lawful)


@given(operations)
def test_folding_twice_changes_nothing_more(recorded: list[Operation]) -> None:
    lawful = _lawful(recorded, {A})

    once = fold(lawful)

    assert fold(once) == once


@pytest.mark.parametrize(
    ("operation", "wire"),
    [
        pytest.param(
            Create(J, {"status": "running", "type": NOT_SET}),
            {
                "action": "create",
                "entity_type": "Job",
                "entity_key": ["j"],
                "entity_data": {"__entity_type__": "Job", "id": "j", "status": "running"},
            },
            id="create",
        ),
        pytest.param(
            Update(J, {"status": "done"}),
            {
                "action": "update",
                "entity_type": "Job",
                "entity_key": ["j"],
                "entity_data": {"__entity_type__": "Job", "status": "done"},
            },
            id="update",
        ),
        pytest.param(
            Delete(J), {"action": "delete", "entity_type": "Job", "entity_key": ["j"]}, id="delete"
        ),
    ],
)
def test_operations_have_the_official_wire_form(
    operation: Operation, wire: dict[str, object]
) -> None:
    (folded,) = fold([operation])

    assert encode_operation(folded) == wire


def test_many_entities_are_cancelled_in_proportional_time() -> None:
    """Comparing each with all between its birth and its end would take minutes."""
    targets = [Reference("Job", (("id", str(number)),)) for number in range(20_000)]
    recorded: list[Operation] = [Create(target, {}) for target in targets]
    recorded += [Update(target, {"x": 1}) for target in targets]
    recorded += [Delete(target) for target in targets]

    assert fold(recorded) == ()
