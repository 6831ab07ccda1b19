"""A small farm daemon: works on a queue of shots, a few at a time, each as a Job.

Set FTRACK_SERVER, FTRACK_API_USER and FTRACK_API_KEY, then:

    python farm_daemon.py sh010:1001-1096 sh020:1001-1048

It stops when the queue is empty. With --forever it goes on with Jobs that others queue in
ftrack: any Job with the status "queued" and data such as {"farm_task": "sh030:1001-1024"}. Any
number of daemons may do so; each Job is rendered by one of them.
On SIGINT or SIGTERM the Jobs that run end as failed, "stopped by SIGTERM", and the exit code is
128 plus the number of the signal. Set FTRACK_JOBS_JOURNAL to a file on a local disk to have the
next run end the Jobs of one that was killed.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import anyio

from aioftrackjobs import (
    AsyncSession,
    FtrackJobsError,
    Job,
    JobOwnedError,
    job_context,
    shutdown_on_signals,
)

logger = logging.getLogger("farm")

#: Seconds between two queries for queued Jobs.
POLL = 2.0


@dataclass(frozen=True)
class Task:
    """Work for the farm: a text such as ``sh010:1001-1096``, and its Job if it has one."""

    text: str
    job: Job | None = None


class Farm:
    """Works on tasks, a few at a time; all share one session."""

    def __init__(
        self, session: AsyncSession, tasks: Sequence[Task], *, workers: int, forever: bool
    ) -> None:
        self._session = session
        self._tasks = deque(tasks)
        self._free = anyio.Semaphore(workers)
        self._forever = forever

    async def run(self) -> None:
        """Return when there is nothing left to do."""
        async with anyio.create_task_group() as group:
            while True:
                await self._free.acquire()  # first a worker, then a task: the rest stays queued
                task = await self._next_task()
                if task is None:
                    return
                group.start_soon(self._work, task)

    async def _next_task(self) -> Task | None:
        if self._tasks:
            return self._tasks.popleft()
        while self._forever:
            task = await claim_task(self._session)
            if task is not None:
                return task
            await anyio.sleep(POLL)
        return None

    async def _work(self, task: Task) -> None:
        try:
            await render(self._session, task)
        except JobOwnedError as error:  # it was claimed, and then not begun in time
            logger.warning("%s", error)
        except FtrackJobsError as error:  # the server is away, or refuses: wait before the next one
            logger.warning("%s: %s", task.text, error)
            await anyio.sleep(POLL)
        except Exception:  # one bad task must not stop the others
            logger.exception("%s failed", task.text)
        else:
            logger.info("%s is done", task.text)
        finally:
            self._free.release()


async def claim_task(session: AsyncSession) -> Task | None:
    """Return the task of a queued Job that no other daemon has claimed; None if there is none."""
    query = session.query(
        'Job where status is "queued" and data like {mark} order by created_at',
        mark='%"farm_task"%',
    )
    try:
        job = await session.claim_job(query)
    except FtrackJobsError as error:  # the server is away; it will be back
        logger.warning("cannot look for queued Jobs: %s", error)
        return None
    return None if job is None else Task(task_of(job), job)


def task_of(job: Job) -> str:
    """Return the text of a Job's task; a text without frames if it has none, so that it fails."""
    try:
        return str(json.loads(job["data"])["farm_task"])
    except (ValueError, TypeError, KeyError):
        return "no farm_task"


async def render(session: AsyncSession, task: Task) -> None:
    """Render the frames of a shot as a Job: the one it has, or a new one."""
    description = f"Render {task.text}"
    async with job_context(session, job=task.job, description=description) as job:
        logger.info("%s runs as Job %s", task.text, job.id)
        # Parsed inside: a task that cannot be parsed is a failed Job, which users see.
        shot, _, frames = task.text.partition(":")
        first, last = map(int, frames.split("-"))
        log = []
        async for frame in job.track(range(first, last + 1)):
            await anyio.sleep(0.02)  # in place of the renderer: await anyio.run_process([...])
            log.append(f"{shot}.{frame}.exr")
        await job.attach("\n".join(log).encode(), name=f"{shot}_frames.txt")


async def main(options: argparse.Namespace) -> None:
    """Run the farm, until the queue is empty or a signal ends it."""
    async with AsyncSession() as session, shutdown_on_signals(session):
        farm = Farm(session, options.tasks, workers=options.workers, forever=options.forever)
        await farm.run()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="*", type=Task, help="such as sh010:1001-1096")
    parser.add_argument("--workers", type=int, default=3, help="how many at a time")
    parser.add_argument("--forever", action="store_true", help="go on with queued Jobs")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(
        logging.WARNING
    )  # otherwise it logs a line for each request
    anyio.run(main, arguments)
