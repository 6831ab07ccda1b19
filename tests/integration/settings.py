"""The event loops, HTTP clients and times that the integration tests run with."""

from __future__ import annotations

import importlib
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import cache
from types import ModuleType
from typing import Any, Literal, TypeAlias
from unittest.mock import patch

import httpx
import httpx2
from httpx_aiohttp import HttpxAiohttpClient

import aioftrackjobs.transport.client
from aioftrackjobs import AsyncSession
from aioftrackjobs.config.timings import DEFAULT_TIMINGS
from aioftrackjobs.devserver import ServerHandle

AnyClient: TypeAlias = httpx.AsyncClient | httpx2.AsyncClient


@dataclass(frozen=True, slots=True)
class Setting:
    """An event loop, and the HTTP client of sessions for which a test chooses none.

    Attributes:
        backend: The event loop.
        client: Its name; "own" is the client that a session opens for itself.
        client_type: Its class.
        library: What the session's own client is made with.
    """

    backend: str
    client: str
    client_type: Callable[..., AnyClient] = httpx.AsyncClient
    library: Literal["httpx", "httpx2"] = "httpx"

    def __str__(self) -> str:
        return f"{self.backend}-{self.client}" + "2" * (self.library == "httpx2")

    def make_client(self, **options: Any) -> AnyClient:
        """Return a client with *options* of httpx.AsyncClient."""
        return self.client_type(**options)


SETTINGS = (
    Setting("asyncio", "own"),
    Setting("asyncio", "aiohttp", HttpxAiohttpClient),
    Setting("asyncio", "httpx2", httpx2.AsyncClient),
    Setting("trio", "own"),
    Setting("trio", "own", library="httpx2"),
)

#: Those of tests that respx responds to: it can stand in for the connections of own clients only.
RESPX_SETTINGS = (SETTINGS[0], Setting("asyncio", "own", library="httpx2"))

OWN_CLIENT = "aioftrackjobs.transport.client"


@cache
def own_client(library: str) -> ModuleType:
    """Return the module of a session's own client; tests/conftest.py has loaded it with httpx."""
    if library == "httpx":
        return aioftrackjobs.transport.client
    with patch.dict(sys.modules):
        for name in ("client", "_files", "_library"):
            del sys.modules[f"aioftrackjobs.transport.{name}"]
        return importlib.import_module(OWN_CLIENT)


#: The times of most sessions: half a second less for the beginning of a Job that exists already,
#: and for closing while the server does not respond; Jobs that are waited for are read more often.
QUICK = replace(
    DEFAULT_TIMINGS,
    claim_wait=0.02,
    closing_linger=0.05,
    job_poll_first=0.02,
    job_poll_longest=0.1,
)


@asynccontextmanager
async def connected(
    server: ServerHandle, url: str | None = None, **options: Any
) -> AsyncIterator[AsyncSession]:
    """Open a session with *options* on *server*, or on what is in front of it at *url*."""
    options = {"timings": QUICK, **options}
    url = url or server.url
    async with AsyncSession(url, server.api_key, server.api_user, **options) as session:
        yield session
