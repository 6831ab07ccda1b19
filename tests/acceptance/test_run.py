"""``aioftrackjobs run``: commands as users run them, and what the server then holds."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from anyio.to_thread import run_sync

from aioftrackjobs import AsyncSession, Job, Query
from aioftrackjobs.devserver import ServerHandle, running

#: A server that refuses connections.
_NOWHERE = "http://127.0.0.1:9"

Start = Callable[..., Any]


@pytest.fixture
def run(launch: Start, ftrack: dict[str, str]) -> Start:
    """Start ``aioftrackjobs run ARGUMENTS`` with variables for the server, and others."""

    def start(*arguments: str, env: dict[str, str] | None = None) -> Any:
        return launch("-m", "aioftrackjobs", "run", *arguments, env={**ftrack, **(env or {})})

    return start


@pytest.fixture
def only_job(session: AsyncSession) -> Callable[[], Awaitable[Any]]:
    """Return the one Job that there is: its status, its data and its attachments by name."""

    async def find() -> Any:
        jobs = await session.query("select status, data, user.username from Job").of(Job).all()
        (job,) = jobs
        links = await session.query(
            "select component.name, component.file_type from JobComponent where job_id is {id}",
            id=job.id,
        ).all()
        names = [link["component"]["name"] + link["component"]["file_type"] for link in links]
        return job["status"], json.loads(job["data"]), sorted(names), job

    return find


def _script(folder: Path, text: str) -> str:
    path = folder / "work.sh"
    path.write_text(text)
    return str(path)


async def test_done_with_openjd_lines(run: Start, only_job: Start, tmp_path: Path) -> None:
    """Status, percentage and text of a shell script, whose output passes unchanged."""
    script = _script(
        tmp_path,
        "echo openjd_status: rendering\necho openjd_progress: 40\n"
        "printf 'caf\\303\\251 \\377\\0 no end'; echo to stderr >&2\n",
    )

    program = run("--description", "Render sh010", "--user", "developer", "--", "sh", script)
    assert await program.end() == 0

    status, data, names, job = await only_job()
    assert (status, data["description"], data["progress"]) == ("done", "Render sh010", 0.4)
    assert (names, job["user"]["username"]) == ([], "developer")
    out = (tmp_path / "program1" / "out").read_bytes()
    assert out.endswith(b"openjd_progress: 40\ncaf\xc3\xa9 \xff\0 no end")
    assert program.err == "to stderr\n"


async def test_failure_has_a_reason_and_a_log(
    run: Start, only_job: Start, session: AsyncSession, tmp_path: Path
) -> None:
    script = _script(
        tmp_path,
        "echo 'openjd_redacted_env: TOKEN=s3cret-value'\necho using s3cret-value, $FTRACK_API_KEY\n"
        "echo frame 3 >&2; echo '  Error:  no license ' >&2; echo '---' >&2; exit 3\n",
    )

    program = run("--", "sh", script)
    assert await program.end() == 3

    status, data, names, _ = await only_job()
    assert (status, names) == ("failed", ["sh.log"])
    assert data["description"] == "sh - failed: exit code 3: Error: no license"
    (link,) = await session.query("select component from JobComponent").all()
    await session.download(link["component"], tmp_path / "log")
    log = (tmp_path / "log").read_text()
    assert "frame 3" in log
    assert "s3cret" not in log
    assert session._connection.credentials.api_key.reveal() not in log


async def test_what_openjd_says_is_the_reason(run: Start, only_job: Start, tmp_path: Path) -> None:
    script = _script(tmp_path, "echo openjd_fail: the scene is empty\necho other >&2; exit 1\n")

    assert await run("--log", "never", "--", "sh", script).end() == 1

    _, data, names, _ = await only_job()
    assert data["description"] == "sh - failed: the scene is empty"
    assert names == []


@pytest.mark.parametrize(
    ("command", "code", "reason"),
    [
        (["no-such-program"], 127, "no-such-program: not found"),
        (["sh", "-c", "kill -SEGV $$"], 139, "killed by SIGSEGV"),
    ],
    ids=["not found", "signal"],
)
async def test_exit_code_is_passed_on(
    run: Start, only_job: Start, command: list[str], code: int, reason: str
) -> None:
    assert await run("--", *command).end() == code

    status, data, _, _ = await only_job()
    assert status == "failed"
    assert data["description"].endswith(f" - failed: {reason}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_ends_all_processes(
    run: Start, only_job: Start, tmp_path: Path, number: signal.Signals
) -> None:
    """Of the command, its group, and a descendant that has left it; one of them ignores SIGTERM."""
    script = _script(
        tmp_path,
        "trap '' TERM INT\nsleep 61 & echo $! > pids\nsetsid sleep 62 & echo $! >> pids\n"
        "echo $$ >> pids; echo ready\nwhile :; do sleep 0.05; done\n",
    )
    program = run("--grace", "0.3s", "--", "sh", script)
    await program.shows("ready")

    program.send(number)
    assert await program.end() == 137

    status, data, _, _ = await only_job()
    assert (status, data["description"]) == ("failed", f"sh - failed: stopped by {number.name}")
    assert _alive(tmp_path / "pids") == []


async def test_command_is_stopped_and_continued(
    run: Start, only_job: Start, tmp_path: Path, until: Start
) -> None:
    """By Ctrl-Z, and then ``fg``: the wrapper stops with its command."""
    os.mkfifo(tmp_path / "go")  # no child process: a shell whose child is stopped is not, but waits
    program = run("--", "sh", _script(tmp_path, "echo $PPID $$ > pids; read -r line < go\n"))

    async def states() -> str:
        file = tmp_path / "pids"
        pids = file.read_text().split() if file.exists() else []
        return "".join(_state(int(pid)) for pid in pids)

    async def both_stop() -> bool:
        return await states() == "TT"

    async def both_run() -> bool:
        return "T" not in (found := await states()) and len(found) == 2

    await until(both_run)
    program.send(signal.SIGTSTP)
    await until(both_stop)
    program.send(signal.SIGCONT)
    await until(both_run)
    await run_sync((tmp_path / "go").write_text, "go on\n")

    assert await program.end() == 0
    assert (await only_job())[0] == "done"


async def test_output_that_cannot_be_written(
    ftrack: dict[str, str], environment: Start, only_job: Start, tmp_path: Path
) -> None:
    """The disk is full: a message says so, and the command goes on."""
    command = [sys.executable, "-m", "aioftrackjobs", "run", "--", "sh", "-c", "echo a; echo b"]

    def write() -> subprocess.CompletedProcess[bytes]:
        env = {**environment(tmp_path), **ftrack}
        with Path("/dev/full").open("wb") as full:
            return subprocess.run(command, env=env, stdout=full, stderr=subprocess.PIPE, timeout=20)

    done = await run_sync(write)

    text = b"aioftrackjobs: the output of the command is lost: No space left on device\n"
    assert (done.returncode, done.stderr) == (0, text)
    assert (await only_job())[0] == "done"


async def test_killed_program_leaves_nothing(
    run: Start, only_job: Start, tmp_path: Path, until: Start
) -> None:
    """The command is ended by the watchdog, and the Job fails by the process that reports it."""
    script = _script(
        tmp_path,
        "trap '' TERM\nsleep 61 & echo $! > pids\nsetsid sleep 62 & echo $! >> pids\n"
        "echo $$ >> pids; echo openjd_progress: 5; while :; do sleep 0.05; done\n",
    )
    program = run("--grace", "0.2s", "--", "sh", script)

    async def runs() -> bool:
        try:
            return bool((await only_job())[1].get("progress"))
        except ValueError:
            return False

    await until(runs)
    program.send(signal.SIGKILL)

    async def ended() -> bool:
        return (await only_job())[0] == "failed" and not _alive(tmp_path / "pids")

    await until(ended)
    _, data, _, _ = await only_job()
    assert data["description"] == "sh (5 %) - failed: aioftrackjobs run was killed"
    assert "lease" not in data


async def test_stop_request_ends_the_command(
    run: Start, only_job: Start, session: AsyncSession, tmp_path: Path, until: Start
) -> None:
    script = _script(tmp_path, "trap 'echo caught; exit 0' TERM\nwhile :; do sleep 0.02; done\n")
    program = run("-d", "Long", "--", "sh", script)

    async def runs() -> bool:
        return bool(await session.query('Job where status is "running"').all())

    await until(runs)
    _, _, _, job = await only_job()
    await session.stop_job(job, "wrong shot", by="maya")

    assert await program.end() == 143
    status, data, _, _ = await only_job()
    assert (status, data["description"]) == (
        "failed",
        "Long - failed: stopped by maya: wrong shot",
    )
    assert "caught" in program.out


async def test_timeout_and_retries(run: Start, only_job: Start, tmp_path: Path) -> None:
    """The first attempt takes too long, the second one fails, the third one succeeds."""
    script = _script(
        tmp_path,
        "echo x >> tries; case $(wc -l < tries) in 1) sleep 60;; 2) exit 5;; esac\n",
    )

    program = run("--timeout", "2s", "--retries", "3", "--", "sh", script)
    assert await program.end() == 0

    assert (await only_job())[0] == "done"
    assert program.err.splitlines() == [
        "aioftrackjobs: timed out after 2 s; attempt 2 of 4",
        "aioftrackjobs: exit code 5; attempt 3 of 4",
    ]


async def test_nested_commands_share_the_job(
    run: Start, only_job: Start, tmp_path: Path, ftrack: dict[str, str]
) -> None:
    """A further ``run`` and a Python program, both started before the Job exists, work on it."""
    child = tmp_path / "child.py"
    child.write_text(
        "import anyio, os\nfrom aioftrackjobs import AsyncSession, job_context\n"
        "async def main():\n"
        "    given = os.environ['FTRACK_JOB_ID']\n"
        "    async with AsyncSession() as session:\n"
        "        async with job_context(session, job=given, join=True) as job:\n"
        "            await job.attach(b'x', name='from_python.txt')\n"
        "            job.progress(0.75, 'in Python')\n"
        "anyio.run(main)\n"
    )
    inner = [sys.executable, "-m", "aioftrackjobs", "run", "-d", "ignored", "--log", "always", "--"]

    program = run("-d", "Outer", "--", *inner, sys.executable, str(child))
    assert await program.end() == 0, program.err

    status, data, names, _ = await only_job()
    assert (status, data["description"], data["progress"]) == ("done", "Outer", 0.75)
    assert names == ["from_python.txt"]


async def test_queued_job_is_run(
    run: Start, only_job: Start, session: AsyncSession, server: ServerHandle
) -> None:
    user = await session.current_user()
    job = session.create(Job, {"user": user, "status": "queued", "data": '{"description": "Q"}'})
    await session.commit()

    assert await run("--job", job.id, "--", "sh", "-c", 'echo "$FTRACK_JOB_ID"').end() == 0

    status, data, _, found = await only_job()
    assert (found.id, status, data["description"]) == (job.id, "done", "Q")


async def test_queued_job_fails_if_its_command_is_not_found(
    run: Start, only_job: Start, session: AsyncSession
) -> None:
    job = session.create(Job, {"user": await session.current_user(), "status": "queued"})
    await session.commit()

    assert await run("--job", job.id, "--", "no-such-program").end() == 127

    assert (await only_job())[:2] == (
        "failed",
        {
            "description": "failed: no-such-program: not found",
            "base_description": "",
        },
    )


async def test_job_of_another_is_not_run(
    run: Start, only_job: Start, session: AsyncSession, tmp_path: Path
) -> None:
    from aioftrackjobs import job_context

    async with job_context(session, description="mine") as job:
        program = run("--job", job.id, "--", "touch", str(tmp_path / "started"))
        assert await program.end() == 1
        assert "aioftrackjobs: the command is not started: " in program.err
        assert not (tmp_path / "started").exists()

    assert (await only_job())[0] == "done"


async def test_unreachable_server_does_not_delay_the_command(run: Start, tmp_path: Path) -> None:
    """The journal keeps the Job: ``tests/integration/test_commands.py`` has what follows."""
    env = {"FTRACK_SERVER": _NOWHERE}
    refused = run("--require-ftrack", "--", "touch", str(tmp_path / "x"), env=env)
    journal = str(tmp_path / "journal")

    kept = run("--journal", journal, "--", "sh", "-c", "echo ran; exit 4", env=env)
    assert await kept.end() == 4

    assert kept.out == "ran\n"
    assert "ftrack cannot be reached; the journal keeps the Job" in kept.err
    refused.kill()
    assert not (tmp_path / "x").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")
async def test_killed_while_ftrack_is_away(run: Start, until: Start, tmp_path: Path) -> None:
    """None of its processes is left to say how it ended: the next session creates the Job."""
    journal = tmp_path / "journal"
    with socket.socket() as away:  # it does not listen: connections are refused
        away.bind(("127.0.0.1", 0))
        port = away.getsockname()[1]
        env = {"FTRACK_SERVER": f"http://127.0.0.1:{port}"}
        options = ("--journal", str(journal), "--description", "Render", "--user", "developer")
        program = run(*options, "--", "sleep", "60", env=env)
        await until(partial(_has_start, journal))
        for pid in _processes_of(journal):
            os.kill(pid, signal.SIGKILL)
        assert await program.end() == -signal.SIGKILL

    async with (
        running(port=port) as server,
        AsyncSession(server.url, server.api_key, server.api_user, journal=journal) as later,
    ):
        created = later.query("select status, data, user.username from Job").of(Job)
        await until(partial(_finds_any, created))
        (job,) = await created.all()
        description = json.loads(job["data"])["description"]
        assert (job.status, job["user"]["username"]) == ("failed", "developer")
        assert description.startswith("Render - failed: worker process ended unexpectedly on ")
    assert not await _has_start(journal)


async def _finds_any(query: Query[Job]) -> bool:
    return bool(await query.all())


async def _has_start(journal: Path) -> bool:
    if not journal.exists():
        return False
    with closing(sqlite3.connect(journal)) as database:
        try:
            return bool(database.execute("SELECT 1 FROM entries WHERE kind = 'start'").fetchall())
        except sqlite3.OperationalError:  # it is just being made
            return False


def _processes_of(journal: Path) -> list[int]:
    """Return the processes of the wrapper: the one that reports the Job, too."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:  # it has ended
            continue
        if str(journal).encode() in words:
            found.append(int(path.parent.name))
    return found


async def test_caller_without_standard_streams(
    ftrack: dict[str, str], environment: Start, only_job: Start, tmp_path: Path
) -> None:
    line = f"{sys.executable} -m aioftrackjobs run -- sh -c 'echo x > out' <&- >&- 2>&-"

    def start() -> int:
        env = {**environment(tmp_path), **ftrack}
        return subprocess.run(["sh", "-c", line], env=env, cwd=tmp_path, timeout=20).returncode

    assert await run_sync(start) == 0
    assert (tmp_path / "out").read_text() == "x\n"
    assert (await only_job())[0] == "done"


async def test_journal_that_cannot_be_used(run: Start, only_job: Start) -> None:
    """The Job is run without one, and a message says so."""
    program = run("--journal", "/nowhere/jobs.journal", "--", "true")

    assert await program.end() == 0
    assert "the journal /nowhere/jobs.journal cannot be used" in program.err
    assert (await only_job())[0] == "done"


async def test_journal_on_a_full_disk(
    ftrack: dict[str, str], environment: Start, only_job: Start, tmp_path: Path
) -> None:
    """No file can be written: the Job is run without a journal, and a message says so."""
    line = (
        f"ulimit -f 0; exec {sys.executable} -m aioftrackjobs run --journal jobs -- sh -c 'exit 3'"
    )

    def start() -> subprocess.CompletedProcess[bytes]:
        env = {**environment(tmp_path), **ftrack}
        command = ["sh", "-c", line]
        return subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, timeout=40)

    done = await run_sync(start)

    assert done.returncode == 3
    assert b"jobs cannot be used" in done.stderr
    assert (await only_job())[:1] == ("failed",)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("exec >&-; sleep 0.2; echo late >&2; exit 3", "exit code 3: late"),
        ("exec >&- 2>&-; sleep 0.2; exit 3", "exit code 3"),
        ("printf '\\377\\376 bad\\n' >&2; exit 3", "exit code 3: \ufffd\ufffd bad"),
        ("(sleep 60; echo x) & echo left a child >&2; exit 3", "exit code 3: left a child"),
    ],
    ids=["closes stdout", "closes both", "no UTF-8", "leaves a child"],
)
async def test_odd_ends_of_the_output(
    run: Start, only_job: Start, tmp_path: Path, script: str, reason: str
) -> None:
    assert await run("--", "sh", _script(tmp_path, script)).end() == 3

    assert (await only_job())[1]["description"] == f"sh - failed: {reason}"


async def test_files_are_attached_by_pattern(run: Start, only_job: Start, tmp_path: Path) -> None:
    script = _script(
        tmp_path, "mkdir -p out/deep; echo 1 > out/deep/a.mov; echo 2 > out/notes.txt\n"
    )

    program = run("-a", "out/**/*.mov", "-a", "*.none", "--", "sh", script)
    assert await program.end() == 0

    assert (await only_job())[2] == ["a.mov"]
    assert program.err == "aioftrackjobs: no file matches *.none\n"


async def test_output_that_nothing_reads_ends_the_command(
    ftrack: dict[str, str], environment: Start, only_job: Start, tmp_path: Path
) -> None:
    """As without the wrapper: the command gets SIGPIPE."""
    line = f"{sys.executable} -m aioftrackjobs run -- sh -c 'while echo y; do :; done' | head -1"

    def pipe() -> subprocess.CompletedProcess[bytes]:
        env = {**environment(tmp_path), **ftrack}
        return subprocess.run(["sh", "-c", line], env=env, capture_output=True, timeout=20)

    assert (await run_sync(pipe)).stdout == b"y\n"
    assert (await only_job())[1]["description"] == "sh - failed: killed by SIGPIPE"


async def test_background_processes_of_a_command_that_ended(
    run: Start, only_job: Start, tmp_path: Path
) -> None:
    """They are ended if they are of its group, and nothing waits for a daemon's output."""
    script = _script(
        tmp_path,
        "sleep 61 & echo $! > pids\nsetsid sleep 3 & echo $! > daemon\necho bye\n",
    )

    assert await run("--", "sh", script).end() == 0

    assert (await only_job())[0] == "done"
    assert _alive(tmp_path / "pids") == []
    for pid in _alive(tmp_path / "daemon"):
        os.kill(pid, signal.SIGKILL)


async def test_program_sees_a_terminal_where_there_is_one(
    ftrack: dict[str, str], environment: Start, tmp_path: Path
) -> None:
    if shutil.which("script") is None:
        pytest.skip("script of util-linux is not installed")
    script = _script(
        tmp_path, "[ -t 1 ] && echo out; [ -t 2 ] && echo err >&2; printf 'a\\tb\\n'\n"
    )
    command = f"{sys.executable} -m aioftrackjobs run -- sh {script}"

    def show() -> bytes:
        env = {**environment(tmp_path), **ftrack}
        words = ["script", "-qec", command, "/dev/null"]
        done = subprocess.run(
            words, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=20
        )
        return done.stdout

    assert sorted((await run_sync(show)).splitlines()) == [b"a\tb", b"err", b"out"]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "there is no command"),
        (["--preset", "blender", "--", "x"], "no preset; there are alfred"),
        (["--progress", "(", "--", "x"], "no regular expression"),
        (["--frames", "9-1", "--", "x"], "no range of frames"),
        (["--timeout", "0", "--", "x"], "argument --timeout/-t: invalid"),
        (["--retries", "-1", "--", "x"], "argument --retries/-r: invalid"),
        (["--nope", "--", "x"], "unrecognized arguments: --nope"),
        (["--key-file", "/nowhere", "--", "x"], "cannot use --key-file /nowhere: No such file"),
    ],
)
async def test_mistake_starts_nothing(run: Start, arguments: list[str], problem: str) -> None:
    program = run(*arguments)

    assert await program.end() == 2
    assert problem in program.err


async def test_missing_settings_are_named(launch: Start) -> None:
    program = launch("-m", "aioftrackjobs", "run", "--", "echo", "started")

    assert await program.end() == 2
    assert "FTRACK_SERVER" in program.err
    assert program.out == ""


async def test_settings_before_the_command(
    launch: Start, ftrack: dict[str, str], only_job: Start, tmp_path: Path
) -> None:
    """They name the server for the command, too, so that it can join its Job."""
    (tmp_path / "key").write_text(ftrack["FTRACK_API_KEY"] + "\n")
    options = ["--server", ftrack["FTRACK_SERVER"], "--user=" + ftrack["FTRACK_API_USER"]]

    program = launch(
        *("-m", "aioftrackjobs", *options, "--key-file", str(tmp_path / "key"), "run"),
        *("sh", "-c", 'echo "$FTRACK_SERVER $FTRACK_API_USER"'),
    )

    assert await program.end() == 0
    assert program.out == f"{ftrack['FTRACK_SERVER']} {ftrack['FTRACK_API_USER']}\n"
    assert (await only_job())[0] == "done"


# Real programs


def _needs(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not installed (apt-get install {program})")
    return path


async def test_ffmpeg(run: Start, only_job: Start, tmp_path: Path) -> None:
    ffmpeg = _needs("ffmpeg")
    target = tmp_path / "picture.mp4"
    source = ["-f", "lavfi", "-i", "testsrc=duration=2:size=64x64:rate=25"]
    command = [ffmpeg, "-y", "-v", "error", "-progress", "pipe:1", *source, str(target)]

    program = run("-p", "ffmpeg", "--duration", "2", "-a", str(target), "--", *command)
    assert await program.end() == 0, program.err

    status, data, names, _ = await only_job()
    assert (status, data["progress"], names) == ("done", 1.0, ["picture.mp4"])


async def test_ffmpeg_that_fails(run: Start, only_job: Start, tmp_path: Path) -> None:
    ffmpeg = _needs("ffmpeg")
    missing = str(tmp_path / "missing.mov")

    assert await run("-p", "ffmpeg", "--", ffmpeg, "-i", missing, "out.mp4").end() > 0

    status, data, _, _ = await only_job()
    assert status == "failed"
    assert "No such file or directory" in data["description"]


@pytest.mark.parametrize("option", ["--info=progress2", "--progress"])
async def test_rsync(run: Start, only_job: Start, tmp_path: Path, option: str) -> None:
    rsync = _needs("rsync")
    source = tmp_path / "plates"
    source.mkdir()
    for number in range(5):
        (source / f"{number}.exr").write_bytes(os.urandom(50_000))

    program = run("-p", "rsync", "--", rsync, "-a", option, f"{source}/", str(tmp_path / "copy"))
    assert await program.end() == 0, program.err

    status, data, _, _ = await only_job()
    assert (status, data["progress"]) == ("done", 1.0)


async def test_tqdm(run: Start, only_job: Start, tmp_path: Path) -> None:
    tqdm = pytest.importorskip("tqdm")
    script = tmp_path / "bar.py"
    script.write_text(
        "from tqdm import tqdm\nfor n in tqdm(range(200), desc='x', mininterval=0):\n"
        "    if n == 99: raise SystemExit('no frame 99')\n"
    )
    path = os.pathsep.join([str(Path(tqdm.__file__).parents[1])])

    program = run("-p", "tqdm", "--", sys.executable, str(script), env={"PYTHONPATH": _paths(path)})
    assert await program.end() == 1

    status, data, _, _ = await only_job()
    assert status == "failed"
    assert data["progress"] == pytest.approx(0.5, abs=0.02)
    assert "no frame 99" in data["description"]


@pytest.mark.slow
async def test_blender(run: Start, only_job: Start, tmp_path: Path) -> None:
    """Two frames of the scene that Blender starts with, by Cycles on the processor."""
    blender = _needs("blender")
    scene = tmp_path / "scene.py"
    scene.write_text(
        "import bpy\nscene = bpy.context.scene\nscene.render.resolution_percentage = 1\n"
        "scene.cycles.samples, scene.cycles.use_denoising = 4, False\n"
    )
    start = [blender, "-b", "--factory-startup", "-E", "CYCLES", "-P", str(scene)]
    frames = ["-o", f"{tmp_path}/####", "-s", "11", "-e", "12", "-a"]

    program = run("-p", "cycles", "-f", "11-12", "-a", f"{tmp_path}/*.png", "--", *start, *frames)
    assert await program.end() == 0, program.err

    status, data, names, _ = await only_job()
    assert (status, data["progress"], names) == ("done", 1.0, ["0011.png", "0012.png"])
    assert "Sample 4/4" in program.out


def _paths(path: str) -> str:
    import aioftrackjobs

    return os.pathsep.join([str(Path(aioftrackjobs.__file__).parents[1]), path])


def _alive(file: Path) -> list[int]:
    """Return those processes of a list that run."""
    pids = [int(line) for line in file.read_text().split()]
    return [pid for pid in pids if _runs(pid)]


def _runs(pid: int) -> bool:
    return _state(pid) not in ("", "Z")  # nothing may reap it here


def _state(pid: int) -> str:
    """Return the state of a process as one letter; empty if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""
