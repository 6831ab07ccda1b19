"""The programs in ``examples/``, run as their readers would run them."""

from __future__ import annotations

import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from aioftrackjobs import AsyncSession, Entity, Job, job_context

EXAMPLES = Path(__file__).parents[2] / "examples"
REPORT, FARM = str(EXAMPLES / "report_job.py"), str(EXAMPLES / "farm_daemon.py")

LOGGED = re.compile(r"^sh\d+:\S+ (runs as|is done)", re.MULTILINE)

Until = Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")


async def _jobs(session: AsyncSession) -> dict[str, Job]:
    """Return all Jobs on the server, by the first two words of their descriptions."""
    query = session.query(
        "select status, data, job_components.component.name, job_components.component.file_type"
        " from Job"
    )
    return {" ".join((job.description or "").split()[:2]): job async for job in query.of(Job)}


def _attached(job: Job) -> list[Entity]:
    return [link["component"] for link in job["job_components"]]


async def _content(session: AsyncSession, job: Job, folder: Path) -> str:
    (component,) = _attached(job)
    return (await session.download(component["id"], folder / "downloaded")).read_text()


class TestReportJob:
    async def test_ends_as_done_with_its_report(
        self, launch: Any, session: AsyncSession, ftrack: dict[str, str], tmp_path: Path
    ) -> None:
        project = tmp_path / "project"
        (project / "plates").mkdir(parents=True)
        (project / "plates" / "sh010.1001.exr").write_bytes(bytes(300))
        (project / "plates" / "sh010.1002.exr").write_bytes(bytes(200))
        (project / "notes.txt").write_bytes(bytes(7))

        program = launch(REPORT, str(project), env=ftrack)

        assert await program.end() == 0, program.err
        job = (await _jobs(session))["Disk report"]
        assert job.status == "done"
        assert job.description == "Disk report of project"
        assert await _content(session, job, tmp_path) == "kind,bytes\n.exr,500\n.txt,7\n"

    async def test_missing_folder_is_a_failed_job_with_a_traceback(
        self, launch: Any, session: AsyncSession, ftrack: dict[str, str], tmp_path: Path
    ) -> None:
        program = launch(REPORT, str(tmp_path / "nowhere"), env=ftrack)

        assert await program.end() == 1
        job = (await _jobs(session))["Disk report"]
        assert job.status == "failed"
        assert "NotADirectoryError" in (job.description or "")
        assert "nowhere is not a folder" in await _content(session, job, tmp_path)


class TestFarmDaemon:
    async def test_queue_is_worked_until_it_is_empty(
        self, launch: Any, session: AsyncSession, ftrack: dict[str, str]
    ) -> None:
        shots = [f"sh0{number}0:1001-1005" for number in range(1, 8)]

        program = launch(FARM, *shots, env=ftrack)

        assert await program.end() == 0
        jobs = await _jobs(session)
        assert set(jobs) == {f"Render {shot}" for shot in shots}
        assert {job.status for job in jobs.values()} == {"done"}

    async def test_job_carries_the_frames_it_rendered(
        self, launch: Any, session: AsyncSession, ftrack: dict[str, str], tmp_path: Path
    ) -> None:
        program = launch(FARM, "sh010:1001-1002", env=ftrack)

        assert await program.end() == 0
        job = (await _jobs(session))["Render sh010:1001-1002"]
        assert await _content(session, job, tmp_path) == "sh010.1001.exr\nsh010.1002.exr"

    async def test_bad_task_does_not_stop_the_others(
        self, launch: Any, session: AsyncSession, ftrack: dict[str, str]
    ) -> None:
        program = launch(FARM, "sh010", "sh020:1-3", "--workers", "1", env=ftrack)

        assert await program.end() == 0
        jobs = await _jobs(session)
        assert jobs["Render sh010"].status == "failed"
        assert "ValueError" in (jobs["Render sh010"].description or "")
        assert jobs["Render sh020:1-3"].status == "done"

    async def test_no_more_tasks_run_at_once_than_there_are_workers(
        self, launch: Any, ftrack: dict[str, str]
    ) -> None:
        shots = [f"sh0{number}0:1-8" for number in range(1, 8)]

        program = launch(FARM, *shots, "--workers", "2", env=ftrack)

        assert await program.end() == 0
        steps = re.findall(
            r"(runs as Job|is done)$", re.sub(" [0-9a-f-]{36}", "", program.err), re.M
        )
        running = [steps[:n].count("runs as Job") - steps[:n].count("is done") for n in range(15)]
        assert max(running) == 2
        assert steps.count("is done") == 7

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    async def test_signal_fails_the_running_jobs_as_stopped(
        self,
        launch: Any,
        session: AsyncSession,
        ftrack: dict[str, str],
        until: Until,
        number: signal.Signals,
    ) -> None:
        program = launch(FARM, "sh010:1-9999", "sh020:1-9999", env=ftrack)

        async def both_run() -> bool:
            return [job.status for job in (await _jobs(session)).values()] == ["running"] * 2

        await until(both_run)
        program.send(number)

        assert await program.end() == 128 + number
        assert "Traceback" not in program.err
        for job in (await _jobs(session)).values():
            assert job.status == "failed"
            assert (job.description or "").endswith(f"failed: stopped by {number.name}")

    async def test_forever_takes_jobs_that_others_queue(
        self, launch: Any, session: AsyncSession, ftrack: dict[str, str], until: Until
    ) -> None:
        user = await session.current_user()
        session.create(Job, {"user": user, "data": {"farm_task": "sh090:1-2", "origin": "web"}})
        await session.commit()

        program = launch(FARM, "--forever", env=ftrack)

        async def is_done() -> bool:
            return [job.status for job in (await _jobs(session)).values()] == ["done"]

        await until(is_done)
        program.send(signal.SIGTERM)
        await program.end()
        (job,) = (await _jobs(session)).values()
        assert '"origin": "web"' in job["data"]

    async def test_two_daemons_on_one_queue_render_each_job_once(
        self, launch: Any, session: AsyncSession, ftrack: dict[str, str], until: Until
    ) -> None:
        for number in range(4):
            session.create(Job, {"data": {"farm_task": f"sh{number:02}0:1-3"}})
        await session.commit()

        programs = [launch(FARM, "--forever", env=ftrack) for _ in range(2)]

        async def are_done() -> bool:
            return [job.status for job in (await _jobs(session)).values()] == ["done"] * 4

        await until(are_done)
        for program in programs:
            program.send(signal.SIGTERM)
            await program.end()
        for name, job in (await _jobs(session)).items():
            runs = [program.err.count(f"runs as Job {job.id}") for program in programs]
            assert sorted(runs) == [0, 1], name
            assert len(_attached(job)) == 1


@asynccontextmanager
async def _service(
    launch: Any, env: dict[str, str]
) -> AsyncIterator[tuple[httpx.AsyncClient, Any]]:
    """Serve the example on a free port, which this process reserves for uvicorn."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number = listener.fileno()
        program = launch(
            *("-m", "uvicorn", "lifespan_service:app", "--app-dir", str(EXAMPLES)),
            *("--fd", str(number)),
            env=env,
            pass_fds=[number],
        )
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        await program.shows("startup complete")
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        yield client, program


class TestLifespanService:
    async def test_transcode_is_accepted_and_done_later(
        self, launch: Any, session: AsyncSession, ftrack: dict[str, str], until: Until
    ) -> None:
        async with _service(launch, ftrack) as (client, _):
            accepted = await client.post("/transcode", json={"shot": "sh010"})

            assert accepted.status_code == 202
            address = accepted.headers["location"]

            async def is_done() -> bool:
                return bool((await client.get(address)).json()["status"] == "done")

            await until(is_done)

        job = (await _jobs(session))["Transcode sh010"]
        assert job.id == accepted.json()["job"]
        assert [part["name"] + part["file_type"] for part in _attached(job)] == ["sh010.mov"]

    async def test_job_is_shown_with_status_and_description(
        self, launch: Any, session: AsyncSession, ftrack: dict[str, str]
    ) -> None:
        async with (
            job_context(session, description="From elsewhere") as job,
            _service(launch, ftrack) as (client, _),
        ):
            response = await client.get(f"/jobs/{job.id}")

        assert response.json() == {
            "id": job.id,
            "status": "running",
            "description": "From elsewhere",
        }

    async def test_wrong_requests_have_different_statuses(
        self, launch: Any, ftrack: dict[str, str]
    ) -> None:
        async with _service(launch, ftrack) as (client, _):
            unknown = await client.get("/jobs/d6b3b3a8-0000-0000-0000-000000000000")
            malformed = await client.post("/transcode", content=b"{")
            incomplete = await client.post("/transcode", json={})

        assert [unknown.status_code, malformed.status_code, incomplete.status_code] == [
            404,
            400,
            400,
        ]

    async def test_stopping_the_service_fails_its_jobs_as_cancelled(
        self, launch: Any, session: AsyncSession, ftrack: dict[str, str]
    ) -> None:
        async with _service(launch, ftrack) as (client, program):
            await client.post("/transcode", json={"shot": "sh010"})
            program.send(signal.SIGTERM)
            await program.end()

        job = (await _jobs(session))["Transcode sh010"]
        assert job.status == "failed"
        assert (job.description or "").endswith("failed: cancelled")

    async def test_unreachable_ftrack_is_a_bad_gateway(
        self, launch: Any, ftrack: dict[str, str]
    ) -> None:
        unreachable = {**ftrack, "FTRACK_SERVER": "http://127.0.0.1:9"}
        async with _service(launch, unreachable) as (client, _):
            responses = [
                await client.post("/transcode", json={"shot": "sh010"}),
                await client.get("/jobs/d6b3b3a8-0000-0000-0000-000000000000"),
            ]

        assert [response.status_code for response in responses] == [502, 502]


def test_the_ports_are_as_long_as_the_documentation_says() -> None:
    page = (EXAMPLES.parent / "docs" / "howto" / "migrating.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[examples/(\w+\.py)\].*\| (\d+) \| (\d+): ", page, re.MULTILINE)
    assert len(rows) == 4
    for name, lines, original in rows:
        assert len((EXAMPLES / name).read_text(encoding="utf-8").splitlines()) == int(lines), name
        assert int(lines) < int(original)


class TestHooks:
    def test_their_tests_pass_on_both_event_loops(self, all_runs: Any) -> None:
        paths = [*EXAMPLES.glob("*publish_hook.py"), *EXAMPLES.glob("*watch_folder.py")]
        files = {path.name: path.read_text(encoding="utf-8") for path in paths}

        run = all_runs.run_files(files, "--ftrack-seed=1")

        assert run.of("publish_hook") == ["passed"] * 16
        assert run.of("watch_folder") == ["passed"] * 4


class TestActionService:
    def test_its_tests_pass(self, all_runs: Any) -> None:
        paths = [*EXAMPLES.glob("*_action.py"), *EXAMPLES.glob("*action_service.py")]
        files = {path.name: path.read_text(encoding="utf-8") for path in paths}

        run = all_runs.run_files(files, "-k", "asyncio")

        assert run.of("action_service") == ["passed"] * 8
