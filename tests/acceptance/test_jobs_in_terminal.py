"""Jobs in the terminal: lists, one Job, waiting, and what is done to a Job by hand."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from anyio.to_thread import run_sync

from aioftrackjobs import AsyncSession, Job, job_context
from aioftrackjobs.devserver import ServerHandle

Run = Callable[..., Awaitable[Any]]


@pytest.fixture
def run(command: Callable[..., Any], ftrack: dict[str, str]) -> Run:
    """Run ``aioftrackjobs ARGUMENTS`` with the variables of the server."""

    async def start(*arguments: str) -> Any:
        return await run_sync(lambda: command(*arguments, env=ftrack))

    return start


async def _create(session: AsyncSession, status: str, text: str, **data: Any) -> Job:
    user = await session.current_user()
    values = {"user": user, "status": status, "data": {"description": text, **data}}
    job = session.create(Job, values)
    await session.commit()
    return job


async def test_list_in_a_pipe_has_lines_with_tabs(run: Run, session: AsyncSession) -> None:
    done = await _create(session, "done", "Render sh010", progress=0.5)
    evil = await _create(session, "failed", "red \x1b[31m\ttwo\nlines")

    ended = await run("jobs")

    assert ended.code == 0
    rows = {line.split("\t")[0]: line.split("\t")[1:] for line in ended.out.splitlines()}
    assert rows[done.id][:3] == ["done", "50 %", "developer"]
    assert rows[done.id][4:] == ["Render sh010"]
    assert rows[evil.id][4:] == ["red  [31m two lines"], (
        "it can neither move the cursor nor the columns"
    )


@pytest.mark.parametrize(
    ("filters", "texts"),
    [
        (["--status", "failed", "-s", "queued"], {"two", "three"}),
        (["--search", "wo"], {"two"}),
        (["--user", "nobody"], set()),
        (["--since", "1h", "-n", "1"], {"three"}),
    ],
)
async def test_filters(
    run: Run, session: AsyncSession, filters: list[str], texts: set[str]
) -> None:
    for status, text in (("done", "one"), ("failed", "two"), ("queued", "three")):
        await _create(session, status, text)

    ended = await run("jobs", "--json", *filters)

    found = {row["description"] for row in json.loads(ended.out)}
    assert found == texts if "-n" not in filters else len(found) == 1


async def test_all_about_a_job(run: Run, session: AsyncSession, tmp_path: Path) -> None:
    async with job_context(session, description="Render") as job:
        await job.attach(b"x" * 10, name="log.txt")
        shown = await run("show", job.id[:8])
        as_json = json.loads((await run("show", job.id, "--json")).out)

    assert f"{job.id}  running" in shown.out
    assert f"lease        of {os.uname().nodename}:{os.getpid()} until 20" in shown.out
    assert "attachment   log.txt (10 bytes, " in shown.out
    assert as_json["attachments"][0]["name"] == "log.txt"
    assert as_json["data"]["description"] == "Render"


@pytest.mark.parametrize(
    ("given", "code", "problem"),
    [
        ("ffffffff", 1, "no Job has an id that begins with ffffffff"),
        ("render", 2, "'render' is no id of a Job"),
        ('"; drop', 2, "is no id of a Job"),
        ("", 2, "'' is no id of a Job"),
        ("-", 1, "no Job has an id that begins with -"),
    ],
)
async def test_unknown_job_is_a_refusal_and_what_is_no_id_a_mistake(
    run: Run, given: str, code: int, problem: str
) -> None:
    ended = await run("show", "--", given)

    assert (ended.code, ended.out) == (code, "")
    assert problem in ended.err


@pytest.mark.parametrize(("status", "code"), [("done", 0), ("failed", 1)])
async def test_exit_code_of_wait_is_that_of_the_jobs(
    run: Run, session: AsyncSession, status: str, code: int
) -> None:
    done = await _create(session, "done", "first")
    other = await _create(session, status, "second")

    ended = await run("wait", done.id, other.id)

    assert ended.code == code
    assert f"{other.id}  second ({status})" in ended.out


async def test_wait_ends_when_the_time_is_over(run: Run, session: AsyncSession) -> None:
    job = await _create(session, "running", "for ever")

    assert (await run("wait", "--timeout", "0.1s", job.id)).code == 124


async def test_ends_by_hand(run: Run, session: AsyncSession) -> None:
    first = await _create(session, "running", "One")
    second = await _create(session, "queued", "Two")

    assert (await run("finish", first.id, "3 files")).code == 0
    assert (await run("fail", second.id, "wrong shot")).code == 0

    await session.populate([first, second], "status, data")
    assert (first.status, first.description) == ("done", "One - 3 files")
    assert (second.status, second.description) == ("failed", "Two - failed: wrong shot")


async def test_job_that_runs_is_stopped_and_not_finished(run: Run, session: AsyncSession) -> None:
    from aioftrackjobs import JobStoppedError

    with pytest.raises(JobStoppedError):
        async with job_context(session, description="Mine") as job:
            refused = await run("finish", job.id)
            stopped = await run("stop", job.id, "wrong shot")
            await job.stop_requested
            await job.stop_requested.wait()
            import anyio

            await anyio.sleep_forever()

    assert refused.code == 1
    assert f"process {os.getpid()} on " in refused.err
    assert "stop it, or use --take-over" in refused.err
    assert stopped.code == 0
    again = await run("stop", job.id)
    assert (again.code, "had ended already" in again.err) == (1, True)


async def test_file_is_attached(run: Run, session: AsyncSession, tmp_path: Path) -> None:
    job = await _create(session, "done", "One")
    (tmp_path / "a.txt").write_text("text")

    ended = await run("attach", job.id, str(tmp_path / "a.txt"))
    missing = await run("attach", job.id, str(tmp_path / "b.txt"))

    assert ended.code == 0
    (link,) = await session.query("select component_id, job_id from JobComponent").all()
    assert (link["component_id"], link["job_id"]) == (ended.out.strip(), job.id)
    assert (missing.code, "there is no file" in missing.err) == (2, True)


async def test_wrong_key_is_said_without_the_query(
    command: Callable[..., Any], ftrack: dict[str, str]
) -> None:
    env = {**ftrack, "FTRACK_API_KEY": "wrong"}
    ended = await run_sync(lambda: command("jobs", env=env))

    assert ended.code == 1
    assert ended.err.startswith("aioftrackjobs: InvalidCredentialsError: ")
    assert "select" not in ended.err


async def test_address_of_the_interface(run: Run, server: ServerHandle) -> None:
    assert (await run("open", "--no-browser")).out == f"{server.url}\n"


async def test_ping_says_what_works(run: Run, server: ServerHandle) -> None:
    ended = await run("ping", "--write")

    assert ended.code == 0
    labels = [line.split("  ")[0] for line in ended.out.splitlines()]
    assert labels == [
        *("server", "version", "user", "latency", "clock", "journal", "read Jobs", "write Jobs")
    ]
    assert server.inspector.jobs() == [], "the Job of the test is deleted"


@pytest.mark.parametrize(
    ("variables", "code", "problem"),
    [
        ({"FTRACK_API_KEY": "wrong"}, 1, "not valid"),
        ({"FTRACK_SERVER": "http://127.0.0.1:9"}, 1, "cannot reach http://127.0.0.1:9"),
        ({"FTRACK_SERVER": "", "FTRACK_API_KEY": ""}, 2, "FTRACK_SERVER"),
    ],
)
async def test_ping_says_what_does_not(
    command: Callable[..., Any],
    ftrack: dict[str, str],
    variables: dict[str, str],
    code: int,
    problem: str,
) -> None:
    ended = await run_sync(lambda: command("ping", env={**ftrack, **variables}))

    assert ended.code == code
    assert problem in ended.out + ended.err


@pytest.mark.parametrize("arguments", [["-h"], ["jobs", "-h"], ["run", "-h"], ["run", "--help"]])
async def test_short_option_for_help(run: Run, arguments: list[str]) -> None:
    ended = await run(*arguments)

    assert (ended.code, "sage: aioftrackjobs" in ended.out) == (0, True)


async def test_server_is_named_before_the_command(
    command: Callable[..., Any], ftrack: dict[str, str], session: AsyncSession, tmp_path: Path
) -> None:
    await _create(session, "done", "One")
    (tmp_path / "key").write_text(ftrack["FTRACK_API_KEY"] + "\n")
    options = ("--server", ftrack["FTRACK_SERVER"], "--user", ftrack["FTRACK_API_USER"])

    ended = await run_sync(command, *options, "--key-file", str(tmp_path / "key"), "jobs")

    assert (ended.code, "\tOne\n" in ended.out) == (0, True)


@pytest.mark.parametrize(
    ("columns", "kept"), [(40, {"id", "status", "text"}), (120, {"user", "age"})]
)
async def test_width_of_a_terminal(
    ftrack: dict[str, str],
    environment: Callable[[Path], dict[str, str]],
    session: AsyncSession,
    tmp_path: Path,
    columns: int,
    kept: set[str],
) -> None:
    """A line for each Job, in the columns for which there is room, and no colour with NO_COLOR."""
    if shutil.which("script") is None:
        pytest.skip("script of util-linux is not installed")
    await _create(session, "done", "Render of a shot with a long name " * 5)
    program = f"stty cols {columns}; {sys.executable} -m aioftrackjobs jobs"
    variables = {**environment(tmp_path), **ftrack, "NO_COLOR": "1"}
    del variables["COLUMNS"]

    def show() -> str:
        words = ["script", "-qec", program, "/dev/null"]
        done = subprocess.run(words, env=variables, stdin=subprocess.DEVNULL, capture_output=True)
        return done.stdout.decode()

    head, row = (await run_sync(show)).replace("\x1b[1m", "").replace("\x1b[0m", "").splitlines()

    assert kept <= set(head.split())
    assert len(row.rstrip()) <= columns
    assert "\x1b" not in row
