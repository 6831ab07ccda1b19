"""Queries, on rows made for them."""

from __future__ import annotations

import pytest

from .caller import Caller, create, new_id, query, ref


@pytest.fixture
async def jobs(api: Caller) -> dict[str, str]:
    """Four jobs by name: two of maya's, one of jenkins', one without a user."""
    users = {user["username"]: user["id"] for user in await api.query("select username from User")}
    ids = {name: new_id() for name in ("queued", "running", "done", "orphan")}
    await api.call(
        create(
            "Job",
            id=ids["queued"],
            user_id=users["maya"],
            data='{"description": "x", "done": "50%"}',
        ),
        create("Job", id=ids["running"], user_id=users["maya"], status="running", data="a_b"),
        create(
            "Job",
            id=ids["done"],
            user=ref("User", users["jenkins"]),
            status="done",
            created_at={"__type__": "datetime", "value": "2020-05-05T10:00:00+02:00"},
        ),
        create("Job", id=ids["orphan"], status="failed", data="axb"),
        create("FileComponent", id=(component := new_id()), name="log", file_type=".txt"),
        create("JobComponent", job_id=ids["running"], component_id=component),
        create("Metadata", parent_id=component, parent_type="FileComponent", key="k", value="v"),
    )
    return ids


@pytest.mark.parametrize(
    ("criteria", "found"),
    [
        ("status is queued", "queued"),
        ('status = "queued"', "queued"),
        ("status is_not queued", "running done orphan"),
        ('status in ("queued", running)', "queued running"),
        ("status not_in (queued, running, done)", "orphan"),
        ("status in ()", ""),
        ("user_id is None", "orphan"),
        ("user is none", "orphan"),
        ("user_id is_not null", "queued running done"),
        ("user_id in (none)", "orphan"),
        ("user has ()", "queued running done"),
        ("not user has ()", "orphan"),
        ("user has (username is maya and is_active is True)", "queued running"),
        ("user has (is_active is false)", ""),
        ("user.username is maya", "queued running"),
        ('not user.username is "maya"', "done orphan"),
        ('user.username like "MA%"', "queued running"),
        ("user.user_type.name is Artist and status is done", "done"),
        ("status is queued or status is done and user.username is maya", "queued"),
        ("(status is queued or status is done) and user.username is jenkins", "done"),
        ("job_components any ()", "running"),
        ("not job_components any ()", "queued done orphan"),
        ('job_components.component.name is "log"', "running"),
        ('job_components any (component[FileComponent].file_type is ".txt")', "running"),
        ("job_components any (component[SequenceComponent].padding > 0)", ""),
        ("job_components.component.metadata any (key=k and value=v)", "running"),
        ("job_components.component.metadata any (key=k and value=w)", ""),
        ('user_id in (select id from User where username like "j%")', "done"),
        ("user in (select id from User where username is jenkins)", "done"),
        ('created_at < "2020-05-05T08:00:01"', "done"),
        ('created_at after "2020-05-05T10:00:00+02:00"', "queued running orphan"),
        ('created_at <= "2020-05-05T08:00:00Z"', "done"),
        ('created_at before "2020-05-05"', ""),
        ("finished_at is None", "queued running"),
        (r'data like "%\"x\"%"', "queued"),
        (r'data like "%50\%%"', "queued"),
        ('data like "a_b"', "running"),
        ('data not_like "a%"', "queued"),
        ("not data like 'a%'", "queued"),
    ],
)
async def test_criteria_find_the_right_rows(
    api: Caller, jobs: dict[str, str], criteria: str, found: str
) -> None:
    rows = await api.query(f"select id from Job where {criteria}")

    assert [row["id"] for row in rows] == [jobs[name] for name in found.split()]


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ("status", "done orphan queued running"),
        ("status desc", "running queued orphan done"),
        ("user.username descending, status ascending", "queued running done orphan"),
        ("created_at", "done queued running orphan"),
    ],
)
async def test_rows_come_in_the_requested_order(
    api: Caller, jobs: dict[str, str], keys: str, found: str
) -> None:
    rows = await api.query(f"select id from Job order by {keys}")

    assert [row["id"] for row in rows] == [jobs[name] for name in found.split()]


async def test_pages_end_where_there_is_no_next_row(api: Caller, jobs: dict[str, str]) -> None:
    offsets, seen = list[int](), list[str]()
    offset: int | None = 0
    while offset is not None:
        (page,) = await api.call(query(f"select id from Job offset {offset} limit 2"))
        seen += [row["id"] for row in page["data"]]
        offsets.append(offset)
        offset = page["metadata"]["next"]["offset"]

    assert offsets == [0, 2]
    assert seen == list(jobs.values())


async def test_supertypes_find_all_their_subtypes_under_their_own_names(api: Caller) -> None:
    rows = await api.query("select name from Context")

    names = dict.fromkeys(row["__entity_type__"] for row in rows)
    assert list(names) == ["Project", "Sequence", "Shot", "Task"]
    assert [row["name"] for row in await api.query("select name from Shot limit 1")] == ["sh010"]


async def test_a_cast_narrows_a_relation(api: Caller) -> None:
    expression = (
        'select name from TypedContext where name is "sh010" '
        'and parent[TypedContext] has (name is "sq010" and project.name is "demo")'
    )

    assert [row["name"] for row in await api.query(expression)] == ["sh010"]


async def test_hundreds_of_composite_keys_are_one_query(api: Caller) -> None:
    keys = " or ".join(f'(component_id is "c{n}"and job_id is "j")' for n in range(3000))

    assert await api.query(f"select url from JobComponent where {keys}") == []


async def test_a_query_sees_what_its_batch_wrote(api: Caller) -> None:
    job_id = new_id()

    _, found = await api.call(create("Job", id=job_id), query(f"Job where id is {job_id}"))

    assert [row["id"] for row in found["data"]] == [job_id]


@pytest.mark.parametrize(
    ("expression", "hint"),
    [
        ("Jbo", "did you mean 'Job'"),
        ("Job where statsu is x", "did you mean 'status'"),
        ("select usr.username from Job", "did you mean 'user'"),
        ("Job where user has (usrname is x)", "did you mean 'username'"),
        ("Job order by creatd_at", "did you mean 'created_at'"),
        ("JOB", "did you mean 'Job'"),
        ("Job where STATUS is x", "did you mean 'status'"),
        ("select user.usrname from Job", "'usrname' of User, did you mean 'username'"),
        ("Job where id in (select idd from Job)", "did you mean 'id'"),
        ("Task where parent[Shto].name is x", "did you mean 'Shot'"),
        ("select job_components.component[FileComponnt].name from Job", "mean 'FileComponent'"),
        ("Task where custom_attributes any (kee is fps)", "did you mean 'key'"),
        ("select custom_attributes.fps from Task", "found by their key: 'any (key is \"fps\")'"),
    ],
)
async def test_unknown_names_are_refused_with_the_nearest_one(
    api: Caller, expression: str, hint: str
) -> None:
    error = await api.refused(query(expression))

    assert error["exception"] == "ValidationError"
    assert hint in error["content"]


@pytest.mark.parametrize(
    ("expression", "content"),
    [
        ("Job where status[User].x is 1", "'status' of Job is no relation"),
        ("Job where type[Foo] is 1", "'type' of Job is no relation, it cannot be cast"),
        ("select type[Foo] from Job", "'type' of Job is no relation, it cannot be cast"),
        ("Job where user[Task].name is x", "'user' leads to User, which cannot be cast to Task"),
        ("select user[Task].name from Job", "'user' leads to User, which cannot be cast to Task"),
        ("Job where user.username.x is 1", "'username' of User is no relation"),
        ("Job where job_components is c", "by 'job_components any (...)'"),
        ("Job where created_at > soon", "'created_at', which is a date in ISO form"),
        ("Task where bid > much", "'bid', which is a number"),
        ("User where is_active is maybe", "'is_active', which is true or false"),
        ("JobComponent where url is x", "'url' of JobComponent is computed"),
        ("Job where id in (select id, type from Job)", "selects exactly one attribute"),
    ],
)
async def test_an_impossible_query_is_refused_with_the_reason(
    api: Caller, expression: str, content: str
) -> None:
    error = await api.refused(query(expression))

    assert error["exception"] == "ValidationError"
    assert content in error["content"]


@pytest.mark.parametrize(
    "expression",
    [
        "Job where status.name is x",
        "Job where created_at > yesterday",
        "User where is_active is perhaps",
        "Component where size > big",
        "Job where status > none",
        "JobComponent where url is x",
        "Job where job_components is x",
        "Job order by job_components.component_id",
        "Job where id in (select id, status from Job)",
        "Job where user[Group].parent is x or user[Component] has ()",
        "select count(id) from Job",
        "select id.x from Job",
        "Job order by " + "user." * 60 + "id",
    ],
)
async def test_queries_that_make_no_sense_are_refused(api: Caller, expression: str) -> None:
    assert (await api.refused(query(expression)))["exception"] == "ValidationError"


@pytest.mark.parametrize(
    "criteria",
    [
        pytest.param("not user has (" * 5000 + "id is 1" + ")" * 5000, id="relations"),
        pytest.param("user." * 5000 + "id is 1", id="path"),
        pytest.param("not " * 5000 + "id is 1", id="not"),
        pytest.param("(a is 1 or (b is 2 and " * 4000 + "id is 1" + "))" * 4000, id="and-or"),
        pytest.param("id in (select id from Job where " * 999 + "id is 1" + ")" * 999, id="in"),
    ],
)
async def test_criteria_nested_too_deeply_are_syntax_errors(api: Caller, criteria: str) -> None:
    error = await api.refused(query(f"Job where {criteria}"))

    assert error["exception"] == "ParseError"
    assert "nested too deeply at line 1, column" in error["content"]
    assert error["error"]["line"] == 1


@pytest.mark.parametrize(
    "criteria",
    [
        "parent." * 10 + "id is x",
        "id is 1 and parent has (" * 7 + "id is 1" + ")" * 7,
        "parent_id in (select id from Context where " * 9 + "id is 1" + ")" * 9,
        "(name is a or (name is b and " * 12 + "id is 1" + "))" * 12,
        "(" * 3000 + "id is 1" + " or id is 2)" * 3000,
        "not " * 50 + "id is x",
    ],
)
async def test_as_deep_as_queries_may_be_the_database_takes_them(
    api: Caller, criteria: str
) -> None:
    assert await api.query(f"Context where {criteria}") == []


async def test_untrusted_text_stays_text(api: Caller) -> None:
    name = "a\"b'c\\d{e}\nf%_;--"
    await api.create("Location", name=name)
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')

    (found,) = await api.query(f'select name from Location where name is "{quoted}"')

    assert found["name"] == name
