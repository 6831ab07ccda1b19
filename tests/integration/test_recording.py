"""Recording without I/O, rolling back, and units of work."""

from __future__ import annotations

import anyio
import pytest

from aioftrackjobs import (
    AsyncSession,
    EntityError,
    InvalidKeyError,
    Job,
    JobComponent,
    JobStatus,
    ServerError,
    UnknownAttributeError,
    UnserialisableValueError,
    User,
)
from aioftrackjobs.protocol.operations import Create, Delete, Update


async def saved_job(session: AsyncSession) -> Job:
    job = session.create(Job, {"status": "queued", "data": {"description": "before"}})
    await session.commit()
    return job


async def test_changes_are_recorded_and_not_sent(
    session: AsyncSession, other: AsyncSession
) -> None:
    saved = await saved_job(session)

    new = session.create("Job", {"status": "running"})
    saved["status"] = "done"
    session.delete(saved)

    kinds = [type(operation) for operation in session.recorded_operations]
    assert kinds == [Create, Update, Delete]
    assert session.created == [new]
    assert session.modified == []
    assert session.deleted == [saved]
    assert await other.get(Job, new["id"]) is None


async def test_modified_lists_changed_entities_once(session: AsyncSession) -> None:
    saved = await saved_job(session)

    saved.status = JobStatus.RUNNING
    saved.description = "x"

    assert session.modified == [saved]


async def test_a_commit_sends_all_and_leaves_nothing(
    session: AsyncSession, other: AsyncSession
) -> None:
    user = await session.current_user()
    job = session.create("Job", {"user": user, "status": "running"})
    job["data"] = {"description": "x"}
    await session.commit()

    assert session.recorded_operations == ()
    assert (session.created, session.modified, session.deleted) == ([], [], [])
    theirs = await other.get(Job, job["id"])
    assert theirs is not None
    assert (theirs.status, theirs.description, theirs.user_id) == ("running", "x", user.id)


async def test_values_that_the_server_sets_are_there_after_the_commit(
    session: AsyncSession,
) -> None:
    job = await saved_job(session)

    await session.populate(job, "created_at")
    job.status = JobStatus.DONE
    await session.commit()
    await session.populate(job, "finished_at")

    assert job.created_at is not None
    assert job.finished_at is not None


async def test_deleting_removes_it_from_the_server_and_detaches_it(
    session: AsyncSession, other: AsyncSession, caplog: pytest.LogCaptureFixture
) -> None:
    job = await saved_job(session)

    session.delete(job)
    await session.commit()
    assert caplog.messages == []
    job["status"] = "done"

    assert await other.get(Job, job.id) is None
    assert session.recorded_operations == ()
    (message,) = caplog.messages
    assert "was deleted, or its creation was rolled back: its new status" in message


async def test_a_key_can_be_created_again_after_its_deletion(
    session: AsyncSession, other: AsyncSession
) -> None:
    job = await saved_job(session)

    session.delete(job)
    again = session.create(Job, {"id": job.id, "data": {"description": "second life"}})
    await session.commit()

    theirs = await other.get(Job, job.id)
    assert theirs is not None
    assert theirs.description == "second life"
    assert await session.get(Job, job.id) is again


async def test_rollback_puts_everything_back(session: AsyncSession, other: AsyncSession) -> None:
    saved = await saved_job(session)
    new = session.create("Job", {"status": "running"})
    saved["status"] = "done"
    saved["status"] = "failed"
    saved["user_id"] = "u"
    session.delete(saved)

    session.rollback()
    await session.commit()

    assert session.recorded_operations == ()
    assert saved["status"] == "queued"
    assert "user_id" not in saved
    assert await other.get(Job, saved.id) is not None
    assert await other.get(Job, new["id"]) is None


async def test_rollback_detaches_what_was_created(
    session: AsyncSession, caplog: pytest.LogCaptureFixture
) -> None:
    new = session.create("Job", {"status": "running"})

    session.rollback()
    new["status"] = "done"

    (message,) = caplog.messages
    assert "was deleted, or its creation was rolled back: its new status" in message

    assert session.recorded_operations == ()
    assert await session.get("Job", new["id"]) is None


async def test_rollback_breaks_nothing_else_locations_included(session: AsyncSession) -> None:
    location = await session.query('Location where name is "ftrack.server"').one()
    session.create("Job", {})

    session.rollback()

    component = await session.create_component(b"x", name="x.txt", location=location)
    again = await session.query('Location where name is "ftrack.server"').one()
    assert again is location
    assert component["id"] in location.get_url(component)  # type: ignore[attr-defined]


async def test_taking_a_change_back_sends_nothing(session: AsyncSession) -> None:
    saved = await saved_job(session)
    saved["status"] = "done"
    del saved["status"]
    await session.commit()

    await session.query("Job").all()
    assert saved["status"] == "queued"


async def test_an_operation_recorded_during_a_commit_waits_for_the_next(
    session: AsyncSession, other: AsyncSession
) -> None:
    saved = await saved_job(session)
    saved["status"] = "running"

    async with anyio.create_task_group() as group:
        group.start_soon(session.commit)
        while session.recorded_operations:
            await anyio.lowlevel.checkpoint()
        saved["status"] = "done"

    assert saved["status"] == "done"
    assert len(session.recorded_operations) == 1
    await session.commit()
    theirs = await other.get(Job, saved.id)
    assert theirs is not None
    assert theirs.status == "done"


async def test_bad_input_is_refused_before_anything_is_recorded(session: AsyncSession) -> None:
    with pytest.raises(ValueError, match="api_job"):
        session.create("Job", {"type": "sync_job"})
    with pytest.raises(ValueError, match="JobStatus"):
        session.create("Job", {"status": "paused"})
    with pytest.raises(UnknownAttributeError, match="'status'"):
        session.create("Job", {"statsu": "running"})
    with pytest.raises(InvalidKeyError, match="component_id, job_id"):
        session.create("JobComponent", {"job_id": "j"})
    with pytest.raises(UnserialisableValueError) as caught:
        session.create("Job", {"data": {"a": [{"b": {1}}]}})
    assert caught.value.path == "Job.data.a[0].b"
    with pytest.raises(UnserialisableValueError) as caught:
        session.create("Note", {"content": b"x"})
    assert caught.value.path == "Note.content"

    assert session.recorded_operations == ()


async def test_the_key_of_a_link_may_be_given_as_entities(session: AsyncSession) -> None:
    job = await saved_job(session)
    component = await session.create_component(b"x", name="x.txt")

    link = session.create(JobComponent, {"component": component, "job": job})
    await session.commit()

    assert (link["component_id"], link["job_id"]) == (component.id, job.id)


async def test_an_unknown_type_is_refused_by_the_server_then_locally(
    session: AsyncSession,
) -> None:
    session.create("Nonsense", {"name": "x"})
    with pytest.raises(ServerError):
        await session.commit()
    session.rollback()

    await session.schemas()
    with pytest.raises(UnknownAttributeError, match="'name'"):
        session.create("Project", {"nane": "x"})


async def test_adding_to_a_collection_is_recorded(
    session: AsyncSession, other: AsyncSession
) -> None:
    container = session.create("ContainerComponent", {"name": "all"})
    member = await session.create_component(b"x", name="x.txt")
    await session.commit()
    await session.populate(container, "members")

    container["members"].append(member)
    await session.commit()

    theirs = await other.query("select members from ContainerComponent").one()
    assert [each["id"] for each in theirs["members"]] == [member.id]


# Units of work


@pytest.mark.other_client
async def test_a_unit_belongs_to_its_flow(session: AsyncSession, other: AsyncSession) -> None:
    outside = session.create("Job", {"data": {"description": "half done"}})

    async with session.unit_of_work() as unit:
        inside = session.create("Job", {"data": {"description": "done"}})
        assert session.created == [inside]
        await unit.commit()

    assert await other.get("Job", inside["id"]) is not None
    assert await other.get("Job", outside["id"]) is None
    assert session.created == [outside]


async def test_a_clean_exit_commits_the_rest(session: AsyncSession, other: AsyncSession) -> None:
    async with session.unit_of_work():
        job = session.create("Job", {})

    assert await other.get("Job", job["id"]) is not None


async def test_an_error_rolls_the_unit_back(session: AsyncSession, other: AsyncSession) -> None:
    saved = await saved_job(session)
    with pytest.raises(RuntimeError):
        async with session.unit_of_work():
            saved.status = JobStatus.DONE
            job = session.create("Job", {})
            raise RuntimeError

    assert saved.status is JobStatus.QUEUED
    assert await other.get("Job", job["id"]) is None
    assert session.recorded_operations == ()


@pytest.mark.other_client
async def test_child_tasks_are_of_their_parents_flow(session: AsyncSession) -> None:
    async with session.unit_of_work() as unit:

        async def child() -> None:
            session.create("Job", {})

        async with anyio.create_task_group() as group:
            group.start_soon(child)
        assert len(unit.created) == 1


async def test_units_nest(session: AsyncSession) -> None:
    async with session.unit_of_work() as outer:
        first = session.create("Job", {})
        async with session.unit_of_work() as inner:
            second = session.create("Job", {})
            assert (outer.created, inner.created) == ([first], [second])
        assert session.created == [first]


async def test_two_flows_of_one_entity_send_only_their_own(
    session: AsyncSession, other: AsyncSession
) -> None:
    saved = await saved_job(session)
    saved.status = JobStatus.RUNNING

    async with session.unit_of_work():
        saved.description = "from the unit"

    theirs = await other.get(Job, saved.id)
    assert theirs is not None
    assert (theirs.status, theirs.description) == ("queued", "from the unit")
    assert saved.status is JobStatus.RUNNING
    assert session.modified == [saved]


async def test_user_names_may_be_changed_and_read_back(session: AsyncSession) -> None:
    user = session.create(User, {"username": "ada", "is_active": True})
    await session.commit()
    user.first_name = "Ada"

    await session.commit()

    assert await session.query('User where first_name is "Ada"').one() is user


async def test_deleting_twice_sends_one_delete(session: AsyncSession, other: AsyncSession) -> None:
    job = await saved_job(session)

    session.delete(job)
    session.delete(job)

    assert len(session.recorded_operations) == 1
    await session.commit()
    assert await other.get(Job, job.id) is None


async def test_an_entity_that_is_to_be_deleted_cannot_be_changed(session: AsyncSession) -> None:
    job = await saved_job(session)
    session.delete(job)

    with pytest.raises(EntityError, match="deleted"):
        job.status = JobStatus.DONE
    session.rollback()
    job.status = JobStatus.DONE

    assert session.modified == [job]


async def test_only_entities_of_the_session_can_be_deleted(
    session: AsyncSession, other: AsyncSession
) -> None:
    theirs = await saved_job(other)

    for entity in (theirs, Job(status="running")):
        with pytest.raises(EntityError, match="does not belong to this session"):
            session.delete(entity)

    assert session.recorded_operations == ()


async def test_what_another_unit_has_yet_to_create_cannot_be_deleted(
    session: AsyncSession, other: AsyncSession
) -> None:
    job = session.create(Job, {})
    taken_back = session.create(Job, {})

    async with session.unit_of_work():
        with pytest.raises(EntityError, match="not yet created"):
            session.delete(job)
    session.delete(taken_back)
    await session.commit()
    async with session.unit_of_work():
        session.delete(job)

    assert await other.get(Job, job.id) is None
