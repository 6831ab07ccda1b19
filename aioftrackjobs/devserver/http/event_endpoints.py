"""The endpoints of the event hub: handshake and WebSocket (docs/protocol.md, section 7)."""

from __future__ import annotations

from contextlib import suppress

import anyio
from anyio.lowlevel import checkpoint
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.websockets import WebSocket, WebSocketDisconnect

from aioftrackjobs.devserver.engine import Engine
from aioftrackjobs.devserver.events.frames import HEARTBEAT
from aioftrackjobs.devserver.events.hub import Connection
from aioftrackjobs.devserver.faults.connections import ABORT
from aioftrackjobs.devserver.http.backpressure import DatabaseThread
from aioftrackjobs.devserver.pages.traffic import USER

#: Heartbeats in the time within which a client expects one.
_BEATS = 3
#: Times that time without any frame, after which a client counts as gone.
_SILENT = 4


class EventEndpoints:
    """The endpoints through which clients reach the event hub of *engine*."""

    def __init__(self, engine: Engine, database: DatabaseThread) -> None:
        self._engine = engine
        self._database = database
        self._heartbeat = engine.limits.heartbeat

    async def handshake(self, request: Request) -> Response:
        """Respond with a session, for which the client may open a WebSocket.

        The Python client sends credentials in headers, the JavaScript client in the address.
        """
        user, key = (
            request.headers.get(header) or request.query_params.get(parameter)
            for header, parameter in (("ftrack-user", "api_user"), ("ftrack-api-key", "api_key"))
        )
        identity = self._engine.credentials.check(user, key)
        await self._database.run(self._engine.check_user, identity)
        session = self._engine.hub.open_session(user or "")
        close = self._heartbeat * _SILENT
        return PlainTextResponse(f"{session}:{self._heartbeat:g}:{close:g}:websocket")

    async def websocket(self, websocket: WebSocket) -> None:
        """Pass frames between a client and the hub until one of them ends the connection."""
        hub = self._engine.hub
        connection = hub.connect(websocket.path_params["session"])
        if connection is None:
            await websocket.close()  # before it is accepted: refused with 403
            return
        websocket.scope[USER] = connection.username
        try:
            await websocket.accept()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_send, websocket, connection)
                tasks.start_soon(self._beat, connection)
                tasks.start_soon(_cut_off_when_slow, websocket, connection)
                await self._receive(websocket, connection)
                tasks.cancel_scope.cancel()
        finally:
            hub.disconnect(connection)

    async def _receive(self, websocket: WebSocket, connection: Connection) -> None:
        """Do what the client sends, until it disconnects or is silent for too long."""
        while True:
            with anyio.move_on_after(self._heartbeat * _SILENT) as time:
                message = await websocket.receive()
            if time.cancelled_caught:
                _abort(websocket)
                return
            if message["type"] == "websocket.disconnect":
                return
            text = message.get("text")
            text = message["bytes"].decode("utf-8", "replace") if text is None else text
            if text.startswith("0:"):
                return
            self._engine.hub.receive(connection, text)
            await checkpoint()  # those of other clients come first when one sends very many

    async def _beat(self, connection: Connection) -> None:
        while True:
            await anyio.sleep(self._heartbeat / _BEATS)
            connection.put(HEARTBEAT)


async def _send(websocket: WebSocket, connection: Connection) -> None:
    with suppress(WebSocketDisconnect):
        while True:
            await websocket.send_text(await connection.take())


async def _cut_off_when_slow(websocket: WebSocket, connection: Connection) -> None:
    await connection.slow.wait()
    _abort(websocket)


def _abort(websocket: WebSocket) -> None:
    """End the connection at once: a client that does not read takes no farewell either."""
    websocket.scope.get("extensions", {}).get(ABORT, bool)()
