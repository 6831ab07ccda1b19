"""Values that a server would refuse, or take in another sense, are refused when they are given."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest

from aioftrackjobs import (
    AsyncSession,
    Entity,
    EntityError,
    InvalidValueError,
    Job,
    JobStatus,
    UnknownAttributeError,
    UnknownEntityTypeError,
    job_context,
)
from aioftrackjobs.transport import WireRequest, WireResponse

from .relay import Relay, Send


async def new_job(session: AsyncSession, **values: Any) -> Job:
    return session.create(Job, {"user": await session.current_user(), **values})


async def test_a_description_can_be_set_on_a_job_without_data(
    session: AsyncSession, other: AsyncSession
) -> None:
    before, after = await new_job(session), await new_job(session)
    before.description = "before the commit"
    await session.commit()
    assert (after.data, after.description) == (None, None)
    after.description = "after the commit"
    await session.commit()

    for job, text in ((before, "before the commit"), (after, "after the commit")):
        found = await other.get(Job, job.id)
        assert found is not None
        assert found.description == text
    empty = await other.get(Job, (await created(session)).id)
    assert empty is not None
    empty.description = "of a Job that was loaded"
    await other.commit()
    assert empty.description == "of a Job that was loaded"


async def created(session: AsyncSession) -> Job:
    job = await new_job(session)
    await session.commit()
    return job


async def test_data_that_others_wrote_meanwhile_is_not_taken_for_none(
    session: AsyncSession, other: AsyncSession
) -> None:
    job = await created(session)
    held = await other.get(Job, job.id)
    assert held is not None
    held.data = '{"description": "theirs", "kept": 1}'
    await other.commit()

    await session.populate(job, "data")

    assert job.description == "theirs"


async def test_a_wrong_value_in_ensure_and_update_records_nothing(
    session: AsyncSession,
) -> None:
    job = await created(session)

    with pytest.raises(InvalidValueError, match=r"Job\.status cannot be 'runing'"):
        await session.ensure(Job, {"id": job.id, "status": "runing"}, ["id"])
    with pytest.raises(InvalidValueError, match="Did you mean 'running'"):
        job.update(user_id="u", status="runing")

    assert session.recorded_operations == ()
    assert job.status is JobStatus.QUEUED


@pytest.mark.parametrize(
    "attach",
    [
        lambda session, job, data: session.create_component(b"x", data, name="x.txt"),
        lambda session, job, data: job.attach(b"x", data=data, name="x.txt"),
    ],
    ids=["create_component", "attach"],
)
@pytest.mark.parametrize(
    ("data", "error"),
    [
        ({"metadata": {"a": 1}}, InvalidValueError),
        ({"metadata": [{"key": "a", "value": 1}]}, InvalidValueError),
        ({"custom_attributes": {"a": 1}}, EntityError),
        ({"size": "big"}, InvalidValueError),
        ({"sice": 5}, UnknownAttributeError),
    ],
    ids=str,
)
async def test_wrong_data_of_a_component_is_refused_before_its_bytes_are_sent(
    session: AsyncSession,
    attach: Callable[..., Any],
    data: dict[str, Any],
    error: type[Exception],
) -> None:
    sent: list[str] = []

    async def note(request: WireRequest, send: Send) -> WireResponse:
        sent.append(request.method)
        return await send(request)

    async with job_context(session) as job:
        relay = Relay(session, note)
        with pytest.raises(error):
            await attach(session, job, data)
        relay.end()

    assert [each for each in sent if each != "POST"] == []
    assert await session.query("FileComponent").all() == []


async def test_a_generic_entity_has_no_misspelt_attributes_once_its_schema_is_known(
    session: AsyncSession,
) -> None:
    task = await session.query("Task").first()
    assert task is not None  # the query has loaded the schemas

    with pytest.raises(UnknownAttributeError, match="Did you mean 'status_id'"):
        task["staus_id"] = "x"
    with pytest.raises(UnknownAttributeError, match="Did you mean 'name'"):
        task["nmae"]
    with pytest.raises(UnknownAttributeError, match="Did you mean 'description'"):
        session.create("Task", {"desciption": "x"})
    with pytest.raises(InvalidValueError, match=r"Task\.status cannot be 'done'"):
        task["status"] = "done"
    with pytest.raises(InvalidValueError, match=r"Task\.assignments cannot be"):
        session.create("Task", {"name": "x", "assignments": ["maya"]})
    with pytest.raises(UnknownEntityTypeError, match="Did you mean 'Task'"):
        session.create("Tsak", {})
    assert session.recorded_operations == ()
    assert {"name", "status", "assignments"} <= set(dir(task))
    assert repr(task).startswith(f"<Task {task['id']} ")
    assert task["name"] in repr(task)


async def test_uuid_objects_are_ids_in_values(session: AsyncSession, other: AsyncSession) -> None:
    user = await session.current_user()
    key = uuid.uuid4()
    session.create(Job, {"id": key, "user_id": uuid.UUID(user.id)})
    session.create("Note", {"content": "x", "author": user, "parent_id": key, "parent_type": "Job"})
    note = session.created[-1]
    assert note["parent_id"] == str(key)
    session.rollback()
    job = session.create(Job, {"id": key, "user_id": uuid.UUID(user.id)})
    await session.commit()

    found = await other.get(Job, str(key))

    assert found is not None
    assert (found.id, found.user_id, job.id) == (str(key), user.id, str(key))


async def test_a_misspelt_attribute_of_a_running_job_is_an_error(session: AsyncSession) -> None:
    async with job_context(session) as job, job.stage("encode") as stage:
        for target in (job, stage):
            with pytest.raises(AttributeError, match="desciption"):
                target.desciption = "x"  # type: ignore[union-attr]
        job.description = "right"

    assert job.description == "right"


async def test_entities_of_another_session_are_refused(
    session: AsyncSession, other: AsyncSession
) -> None:
    job = await created(session)

    for entities in (job, [job], (each for each in [job])):
        with pytest.raises(EntityError, match="does not belong to this session"):
            await other.populate(entities, "status")
    with pytest.raises(EntityError, match="does not belong to this session"):
        other.delete(job)
    assert isinstance(job, Entity)
