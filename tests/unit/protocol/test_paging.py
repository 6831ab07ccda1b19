"""The clauses of queries: the parser of the embedded server reads the same."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aioftrackjobs.devserver.query import ast
from aioftrackjobs.devserver.query.parser import parse
from aioftrackjobs.protocol.paging import Clauses, find_clauses, split_paging
from tests.devserver.example_queries import EXAMPLES
from tests.devserver.query_printer import print_query
from tests.devserver.test_properties import EXPRESSIONS, NAMES, PATHS

ORDERINGS = st.lists(st.builds(ast.Ordering, PATHS, st.booleans()), max_size=2).map(tuple)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("Job", ("Job", 0, None), id="none"),
        pytest.param("Job offset 5 limit 10", ("Job", 5, 10), id="both"),
        pytest.param("Job limit 10 offset 5", ("Job", 5, 10), id="both, swapped"),
        pytest.param("Job limit 10  \n", ("Job", 0, 10), id="limit"),
        pytest.param("Job\noffset 3", ("Job", 3, None), id="offset"),
        pytest.param(
            f"Job limit {'9' * 5000}", (f"Job limit {'9' * 5000}", 0, None), id="no number"
        ),
        pytest.param(
            'Job where data is "limit 5"',
            ('Job where data is "limit 5"', 0, None),
            id="in a literal",
        ),
        pytest.param(
            'Job where data is "offset 1 limit 5" limit 2',
            ('Job where data is "offset 1 limit 5"', 0, 2),
            id="in a literal and after it",
        ),
        pytest.param(
            "Job where id in (select id from Job limit 5)",
            ("Job where id in (select id from Job limit 5)", 0, None),
            id="in a subquery",
        ),
    ],
)
def test_paging_clauses_are_taken_off_the_end_only(
    text: str, expected: tuple[str, int, int | None]
) -> None:
    assert tuple(split_paging(text)) == expected


def both(one: ast.Expression | None, other: ast.Expression) -> ast.Expression:
    """Return the conjunction as the parser builds it: none inside another."""
    parts = () if one is None else one.operands if isinstance(one, ast.And) else (one,)
    return ast.And((*parts, other)) if parts else other


def comparison(name: str, operator: str, value: str) -> ast.Comparison:
    return ast.Comparison((ast.Step(name),), operator, ast.Literal(value, quoted=True))


def pages_follow(query: ast.Query, text: str) -> bool:
    """Return whether the queries for further pages of *text* differ from *query* as they should."""
    paged = split_paging(text)
    clauses = find_clauses(paged.text)

    assert clauses is not None, text
    assert clauses.entity_type == query.entity_type
    assert (paged.offset or None, paged.limit) == (query.offset or None, query.limit)
    after = parse(clauses.after([("id", 'a"b')], ["id"]))
    assert after == ast.Query(
        query.entity_type,
        query.projections,
        both(query.criteria, comparison("id", ">", 'a\\"b')),
        order_by=(ast.Ordering((ast.Step("id"),), False),),
    )
    keys = parse(clauses.keys(["id", "key"]))
    assert keys.projections == ((ast.Step("id"),), (ast.Step("key"),))
    assert (keys.criteria, keys.order_by) == (query.criteria, query.order_by)
    among = parse(clauses.among('id in ("a")'))
    listed = ast.Membership((ast.Step("id"),), (ast.Literal("a", quoted=True),), negated=False)
    return among.criteria == both(query.criteria, listed)


@given(
    query=st.builds(
        ast.Query,
        NAMES,
        st.lists(PATHS, min_size=1, max_size=3).map(tuple),
        st.none() | EXPRESSIONS,
        st.just(()),
        ORDERINGS,
        st.none() | st.integers(0, 9),
        st.none() | st.integers(0, 9),
    )
)
def test_further_pages_of_any_query_are_of_the_same_query(query: ast.Query) -> None:
    assert pages_follow(query, print_query(query))


@pytest.mark.parametrize(
    "text",
    [
        re.sub("<[a-z]+>", "x", text)  # a place for an id
        for texts in EXAMPLES.values()
        for text in texts
        if text.startswith("select ")
    ],
)
def test_further_pages_of_the_examples_are_of_the_same_query(text: str) -> None:
    query = parse(text)
    if query.group_by:
        assert find_clauses(split_paging(text).text) is None
    else:
        assert pages_follow(query, text)


@given(text=st.text(alphabet="selctfromwhigupbyd \"'()\\x", max_size=60))
@example("")
@example("select")
@example("select id from")
@example("select id from Job where")
@example('select id from Job where x is "')
@example("select id from Job where x is 1) order by (y")
def test_no_text_makes_an_error(text: str) -> None:
    assert isinstance(find_clauses(text), Clauses | None)


@pytest.mark.parametrize(
    ("order", "key", "expected"),
    [
        ("id", ["id"], True),
        (" id  ASC ", ["id"], True),
        ("id ascending", ["id"], True),
        ("id desc", ["id"], False),
        ("id, name", ["id"], False),
        ("job_id", ["id"], False),
        ("component_id, job_id asc", ["component_id", "job_id"], True),
        ("job_id, component_id", ["component_id", "job_id"], False),
        ("", ["id"], False),
    ],
)
def test_an_order_by_the_key_is_recognised(order: str, key: list[str], expected: bool) -> None:
    assert Clauses("id", "Job", "", order).is_ordered_by(key) is expected


def test_keys_of_several_parts_are_compared_part_by_part() -> None:
    text = Clauses("value", "Metadata", 'a is "b" or c is d', "").after(
        [("parent_id", "p"), ("key", 'k"')], ["parent_id", "key"]
    )

    assert text == (
        'select value from Metadata where (a is "b" or c is d) and '
        '(parent_id > "p" or (parent_id is "p" and (key > "k\\""))) order by parent_id, key'
    )
