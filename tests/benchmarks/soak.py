"""kill -9 of a daemon at random moments: in the end no Job of a dead process is running.

    python tests/benchmarks/soak.py [--kills 200] [--seed N] [--daemons 2]

Each daemon runs Jobs with progress, attachments and failures; it is killed, and another one
starts on the same journal, which delivers what its predecessor owed. One daemon is never killed:
none of its Jobs may be touched. What does not hold is told with the seed that shows it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from run import ROOT

sys.path.insert(0, str(ROOT))

from aioftrackjobs import AsyncSession, Job, JobStatus
from aioftrackjobs.devserver import ServerHandle, running

DAEMON = """
import asyncio, random, sys
from aioftrackjobs import AsyncSession, job_context

name, seed = sys.argv[1], int(sys.argv[2])
chance = random.Random(seed)

async def work(session, user, number):
    try:
        async with job_context(
            session, user=user, description=f"{name} {number}", interval=0.01
        ) as job:
            for step in range(chance.randint(1, 6)):
                job.progress(step, total=6)
                await asyncio.sleep(chance.random() / 50)
            if chance.random() < 0.3:
                await job.attach(b"x" * chance.randint(1, 300_000), name="a.bin")
            if chance.random() < 0.2:
                raise ValueError("on purpose")
    except ValueError:
        pass

async def main():
    async with AsyncSession() as session:
        user = await session.current_user()
        print("ready", flush=True)
        number = 0
        while True:
            async with asyncio.TaskGroup() as group:
                for _ in range(20):
                    number += 1
                    group.create_task(work(session, user, number))

asyncio.run(main())
"""


async def start(
    server: ServerHandle, journal: Path, name: str, seed: int
) -> asyncio.subprocess.Process:
    """Start a daemon, and wait until it works."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "FTRACK_SERVER": server.url,
        "FTRACK_API_KEY": server.api_key,
        "FTRACK_API_USER": server.api_user,
        "FTRACK_JOBS_JOURNAL": str(journal),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        DAEMON,
        name,
        str(seed),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    await process.stdout.readline()
    return process


async def run(options: argparse.Namespace) -> None:
    """Kill, restart, and see what is left."""
    chance = random.Random(options.seed)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        journal = Path(folder, "journal")
        async with running(database=Path(folder, "server.db")) as server:
            survivor = await start(server, journal, "survivor", options.seed)
            daemons = [
                await start(server, journal, f"daemon {index}", chance.randrange(10**9))
                for index in range(options.daemons)
            ]
            for kill in range(options.kills):
                index = kill % options.daemons
                await asyncio.sleep(chance.random() * 0.6)
                daemons[index].kill()
                await daemons[index].wait()
                daemons[index] = await start(
                    server, journal, f"daemon {index}", chance.randrange(10**9)
                )
            for process in daemons:
                process.kill()
                await process.wait()
            await check(server, journal, options)
            survivor.kill()
            await survivor.wait()
    print(f"{options.kills} kills in {time.monotonic() - started:.0f} s, seed {options.seed}")


async def check(server: ServerHandle, journal: Path, options: argparse.Namespace) -> None:
    """Deliver what is left, and compare the server with what must be."""
    credentials = (server.url, server.api_key, server.api_user)
    async with AsyncSession(*credentials, journal=journal) as session:
        deadline = time.monotonic() + 30
        while True:
            query = session.query('select id, status, data from Job where status is "running"')
            jobs = await query.of(Job).all()
            left = [job for job in jobs if not (job.description or "").startswith("survivor")]
            if not left or time.monotonic() > deadline:
                break
            await asyncio.sleep(0.1)
        everything = await session.query("select id, status, data from Job").of(Job).all()
    touched = [
        job
        for job in everything
        if (job.description or "").startswith("survivor") and "recovered" in json.loads(job["data"])
    ]
    counts = Counter(str(job.status) for job in everything)
    recovered = sum("worker process ended" in (job.description or "") for job in everything)
    print(f"{len(everything)} Jobs: {dict(counts)}, {recovered} of them failed by recovery")
    if left or touched:
        sys.exit(
            f"seed {options.seed}: {len(left)} Jobs of dead processes are running, "
            f"{len(touched)} of a live one were touched"
        )
    assert set(counts) <= {JobStatus.DONE, JobStatus.FAILED, JobStatus.RUNNING}


def main() -> None:
    """Read the command line, and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--daemons", type=int, default=2, help="that are killed in turn")
    parser.add_argument("--seed", type=int, default=random.randrange(10**9))
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
