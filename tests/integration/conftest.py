"""A fresh embedded server on a real socket for each test, and a session on it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import ftrack_api
import pytest
from anyio.to_thread import run_sync

from aioftrackjobs import AsyncSession
from aioftrackjobs.devserver import ServerHandle, running

T = TypeVar("T")


@pytest.fixture
async def server() -> AsyncIterator[ServerHandle]:
    async with running() as handle:
        yield handle


@pytest.fixture
async def session(server: ServerHandle) -> AsyncIterator[AsyncSession]:
    """An open session: pytest-asyncio opens and closes it in different tasks."""
    async with AsyncSession(server.url, server.api_key, server.api_user) as opened:
        yield opened


@pytest.fixture
async def other(server: ServerHandle) -> AsyncIterator[AsyncSession]:
    """A second session, which knows nothing of what the first one holds."""
    async with AsyncSession(server.url, server.api_key, server.api_user) as opened:
        yield opened


class Official:
    """The unmodified official Python client, in a worker thread: it blocks."""

    def __init__(self, server: ServerHandle) -> None:
        self._server = server

    async def run(self, flow: Callable[[Any], T]) -> T:
        """Run *flow* with an official session of its own, and return what it returns."""

        def run() -> T:
            session = ftrack_api.Session(
                server_url=self._server.url,
                api_key=self._server.api_key,
                api_user=self._server.api_user,
                schema_cache_path=False,
                plugin_paths=[],
            )
            try:
                return flow(session)
            finally:
                session.close()

        return await run_sync(run)


@pytest.fixture
def official(server: ServerHandle) -> Official:
    return Official(server)
