"""Memory after many Jobs were created, finished and dropped; the aim is 10 MiB.

Run it from the project's root, with the number of Jobs and the kind of flow if not all:

    python tests/benchmarks/forgetting.py [100000] [plain|context|offered]

*plain* creates and finishes Jobs with a commit each, *context* runs them with job_context,
*offered* offers all commits at once. The server is that of the farm benchmark, in a process of its
own. Printed are the resident memory of this process before (after a first tenth of the Jobs, which
brings Python's own arenas and the connections), at most, and after.
"""

import asyncio
import gc
import json
import resource
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from aioftrackjobs import AsyncSession, Job, JobStatus, job_context

AT_ONCE = 500
_MIB = 1 << 20


def resident() -> float:
    """Return the resident memory of this process, in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / _MIB


async def plain(session: AsyncSession) -> None:
    """Create a Job, and finish it."""
    async with session.unit_of_work() as unit:
        job = session.create(Job, {"status": "running", "data": '{"description": "a Job"}'})
        await unit.commit()
        job.status = JobStatus.DONE


async def context(session: AsyncSession) -> None:
    """Run a Job."""
    async with job_context(session, user=await session.current_user(), description="a Job") as job:
        job.progress(0.5)


async def offered(session: AsyncSession) -> None:
    """Create a Job."""
    async with session.unit_of_work():
        session.create(Job, {"data": '{"description": "a Job"}'})


async def run(
    session: AsyncSession,
    one: Callable[[AsyncSession], Awaitable[None]],
    number: int,
    at_once: int,
) -> float:
    """Run *one* that often; return the most memory that was seen."""
    most, left = 0.0, iter(range(number))

    async def work() -> None:
        nonlocal most
        for index in left:
            await one(session)
            if index % 1000 == 0:
                most = max(most, resident())

    await asyncio.gather(*(work() for _ in range(at_once)))
    return most


async def measure(told: dict[str, str], number: int, name: str) -> None:
    """Print a line about *number* Jobs of the kind *name*."""
    one = {"plain": plain, "context": context, "offered": offered}[name]
    at_once = number if name == "offered" else AT_ONCE
    async with AsyncSession(told["url"], told["key"], told["user"]) as session:
        await run(session, one, number // 10, min(at_once, number // 10))
        gc.collect()
        before, started = resident(), time.perf_counter()
        most = await run(session, one, number, at_once)
        seconds = time.perf_counter() - started
        gc.collect()
        after = resident()
    print(
        f"{name:8} {number:7} Jobs in {seconds:6.1f} s: before {before:6.1f} MiB, "
        f"at most {most:6.1f}, after {after:6.1f}: {after - before:+.1f} MiB"
    )


def main() -> None:
    """Measure in a process for each kind: memory that one has freed is not another's."""
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    kinds = sys.argv[2:] or ["plain", "context", "offered"]
    if len(kinds) > 1:
        for kind in kinds:
            command = [sys.executable, __file__, str(number), kind]
            subprocess.run(command, check=True)
        return
    server_file = Path(__file__).with_name("crowd.py")
    with subprocess.Popen(
        [sys.executable, server_file], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            told = json.loads(server.stdout.readline())
            asyncio.run(measure(told, number, kinds[0]))
        finally:
            server.stdin.close()


if __name__ == "__main__":
    main()
