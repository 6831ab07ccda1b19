"""The event loops and HTTP clients that the integration tests run on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import httpx
import httpx2
from httpx_aiohttp import HttpxAiohttpClient

AnyClient: TypeAlias = httpx.AsyncClient | httpx2.AsyncClient


@dataclass(frozen=True, slots=True)
class Setting:
    """An event loop, and the HTTP client of sessions for which a test chooses none.

    Attributes:
        backend: The event loop.
        client: Its name; "own" is the client that a session opens for itself.
        client_type: Its class.
    """

    backend: str
    client: str
    client_type: Callable[..., AnyClient] = httpx.AsyncClient

    def __str__(self) -> str:
        return f"{self.backend}-{self.client}"

    def make_client(self, **options: Any) -> AnyClient:
        """Return a client with *options* of httpx.AsyncClient."""
        return self.client_type(**options)


SETTINGS = (
    Setting("asyncio", "own"),
    Setting("asyncio", "aiohttp", HttpxAiohttpClient),
    Setting("asyncio", "httpx2", httpx2.AsyncClient),
    Setting("trio", "own"),
    Setting("trio", "httpx2", httpx2.AsyncClient),
)
