"""What the integration tests run on: event loops and HTTP clients."""

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
    """An event loop, and the HTTP client that sessions get unless a test gives them one itself.

    Attributes:
        backend: The event loop.
        client: "own" for the one that a session opens for itself.
        client_type: Makes a client of that kind.
    """

    backend: str
    client: str
    client_type: Callable[..., AnyClient] = httpx.AsyncClient

    def __str__(self) -> str:
        return f"{self.backend}-{self.client}"

    def make_client(self, **options: Any) -> AnyClient:
        """Return a client, with the options that httpx.AsyncClient takes."""
        return self.client_type(**options)


SETTINGS = (
    Setting("asyncio", "own"),
    Setting("asyncio", "aiohttp", HttpxAiohttpClient),
    Setting("asyncio", "httpx2", httpx2.AsyncClient),
    Setting("trio", "own"),
    Setting("trio", "httpx2", httpx2.AsyncClient),
)
