"""Criteria that are built from attributes and Python's operators."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Any, ClassVar

import pytest

from aioftrackjobs import Attribute, Condition, Entity, Job, JobStatus, QueryParameterError
from aioftrackjobs.protocol.paging import find_clauses

name: Any = Attribute("name")
sort: Any = Attribute("status.sort")


@pytest.mark.parametrize(
    ("condition", "text"),
    [
        (name == "comp", 'name is "comp"'),
        (name == 'a "quote" \\', r'name is "a \"quote\" \\"'),
        (name != None, "name is_not none"),  # noqa: E711 - that is how it is written here
        (sort > 1, "status.sort > 1"),
        (sort >= 1.5, "status.sort >= 1.5"),
        (sort < 2, "status.sort < 2"),
        (sort <= 2, "status.sort <= 2"),
        (name == JobStatus.DONE, 'name is "done"'),
        (name.in_({"a"}), 'name in ("a")'),
        (name.in_(letter for letter in "ab"), 'name in ("a", "b")'),
        (name.in_([]), "(name is none and not name is none)"),
        (name.not_in([]), "(name is none or not name is none)"),
        (name.not_in(["a"]), 'name not_in ("a")'),
        (name.like("sh%"), 'name like "sh%"'),
        (name.not_like("sh%"), 'name not_like "sh%"'),
        (name.has(), "name has ()"),
        (Attribute("links").any(name == "a"), 'links any (name is "a")'),
        (Attribute("parent[Shot]").name == "a", 'parent[Shot].name is "a"'),
        (Attribute("x")["any"] == "a", 'x.any is "a"'),
        (
            Attribute("end") < datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
            'end < "2026-01-02T03:04:05"',
        ),
        ((name == "a") & (sort > 1), 'name is "a" and status.sort > 1'),
        (
            (name == "a") & ((sort > 1) | (sort < 0)),
            'name is "a" and (status.sort > 1 or status.sort < 0)',
        ),
        (~(name == "a"), 'not name is "a"'),
        (~((name == "a") | (sort > 1)), 'not (name is "a" or status.sort > 1)'),
        (~(name == "a") & (sort > 1), 'not name is "a" and status.sort > 1'),
    ],
)
def test_text(condition: Condition, text: str) -> None:
    assert condition.text == str(condition) == text


def test_attributes_of_classes() -> None:
    class Sequenced(Job):
        entity_type: ClassVar[str] = "Job"
        status: str  # declared anew, without a default
        text: str | None = None

    status: Any = Sequenced.status
    assert (status == "done").text == 'status is "done"'
    assert str(Job.user) == "user"
    assert Sequenced.model_fields["status"].is_required()
    assert Sequenced.model_fields["text"].default is None
    assert Sequenced(status="done").status == "done"
    for missing in ("statsu", "_secret", "__wrapped__"):
        assert not hasattr(Job, missing)
    assert not hasattr(Entity, "status")


@pytest.mark.parametrize(
    "path", ["", "a b", 'a"', "a.", ".a", "a is b or c", "1", None, 7, "a[b", b"a"]
)
def test_what_is_no_attribute_is_refused(path: object) -> None:
    with pytest.raises(QueryParameterError, match="no attribute"):
        Attribute(path)


def test_mistakes_say_what_to_write() -> None:
    with pytest.raises(TypeError, match="join conditions by &"):
        _ = (sort > 1) and (sort < 5)
    with pytest.raises(TypeError, match="join conditions by &"):
        _ = 1 < sort < 5
    with pytest.raises(TypeError, match="any"):
        list(name)
    with pytest.raises(TypeError):
        hash(name)
    with pytest.raises(QueryParameterError, match="with a value only"):
        _ = name == sort
    with pytest.raises(QueryParameterError, match="takes a list"):
        name.in_("abc")
    with pytest.raises(QueryParameterError, match="takes a condition"):
        name.has("x")
    with pytest.raises(QueryParameterError, match="True is no condition"):
        _ = (name == "a") & True
    with pytest.raises(QueryParameterError, match="list can only stand"):
        _ = name == ["a"]
    assert repr(copy.copy(name)) == "Attribute('name')"


@pytest.mark.parametrize(
    ("text", "clauses"),
    [
        ("Job", ("", "Job", "", "")),
        ("Job where status is queued", ("", "Job", "status is queued", "")),
        ("Job order by id desc", ("", "Job", "", "id desc")),
        ('Job where a is "b"order by id', ("", "Job", 'a is "b"', "id")),
        ("select id, user from Job where x", ("id, user", "Job", "x", "")),
        ("Job where x group by y", None),
        ("select id", None),
        ("", None),
        ("Job whereabouts", None),
    ],
)
def test_clauses_of_a_query(text: str, clauses: tuple[str, ...] | None) -> None:
    assert find_clauses(text) == clauses
