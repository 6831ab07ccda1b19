"""The connection of a hub: handshake, WebSocket, heartbeats, and a new connection after a loss.

::

            ┌────────────────────── lost, or no response ──────────────────────┐
            ▼                                                                  │
        connecting ── handshake ── WebSocket ── subscriptions ──► connected ───┤
            │                                                                  │
            └── credentials refused ──► refused (tries on, slowly) ────────────┘

One task receives, one sends. Nothing that a handler does delays them, except a blocked event loop.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Literal, TypeAlias
from urllib.parse import quote

import anyio

from aioftrackjobs.background import SafeLogger
from aioftrackjobs.config.secret import Secret
from aioftrackjobs.connection import Connection
from aioftrackjobs.errors import (
    AuthenticationError,
    ConfigurationError,
    FtrackJobsError,
    MalformedResponseError,
    PermissionDeniedError,
    ServerError,
    SessionStateError,
    TransportError,
)
from aioftrackjobs.events.outbox import Outbox
from aioftrackjobs.events.socket import SocketLostError, WebSocket, open_websocket
from aioftrackjobs.protocol import socketio
from aioftrackjobs.protocol.socketio import Handshake
from aioftrackjobs.protocol.wire import decode_response
from aioftrackjobs.transport import Headers, UpgradingTransport, WireRequest

logger: SafeLogger = SafeLogger(__name__)

LinkState: TypeAlias = Literal["connecting", "connected", "refused", "closed"]

#: Characters that are sent in one piece.
_PIECE = 256 * 1024

#: Seconds of a connection after which the next failure is one of its own: pauses begin anew.
_STABLE = 1.0

#: Longest pause between two attempts, in seconds, as that of the JavaScript client; and after the
#: loss of a connection, when the server may well be there.
_LONGEST_PAUSE, _LONGEST_AFTER_LOSS = 10.0, 1.0

#: Shortest pause at first, in seconds, whatever the session's retry policy says.
_SHORTEST_PAUSE = 0.01

_OK, _UNAUTHORIZED, _FORBIDDEN = 200, 401, 403


class Link:
    """Keeps one connection to the event hub open.

    Args:
        connection: The connection of the session.
        outbox: What is to be sent.
        first_frames: Returns what is sent first on a new connection: the subscriptions. It gets a
            function that sends further frames.
        receive: Called with each frame that has data.
        note_loss: Called after a connection was lost, with the time when the server was last heard.
        note_state: Called when the state has changed.

    Attributes:
        state: See above.
        problem: Why it is not connected.
        refusal: The error if the server refuses the credentials.
        failure: The error if there will be no connection at all.
        connected_since: When the present connection was made.
        last_heartbeat: When the server last sent a heartbeat.
        last_frame: When the server last sent anything.
        reconnects: Connections that were made after the first one.
    """

    def __init__(
        self,
        connection: Connection,
        outbox: Outbox,
        *,
        first_frames: Callable[[Callable[[str], None]], list[str]],
        receive: Callable[[str, str], None],
        note_loss: Callable[[datetime], None],
        note_state: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._outbox = outbox
        self._first_frames = first_frames
        self._receive = receive
        self._note_loss = note_loss
        self._note_state = note_state
        self._wakeup = anyio.Event()
        self._connections = 0
        self._pauses = 0
        self._warned_of: str | None = None
        self._replies: list[str] = []  # to heartbeats and numbered frames
        self._is_leaving = False
        self._has_left = anyio.Event()
        self.state: LinkState = "connecting"
        self.problem: str | None = None
        self.refusal: FtrackJobsError | None = None
        self.failure: FtrackJobsError | None = None
        self.connected_since: datetime | None = None
        self.last_heartbeat: datetime | None = None
        self.last_frame: datetime | None = None
        outbox.attach(self._wake)

    @property
    def reconnects(self) -> int:
        """Connections that were made after the first one."""
        return max(0, self._connections - 1)

    def _wake(self) -> None:
        self._wakeup.set()

    def _set_state(self, state: LinkState, problem: str | None = None) -> None:
        self.state, self.problem = state, problem
        self.connected_since = datetime.now(UTC) if state == "connected" else None
        self._note_state()

    async def run(self) -> None:
        """Connect, and connect again after each loss, until the task is cancelled.

        Raises:
            ConfigurationError: The HTTP client can open no WebSocket.
        """
        try:
            while True:
                began, connections = anyio.current_time(), self._connections
                refused = await self._run_once()
                if anyio.current_time() - began > _STABLE:
                    self._pauses = 0
                if self._leaves():
                    return
                await self._pause(refused=refused, was_connected=self._connections > connections)
        except (ConfigurationError, SessionStateError) as exc:
            self.failure = exc
            raise
        finally:
            self._set_state("closed", self.problem)

    def _leaves(self) -> bool:
        return self._is_leaving

    async def _run_once(self) -> bool:
        """Connect, and return after the loss; whether the credentials were refused."""
        problem = ""
        try:
            async with self._connect() as (socket, handshake):
                await self._serve(socket, handshake)
        except SocketLostError as exc:
            problem = str(exc)
        except (AuthenticationError, PermissionDeniedError) as exc:
            self._note_refusal(exc)
            return True
        except (ServerError, TransportError) as exc:
            problem = self._connection.redact(str(exc))
        except (ConfigurationError, SessionStateError):
            raise
        except Exception as exc:
            if not self._connection.background.survives(exc, "the event hub"):
                raise
            problem = f"an unexpected error, {type(exc).__name__}"
        self._note_problem(problem)
        return False

    def _note_problem(self, problem: str) -> None:
        was_connected = self.state == "connected"
        self._set_state("connecting", problem)
        if self._is_leaving:
            return
        if was_connected:
            logger.warning("the event hub is not connected any more: %(error)s", error=problem)
            self._warned_of = problem
        elif self._warned_of != problem:
            logger.warning("the event hub cannot be reached: %(error)s", error=problem)
            self._warned_of = problem

    def _note_refusal(self, error: FtrackJobsError) -> None:
        problem = self._connection.redact(str(error))
        is_known, self.refusal = self.refusal is not None, error
        if not is_known:
            logger.warning("the event hub refuses the credentials: %(error)s", error=problem)
        self._set_state("refused", problem)

    async def _pause(self, *, refused: bool, was_connected: bool) -> None:
        """Wait until another attempt is due: soon at first, then up to ten seconds, by chance."""
        policy, timings = self._connection.retry, self._connection.timings
        if refused:
            delay = timings.event_refusal_pause
        else:
            longest = _LONGEST_AFTER_LOSS if was_connected else _LONGEST_PAUSE
            delay = max(policy.first_delay, _SHORTEST_PAUSE) * 2 ** min(self._pauses, 16)
            delay = min(delay, longest)
            self._pauses += 1
        await policy.sleep(delay * (1 - policy.jitter * policy.chance()))

    @asynccontextmanager
    async def _connect(self) -> AsyncIterator[tuple[WebSocket, Handshake]]:
        connection = self._connection
        handshake = await self._shake_hands()
        transport = connection.reserved_transport
        if not isinstance(transport, UpgradingTransport):
            raise ConfigurationError(["the event hub needs a WebSocket, which this session lacks"])
        path = socketio.WEBSOCKET_PATH + quote(handshake.session_id, safe="")
        async with open_websocket(
            transport,
            Secret(connection.credentials.server_url + path),
            {"user-agent": connection.user_agent, "origin": connection.credentials.server_url},
            max_size=connection.timings.response_size,
        ) as socket:
            yield socket, handshake

    async def _shake_hands(self) -> Handshake:
        """Return what the server says to the credentials.

        Raises:
            AuthenticationError: The server refuses them.
            TransportError: There is no complete response.
        """
        connection = self._connection
        url = connection.credentials.server_url + socketio.HANDSHAKE_PATH
        headers: Headers = {
            "ftrack-user": connection.credentials.api_user.encode(),
            "ftrack-api-key": connection.credentials.api_key,
            "user-agent": connection.user_agent,
        }
        request = WireRequest("GET", url, headers)
        response = await connection.reserved_transport.send(request)
        if response.status == _OK:
            text = connection.redact(response.body[:4096].decode(errors="replace"))
            return socketio.read_handshake(response.status, text, url)
        try:
            decode_response(response.status, response.body, 0, redact=connection.redact, url=url)
        except MalformedResponseError:
            raise
        except ServerError as exc:
            if response.status not in (_UNAUTHORIZED, _FORBIDDEN):
                raise
            if isinstance(exc, AuthenticationError | PermissionDeniedError):
                raise
            raise AuthenticationError(exc.kind, exc.detail, status=response.status) from None
        problem = "the event hub gives no session"
        raise MalformedResponseError(problem, status=response.status, url=url)

    async def _serve(self, socket: WebSocket, handshake: Handshake) -> None:
        """Exchange frames until the connection is lost."""
        self._replies = []
        for frame in self._first_frames(self._send_now):
            socket.put(frame)
        lost: list[SocketLostError] = []
        try:
            async with anyio.create_task_group() as group:

                async def until_lost(exchange: Callable[[], Awaitable[None]]) -> None:
                    try:
                        await exchange()
                    except SocketLostError as exc:
                        lost.append(exc)
                        group.cancel_scope.cancel()

                group.start_soon(until_lost, partial(self._send, socket))
                group.start_soon(until_lost, partial(self._read, socket, handshake))
        finally:
            self._has_left.set()
            self._note_loss(self.last_frame or datetime.now(UTC))
            self._outbox.lose_sent(str(lost[0]) if lost else "the session is closed")
        raise lost[0]

    async def _read(self, socket: WebSocket, handshake: Handshake) -> None:
        silence = handshake.silence
        quiet = 0
        while True:
            # A server that announces no heartbeats may be silent. A ping shows whether it lives.
            try:
                messages = await socket.receive(silence)
            except SocketLostError as exc:
                if handshake.has_heartbeats or quiet or not exc.is_silence:
                    raise
                quiet += 1
                socket.ping()
                self._wake()
                continue
            quiet = 0
            self.last_frame = datetime.now(UTC)
            if self.state != "connected":
                self._note_connected()
            for text in messages:
                self._take(text)
            self._wake()  # there may be a pong to send

    def _note_connected(self) -> None:
        self._connections += 1
        self.refusal = None
        self._set_state("connected")
        if self._warned_of is not None or self._connections > 1:
            logger.warning("the event hub is connected again")
        self._warned_of = None

    def _take(self, text: str) -> None:
        kind, packet_id, data = frame = socketio.read_frame(text)
        if kind == socketio.HEARTBEAT:
            self.last_heartbeat = self.last_frame
            self._replies.append(socketio.HEARTBEAT_FRAME)
        elif kind == socketio.DISCONNECT:
            raise SocketLostError("the event hub has ended the connection")
        elif kind == socketio.ERROR:
            logger.warning("the event hub reports an error: %(frame)s", frame=data[:200])
        elif kind in (socketio.EVENT, socketio.ACKNOWLEDGEMENT):
            self._receive(kind, data)
        elif kind != socketio.CONNECT:
            logger.debug(
                "a frame of the event hub is not understood: %(frame)s", frame=frame.data[:200]
            )
        if packet_id and kind == socketio.EVENT:
            self._replies.append(socketio.acknowledgement_frame(packet_id))

    async def _send(self, socket: WebSocket) -> None:
        while True:
            self._wakeup = anyio.Event()
            replies, self._replies = self._replies, []
            for frame in replies:
                socket.put(frame)
            if self.state == "connected":  # after the subscriptions, which the server reads first
                for frame in self._outbox.take(_PIECE):
                    socket.put(frame)
                if self._is_leaving and not self._outbox.is_sending:
                    socket.put(socketio.DISCONNECT_FRAME)
                    socket.close()
                    await socket.flush()
                    self._has_left.set()
                    return
            if not await socket.flush():
                await self._wakeup.wait()

    def _send_now(self, frame: str) -> None:
        self._replies.append(frame)
        self._wake()

    async def leave(self, seconds: float) -> None:
        """Send what waits, and end the connection in good order, if that is soon done."""
        self._is_leaving = True
        if self.state == "connected":
            self._wake()
            with anyio.move_on_after(seconds):
                await self._has_left.wait()
