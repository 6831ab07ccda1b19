"""Generated queries find what a naive evaluator finds, and print as text that parses to them."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from aioftrackjobs.devserver.query import ast
from aioftrackjobs.devserver.query.compiler import Compiler
from aioftrackjobs.devserver.query.parser import parse
from aioftrackjobs.devserver.schema.loader import builtin_model
from aioftrackjobs.devserver.store.tables import Tables

from .query_printer import print_query

Row = dict[str, Any]
Truth = bool | None

WORDS = ["a", "A", "ab", "b%", "a_b", "", 'q"q', "it's", "\\", "ä", "Ä", "日本", "100%", "a\nb"]
STATUSES = ["queued", "running", "done"]
MOMENTS = [f"2026-01-0{day}T10:00:00" for day in range(1, 6)]
#: Attributes by type, with the values they are made and compared with.
ATTRIBUTES: dict[str, dict[str, list[Any]]] = {
    "User": {"username": WORDS, "first_name": WORDS, "is_active": [0, 1]},
    "Job": {"status": STATUSES, "data": WORDS, "created_at": MOMENTS},
    "Component": {"name": WORDS, "size": [0, 1, 2, 10], "file_type": WORDS},
    "JobComponent": {},
    "Metadata": {"key": ["k", "l"], "value": WORDS},
}
#: Relations: (type, name) to (target, key here, key there).
TO_ONE = {
    ("Job", "user"): ("User", "user_id", "id"),
    ("JobComponent", "job"): ("Job", "job_id", "id"),
    ("JobComponent", "component"): ("Component", "component_id", "id"),
    ("Component", "container"): ("Component", "container_id", "id"),
}
TO_MANY = {
    ("Job", "job_components"): ("JobComponent", "id", "job_id"),
    ("Component", "metadata"): ("Metadata", "id", "parent_id"),
    ("User", "metadata"): ("Metadata", "id", "parent_id"),
}
RELATIONS = TO_ONE | TO_MANY


@cache
def rows() -> dict[str, list[Row]]:
    """Return the same rows in every run, many of their values missing or equal."""
    dice = random.Random(7)

    def maybe(values: list[Any]) -> Any:
        return None if dice.random() < 0.2 else dice.choice(values)

    def made(name: str, count: int, **keys: Callable[[], Any]) -> list[Row]:
        return [
            {"id": f"{name}{n}"}
            | {each: maybe(values) for each, values in ATTRIBUTES[name].items()}
            | {each: choose() for each, choose in keys.items()}
            for n in range(count)
        ]

    users = made("User", 6)
    jobs = made("Job", 30, user_id=lambda: maybe([row["id"] for row in users]))
    components = made("Component", 12)
    for row in components:
        row["container_id"] = maybe([each["id"] for each in components])
    pairs = dict.fromkeys(
        (dice.choice(jobs)["id"], dice.choice(components)["id"]) for _ in range(25)
    )
    owners = [*components, *users]
    entries = {(dice.choice(owners)["id"], key): maybe(WORDS) for key in "kl" for _ in range(12)}
    return {
        "User": users,
        "Job": jobs,
        "Component": components,
        "JobComponent": [{"job_id": job, "component_id": component} for job, component in pairs],
        "Metadata": [
            {"parent_id": owner, "key": key, "value": value}
            for (owner, key), value in entries.items()
        ],
    }


@pytest.fixture(scope="module")
def find() -> Iterator[Callable[[ast.Query], list[str]]]:
    """Returns the keys that the database finds for a query, in order."""
    tables = Tables(builtin_model())
    database = sa.create_engine("sqlite://", poolclass=sa.pool.NullPool)
    with database.connect() as connection:
        for sql in tables.creating:
            connection.exec_driver_sql(sql)
        for name, entities in rows().items():
            root = builtin_model().types[name].root
            for row in entities:
                connection.execute(tables.clauses[root].insert().values(_type=name, **row))

        def find(query: ast.Query) -> list[str]:
            compiler = Compiler(builtin_model(), tables.clauses)  # it counts what one query takes
            statement = compiler.select(query, ["id"])
            found = [row[0] for row in connection.execute(statement)]
            return found if query.limit is None else found[: query.limit]

        yield find


# The naive evaluator


def related(name: str, row: Row, relation: str) -> list[Row]:
    target, here, there = RELATIONS[name, relation]
    if row[here] is None:
        return []
    return [other for other in rows()[target] if other[there] == row[here]]


def text_of(literal: ast.Literal) -> str:
    return re.sub(r"\\(.)", r"\1", literal.text, flags=re.DOTALL)


def matches(pattern: str, value: str) -> bool:
    """Return whether *value* is like *pattern*, as it is written in a query."""
    parts = re.findall(r"\\.|.", pattern, re.DOTALL)
    regex = "".join(".*" if part == "%" else re.escape(lower(part[-1])) for part in parts)
    return re.fullmatch(regex, lower(value), re.DOTALL) is not None


def lower(text: str) -> str:
    return "".join(each.lower() if each.isascii() else each for each in text)


def compares(comparison: ast.Comparison, value: Any) -> Truth:
    operator, literal = comparison.operator, comparison.value
    if literal.is_null:
        return (value is None) == (operator == "is")
    if value is None:
        return None
    if "like" in operator:
        return matches(literal.text, str(value)) == (operator == "like")
    other = type(value)(text_of(literal))
    results = {"is": value == other, "is_not": value != other, "<": value < other}
    results |= {">": value > other, "<=": value <= other, ">=": value >= other}
    return bool(results[operator])


def belongs(membership: ast.Membership, value: Any) -> Truth:
    assert not isinstance(membership.values, ast.Query)
    listed = [each for each in membership.values if not each.is_null]
    with_null = len(listed) < len(membership.values)
    if value is None:
        if with_null:
            return not membership.negated
        return None if listed else membership.negated
    return (value in [type(value)(text_of(each)) for each in listed]) != membership.negated


def holds(expression: ast.Expression, name: str, row: Row) -> Truth:
    match expression:
        case ast.And(operands=operands):
            truths = [holds(each, name, row) for each in operands]
            return False if False in truths else None if None in truths else True
        case ast.Or(operands=operands):
            truths = [holds(each, name, row) for each in operands]
            return True if True in truths else None if None in truths else False
        case ast.Not(operand=operand):
            truth = holds(operand, name, row)
            return None if truth is None else not truth
        case ast.RelationTest(path=path, criteria=criteria):
            step, *rest = path
            target = RELATIONS[name, step.name][0]
            others = related(name, row, step.name)
            if rest:
                inner: ast.Expression = ast.RelationTest(tuple(rest), criteria)
                return any(holds(inner, target, other) for other in others)
            return any(criteria is None or holds(criteria, target, other) for other in others)
        case ast.Comparison() | ast.Membership():
            return holds_at_end(expression, name, row)


def holds_at_end(expression: ast.Comparison | ast.Membership, name: str, row: Row) -> Truth:
    step, *rest = expression.path
    if rest:
        target = RELATIONS[name, step.name][0]
        inner: ast.Expression = (
            ast.Comparison(tuple(rest), expression.operator, expression.value)
            if isinstance(expression, ast.Comparison)
            else ast.Membership(tuple(rest), expression.values, expression.negated)
        )
        return any(holds(inner, target, other) for other in related(name, row, step.name))
    value = row[step.name]
    if isinstance(expression, ast.Comparison):
        return compares(expression, value)
    return belongs(expression, value)


def value_at(path: ast.Path, name: str, row: Row) -> Any:
    step, *rest = path
    if not rest:
        return row[step.name]
    others = related(name, row, step.name)
    return value_at(tuple(rest), RELATIONS[name, step.name][0], others[0]) if others else None


def evaluated(query: ast.Query) -> list[str]:
    name = query.entity_type
    found = [
        row
        for row in rows()[name]
        if query.criteria is None or holds(query.criteria, name, row) is True
    ]
    for ordering in reversed(query.order_by):
        path = ordering.path
        assert not isinstance(path, ast.Aggregate)

        def key(row: Row, path: ast.Path = path) -> tuple[bool, Any]:
            value = value_at(path, name, row)
            return (value is not None, 0 if value is None else value)

        found.sort(key=key, reverse=ordering.descending)
    first = query.offset or 0
    last = None if query.limit is None else first + query.limit
    return [row["id"] for row in found[first:last]]


# Queries


def escaped(value: Any) -> str:
    return re.sub(r'([\\"%])', r"\\\1", str(value))


def literals(values: list[Any]) -> st.SearchStrategy[ast.Literal]:
    return st.sampled_from(values).map(lambda value: ast.Literal(escaped(value), quoted=True))


def patterns() -> st.SearchStrategy[ast.Literal]:
    parts = st.sampled_from(["%", *map(escaped, WORDS)])
    return st.lists(parts, max_size=3).map(lambda each: ast.Literal("".join(each), quoted=True))


NOTHING = st.just(ast.Literal("none", quoted=False))


@st.composite
def paths(
    draw: st.DrawFn, name: str, *, to_one: bool = False, steps: int = 3
) -> tuple[ast.Path, list[Any]]:
    """Return a path that leads to an attribute, and the values that it may have."""
    ways = [
        relation
        for owner, relation in (TO_ONE if to_one else RELATIONS)
        if owner == name and (relation != "job" or not to_one)
    ]
    if ways and (not ATTRIBUTES[name] or (steps > 0 and draw(st.integers(0, 2)) == 0)):
        way = draw(st.sampled_from(ways))
        rest, values = draw(paths(RELATIONS[name, way][0], to_one=to_one, steps=steps - 1))
        return (ast.Step(way), *rest), values
    attribute = draw(st.sampled_from(sorted(ATTRIBUTES[name])))
    return (ast.Step(attribute),), ATTRIBUTES[name][attribute]


@st.composite
def leaves(draw: st.DrawFn, name: str) -> ast.Expression:
    path, values = draw(paths(name))
    match draw(st.integers(0, 3)):
        case 0:
            return ast.Comparison(path, draw(st.sampled_from(["is", "is_not"])), draw(NOTHING))
        case 1 if values is WORDS:
            return ast.Comparison(
                path, draw(st.sampled_from(["like", "not_like"])), draw(patterns())
            )
        case 2:
            listed = draw(st.lists(literals(values) | NOTHING, max_size=4))
            return ast.Membership(path, tuple(listed), negated=draw(st.booleans()))
        case _:
            operator = draw(st.sampled_from(["is", "is_not", "<", "<=", ">", ">="]))
            return ast.Comparison(path, operator, draw(literals(values)))


@st.composite
def criteria(draw: st.DrawFn, name: str, depth: int = 3) -> ast.Expression:
    kind = draw(st.integers(0, 6)) if depth else 0
    ways = [relation for owner, relation in RELATIONS if owner == name]
    if kind <= 2 or (kind == 6 and not ways):
        return draw(leaves(name))
    if kind == 3:
        return ast.Not(draw(criteria(name, depth - 1)))
    if kind == 6:
        way = draw(st.sampled_from(ways))
        inner = criteria(RELATIONS[name, way][0], depth - 1)
        return ast.RelationTest((ast.Step(way),), draw(st.none() | inner))
    operands = st.lists(criteria(name, depth - 1), min_size=2, max_size=3)
    return _joined(ast.And if kind == 4 else ast.Or, draw(operands))


def _joined(kind: type[ast.And | ast.Or], operands: list[ast.Expression]) -> ast.Expression:
    """Return *operands* joined as the parser does it: none of the same kind inside."""
    flat: list[ast.Expression] = []
    for operand in operands:
        flat.extend(operand.operands if isinstance(operand, kind) else (operand,))
    return kind(tuple(flat))


@st.composite
def queries(draw: st.DrawFn) -> ast.Query:
    name = draw(st.sampled_from(["Job", "User", "Component"]))
    keys = st.builds(
        ast.Ordering, paths(name, to_one=True).map(lambda each: each[0]), st.booleans()
    )
    return ast.Query(
        name,
        None,
        draw(st.none() | criteria(name)),
        order_by=tuple(draw(st.lists(keys, max_size=2))),
        offset=draw(st.none() | st.integers(0, 5)),
        limit=draw(st.none() | st.integers(0, 10)),
    )


@pytest.mark.long
@given(query=queries())
def test_queries_find_what_a_naive_evaluator_finds(
    find: Callable[[ast.Query], list[str]], query: ast.Query
) -> None:
    assert find(parse(print_query(query))) == evaluated(query), print_query(query)


# Printing, of trees that need not make sense

NAMES = st.sampled_from(["id", "name", "group", "order", "type", "user", "limit", "value_2"])
STEPS = st.builds(ast.Step, NAMES, st.none() | NAMES)
PATHS = st.lists(STEPS, min_size=1, max_size=3).map(tuple)
LITERALS = st.builds(
    ast.Literal,
    st.sampled_from(["a-b", "none", "1.5", "true", "2020-01-01"]),
    quoted=st.just(False),
) | st.text(max_size=8).map(lambda text: ast.Literal(escaped(text), quoted=True))


def trees(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    several = st.lists(inner, min_size=2, max_size=3)
    subqueries = st.builds(
        ast.Query,
        NAMES,
        st.tuples(PATHS),
        st.none() | inner,
        limit=st.none() | st.integers(0, 9),
    )
    return (
        st.builds(ast.Not, inner)
        | several.map(lambda each: _joined(ast.And, each))
        | several.map(lambda each: _joined(ast.Or, each))
        | st.builds(ast.RelationTest, PATHS, st.none() | inner)
        | st.builds(ast.Membership, PATHS, subqueries, st.booleans())
    )


OPERATORS = st.sampled_from(["is", "is_not", "<", "<=", ">", ">=", "like", "not_like"])
EXPRESSIONS = st.recursive(
    st.builds(ast.Comparison, PATHS, OPERATORS, LITERALS)
    | st.builds(ast.Membership, PATHS, st.lists(LITERALS, max_size=3).map(tuple), st.booleans()),
    trees,
    max_leaves=6,
)
AGGREGATES = st.builds(ast.Aggregate, st.sampled_from(["count", "sum", "avg", "min", "max"]), PATHS)


@pytest.mark.long
@given(
    query=st.builds(
        ast.Query,
        NAMES,
        st.none() | st.lists(PATHS | AGGREGATES, min_size=1, max_size=3).map(tuple),
        st.none() | EXPRESSIONS,
        st.lists(PATHS, max_size=2).map(tuple),
        st.lists(st.builds(ast.Ordering, PATHS | AGGREGATES, st.booleans()), max_size=2).map(tuple),
        st.none() | st.integers(0, 2**62),
        st.none() | st.integers(0, 2**62),
    )
)
def test_a_printed_query_parses_to_an_equal_one(query: ast.Query) -> None:
    assert parse(print_query(query)) == query
