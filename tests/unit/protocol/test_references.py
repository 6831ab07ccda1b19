"""Which entities an operation creates, refers to and links, and what a response adds."""

from __future__ import annotations

from typing import Any

import pytest

from aioftrackjobs.protocol.operations import Create, Delete, Operation, Update
from aioftrackjobs.protocol.references import (
    created_ids,
    linked_ids,
    referenced_ids,
    server_set_rows,
)
from aioftrackjobs.protocol.values import Reference

JOB = Reference("Job", (("id", "j1"),))
#: An entity that links two others has their ids as its key.
LINK = Reference("TypedContextLink", (("from_id", "t1"), ("to_id", "t2")))
VALUES: dict[str, Any] = {
    "user_id": "u1",
    "data": "text",
    "count": 3,
    "parent": {"__entity_type__": "Task", "id": "t3"},
    "links": [{"id": "t4"}, ["t5"]],
}


@pytest.mark.parametrize(
    ("operation", "created", "referenced", "linked"),
    [
        pytest.param(
            Create(JOB, VALUES),
            {"j1"},
            {"u1", "text", "Task", "t3", "t4", "t5"},
            {"u1", "Task", "t3", "t4", "t5"},
            id="create",
        ),
        pytest.param(
            Update(JOB, VALUES),
            set(),
            {"j1", "u1", "text", "Task", "t3", "t4", "t5"},
            {"u1", "Task", "t3", "t4", "t5"},
            id="update",
        ),
        pytest.param(Delete(JOB), set(), {"j1"}, set(), id="delete"),
        pytest.param(Create(LINK, {}), set(), {"t1", "t2"}, {"t1", "t2"}, id="create of a link"),
        pytest.param(Delete(LINK), set(), {"t1", "t2"}, {"t1", "t2"}, id="delete of a link"),
    ],
)
def test_ids_of_an_operation(
    operation: Operation, created: set[str], referenced: set[str], linked: set[str]
) -> None:
    assert set(created_ids(operation)) == created
    assert set(referenced_ids(operation)) == referenced
    assert set(linked_ids((operation,))) == linked


def test_ids_of_several_operations_are_linked_together() -> None:
    operations: list[Operation] = [Delete(JOB), Update(JOB, {"user_id": "u1"}), Delete(LINK)]

    assert linked_ids(operations) == ["u1", "t1", "t2"]


def row(**values: Any) -> dict[str, Any]:
    return {"data": {"__entity_type__": "Job", "id": "j1", **values}}


def test_rows_that_repeat_what_was_sent_are_left_out() -> None:
    sent: list[Operation] = [Update(JOB, {"status": "done"}), Update(JOB, {"status": "done"})]

    assert server_set_rows(sent, [row(status="done"), row()]) == []


def test_rows_with_what_the_server_has_set_are_returned_and_all_later_ones_of_their_entity() -> (
    None
):
    """The first of them may be older than the last."""
    other = Reference("Job", (("id", "j2"),))
    sent: list[Operation] = [
        Update(other, {"status": "done"}),
        Update(JOB, {"status": "done"}),
        Update(JOB, {"data": "x"}),
        Update(other, {"data": "x"}),
    ]
    of_other = {"data": {"__entity_type__": "Job", "id": "j2"}}
    changed, repeated = row(status="done", finished_at="noon"), row(data="x")

    found = server_set_rows(sent, [of_other, changed, repeated, of_other])

    assert found == [changed["data"], repeated["data"]]


def test_a_value_that_the_server_has_changed_is_returned() -> None:
    found = server_set_rows([Update(JOB, {"status": "done"})], [row(status="failed")])

    assert found == [row(status="failed")["data"]]


def test_deletes_and_operations_without_a_result_have_no_rows() -> None:
    sent: list[Operation] = [Delete(JOB), Update(JOB, {"status": "done"})]

    assert server_set_rows(sent, [{"data": True}, None]) == []
