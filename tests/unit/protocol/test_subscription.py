"""Expressions of subscriptions: the same results as the official Python client, and why not."""

from __future__ import annotations

from typing import Any

import pytest
from ftrack_api.event.expression import Parser
from hypothesis import given
from hypothesis import strategies as st

from aioftrackjobs.protocol.subscription import (
    SubscriptionSyntaxError,
    conjunction,
    parse,
    value_at,
)

EVENT: dict[str, Any] = {
    "topic": "ftrack.update",
    "data": {"a": 1, "b": "x y", "n": None, "l": ["foo"], "d": {"k": "v"}, "t": "2026-01-01"},
    "source": {"user": {"username": "maya"}},
    "and": "1",
    "not": "2",
}

#: Expressions with the same result in both clients.
SAME = [
    ("topic=ftrack.update", True),
    ("topic = ftrack.update", True),
    ("topic='ftrack.update'", True),
    ("topic=ftrack.*", True),
    ("topic=ftrack", False),
    ("topic=*update*", False),
    ("topic='*'", True),
    ("topic!=ftrack.update", False),
    ("data.a=1", False),
    ("data.a!=1", True),
    ("not data.a=1", True),
    ("missing=a", False),
    ("missing!=a", False),
    ("not missing=a", True),
    ("not missing!=a", True),
    ("data.missing.deeper=a", False),
    ("topic.deeper=a", False),
    ("data.b='x y'", True),
    ('data.b="x y"', True),
    ("data.d.k=v", True),
    ("data.d=v", False),
    ("data.n=None", False),
    ("data.n!=None", True),
    ("data.t>='2026'", True),
    ("data.t<2025-12-31", False),
    ("topic=x or topic=ftrack.update and data.b='x y'", True),
    ("topic=ftrack.update or topic=x and topic=y", True),
    ("(topic=ftrack.update or topic=x) and topic=y", False),
    ("NOT topic=x AND topic=ftrack.update Or topic=z", True),
    ("not not topic=ftrack.update", True),
    ("not (topic=x or topic=ftrack.update)", False),
    ("not(topic=x)", True),
    ("((topic=ftrack.update))", True),
    ("topic=ftrack.update and(data.b='x y')", True),
    ("and=1", True),
    ("not=2", True),
    ("a..b=1", False),
    ("source.user.username=maya and topic=ftrack.*", True),
    ("source.user.username=maya@studio.com", False),
]

#: Expressions with another result in the official client, and the reason, which the module names.
OTHER = [
    ("topic=update*", False, True),  # found anywhere in the value
    ("data.l=foo*", False, True),  # found among the entries
    ("data.a>1", False, TypeError),
    ("data.a=1*", False, TypeError),
    ("topic=''", False, IndexError),
    ("topic=ftrack:update", False, "refused"),  # a character that it lacks
]

#: No expressions, for both.
INVALID = [
    *("", "  ", "topic", "topic=", "=a", "=", "topic=a b", "topic=a and", "and topic=a", "not"),
    *("topic=a or or topic=b", "topic=a)", "(topic=a", "()", "topic=a=b", "topic='a", "topic=a'b'"),
    *("topic==a", "topic=<a", "'topic'=a", "topic=a, topic=b", "topic=a && topic=b"),
]


@pytest.mark.parametrize(("text", "expected"), SAME)
def test_the_result_is_that_of_the_official_client(text: str, expected: bool) -> None:
    assert Parser().parse(text).match(EVENT) is expected
    assert parse(text).matches(EVENT) is expected


@pytest.mark.parametrize(("text", "ours", "theirs"), OTHER)
def test_other_results_are_those_that_the_module_names(text: str, ours: bool, theirs: Any) -> None:
    assert parse(text).matches(EVENT) is ours
    if theirs == "refused":
        with pytest.raises(Exception, match="Failed to parse"):
            Parser().parse(text)
    elif isinstance(theirs, type):
        with pytest.raises(theirs):
            Parser().parse(text).match(EVENT)
    else:
        assert Parser().parse(text).match(EVENT) is theirs


@pytest.mark.parametrize("text", INVALID)
def test_what_is_no_expression_is_refused(text: str) -> None:
    with pytest.raises(Exception):  # noqa: B017, PT011 - of different kinds
        Parser().parse(text)
    with pytest.raises(SubscriptionSyntaxError):
        parse(text)


def test_the_error_says_where() -> None:
    with pytest.raises(SubscriptionSyntaxError, match=r"at '\)'"):
        parse("(topic=a and)")
    with pytest.raises(SubscriptionSyntaxError, match="at its end"):
        parse("topic=")


def test_deep_expressions_are_refused() -> None:
    assert parse("(" * 50 + "topic=a" + ")" * 50).matches({"topic": "a"})
    for text in ("(" * 51 + "topic=a" + ")" * 51, "not " * 5000 + "topic=a"):
        with pytest.raises(SubscriptionSyntaxError, match="nested"):
            parse(text)


def test_the_values_that_all_events_must_have_are_known() -> None:
    assert parse("topic=a and data.b='c d' and not x=1").equal == {"topic": "a", "data.b": "c d"}
    assert parse("topic=a or topic=b").equal == {}
    assert parse("topic=a*").equal == {}
    assert parse("not topic=a").equal == {}


def test_expressions_are_joined() -> None:
    joined = conjunction("topic=a or topic=b", " ", "data.n=1")
    assert [parse(joined).matches({"topic": t, "data": {"n": "1"}}) for t in "abc"] == [
        *(True, True, False)
    ]
    assert conjunction("topic=a") == "topic=a"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


@given(st.text(max_size=40), json_values)
def test_nothing_but_a_syntax_error_is_raised(text: str, candidate: Any) -> None:
    try:
        expression = parse(text)
    except SubscriptionSyntaxError:
        return
    assert expression.matches(candidate) in (True, False)


@pytest.mark.parametrize("sign", ["=", "!=", "<", ">", "<=", ">="])
@given(candidate=json_values)
def test_every_comparison_has_a_result(sign: str, candidate: Any) -> None:
    for value in ("a", "'a*'", "1"):
        found = parse(f"a.b{sign}{value}").matches({"a": {"b": candidate}})
        assert found in (True, False)
    assert value_at({"a": {"b": candidate}}, "a.b") == candidate
