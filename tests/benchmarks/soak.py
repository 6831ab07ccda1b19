"""``kill -9`` of daemons at random moments: at the end no Job of a killed process is running.

    python tests/benchmarks/soak.py [--kills 200] [--seed N] [--daemons 2] [--damage]

Each daemon runs Jobs with progress, attachments and failures. It is killed, and another one starts
on the same journal and delivers the pending reports of the killed one. One daemon is never killed:
no other process may change its Jobs, and some of them run from the beginning to the end.

Each daemon logs the Jobs that it has seen end; these must have the logged status on the server, and
their files. All other Jobs of the killed daemons must have failed as lost. No file may be left to
which no component refers, and the journal may only have entries of the daemon that is alive. The
benchmark reports violations together with the seed, which repeats them.

With ``--damage``, bytes of the journal are overwritten or cut off before each kill, while it is in
use: so long before that the daemons may notice it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sqlite3
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from run import ROOT

sys.path.insert(0, str(ROOT))

from aioftrackjobs import AsyncSession
from aioftrackjobs.devserver import ServerHandle, running
from aioftrackjobs.session import jobs_of

DAEMON = """
import asyncio, os, random, sys
from aioftrackjobs import AsyncSession, job_context

name, seed, log_path, lasting = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
chance = random.Random(seed)
descriptor = os.open(log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def log(*words):
    os.write(descriptor, (" ".join(words) + "\\n").encode())

async def work(session, user, number):
    end = "done"
    try:
        async with job_context(
            session, user=user, description=f"{name} {number}", interval=0.01
        ) as job:
            for step in range(chance.randint(1, 6)):
                job.progress(step, total=6)
                await asyncio.sleep(chance.random() / 50)
            if chance.random() < 0.3:
                size = chance.randint(1, 300_000)
                component = await job.attach(b"x" * size, name="a.bin")
                log("attached", component.id, str(size))
            if chance.random() < 0.2:
                end = "failed"
                raise ValueError("on purpose")
    except ValueError:
        pass
    log(end, job.id)

async def run_forever(session, user, number):
    async with job_context(session, user=user, description=f"{name} lasts {number}") as job:
        log("lasts", job.id)
        await asyncio.Event().wait()

async def main():
    async with AsyncSession() as session, asyncio.TaskGroup() as lasts:
        user = await session.current_user()
        for number in range(lasting):
            lasts.create_task(run_forever(session, user, number))
        print("ready", flush=True)
        number = 0
        while True:
            async with asyncio.TaskGroup() as group:
                for _ in range(20):
                    number += 1
                    group.create_task(work(session, user, number))

asyncio.run(main())
"""

#: Jobs of the daemon that is never killed which run all the time.
LASTING = 20

#: Attempts to deliver what is left, with pauses of half a second: the session waits two minutes for
#: a Job whose creation never arrived.
_ATTEMPTS = 300

#: Seconds in which damage of the journal is noticed, and the journal made anew.
_NOTICED = 2.0

#: A part of the description of a lost Job.
LOST = "worker process ended unexpectedly"


async def start(
    server: ServerHandle, folder: Path, name: str, seed: int, lasting: int = 0
) -> asyncio.subprocess.Process:
    """Start a daemon, and wait until its session is open."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "FTRACK_SERVER": server.url,
        "FTRACK_API_KEY": server.api_key,
        "FTRACK_API_USER": server.api_user,
        "FTRACK_JOBS_JOURNAL": str(folder / "journal"),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        DAEMON,
        name,
        str(seed),
        str(folder / f"{name}.log"),
        str(lasting),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    await process.stdout.readline()
    return process


async def run(options: argparse.Namespace) -> None:
    """Kill and restart the daemons, and check what they have left."""
    chance = random.Random(options.seed)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with running(database=folder / "server.db", storage=folder / "files") as server:
            survivor = await start(server, folder, "survivor", options.seed, LASTING)
            daemons = [
                await start(server, folder, f"daemon {index}", chance.randrange(10**9))
                for index in range(options.daemons)
            ]
            for kill in range(options.kills):
                index = kill % options.daemons
                await asyncio.sleep(chance.random() * 0.6)
                if options.damage:
                    damage(folder, chance)
                    await asyncio.sleep(_NOTICED)
                daemons[index].kill()
                await daemons[index].wait()
                daemons[index] = await start(
                    server, folder, f"daemon {index}", chance.randrange(10**9)
                )
            for process in daemons:
                process.kill()
                await process.wait()
            await deliver(server, folder)
            logged = read_logs(folder)  # before the query: the survivor still ends Jobs
            jobs = server.inspector.jobs()
            survivor.kill()  # at the end, because what it leaves is not checked
            await survivor.wait()
            problems = [*check(jobs, logged), *check_files(server, folder, logged)]
    counts = Counter(job["status"] for job in jobs)
    lost = sum(LOST in (job["description"] or "") for job in jobs)
    print(f"{len(jobs)} Jobs: {dict(counts)}, {lost} of them failed as lost")
    print(f"{options.kills} kills in {time.monotonic() - started:.0f} s, seed {options.seed}")
    if problems:
        sys.exit("\n".join([f"seed {options.seed}: {len(problems)} problems", *problems[:20]]))


def damage(folder: Path, chance: random.Random) -> None:
    """Overwrite some bytes of the journal or of its log, or cut it off."""
    path = folder / chance.choice(["journal", "journal-wal"])
    try:
        size = path.stat().st_size
        if chance.random() < 0.2:
            os.truncate(path, chance.randrange(size + 1))
        else:
            with path.open("r+b") as file:
                file.seek(chance.randrange(max(size, 1)))
                file.write(chance.randbytes(chance.choice([1, 10, 100, 5000])))
    except FileNotFoundError:  # it is being made anew
        return


async def deliver(server: ServerHandle, folder: Path) -> None:
    """Wait until a session has delivered what the killed daemons have left."""
    credentials = (server.url, server.api_key, server.api_user)
    async with AsyncSession(*credentials, journal=folder / "journal") as session:
        for _ in range(_ATTEMPTS):
            # An upload is removed when no last request can register it any more.
            if await jobs_of(session).replay.deliver() and not left_behind(folder):
                break
            await asyncio.sleep(0.5)


def left_behind(folder: Path) -> list[tuple[str, str]]:
    """Return the kinds and ids of the entries of dead processes, and of this one, which takes them.

    Those of the survivor are its own matter.
    """
    with closing(sqlite3.connect(folder / "journal")) as database:
        return database.execute(
            "SELECT kind, id FROM entries JOIN owners ON owners.token = entries.owner"
            " WHERE owners.ended OR owners.pid = ?",
            (os.getpid(),),
        ).fetchall()


def read_logs(folder: Path) -> dict[str, set[tuple[str, ...]]]:
    """Return the log entries of all daemons, by their first words."""
    entries = defaultdict[str, set[tuple[str, ...]]](set)
    for path in folder.glob("*.log"):
        for line in path.read_text().splitlines():
            word, *rest = line.split()
            entries[word].add(tuple(rest))
    return entries


def check(
    jobs: Sequence[Mapping[str, Any]], logged: Mapping[str, set[tuple[str, ...]]]
) -> Iterator[str]:
    """Return the Jobs whose state on the server is wrong, or differs from the logs."""
    ends = {job_id: end for end in ("done", "failed") for (job_id,) in logged[end]}
    lasting = {job_id for (job_id,) in logged["lasts"]}
    if len(lasting) != LASTING:
        yield f"{len(lasting)} Jobs of the survivor last, not {LASTING}"
    for job in jobs:
        text, status = job["description"] or "", job["status"]
        if text.startswith("survivor"):
            if LOST in text or "recovered" in job["data"]:
                yield f"{text}: another process changed a Job of a live process"
            if job["id"] in lasting and status != "running":
                yield f"{text}: its process runs it, and its status is {status}"
        elif status not in ("done", "failed"):
            yield f"{text}: its status is {status}, and its process was killed"
        elif (end := ends.get(job["id"])) is not None and (end != status or LOST in text):
            yield f"{text}: its status is {status}, and its process logged {end}"
        elif status == "failed" and LOST not in text and "on purpose" not in text:
            yield f"{text}: it has failed without a reason"
    missing = ends.keys() - {job["id"] for job in jobs}
    if missing:
        yield f"{len(missing)} Jobs that ended are missing on the server"


def check_files(
    server: ServerHandle, folder: Path, logged: Mapping[str, set[tuple[str, ...]]]
) -> Iterator[str]:
    """Return the files that are damaged or unused, and what is left in the journal."""
    for component_id, size in logged["attached"]:
        if server.inspector.content(component_id) != b"x" * int(size):
            yield f"the file {component_id} is damaged"
    left = left_behind(folder)
    with closing(sqlite3.connect(folder / "journal")) as database:
        uploads = {key for (key,) in database.execute("SELECT id FROM entries WHERE kind='upload'")}
    yield from (f"{kind} {key}: it is still in the journal" for kind, key in left)
    registered = {each["id"] for each in server.inspector.find("select id from Component")}
    for file in (
        {path.name for path in (folder / "files" / "components").iterdir()} - registered - uploads
    ):
        yield f"the file {file} belongs to no component"


def main() -> None:
    """Read the command line, and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument(
        "--daemons", type=int, default=2, help="that are killed, one after the other"
    )
    parser.add_argument("--damage", action="store_true", help="the journal before each kill")
    parser.add_argument("--seed", type=int, default=random.randrange(10**9))
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
