"""Between a session and its transport: tests see, delay or lose its requests there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

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
        connection = connection_of(session)
        reserved = connection._reserved
        assert reserved is not None
        self._handle = handle
        self._sends = {each: each.send for each in (connection.transport, reserved)}
        for transport, send in self._sends.items():
            transport.send = partial(self._relay, send)  # type: ignore[method-assign]

    async def _relay(self, send: Send, request: WireRequest) -> WireResponse:
        return await self._handle(request, send)

    def end(self) -> None:
        """Let the session send its requests by itself again."""
        for transport, send in self._sends.items():
            transport.send = send  # type: ignore[method-assign]


def cut_off(session: AsyncSession) -> Relay:
    """Let no request of an open session reach its server, in any lane, until the relay ends."""

    async def lead_astray(request: WireRequest, send: Send) -> WireResponse:
        return await send(replace(request, address="http://127.0.0.1:9/api"))

    return Relay(session, lead_astray)
