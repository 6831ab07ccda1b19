"""What every attack gets: a server, a folder, and chance."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio

from aioftrackjobs import AsyncSession, RetryPolicy
from aioftrackjobs.config.timings import DEFAULT_TIMINGS

from .proxy import Proxy
from .score import Score
from .servers import ENDED, Server

#: The times of most sessions: an end of the Job that was begun by another session is not attacked.
TIMINGS = replace(DEFAULT_TIMINGS, claim_wait=0.02, closing_linger=0.2)

#: Retries that end soon.
SHORT = RetryPolicy(budget=4.0)

#: Seconds after which a call that should have ended counts as left running.
HANG = 60.0


@dataclass(frozen=True, slots=True)
class Ground:
    """Where an attack takes place.

    Attributes:
        server: The server.
        backend: The event loop.
        chance: Decides what is not fixed.
        folder: An empty folder.
    """

    server: Server
    backend: str
    chance: random.Random
    folder: Path

    def session(self, proxy: Proxy, **options: Any) -> AsyncSession:
        """Return a session to be opened, whose requests pass *proxy*."""
        options = {"timings": TIMINGS, "retry": SHORT, **options}
        return AsyncSession(proxy.url, self.server.key, self.server.user, **options)

    async def check_ended(
        self, score: Score, expected: dict[str, str], seconds: float = 5.0
    ) -> None:
        """Count the Jobs that do not have the expected status after some *seconds*, at most."""
        found: dict[str, str] = {}
        with anyio.move_on_after(seconds):
            while found != expected:
                found = await self.server.statuses(list(expected))
                await anyio.sleep(0.2)
        for key, status in expected.items():
            now = found.get(key)
            if now not in ENDED:
                score.note("left", f"a Job that ended as {status} is {now}")
            elif now != status:
                score.note("false", f"a Job that ended as {status} is {now}")


@asynccontextmanager
async def hanging_counts(score: Score, what: str) -> AsyncIterator[None]:
    """Count what does not end as left running."""
    with anyio.move_on_after(HANG) as scope:
        yield
    if scope.cancelled_caught:
        score.note("left", f"{what} did not end within {HANG:g} s")


async def side_by_side(work: Callable[[int], Awaitable[None]], count: int) -> None:
    """Run *work* with each number, all at once."""

    async def run(number: int) -> None:
        await work(number)

    async with anyio.create_task_group() as group:
        for number in range(count):
            group.start_soon(run, number)
