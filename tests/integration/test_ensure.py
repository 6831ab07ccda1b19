"""Finding or creating an entity, also by many tasks at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import anyio
import anyio.lowlevel
import arrow
import pytest

from aioftrackjobs import (
    AsyncSession,
    Entity,
    EntityError,
    FtrackJobsError,
    InvalidValueError,
    Job,
    JobStatus,
    QueryParameterError,
    User,
    job_context,
)
from aioftrackjobs.transport import WireRequest, WireResponse

from .relay import Relay, Send

MOMENT = datetime(2026, 1, 1, 12, 30, 15, 703_990, UTC)
BERLIN = ZoneInfo("Europe/Berlin")


async def count(session: AsyncSession, entity_type: str) -> int:
    return len(await session.query(f"select id from {entity_type}").all())


async def ensure_at_once(
    session: AsyncSession,
    kind: str,
    variants: Sequence[Mapping[str, Any]],
    keys: Sequence[str] | None = None,
) -> list[Entity]:
    """Return what eight tasks get that ensure one of the *variants* each."""
    found: list[Entity] = []

    async def ensure(data: Mapping[str, Any]) -> None:
        found.append(await session.ensure(kind, data, keys))

    async with anyio.create_task_group() as group:
        for number in range(8):
            group.start_soon(ensure, variants[number % len(variants)])
    return found


@pytest.mark.every_loop
async def test_eight_tasks_create_one_entity(session: AsyncSession) -> None:
    before = await count(session, "User")

    found = await ensure_at_once(session, "User", [{"username": "ada"}])

    assert len({id(each) for each in found}) == 1
    assert await count(session, "User") == before + 1


async def test_equal_values_may_be_spelt_differently(session: AsyncSession) -> None:
    user = await session.current_user()

    found = await ensure_at_once(
        session,
        "Job",
        [
            {"user": user, "data": {"x": 1}},
            {"user_id": user.id, "data": '{"x": 1}', "status": "queued"},
            {"user_id": UUID(user.id), "data": {"x": 1}, "status": JobStatus.QUEUED},
        ],
    )

    assert len({id(each) for each in found}) == 1
    assert await count(session, "Job") == 1


@pytest.mark.parametrize(
    "variants",
    [
        pytest.param([MOMENT, MOMENT.replace(microsecond=1), MOMENT.replace(microsecond=0)]),
        pytest.param([MOMENT, MOMENT.astimezone(BERLIN), arrow.get(MOMENT)], id="zones"),
        pytest.param([MOMENT, "2026-01-01T12:30:15Z", "2026-01-01T13:30:15+01:00"], id="text"),
        pytest.param([MOMENT.isoformat(), MOMENT, "2026-01-01 12:30:15.5Z"], id="fraction"),
        pytest.param([date(2026, 1, 2), datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02"], id="date"),
    ],
)
async def test_times_may_be_spelt_differently(
    session: AsyncSession, variants: list[object]
) -> None:
    user = await session.current_user()
    datas = [{"user_id": user.id, "start": each, "duration": 0.1} for each in variants]

    found = await ensure_at_once(session, "Timelog", datas)
    for data in datas:
        found.append(await session.ensure("Timelog", data))

    assert len({id(each) for each in found}) == 1
    assert await count(session, "Timelog") == 1


@pytest.mark.parametrize(
    "values",
    [
        pytest.param({"name": None}, id="none"),
        pytest.param({"name": 'a "b" \\ c\n% \0 {x} ü'}, id="text"),
        pytest.param({"duration": 0.1 + 0.2}, id="float"),
        pytest.param({"duration": 1e-9}, id="small float"),
        pytest.param({"duration": 3600}, id="integer for a float"),
    ],
)
async def test_a_second_ensure_finds_what_the_first_has_created(
    session: AsyncSession, other: AsyncSession, values: dict[str, Any]
) -> None:
    user = await session.current_user()
    data = {"user_id": user.id, "start": MOMENT, "duration": 1, **values}

    created = await session.ensure("Timelog", data)
    found = await other.ensure("Timelog", data)

    assert found["id"] == created["id"]


async def test_truth_values_identify(session: AsyncSession) -> None:
    data = {"username": "ada", "is_active": False}

    assert await session.ensure("User", data) is await session.ensure("User", data)


async def test_what_is_found_as_wanted_is_not_updated(session: AsyncSession) -> None:
    user = await session.current_user()
    data = {"user_id": user.id, "start": date(2026, 1, 2), "duration": 1}
    await session.ensure("Timelog", data)
    updates = 0

    async def note(request: WireRequest, send: Send) -> WireResponse:
        nonlocal updates
        assert isinstance(request.body, bytes)
        updates += request.body.count(b'"update"')
        return await send(request)

    Relay(session, note)
    await session.ensure("Timelog", data)
    await session.ensure("Timelog", {**data, "start": "2026-01-02T01:00:00+01:00"})
    assert updates == 0
    await session.ensure("Timelog", {**data, "duration": 2}, ["user_id", "start"])
    assert updates == 1


async def test_tasks_that_look_for_others_do_not_wait(session: AsyncSession) -> None:
    """The first of them does not come to an end before all others have."""
    ended = anyio.Event()
    names = [f"user {number}" for number in range(5)]

    async def hold_back(request: WireRequest, send: Send) -> WireResponse:
        assert isinstance(request.body, bytes)
        if b"the slow one" in request.body:
            await ended.wait()
        return await send(request)

    Relay(session, hold_back)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(session.ensure, User, {"username": "the slow one"})
            await anyio.wait_all_tasks_blocked()
            async with anyio.create_task_group() as others:
                for name in names:
                    others.start_soon(session.ensure, User, {"username": name}, ["username"])
                    others.start_soon(session.ensure, "Job", {"data": name})
            ended.set()

    assert await session.query("User where username in {names}", names=names).all()


async def test_what_one_creates_may_be_what_another_looks_for(session: AsyncSession) -> None:
    """They name different attributes, but both find the entity of either."""
    found: list[Entity] = []

    async def ensure(*keys: str) -> None:
        found.append(await session.ensure("User", {"username": "ada", "email": "ada@x"}, keys))

    async with anyio.create_task_group() as group:
        group.start_soon(ensure, "email")
        group.start_soon(ensure, "username")
        group.start_soon(ensure, "username", "email")

    assert len({id(each) for each in found}) == 1


async def test_a_cancelled_ensure_that_was_sent_is_waited_for(session: AsyncSession) -> None:
    arrived, go_on = anyio.Event(), anyio.Event()

    async def hold_the_first_create(request: WireRequest, send: Send) -> WireResponse:
        assert isinstance(request.body, bytes)
        if b'"create"' in request.body and not arrived.is_set():
            arrived.set()
            await go_on.wait()
        return await send(request)

    Relay(session, hold_the_first_create)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            async with anyio.create_task_group() as first:
                first.start_soon(session.ensure, Job, {"data": "x"})
                await arrived.wait()
                first.cancel_scope.cancel()
            group.start_soon(session.ensure, Job, {"data": "x"})
            await anyio.wait_all_tasks_blocked()
            go_on.set()

    assert await count(session, "Job") == 1


async def test_a_failed_ensure_lets_the_next_one_go_on(session: AsyncSession) -> None:
    user = await session.current_user()
    with pytest.raises(FtrackJobsError):
        await session.ensure("Job", {"user_id": "nobody", "data": "x"}, ["data"])

    job = await session.ensure("Job", {"user_id": user.id, "data": "x"}, ["data"])

    assert job["user_id"] == user.id
    assert session.recorded_operations == ()


@pytest.mark.parametrize(
    ("data", "keys", "part"),
    [
        pytest.param({"user.username": "maya"}, None, "user.username", id="path"),
        pytest.param({"username": "x"}, ["user.id"], "user.id", id="path as key"),
        pytest.param({"username": "x", "memberships": []}, None, "memberships", id="list"),
        pytest.param({"start": datetime(2026, 1, 1)}, None, "no time zone", id="naive time"),
    ],
)
async def test_what_cannot_identify_is_refused(
    session: AsyncSession, data: dict[str, Any], keys: list[str] | None, part: str
) -> None:
    with pytest.raises(QueryParameterError, match=part):
        await session.ensure("User" if "start" not in data else "Timelog", data, keys)
    assert session.recorded_operations == ()


async def test_a_wrong_value_is_refused_before_anything_is_asked(session: AsyncSession) -> None:
    with pytest.raises(InvalidValueError, match="runing"):
        await session.ensure(Job, {"status": "runing"})


async def test_queries_compare_times_in_whole_seconds(session: AsyncSession) -> None:
    user = await session.current_user()
    log = session.create("Timelog", {"user_id": user.id, "start": MOMENT, "duration": 1})
    await session.commit()

    for operator in ("is", ">=", "<="):
        found = await session.query(f"Timelog where start {operator} {{t}}", t=MOMENT).all()
        assert found == [log], operator
    for operator in ("is_not", ">", "<"):
        found = await session.query(f"Timelog where start {operator} {{t}}", t=MOMENT).all()
        assert found == [], operator
    assert log["start"] == MOMENT.replace(microsecond=0)
    later = MOMENT + timedelta(seconds=1)
    assert await session.query("Timelog where start < {t}", t=later).all() == [log]


async def test_what_is_not_yet_created_is_refused_before_anything_is_sent(
    session: AsyncSession,
) -> None:
    user = session.create(User, {"username": "new"})
    with pytest.raises(EntityError, match="commit it first"):
        await session.ensure(Job, {"user": user, "status": JobStatus.QUEUED}, ["user"])
    with pytest.raises(EntityError, match="commit it first"):
        async with job_context(session, user=user):
            pass
    assert await count(session, "Job") == 0


async def test_what_is_being_created_is_waited_for(session: AsyncSession) -> None:
    user = session.create(User, {"username": "new"})
    async with anyio.create_task_group() as group:
        group.start_soon(session.commit)
        await anyio.lowlevel.checkpoint()
        job = await session.ensure(Job, {"user": user, "status": JobStatus.QUEUED}, ["user"])
    async with job_context(session, user=user):
        pass
    assert job["user"] is user
    assert await count(session, "Job") == 2
