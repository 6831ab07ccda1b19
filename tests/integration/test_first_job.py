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

#: What is imported only when a session is opened, or a journal: an HTTP client, a database, and
#: what they stand on.
IMPORTED_LATER = (
    "asyncio",
    "email",
    "http.client",
    "httpcore",
    "httpx",
    "sqlite3",
    "ssl",
)

NAMES_ONLY = """
import sys
from aioftrackjobs import AsyncSession, job_context
print(*sys.modules)
"""

RUNNING = """
import asyncio
from aioftrackjobs import AsyncSession, job_context

async def main():
    async with AsyncSession() as session:
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
async def test_a_session_and_a_job_are_imported_without_http_client_and_database() -> None:
    loaded = set((await run(NAMES_ONLY)).split())

    assert "aioftrackjobs.session" in loaded
    assert loaded & set(IMPORTED_LATER) == set()


@pytest.mark.asyncio_only
async def test_the_first_job_of_a_process_runs(server: ServerHandle, session: AsyncSession) -> None:
    job_id = (await run(RUNNING, server)).strip()

    found = await session.get(Job, job_id)
    assert found is not None
    assert (found["status"], found.description) == ("done", "hello")
