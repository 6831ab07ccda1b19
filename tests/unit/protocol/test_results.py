"""Results that belong to another operation, and those that a real server may answer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from aioftrackjobs.protocol.operations import Create, Delete, Operation, Update
from aioftrackjobs.protocol.results import AnyOperation, first_problem
from aioftrackjobs.protocol.values import Reference

JOB = Reference("Job", (("id", "j"),))
LINK = Reference("JobComponent", (("component_id", "c"), ("job_id", "j")))
CONTEXT = Reference("TypedContext", (("id", "s"),))

ROW = {"__entity_type__": "Job", "id": "j", "status": "done"}
LINK_ROW = {"__entity_type__": "JobComponent", "component_id": "c", "job_id": "j"}


def result(action: str, data: object) -> dict[str, object]:
    return {"action": action, "data": data}


@pytest.mark.parametrize(
    ("operation", "given"),
    [
        pytest.param(Update(JOB), result("update", ROW), id="update"),
        pytest.param(Create(JOB), result("create", ROW), id="create"),
        pytest.param(Delete(JOB), result("delete", True), id="delete"),
        pytest.param(Create(LINK), result("create", LINK_ROW), id="a key of several parts"),
        pytest.param(
            Update(CONTEXT),
            result("update", {"__entity_type__": "Shot", "id": "s"}),
            id="a row of a subtype",
        ),
        pytest.param(
            Create(Reference("Job", (("id", "ABC"),))),
            result("create", {"__entity_type__": "Job", "id": "abc"}),
            id="a key in lower case",
        ),
        pytest.param(
            Update(JOB), result("update", {"__entity_type__": "Job", "id": "j"}), id="a reference"
        ),
    ],
)
def test_what_a_real_server_answers_is_accepted(operation: Operation, given: object) -> None:
    assert first_problem([operation], [given]) is None


@pytest.mark.parametrize("kind", [Create, Update, Delete])
@pytest.mark.parametrize(
    "given",
    [
        None,
        [],
        {},
        True,
        "done",
        [ROW],
        ROW,
        {"data": ROW},
        {"data": True},
        result("query", [ROW]),
        result("create", None),
        result("create", {}),
        result("create", True),
        result("create", [ROW]),
        result("update", {}),
        result("update", {**ROW, "id": "another"}),
        result("update", {**ROW, "id": None}),
        result("update", {**ROW, "id": ["j"]}),
        result("update", {**ROW, "__entity_type__": "User"}),
        result("delete", False),
        result("delete", None),
        result("delete", []),
        result("delete", ROW),
    ],
    ids=json.dumps,
)
def test_what_belongs_to_no_such_write_is_refused(kind: Any, given: object) -> None:
    problem = first_problem([Delete(LINK), kind(JOB)], [result("delete", True), given])

    assert problem is not None
    assert problem.startswith(f"result 2 of 2 is not that of the {kind.__name__.lower()} of Job(j)")


def test_results_in_another_order_or_doubled_are_refused() -> None:
    other = Reference("Job", (("id", "k"),))
    first, second = result("update", ROW), result("update", {**ROW, "id": "k"})
    updates = [Update(JOB), Update(other)]

    assert first_problem(updates, [first, second]) is None
    assert first_problem(updates, [second, first]) is not None
    assert first_problem(updates, [first, first]) is not None


QUERY: dict[str, Any] = {"action": "query", "expression": "select id from Job where id is j"}
BY_ID = {**QUERY, "expression": 'select id from Job where id in ("j", "k") offset 0 limit 500'}
SUBQUERY = {**QUERY, "expression": 'Job where id in (select id from Job where id in ("k"))'}
CREATE: dict[str, Any] = {
    "action": "create",
    "entity_type": "Job",
    "entity_key": ["j"],
    "entity_data": {"id": "j"},
}
URLS: dict[str, Any] = {"action": "get_upload_metadata", "component_id": "c"}


@pytest.mark.parametrize(
    ("operation", "given", "is_accepted"),
    [
        (QUERY, result("query", [ROW]), True),
        (QUERY, {"data": [], "metadata": {}}, True),
        (QUERY, result("query", [{"count_id": 2, "status": "done"}]), True),
        (QUERY, result("update", [ROW]), False),
        (QUERY, result("query", ROW), False),
        (QUERY, result("query", None), False),
        (QUERY, result("query", [{"__entity_type__": "User", "id": "u"}]), False),
        (QUERY, None, False),
        (SUBQUERY, result("query", [ROW]), True),
        (BY_ID, result("query", [ROW]), True),
        (BY_ID, result("query", [{**ROW, "id": "J"}]), True),
        (BY_ID, result("query", []), True),
        (BY_ID, result("query", [{**ROW, "id": "another"}]), False),
        (BY_ID, result("query", [ROW, {**ROW, "id": "another"}]), False),
        (QUERY, [], False),
        (
            {**QUERY, "expression": "Component"},
            result("query", [{"__entity_type__": "FileComponent", "id": "c"}]),
            True,
        ),
        (CREATE, result("create", ROW), True),
        (CREATE, result("create", {**ROW, "id": "another"}), False),
        (CREATE, result("query", [ROW]), False),
        ({**CREATE, "action": "update", "entity_key": "j"}, result("update", ROW), True),
        ({**CREATE, "entity_key": None, "entity_data": {}}, result("create", ROW), True),
        ({**CREATE, "action": "delete"}, result("delete", True), True),
        ({**CREATE, "action": "delete"}, result("delete", ROW), False),
        (URLS, {"url": "https://store.test", "component_id": "c"}, True),
        (URLS, {"url": "https://store.test"}, True),
        (URLS, {"url": "https://store.test", "component_id": "another"}, False),
        (URLS, None, False),
        ({"action": "query_schemas"}, [{"id": "Job"}], True),
        ({"action": "query_schemas"}, [], False),
        ({"action": "query_schemas"}, result("query", []), False),
        ({"action": "query_server_information"}, {"version": "dev"}, True),
        ({"action": "query_server_information"}, result("query", []), False),
        ({"action": "query_server_information"}, None, False),
        ({"action": "_track_usage"}, None, True),
        ({"action": "_track_usage"}, result("delete", True), False),
    ],
)
def test_results_of_calls(operation: AnyOperation, given: object, *, is_accepted: bool) -> None:
    assert (first_problem([operation], [given]) is None) == is_accepted
