"""The first Job of a process: what is imported, and when.

Each test runs in a process of its own, where nothing is imported yet.
"""

from __future__ import annotations

import os
import subprocess
import sys

import anyio
import pytest

from aioftrackjobs import AsyncSession, Job
from aioftrackjobs.devserver import ServerHandle

#: What costs more than all that is needed to name a session and a Job.
HEAVY = (
    "aioftrackjobs.models",
    "asyncio",
    "email",
    "http.client",
    "httpcore",
    "httpx",
    "pydantic",
    "sqlite3",
    "ssl",
    "tempfile",
    "zipfile",
)

NAMES_ONLY = """
import sys
from aioftrackjobs import AsyncSession, job_context
print(*sys.modules)
"""

ASKING = """
import asyncio, sys
import httpx
from aioftrackjobs import AsyncSession

async def look(request):
    print("asks", *sys.modules)

async def main():
    async with httpx.AsyncClient(event_hooks={"request": [look]}) as client:
        async with AsyncSession(client=client) as session:
            print("open", *sys.modules)
            user = await session.current_user()
            print("is", user["username"])

asyncio.run(main())
"""

RUNNING = """
import asyncio, sys
import httpx
from aioftrackjobs import AsyncSession, job_context

async def hold_back(response):
    # The first answer arrives only when all is imported that comes after it.
    async with asyncio.timeout(60):
        while "JobLifecycle" not in dir(sys.modules.get("aioftrackjobs.jobs.lifecycle")):
            await asyncio.sleep(0.001)

async def main():
    async with httpx.AsyncClient(event_hooks={"response": [hold_back]}) as client:
        async with AsyncSession(client=client) as session:
            async with job_context(session, description="hello") as job:
                print(job.id)

asyncio.run(main())
"""


async def run(code: str, server: ServerHandle | None = None) -> str:
    account = {}
    if server is not None:
        account = {
            "FTRACK_SERVER": server.url,
            "FTRACK_API_KEY": server.api_key,
            "FTRACK_API_USER": server.api_user,
        }
    done = await anyio.run_process(
        [sys.executable, "-c", code],
        env={**os.environ, **account},
        stderr=subprocess.PIPE,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


@pytest.mark.asyncio_only
async def test_a_session_and_a_job_are_named_without_what_they_stand_on() -> None:
    loaded = set((await run(NAMES_ONLY)).split())

    assert loaded & set(HEAVY) == set()


@pytest.mark.asyncio_only
async def test_a_session_opens_and_asks_who_it_is_before_it_imports_the_models(
    server: ServerHandle,
) -> None:
    lines = (await run(ASKING, server)).splitlines()

    told = {line.partition(" ")[0]: line.split()[1:] for line in lines}
    assert "aioftrackjobs.models" not in told["open"]
    assert "aioftrackjobs.models" not in told["asks"]
    assert told["is"] == [server.api_user]


@pytest.mark.asyncio_only
async def test_the_rest_is_imported_while_the_first_answer_is_on_its_way(
    server: ServerHandle, session: AsyncSession
) -> None:
    job_id = (await run(RUNNING, server)).strip()

    found = await session.get(Job, job_id)
    assert found is not None
    assert (found["status"], found.description) == ("done", "hello")
