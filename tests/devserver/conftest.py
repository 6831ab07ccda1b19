"""A server in this process for most tests, one on a real socket where that is the subject."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from typing import Any, TypeAlias

import httpx
import pytest

from aioftrackjobs.devserver import ServerHandle, create_app

from .caller import Caller

#: Starts a server for the rest of the run.
Start: TypeAlias = Callable[..., Any]


class SharedApp:
    """A server without a socket, which is reset for each test."""

    def __init__(self, **options: Any) -> None:
        self._app = create_app(**options)
        self._engine = self._app.state.engine
        self._saved = self._engine.save()

    @asynccontextmanager
    async def caller(self) -> AsyncIterator[Caller]:
        """Give a caller of the server to one test, through ASGI and without its lifespan."""
        self._engine.restore(self._saved)
        transport = httpx.ASGITransport(self._app)
        async with httpx.AsyncClient(transport=transport, base_url="http://ftrack.test") as http:
            yield Caller(http, self._engine.api_user, self._engine.api_key)

    def close(self) -> None:
        self._engine.close()


@pytest.fixture(scope="session")
def shared_app() -> Iterator[SharedApp]:
    with closing(SharedApp()) as app:
        yield app


@pytest.fixture
async def api(shared_app: SharedApp) -> AsyncIterator[Caller]:
    """A caller of a new server."""
    async with shared_app.caller() as caller:
        yield caller


@pytest.fixture
async def remote(server: ServerHandle) -> AsyncIterator[Caller]:
    """A caller of the server on the real socket."""
    async with httpx.AsyncClient(base_url=server.url) as http:
        yield Caller(http, server.api_user, server.api_key)
