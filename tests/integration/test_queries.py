"""Queries, look-ups and loading, over a real socket."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import arrow
import httpx
import pytest

from aioftrackjobs import (
    ArgumentError,
    AsyncSession,
    Attribute,
    Component,
    Entity,
    FileComponent,
    FtrackJobsError,
    InvalidKeyError,
    Job,
    JobComponent,
    JobStatus,
    MultipleResultsFoundError,
    NoResultFoundError,
    NotLoadedError,
    QueryParameterError,
    QuerySyntaxError,
    ServerError,
    SessionStateError,
    UnknownEntityTypeError,
    User,
)
from aioftrackjobs.devserver import ServerHandle

AWKWARD = "a \"quoted\" \\ {brace} 'single'\nline %x limit 5"


class Watched:
    """A session, and the bodies of the requests that it sent."""

    def __init__(self, session: AsyncSession, bodies: list[str]) -> None:
        self.session = session
        self.bodies = bodies


@pytest.fixture
async def watched(server: ServerHandle) -> AsyncIterator[Watched]:
    bodies: list[str] = []

    async def note(request: httpx.Request) -> None:
        bodies.append(request.content.decode())

    async with (
        httpx.AsyncClient(event_hooks={"request": [note]}) as client,
        AsyncSession(server.url, server.api_key, server.api_user, client=client) as session,
    ):
        yield Watched(session, bodies)


async def make_jobs(session: AsyncSession, count: int) -> list[Job]:
    jobs = [
        session.create(Job, {"data": {"description": f"{number:05}"}}) for number in range(count)
    ]
    await session.commit()
    return jobs


async def test_one_first_and_all(session: AsyncSession) -> None:
    jobs = await make_jobs(session, 3)
    text = f'Job where id is "{jobs[0].id}"'

    assert await session.query(text).one() is jobs[0]
    assert await session.query(text).first() is jobs[0]
    assert set(await session.query("Job").all()) == set(jobs)
    assert await session.query('Job where id is "none"').first() is None


async def test_one_refuses_no_row_several_rows_and_limits(session: AsyncSession) -> None:
    await make_jobs(session, 2)

    with pytest.raises(NoResultFoundError, match='id is "x"'):
        await session.query('Job where id is "x"').one()
    with pytest.raises(MultipleResultsFoundError):
        await session.query("Job").one()
    with pytest.raises(QueryParameterError, match="offset or limit"):
        await session.query("Job limit 1").one()


@pytest.mark.parametrize(
    ("clauses", "count", "first"),
    [
        ("limit 3", 3, 0),
        ("offset 4", 6, 4),
        ("offset 4 limit 3", 3, 4),
        ("limit 0", 0, 0),
        ("offset 9 limit 5", 1, 9),
        ("limit 100", 10, 0),
    ],
)
async def test_a_users_limit_and_offset_are_honoured(
    session: AsyncSession, clauses: str, count: int, first: int
) -> None:
    await make_jobs(session, 10)

    rows = await session.query(f"select data from Job order by data {clauses}").of(Job).all()

    assert [job.description for job in rows] == [f"{n:05}" for n in range(first, first + count)]


async def test_a_limit_above_a_page_is_honoured(session: AsyncSession) -> None:
    await make_jobs(session, 620)

    assert len(await session.query("select id from Job limit 510").all()) == 510


async def test_first_honours_the_querys_own_offset(session: AsyncSession) -> None:
    await make_jobs(session, 5)

    row = await session.query("select data from Job order by data offset 3 limit 2").first()

    assert isinstance(row, Job)
    assert row.description == "00003"


async def test_a_literal_with_the_words_of_a_limit_is_left_alone(session: AsyncSession) -> None:
    one = session.create("User", {"username": "offset 2 limit 5", "is_active": True})
    await session.commit()

    found = await session.query('User where username is "offset 2 limit 5"').all()

    assert found == [one]


async def test_untrusted_text_is_quoted(session: AsyncSession) -> None:
    user = session.create("User", {"username": AWKWARD, "is_active": True})
    await session.commit()

    found = await session.query("User where username is {name}", name=AWKWARD).all()
    none = await session.query("User where username is {name}", name='x" or username like "%').all()

    assert found == [user]
    assert none == []


async def test_entities_and_lists_can_be_parameters(session: AsyncSession) -> None:
    user = await session.current_user()
    job = session.create("Job", {"user": user})
    await session.commit()

    found = await session.query(
        "Job where user.id is {user} and status in {states}", user=user, states=["queued", "done"]
    ).all()

    assert found == [job]


@pytest.mark.parametrize("text", ["id in {ids}", "id in ({ids})", "id in( {ids} )"])
@pytest.mark.parametrize("kind", [list, tuple, set, iter, dict.fromkeys, lambda ids: map(str, ids)])
async def test_lists_of_many_kinds_can_be_parameters(
    session: AsyncSession, text: str, kind: Callable[[list[str]], object]
) -> None:
    jobs = await make_jobs(session, 3)
    ids = [job.id for job in jobs[:2]]

    given = kind(ids)
    if isinstance(given, dict):
        given = given.keys()

    assert set(await session.query(f"Job where {text}", ids=given).all()) == set(jobs[:2])


@pytest.mark.parametrize(
    "path",
    ["first_name", "id", "is_active", "timelogs.start", "timelogs.duration", "timelogs.user.id"],
)
async def test_nothing_is_in_an_empty_list(session: AsyncSession, path: str) -> None:
    """Not even an empty text."""
    user = await session.current_user()
    user.first_name = ""
    session.create("Timelog", {"user_id": user.id, "start": datetime.now(UTC), "duration": 1})
    await session.commit()
    everybody = set(await session.query("User").all())

    for text in ("{path} in {none}", "{path} in ({none})", "not {path} not_in {none}"):
        found = await session.query(f"User where {text.replace('{path}', path)}", none=[]).all()
        assert found == [], text
    for text in ("{path} not_in {none}", "not {path} in {none}", "id is x or {path} not_in {none}"):
        found = await session.query(f"User where {text.replace('{path}', path)}", none=[]).all()
        assert set(found) == everybody, text


@pytest.mark.parametrize(
    "text", [AWKWARD, "50%", "a\0b", "tab\t\r\n", "\\", '\\"', "ü\U0001f600", " "]
)
async def test_any_text_is_found_again(session: AsyncSession, text: str) -> None:
    job = session.create("Job", {"data": text})
    session.create("Job", {"data": "x" + text})
    await session.commit()

    assert await session.query("Job where data is {text}", text=text).all() == [job]
    assert await session.query("Job where data in {texts}", texts=[text]).all() == [job]


NAIVE = datetime(2026, 1, 1, 12)


async def test_times_without_a_zone_are_refused_everywhere(session: AsyncSession) -> None:
    user = await session.current_user()
    job = session.create(Job, {})
    log = session.create(
        "Timelog", {"user_id": user.id, "start": NAIVE.astimezone(), "duration": 1}
    )
    await session.commit()

    def set_item(entity: Entity, name: str, value: object) -> None:
        entity[name] = value

    for record in (
        lambda: session.create(Job, {"finished_at": NAIVE}),
        lambda: session.create(Job, {"finished_at": "2026-01-01T12:00:00"}),
        lambda: session.create(Job, {"data": {"deadline": NAIVE}}),
        lambda: session.create("Timelog", {"start": NAIVE}),
        lambda: set_item(job, "finished_at", NAIVE),
        lambda: setattr(job, "finished_at", NAIVE),
        lambda: job.update(finished_at=NAIVE),
        lambda: set_item(job, "data", {"deadlines": [NAIVE]}),
        lambda: set_item(log, "start", NAIVE),
        lambda: session.query("Job where created_at > {t}", t=NAIVE),
        lambda: session.query("Job where created_at in {t}", t=[NAIVE]),
    ):
        with pytest.raises(FtrackJobsError, match="has no time zone"):
            record()
    query = {"action": "update", "entity_type": "Job", "entity_key": [job.id]}
    with pytest.raises(FtrackJobsError, match="has no time zone"):
        await session.call([{**query, "entity_data": {"finished_at": NAIVE}}])
    with pytest.raises(FtrackJobsError, match="has no time zone"):
        await session.ensure("Timelog", {"user_id": user.id, "start": NAIVE})
    assert session.recorded_operations == ()


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(arrow.get("2026-07-01T12:00:00.5+02:00"), id="arrow"),
        pytest.param(datetime(2026, 7, 1, 12, tzinfo=ZoneInfo("Europe/Berlin")), id="zoneinfo"),
        pytest.param(datetime(2026, 7, 1, 10, tzinfo=UTC).astimezone(), id="local"),
    ],
)
async def test_times_of_any_zone_are_the_same_moment(session: AsyncSession, moment: Any) -> None:
    user = await session.current_user()
    wanted = datetime(2026, 7, 1, 10, tzinfo=UTC)
    job = session.create(Job, {"finished_at": moment, "status": "done", "data": {"at": moment}})
    log = session.create("Timelog", {"user_id": user.id, "start": moment, "duration": 1})
    await session.commit()
    await session.populate([job], "finished_at")
    await session.populate([log], "start")

    assert job.finished_at == log["start"] == wanted
    assert await session.query("Job where finished_at is {t}", t=moment).all() == [job]
    assert await session.query("Timelog where start is {t}", t=moment).all() == [log]
    await session.call(
        [
            {
                "action": "update",
                "entity_type": "Timelog",
                "entity_key": [log["id"]],
                "entity_data": {"start": moment},
            }
        ]
    )


async def test_numbers_and_dates_of_other_kinds_travel(session: AsyncSession) -> None:
    project = await session.query("Project").first()
    assert project is not None
    values = {"bid": Decimal("1.5"), "start_date": date(2026, 1, 2)}
    task = session.create("Task", {"name": "a", "parent": project, "project": project, **values})
    await session.commit()
    await session.populate(task, "bid, start_date")

    assert (task["bid"], task["start_date"]) == (1.5, datetime(2026, 1, 2, tzinfo=UTC))
    found = session.query("Task where bid is {bid} and start_date is {start_date}", **values)
    assert await found.one() is task


async def test_a_syntax_error_keeps_the_servers_text_and_shows_the_query(
    session: AsyncSession,
) -> None:
    with pytest.raises(QuerySyntaxError) as caught:
        await session.query('select id from Job where id is is "x"').all()

    assert caught.value.kind == "ParseError"
    assert "Failed to parse" in caught.value.detail
    assert 'id is is "x"' in str(caught.value)
    assert caught.value.line == 1
    assert caught.value.column is not None


async def test_an_unknown_attribute_is_refused_by_the_server(session: AsyncSession) -> None:
    with pytest.raises(ServerError) as caught:
        await session.query("select statsu from Job").all()

    assert "select statsu from Job" in str(caught.value)


async def test_an_unknown_type_suggests_a_similar_one(session: AsyncSession) -> None:
    with pytest.raises(UnknownEntityTypeError, match="'Task'"):
        await session.query("Taks").all()


async def test_an_empty_query_is_refused_by_the_server(session: AsyncSession) -> None:
    with pytest.raises(ServerError):
        await session.query("").all()


async def test_the_error_for_plain_rows_names_call(session: AsyncSession) -> None:
    assert await session.query("select id from Task").all()
    with pytest.raises((QueryParameterError, ServerError)):
        await session.query("select count(id) from Task group by status_id").all()


async def test_typed_queries_refuse_rows_of_another_type(session: AsyncSession) -> None:
    users = await session.query("User").of(User).all()

    assert all(isinstance(user, User) for user in users)
    with pytest.raises(TypeError, match="is not a Job"):
        await session.query("User").of(Job).all()


async def test_every_entity_type_works(session: AsyncSession) -> None:
    project = await session.query("Project").first()
    assert project is not None
    task = session.create(
        "Task", {"name": "previs", "project_id": project["id"], "parent_id": project["id"]}
    )
    await session.commit()

    found = await session.query('Task where name is "previs"').one()

    assert found is task
    assert type(found).__name__ == found.entity_type == "Task"
    assert isinstance(found, Entity)
    assert "status_id" in found.attributes
    task["name"] = "layout"
    await session.commit()
    session.delete(task)
    await session.commit()
    assert await session.get("Task", task["id"]) is None


async def test_generic_queries_load_the_scalars_of_the_type(session: AsyncSession) -> None:
    task = await session.query("Task").first()

    assert task is not None
    assert task["name"]
    assert "name" in task.default_projections
    with pytest.raises(NotLoadedError):
        _ = task["project"]


async def test_entities_with_a_key_of_several_parts(session: AsyncSession) -> None:
    user = await session.current_user()
    entry = session.create(
        "Metadata", {"parent_id": user.id, "parent_type": "User", "key": "k", "value": "v"}
    )
    await session.commit()

    found = await session.get("Metadata", [user.id, "k"])

    assert found is entry
    await session.populate(entry, "value")
    assert entry["value"] == "v"


# Decoding


async def test_times_are_aware_and_in_utc(session: AsyncSession) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    (job,) = await make_jobs(session, 1)

    await session.populate(job, "created_at")

    assert job.created_at is not None
    assert before <= job.created_at <= datetime.now(UTC)
    assert job.created_at.tzinfo is UTC


async def test_an_entity_repeated_as_a_reference_is_one_instance(session: AsyncSession) -> None:
    user = await session.current_user()
    for _ in range(3):
        session.create("Job", {"user": user})
    await session.commit()

    rows = await session.query("select user.username, user.email from Job").all()

    assert [row["user"] is user for row in rows] == [True] * 3
    assert rows[2]["user"]["username"] == user["username"]


async def test_repeats_across_the_results_of_a_batch_are_one_instance(
    session: AsyncSession,
) -> None:
    query = {"action": "query", "expression": "select username, first_name from User"}

    first, second = await session.call([query, query])

    assert len(first["data"]) > 1
    assert all(a is b for a, b in zip(first["data"], second["data"], strict=True))
    assert second["data"][0]["username"]


async def test_rows_become_entities_of_their_subtype(session: AsyncSession) -> None:
    made = await session.create_component(b"hello", name="a.txt")

    found = await session.query("Component where id is {id}", id=made.id).one()
    got = await session.get(Component, made.id)

    assert found is made is got
    assert type(found) is FileComponent


async def test_local_changes_survive_a_query(session: AsyncSession, other: AsyncSession) -> None:
    (job,) = await make_jobs(session, 1)
    job.status = JobStatus.RUNNING
    theirs = await other.get(Job, job.id)
    assert theirs is not None
    theirs.status = JobStatus.FAILED
    await other.commit()

    await session.query("Job").all()

    assert job["status"] is JobStatus.RUNNING
    session.rollback()
    assert dict(job)["status"] is JobStatus.FAILED


# get and populate


async def test_get_sends_a_new_query(session: AsyncSession, other: AsyncSession) -> None:
    (job,) = await make_jobs(session, 1)
    theirs = await other.get(Job, job.id)
    assert theirs is not None
    theirs.status = JobStatus.DONE
    await other.commit()

    again = await session.get("Job", job.id)

    assert again is job
    assert job.status is JobStatus.DONE


async def test_get_returns_none_for_an_unknown_key(session: AsyncSession) -> None:
    assert await session.get("Job", "missing") is None


async def test_get_finds_an_entity_that_is_not_committed_yet(session: AsyncSession) -> None:
    job = session.create(Job, {})

    assert await session.get(Job, job.id) is job


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        ("Job", []),
        ("Job", ["a", "b"]),
        ("JobComponent", "a"),
        ("Job", ""),
        ("Job", [3]),
        ("Job", None),
        ("Job", 5),
        ("Job", b"a"),
        ("Job", {"a": "b"}),
        ("Job", [None]),
        ("JobComponent", {"a", "b"}),
        ("JobComponent", ("a", "")),
    ],
)
async def test_what_is_no_key_is_refused(session: AsyncSession, kind: str, key: Any) -> None:
    with pytest.raises(InvalidKeyError, match=kind):
        await session.get(kind, key)


async def test_ids_may_be_uuids(session: AsyncSession) -> None:
    user = await session.current_user()
    own = uuid4()
    job = session.create(Job, {"id": own, "user_id": UUID(user.id)})
    await session.commit()

    assert job.id == str(own)
    assert await session.get(Job, own) is job
    assert await session.get("Job", [own]) is job
    assert await session.get("Job", (str(own),)) is job
    assert await session.query("Job where id is {id}", id=own).one() is job
    assert await session.query("Job where user_id in {ids}", ids={UUID(user.id)}).one() is job


async def test_keys_of_several_parts_may_be_tuples_of_uuids(session: AsyncSession) -> None:
    job = session.create(Job, {})
    await session.commit()
    made = await session.create_component(b"hello", name="a.txt")
    values = {"component_id": UUID(made.id), "job_id": UUID(job.id)}
    link = session.create(JobComponent, values)
    await session.commit()

    assert await session.get(JobComponent, (UUID(made.id), UUID(job.id))) is link


async def test_populate_loads_relations_and_collections(
    session: AsyncSession, other: AsyncSession
) -> None:
    user = await session.current_user()
    job = session.create(Job, {"user": user})
    await session.commit()
    made = await session.create_component(b"hello", name="a.txt")
    session.create(JobComponent, {"component_id": made.id, "job_id": job.id})
    await session.commit()

    mine = await other.get(Job, job.id)
    assert mine is not None
    await other.populate(mine, "user.username, job_components.component.name")

    assert mine["user"]["username"] == user["username"]
    assert [link["component"]["name"] for link in mine["job_components"]] == ["a"]


async def test_populate_takes_entities_of_many_types_and_many_of_one(watched: Watched) -> None:
    session = watched.session
    jobs = await make_jobs(session, 501)
    users = await session.query("select id from User").all()
    watched.bodies.clear()

    await session.populate([*jobs, *users], ["id"])

    assert len(watched.bodies) == 3


async def test_nothing_to_populate_makes_no_request(watched: Watched) -> None:
    await watched.session.populate([], "id")

    assert watched.bodies == []


# ensure


# Queries that are built


async def test_a_query_is_built_step_by_step(session: AsyncSession) -> None:
    owner = await session.current_user()
    for number in range(5):
        session.create(Job, {"status": "done", "data": {"number": number}, "user": owner})
    await session.commit()
    user = session.api_user

    done = session.query(Job).where(Job.status == "done", Attribute("user.username") == user)
    assert done.expression == f'Job where status is "done" and user.username is "{user}"'
    jobs = await done.order_by(Attribute(Job.created_at).descending(), "id").all()
    assert [type(job) for job in jobs] == [Job] * 5

    late = done.where("data like {one} or data like {two}", one="%3%", two="%4%").where()
    assert late.expression == (
        f'Job where (status is "done" and user.username is "{user}") '
        'and (data like "%3%" or data like "%4%")'
    )
    assert await late.count() == 2
    assert await late.exists()
    assert not await late.where(Job.id == "x").exists()

    chosen = done.select(Job.id, "user.email").order_by(Job.id).offset(1).limit(3)
    assert chosen.expression.startswith("select id, user.email from Job where status is")
    assert chosen.expression.endswith(" order by id offset 1 limit 3")
    assert [await each.count() for each in (chosen, chosen.limit(9), chosen.limit(0))] == [3, 4, 0]
    assert await chosen.all() == sorted(jobs, key=lambda job: str(job.id))[1:4]


async def test_rows_come_in_batches(session: AsyncSession) -> None:
    for _ in range(5):
        session.create(Job, {"status": "queued"})
    await session.commit()
    sizes, seen = [], set()
    async for batch in session.query(Job).where(Job.status == "queued").in_batches(2):
        sizes.append(len(batch))
        for job in batch:
            job["status"] = "failed"  # and is no row of the query any more
            seen.add(job)
        await session.commit()
    assert (sizes, len(seen)) == ([2, 2, 1], 5)
    nothing = session.query(Job).where(Job.id == "x")
    assert [batch async for batch in nothing.in_batches()] == []


async def test_more_rows_than_a_page_are_counted(session: AsyncSession) -> None:
    for _ in range(501):
        session.create(Job, {"status": "queued"})
    await session.commit()
    assert await session.query("Job where status is queued order by data").count() == 501
    assert await session.query("select data from Job offset 100").count() == 401


async def test_what_cannot_be_built_is_refused(session: AsyncSession) -> None:
    paged = session.query("Job limit 5")
    grouped = session.query("select count(id) from Task group by status_id")
    for query in (paged, grouped):
        for build in (query.where, query.order_by, query.select):
            with pytest.raises(QueryParameterError, match="before limit and offset"):
                build("id")
    with pytest.raises(QueryParameterError, match="no keys"):
        await grouped.count()
    jobs = session.query(Job)
    for wrong in (True, None, 7, ["status is done"]):
        with pytest.raises(QueryParameterError, match="no condition"):
            jobs.where(wrong)
    for order in ("id; drop", "", "created_at downwards", 7):
        with pytest.raises(QueryParameterError, match="no attribute"):
            jobs.order_by(order)
    with pytest.raises(QueryParameterError, match="placeholder"):
        jobs.where(Job.status == "done", name="x")
    with pytest.raises(QueryParameterError, match="at least one"):
        jobs.select()
    for count in (-1, 1.5, True, "3"):
        with pytest.raises(ArgumentError, match="a whole number"):
            jobs.limit(count)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="a whole number above 0"):
        jobs.in_batches(0)


async def test_a_session_is_opened_and_closed_without_a_block(server: ServerHandle) -> None:
    session = AsyncSession(server.url, server.api_key, server.api_user)
    assert await session.open() is session
    with pytest.raises(SessionStateError):
        await session.open()
    assert await session.query(User).exists()
    await session.aclose()
    await session.aclose()
    with pytest.raises(SessionStateError, match="closed"):
        session.query(User)


async def test_ensure_creates_then_finds_then_updates(
    session: AsyncSession, other: AsyncSession
) -> None:
    created = await session.ensure(User, {"username": "ada", "is_active": True}, ["username"])
    found = await session.ensure("User", {"username": "ada", "is_active": True}, ["username"])
    changed = await other.ensure("User", {"username": "ada", "first_name": "Ada"}, ["username"])

    assert created is found
    assert changed["id"] == created.id
    await session.populate(created, "first_name")
    assert created.first_name == "Ada"


async def test_ensure_finds_awkward_text(session: AsyncSession) -> None:
    first = await session.ensure("User", {"username": AWKWARD})

    assert await session.ensure("User", {"username": AWKWARD}) is first


async def test_ensure_does_not_commit_what_was_recorded_before(session: AsyncSession) -> None:
    session.create("Job", {})

    await session.ensure("User", {"username": "ada"})

    assert len(session.recorded_operations) == 1


async def test_ensure_refuses_ambiguous_or_missing_identifying_keys(session: AsyncSession) -> None:
    await make_jobs(session, 2)

    with pytest.raises(MultipleResultsFoundError):
        await session.ensure("Job", {"status": "queued"})
    with pytest.raises(QueryParameterError):
        await session.ensure("User", {})
    with pytest.raises(QueryParameterError, match="email"):
        await session.ensure("User", {"username": "x"}, ["email"])
