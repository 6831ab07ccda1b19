"""The query language, without a database."""

from __future__ import annotations

import pytest

from aioftrackjobs.devserver.api_errors import ParseError
from aioftrackjobs.devserver.query import ast
from aioftrackjobs.devserver.query.literals import like_pattern, text_of
from aioftrackjobs.devserver.query.parser import parse

from .example_queries import whole_queries


def path(*names: str) -> tuple[ast.Step, ...]:
    return tuple(ast.Step(name) for name in names)


def criteria(text: str) -> object:
    return parse(f"Job where {text}").criteria


@pytest.mark.parametrize("text", whole_queries())
def test_queries_of_real_clients_parse(text: str) -> None:
    assert parse(text).entity_type.isidentifier()


def test_and_binds_tighter_than_or() -> None:
    a, b, c = (ast.Comparison(path(name), "is", ast.Literal("1", quoted=False)) for name in "abc")

    assert criteria("a is 1 or b is 1 and c is 1") == ast.Or((a, ast.And((b, c))))


def test_operators_have_other_spellings() -> None:
    for spelling, operator in {"=": "is", "!=": "is_not", "after": ">", "less_than": "<"}.items():
        assert criteria(f"a {spelling} 1") == ast.Comparison(
            path("a"), operator, ast.Literal("1", quoted=False)
        )


def test_a_keyword_may_follow_a_closing_quote_directly() -> None:
    assert criteria('a is "x"and b is "y"') == ast.And(
        (
            ast.Comparison(path("a"), "is", ast.Literal("x", quoted=True)),
            ast.Comparison(path("b"), "is", ast.Literal("y", quoted=True)),
        )
    )


def test_words_of_clauses_are_attribute_names_elsewhere() -> None:
    query = parse('select group, type from Setting where group is "g" order by group, order desc')

    assert query.projections == (path("group"), path("type"))
    assert query.order_by == (
        ast.Ordering(path("group"), False),
        ast.Ordering(path("order"), True),
    )


def test_offset_and_limit_come_in_either_order() -> None:
    assert parse("Job limit 5 offset 2") == parse("Job offset 2 limit 5")


def test_words_inside_a_string_are_no_clauses() -> None:
    query = parse('Job where data is "limit 5 offset 3"')

    assert (query.limit, query.offset) == (None, None)


def test_casts_belong_to_the_step_they_follow() -> None:
    assert criteria("parent[TypedContext].name is x") == ast.Comparison(
        (ast.Step("parent", "TypedContext"), ast.Step("name")),
        "is",
        ast.Literal("x", quoted=False),
    )


def test_membership_takes_lists_and_subqueries() -> None:
    values = (ast.Literal("a", quoted=False), ast.Literal("b", quoted=True))

    assert criteria('id not_in (a, "b")') == ast.Membership(path("id"), values, negated=True)
    assert criteria("id in (select id from Type)") == ast.Membership(
        path("id"), ast.Query("Type", (path("id"),)), negated=False
    )
    assert criteria("id in ()") == ast.Membership(path("id"), (), negated=False)


def test_relation_tests_may_be_empty_and_negated() -> None:
    assert criteria("not user has ()") == ast.Not(ast.RelationTest(path("user"), None))


def test_functions_are_projections_of_grouped_queries() -> None:
    query = parse("select count(id) from Task group by project_id, status.name")

    assert query.projections == (ast.Aggregate("count", path("id")),)
    assert query.group_by == (path("project_id"), path("status", "name"))


@pytest.mark.parametrize(
    ("text", "where", "expected"),
    [
        ("Job where", "line 1, column 10", "a name"),
        ("select id Job", "line 1, column 11", "'from'"),
        ('Job where id is "x', "Unclosed quote at line 1, column 17", 'another "'),
        ("Job where\n  name foo 3", "line 2, column 8", "an operator"),
        ("Job where ((a is b)", "line 1, column 20", "')'"),
        ("Job where id in (a,,b)", "line 1, column 20", "a value"),
        ("Job limit x", "line 1, column 11", "whole number"),
        ("Job limit 1 limit 2", "A second 'limit' at line 1, column 19", "one only"),
        ("Job where status in (a, b", "end of the query at line 1, column 26", "')', ','"),
        ("Job where id is 1;", "line 1, column 18", "'order', the end"),
        ("select user.name, from Job", "line 1, column 24", "'from'"),
        ("Job where parent[] has ()", "line 1, column 18", "a name"),
        ("Job where id in (select id)", "line 1, column 27", "'from'"),
        ("Job wher id is 1", "line 1, column 5", "did you mean 'where'?"),
        ("selec id from Job", "line 1, column 7", "did you mean 'select'?"),
        ("select * from Job", "line 1, column 8", "a name; name the attributes"),
        ("Job where id is not 1", "line 1, column 21", "did you mean 'is_not'?"),
        ("Job where id not in (a)", "line 1, column 14", "did you mean 'not_in'?"),
        ("Job where id not like a", "line 1, column 14", "did you mean 'not_like'?"),
        ("Job where id == 1", "line 1, column 15", "did you mean '='?"),
        ("Job where id <> 1", "line 1, column 15", "did you mean '!='?"),
        ("Job where a is 1 && b is 2", "line 1, column 18", "did you mean 'and'?"),
        ("Job where name is 'it's'", "line 1, column 23", "needs a backslash"),
        ('Task where metadata["k"] is 1', "line 1, column 21", "any (key is"),
    ],
)
def test_a_syntax_error_shows_where_and_what_was_expected(
    text: str, where: str, expected: str
) -> None:
    with pytest.raises(ParseError) as caught:
        parse(text)

    content = caught.value.content
    assert content.startswith(f"Failed to parse: {text}")
    assert where in content
    assert expected in content


def test_parentheses_may_be_as_deep_as_one_likes() -> None:
    deep = "(" * 5000 + "a is 1" + ")" * 5000

    assert criteria(deep) == criteria("a is 1")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (r"a\"b", 'a"b'),
        (r"a\'b", "a'b"),
        (r"a\\b", r"a\b"),
        (r"100\%", "100%"),
        (r"C:\new", r"C:\new"),
    ],
)
def test_backslashes_that_escape_nothing_stay(written: str, meant: str) -> None:
    assert text_of(ast.Literal(written, quoted=True)) == meant


def test_a_pattern_has_one_wildcard() -> None:
    assert like_pattern(ast.Literal(r"%a_b\%c\\", quoted=True)) == r"%a\_b\%c\\"
