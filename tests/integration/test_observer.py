"""What an observer of a session sees, and that it harms nothing."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import anyio
import pytest

from aioftrackjobs import ArgumentError, AsyncSession, Job, JobStatus, ServerError, job_context
from aioftrackjobs.devserver import ServerHandle
from aioftrackjobs.telemetry import (
    ObservedCall,
    ObservedJob,
    ObservedRequest,
    ObservedSession,
    ObservedTransfer,
    Observer,
)
from aioftrackjobs.testing import Refuse

from .settings import connected
from .waiting import until


class Notes(Observer):
    """Keeps all that it sees."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.calls: list[ObservedCall] = []
        self.requests: list[ObservedRequest] = []
        self.jobs: list[ObservedJob] = []
        self.transfers: list[ObservedTransfer] = []
        self.topics: list[str] = []
        self.journal: list[str] = []

    @property
    def commits(self) -> list[ObservedCall]:
        return [each for each in self.calls if each.action == "commit"]

    def session_opened(self, session: ObservedSession) -> None:
        assert session.health.commits_queued == 0
        self.names.append("session_opened")

    def session_closed(self, session: ObservedSession) -> None:
        self.names.append("session_closed")

    def call_queued(self, call: ObservedCall) -> None:
        assert call.outcome is None
        self.names.append(f"queued {call.action}")

    def call_settled(self, call: ObservedCall) -> None:
        self.names.append(f"settled {call.action}")
        self.calls.append(call)

    def request_began(self, request: ObservedRequest) -> None:
        self.names.append(f"request {request.action}")
        self.requests.append(request)

    def request_ended(self, request: ObservedRequest) -> None:
        self.names.append(f"end {request.action}")

    def job_began(self, job: ObservedJob) -> None:
        job.carrier = {"traceparent": "made here"}
        self.names.append("job_began")
        self.jobs.append(job)

    def job_found(self, job: ObservedJob) -> None:
        self.names.append("job_found")

    def job_running(self, job: ObservedJob) -> None:
        assert job.id
        self.names.append("job_running")

    def job_ended(self, job: ObservedJob) -> None:
        self.names.append("job_ended")

    def transfer_ended(self, transfer: ObservedTransfer) -> None:
        self.transfers.append(transfer)

    def event_received(self, topic: str) -> None:
        self.topics.append(topic)

    def journal_changed(self, state: Literal["working", "failing"]) -> None:
        self.journal.append(state)


class Broken(Observer):
    """Raises whatever it is asked."""

    def carrier(self) -> Mapping[str, str]:
        raise LookupError("no trace")

    def _fail(self, _: Any, /) -> None:
        raise SystemExit("the observer ends the program")

    session_opened = session_closed = call_queued = call_settled = _fail
    request_began = request_ended = job_began = job_running = job_ended = _fail
    transfer_ended = event_received = _fail


@pytest.mark.every_loop
async def test_the_steps_of_a_commit_come_in_their_order(server: ServerHandle) -> None:
    notes = Notes()
    async with connected(server, observer=notes) as session:
        await session.current_user()
        notes.names.clear()
        session.create(Job, {"user": await session.current_user(), "status": "queued"})
        await session.commit()
        assert notes.names == ["queued commit", "request commit", "end commit", "settled commit"]

    assert notes.names[-1] == "session_closed"
    (commit,) = notes.commits
    assert (commit.outcome, commit.attempts, commit.count, commit.error) == ("applied", 1, 1, None)
    assert commit.server_url == server.url
    (request,) = [each for each in notes.requests if each.action == "commit"]
    assert list(request.calls) == [commit]
    assert request.size > 0
    assert request.began_at >= commit.queued_at


async def test_commits_that_share_a_request_are_seen_in_it(server: ServerHandle) -> None:
    notes = Notes()
    async with connected(server, observer=notes) as session:
        user = await session.current_user()

        async def work() -> None:
            async with session.unit_of_work() as unit:
                session.create(Job, {"user": user, "status": "queued"})
                await unit.commit()

        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(work)

    carried = [call for each in notes.requests for call in each.calls if call.action == "commit"]
    assert len(carried) == len(notes.commits) == 5
    assert any(len(each.calls) > 1 for each in notes.requests)


async def test_a_refusal_is_the_outcome_of_its_commit(server: ServerHandle) -> None:
    notes = Notes()
    async with connected(server, observer=notes) as session:
        user = await session.current_user()
        server.faults.inject(Refuse(), on="writes", times=None)
        with pytest.raises(ServerError):
            session.create(Job, {"user": user, "status": "queued"})
            await session.commit()
        session.rollback()

    assert [each.outcome for each in notes.commits] == ["refused"]
    assert isinstance(notes.commits[0].error, ServerError)
    assert any(isinstance(each.error, ServerError) for each in notes.requests)


async def test_a_job_is_seen_with_its_outcome_and_carries_what_the_observer_adds(
    server: ServerHandle,
) -> None:
    notes = Notes()
    async with connected(server, observer=notes) as session:
        async with job_context(session, description="good", data={"shot": "sh010"}) as job:
            found = await session.get(Job, job.id)
        with pytest.raises(ZeroDivisionError):
            async with job_context(session, description="bad"):
                1 / 0  # noqa: B018
        async with job_context(session, job=job.id):
            pass

    assert found is not None
    data = json.loads(found["data"])
    assert (data["traceparent"], data["shot"]) == ("made here", "sh010")
    outcomes = [(each.outcome, type(each.error)) for each in notes.jobs]
    assert outcomes == [
        ("done", type(None)),
        ("failed", ZeroDivisionError),
        ("done", type(None)),
    ]
    assert notes.jobs[2].found["traceparent"] == "made here"
    names = [each for each in notes.names if each.startswith("job_")]
    assert names[-4:] == ["job_began", "job_found", "job_running", "job_ended"]


async def test_a_block_that_joins_a_job_is_seen_as_joined(server: ServerHandle) -> None:
    notes = Notes()
    async with connected(server, observer=notes) as session:
        async with (
            job_context(session, description="outer") as job,
            job_context(session, job=job.id, join=True),
        ):
            pass

    assert [(each.is_joined, each.outcome) for each in notes.jobs] == [
        (False, "done"),
        (True, "left"),
    ]


async def test_files_and_events_are_seen(server: ServerHandle, tmp_path: Path) -> None:
    notes = Notes()
    async with connected(server, observer=notes) as session:
        component = await session.create_component(b"x" * 1000, {"name": "a"}, name="a.txt")
        await session.download(component, tmp_path / "a.txt")
        session.events.on("topic=render.done")(lambda _: None)
        await session.events.ready()
        await session.events.publish("render.done", {})
        await until(lambda: "render.done" in notes.topics)

    seen = [(each.direction, each.size, each.error) for each in notes.transfers]
    assert seen == [("upload", 1000, None), ("download", 1000, None)]


async def test_an_observer_that_raises_harms_nothing_and_is_logged_once(
    server: ServerHandle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        async with connected(server, observer=Broken(), journal=tmp_path / "journal") as session:
            for number in range(3):
                async with job_context(session, description="work") as job:
                    job.entity["data"] = {"number": number}
                    await session.commit()
                    await job.attach(b"x", name=f"{number}.txt")
            found = await session.get(Job, job.id)

    assert found is not None
    assert found.status is JobStatus.DONE
    logged = [each for each in caplog.records if "of the observer failed" in each.msg]
    methods = [vars(each)["ftrack_method"] for each in logged]
    assert sorted(methods) == ["_fail", "call_queued", "call_settled"]


def test_what_is_no_observer_is_refused(server: ServerHandle) -> None:
    with pytest.raises(ArgumentError, match="observer"):
        AsyncSession(server.url, "key", "maya", observer=object())  # type: ignore[arg-type]


def test_without_an_observer_nothing_of_it_is_imported() -> None:
    program = """if True:
        import asyncio, sys
        from aioftrackjobs import AsyncSession, job_context
        from aioftrackjobs.devserver import running

        async def main():
            async with running() as server:
                async with AsyncSession(server.url, server.api_key, server.api_user) as session:
                    async with job_context(session, description="work"):
                        pass

        asyncio.run(main())
        unwanted = ("opentelemetry", "aioftrackjobs.telemetry", "aioftrackjobs.commit.observed",
                    "aioftrackjobs.jobs.watching")
        print([name for name in sys.modules if name.startswith(unwanted)])
    """
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=50
    )
    assert done.stdout.strip() == "[]"
