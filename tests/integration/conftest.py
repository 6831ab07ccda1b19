"""A fresh embedded server on a real socket for each test, and a session on it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from aioftrackjobs import AsyncSession
from aioftrackjobs.devserver import ServerHandle, running


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
