"""How costs grow: with the number of Jobs and of known entities; memory, ends and idle sessions.

    python tests/benchmarks/growth.py [--quick] [--parts NAME ...] [--plot FILE.svg]

- ``work``: processor time for each of 10 to 10 000 Jobs that run at once by ``job_context``.
- ``known``: processor time of a commit while the program holds 1 to 100 000 entities.
- ``memory``: memory for each of many Jobs that run.
- ``ends``: how long the end of a block takes while many Jobs end.
- ``idle``: requests and processor time of a session in which nothing happens but one Job that runs.

Each figure is of a fresh process, pinned to one core; the server (``async_stub.py``) has another.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from pathlib import Path

from measuring import Memory, Stopwatch, report
from plotting import Points, lines
from run import Bench, benching, machine, render

PARTS = ("work", "known", "memory", "ends", "idle")
WORK, KNOWN = (10, 100, 1_000, 10_000), (1, 100, 10_000, 100_000)
QUICK_WORK, QUICK_KNOWN = (10, 100, 1_000), (1, 100, 10_000)

#: Seconds that a Job may take to end, also on a machine that is busy with other work.
_GRACE = 120


# The measured programs, in processes of their own


async def work(jobs: int) -> None:
    """Run Jobs at once, as often as it takes for a second of work or so."""
    from aioftrackjobs import AsyncSession, job_context

    rounds = max(1, 2_000 // jobs)
    async with AsyncSession(lease=180) as session:
        user = await session.current_user()

        async def one() -> None:
            async with job_context(session, user=user, description="x", grace=_GRACE):
                await asyncio.sleep(0)

        await one()  # imports what is imported late
        watch = Stopwatch()
        for _ in range(rounds):
            async with asyncio.TaskGroup() as group:
                for _ in range(jobs):
                    group.create_task(one())
        report(watch.read(share=jobs * rounds))


async def known(entities: int) -> None:
    """Commit changes of one entity while others are held."""
    from aioftrackjobs import AsyncSession, Job

    async with AsyncSession() as session:
        user, held = await session.current_user(), []
        while len(held) < entities:
            count = min(500, entities - len(held))
            held += [session.create(Job, {"user": user, "status": "queued"}) for _ in range(count)]
            await session.commit()
        watch = Stopwatch()
        for step in range(200):
            held[0]["data"] = f'{{"description": "step {step}"}}'
            await session.commit()
        report(watch.read(share=200))


async def memory(jobs: int) -> None:
    """Measure when all Jobs run."""
    from aioftrackjobs import AsyncSession, job_context

    async with AsyncSession(lease=180) as session:
        user, running = await session.current_user(), 0
        begun, ending = asyncio.Event(), asyncio.Event()

        async def one() -> None:
            nonlocal running
            async with job_context(session, user=user, description="x", grace=_GRACE):
                running += 1
                if running == jobs:
                    begun.set()
                await ending.wait()

        found = Memory()
        async with asyncio.TaskGroup() as group:
            for _ in range(jobs):
                group.create_task(one())
            await begun.wait()
            report({"bytes": found.read()["above_idle"] * 2**20 / jobs})
            ending.set()


async def ends(jobs: int) -> None:
    """Measure from the last line of each block until its Job has ended on the server."""
    from aioftrackjobs import AsyncSession, job_context

    async with AsyncSession(lease=180) as session:
        user, took = await session.current_user(), list[float]()

        async def one(delay: float) -> None:
            async with job_context(session, user=user, description="x", grace=_GRACE):
                await asyncio.sleep(delay)
                ended = time.perf_counter()
            took.append(time.perf_counter() - ended)

        async with asyncio.TaskGroup() as group:
            for number in range(jobs):
                group.create_task(one(5 * number / jobs))
        took.sort()
        report({"median": took[jobs // 2], "p99": took[jobs * 99 // 100], "max": took[-1]})


async def idle(seconds: int) -> None:
    """Count the requests of a session with one Job that runs; its lease is renewed each minute."""
    import httpx

    from aioftrackjobs import AsyncSession, job_context

    requests = 0

    async def count(_: httpx.Request) -> None:
        nonlocal requests
        requests += 1

    async with (
        httpx.AsyncClient(event_hooks={"request": [count]}) as client,
        AsyncSession(client=client, lease=180) as session,
        job_context(session, description="x"),
    ):
        await asyncio.sleep(1)
        requests, watch = 0, Stopwatch()
        await asyncio.sleep(seconds)
        report({"requests": requests, "cpu": watch.read()["cpu"]})


# The tables


def _run(bench: Bench, part: str, size: int) -> dict[str, float]:
    print(f"{part} {size} ...", file=sys.stderr, flush=True)
    return dict(bench.measure("growth", ["measure", part, str(size)]))


def _grown(title: str, points: Points) -> str:
    factor = points[-1][1] / points[0][1]
    lines = [[f"{size:,.0f}", f"{1e6 * seconds:,.0f} us"] for size, seconds in points]
    return f"{render([title, 'CPU'], lines)}\n\nThe last is {factor:.2f} times the first.\n"


def run(options: argparse.Namespace) -> None:
    """Measure, and print the tables."""
    plots: dict[str, Points] = {}
    with benching("async_stub", sys.executable, 0) as bench:
        bench.commands["growth"] = [sys.executable, str(Path(__file__).resolve())]
        if "work" in options.parts:
            sizes = QUICK_WORK if options.quick else WORK
            points = [(size, _run(bench, "work", size)["cpu"]) for size in sizes]
            plots["CPU for each Job, by Jobs at once"] = points
            print(_grown("Jobs at once", points))
        if "known" in options.parts:
            sizes = QUICK_KNOWN if options.quick else KNOWN
            points = [(size, _run(bench, "known", size)["cpu"]) for size in sizes]
            plots["CPU of a commit, by entities that the program holds"] = points
            print(_grown("entities held", points))
        jobs = 1_000 if options.quick else 10_000
        if "memory" in options.parts:
            found = _run(bench, "memory", jobs)
            print(f"Memory for each of {jobs:,} running Jobs: {found['bytes'] / 1024:.1f} KiB.\n")
        if "ends" in options.parts:
            found = _run(bench, "ends", jobs)
            print(
                f"The end of a block, {jobs:,} within five seconds: median "
                f"{1e3 * found['median']:.1f} ms, 99th percentile {1e3 * found['p99']:.1f} ms, "
                f"at most {1e3 * found['max']:.1f} ms.\n"
            )
        if "idle" in options.parts:
            seconds = 10 if options.quick else 60
            found = _run(bench, "idle", seconds)
            print(
                f"A session with one Job that runs, {seconds} s: {found['requests']:.0f} requests, "
                f"{1e3 * found['cpu']:.1f} ms of CPU.\n"
            )
    print(f"{machine(sys.executable)}; load average at the end {os.getloadavg()[0]:.1f}.")
    if options.plot is not None and plots:
        options.plot.write_text(lines(plots), encoding="utf-8")


def main() -> None:
    """Read the command line, and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="with less work")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="write the plots to a file")
    run(parser.parse_args())


if __name__ == "__main__":
    if sys.argv[1:2] == ["measure"]:
        asyncio.run(globals()[sys.argv[2]](int(sys.argv[3])))
    else:
        main()
