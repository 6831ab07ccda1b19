"""A server in this process for most tests, one on a real socket where that is the subject."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from starlette.applications import Starlette

from aioftrackjobs.devserver import ServerHandle, create_app, running

from .caller import Caller
from .recorded import DOCUMENTS


@asynccontextmanager
async def caller_of(app: Starlette) -> AsyncIterator[Caller]:
    engine = app.state.engine
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://ftrack.test") as http:
        yield Caller(http, engine.api_user, engine.api_key)
    engine.close()


@pytest.fixture
async def api() -> AsyncIterator[Caller]:
    """A caller of a fresh server, through ASGI and without its lifespan."""
    async with caller_of(create_app()) as caller:
        yield caller


@pytest.fixture
async def recorded() -> AsyncIterator[Caller]:
    """The same with the recorded schemas of a real server."""
    if not DOCUMENTS:
        pytest.skip("the recorded schemas are not here")
    async with caller_of(create_app(schemas=DOCUMENTS)) as caller:
        yield caller


@pytest.fixture
async def server() -> AsyncIterator[ServerHandle]:
    """A fresh server on a free port."""
    async with running() as handle:
        yield handle


@pytest.fixture(params=["built-in", "real"])
async def any_server(request: pytest.FixtureRequest) -> AsyncIterator[ServerHandle]:
    """A server with the schemas that come with it, or with those of a real one."""
    if request.param == "real" and not DOCUMENTS:
        pytest.skip("the recorded schemas are not here")
    schemas = DOCUMENTS if request.param == "real" else None
    async with running(schemas=schemas) as handle:
        yield handle


@pytest.fixture
async def remote(server: ServerHandle) -> AsyncIterator[Caller]:
    """A caller of the server on the real socket."""
    async with httpx.AsyncClient(base_url=server.url) as http:
        yield Caller(http, server.api_user, server.api_key)
