"""The session under pytest-asyncio, whose strict mode runs only fixtures that were made for it.

A fixture is made for event loops of one scope, and a session belongs to the loop that it was
opened on: so there is one for each scope that the loop of a test may have.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Literal

import pytest
import pytest_asyncio

if TYPE_CHECKING:
    from aioftrackjobs import AsyncSession
    from aioftrackjobs.testing import FtrackServer

_NAME = "_ftrack_session_on_asyncio"


def _made(scope: Literal["function", "class", "module", "package", "session"]) -> Any:
    """Return the fixture for loops of a scope."""

    # A function for each: pytest-asyncio writes the scope on it.
    @pytest_asyncio.fixture(loop_scope=scope, name=f"{_NAME}_{scope}")
    async def opened(ftrack_server: FtrackServer) -> AsyncIterator[AsyncSession]:
        async with ftrack_server.session() as session:
            yield session

    return opened


of_function = _made("function")
of_class = _made("class")
of_module = _made("module")
of_package = _made("package")
of_session = _made("session")


def fixture_for(request: pytest.FixtureRequest) -> str:
    """Return the name of the fixture that opens a session on the loop of a test."""
    marker = request.node.get_closest_marker("asyncio")
    told = marker.kwargs.get("loop_scope") if marker is not None else None
    return f"{_NAME}_{told or request.config.getini('asyncio_default_test_loop_scope')}"
