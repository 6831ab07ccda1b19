"""uvicorn, made to start and stop at once, to log no addresses and to refuse in JSON."""

from __future__ import annotations

import asyncio
import logging
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, TypeAlias

import anyio
import h11
import uvicorn
from pydantic_core import to_json
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.exceptions import InvalidState

from aioftrackjobs.devserver.api_errors import RequestError, error_body
from aioftrackjobs.devserver.faults.connections import ABORT, CLOSE, KNOWN

#: Seconds that running requests get when the server stops.
_STOP_GRACE = 1
#: Seconds that they get to end when their queries were interrupted.
_INTERRUPT_GRACE = 0.2
#: Seconds that a connection may wait for a request, and the connections that may do so: of those
#: that have shown a key, and of others.
_LONGEST_IDLE, _MOST_IDLE = 30.0, 500
#: Connections that are accepted in one round of the event loop, and that wait for a round.
_ACCEPTED_AT_ONCE, _MOST_WAITING = 16, 2048
#: Says that the other end of a connection is closed; 0 where the system does not.
_CLOSED = getattr(select, "POLLRDHUP", 0)
#: Bytes of the head of a request.
_LONGEST_HEAD = 64 * 1024
#: Bytes that are read at once, so that a flood of tiny frames or chunks does not keep others
#: waiting; more of a body that announces its length, which comes as one piece.
_READ, _READ_OF_BODY, _READ_OF_EVENTS = 16 * 1024, 256 * 1024, 4 * 1024
#: Pieces of a body, or frames between two messages, of which a client may send more only if they
#: have so many bytes on average.
_MANY_PIECES, _SMALLEST_PIECE = 1000, 32
#: Seconds in which a client may read why its request is no HTTP, and what it still sends is
#: discarded: a connection with unread bytes is reset when it is closed.
_LINGER = 1.0
#: Seconds between two checks whether they have ended.
_POLL = 0.002
#: Seconds between two renewals of the header `Date`.
_TICK = 1


class UvicornServer(uvicorn.Server):
    """A uvicorn server that says when it is ready, stops at once, and leaves signals alone.

    Attributes:
        begin_stop: Is called first when the server stops.
        interrupt: Is called when the grace of running requests is over.
    """

    def __init__(self, config: uvicorn.Config, ready: threading.Event) -> None:
        super().__init__(config)
        self.begin_stop: Callable[[], None] = lambda: None
        self.interrupt: Callable[[], None] = lambda: None
        self._ready = ready
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken = asyncio.Event()

    def stop(self) -> None:
        """Make the server end; from any thread, at any time, any number of times."""
        # The flag before the loop, and the loop before the flag in main_loop(): whichever
        # thread comes second sees what the first has written.
        self.should_exit = True
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed: it has ended
                self._loop.call_soon_threadsafe(self._woken.set)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept, a few connections at once: between them, others are served."""
        await super().startup(sockets)
        for listener in sockets or ():
            listener.listen(_MOST_WAITING)

    async def main_loop(self) -> None:
        """Wait for :meth:`stop`; uvicorn's own loop polls for it ten times a second."""
        self._loop = asyncio.get_running_loop()
        self._ready.set()
        while not await self.on_tick(0):  # its counter only says when a second is over
            with suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), _TICK)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End as uvicorn does, without its pauses of 0.1 s."""
        state = self.server_state
        self.begin_stop()
        for listener in (*self.servers, *(sockets or ())):
            listener.close()
        for connection in list(state.connections):
            with suppress(InvalidState):  # a WebSocket that closes already
                connection.shutdown()
        if not await _ended(state, _STOP_GRACE):
            self.interrupt()  # what runs in threads cannot be cancelled
            await _ended(state, _INTERRUPT_GRACE)
        await _cut_off(state)
        await self.lifespan.shutdown()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the program: uvicorn would take them for itself."""
        yield


async def _ended(state: ServerState, seconds: float) -> bool:
    with anyio.move_on_after(seconds):
        # uvicorn removes what has ended from both sets, and signals nothing.
        while state.connections or state.tasks:  # noqa: ASYNC110
            await asyncio.sleep(_POLL)
        return True
    return False


async def _cut_off(state: ServerState) -> None:
    """End the requests whose grace is over, and close their connections."""
    for task in state.tasks:
        task.cancel()
    if state.tasks:
        await asyncio.wait(state.tasks, timeout=_STOP_GRACE)
    for connection in list(state.connections):
        connection.transport.abort()


class _Connection(h11.Connection):
    """HTTP that refuses bodies in a great many tiny pieces."""

    _pieces, _bytes = 0, 0

    def next_event(self) -> Any:
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._pieces, self._bytes = 0, 0
        elif isinstance(event, h11.Data):
            self._pieces += 1
            self._bytes += len(event.data)
            if self._pieces > max(_MANY_PIECES, self._bytes / _SMALLEST_PIECE):
                raise h11.RemoteProtocolError("the pieces of the body are too small")
        return event


#: Connections that wait for a request, those for the longest time first: of strangers, and others.
_Idle: TypeAlias = "tuple[dict[_HttpProtocol, None], dict[_HttpProtocol, None]]"
#: uvicorn warns of each request that is no HTTP: strangers could fill the disk.
_errors = logging.getLogger(f"{__name__}.errors")
_errors.setLevel(logging.ERROR)


class _HttpProtocol(H11Protocol):
    """HTTP without access log, which would show the signatures in the addresses of files.

    uvicorn's own option changes a global logger, and any program may change that back.
    """

    def __init__(self, *args: Any, idle: _Idle, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._idle, self._idle_known = idle
        self._end_of_idling: asyncio.TimerHandle | None = None
        self.access_log = False
        self._is_refused = False
        self.logger = _errors
        self.conn = _Connection(h11.SERVER, _LONGEST_HEAD)
        self._served: ASGIApp = self.app
        self.app = self._run_app

    async def _run_app(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["extensions"] = extensions = {CLOSE: self.transport.close}
        self._end_idling()
        if any(name == b"content-length" for name, _ in scope["headers"]):
            _read(self.transport, _READ_OF_BODY)
        is_over = _CLOSED > 0 and scope["method"] == "GET" and _has_left(self.transport)
        try:
            if not is_over:
                await self._served(scope, receive, send)
        except asyncio.CancelledError:  # the server stops; uvicorn would log that as an error
            is_over = True
        finally:
            if is_over:
                self.cycle.disconnected = True
                self.transport.abort()
            if KNOWN in extensions:
                self._idle = self._idle_known
            self._begin_idling()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._begin_idling()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        self._end_idling()
        super().handle_websocket_upgrade(event)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_idling()
        super().connection_lost(exc)

    def _begin_idling(self) -> None:
        """Close the connection if no request begins in time, or too many connections are idle.

        uvicorn would wait for ever for the rest of the headers, or of a body that was refused.
        """
        if self.transport.is_closing():
            return
        _read(self.transport, _READ)
        if len(self._idle) >= _MOST_IDLE:
            longest = next(iter(self._idle))
            longest._end_idling()
            longest.transport.abort()
        self._idle[self] = None
        self._end_of_idling = self.loop.call_later(_LONGEST_IDLE, self.transport.abort)

    def _end_idling(self) -> None:
        self._idle.pop(self, None)
        if self._end_of_idling is not None:
            self._end_of_idling.cancel()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP with a JSON error object, as all errors are."""
        if self.conn.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:  # there is a response already
            self.transport.close()
            return
        if self.cycle is not None:  # the application, whose response has no recipient now
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        body = to_json(error_body(RequestError(msg)))
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        response = h11.Response(status_code=400, headers=headers, reason=b"Bad Request")
        for event in (response, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self._is_refused = True
        self.transport.write_eof()
        self.loop.call_later(_LINGER, self.transport.abort)

    def data_received(self, data: bytes) -> None:
        if not self._is_refused:
            super().data_received(data)


def _has_left(transport: asyncio.Transport) -> bool:
    """Return whether the client has closed its end: floods of connections do not wait for pages."""
    look = select.poll()
    look.register(transport.get_extra_info("socket"), _CLOSED)
    return bool(look.poll(0))


def _read(transport: asyncio.Transport, size: int) -> None:
    """Read *size* bytes at once from now on, where the transport of the event loop allows it."""
    transport.max_size = size  # type: ignore[attr-defined]


class _WebSocketProtocol(WebSocketsSansIOProtocol):
    """WebSockets that the application can abort, and whose addresses are not logged."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.conn.debug = False  # at that level it logs addresses and headers
        self._frames = 0
        self._served: ASGIApp = self.app
        self.app = self._run_app

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        _read(self.transport, _READ_OF_EVENTS)

    def handle_ping(self) -> None:
        super().handle_ping()
        self._count()

    def handle_pong(self, event: Any) -> None:
        """Take no notice of a pong: there are no pings."""
        self._count()

    def handle_cont(self, event: Any) -> None:
        super().handle_cont(event)
        self._count()

    def send_receive_event_to_app(self) -> None:
        super().send_receive_event_to_app()
        self._frames = 0

    def _count(self) -> None:
        """Disconnect a client that sends a great many frames and no message."""
        self._frames += 1
        if self._frames > _MANY_PIECES:
            self.transport.abort()

    # Older versions of uvicorn let the transport's buffer grow as long as a client does not read.

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.writable.set()

    async def _run_app(self, scope: Scope, receive: Receive, send: Send) -> None:
        # uvicorn logs the path and the query of its own scope; those have credentials.
        self.scope = {**self.scope, "path": "/socket.io/1/websocket", "query_string": b""}
        ends = {CLOSE: self.transport.close, ABORT: self.transport.abort}
        extensions = {**scope.get("extensions", {}), **ends}
        await self._served({**scope, "extensions": extensions}, receive, send)


def uvicorn_server(app: ASGIApp, ready: threading.Event, largest_frame: int) -> UvicornServer:
    """Return a server of *app* that sets *ready* when it accepts requests.

    A WebSocket with a frame of more than *largest_frame* bytes is closed.
    """
    config = uvicorn.Config(
        app,
        http=partial(_HttpProtocol, idle=({}, {})),  # type: ignore[arg-type]
        loop="asyncio",  # or uvloop where it is installed, which hangs when the server fails
        access_log=False,
        log_config=None,
        ws=_WebSocketProtocol,
        ws_max_size=largest_frame,
        ws_ping_interval=None,  # the event hub has heartbeats of its own
        ws_per_message_deflate=False,  # clients are on this machine or near it
        lifespan="on",
        server_header=False,
        backlog=_ACCEPTED_AT_ONCE,
    )
    return UvicornServer(config, ready)
