"""Between a session and its transport: tests see, delay or lose its requests there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aioftrackjobs import AsyncSession
from aioftrackjobs.session import connection_of
from aioftrackjobs.transport import WireRequest, WireResponse

Send = Callable[[WireRequest], Awaitable[WireResponse]]


class Relay:
    """Lets a handler send the requests of an open session, from now on.

    The session keeps the transport that it has opened, so that this works with every HTTP client.
    A server without sockets is passed in as ``transport`` instead: see ``tests/tables.py``.

    Args:
        session: An open session.
        handle: Is called with each request, and with the function that sends it.
    """

    def __init__(
        self, session: AsyncSession, handle: Callable[[WireRequest, Send], Awaitable[WireResponse]]
    ) -> None:
        self._transport = connection_of(session).transport
        self._handle = handle
        self._send = self._transport.send
        self._transport.send = self._relay  # type: ignore[method-assign]

    async def _relay(self, request: WireRequest) -> WireResponse:
        return await self._handle(request, self._send)

    def end(self) -> None:
        """Let the session send its requests by itself again."""
        self._transport.send = self._send  # type: ignore[method-assign]
