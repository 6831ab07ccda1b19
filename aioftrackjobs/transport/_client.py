"""What is asked of an HTTP client: httpx's way to send, which httpx2 shares.

The protocols name no class of either, so a caller may bring the one that suits, and the other
need not be installed.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
from typing import Any, Protocol


class ClientResponse(Protocol):
    """An answer whose body has not been read; ``httpx.Response`` is one."""

    @property
    def status_code(self) -> int:
        """HTTP status code."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers, by names in any case."""
        ...

    async def aread(self) -> bytes:
        """Read the whole body."""
        ...

    def aiter_bytes(self) -> AsyncIterator[bytes]:
        """Iterate over the body as it arrives."""
        ...

    async def aclose(self) -> None:
        """Let go of the connection."""
        ...


class HttpClient(Protocol):
    """``httpx.AsyncClient`` on any httpx transport, ``httpx2.AsyncClient``, and their like."""

    @property
    def is_closed(self) -> bool:
        """Whether it takes no more requests."""
        ...

    def build_request(
        self,
        method: str,
        url: str,
        *,
        content: bytes | AsyncIterable[bytes] | None,
        headers: Sequence[tuple[bytes, bytes]],
    ) -> Any:
        """Return a request that ``send`` takes."""
        ...

    async def send(self, request: Any, *, stream: bool, follow_redirects: bool) -> ClientResponse:
        """Send *request*, and return its answer when its headers have arrived."""
        ...


class OwnClient(HttpClient, Protocol):
    """A client that a session has opened, and closes."""

    async def aclose(self) -> None:
        """Close its connections."""
        ...
