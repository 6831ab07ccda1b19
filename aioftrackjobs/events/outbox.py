"""The events that wait to be sent, and those that wait for the server's acknowledgement."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Literal

from aioftrackjobs.background import Waiter
from aioftrackjobs.errors import ServerError, TransportError
from aioftrackjobs.protocol.socketio import Acknowledgement, event_frame

#: ``queued`` was never sent; ``sent`` has left and has no acknowledgement; the others are final.
State = Literal["queued", "sent", "done", "failed"]


class Outgoing:
    """One event on its way to the server.

    Args:
        payload: The event in JSON.
        on_end: Called when it is acknowledged, refused or lost.
        needs_acknowledgement: Whether the server is to acknowledge it. If not, it is done when it
            is sent.

    Attributes:
        payload: As above.
        needs_acknowledgement: As above.
        state: How far it has come.
        error: Why it failed.
    """

    __slots__ = ("error", "needs_acknowledgement", "on_end", "payload", "state")

    def __init__(
        self,
        payload: str,
        *,
        needs_acknowledgement: bool = True,
        on_end: Callable[[Outgoing], None] = lambda _: None,
    ) -> None:
        self.payload: str = payload
        self.needs_acknowledgement: bool = needs_acknowledgement
        self.on_end: Callable[[Outgoing], None] = on_end
        self.state: State = "queued"
        self.error: Exception | None = None

    def end(self, error: Exception | None = None) -> None:
        """Note that it is done, or why it failed."""
        self.state, self.error = ("done" if error is None else "failed"), error
        self.on_end(self)


class Outbox:
    """The events of one hub on their way to the server, over all its connections.

    An event that was sent and not acknowledged when the connection is lost fails: the server may
    have delivered it, and to send it again could start the same work twice. One that was not sent
    waits for the next connection.

    Args:
        limit: Events that may wait to be sent.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._queued: deque[Outgoing] = deque()
        self._sent: dict[int, Outgoing] = {}
        self._number = 0
        self._wake: Callable[[], object] = lambda: None
        self._for_room: deque[Waiter] = deque()

    def __len__(self) -> int:
        return len(self._queued) + len(self._sent)

    @property
    def is_full(self) -> bool:
        """Whether as many events wait to be sent as may."""
        return len(self._queued) >= self._limit

    @property
    def is_sending(self) -> bool:
        """Whether anything waits to be sent."""
        return bool(self._queued)

    def attach(self, wake: Callable[[], object]) -> None:
        """Call *wake* from now on when there is something to send."""
        self._wake = wake

    def add(self, outgoing: Outgoing) -> None:
        """Let an event be sent."""
        self._queued.append(outgoing)
        self._wake()

    async def wait_for_room(self, new_waiter: Callable[[], Waiter]) -> None:
        """Wait until another event may be added."""
        while self.is_full:
            waiter = new_waiter()
            self._for_room.append(waiter)
            await waiter

    def withdraw(self, outgoing: Outgoing) -> bool:
        """Forget an event; return whether it was sent."""
        if outgoing.state == "queued":
            if outgoing in self._queued:
                self._queued.remove(outgoing)
            self._note_room()
            return False
        return True

    def take(self, most: int) -> list[str]:
        """Return the frames of the next events, about *most* characters, which count as sent."""
        frames: list[str] = []
        size = 0
        while self._queued and size < most:
            outgoing = self._queued.popleft()
            frames.append(self.frame_of(outgoing))
            size += len(frames[-1])
        if frames:
            self._note_room()
        return frames

    def frame_of(self, outgoing: Outgoing) -> str:
        """Return the frame of an event, which counts as sent."""
        if not outgoing.needs_acknowledgement:
            outgoing.end()
            return event_frame(outgoing.payload)
        self._number += 1
        self._sent[self._number] = outgoing
        outgoing.state = "sent"
        return event_frame(outgoing.payload, self._number)

    def _note_room(self) -> None:
        while self._for_room and not self.is_full:
            waiter = self._for_room.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def acknowledge(self, acknowledgement: Acknowledgement) -> None:
        """End the event that the server has acknowledged, or has refused."""
        outgoing = self._sent.pop(acknowledgement.packet_id, None)
        if outgoing is None:
            return
        refusal = acknowledgement.refusal
        outgoing.end(None if refusal is None else ServerError("EventRefused", refusal))

    def lose_sent(self, why: str) -> None:
        """Fail the events that were sent and not acknowledged: the connection is lost."""
        lost, self._sent = list(self._sent.values()), {}
        for outgoing in lost:
            outgoing.end(TransportError(f"it is unknown whether the event was delivered: {why}"))

    def abandon(self, error: Exception) -> None:
        """Fail all events: there will be no further connection."""
        lost = [*self._sent.values(), *self._queued]
        self._sent.clear()
        self._queued.clear()
        for outgoing in lost:
            outgoing.end(error)
        self._note_room()
