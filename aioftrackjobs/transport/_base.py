"""The seam between what is sent and how: requests, answers and the Transport protocol."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol


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
