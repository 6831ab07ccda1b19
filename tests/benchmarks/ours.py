"""The workloads with this package: ``ours.py WORKLOAD [ARGUMENT ...]``, run by ``run.py``."""

import sys

from measuring import (
    COMMITS,
    LIFE_CYCLES,
    READING,
    SETTINGS,
    UPDATES,
    Laps,
    Memory,
    Stopwatch,
    moment,
    report,
)


async def hello() -> None:
    from aioftrackjobs import AsyncSession, job_context

    async with AsyncSession() as session, job_context(session, description="hello"):
        report(moment())


async def life_cycles() -> None:
    from aioftrackjobs import AsyncSession, Job

    async with AsyncSession() as session:
        user = await session.current_user()
        watch = Stopwatch()
        for _ in range(LIFE_CYCLES):
            job = session.create(Job, {"user": user, "status": "running"})
            await session.commit()
            for step in range(UPDATES):
                job["data"] = f'{{"description": "step {step}"}}'
                await session.commit()
            job["status"] = "done"
            await session.commit()
        report(watch.read())


async def farm(tasks: str, cycles: str) -> None:
    """Work as a daemon of a farm does: one session for all, and a unit of work for each Job."""
    import asyncio

    from aioftrackjobs import AsyncSession, Job

    async with AsyncSession() as session:
        user = await session.current_user()

        async def work() -> None:
            for _ in range(int(cycles)):
                async with session.unit_of_work() as unit:
                    job = session.create(Job, {"user": user, "status": "running"})
                    await unit.commit()
                    for step in range(UPDATES):
                        job["data"] = f'{{"description": "step {step}"}}'
                        await unit.commit()
                    job["status"] = "done"
                    await unit.commit()

        memory, watch = Memory(), Stopwatch()
        async with asyncio.TaskGroup() as group:
            for _ in range(int(tasks)):
                group.create_task(work())
        report({**watch.read(), **memory.read()})


async def jobs(tasks: str, cycles: str, rounds: str, folder: str, commits: str) -> None:
    """Work as a daemon of a farm does with ``job_context``: with journal and leases, and without.

    All settings take turns in one process; a turn is shorter than the changes in machine speed.
    """
    import asyncio
    import random
    from contextlib import AsyncExitStack

    from aioftrackjobs import AsyncSession, Job, job_context

    async def work(session: AsyncSession, user: object) -> None:
        for _ in range(int(cycles)):
            async with job_context(session, user=user, description="x", interval=0) as job:
                for step in range(2):
                    job.progress(step / 2)
                    await asyncio.sleep(0)
                async with session.unit_of_work() as unit:  # the work itself
                    item = session.create(Job, {"user": user}) if int(commits) else None
                    for step in range(int(commits)):
                        item["data"] = f'{{"description": "step {step}"}}'
                        await unit.commit()

    async def turn(session: AsyncSession) -> dict[str, float]:
        user = await session.current_user()
        watch = Stopwatch()
        async with asyncio.TaskGroup() as group:
            for _ in range(int(tasks)):
                group.create_task(work(session, user))
        return watch.read()

    chance, result = random.Random(), dict[str, float]()
    async with AsyncExitStack() as stack:
        sessions: list[tuple[str, AsyncSession]] = []
        for setting in SETTINGS:
            journal = f"{folder}/{setting}" if "journal" in setting else ""
            session = AsyncSession(journal=journal, lease=180 if "leases" in setting else 0)
            sessions.append((setting, await stack.enter_async_context(session)))
        for number in range(-1, int(rounds)):  # round -1 imports modules and creates files
            for setting, session in sessions:
                for name, value in (await turn(session)).items():
                    key = f"{setting}: {name}"
                    result[key] = result.get(key, 0.0) + (value if number >= 0 else 0.0)
            chance.shuffle(
                sessions
            )  # or garbage collection always falls into the turn of the same setting
    report(result)


async def many(jobs: str) -> None:
    """Run Jobs at once by ``job_context``, each with two reports, with a journal and leases."""
    import asyncio
    import tempfile

    from aioftrackjobs import AsyncSession, job_context

    with tempfile.TemporaryDirectory() as folder:
        async with AsyncSession(journal=f"{folder}/journal", lease=180) as session:
            user = await session.current_user()

            async def work() -> None:
                arguments = {"description": "x", "interval": 0, "grace": 120}
                async with job_context(session, user=user, **arguments) as job:
                    for step in range(2):
                        job.progress(step / 2)
                        await asyncio.sleep(0)

            watch = Stopwatch()
            async with asyncio.TaskGroup() as group:
                for _ in range(int(jobs)):
                    group.create_task(work())
            report(watch.read())


async def lone(commits: str) -> None:
    from aioftrackjobs import AsyncSession, Job

    async with AsyncSession() as session:
        job = session.create(Job, {"user": await session.current_user(), "status": "running"})
        await session.commit()
        laps = Laps()
        for step in range(int(commits)):
            job["data"] = f'{{"description": "step {step}"}}'
            await session.commit()
            laps.end()
        report(laps.read())


async def commit(held: str) -> None:
    from aioftrackjobs import AsyncSession

    async with AsyncSession() as session:
        jobs = await session.query(f"{READING} limit {held}").all()
        assert len(jobs) == int(held)
        jobs[0]["status"] = "queued"
        await session.commit()
        watch = Stopwatch()
        for number in range(COMMITS):
            jobs[0]["status"] = ("running", "done")[number % 2]
            await session.commit()
        report(watch.read(share=COMMITS))


async def read() -> None:
    from aioftrackjobs import AsyncSession

    async with AsyncSession() as session:
        await session.current_user()
        memory, watch = Memory(), Stopwatch()
        jobs = await session.query(READING).all()
        names = {(job["status"], job["user"]["username"]) for job in jobs}
        report({**watch.read(), **memory.read(), "found": len(names)})


async def upload(path: str) -> None:
    from aioftrackjobs import AsyncSession

    async with AsyncSession() as session:
        location = await session.query('Location where name is "ftrack.server"').one()
        memory, watch = Memory(), Stopwatch()
        component = await session.create_component(path, {"name": "benchmark"}, location)
        report({**watch.read(), **memory.read()}, component=component["id"])


async def download(component_id: str, path: str) -> None:
    from aioftrackjobs import AsyncSession

    async with AsyncSession() as session:
        await session.query('Location where name is "ftrack.server"').one()
        memory, watch = Memory(), Stopwatch()
        await session.download(component_id, path)
        report({**watch.read(), **memory.read()})


def importing() -> None:
    watch = Stopwatch()
    # Import the names that a program uses, because the package itself loads names lazily.
    from aioftrackjobs import AsyncSession, job_context  # noqa: F401

    report(watch.read())


if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    if name == "importing":
        importing()
    else:
        import asyncio

        asyncio.run(globals()[name](*arguments))
