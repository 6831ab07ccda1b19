"""What a client cannot do that gives no connection for a WebSocket away."""

from __future__ import annotations

from typing import Any

from aioftrackjobs.errors import ConfigurationError
from aioftrackjobs.transport._base import NetworkStream

SWITCHING_PROTOCOLS = 101

_ADVICE = (
    "pass AsyncSession(client=httpx.AsyncClient(...)) or an httpx2.AsyncClient without http2=True "
    "and without another transport, or no client"
)


class UpgradedResponse:
    """See :class:`.Upgraded`."""

    __slots__ = ("body", "headers", "status", "stream")

    def __init__(
        self, status: int, headers: Any, stream: NetworkStream | None, body: str = ""
    ) -> None:
        self.status = status
        self.headers = headers
        self.stream = stream
        self.body = body


def cannot_upgrade(why: str) -> ConfigurationError:
    """Return the error for an HTTP client that cannot open a WebSocket."""
    return ConfigurationError([f"the event hub needs a WebSocket, but {why}; {_ADVICE}"])


def uses_http2(client: object) -> bool:
    """Return whether *client* was made with ``http2=True``, as far as can be seen."""
    pool = getattr(getattr(client, "_transport", None), "_pool", None)
    return bool(getattr(pool, "_http2", False))
