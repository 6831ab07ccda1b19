"""Queries of many rows, while rows are created, changed and deleted."""

from __future__ import annotations

import json
from dataclasses import replace

import anyio
import anyio.lowlevel
import pytest

from aioftrackjobs import AsyncSession, Entity, Job, MalformedResponseError, ServerError
from aioftrackjobs.transport import WireRequest, WireResponse

from .relay import Relay, Send


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a page have five rows, so that few rows are many pages."""
    monkeypatch.setattr("aioftrackjobs.entities.paging.PAGE_SIZE", 5)


async def make_jobs(session: AsyncSession, count: int, status: str = "running") -> list[Job]:
    jobs = [
        session.create(Job, {"status": status, "data": {"description": f"{number:05}"}})
        for number in range(count)
    ]
    await session.commit()
    return jobs


def expressions(session: AsyncSession) -> list[str]:
    """Return a list that gets the queries that *session* sends from now on."""
    sent: list[str] = []

    async def note(request: WireRequest, send: Send) -> WireResponse:
        assert isinstance(request.body, bytes)
        sent.extend(
            operation["expression"]
            for operation in json.loads(request.body)
            if operation["action"] == "query"
        )
        return await send(request)

    Relay(session, note)
    return sent


@pytest.mark.every_loop
async def test_all_pages_are_followed(session: AsyncSession) -> None:
    jobs = await make_jobs(session, 13)
    sent = expressions(session)

    found = [job async for job in session.query("select id from Job")]

    last = sorted(job.id for job in jobs)[4::5]
    assert len(found) == len(set(found)) == 13
    assert set(found) == set(jobs)
    assert sent == [
        "select id from Job offset 0 limit 5",
        "select id from Job order by id offset 0 limit 5",
        f'select id from Job where id > "{last[0]}" order by id offset 0 limit 5',
        f'select id from Job where id > "{last[1]}" order by id offset 0 limit 5',
    ]


CHANGING = [
    pytest.param('Job where status is "running"', id="plain"),
    pytest.param('select id from Job where status is "running"', id="select"),
    pytest.param('Job where status is "running" or status is "queued"', id="or"),
    pytest.param('Job where not status is "done"', id="not"),
    pytest.param(
        "Job\n\twhere status\nis running and data is_not\n'order by \"x'", id="lines and quotes"
    ),
    pytest.param('Job where data not_like "% where (order by x" and status is running', id="words"),
    pytest.param("Job where id in (select id from Job where status is running)", id="subquery"),
    pytest.param(
        "Job where id in (select id from Job where status is running order by data limit 500)",
        id="subquery with an order",
    ),
    pytest.param('Job where status is "running" order by id', id="by id"),
    pytest.param('Job where status is "running" order by id asc', id="by id, ascending"),
    pytest.param('Job where status is "running" order by id offset 0', id="by id, offset"),
    pytest.param('Job where status is "running" order by id desc', id="by id, descending"),
    pytest.param('Job where status is "running" order by data', id="by data"),
    pytest.param('Job where status is "running" order by status, data desc', id="by two"),
    pytest.param('Job where status is "running" order by created_at', id="by equal times"),
    pytest.param('Job where status is "running" limit 1000', id="limit"),
    pytest.param('Job where status is "running" order by data limit 1000', id="order and limit"),
]


@pytest.mark.parametrize("expression", CHANGING)
async def test_a_loop_that_takes_rows_out_of_its_result_sees_all(
    session: AsyncSession, other: AsyncSession, expression: str
) -> None:
    await make_jobs(other, 13)

    seen = []
    async for job in session.query(expression).of(Job):
        seen.append(job.id)
        job.status = "done"
        if len(seen) % 3 == 0:
            await session.commit()
    await session.commit()

    assert len(seen) == len(set(seen)) == 13
    assert await session.query('Job where status is "running"').first() is None


@pytest.mark.parametrize("expression", CHANGING)
async def test_a_loop_that_deletes_its_rows_sees_all(
    session: AsyncSession, other: AsyncSession, expression: str
) -> None:
    await make_jobs(other, 13)

    count = 0
    async for job in session.query(expression):
        count += 1
        session.delete(job)
        await session.commit()

    assert count == 13
    assert await session.query("Job").first() is None


@pytest.mark.parametrize("expression", CHANGING)
async def test_rows_that_come_meanwhile_give_no_duplicates(
    session: AsyncSession, other: AsyncSession, expression: str
) -> None:
    jobs = await make_jobs(session, 13)

    seen = []
    async for job in session.query(expression):
        seen.append(job["id"])
        if len(seen) % 4 == 0:
            other.create(Job, {"id": f"{len(seen) % 7}-{len(seen)}", "status": "running"})
            other.create(Job, {"status": "running", "data": {"description": "0"}})
            await other.commit()
        if len(seen) > 200:
            break

    assert len(seen) == len(set(seen))
    assert {job.id for job in jobs} <= set(seen)


async def test_all_is_complete_while_others_end_jobs(
    session: AsyncSession, other: AsyncSession
) -> None:
    jobs = await make_jobs(other, 20)
    ending = iter(jobs)

    async def end_one(request: WireRequest, send: Send) -> WireResponse:
        next(ending).status = "done"
        await other.commit()
        return await send(request)

    Relay(session, end_one)
    found = await session.query('Job where status is "running"').all()

    ended = {job.id for job in jobs if job.status == "done"}
    assert {job.id for job in jobs} - {job["id"] for job in found} <= ended


async def test_an_order_is_kept_when_rows_move(session: AsyncSession, other: AsyncSession) -> None:
    await make_jobs(other, 23)

    seen = []
    async for job in session.query("Job where status is running order by data desc").of(Job):
        seen.append(job.description)
        job.status = "done"
        await session.commit()

    assert seen == [f"{number:05}" for number in reversed(range(23))]


async def test_limit_and_offset_count_the_rows_that_are_left(
    session: AsyncSession, other: AsyncSession
) -> None:
    await make_jobs(other, 23)

    seen = []
    async for job in session.query(
        "Job where status is running order by data offset 3 limit 14"
    ).of(Job):
        seen.append(job.description)
        job.status = "done"
        await session.commit()

    assert seen == [f"{number:05}" for number in range(3, 17)]


async def test_rows_that_no_longer_meet_the_criteria_are_left_out(
    session: AsyncSession, other: AsyncSession
) -> None:
    await make_jobs(session, 12)

    seen = list[str | None]()
    async for job in session.query("Job where status is running order by data").of(Job):
        if not seen:
            for each in await other.query('Job where data like "%00011%"').of(Job).all():
                each.status = "failed"
            await other.commit()
            job.status = "done"
            await session.commit()
        seen.append(job.description)

    assert seen == [f"{number:05}" for number in range(11)]


@pytest.mark.every_loop
async def test_a_sorted_query_that_is_left_early_reads_no_more(session: AsyncSession) -> None:
    await make_jobs(session, 23)
    sent = expressions(session)

    async for _ in session.query("select id from Job order by data"):
        break

    assert sent == ["select id from Job order by data offset 0 limit 5"]


@pytest.mark.parametrize("expression", ["Job", "Job order by data", "Job limit 20"])
async def test_tasks_may_share_one_loop(session: AsyncSession, expression: str) -> None:
    jobs = await make_jobs(session, 23)
    rows = aiter(session.query(expression))
    seen = list[Entity]()

    async def work() -> None:
        async for job in rows:
            seen.append(job)
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(work)

    assert len(seen) == len(set(seen)) == (20 if "limit" in expression else 23)
    assert set(seen) <= set(jobs)


async def test_a_loop_goes_on_after_an_error(session: AsyncSession) -> None:
    jobs = await make_jobs(session, 13)
    rows = aiter(session.query("Job order by data"))
    seen = [await anext(rows) for _ in range(5)]

    async def refuse(request: WireRequest, send: Send) -> WireResponse:
        return WireResponse(200, b'{"exception": "ServerError", "content": "busy"}')

    relay = Relay(session, refuse)
    with pytest.raises(ServerError):
        await anext(rows)
    relay.end()

    assert [*seen, *[row async for row in rows]] == jobs


async def test_an_undisturbed_sorted_query_needs_one_request_for_a_page(
    session: AsyncSession,
) -> None:
    await make_jobs(session, 13)
    sent = expressions(session)

    found = await session.query("select data from Job order by data").of(Job).all()

    assert [job.description for job in found] == [f"{number:05}" for number in range(13)]
    assert len(sent) == 3


@pytest.mark.parametrize(
    "expression",
    ["Job", "Job order by data", "Job where status is running or id is x", "Job offset 3"],
)
async def test_first_is_the_first_of_all(session: AsyncSession, expression: str) -> None:
    await make_jobs(session, 13)

    found = await session.query(expression).all()

    assert await session.query(expression).first() is found[0]


async def test_types_with_a_key_of_several_attributes(
    session: AsyncSession, other: AsyncSession
) -> None:
    user = await session.current_user()
    names = [f'key "{number}" \\ order by x' for number in range(23)]
    for name in names:
        values = {"parent_id": user.id, "parent_type": "User", "key": name, "value": "old"}
        session.create("Metadata", values)
    await session.commit()

    seen = []
    async for entry in other.query('Metadata where value is "old" or value is "older"'):
        seen.append(entry["key"])
        entry["value"] = "new"
        await other.commit()

    assert sorted(seen) == sorted(names)


async def test_types_with_a_key_of_several_attributes_and_an_order(
    session: AsyncSession, other: AsyncSession
) -> None:
    user = await session.current_user()
    for number in range(12):
        values = {"parent_id": user.id, "parent_type": "User", "key": f"{number:05}", "value": "a"}
        session.create("Metadata", values)
    await session.commit()

    seen = []
    async for entry in other.query("Metadata where value is a order by key desc"):
        seen.append(entry["key"])
        entry["value"] = "b"
        await other.commit()

    assert seen == [f"{number:05}" for number in reversed(range(12))]


async def test_every_type_can_be_read_by_key(session: AsyncSession) -> None:
    """Its key can be compared and sorted by."""
    for document in await session.schemas():
        name, keys = document["id"], document["primary_key"]
        paged = f"select {keys[0]} from {name} where {keys[0]} > {{key}} order by {', '.join(keys)}"

        is_text = document["properties"][keys[0]]["type"] == "string"
        rows = await session.query(paged, key="" if is_text else 0).all()

        assert all(isinstance(row, Entity) for row in rows), name


async def refuse_to_compare_keys(request: WireRequest, send: Send) -> WireResponse:
    assert isinstance(request.body, bytes)
    if b'id > \\"' in request.body:
        error = {"exception": "ValidationError", "content": "texts cannot be compared"}
        return WireResponse(200, json.dumps(error).encode())
    return await send(request)


async def test_a_server_that_returns_few_rows_is_asked_for_fewer_keys(
    session: AsyncSession, other: AsyncSession
) -> None:
    await make_jobs(other, 23)

    async def refuse_large_pages(request: WireRequest, send: Send) -> WireResponse:
        assert isinstance(request.body, bytes)
        if b"limit 10000" in request.body:
            return WireResponse(200, b'{"exception": "ValidationError", "content": "too many"}')
        return await send(request)

    Relay(session, refuse_large_pages)
    seen = []
    async for job in session.query("Job where status is running order by data").of(Job):
        seen.append(job.description)
        job.status = "done"
        await session.commit()

    assert seen == [f"{number:05}" for number in range(23)]


@pytest.mark.parametrize(
    "expression", ["Job where status is running", "Job where status is running order by id"]
)
async def test_a_server_that_cannot_compare_keys_is_read_by_position(
    session: AsyncSession, other: AsyncSession, expression: str
) -> None:
    jobs = await make_jobs(other, 23)
    Relay(session, refuse_to_compare_keys)

    unchanged = await session.query(expression).all()
    seen = []
    async for job in session.query(expression).of(Job):
        seen.append(job)
        job.status = "done"
        await session.commit()

    assert len(unchanged) == len(seen) == 23
    assert {job["id"] for job in unchanged} == {job.id for job in seen} == {job.id for job in jobs}


async def test_a_refusal_of_a_later_page_is_raised(session: AsyncSession) -> None:
    await make_jobs(session, 23)
    pages = 0

    async def refuse_the_fourth(request: WireRequest, send: Send) -> WireResponse:
        nonlocal pages
        pages += 1
        if pages < 4:
            return await send(request)
        return WireResponse(200, b'{"exception": "ServerError", "content": "no"}')

    Relay(session, refuse_the_fourth)
    with pytest.raises(ServerError):
        await session.query("Job").all()
    pages = 2
    with pytest.raises(ServerError):
        await session.query("Job order by data").all()


async def test_pages_by_key_that_never_end_are_noticed(session: AsyncSession) -> None:
    await make_jobs(session, 12)

    async def ignore_the_key(request: WireRequest, send: Send) -> WireResponse:
        assert isinstance(request.body, bytes)
        (operation,) = json.loads(request.body)
        text, found, _ = operation["expression"].partition(" where id > ")
        if found:
            operation["expression"] = f"{text} order by id offset 0 limit 5"
            request = replace(request, body=json.dumps([operation]).encode())
        return await send(request)

    Relay(session, ignore_the_key)
    with pytest.raises(MalformedResponseError, match="never end"):
        await session.query("select id from Job").all()


async def test_populate_follows_the_pages_of_a_server_with_small_ones(
    session: AsyncSession,
) -> None:
    jobs = await make_jobs(session, 12)

    async def at_most_three(request: WireRequest, send: Send) -> WireResponse:
        assert isinstance(request.body, bytes)
        (operation,) = json.loads(request.body)
        head, _, _ = operation["expression"].rpartition(" limit ")
        operation["expression"] = f"{head} limit 3"
        return await send(replace(request, body=json.dumps([operation]).encode()))

    Relay(session, at_most_three)
    await session.populate(jobs, "created_at")
    found = await session.query("Job").all()
    ordered = await session.query("Job order by data").all()

    assert all(job.created_at for job in jobs)
    assert set(found) == set(jobs)
    assert ordered == jobs
