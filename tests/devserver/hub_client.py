"""A minimal client of the event hub, which shows each frame."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import anyio
import httpx
from websockets.asyncio.client import ClientConnection, connect

from aioftrackjobs.devserver import ServerHandle
from aioftrackjobs.testing import ServerProcess


class HubClient:
    """One connection to the event hub; events and other frames are kept apart."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.id = uuid4().hex
        self.events: list[dict[str, Any]] = []
        self._packet = 0

    async def frame(self) -> str:
        with anyio.fail_after(20):
            return str(await self.socket.recv())

    async def frame_of(self, kind: str) -> str:
        """Return the next frame that begins with *kind*, and keep the events before it."""
        while not (frame := await self.frame()).startswith(kind):
            if frame.startswith("5:::"):
                self.events.append(json.loads(frame[4:])["args"][0])
        return frame

    async def event(self) -> dict[str, Any]:
        if not self.events:
            self.events.append(json.loads((await self.frame_of("5:::"))[4:])["args"][0])
        return self.events.pop(0)

    async def ask(self, data: str) -> dict[str, Any]:
        """Send a numbered frame, and return its acknowledgement."""
        self._packet += 1
        await self.socket.send(f"5:{self._packet}+::{data}")
        head = f"6:::{self._packet}+"
        (result,) = json.loads((await self.frame_of("6"))[len(head) :])
        assert isinstance(result, dict)
        return result

    async def publish(self, topic: str, /, **fields: Any) -> dict[str, Any]:
        event = {"topic": topic, "data": {}, "source": {"id": self.id}, "target": "", **fields}
        return await self.ask(json.dumps({"name": "ftrack.event", "args": [event]}))

    async def subscribe(self, subscription: str, **description: Any) -> dict[str, Any]:
        subscriber = {"id": uuid4().hex} | description
        data = {"subscriber": subscriber, "subscription": subscription}
        return await self.publish("ftrack.meta.subscribe", data=data)

    async def nothing_came(self) -> bool:
        """Return whether no event has come before the acknowledgement of another one."""
        await self.publish("unheard")
        return not self.events


async def handshake(server: ServerHandle | ServerProcess, **sent: Any) -> httpx.Response:
    credentials = {"ftrack-user": server.api_user, "ftrack-api-key": server.api_key}
    async with httpx.AsyncClient(base_url=server.url) as http:
        return await http.get("/socket.io/1/", **({"headers": credentials} | sent))


@asynccontextmanager
async def connected(
    server: ServerHandle | ServerProcess, **options: Any
) -> AsyncIterator[HubClient]:
    session = (await handshake(server)).text.partition(":")[0]
    url = f"ws{server.url.removeprefix('http')}/socket.io/1/websocket/{session}"
    async with connect(url, compression=None, **options) as socket:
        client = HubClient(socket)
        assert await client.frame() == "1::"
        yield client
