"""Injecting faults into the events and heartbeats that one client of the event hub gets."""

from __future__ import annotations

import logging

import anyio
from pydantic_core import from_json
from starlette.types import Message

from aioftrackjobs.devserver.faults import kinds
from aioftrackjobs.devserver.faults.connections import ClientConnection
from aioftrackjobs.devserver.faults.plan import Due, Faults, MatcherError

logger: logging.Logger = logging.getLogger(__name__)

#: How the frames of events and heartbeats begin (docs/protocol.md, section 7.2).
_EVENT, _HEARTBEAT = "5:::", "2::"


class FaultyEvents:
    """The frames of one client, with the faults that are planned for them."""

    def __init__(self, faults: Faults, connection: ClientConnection) -> None:
        self._faults = faults
        self._connection = connection
        self._held: list[Message] = []
        self._is_dropped = False
        self._has_heartbeats = True

    async def send(self, message: Message) -> None:
        """Send a frame, or inject the fault that is due for it."""
        if self._is_dropped:
            return
        text = message.get("text") or ""
        is_heartbeat = text.startswith(_HEARTBEAT)
        due = self._due(text, is_heartbeat) if self._faults.planned else None
        match due and due.fault:
            case kinds.Drop():
                self._is_dropped = True
                self._connection.close()
                return
            case kinds.Reorder():
                self._held.append(message)
                return
            case kinds.Delay(seconds=seconds):
                await anyio.sleep(seconds)
            case kinds.Duplicate():
                await self._connection.send(message)
            case kinds.StopHeartbeats():
                self._has_heartbeats = False
        if not is_heartbeat or self._has_heartbeats:
            await self._connection.send(message)
        if is_heartbeat or text.startswith(_EVENT):
            while self._held:
                await self._connection.send(self._held.pop(0))

    def _due(self, text: str, is_heartbeat: bool) -> Due | None:  # noqa: FBT001
        if is_heartbeat:
            seen = kinds.SeenRequest("SEND", "heartbeat", "heartbeat")
        elif text.startswith(_EVENT):
            event = from_json(text[len(_EVENT) :])["args"][0]
            seen = kinds.SeenRequest("SEND", event["topic"], "event", (event,))
        else:
            return None
        try:
            return self._faults.due(seen)
        except MatcherError:
            logger.exception("no fault is injected into an event")
            return None
