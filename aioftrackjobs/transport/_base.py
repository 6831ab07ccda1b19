"""The seam between what is sent and how: requests, answers and the Transport protocol."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import BinaryIO, Protocol, runtime_checkable


@runtime_checkable
class DirectBody(Protocol):
    """Chunks to send, which a worker thread may also read one by one as the socket takes them.

    Attributes:
        size: In bytes.
        file: What they can be sent from by the operating system alone, if there is such a file.
        start: Where in that file they begin.
    """

    size: int
    file: BinaryIO | None
    start: int

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Iterate over all chunks."""
        ...

    def read_into(self, buffer: memoryview, offset: int, /) -> int:
        """Read from *offset* on, in a worker thread; return how many bytes, at least one."""
        ...

    def sent(self, count: int, /) -> None:
        """Learn, on the event loop, that *count* more bytes were sent; raise to end it."""
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
    """One whole answer.

    Attributes:
        headers: By name in lower case. They may carry secrets, such as where a redirection leads.
    """

    status: int
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


class Download(Protocol):
    """An answer whose body is read piece by piece.

    Attributes:
        status: HTTP status code.
        headers: By name in lower case.
        size: Announced length of the body in bytes; None if it is not known.
    """

    status: int
    headers: Mapping[str, str]
    size: int | None

    def chunks(self) -> AsyncGenerator[bytes, None]:
        """Iterate over the body; raises TransportError when it breaks off. To be closed."""
        ...

    def moves(
        self, write: Callable[[bytes | memoryview], object]
    ) -> AsyncGenerator[int, None] | None:
        """Give the body to *write*, in worker threads, instead; yields how many bytes at a time.

        Returns:
            What does it, and raises as :meth:`chunks` does; None where only that can be used.
        """
        ...


class Transport(Protocol):
    """Sends requests. Errors tell whether the request left this machine.

    ``send`` and the entry of ``stream`` raise ConnectError if it never left, TransportError if
    no complete answer came.
    """

    async def send(self, request: WireRequest) -> WireResponse:
        """Send *request*, and return its whole answer."""
        ...

    def stream(self, request: WireRequest) -> AbstractAsyncContextManager[Download]:
        """Send *request*, and give access to its answer as it arrives."""
        ...
