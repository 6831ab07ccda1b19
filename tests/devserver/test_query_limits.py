"""Queries that are too big or too deep, and the indexes that others use."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from aioftrackjobs.devserver.api_errors import ParseError
from aioftrackjobs.devserver.query.compiler import Compiler
from aioftrackjobs.devserver.query.parser import parse
from aioftrackjobs.devserver.schema.loader import builtin_model
from aioftrackjobs.devserver.store.tables import Tables

from .caller import Caller, query

STRANGE = [
    "",
    " ",
    "\u0000",
    "\u200b",
    "😀",
    "é",
    "e\u0301",
    "\u202eabc",
    "ﬀ",
    "\u0131",
    "%",
    "_",
    "\\\\",
]


@pytest.mark.parametrize("text", STRANGE, ids=ascii)
@pytest.mark.parametrize("form", ['name is "{}"', 'name like "%{}%"', 'name in ("{}", "")'])
async def test_strange_text_is_text(api: Caller, text: str, form: str) -> None:
    await api.create("Location", name=text.replace("\\\\", "\\"))

    rows = await api.query("select name from Location where " + form.replace("{}", text))

    assert text.replace("\\\\", "\\") in [row["name"] for row in rows]


@pytest.mark.parametrize(
    "expression",
    [
        "",
        " ",
        "\n\n",
        "😀",
        "Job where 😀",
        "Job where id is \ud800",
        "select",
        "select from",
        "select id, from Job",
        "Job where id",
        "Job where id is",
        "Job where id in",
        "Job where id in (",
        'Job where id is "',
        "Job where id is 'x\"",
        "Job where ()",
        "Job where not",
        "Job where and",
        "Job order id",
        "Job order by",
        "Job limit -1",
        "Job limit 1.5",
        "Job limit " + "9" * 5000,
        "Job offset " + "1" * 200,
        "Job where user[].id is x",
        "Job where user[User is x",
        "Job;drop table Job",
        "Job group by",
        "select count( from Job",
        "x" * 100_000 + " y",
        "Job where " + "a" * 100_000,
        "(" * 100_000,
        "Job where " + "(" * 100_000,
        'Job where id is "' + "\\" * 100_001,
    ],
    ids=lambda text: ascii(text[:24]),
)
def test_what_is_no_query_is_a_syntax_error_with_its_place(expression: str) -> None:
    with pytest.raises(ParseError, match=r"line \d+, column \d+") as caught:
        parse(expression)

    assert len(caught.value.content) < 4000


async def test_long_lists_and_long_texts_are_found(api: Caller) -> None:
    await api.create("Location", name="x" * 40_000)
    names = ", ".join(f'"n{number}"' for number in range(20_000))

    by_list = await api.query(f'Location where name in ({names}, "{"x" * 40_000}")')
    by_chain = await api.query(
        "Location where " + " or ".join(f"name is n{n}" for n in range(2000))
    )

    assert (len(by_list), by_chain) == (1, [])


@pytest.mark.parametrize(
    ("criteria", "count"),
    [("name in ()", 0), ('name in ("")', 0), ("not name in ()", 5), ("name not_in ()", 5)],
)
async def test_an_empty_list_has_nothing_in_it(api: Caller, criteria: str, count: int) -> None:
    assert len(await api.query(f"Location where {criteria}")) == count


@pytest.mark.parametrize(
    ("expression", "hint"),
    [
        ("Jbo", "did you mean 'Job'"),
        ("Job where id in (select id from Jobs)", "did you mean 'Job'"),
        ("Task where parent[Shoot].name is x", "did you mean 'Shot'"),
        ("Task where assignments.resource.usrname is x", "of Resource"),
        ("Task where parent[Shot].nmae is x", "'nmae' of Shot, did you mean 'name'"),
        ("select metadata.kye from Task", "'kye' of Metadata, did you mean 'key'"),
        ("select count(id) from Job group by sttus", "did you mean 'status'"),
    ],
)
async def test_wrong_names_suggest_the_nearest_in_every_clause(
    api: Caller, expression: str, hint: str
) -> None:
    response = await api.post(query(expression), **{"ftrack-api-options": "strict:1"})

    assert response.json()["exception"] == "ValidationError"
    assert hint in response.json()["content"]


async def test_a_path_has_eleven_steps_at_most(api: Caller) -> None:
    longest = "parent." * 10 + "name"

    assert len(await api.query(f"Task order by {longest}")) == 5
    error = await api.refused(query(f"Task order by parent.{longest}"))

    assert error["content"] == "A path has more than 11 steps."


@pytest.mark.parametrize(
    ("expression", "index"),
    [
        ('Job where user_id is "u" and status is "queued"', "SEARCH Job_1 USING INDEX"),
        ('Job where user.username is "u" and status in ("queued")', "SEARCH Job_1 USING INDEX"),
        ('Job where user.username is "u"', "ix_Job_user_id"),
        ("Job where status is queued", "ix_Job_status"),
        ("Job order by created_at limit 10", "ix_Job_created_at"),
        ("Job where id in (a, b)", "sqlite_autoindex_Job_1"),
        ("Component where metadata any (key is k)", "ix_Metadata_key"),
        ("Task where custom_attributes any (key is k)", "ix_CustomAttributeValue_key"),
        ("Task where parent.name is x", "ix_Context_parent_id"),
        ("JobComponent where job_id is x", "ix_JobComponent_job_id"),
    ],
)
def test_queries_use_an_index(expression: str, index: str) -> None:
    tables = Tables(builtin_model())
    compiler, parsed = Compiler(builtin_model(), tables.clauses), parse(expression)
    statement = compiler.select(parsed, ["_row"])
    compiled = statement.compile(
        dialect=sqlite.dialect(paramstyle="named"), compile_kwargs={"render_postcompile": True}
    )
    database = sa.create_engine("sqlite://", poolclass=sa.pool.NullPool)
    with database.connect() as connection:
        for sql in tables.creating:
            connection.exec_driver_sql(sql)
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}", compiled.params)

        assert index in "\n".join(str(row[3]) for row in plan)
