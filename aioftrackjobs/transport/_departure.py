"""When a request leaves this machine.

Until then it can be stopped, and the server never sees it. A client of httpx first connects, which
may take as long as its timeout. httpcore announces each step to the extension ``trace`` of a
request. In some steps a cancellation is safe. In between it is not: httpcore 1.0 would keep a
connection in its pool that no request can use any more. There the request is stopped by an error at
the next step.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import anyio

from aioftrackjobs.transport._base import Departure

#: The steps of httpcore in which a request waits for the network before it leaves.
_CONNECTING = frozenset(
    {"connect_tcp", "connect_unix_socket", "setup_socks5_connection", "start_tls"}
)


class Trace:
    """Reports the steps of httpcore, as the extension ``trace`` of a request."""

    def __init__(self, departure: Departure) -> None:
        self._departure = departure
        self._stream: Any = None  # the connection, before httpcore keeps it

    async def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        step, _, phase = event.rpartition(".")
        step = step.rpartition(".")[2]
        if step in _CONNECTING:
            if phase == "started":
                self._departure.wait()
                return
            self._stream = info.get("return_value") or self._stream
            try:
                self._departure.proceed()
            except Exception:
                await self.aclose()
                raise
        elif phase == "started" and "request" in info:
            if info["request"].method != b"CONNECT":
                if step == "send_request_headers":
                    self._stream = None
                    # No further step is of interest, and each call takes time.
                    info["request"].extensions.pop("trace", None)
                    body = self._departure.leave(may_replace=True)
                    if body is not None:
                        _replace_body(info["request"], body)
            elif step == "receive_response_headers":  # of a proxy, which connects meanwhile
                self._departure.wait()
            else:
                self._departure.proceed()

    async def aclose(self) -> None:
        """Close a connection that was stopped before httpcore has noted it."""
        stream, self._stream = self._stream, None
        if stream is not None:
            with anyio.CancelScope(shield=True):
                await stream.aclose()


class _Bytes:
    def __init__(self, body: bytes) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._body


def _replace_body(request: Any, body: bytes) -> None:
    """Let httpcore send *body*: it reads headers and body of its *request* after this."""
    length = str(len(body)).encode()
    request.headers = [
        (name, length if name.lower() == b"content-length" else value)
        for name, value in request.headers
    ]
    request.stream = _Bytes(body)


class AnnouncedBody:
    """A body that reports when its first byte leaves: aiohttp has no ``trace``.

    Attributes:
        failure: The error of the departure; aiohttp raises a different one.
    """

    def __init__(self, body: bytes, departure: Departure) -> None:
        self._body = body
        self._departure = departure
        self.failure: Exception | None = None
        departure.wait()

    def __len__(self) -> int:
        return len(self._body)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            self._departure.leave(may_replace=False)
        except Exception as exc:
            self.failure = exc
            raise
        yield self._body
