"""Query text: quoting, lists, projections."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import PurePath
from uuid import UUID

import arrow
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioftrackjobs.errors import QueryParameterError
from aioftrackjobs.models import Job, JobComponent, JobStatus, User
from aioftrackjobs.protocol.query import (
    bind,
    has_projections,
    key_criteria,
    quote,
    target_type,
)
from aioftrackjobs.protocol.values import Reference

# What a lexer takes for one string: all up to the first quote without a backslash before it.
LITERAL = re.compile(r'"((?:\\.|[^"\\])*)"', re.DOTALL)


def _unquote(literal: str) -> str:
    match = LITERAL.fullmatch(literal)
    assert match is not None, literal
    return re.sub(r"\\(.)", r"\1", match[1], flags=re.DOTALL)


class Shown(float):
    def __repr__(self) -> str:
        return f"Shown({float(self)})"


@given(st.text())
def test_quoted_text_is_one_literal_with_any_content(text: str) -> None:
    assert _unquote(quote(text)) == text


@given(st.text(), st.text())
def test_untrusted_parameters_stay_inside_their_quotes(first: str, second: str) -> None:
    bound = bind("User where username is {a} and email is {b}", {"a": first, "b": second})

    literals = LITERAL.findall(bound)
    outside = LITERAL.sub("?", bound)
    assert outside == "User where username is ? and email is ?"
    assert [_unquote(f'"{literal}"') for literal in literals] == [first, second]


@pytest.mark.parametrize(
    ("value", "literal"),
    [
        pytest.param('say "hi"', '"say \\"hi\\""', id="quotes"),
        pytest.param("ends in \\", '"ends in \\\\"', id="backslash"),
        pytest.param("{name} }{", '"{name} }{"', id="braces"),
        pytest.param("two\nlines", '"two\nlines"', id="newline"),
        pytest.param(None, "none", id="none"),
        pytest.param(True, "True", id="bool"),
        pytest.param(10, "10", id="int"),
        pytest.param(1.5, "1.5", id="float"),
        pytest.param(Shown(2.5), "2.5", id="float that shows itself otherwise"),
        pytest.param("ü", '"ü"', id="not ascii"),
        pytest.param(JobStatus.DONE, '"done"', id="enum"),
        pytest.param(UUID(int=1), '"00000000-0000-0000-0000-000000000001"', id="uuid"),
        pytest.param(datetime(2026, 1, 1, 10, tzinfo=UTC), '"2026-01-01T10:00:00"', id="time"),
        pytest.param(date(2026, 1, 1), '"2026-01-01"', id="date"),
        pytest.param(
            datetime(2026, 1, 1, 10, microsecond=999_999, tzinfo=UTC),
            '"2026-01-01T10:00:00"',
            id="time in whole seconds, as the server stores it",
        ),
        pytest.param(arrow.get(2026, 1, 1, 10), '"2026-01-01T10:00:00"', id="arrow"),
        pytest.param(Decimal("0.1"), "0.1", id="decimal"),
        pytest.param(Job(id="j1"), '"j1"', id="entity"),
    ],
)
def test_values_have_a_literal_form(value: object, literal: str) -> None:
    assert quote(value) == literal


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(object(), id="any object"),
        pytest.param(b"x", id="bytes"),
        pytest.param({"a": 1}, id="mapping"),
        pytest.param(JobComponent(component_id="c", job_id="j"), id="key of two parts"),
        pytest.param("a\ud800", id="lone surrogate"),
        pytest.param(["a"], id="list"),
        pytest.param(datetime(2026, 1, 1), id="naive time"),
        pytest.param(PurePath("a"), id="path"),
        pytest.param(10**5000, id="thousands of digits"),
        pytest.param(float("nan"), id="not a number"),
        pytest.param(float("-inf"), id="infinity"),
        pytest.param(datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=5))), id="no time in UTC"),
    ],
)
def test_what_has_no_literal_form_is_refused(value: object) -> None:
    with pytest.raises(QueryParameterError):
        quote(value)


@pytest.mark.parametrize("text", ["id in {ids}", "id in ({ids})", "id IN{ids}", "id in( {ids} )"])
@pytest.mark.parametrize(
    "ids",
    [
        pytest.param(["a", "b"], id="list"),
        pytest.param(("a", "b"), id="tuple"),
        pytest.param({"a": 1, "b": 2}.keys(), id="keys"),
        pytest.param((each for each in "ab"), id="generator"),
        pytest.param([User(id="a"), User(id="b")], id="entities"),
    ],
)
def test_a_list_stands_after_in_with_parentheses_or_without(text: str, ids: object) -> None:
    bound = bind(f"Job where {text} and not id not_in {{ids}}", {"ids": ids})

    word = "IN" if "IN" in text else "in"
    if not isinstance(ids, Iterator):  # used up by the first of the tests
        assert bound == f'Job where id {word} ("a", "b") and not id not_in ("a", "b")'


def test_an_iterator_is_read_once() -> None:
    bound = bind("id in {ids} or parent_id in ({ids})", {"ids": iter("ab")})

    assert bound == 'id in ("a", "b") or parent_id in ("a", "b")'


@pytest.mark.parametrize(
    ("text", "values", "bound"),
    [
        pytest.param("id in {a}", {"a": "x"}, 'id in ("x")', id="one value"),
        pytest.param("id in ({a})", {"a": {"x"}}, 'id in ("x")', id="set"),
        pytest.param("id in ({a}, {b})", {"a": "x", "b": "y"}, 'id in ("x", "y")', id="values"),
        pytest.param(
            'id in ("w", {a}, {b})', {"a": ["x"], "b": "y"}, 'id in ("w", "x", "y")', id="mixture"
        ),
        pytest.param("id in ({a})", {"a": [None, 1]}, "id in (none, 1)", id="null"),
        pytest.param(
            "user.id in {a}", {"a": []}, "(user.id is none and not user.id is none)", id="empty"
        ),
        pytest.param(
            "not id not_in ({a})", {"a": set()}, "not (id is none or not id is none)", id="not in"
        ),
    ],
)
def test_lists_of_any_length(text: str, values: dict[str, object], bound: str) -> None:
    assert bind(text, values) == bound


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param("id is {a}", ["x"], id="not after in"),
        pytest.param("id in {a}", [["x"]], id="list in a list"),
        pytest.param('id in ("x", {a})', [], id="empty one beside others"),
        pytest.param("id in {a}", {"x": 1}, id="mapping"),
        pytest.param("id in {a}", b"xy", id="bytes"),
        pytest.param("id in {a}", ["\udcff"], id="lone surrogate in a list"),
    ],
)
def test_lists_that_cannot_stand_there_are_refused(text: str, value: object) -> None:
    with pytest.raises(QueryParameterError):
        bind(text, {"a": value})


def test_without_parameters_the_text_is_taken_as_it_is() -> None:
    text = 'Job where data like "%{name}%"'

    assert bind(text, {}) == text


def test_text_that_is_no_unicode_is_refused() -> None:
    with pytest.raises(QueryParameterError, match=r"text of a query .* at position 14"):
        bind('Job where id "\ud800"', {})


def test_braces_in_literals_are_no_placeholders() -> None:
    bound = bind('Job where data like "%{x}%" and id is {id}', {"id": "j"})

    assert bound == 'Job where data like "%{x}%" and id is "j"'


@pytest.mark.parametrize(
    ("template", "parameters", "part"),
    [
        pytest.param("User where id is {id}", {"name": "x"}, "{id}", id="no parameter"),
        pytest.param("User", {"name": "x"}, "name", id="no placeholder"),
        pytest.param('User where id is "{id}"', {"id": "x"}, "inside quotes", id="in quotes"),
    ],
)
def test_misfits_of_placeholders_and_parameters_are_refused(
    template: str, parameters: dict[str, object], part: str
) -> None:
    with pytest.raises(QueryParameterError, match=re.escape(part)):
        bind(template, parameters)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("select id from Job", True),
        ("  select\nid from Job", True),
        ("Job", False),
        ("selection", False),
    ],
)
def test_projections_are_recognised(text: str, expected: bool) -> None:
    assert has_projections(text) is expected


@pytest.mark.parametrize(
    ("text", "name"), [("Job where x", "Job"), ("\n Task", "Task"), ("", None)]
)
def test_the_target_is_the_first_word(text: str, name: str | None) -> None:
    assert target_type(text) == name


def test_simple_keys_are_queried_with_in() -> None:
    references = [Reference("Job", (("id", name),)) for name in ("a", "b")]

    assert key_criteria(references) == 'id in ("a", "b")'


def test_composite_keys_are_queried_part_by_part() -> None:
    references = [
        Reference("JobComponent", (("component_id", "c1"), ("job_id", "j"))),
        Reference("JobComponent", (("component_id", "c2"), ("job_id", "j"))),
    ]

    assert key_criteria(references) == (
        '(component_id is "c1" and job_id is "j") or (component_id is "c2" and job_id is "j")'
    )
