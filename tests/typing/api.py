"""What users write, as type checkers see it: checked by mypy and pyright, never run."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, assert_type
from uuid import UUID

import httpx
import httpx2
from httpx_aiohttp import AiohttpTransport, HttpxAiohttpClient
from pydantic import BaseModel

from aioftrackjobs import (
    ArgumentError,
    AsyncSession,
    Entity,
    FileComponent,
    Health,
    InvalidValueError,
    Job,
    JobComponent,
    JobState,
    JobStatus,
    Location,
    RecoveredJob,
    Recovery,
    RunningJob,
    Stage,
    StopRequest,
    User,
    Verdict,
    job_context,
    job_key,
    recover,
    shutdown_on_signals,
    testing,
)
from aioftrackjobs.actions import Actions, Launch, LaunchOutcome, stop_my_jobs
from aioftrackjobs.events import (
    ActionLaunch,
    AttributeChange,
    EntityChange,
    Event,
    Gap,
    Lagged,
    UpdateEvent,
)


def clients() -> None:
    AsyncSession(client=httpx.AsyncClient(transport=AiohttpTransport()))
    AsyncSession(client=HttpxAiohttpClient())
    AsyncSession(client=httpx2.AsyncClient())
    AsyncSession(client=httpx.Client())  # type: ignore[arg-type]  # it cannot be awaited


async def reading(session: AsyncSession) -> None:
    assert_type(await session.query("Job").all(), list[Entity])
    assert_type(await session.query("Job").of(Job).all(), list[Job])
    assert_type(await session.query("User").of(User).first(), User | None)
    assert_type(await session.query("Location where name is {n}", n="x").one(), Entity)
    async for job in session.query("Job").of(Job):
        assert_type(job, Job)
        assert_type(job.description, str | None)
    assert_type(await session.get(Job, "id"), Job | None)
    assert_type(await session.get("Job", "id"), Entity | None)
    assert_type(await session.get(Job, UUID(int=1)), Job | None)
    await session.get(Job, 5)  # type: ignore[call-overload]
    assert_type([row async for row in session.query("Job").of(Job)], list[Job])
    assert_type(await session.get(JobComponent, ["component", "job"]), JobComponent | None)
    assert_type(await session.current_user(), User)


async def writing(session: AsyncSession) -> None:
    job = session.create(Job, {"status": "running"})
    assert_type(job, Job)
    job.status = JobStatus.DONE
    job.status = "failed"
    job["status"] = "done"
    job.staus = "done"  # type: ignore[attr-defined]  # there is no such attribute
    str(job.staus)  # type: ignore[attr-defined]
    job.status = 5  # type: ignore[assignment]
    job.description = "text"
    assert_type(session.create("Task", {"name": "comp"}), Entity)
    assert_type(await session.claim_job('Job where status is "queued"'), Job | None)
    assert_type(await session.claim_job(session.query("Job").of(Job), spread=1), Job | None)
    key = job_key("celery", "renders", 42, redelivered_within=timedelta(hours=1))
    assert_type(await session.queue_job(key, user="maya", description="Render"), Job)
    await session.queue_job("id")  # type: ignore[arg-type]
    async with job_context(session, job=key, retry_on=(OSError, ValueError)) as running:
        running.requeue("attempt 2 of 3 in 4 s")
    assert_type(await session.ensure(User, {"username": "maya"}, ["username"]), User)
    assert_type(session.created, list[Entity])
    await session.commit()
    Job(status="running", data=None)
    try:
        job.status = "runing"
    except InvalidValueError as error:
        assert_type(error.allowed, tuple[str, ...])
        assert_type(error.attribute, str)
    except ArgumentError as error:
        assert_type(error.argument, str)


async def files(session: AsyncSession) -> None:
    location = await session.query("Location").of(Location).one()
    component = await session.create_component(Path("a.pdf"), {"name": "A"}, location)
    assert_type(component, FileComponent)
    assert_type(location.get_url(component), str)
    location.use_folder("/mnt", lambda place: f"{place.file_type}")
    await location.add_components([component], location)
    assert_type(await location.get_filesystem_path(component), Path)
    assert_type(await location.get_component_availability(component), float)
    assert_type(await session.download(component, "a.pdf"), Path)

    def show(done: int, total: int | None) -> None: ...

    await session.download(component, "a.pdf", resume=True, progress=show)
    await session.create_component(["a.0001.exr", Path("a.0002.exr")], progress=show)
    await session.create_component(Path("plates").glob("*.exr"), checksum=False)


async def jobs(session: AsyncSession) -> None:
    async with job_context(session, user=UUID(int=1), description="x") as job:
        await session.create_component(b"x", progress=job.progress)
        assert_type(job, RunningJob)
        assert_type(job.entity, Job)
        job.progress(0.5, "half")
        job.progress(30, total=120)
        async for shot in job.track(["sh010"]):
            assert_type(shot, str)
        assert_type(await job.attach(b"x", name="x.txt"), FileComponent)
        await job.attach(Path("plates"), report_progress=True)
        assert_type(job.stop_requested, StopRequest)
        assert_type(await job.stop_requested, StopRequest)
        assert_type(job.description, str | None)
        job.description = "y"
        job.message = "encoding"
        job.progress(0, total=3)
        job.advance()
        async with job.stage("encode", weight=3, total=120) as stage:
            assert_type(stage, Stage)
            stage.advance(2, "frames")
            async for frame in stage.track(range(3)):
                assert_type(frame, int)
        with job.stage("upload"):
            job.progress(1)
        job.finish("3 files delivered")
        job.fail("no")

    async with job_context(session, stop_on="any"):
        pass
    async with job_context(session, stop_on="always"):  # type: ignore[arg-type]
        pass

    @job_context(session, description="nightly")
    async def nightly(count: int) -> str:
        return str(count)

    assert_type(await nightly(1), str)

    @job_context(lambda: session)
    async def later(count: int) -> str:
        return str(count)

    assert_type(await later(1), str)

    @job_context(session)  # type: ignore[type-var]  # it is called at once
    def plain() -> None: ...


async def waiting(session: AsyncSession, job: Job) -> None:
    assert_type(await job.wait(timeout=3), JobState)
    assert_type(await session.wait_for([job, "id", UUID(int=1)], timeout=3.5), list[JobState])
    assert_type(await session.wait_for(job), list[JobState])
    assert_type(await session.wait_for(await session.query("Job").of(Job).all()), list[JobState])
    await session.wait_for(3)  # type: ignore[arg-type]
    async for state in session.watch(["a", job]):
        assert_type(state, JobState)
        assert_type(state.status, JobStatus | str | None)
        assert_type(state.entity, Job | None)
    assert_type(await session.stop_job(job, "wrong shot", by="maya"), JobState)


class Delivery(BaseModel):
    quality: int = 80


async def served(session: AsyncSession) -> None:
    actions = Actions()

    async def codecs(launch: Launch) -> list[tuple[str, str]]:
        return [("a", "A")]

    async def is_here(launch: Launch) -> bool:
        return launch.user is not None

    @actions.action("Deliver", on=[Job, "Task"], roles={"Artist"}, choices={"codec": codecs})
    async def deliver(launch: Launch, form: Delivery, job: RunningJob) -> str:
        assert_type(await launch.selection(Job), list[Job])
        assert_type(await launch.selection("Task", "name"), list[Entity])
        assert_type(launch.user, User | None)
        async with launch.as_user() as own:
            assert_type(own, AsyncSession)
        return "done"

    @actions.action("Quick", job=None, discover=is_here, unique="selection")
    async def quick() -> None: ...

    actions.action("Here", discover=lambda launch: len(launch.selected) > 1)(quick)
    actions.action("Twice", unique="twice")(quick)  # type: ignore[arg-type]
    assert_type(await quick(), None)
    actions.include(stop_my_jobs)
    outcome = await actions.launch_for_test(session, "deliver", selection=[("Task", "id")])
    assert_type(outcome, LaunchOutcome)
    assert_type(outcome.job, JobState | None)
    await actions.serve(session, concurrency=4)


async def chaos(server: testing.FtrackServer) -> None:
    """What tests with faults write."""
    server.faults.inject(testing.Drop(applied=True), on="writes", times=2)
    server.faults.inject(testing.Delay(0.1), probability=0.1, on=lambda request: request.writes)
    assert_type(server.faults.injected, tuple[testing.Injected, ...])
    assert_type(server.jobs(), list[dict[str, Any]])
    async with server.session() as session:
        assert_type(session, AsyncSession)
    with testing.FakeServer(seed=1) as fake:
        assert_type(fake, testing.FakeServer)
        assert_type(fake.credentials.environment, dict[str, str])


async def daemons() -> None:
    async with (
        AsyncSession(journal=Path("jobs.journal"), lease=60) as session,
        shutdown_on_signals(session, grace=5),
    ):
        assert_type(session.health, Health)
        recovery = await recover(session, dry_run=True, older_than=timedelta(hours=2), user="maya")
        assert_type(recovery, Recovery)
        for job in recovery.failed:
            assert_type(job, RecoveredJob)
            assert_type(job.verdict, Verdict)


async def events(session: AsyncSession) -> None:
    async with session.events.subscribe(UpdateEvent, queue=10, overflow="raise") as updates:
        async for item in updates:
            assert_type(item, UpdateEvent | Gap | Lagged)
            if isinstance(item, UpdateEvent):
                assert_type(item.changes, list[EntityChange])
                assert_type(item.changes[0].attributes["status_id"], AttributeChange)
    async with session.events.subscribe("topic=a", where=lambda event: bool(event.data)) as some:
        assert_type(await anext(some), Event | Gap | Lagged)
    session.events.subscribe("topic=a", overflow="block")  # type: ignore[call-overload]

    @session.events.on(UpdateEvent, concurrency=4, key=lambda event: event.user.id)
    async def update(event: UpdateEvent) -> None: ...

    @session.events.on("topic=a", on_gap=lambda gap: gap.since.year)
    def other(event: Event) -> dict[str, int]:
        return {"n": 1}

    assert_type(other(Event(topic="a")), dict[str, int])

    @session.events.on(ActionLaunch)  # type: ignore[arg-type]
    async def wrong(event: UpdateEvent) -> None: ...

    assert_type(await session.events.publish("a", {"n": 1}, timeout=5), str)
    assert_type(await session.events.request("a"), Event)
    async for reply in session.events.request_many("a", count=2):
        assert_type(reply, Event)
    assert_type(session.health.events.connected_since, datetime | None)
