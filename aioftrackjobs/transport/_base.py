"""The seam between what is sent and how: requests, responses, and the protocols around them.

A :class:`Transport` sends requests; an :class:`HttpClient` is what one of them is built on.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, runtime_checkable

#: Writes pieces of a file one after the other; blocks.
Write: TypeAlias = Callable[[Sequence[bytes | memoryview]], object]


@runtime_checkable
class FileBody(Protocol):
    """The bytes of a file to send: read piece by piece in worker threads, or as chunks.

    Attributes:
        size: In bytes.
    """

    size: int

    def read_into(self, buffer: memoryview, offset: int, /) -> int:
        """Read from *offset* on, in a worker thread; return how many bytes, at least one."""
        ...

    def sent(self, count: int, /) -> None:
        """Take note, on the event loop, that *count* more bytes were sent; raise to end it."""
        ...

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Iterate over all bytes in chunks, which calls :meth:`sent` too."""
        ...


@dataclass(frozen=True, slots=True, repr=False)
class WireRequest:
    """One HTTP request. Its URL and headers may carry secrets, so its repr shows neither.

    Attributes:
        body: Bytes, or chunks of them that are read while they are sent.
    """

    method: str
    url: str
    headers: Mapping[str, str | bytes] = field(default_factory=dict)
    body: bytes | AsyncIterable[bytes] | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.method}>"


@dataclass(frozen=True, slots=True)
class WireResponse:
    """One whole response.

    Attributes:
        headers: By name in lower case. They may carry secrets, such as where a redirection leads.
    """

    status: int
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


class Download(Protocol):
    """A response whose body is read as it arrives.

    Attributes:
        status: HTTP status code.
        headers: By name in lower case.
        size: Announced length of the body in bytes; None if it is not known.
    """

    status: int
    headers: Mapping[str, str]
    size: int | None

    async def save(self, write: Write, note: Callable[[], object], /) -> None:
        """Give the body to *write*, in order and in worker threads.

        Args:
            write: Gets pieces of any size; what it raises is raised here.
            note: Called on the event loop now and then; may raise to end it.

        Raises:
            TransportError: The connection broke. What arrived before was written.
        """
        ...


class Transport(Protocol):
    """Sends requests. Errors say whether the request left this machine.

    ``send`` and the entry of ``stream`` raise ConnectError if it never left, TransportError if
    no complete response came.
    """

    async def send(self, request: WireRequest) -> WireResponse:
        """Send *request*, and return its whole response."""
        ...

    def stream(self, request: WireRequest) -> AbstractAsyncContextManager[Download]:
        """Send *request*, follow redirections, and give access to its response as it arrives."""
        ...


class OwnTransport(Transport, Protocol):
    """A transport that a session has opened, and closes."""

    async def aclose(self) -> None:
        """Close all connections."""
        ...


# What an HTTP client has to offer. The protocols name no class of httpx or httpx2, so a caller may
# bring the one that suits, and the other need not be installed.


class ClientResponse(Protocol):
    """A response whose body has not been read; ``httpx.Response`` is one."""

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
        """Release the connection."""
        ...


class HttpClient(Protocol):
    """``httpx.AsyncClient`` on any httpx transport, ``httpx2.AsyncClient``, and their like."""

    @property
    def is_closed(self) -> bool:
        """Whether it accepts no more requests."""
        ...

    def build_request(
        self,
        method: str,
        url: str,
        *,
        content: bytes | AsyncIterable[bytes] | None,
        headers: Sequence[tuple[bytes, bytes]],
    ) -> Any:
        """Return a request for ``send``."""
        ...

    async def send(self, request: Any, *, stream: bool, follow_redirects: bool) -> ClientResponse:
        """Send *request*, and return its response when its headers have arrived."""
        ...
