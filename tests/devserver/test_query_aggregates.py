"""Queries that group (docs/protocol.md, section 4.8)."""

from __future__ import annotations

from typing import Any

import pytest

from .caller import Caller, create, query

STRICT = {"ftrack-api-options": "strict:1"}


@pytest.fixture
async def components(api: Caller) -> Caller:
    day = {"__type__": "datetime", "value": "2026-01-02T03:04:05"}
    await api.call(
        create("FileComponent", name="a", file_type=".txt", size=1),
        create("FileComponent", name="a", file_type=".exr", size=3),
        create("FileComponent", name="b", file_type=".txt", size=10),
        create("Job", created_at=day),
    )
    return api


async def grouped(api: Caller, expression: str) -> list[dict[str, Any]]:
    response = await api.post(query(expression), **STRICT)
    (result,) = response.json()
    data: list[dict[str, Any]] = result["data"]
    return data


@pytest.mark.parametrize(
    ("expression", "rows"),
    [
        (
            "select count(id), sum(size), avg(size), min(size), max(size) from Component "
            "group by name",
            [
                {
                    "count_id": 2,
                    "sum_size": 4,
                    "avg_size": 2.0,
                    "min_size": 1,
                    "max_size": 3,
                    "name": "a",
                },
                {
                    "count_id": 1,
                    "sum_size": 10,
                    "avg_size": 10.0,
                    "min_size": 10,
                    "max_size": 10,
                    "name": "b",
                },
            ],
        ),
        (
            "select count(id) from Component where size > 1 group by name, file_type",
            [
                {"count_id": 1, "name": "a", "file_type": ".exr"},
                {"count_id": 1, "name": "b", "file_type": ".txt"},
            ],
        ),
        (
            "select name, sum(size) from Component group by name order by sum_size desc limit 1",
            [{"sum_size": 10, "name": "b"}],
        ),
        (
            "select sum(size) from Component group by name order by count(id) desc",
            [{"sum_size": 4, "name": "a"}, {"sum_size": 10, "name": "b"}],
        ),
        (
            "select count(id) from Component group by name order by name desc offset 1 limit 5",
            [{"count_id": 2, "name": "a"}],
        ),
        (
            "select max(created_at) from Job group by status",
            [
                {
                    "max_created_at": {"__type__": "datetime", "value": "2026-01-02T03:04:05"},
                    "status": "queued",
                }
            ],
        ),
        (
            "select count(id) from User where username is maya group by is_active",
            [{"count_id": 1, "is_active": True}],
        ),
        ("select count(id) from Job where id is nothing group by status", []),
    ],
)
async def test_groups_are_plain_rows(
    components: Caller, expression: str, rows: list[dict[str, Any]]
) -> None:
    assert await grouped(components, expression) == rows


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("select size, count(id) from Component group by name", "if it is grouped by"),
        ("select count(id) from Component group by name order by size", "can be sorted by its"),
        ("select sum(name) from Component group by name", "takes numbers"),
        ("select median(size) from Component group by name", "is not one of count, sum"),
        ("select count(nme) from Component group by name", "did you mean 'name'"),
        ("select count(id) from Component", "together with 'group by'"),
        ("select id from Component order by count(id)", "by 'group by'"),
        ("select count(id) from Component group by component_locations.id", "one single value"),
    ],
)
async def test_what_cannot_be_grouped_is_refused(
    api: Caller, expression: str, problem: str
) -> None:
    response = await api.post(query(expression), **STRICT)

    assert response.json()["exception"] == "ValidationError"
    assert problem in response.json()["content"]


async def test_grouping_needs_strict_mode(api: Caller) -> None:
    error = await api.refused(query("select count(id) from Component group by name"))

    assert error["exception"] == "ValidationError"
    assert "'ftrack-api-options: strict:1'" in error["content"]
