"""``aioftrackjobs ping``: whether this machine can run Jobs on an ftrack server."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

from aioftrackjobs import AsyncSession, FtrackJobsError, Job, PermissionDeniedError
from aioftrackjobs.cli.texts import plain
from aioftrackjobs.session import connection_of

#: Requests whose latency is measured.
_REQUESTS = 5

#: Seconds by which clocks may differ: leases allow for a minute.
_CLOCK_LIMIT = 30.0


async def ping(session: AsyncSession, *, write: bool) -> bool:
    """Print what works, line by line; return whether all does.

    Args:
        session: An open session.
        write: Whether to create a Job and delete it again.
    """
    print(f"server       {plain(session.server_url)}")
    information = await _check("", session.server_information)
    if information is None:
        return False
    version = information.get("version") or "unknown"
    print(f"version      {plain(str(version))}")
    user = await _check("user", session.current_user)
    if user is None:
        return False
    print(f"user         {plain(str(user['username']))}")
    print(f"latency      {await _latency(session) * 1000:.0f} ms")
    ahead = connection_of(session).server_status.clock_offset.total_seconds()
    is_good = abs(ahead) <= _CLOCK_LIMIT
    hint = "" if is_good else "; set the clock of this machine, because leases depend on it"
    print(f"clock        {_clock_text(ahead)}{hint}")
    state = session.health.journal
    print(f"journal      {plain(str(state))}")
    reads = await _check("read Jobs", session.query("select id from Job limit 1").all)
    if reads is None:
        return False
    print("read Jobs    permitted")
    if write:
        is_good &= await _check_write(session)
    return is_good


async def _latency(session: AsyncSession) -> float:
    shortest = float("inf")
    for _ in range(_REQUESTS):
        began = time.perf_counter()
        await session.query("select id from User limit 1").all()
        shortest = min(shortest, time.perf_counter() - began)
    return shortest


def _clock_text(ahead: float) -> str:
    if abs(ahead) < 2:
        return "the same as the server's"
    return f"{abs(ahead):.0f} s {'behind' if ahead > 0 else 'ahead of'} the server's"


async def _check_write(session: AsyncSession) -> bool:
    """Create a Job that has ended, and delete it."""

    async def create() -> Job:
        data = {"description": "aioftrackjobs ping"}
        values = {"user": await session.current_user(), "status": "done", "data": data}
        job = session.create(Job, values)
        await session.commit()
        return job

    job = await _check("write Jobs", create)
    if job is None:
        session.rollback()
        return False
    print("write Jobs   permitted")
    session.delete(job)
    if await _check("delete Jobs", session.commit) is None:
        session.rollback()  # a Job stays, which is done
    return True


async def _check(what: str, ask: Callable[[], Awaitable[Any]]) -> Any:
    """Return what *ask* returns; print its error and return None if there is one."""
    try:
        found = await ask()
    except PermissionDeniedError as error:
        print(f"{what:<12} not permitted: {plain(str(error))}")
    except FtrackJobsError as error:
        print(f"{what or 'problem':<12} {plain(str(error))}")
    else:
        return True if found is None else found
    return None
