"""Jobs that are cancelled at random moments: by asyncio where it runs, and by anyio."""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter

import anyio
import sniffio

from aioftrackjobs import AsyncSession, RunningJob, job_context
from aioftrackjobs.devserver import running
from aioftrackjobs.testing import FtrackServer

from .outcome import Outcome, by_name
from .secrets import KEY, SecretWatch

_STEPS = 5


class CancelledJobs:
    """Jobs at the same time, each of which is cancelled at some moment.

    Args:
        span: Seconds within which a Job is cancelled that has not ended.
    """

    def __init__(
        self, session: AsyncSession, outcome: Outcome, watch: SecretWatch, span: float
    ) -> None:
        self._session = session
        self._outcome = outcome
        self._watch = watch
        self._span = span
        self.entered: set[str] = set()
        self.ended: set[str] = set()

    async def run(self, number: int) -> None:
        """Run a Job in a task of its own, which is cancelled, or else the scope in it."""
        if sniffio.current_async_library() == "asyncio":
            await asyncio.wait([asyncio.create_task(self._work(f"Job {number}", number))])
        else:
            await self._work(f"Job {number}", number)

    async def _work(self, name: str, number: int) -> None:
        with anyio.CancelScope() as scope:
            chance = random.Random(f"{self._outcome.seed}/{number}")
            cancel_after = _by_task if chance.random() < 0.5 else _by_scope
            moment = chance.random() * self._span
            is_early = chance.random() < 0.2
            if is_early:  # at some moment while Jobs begin
                cancel_after(moment, scope)
            try:
                async with job_context(self._session, description=name, interval=0.05) as job:
                    self.entered.add(name)
                    if not is_early:
                        cancel_after(moment, scope)
                    await self._work_on(job, chance)
                    self.ended.add(name)
            except anyio.get_cancelled_exc_class() as error:
                self._watch.see(error)
                raise
            except Exception as error:  # noqa: BLE001 - no other may come out
                self._watch.see(error)
                self._outcome.violations.append(f"{name} was left by {error!r}")

    async def _work_on(self, job: RunningJob, chance: random.Random) -> None:
        pause = chance.random() * 2 * self._span / _STEPS
        for step in range(_STEPS):
            job.progress(step, total=_STEPS)
            await anyio.sleep(pause)
        if chance.random() < 0.2:
            await job.attach(b"some bytes", name="result.bin")


def _by_scope(delay: float, scope: anyio.CancelScope) -> None:
    scope.deadline = anyio.current_time() + delay


def _by_task(delay: float, scope: anyio.CancelScope) -> None:
    """Cancel the running task as asyncio does, without scopes; in trio, by a scope."""
    if sniffio.current_async_library() == "asyncio":
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().call_later(delay, task.cancel)
    else:
        _by_scope(delay, scope)


async def prove_cancellations(jobs: int, seed: int) -> Outcome:
    """Cancel *jobs* Jobs, and compare what the server holds with how far each Job had come."""
    outcome = Outcome(f"{jobs} concurrent Jobs cancelled at random moments", seed)
    with SecretWatch(KEY) as watch:
        async with running(api_key=KEY, empty=True) as handle:
            server = FtrackServer(handle)
            async with server.session() as session:
                cancelled = CancelledJobs(session, outcome, watch, span=0.5 + jobs / 400)
                async with anyio.create_task_group() as group:
                    for number in range(jobs):
                        group.start_soon(cancelled.run, number)
            _check(server, jobs, cancelled, outcome)
    return outcome.finish(watch)


def _reason(description: str) -> str:
    """Return the end of a text; a deadline is one of the two ways to cancel."""
    return re.sub(r"timed out after [\d.]+ s$", "cancelled", description.partition(" - ")[2])


def _check(
    server: FtrackServer, number_of_jobs: int, cancelled: CancelledJobs, outcome: Outcome
) -> None:
    found = by_name(server.jobs())
    ends: Counter[str] = Counter()
    for name in (f"Job {number}" for number in range(number_of_jobs)):
        jobs = found.get(name, [])
        held = [(job["status"], _reason(job["description"])) for job in jobs]
        as_cancelled = ("failed", "failed: cancelled")
        if name in cancelled.ended:
            allowed = [[("done", "")]]
        elif name in cancelled.entered:
            allowed = [[as_cancelled]]
        else:  # if it was cancelled before its creation was sent, there is no Job
            allowed = [[], [as_cancelled]]
        outcome.require(held in allowed, f"{name} is {held}, which is none of {allowed}")
        ends.update(status for status, _ in held)
        ends["never begun"] += not held
    outcome.figures |= {
        "Jobs done, whose block had ended": ends["done"],
        'Jobs failed, "cancelled"': ends["failed"],
        "  of them before their block began": len(found) - len(cancelled.entered),
        "cancelled before there was a Job": ends["never begun"],
    }
