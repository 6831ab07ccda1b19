"""uvicorn, made to start and stop at once, to log no addresses and to refuse in JSON."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import anyio
import h11
import uvicorn
from pydantic_core import to_json
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from aioftrackjobs.devserver.api_errors import RequestError, error_body
from aioftrackjobs.devserver.faults.connections import CLOSE

#: Seconds that requests under way get when the server stops.
_STOP_GRACE = 1
#: Seconds between two looks at whether they are over.
_POLL = 0.002
#: Seconds between two renewals of the header `Date`.
_TICK = 1


class UvicornServer(uvicorn.Server):
    """A uvicorn server that says when it is ready, stops at once, and leaves signals alone."""

    def __init__(self, config: uvicorn.Config, ready: threading.Event) -> None:
        super().__init__(config)
        self._ready = ready
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken = asyncio.Event()

    def stop(self) -> None:
        """Have the server end; from any thread, at any time, any number of times."""
        # In this order, and the other way round in main_loop(): one of the two sees the other.
        self.should_exit = True
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed: it has ended
                self._loop.call_soon_threadsafe(self._woken.set)

    async def main_loop(self) -> None:
        """Wait for :meth:`stop`; uvicorn's own looks for it ten times a second."""
        self._loop = asyncio.get_running_loop()
        self._ready.set()
        while not await self.on_tick(0):  # its counter only says when a second is over
            with suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), _TICK)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End as uvicorn does, without its pauses of 0.1 s."""
        state = self.server_state
        for listener in (*self.servers, *(sockets or ())):
            listener.close()
        for connection in list(state.connections):
            connection.shutdown()
        with anyio.move_on_after(_STOP_GRACE):
            # Both empty themselves, and tell nobody.
            while state.connections or state.tasks:  # noqa: ASYNC110
                await asyncio.sleep(_POLL)
        await _cut_off(state)
        await self.lifespan.shutdown()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the program: uvicorn would take them for itself."""
        yield


async def _cut_off(state: ServerState) -> None:
    """End the requests whose grace is over, and close their connections."""
    for task in state.tasks:
        task.cancel()
    if state.tasks:
        await asyncio.wait(state.tasks, timeout=_STOP_GRACE)
    for connection in list(state.connections):
        connection.transport.abort()


class _HttpProtocol(H11Protocol):
    """HTTP without access lines, which would show the keys that addresses of files carry.

    uvicorn's own switch is a setting of a global logger, which any program may turn back.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.access_log = False
        self._served: ASGIApp = self.app
        self.app = self._answer

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Have the request answered by who may also close the connection."""
        scope["extensions"] = {CLOSE: self.transport.close}
        await self._served(scope, receive, send)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP like everything else: with a JSON error object."""
        body = to_json(error_body(RequestError(msg)))
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        for event in (
            h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


def uvicorn_server(app: ASGIApp, ready: threading.Event) -> UvicornServer:
    """Return a server of *app* that sets *ready* when it accepts requests."""
    config = uvicorn.Config(
        app,
        http=_HttpProtocol,
        loop="asyncio",  # or uvloop where it is installed, which hangs when the server fails
        access_log=False,
        log_config=None,
        ws="none",
        lifespan="on",
        server_header=False,
    )
    return UvicornServer(config, ready)
