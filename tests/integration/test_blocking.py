"""Sessions and Jobs in plain threads: ``aioftrackjobs.blocking``."""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import os
import re
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

import aioftrackjobs
from aioftrackjobs import (
    ArgumentError,
    AsyncSession,
    ComponentInLocationError,
    EventTimeoutError,
    Job,
    JobStatus,
    JobStoppedError,
    NotLoadedError,
    SessionStateError,
    UnknownAttributeError,
    blocking,
)
from aioftrackjobs.blocking import Session, current_job, job_context
from aioftrackjobs.commit.unit_of_work import UnitOfWork
from aioftrackjobs.devserver import ServerHandle
from aioftrackjobs.events import Event, Gap
from aioftrackjobs.events.hub import EventHub

from ..typing.blocking_stub import STUB, blocking_stub
from .settings import QUICK

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")


@pytest.fixture
def shared(server: ServerHandle) -> Iterator[Session]:
    with opened(server) as session:
        yield session


@pytest.fixture
def reader(server: ServerHandle) -> Iterator[Session]:
    """Another session, which sees what the server has."""
    with opened(server) as session:
        yield session


def opened(server: ServerHandle, **options: Any) -> Session:
    options = {"timings": replace(QUICK, job_read_interval=0.05), **options}
    return Session(server.url, server.api_key, server.api_user, **options)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


# The surface is that of the async classes

#: Async names that blocking code has under another name, or not at all.
DIFFERENT = {
    AsyncSession: {
        "aclose": "close",
    },
    EventHub: {},
    aioftrackjobs.Query: {},
    aioftrackjobs.RunningJob: {"innermost_active": None},  # internal
    aioftrackjobs.Stage: {"work_for": None},  # internal
    # Most of it is internal.
    UnitOfWork: dict.fromkeys(set(dir(UnitOfWork)) - set(dir(blocking.UnitOfWork))),
}
#: What blocking classes have besides.
ADDED = {"expression", "is_closed"}  # in a query, it is no property


@pytest.mark.parametrize("original", list(DIFFERENT))
def test_the_blocking_classes_are_those_of_the_async_ones(original: type[Any]) -> None:
    mirrored = getattr(blocking, original.__name__.removeprefix("Async"))
    names = {name for name in dir(original) if not name.startswith("_")}
    renamed: dict[str, str | None] = DIFFERENT[original]  # type: ignore[assignment]
    expected = {renamed.get(name, name) for name in names} - {None}

    assert {name for name in dir(mirrored) if not name.startswith("_")} - ADDED == expected
    if original is not UnitOfWork:  # whose docstring describes how it is made
        assert plain(inspect.getdoc(original)) == plain(inspect.getdoc(mirrored))
    if original is AsyncSession:
        assert arguments(original.__init__) == arguments(mirrored.__init__)
    for name in sorted(names):
        if (other := renamed.get(name, name)) is None:
            continue
        one, two = getattr(original, name), getattr(mirrored, other)
        if original is UnitOfWork and isinstance(one, property):
            continue  # the session says the same, in its words
        assert plain(inspect.getdoc(one)) == plain(inspect.getdoc(two)), name
        if callable(one):
            assert arguments(one) == arguments(two), name


@pytest.mark.parametrize("name", ["job_context", "run_command", "recover", "current_job"])
def test_the_blocking_functions_are_those_of_the_async_ones(name: str) -> None:
    one, two = getattr(aioftrackjobs, name), getattr(blocking, name)

    assert arguments(one) == arguments(two)
    assert plain(inspect.getdoc(one)) == plain(inspect.getdoc(two))


def plain(text: str | None) -> list[str]:
    """Return the words of a docstring that are the same in blocking code."""
    different = {"a", "an", "async", "await", "coroutine"}
    either = r"``async with`` or |(?<=``for``) or ``async for``"
    words = re.sub(either, "", text or "").replace("AsyncSession", "Session").replace("``", " ")
    return [word for word in words.split() if word not in different]


def test_type_checkers_see_the_methods_of_the_async_classes() -> None:
    """After a change of those: python tests/typing/blocking_stub.py."""
    assert ast.dump(ast.parse(STUB.read_text())) == ast.dump(ast.parse(blocking_stub()))


def arguments(function: Any) -> list[tuple[str, Any, Any]]:
    found = inspect.signature(function).parameters.values()
    # The types are checked in tests/typing.
    return [(each.name, each.kind, each.default) for each in found if each.name != "session"]


# As the official client


def test_the_tutorial_needs_another_import_and_nothing_else(
    server: ServerHandle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import aioftrackjobs.blocking as ftrack_api

    monkeypatch.setenv("FTRACK_SERVER", server.url)
    monkeypatch.setenv("FTRACK_API_KEY", server.api_key)
    monkeypatch.setenv("FTRACK_API_USER", server.api_user)
    path = tmp_path / "file.txt"
    path.write_text("hello from the tutorial")

    session = ftrack_api.Session()
    user = session.query(f'User where username is "{session.api_user}"').one()
    job = session.create(
        "Job",
        {"user": user, "status": "running", "data": json.dumps({"description": "My job."})},
    )
    session.commit()
    server_location = session.query('Location where name is "ftrack.server"').one()
    component = session.create_component(path, data={"name": "My file"}, location=server_location)
    session.create("JobComponent", {"component_id": component["id"], "job_id": job["id"]})
    session.commit()
    job["status"] = "done"
    session.commit()

    other = ftrack_api.Session()
    job = other.get("Job", job["id"])  # type: ignore[assignment]
    assert job["status"] == "done"
    assert job["user"]["username"] == server.api_user  # it is loaded when it is read
    server_location = other.query('Location where name is "ftrack.server"').one()
    (url,) = [
        server_location.get_url(each["component"])  # type: ignore[attr-defined]
        for each in job["job_components"]
    ]
    assert urlopen(url, timeout=20).read() == b"hello from the tutorial"
    for each in other.query("Job"):
        other.delete(each["job_components"][0])
        other.commit()
        other.delete(each)
    other.commit()
    assert other.query("Job").all() == []
    session.close()
    other.close()


def test_an_attribute_is_loaded_when_it_is_read_if_there_is_one(
    shared: Session, reader: Session
) -> None:
    shared.create(Job, {"status": "queued"})
    shared.commit()
    job = reader.query("select id from Job").of(Job).one()

    assert job.status is JobStatus.QUEUED
    assert not hasattr(job, "stauts")
    with pytest.raises(UnknownAttributeError):
        job["stauts"]
    kind = reader.query("select id from Type").first()
    assert kind is not None
    assert isinstance(kind["name"], str)
    assert not hasattr(kind, "nmae")
    task = reader.query("select id from Task").first()
    assert task is not None
    task["metadata"]["delivery"] = "2026-12"
    reader.commit()
    found = shared.query("select id from Task where id is {id}", id=task["id"]).one()
    assert dict(found["metadata"]) == {"delivery": "2026-12"}
    del found["metadata"]["delivery"]
    shared.commit()
    new = reader.create("Note", {"content": "not on the server yet"})
    with pytest.raises(NotLoadedError):
        new["author"]
    reader.rollback()


# Jobs


def test_methods_of_entities_wait(shared: Session, reader: Session, tmp_path: Path) -> None:
    """A location moves files, and a Job is waited for, without ``await``."""
    storage = shared.query('Location where name is "ftrack.server"').of(blocking.Location).one()
    disk = shared.ensure(blocking.Location, {"name": "studio.disk"})
    disk.use_folder(tmp_path / "disk")
    plate = shared.create_component(b"pixels", name="plate.exr")
    with job_context(shared, description="Bake") as running:
        job = reader.get(blocking.Job, running.id)

    disk.add_component(plate, storage)  # types: tests/typing/blocking.py

    path = disk.get_filesystem_path(plate)
    assert path.read_bytes() == b"pixels"
    assert disk.get_resource_identifier(plate) == str(path.relative_to(tmp_path / "disk"))
    assert disk.get_component_availability(plate) == 100
    with pytest.raises(ComponentInLocationError):
        disk.add_components([plate], storage)
    disk.remove_component(plate)
    assert (path.exists(), disk.get_component_availability(plate)) == (False, 0)
    assert job is not None
    assert job.wait(timeout=10).is_done


def test_a_block_is_a_job(shared: Session, reader: Session) -> None:
    with job_context(shared, description="Bake", interval=0.0) as job:
        assert current_job() == job
        assert aioftrackjobs.current_job().id == job.id
        with job.stage("caches") as stage:
            for _ in job.track(["a", "b"]):
                assert reader.get(Job, job.id) is not None
        assert stage.fraction == 1
        with job_context(shared, description="inner") as inner:
            assert current_job() == inner
        assert current_job() == job
        job.attach(b"report", name="report.txt")
        with pytest.warns(UserWarning, match="second attachment") as caught:
            job.attach(b"more", name="more.txt")
        assert caught[0].filename == __file__
        job.description = "Bake sh010"

    with pytest.raises(LookupError):
        current_job()
    outer, within = reader.query(Job).order_by("created_at", Job.id), reader.get(Job, inner.id)
    assert within is not None
    assert within.status is JobStatus.DONE
    found = outer.where(Job.id == job.id).one()
    assert (found.status, found.description) == (JobStatus.DONE, "Bake sh010")
    names = {each["component"]["name"] for each in found["job_components"]}
    assert names == {"report", "more"}


def test_a_job_fails_with_a_traceback_of_the_lines_of_the_program(
    shared: Session, reader: Session
) -> None:
    with pytest.raises(aioftrackjobs.QuerySyntaxError) as caught:
        with job_context(shared, description="Bake") as job:
            shared.query("select id from Job where where").all()

    found = reader.get(Job, job.id)
    assert found is not None
    assert found.status is JobStatus.FAILED
    names = [entry.name for entry in caught.traceback]
    # The line of the program, the call, and what has been called: nothing of the event loop.
    assert names[0] == "test_a_job_fails_with_a_traceback_of_the_lines_of_the_program"
    assert names[1:6] == ["method", "_call", "call", "call", "all"]
    component = found["job_components"][0]["component"]
    location = reader.query('Location where name is "ftrack.server"').one()
    text = urlopen(location.get_url(component), timeout=20).read().decode()  # type: ignore[attr-defined]
    assert 'shared.query("select id from Job where where").all()' in text


def test_each_call_of_a_decorated_function_is_a_job(shared: Session, reader: Session) -> None:
    @job_context(lambda: shared, description="Nightly")
    def bake(number: int) -> str:
        current_job().finish(f"{number} caches")
        return current_job().id

    ids = [bake(3), bake(4)]

    assert [reader.get(Job, each).description for each in ids] == [  # type: ignore[union-attr]
        "Nightly - 3 caches",
        "Nightly - 4 caches",
    ]
    with pytest.raises(TypeError, match="plain functions"):
        job_context(shared)(test_calls_of_other_event_loops_work)


def test_a_stop_request_ends_the_block_at_its_next_call_or_item(
    shared: Session, reader: Session
) -> None:
    with pytest.raises(JobStoppedError, match="wrong shot"):
        with job_context(shared, description="Bake") as job:
            reader.stop_job(job.id, "wrong shot")
            for _ in job.track(iter(int, 1)):
                until(lambda: job.stop_requested)
    with pytest.raises(JobStoppedError, match="wrong shot"):
        with job_context(shared, description="Bake") as other:
            reader.stop_job(other.id, "wrong shot")
            waiting = reader.create(Job, {"status": "queued"})
            reader.commit()
            shared.wait_for(waiting.id)
    with job_context(shared, description="Bake"):
        pass  # and the next one goes on

    states = reader.wait_for([job.id, other.id], timeout=20)
    assert [state.is_failed for state in states] == [True, True]


# Threads


def test_each_thread_has_a_unit_of_work_of_its_own(shared: Session, reader: Session) -> None:
    recorded, committed = threading.Event(), threading.Event()
    jobs = [shared.create(Job, {"status": "queued"}) for _ in range(2)]
    shared.commit()

    def work() -> None:
        jobs[1]["status"] = "done"
        recorded.set()
        assert committed.wait(20)
        assert [each.target.key[0][1] for each in shared.recorded_operations] == [jobs[1].id]
        shared.commit()

    thread = threading.Thread(target=work)
    thread.start()
    assert recorded.wait(20)
    jobs[0]["status"] = "failed"
    with shared.unit_of_work() as unit:
        jobs[0]["data"] = "{}"
        assert len(unit.recorded_operations) == 1
        unit.rollback()
    assert len(shared.recorded_operations) == 1
    shared.commit()
    statuses = [reader.get(Job, job.id)["status"] for job in jobs]  # type: ignore[index]
    committed.set()
    thread.join(20)

    assert statuses == ["failed", "queued"]
    assert reader.get(Job, jobs[1].id)["status"] == "done"  # type: ignore[index]


def test_a_thread_that_ends_without_a_commit_is_named(
    shared: Session, caplog: pytest.LogCaptureFixture
) -> None:
    thread = threading.Thread(
        target=lambda: shared.create(Job, {"status": "queued"}), name="baking"
    )
    thread.start()
    thread.join(20)

    until(lambda: "'baking' ended with 1 uncommitted operation" in caplog.text)


def test_many_threads_run_jobs_at_once(shared: Session, reader: Session) -> None:
    def work(number: int) -> None:
        with job_context(shared, description=f"Bake {number}") as job:
            barrier.wait(20)
            assert current_job() == job
            for _ in job.track(range(10)):
                pass

    barrier = threading.Barrier(8)
    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    found = reader.query(Job).all()
    assert len(found) == 8
    assert {job.status for job in found} == {JobStatus.DONE}


async def test_calls_of_other_event_loops_work(shared: Session, session: AsyncSession) -> None:
    with job_context(shared, description="Bake") as job:
        job.attach(b"x", name="x.txt")

    found = await session.get(Job, job.id)
    assert found is not None
    assert found.status is JobStatus.DONE


def test_a_call_in_the_event_loop_itself_is_refused(shared: Session) -> None:
    errors = list[Exception]()

    def report(done: int, total: int | None) -> None:
        try:
            shared.commit()
        except SessionStateError as exc:
            errors.append(exc)

    shared.create_component(b"0" * 10, name="a.txt", progress=report)

    assert "a blocking call in the event loop" in str(errors[0])


def test_each_event_is_handled_in_a_thread_that_may_call(shared: Session, reader: Session) -> None:
    gaps = list[Gap]()

    @shared.events.on("topic=studio.which_farm", on_gap=gaps.append)
    def answer(event: Event) -> dict[str, int]:
        return {event.data["shot"]: len(shared.query(Job).all())}

    @shared.events.on("topic=studio.which_farm")
    def fail(event: Event) -> None:
        raise asyncio.CancelledError

    shared.events.ready()

    assert reader.events.request("studio.which_farm", {"shot": "a"}, timeout=20).data == {"a": 0}
    with reader.events.subscribe("topic=studio.published") as events:
        shared.events.publish("studio.published", {"version": 1})
        published = next(events)
        assert isinstance(published, Event)
        assert published.data == {"version": 1}
    shared.events.off(answer)
    with pytest.raises(EventTimeoutError):
        reader.events.request("studio.which_farm", {"shot": "b"}, timeout=0.1)
    with pytest.raises(ArgumentError):
        shared.events.off(answer)
    assert shared.events.health().state == "connected"


def test_a_session_that_is_closed_says_so(server: ServerHandle) -> None:
    with closing(opened(server)) as session:
        job = session.create(Job, {"status": "queued"})
        session.commit()

    for use in (
        session.commit,
        lambda: session.create("Job"),
        lambda: job.update(status="done"),
        lambda: session.query("Job").all(),
    ):
        with pytest.raises(SessionStateError):
            use()


# Processes

#: All warnings are errors, but for that of Python 3.12 and newer about forks.
_STRICT = ["-W", "error", "-W", "ignore:This process:DeprecationWarning"]


def program(server: ServerHandle, text: str, *, journal: Path) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "FTRACK_SERVER": server.url,
        "FTRACK_API_KEY": server.api_key,
        "FTRACK_API_USER": server.api_user,
        "FTRACK_JOBS_JOURNAL": str(journal),
    }
    return subprocess.Popen(
        [sys.executable, *_STRICT, "-c", textwrap.dedent(text)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def outcome(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Return the exit code of a program and what it has written."""
    try:
        output, errors = process.communicate(timeout=40)
    finally:
        process.kill()
    return process.returncode, output + errors


def assert_said_once(output: str, job: str) -> None:
    """Assert that nothing is written but the warning about the Job whose block was not left."""
    (line,) = output.splitlines()
    assert line.startswith("the session is closed while Jobs are running; this ends them: ")
    assert job in line


def ends(reader: Session) -> dict[str, str]:
    """Return the status of each Job by the first word of its description."""
    return {
        (job.description or "").split()[0]: JobStatus(job.status).value
        for job in reader.query("Job").of(Job)
    }


def test_an_exit_ends_the_jobs_of_all_threads(
    server: ServerHandle, reader: Session, tmp_path: Path
) -> None:
    """By an error in the main thread; daemons are left in their block; others go on."""
    process = program(
        server,
        """
        import sys, threading, time
        from aioftrackjobs.blocking import default_session, job_context

        begun = threading.Barrier(3)

        def stay():
            with job_context(description="daemon"):
                begun.wait()
                threading.Event().wait()

        def finish():
            with job_context(description="thread") as job:
                begun.wait()
                threading.main_thread().join()
                assert default_session().get("Job", job.id)

        threading.Thread(target=stay, daemon=True).start()
        threading.Thread(target=finish).start()
        with job_context(description="main"):
            begun.wait()
            sys.exit(3)
        """,
        journal=tmp_path / "journal",
    )
    code, output = outcome(process)

    assert code == 3
    assert_said_once(output, '"daemon"')
    assert ends(reader) == {"daemon": "failed", "thread": "done", "main": "failed"}
    daemon = reader.query('Job where data like "%daemon%"').of(Job).one()
    assert "the session was closed while the Job was running" in (daemon.description or "")


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
def test_ctrl_c_ends_a_call(server: ServerHandle, reader: Session, tmp_path: Path) -> None:
    process = program(
        server,
        """
        import signal
        from aioftrackjobs.blocking import default_session, job_context

        signal.signal(signal.SIGINT, signal.default_int_handler)
        session = default_session()
        waiting = session.create("Job", {"status": "queued", "data": '{"description": "other"}'})
        session.commit()
        try:
            with job_context(description="main"):
                print("ready", flush=True)
                session.wait_for(waiting)
        except KeyboardInterrupt:
            session.query("Job").all()
            print("interrupted")
        """,
        journal=tmp_path / "journal",
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(2)

    assert outcome(process) == (0, "interrupted\n")
    assert ends(reader) == {"main": "failed", "other": "queued"}


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
def test_a_signal_ends_the_jobs_of_all_threads(
    server: ServerHandle, reader: Session, tmp_path: Path
) -> None:
    process = program(
        server,
        """
        import threading, time
        from aioftrackjobs.blocking import Session, job_context, shutdown_on_signals

        begun = threading.Barrier(2)

        def work():
            try:
                with job_context(session, description="thread"):
                    begun.wait()
                    while True:
                        session.query("Job").first()
            except BaseException as exc:
                print(type(exc).__name__)

        with Session() as session, shutdown_on_signals(session, grace=20):
            threading.Thread(target=work).start()
            with job_context(session, description="main"):
                begun.wait()
                print("ready", flush=True)
                time.sleep(60)
        """,
        journal=tmp_path / "journal",
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.terminate()

    code, output = outcome(process)
    assert code == 128 + 15
    assert "CancelledError" in output
    jobs = reader.query("Job").of(Job).all()
    assert {job.description for job in jobs} == {
        "main - failed: stopped by SIGTERM",
        "thread - failed: stopped by SIGTERM",
    }


@needs_fork
def test_a_forked_process_begins_anew(
    server: ServerHandle, reader: Session, tmp_path: Path
) -> None:
    process = program(
        server,
        """
        import multiprocessing, os, sys
        from aioftrackjobs import SessionStateError
        from aioftrackjobs.blocking import Session, current_job, job_context

        session = Session()

        def work(number):
            with job_context(session, description=f"child{number}") as job:
                job.attach(b"x", name="x.txt")

        def leave():
            with job_context(session, description="stopped"):
                sys.exit(4)

        fork = multiprocessing.get_context("fork")
        with job_context(session, description="parent") as job:
            if (child := os.fork()) == 0:
                job.progress(0.5)
                for use in (lambda: job.attach(b"x", name="x"), lambda: job.entity.clear()):
                    try:
                        use()
                    except SessionStateError as exc:
                        assert "process" in str(exc)
                work(0)
                sys.exit(5)  # out of the block of the parent, which goes on
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5
            children = [fork.Process(target=work, args=(1,)), fork.Process(target=leave)]
            for each in children:
                each.start()
            for each in children:
                each.join()
            assert [each.exitcode for each in children] == [0, 4]
            job.attach(b"x", name="x.txt")
        """,
        journal=tmp_path / "journal",
    )
    code, output = outcome(process)

    assert (code, output) == (0, "")
    done = dict.fromkeys(["parent", "child0", "child1"], "done")
    assert ends(reader) == {**done, "stopped": "failed"}


def test_a_program_with_a_gui_keeps_its_jobs_true(
    server: ServerHandle, reader: Session, tmp_path: Path
) -> None:
    """As in Maya: the main thread runs the event loop of Qt, and works in its callbacks."""
    pytest.importorskip("PySide6", reason="PySide6 is not installed")
    process = program(
        server,
        """
        import threading
        from PySide6.QtCore import QCoreApplication, QTimer
        from aioftrackjobs.blocking import job_context

        application = QCoreApplication([])

        def bake():
            with job_context(description="callback") as job:
                for _ in job.track(range(3)):
                    application.processEvents()
                job.attach(b"x", name="x.txt")
            thread.start()

        def work():
            with job_context(description="thread"):
                pass
            QTimer.singleShot(0, application, fail)

        def fail():
            try:
                with job_context(description="error"):
                    raise ValueError("no cache")
            except ValueError:
                pass
            block = job_context(description="open")
            block.__enter__()
            blocks.append(block)
            application.quit()

        blocks = []
        thread = threading.Thread(target=work)
        QTimer.singleShot(0, bake)
        application.exec()
        """,
        journal=tmp_path / "journal",
    )
    code, output = outcome(process)

    assert code == 0
    assert_said_once(output, '"open"')
    expected = {"callback": "done", "thread": "done", "error": "failed", "open": "failed"}
    assert ends(reader) == expected
