"""The session under pytest-asyncio, whose strict mode runs only fixtures that were made for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest_asyncio

if TYPE_CHECKING:
    from aioftrackjobs import AsyncSession
    from aioftrackjobs.testing import FtrackServer


@pytest_asyncio.fixture
async def _ftrack_session_on_asyncio(ftrack_server: FtrackServer) -> AsyncIterator[AsyncSession]:
    async with ftrack_server.session() as session:
        yield session
