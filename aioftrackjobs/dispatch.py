"""The dispatcher: requests belong to the session, not to the caller (design.md, idea 2).

A caller hands over operations and waits. Its cancellation withdraws what was not sent; what was
sent runs to its end and is *settled* by the dispatcher's own task, so that no commit stays in
doubt, and no connection is torn down half-way, because somebody stopped waiting.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import anyio.lowlevel

from aioftrackjobs.errors import (
    ConnectError,
    FtrackJobsError,
    SessionStateError,
    TransportError,
)
from aioftrackjobs.host import Host
from aioftrackjobs.protocol.values import JSONValue
from aioftrackjobs.protocol.wire import decode_answer, encode_batch
from aioftrackjobs.transport import Transport, WireRequest

#: Requests that are under way at once. httpcore rescans its pool on each event, so that many
#: in flight are slower than few.
IN_FLIGHT = 8


class WithdrawnError(FtrackJobsError):
    """The caller went away before the request was sent."""


@dataclass(frozen=True, slots=True)
class Applied:
    """The server did all of it; one result for each operation."""

    results: list[Any]


@dataclass(frozen=True, slots=True)
class NotApplied:
    """The server did none of it: it refused, or never saw it."""

    error: FtrackJobsError


@dataclass(frozen=True, slots=True)
class Unknown:
    """It was sent, and no complete answer tells what the server did."""

    error: TransportError


Outcome: TypeAlias = Applied | NotApplied | Unknown
Settle: TypeAlias = Callable[[Outcome], None]


@dataclass(eq=False, slots=True)
class Ticket:
    """One request, from its queueing to its end."""

    operations: Sequence[Mapping[str, JSONValue]]
    settle: Settle | None
    outcome: Outcome | None = None
    settled: anyio.Event = field(default_factory=anyio.Event)

    def finish(self, outcome: Outcome) -> None:
        """Let the end be known: first to who keeps the books, then to who waits."""
        self.outcome = outcome
        try:
            if self.settle is not None:
                self.settle(outcome)
        finally:
            self.settled.set()


class Dispatcher:
    """Sends batches of operations, a bounded number at once, in the order they came."""

    def __init__(
        self,
        transport: Transport,
        host: Host,
        *,
        url: str,
        headers: Mapping[str, str | bytes],
        redact: Callable[[str], str] = str,
        in_flight: int = IN_FLIGHT,
    ) -> None:
        self._transport = transport
        self._host = host
        self._url = url
        self._headers = headers
        self._redact = redact
        self._in_flight = in_flight
        self._queue: deque[Ticket] = deque()
        self._tickets: set[Ticket] = set()
        self._workers = 0

    def submit(
        self, operations: Sequence[Mapping[str, JSONValue]], settle: Settle | None = None
    ) -> Ticket:
        """Queue a request that carries *operations*, which are in their wire form.

        Args:
            operations: At least one.
            settle: Called once with the outcome, whether or not anybody still waits.
        """
        ticket = Ticket(operations, settle)
        self._tickets.add(ticket)
        self._queue.append(ticket)
        self._wake()
        return ticket

    async def wait(self, ticket: Ticket) -> Outcome:
        """Wait for the end of *ticket*; a cancelled wait withdraws it if it was not sent."""
        with self._host.hold():
            try:
                await ticket.settled.wait()
            except BaseException:
                if ticket in self._queue:
                    self._queue.remove(ticket)
                    self._finish(ticket, NotApplied(WithdrawnError("withdrawn before it was sent")))
                raise
        if ticket.outcome is None:  # `settled` is set after it
            raise AssertionError("a ticket was settled without an outcome")
        return ticket.outcome

    async def call(self, operations: Sequence[Mapping[str, JSONValue]]) -> list[Any]:
        """Send *operations*, and return one result for each.

        Raises:
            ServerError: The server refused.
            TransportError: No complete answer came back.
        """
        if not operations:
            return []
        await anyio.lowlevel.checkpoint_if_cancelled()
        match await self.wait(self.submit(operations)):
            case Applied(results):
                return results
            case NotApplied(error) | Unknown(error):
                raise error

    async def drain(self) -> None:
        """Wait until nothing is queued or under way."""
        for ticket in tuple(self._tickets):
            await ticket.settled.wait()

    def abandon(self) -> None:
        """End what is still queued: the session closes."""
        while self._queue:
            error = SessionStateError("the session was closed before the request was sent")
            self._finish(self._queue.popleft(), NotApplied(error))

    def _finish(self, ticket: Ticket, outcome: Outcome) -> None:
        self._tickets.discard(ticket)
        ticket.finish(outcome)

    def _wake(self) -> None:
        """Have a worker for what is queued; without a host, nothing can be sent any more."""
        if self._queue and self._workers < self._in_flight:
            try:
                self._host.spawn(self._work)
            except SessionStateError:
                self.abandon()
            else:
                self._workers += 1

    async def _work(self) -> None:
        try:
            while self._queue:
                await self._send(self._queue.popleft())
        finally:
            self._workers -= 1
            self._wake()  # cancelled with work left: the host goes on if somebody needs it

    async def _send(self, ticket: Ticket) -> None:
        outcome: Outcome = Unknown(TransportError("interrupted while waiting for the answer"))
        try:
            request = WireRequest("POST", self._url, self._headers, encode_batch(ticket.operations))
            response = await self._transport.send(request)
            results = decode_answer(
                response.status, response.body, ticket.operations, redact=self._redact
            )
            outcome = Applied(results)
        except TransportError as exc:
            outcome = NotApplied(exc) if isinstance(exc, ConnectError) else Unknown(exc)
        except FtrackJobsError as exc:
            outcome = NotApplied(exc)
        finally:  # also when the task is cancelled: somebody may be waiting
            self._finish(ticket, outcome)
