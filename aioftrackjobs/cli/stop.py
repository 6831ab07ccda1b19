"""``aioftrackjobs stop``: stops a Job, and waits for its end."""

from __future__ import annotations

from aioftrackjobs import JobState
from aioftrackjobs.cli.arguments import ServerOptions


async def run(server: ServerOptions, job: str, reason: str | None, wait: float) -> JobState:
    """Stop *job*, wait for its end for some seconds, and return its state."""
    async with server.open_session() as session:
        state = await session.stop_job(job, reason)
        if not state.has_ended and wait:
            (state,) = await session.wait_for(job, timeout=wait)
        return state
