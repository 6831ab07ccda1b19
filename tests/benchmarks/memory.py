"""Memory after many Jobs were created, finished and dropped; the aim is 10 MiB.

Run it from the project's root, with the number of Jobs and the kind of flow; without a kind, it
measures all of them:

    python tests/benchmarks/memory.py [JOBS] [plain|context|concurrent]

*plain* creates and finishes Jobs with a commit for each step, *context* runs them with
``job_context``, and *concurrent* submits all commits at once. The server is that of the farm
benchmark, in a process of its own. The benchmark prints the resident memory of this process before
the Jobs, the most during them, and after them. Before them, a tenth of the Jobs has already run,
which allocates Python's own arenas and opens the connections.
"""

from __future__ import annotations

import argparse
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


async def concurrent(session: AsyncSession) -> None:
    """Create a Job."""
    async with session.unit_of_work():
        session.create(Job, {"data": '{"description": "a Job"}'})


KINDS = {"plain": plain, "context": context, "concurrent": concurrent}


async def run(
    session: AsyncSession,
    one: Callable[[AsyncSession], Awaitable[None]],
    number: int,
    at_once: int,
) -> float:
    """Run *one* for *number* Jobs; return the most memory in use, in MiB."""
    most, left = 0.0, iter(range(number))

    async def work() -> None:
        nonlocal most
        for index in left:
            await one(session)
            if index % 1000 == 0:
                most = max(most, resident())

    await asyncio.gather(*(work() for _ in range(at_once)))
    return most


async def measure(endpoint: dict[str, str], number: int, name: str) -> None:
    """Print a line about *number* Jobs of the kind *name*."""
    one = KINDS[name]
    at_once = number if name == "concurrent" else AT_ONCE
    async with AsyncSession(endpoint["url"], endpoint["key"], endpoint["user"]) as session:
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
    """Measure each kind in a process of its own, because memory that one frees another reuses."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("jobs", type=int, nargs="?", default=100_000, help="number of Jobs")
    parser.add_argument("kinds", nargs="*", help=f"of {', '.join(KINDS)}; all without")
    options = parser.parse_args()
    number, kinds = options.jobs, options.kinds or list(KINDS)
    if not KINDS.keys() >= set(kinds):
        parser.error(f"the kinds are {', '.join(KINDS)}")
    if len(kinds) > 1:
        for kind in kinds:
            command = [sys.executable, __file__, str(number), kind]
            subprocess.run(command, check=True)
        return
    server_file = Path(__file__).with_name("async_stub.py")
    with subprocess.Popen(
        [sys.executable, server_file], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            endpoint = json.loads(server.stdout.readline())
            asyncio.run(measure(endpoint, number, kinds[0]))
        finally:
            server.stdin.close()


if __name__ == "__main__":
    main()
