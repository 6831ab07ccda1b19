"""Queries, look-ups and loading, over a real socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import httpx
import pytest

from aioftrackjobs import (
    AsyncSession,
    Component,
    Entity,
    FileComponent,
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
    [("Job", []), ("Job", ["a", "b"]), ("JobComponent", "a"), ("Job", ""), ("Job", [3])],
)
async def test_a_key_of_the_wrong_length_is_refused(
    session: AsyncSession, kind: str, key: str | list[str]
) -> None:
    with pytest.raises(InvalidKeyError, match=kind):
        await session.get(kind, key)


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
