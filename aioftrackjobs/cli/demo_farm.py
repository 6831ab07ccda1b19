"""``aioftrackjobs demo --farm``: a queue of procrastinate on PostgreSQL, and three workers.

One of the workers is killed in the midst: its shots go on with the others, as the same Jobs.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import anyio

from aioftrackjobs import (
    AsyncSession,
    ConfigurationError,
    Job,
    JobStatus,
    MissingExtraError,
    current_job,
)
from aioftrackjobs.devserver import ServerHandle, running
from aioftrackjobs.integrations.procrastinate import ftrack_jobs, task_key

try:
    from procrastinate import App, PsycopgConnector, RetryStrategy
    from procrastinate.jobs import Job as QueuedJob
except ImportError as _missing:  # it has no library of PostgreSQL
    raise MissingExtraError("procrastinate", "psycopg") from _missing

_WORKERS, _FRAMES = 3, 10

#: Seconds for which a killed worker may be missed, and its shots wait.
_STALLED, _REDELIVERED = 3, 600

_WORKER = """\
import asyncio, sys
from aioftrackjobs.cli.demo_farm import work
asyncio.run(work(sys.argv[1]))
"""

_CLOSING = """\
{done} shots are done. One worker was killed: its shots went on with another worker, as the
same Jobs. See docs/engines.md, and examples/render_farm for the farm as a program of your own.
"""


def make_app(conninfo: str) -> App:
    """Return the queue, with its one task."""
    app = App(connector=PsycopgConnector(conninfo=conninfo))

    @app.task(name="render", retry=RetryStrategy(max_attempts=2))
    async def render(shot: str) -> None:
        job = current_job()
        async for frame in job.track(range(_FRAMES)):
            job.message = f"frame {1001 + frame} on {os.environ.get('WORKER', 'a worker')}"
            await asyncio.sleep(0.2)

    return app


def _text_of(job: QueuedJob) -> str:
    return f"Render {job.task_kwargs['shot']}"


async def work(conninfo: str) -> None:
    """Run shots until the process ends."""
    app = make_app(conninfo)
    async with AsyncSession() as session, app.open_async():
        jobs = ftrack_jobs(session, description=_text_of, redelivered_within=_REDELIVERED)
        await app.run_worker_async(
            concurrency=2,
            fetch_job_polling_interval=0.5,
            update_heartbeat_interval=0.5,
            stalled_worker_timeout=_STALLED,
            worker_middleware=[jobs],
        )


def run(count: int) -> None:
    """Run a farm that renders *count* shots, and show its progress on the terminal.

    Raises:
        ConfigurationError: PostgreSQL is not installed.
    """
    initdb, postgres = _find("initdb"), _find("postgres")
    with _postgres(initdb, postgres) as conninfo:
        anyio.run(_demonstrate, conninfo, count)


async def _demonstrate(conninfo: str, count: int) -> None:
    app = make_app(conninfo)
    async with (
        running() as server,
        AsyncSession(server.url, server.api_key, server.api_user) as session,
        app.open_async(),
    ):
        await app.schema_manager.apply_schema_async()
        print(f"The jobs page is {server.url} (API key: {server.api_key})\n")
        render = app.configure_task("render")
        for number in range(count):
            shot = f"sh{10 * (number + 1):04}"
            key = task_key(await render.defer_async(shot=shot), redelivered_within=_REDELIVERED)
            await session.queue_job(key, description=f"Render {shot}")
        async with _workers(server, conninfo) as workers:
            done = await _follow(app, session, workers)
    print(_CLOSING.format(done=done), end="")


async def _follow(app: App, session: AsyncSession, workers: list[anyio.abc.Process]) -> int:
    """Print how many Jobs have which status, until all have ended; return how many are done."""
    is_killed, shown = False, ""
    while True:
        jobs = await session.query("select id, status from Job").of(Job).all()
        counts = Counter(str(job.status) for job in jobs)
        text = ", ".join(f"{number} {status}" for status, number in sorted(counts.items()))
        if text != shown:
            print(text, flush=True)
            shown = text
        if counts[JobStatus.DONE] + counts[JobStatus.FAILED] == len(jobs):
            return counts[JobStatus.DONE]
        if counts[JobStatus.RUNNING] and not is_killed:
            await anyio.sleep(1)
            workers[0].kill()
            is_killed = True
            print("one of the workers is killed")
        for stalled in await app.job_manager.get_stalled_jobs(seconds_since_heartbeat=_STALLED):
            print(f"{_text_of(stalled)} goes to another worker")
            await app.job_manager.retry_job(stalled)
        await anyio.sleep(1)


@asynccontextmanager
async def _workers(server: ServerHandle, conninfo: str) -> AsyncIterator[list[anyio.abc.Process]]:
    env = {
        **os.environ,
        "FTRACK_SERVER": server.url,
        "FTRACK_API_KEY": server.api_key,
        "FTRACK_API_USER": server.api_user,
    }
    started = list[anyio.abc.Process]()
    try:
        for number in range(1, _WORKERS + 1):
            command = [sys.executable, "-c", _WORKER, conninfo]
            named = {**env, "WORKER": f"worker {number}"}
            started.append(await anyio.open_process(command, env=named, stdout=None, stderr=None))
        yield started
    finally:
        with anyio.CancelScope(shield=True):
            for worker in started:
                if worker.returncode is None:
                    worker.kill()
                await worker.wait()


# PostgreSQL, in a temporary folder


def _find(program: str) -> str:
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    path = os.pathsep.join([os.environ.get("PATH", ""), *map(str, folders)])
    if (found := shutil.which(program, path=path)) is None:
        raise ConfigurationError(
            [f"demo --farm needs PostgreSQL: {program} is missing (apt install postgresql)"]
        )
    return found


def _account() -> Mapping[str, Any]:
    """Return whom PostgreSQL runs as, which refuses root."""
    if os.geteuid() != 0:
        return {}
    import pwd  # late: Windows has none

    names = {each.pw_name for each in pwd.getpwall()}
    account = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": ()}


@contextmanager
def _postgres(initdb: str, program: str) -> Iterator[str]:
    """Run PostgreSQL on a free port of this host; yield how to connect to it."""
    account = _account()
    with tempfile.TemporaryDirectory(prefix="aioftrackjobs-farm-") as folder:
        if account:
            os.chown(folder, account["user"], account["group"])
        options: dict[str, Any] = {**account, "cwd": folder, "stdout": -3, "stderr": -3}
        data = f"{folder}/data"
        create = [initdb, "-D", data, "-U", "farm", "-A", "trust", "-E", "UTF8", "--no-sync"]
        subprocess.run(create, check=True, **options)
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
        serve = [program, "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", "", "-F"]
        process = subprocess.Popen(serve, **options)
        try:
            _wait_for(Path(data), process)
            yield f"host=127.0.0.1 port={port} user=farm dbname=postgres"
        finally:
            process.send_signal(2)  # it ends its connections
            process.wait()


def _wait_for(data: Path, process: subprocess.Popen[Any]) -> None:
    """Wait until PostgreSQL takes connections, which the last line of its file says."""
    status = data / "postmaster.pid"
    while process.poll() is None:
        with suppress(OSError):
            if status.read_text().rstrip().endswith("ready"):
                return
        time.sleep(0.02)
    raise ConfigurationError([f"PostgreSQL has ended with exit code {process.returncode}"])
