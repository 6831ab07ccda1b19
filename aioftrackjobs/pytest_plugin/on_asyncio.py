"""The session under pytest-asyncio, whose strict mode runs only its own fixtures.

Such a fixture runs on the event loop of one scope, and a session belongs to the event loop on which
it was opened. So there is one fixture for each scope that the event loop of a test may have.
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
    """Return the fixture for event loops of a scope."""

    # A new function for each, because pytest-asyncio stores the scope in it.
    @pytest_asyncio.fixture(loop_scope=scope, name=f"{_NAME}_{scope}")
    async def opened(ftrack_server: FtrackServer) -> AsyncIterator[AsyncSession]:
        async with ftrack_server.session() as session:
            yield session

    return opened


of_function: Any = _made("function")
of_class: Any = _made("class")
of_module: Any = _made("module")
of_package: Any = _made("package")
of_session: Any = _made("session")


def fixture_for(request: pytest.FixtureRequest) -> str:
    """Return the name of the fixture that opens a session on the event loop of a test."""
    marker = request.node.get_closest_marker("asyncio")
    scope = marker.kwargs.get("loop_scope") if marker is not None else None
    return f"{_NAME}_{scope or request.config.getini('asyncio_default_test_loop_scope')}"
