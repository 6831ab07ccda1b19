"""Requests, responses, and the protocols of what sends them.

A :class:`Transport` sends requests. :class:`HttpClient` is the interface that
:class:`.HttpxTransport` needs; clients of httpx, httpx2 and httpx-aiohttp have it.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, runtime_checkable

from aioftrackjobs.config.secret import Secret, reveal

#: Appends pieces to a file; blocks.
Write: TypeAlias = Callable[[Sequence[bytes | memoryview]], object]

#: Headers of a request.
Headers: TypeAlias = Mapping[str, str | bytes | Secret[str]]


@runtime_checkable
class FileBody(Protocol):
    """The bytes of a file to send, which are read in worker threads or iterated over.

    Attributes:
        size: In bytes.
    """

    size: int

    def read_into(self, buffer: memoryview, offset: int, /) -> int:
        """Read from *offset* on, in a worker thread; return how many bytes, at least one."""
        ...

    def sent(self, count: int, /) -> None:
        """Called on the event loop after *count* more bytes; may raise to end the request."""
        ...

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Iterate over all bytes in chunks; this calls :meth:`sent`, too."""
        ...


class Departure(Protocol):
    """Follows one request until it leaves.

    A transport that never calls it cannot be stopped: its requests count as sent from the
    beginning.
    """

    def wait(self) -> None:
        """Note that it has not left, and may be cancelled until the next call.

        Raises:
            Exception: It was stopped.
        """
        ...

    def proceed(self) -> None:
        """Note that it must not be cancelled from now on.

        Raises:
            Exception: It was stopped.
        """
        ...

    def leave(self, *, may_replace: bool) -> bytes | None:
        """Note that its first byte leaves.

        Args:
            may_replace: Whether its body can still be replaced.

        Returns:
            The body to send in place of the one that it has; None for that one.

        Raises:
            Exception: It was stopped.
        """
        ...


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class WireRequest:
    """One HTTP request. Its repr shows neither URL nor headers, as both may carry secrets.

    Attributes:
        address: Its URL; in a Secret if it gives access to anything.
        headers: By name; in a Secret, a value that no variable may show.
        body: Bytes, or an iterator of chunks that are read while they are sent.
        departure: Follows a request with bytes until it leaves, and may stop it before.
    """

    method: str
    address: str | Secret[str]
    headers: Headers = field(default_factory=dict)
    body: bytes | AsyncIterable[bytes] | None = None
    departure: Departure | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.method}>"

    @property
    def url(self) -> str:
        """The address in plain text."""
        return reveal(self.address)


@dataclass(frozen=True, eq=False, slots=True)
class WireResponse:
    """One whole response.

    Attributes:
        headers: By name in lower case. They may carry secrets, such as a signed ``location``.
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
            write: Called with pieces of any size. Its errors are raised here.
            note: Called on the event loop after each turn; may raise to end the download.

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
        """Send *request*, follow redirections, and give its response before the body is read."""
        ...


class NetworkStream(Protocol):
    """The bytes of a connection, as httpcore gives them: the extension ``network_stream``."""

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Return what has arrived; nothing at the end."""
        ...

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send all of *buffer*."""
        ...


class Upgraded(Protocol):
    """The response to a request for another protocol, such as a WebSocket.

    Attributes:
        status: HTTP status code.
        headers: By name in lower case.
        stream: The connection; None if the server has not switched.
        body: The beginning of the body if it has not.
    """

    status: int
    headers: Mapping[str, str]
    stream: NetworkStream | None
    body: str


@runtime_checkable
class UpgradingTransport(Protocol):
    """A transport that can open connections of another protocol."""

    def upgrade(self, request: WireRequest) -> AbstractAsyncContextManager[Upgraded]:
        """Send *request*, and give the connection until the end of the block.

        Raises:
            ConfigurationError: The HTTP client cannot do it.
            TransportError: There is no complete response.
        """
        ...


class OwnTransport(Transport, UpgradingTransport, Protocol):
    """A transport that a session has opened, and closes."""

    @property
    def reserved(self) -> Transport:
        """Sends requests over connections of its own, each of which is opened for one request."""
        ...

    async def aclose(self) -> None:
        """Close all connections."""
        ...


# The interface of an HTTP client. It names no class of httpx or httpx2, so that a caller can use
# either of them, and the other need not be installed.


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
    """``httpx.AsyncClient`` on any httpx transport, ``httpx2.AsyncClient``, or similar."""

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


def is_client(value: object) -> bool:
    """Return whether *value* can be an :class:`HttpClient`: ``httpx.Client`` cannot be awaited."""
    if isinstance(value, type) or not all(hasattr(value, name) for name in _CLIENT_METHODS):
        return False
    return hasattr(value, "aclose") or not hasattr(value, "close")


_CLIENT_METHODS = ("is_closed", "build_request", "send")
