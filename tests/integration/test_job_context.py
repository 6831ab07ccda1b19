"""job_context: a Job is running inside the block, and its final status is always recorded."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import anyio
import pytest

from aioftrackjobs import (
    AsyncSession,
    CommitUncertainError,
    EntityError,
    Job,
    JobStatus,
    NoResultFoundError,
    RunningJob,
    TransportError,
    User,
    current_job,
    job_context,
)
from aioftrackjobs.config.retry import NO_RETRIES
from aioftrackjobs.devserver import ServerHandle
from aioftrackjobs.session import connection_of
from aioftrackjobs.transport import WireRequest, WireResponse

from .relay import Relay, Send, cut_off
from .waiting import cancelled_after, shows, until


async def fetch(session: AsyncSession, job_id: str) -> Job:
    job = await session.get(Job, job_id)
    assert job is not None
    await session.populate(job, "user.username, job_components.component.name")
    return job


@pytest.mark.other_client
async def test_a_job_is_running_inside_and_done_after(
    session: AsyncSession, other: AsyncSession
) -> None:
    async with job_context(session, description="Transcode sh010") as job:
        inside = await fetch(other, job.id)
        assert inside.status is JobStatus.RUNNING
        assert inside.description == "Transcode sh010"
        assert inside["user"]["username"] == session.api_user

    after = await fetch(other, job.id)
    assert after.status is JobStatus.DONE
    assert after.description == "Transcode sh010"
    assert after.finished_at is not None
    assert job.entity.status is JobStatus.DONE


async def test_an_exception_fails_the_job_with_its_reason_and_traceback(
    session: AsyncSession, other: AsyncSession
) -> None:
    with pytest.raises(ValueError, match="bad frame"):
        async with job_context(session, description="Transcode") as job:
            raise ValueError("bad frame {1001}")

    after = await fetch(other, job.id)
    assert after.status is JobStatus.FAILED
    assert after.description == "Transcode - failed: ValueError: bad frame {1001}"
    (link,) = after["job_components"]
    path = await other.download(link["component"], anyio.Path("x").name)
    text = await anyio.Path(path).read_text()
    await anyio.Path(path).unlink()
    assert "ValueError: bad frame {1001}" in text
    assert "test_job_context.py" in text


async def test_the_traceback_can_be_switched_off(
    session: AsyncSession, other: AsyncSession
) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        async with job_context(session, attach_traceback=False) as job:
            raise ValueError

    after = await fetch(other, job.id)
    assert after.description == "failed: ValueError"
    assert list(after["job_components"]) == []


@pytest.mark.other_client
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        pytest.param(
            asyncio.CancelledError(), "cancelled", id="cancelled", marks=pytest.mark.asyncio_only
        ),
        pytest.param(KeyboardInterrupt(), "interrupted", id="ctrl-c"),
        pytest.param(SystemExit(3), "the process exits with 3", id="exit"),
    ],
)
async def test_leaving_by_other_than_an_exception_fails_the_job_too(
    session: AsyncSession, other: AsyncSession, error: BaseException, reason: str
) -> None:
    with pytest.raises(type(error)):
        async with job_context(session) as job:
            raise error

    after = await fetch(other, job.id)
    assert (after.status, after.description) == (JobStatus.FAILED, f"failed: {reason}")


@pytest.mark.other_client
@pytest.mark.asyncio_only
async def test_a_cancelled_task_fails_its_job(session: AsyncSession, other: AsyncSession) -> None:
    begun: list[RunningJob] = []
    inside = anyio.Event()

    async def work() -> None:
        async with job_context(session) as job:
            begun.append(job)
            inside.set()
            await anyio.sleep_forever()

    task = asyncio.create_task(work())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert (await fetch(other, begun[0].id)).status is JobStatus.FAILED


@pytest.mark.other_client
async def test_a_failing_sibling_fails_the_job(session: AsyncSession, other: AsyncSession) -> None:
    begun: list[RunningJob] = []
    inside = anyio.Event()

    async def work() -> None:
        async with job_context(session, description="innocent") as job:
            begun.append(job)
            inside.set()
            await anyio.sleep_forever()

    async def fail() -> None:
        await inside.wait()
        raise RuntimeError("sibling")

    with pytest.raises(ExceptionGroup):
        async with anyio.create_task_group() as group:
            group.start_soon(work)
            group.start_soon(fail)

    after = await fetch(other, begun[0].id)
    assert after.status is JobStatus.FAILED
    reason = "innocent - failed: cancelled because another task failed: RuntimeError"
    assert str(after.description).startswith(reason)
    assert "sibling" in str(after.description)


@pytest.mark.other_client
async def test_a_timeout_scope_around_fails_the_job(
    session: AsyncSession, other: AsyncSession
) -> None:
    with anyio.CancelScope() as scope:
        async with job_context(session) as job:
            scope.cancel()
            await anyio.sleep_forever()

    assert (await fetch(other, job.id)).status is JobStatus.FAILED


async def test_a_timeout_scope_inside_does_not(session: AsyncSession, other: AsyncSession) -> None:
    async with job_context(session) as job:
        with anyio.move_on_after(0):
            await anyio.sleep_forever()

    assert (await fetch(other, job.id)).status is JobStatus.DONE


@pytest.mark.other_client
@pytest.mark.asyncio_only
async def test_asyncio_timeout_fails_the_job(session: AsyncSession, other: AsyncSession) -> None:
    begun: list[RunningJob] = []
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            async with job_context(session) as job:
                begun.append(job)
                await anyio.sleep_forever()

    for job in begun:
        assert (await fetch(other, job.id)).status is JobStatus.FAILED
    jobs = await other.query('Job where status is "running"').all()
    assert jobs == []


@pytest.mark.other_client
async def test_a_cancellation_during_the_entry_leaves_no_running_job(
    session: AsyncSession, other: AsyncSession
) -> None:
    for checkpoints in range(30):
        async with cancelled_after(checkpoints):
            async with job_context(session):
                await anyio.sleep_forever()

    assert await other.query('Job where status is "running"').all() == []


async def test_nested_contexts_are_jobs_of_their_own(
    session: AsyncSession, other: AsyncSession
) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        async with job_context(session, description="outer") as outer:
            async with job_context(session, description="first") as first:
                assert current_job() is first
            assert current_job() is outer
            async with job_context(session, description="second") as second:
                raise ValueError

    states = [(await fetch(other, job.id)).status for job in (outer, first, second)]
    assert states == [JobStatus.FAILED, JobStatus.DONE, JobStatus.FAILED]
    with pytest.raises(LookupError):
        current_job()


async def test_a_user_by_id_name_or_entity(session: AsyncSession, other: AsyncSession) -> None:
    maya = await session.ensure(User, {"username": "maya"})
    for user in ("maya", maya.id, maya.id.upper(), f"{{{maya.id}}}", UUID(maya.id), maya):
        async with job_context(session, user=user) as job:
            pass

        assert (await fetch(other, job.id))["user_id"] == maya.id, user


async def test_a_name_that_looks_like_an_id_and_an_id_that_looks_like_a_name(
    session: AsyncSession, other: AsyncSession
) -> None:
    """No user gets the Jobs of another by taking that user's id as a name, or name as an id."""
    maya = await session.ensure(User, {"username": "maya"})
    named = await session.ensure(User, {"username": maya.id})
    lonely = await session.ensure(User, {"username": str(uuid4())})
    session.create(User, {"id": "maya", "username": "other", "is_active": True})
    await session.commit()

    for user, wanted in (
        (maya.id, maya),
        (lonely.username, lonely),
        ("maya", maya),
        (named, named),
    ):
        async with job_context(session, user=user) as job:
            pass

        assert (await fetch(other, job.id))["user_id"] == wanted.id, user


async def test_a_uuid_is_no_name(session: AsyncSession, other: AsyncSession) -> None:
    unknown = uuid4()
    await session.ensure(User, {"username": str(unknown)})

    with pytest.raises(NoResultFoundError, match=str(unknown)):
        async with job_context(session, user=unknown):
            pytest.fail("the block must not run")

    assert await other.query("Job").all() == []


async def test_an_unknown_user_is_an_error_before_anything_is_created(
    session: AsyncSession, other: AsyncSession
) -> None:
    with pytest.raises(NoResultFoundError, match="unknown"):
        async with job_context(session, user="unknown"):
            pytest.fail("the block must not run")

    assert await other.query("Job").all() == []


@pytest.mark.parametrize("by_id", [True, False])
async def test_an_existing_job_is_taken_over_with_what_it_keeps(
    session: AsyncSession, other: AsyncSession, by_id: bool
) -> None:
    made = other.create(Job, {"data": {"description": "Queued work", "frames": [1, 2]}})
    await other.commit()
    job = made.id if by_id else await session.get(Job, made.id)

    async with job_context(session, job=job, data={"host": "node7"}) as running:
        inside = await fetch(other, made.id)
        assert inside.status is JobStatus.RUNNING
        running.progress(0.5)

    after = await fetch(other, made.id)
    assert after.status is JobStatus.DONE
    assert json.loads(after["data"]) == {
        "description": "Queued work",
        "frames": [1, 2],
        "host": "node7",
        "progress": 0.5,
    }


@pytest.mark.parametrize("owner", ["another session", "no session"])
async def test_an_entity_of_elsewhere_names_a_job_whose_data_is_read(
    session: AsyncSession, other: AsyncSession, owner: str
) -> None:
    async with other.unit_of_work():
        job = other.create(Job, {"user": await other.current_user(), "status": "queued"})
    given = job if owner == "another session" else Job(id=job.id, status="queued")
    async with session.unit_of_work():
        mine = await session.get(Job, job.id)
        assert mine is not None
        mine["data"] = {"shot": "sh010"}

    async with job_context(session, job=given) as running:
        assert running.entity is mine

    await other.populate(job, "data, status")
    assert job.status == JobStatus.DONE
    assert json.loads(job.data or "")["shot"] == "sh010"


async def test_a_job_that_is_not_committed_is_an_error_that_says_so(session: AsyncSession) -> None:
    job = session.create(Job, {"user": await session.current_user(), "status": "queued"})

    for given in (job, job.id):
        with pytest.raises(EntityError, match="not yet created; commit it first"):
            async with job_context(session, job=given):
                pass

    session.rollback()
    with pytest.raises(NoResultFoundError):
        async with job_context(session, job=job):
            pass


async def test_an_existing_job_that_is_not_there_is_an_error(session: AsyncSession) -> None:
    with pytest.raises(NoResultFoundError, match="missing"):
        async with job_context(session, job="missing"):
            pytest.fail("the block must not run")


@pytest.mark.parametrize("data", ["not json", "[1]"])
async def test_data_that_is_no_json_object_is_refused(session: AsyncSession, data: str) -> None:
    with pytest.raises(ValueError, match="JSON object"):
        async with job_context(session, data=data):
            pytest.fail("the block must not run")


async def test_data_may_be_json_text(session: AsyncSession, other: AsyncSession) -> None:
    async with job_context(session, description="x", data='{"kept": 1}') as job:
        pass

    assert json.loads((await fetch(other, job.id))["data"]) == {"kept": 1, "description": "x"}


async def test_what_other_code_has_recorded_is_not_committed_with_a_report(
    session: AsyncSession, other: AsyncSession
) -> None:
    half_done = session.create("Job", {"data": {"description": "half done"}})

    async with job_context(session) as job:
        job.progress(0.5)
        await job.attach(b"x", name="x.txt")

    assert await other.get("Job", half_done["id"]) is None
    assert session.created == [half_done]


async def test_local_changes_of_the_job_travel_with_its_end_and_not_later(
    session: AsyncSession, other: AsyncSession
) -> None:
    async with job_context(session, description="Render") as job:
        job.entity["data"] = {"mine": 1}

    assert session.modified == []
    await session.commit()
    after = await fetch(other, job.id)
    assert after.status is JobStatus.DONE
    assert json.loads(after["data"]) == {"mine": 1, "description": "Render"}


# As a decorator


async def test_a_decorated_function_runs_as_a_job_each_time(
    session: AsyncSession, other: AsyncSession
) -> None:
    ids: list[str] = []

    @job_context(session, description="Nightly")
    async def nightly(value: int) -> int:
        ids.append(current_job().id)
        current_job().progress(1, "there")
        return value * 2

    assert [await nightly(1), await nightly(2)] == [2, 4]
    assert len(set(ids)) == 2
    for job_id in ids:
        after = await fetch(other, job_id)
        assert (after.status, after.description) == (JobStatus.DONE, "Nightly")


# RunningJob


async def test_the_last_progress_is_written_with_the_final_status(
    session: AsyncSession, other: AsyncSession
) -> None:
    async with job_context(session, description="Render", interval=3600) as job:
        for number in range(100):
            job.progress(number + 1, "frames", total=100)

    after = await fetch(other, job.id)
    assert after.description == "Render"
    assert json.loads(after["data"])["progress"] == 1.0


async def test_progress_shows_while_the_job_runs(
    session: AsyncSession, other: AsyncSession
) -> None:
    async with job_context(session, description="Render") as job:
        job.progress(0.25, "encoding")

        assert await shows(other, job, "Render (25 %, encoding)")


async def test_track_reports_each_item(session: AsyncSession, other: AsyncSession) -> None:
    async def shots() -> AsyncIterator[str]:
        yield "sh010"
        yield "sh020"

    async with job_context(session, description="Render") as job:
        assert [item async for item in job.track(["a", "b", "c"])] == ["a", "b", "c"]
        assert [item async for item in job.track(shots(), total=4)] == ["sh010", "sh020"]
        job.fail("enough")

    after = await fetch(other, job.id)
    assert after.description == "Render (50 %, 2 of 4) - failed: enough"


async def test_track_without_a_length_still_iterates(session: AsyncSession) -> None:
    async with job_context(session) as job:
        assert [item async for item in job.track(iter("ab"))] == ["a", "b"]


async def test_fail_ends_as_failed_without_raising(
    session: AsyncSession, other: AsyncSession
) -> None:
    async with job_context(session, description="Render") as job:
        job.fail("2 of 120 shots failed")

    after = await fetch(other, job.id)
    assert after.status is JobStatus.FAILED
    assert after.description == "Render - failed: 2 of 120 shots failed"
    assert list(after["job_components"]) == []


async def test_attach_uploads_and_links(session: AsyncSession, other: AsyncSession) -> None:
    async with job_context(session) as job:
        component = await job.attach(b"hello", name="report.txt", data={"name": "Report"})

    after = await fetch(other, job.id)
    assert [link["component"]["name"] for link in after["job_components"]] == ["Report"]
    assert component.file_type == ".txt"


async def test_a_second_attachment_warns_once(session: AsyncSession) -> None:
    async with job_context(session) as job:
        await job.attach(b"1", name="1.txt")
        with pytest.warns(UserWarning, match="only one"):
            await job.attach(b"2", name="2.txt")
        await job.attach(b"3", name="3.txt")


# Faults


async def test_the_blocks_error_wins_over_an_error_of_the_reporting(
    server: ServerHandle, caplog: pytest.LogCaptureFixture
) -> None:
    async with AsyncSession(server.url, server.api_key, server.api_user) as session:
        with pytest.raises(ValueError, match="the block"):
            async with job_context(session, grace=0.2) as job:
                cut_off(session)
                raise ValueError("the block")

    assert f"{job.id}" in caplog.text
    assert "not reported" in caplog.text


async def test_a_done_that_cannot_be_reported_is_an_error(server: ServerHandle) -> None:
    async with AsyncSession(server.url, server.api_key, server.api_user) as session:
        with pytest.raises(Exception, match="cannot reach"):
            async with job_context(session, grace=0.2):
                cut_off(session)


async def test_the_final_status_is_sent_again_while_the_server_does_not_respond(
    session: AsyncSession, other: AsyncSession, server: ServerHandle
) -> None:
    """The Job is read first, for a quarter of the grace at most."""
    async with anyio.create_task_group() as group, job_context(session, grace=3) as job:
        dispatcher, outage = connection_of(session).dispatcher, cut_off(session)

        async def come_back() -> None:
            while not dispatcher.backlog().sent:  # for moments only
                await anyio.lowlevel.checkpoint()
            outage.end()

        group.start_soon(come_back)

    assert (await fetch(other, job.id)).status is JobStatus.DONE


async def test_progress_that_cannot_be_written_does_not_stop_the_work(
    session: AsyncSession, other: AsyncSession, caplog: pytest.LogCaptureFixture
) -> None:
    async with job_context(session, description="Render", interval=0) as job:
        outage = cut_off(session)
        job.progress(0.25)
        await until(lambda: "trying again" in caplog.text)
        outage.end()

    assert json.loads((await fetch(other, job.id))["data"])["progress"] == 0.25


async def test_a_beginning_that_is_refused_raises_and_leaves_nothing(
    session: AsyncSession, other: AsyncSession, caplog: pytest.LogCaptureFixture
) -> None:
    ghost = session.create("User", {"username": "ghost"})
    session.rollback()

    with pytest.raises(Exception, match="user_id") as caught:
        async with job_context(session, user=ghost):
            pytest.fail("the block must not run")

    assert not isinstance(caught.value, CommitUncertainError)
    assert await other.query("Job").all() == []
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.other_client
async def test_hundreds_of_jobs_share_a_session(session: AsyncSession, other: AsyncSession) -> None:
    async def work(number: int) -> None:
        async with job_context(session, description=f"{number}") as job:
            job.progress(1)
            if number % 10 == 0:
                job.fail("every tenth")

    limiter = anyio.CapacityLimiter(50)

    async def limited(number: int) -> None:
        async with limiter:
            await work(number)

    async with anyio.create_task_group() as group:
        for number in range(200):
            group.start_soon(limited, number)

    done = await other.query('select id from Job where status is "done"').all()
    failed = await other.query('select id from Job where status is "failed"').all()
    assert (len(done), len(failed)) == (180, 20)


async def test_a_beginning_without_a_response_is_looked_up_and_goes_on(
    session: AsyncSession, other: AsyncSession
) -> None:
    """The response to the creation is lost; the server has the Job all the same."""
    await session.current_user()

    async def lose_one_response(request: WireRequest, send: Send) -> WireResponse:
        relay.end()
        await send(request)
        raise TransportError("the response is lost")

    relay = Relay(session, lose_one_response)
    async with job_context(session, description="found again") as job:
        assert (await fetch(other, job.id)).status is JobStatus.RUNNING

    assert (await fetch(other, job.id)).status is JobStatus.DONE
    assert len(await other.query("Job").all()) == 1


async def test_a_beginning_that_never_arrived_is_uncertain_and_leaves_nothing(
    server: ServerHandle, other: AsyncSession
) -> None:
    async def lose_the_request(_: WireRequest, __: Send) -> WireResponse:
        relay.end()
        raise TransportError("the request is lost")

    async with AsyncSession(
        server.url, server.api_key, server.api_user, retry=NO_RETRIES
    ) as session:
        await session.current_user()
        relay = Relay(session, lose_the_request)
        with pytest.raises(CommitUncertainError):
            async with job_context(session, grace=0.1):
                pytest.fail("the block must not run")

    assert await other.query("Job").all() == []


async def test_a_final_status_without_a_response_is_sent_again(
    session: AsyncSession, other: AsyncSession
) -> None:
    lost = 0

    async def lose_two_responses(request: WireRequest, send: Send) -> WireResponse:
        nonlocal lost
        assert isinstance(request.body, bytes)
        if b'"update"' in request.body:
            lost += 1
            if lost <= 2:
                raise TransportError("the response is lost")
        return await send(request)

    async with job_context(session) as job:
        Relay(session, lose_two_responses)

    assert lost == 3
    assert (await fetch(other, job.id)).status is JobStatus.DONE
