"""What users write in blocking code, as type checkers see it: never run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, assert_type

from aioftrackjobs import (
    CommandResult,
    Entity,
    FileComponent,
    Health,
    JobState,
    Recovery,
    StopRequest,
    User,
    blocking,
)
from aioftrackjobs import Job as AsyncJob
from aioftrackjobs import Location as AsyncLocation
from aioftrackjobs.blocking import (
    Job,
    Location,
    RunningJob,
    Session,
    UnitOfWork,
    current_job,
    job_context,
    shutdown_on_signals,
)
from aioftrackjobs.events import Event, Gap, Lagged, UpdateEvent


def reading(session: Session) -> None:
    assert_type(session.query("Job").all(), list[Entity])
    assert_type(session.query(Job).where(Job.status == "done").limit(1).all(), list[Job])
    assert_type(session.query("User").of(User).first(), User | None)
    for job in session.query("Job").of(Job):
        assert_type(job, Job)
    for jobs in session.query(Job).in_batches(10):
        assert_type(jobs, list[Job])
    assert_type(session.get(Job, "id"), Job | None)
    assert_type(session.get("Job", "id"), Entity | None)
    session.get(Job, 5)  # type: ignore[call-overload]
    session.populate([], "a, b")
    session.populate(5, "a")  # type: ignore[arg-type]
    assert_type(session.call([]), list[Any])
    assert_type(session.current_user(), User)
    assert_type(session.health, Health)


def writing(session: Session) -> None:
    job = session.create(Job, {"status": "running"})
    assert_type(job, Job)
    assert_type(session.ensure("User", {"username": "maya"}), Entity)
    session.commit()
    session.commit(1)  # type: ignore[call-arg]
    session.delete(job)
    with session.unit_of_work() as unit:
        assert_type(unit, UnitOfWork)
        unit.commit()
    assert_type(session.create_component("a.exr"), FileComponent)
    assert_type(session.download("id", "a.exr", resume=True), Path)
    session.download("id", "a.exr", resum=True)  # type: ignore[call-arg]
    assert_type(session.claim_job("Job"), Job | None)
    assert_type(session.wait_for([job], timeout=3), list[JobState])
    assert_type(session.stop_job(job, "wrong shot"), JobState)
    for state in session.watch(job):
        assert_type(state, JobState)
    assert_type(blocking.recover(session, dry_run=True), Recovery)
    assert_type(blocking.run_command(session, ["rsync"], retries=2), CommandResult)


def methods_of_entities(session: Session, plate: FileComponent, known: AsyncLocation) -> None:
    disk = session.ensure(Location, {"name": "studio.disk"})
    disk.use_folder("/mnt/projects", structure="version")
    assert_type(disk.add_component(plate, known), None)
    assert_type(disk.get_filesystem_path(plate), Path)
    assert_type(disk.get_resource_identifier(plate), str)
    assert_type(disk.get_component_availability(plate), float)
    disk.add_component(plate)  # type: ignore[call-arg]
    disk.remove_component(plate)
    if job := session.get(Job, "id"):
        assert_type(job.wait(timeout=3), JobState)
    for each in session.query(AsyncJob):
        session.wait_for(each)


def jobs(session: Session) -> None:
    with job_context(session, description="Bake", grace=3.0) as job:
        assert_type(job, RunningJob)
    with job_context(description="Bake") as job:
        job.progress(1, total=2)
        job.progress("much")  # type: ignore[arg-type]
        assert_type(job.track([1, 2]), Iterator[int])
        assert_type(job.attach("report.pdf"), FileComponent)
        assert_type(job.run(["ffmpeg"], check=False), CommandResult)
        assert_type(job.entity, Job)
        assert_type(job.stop_requested, StopRequest)
        with job.stage("encode", weight=3) as stage:
            stage.advance()
        job.description = "Bake sh010"
    job_context(session, descripton="Bake")  # type: ignore[call-arg]
    job_context(5)  # type: ignore[arg-type]
    assert_type(current_job(), RunningJob)


def listening(session: Session) -> None:
    @session.events.on(UpdateEvent, key=lambda event: event.id)
    def note(event: UpdateEvent) -> None: ...

    session.events.off(note)
    with session.events.subscribe(UpdateEvent) as events:
        for event in events:
            assert_type(event, UpdateEvent | Gap | Lagged)
    assert_type(session.events.publish("studio.published", wait=False), str)
    for reply in session.events.request_many("studio.who", timeout=1):
        assert_type(reply, Event)
    with shutdown_on_signals(session, grace=5):
        session.events.run()


def decorated(session: Session) -> None:
    @job_context(lambda: session, description="Nightly")
    def nightly(number: int) -> str:
        return str(number)

    assert_type(nightly(1), str)
    nightly("1")  # type: ignore[arg-type]
