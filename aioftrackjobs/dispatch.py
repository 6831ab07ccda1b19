"""The dispatcher: requests belong to the session, not to the caller (design.md, idea 2).

A caller hands over operations and waits. Its cancellation withdraws what was not sent; what was
sent runs to its end and is *settled* by the dispatcher's own task, so that no connection is torn
down half-way, and no commit left in doubt, because somebody stopped waiting.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import anyio.lowlevel

from aioftrackjobs.errors import (
    ConnectError,
    FtrackJobsError,
    SessionStateError,
    TransportError,
    UnserialisableValueError,
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
    """One request, from its queueing to its end.

    Attributes:
        operations: What it carries, in the wire form.
        settle: Hears of the outcome.
        about: The entities it changes.
        waits_for: Number of earlier tickets about them that have not ended.
        followers: Later tickets that wait for it.
    """

    operations: Sequence[Mapping[str, JSONValue]]
    settle: Settle | None = None
    about: frozenset[Hashable] = frozenset()
    waits_for: int = 0
    followers: list[Ticket] = field(default_factory=list)
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
    """Sends batches of operations, a bounded number at once, in the order they came.

    Requests about the same entity never overtake each other: each waits for the one before.
    """

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
        self._ready: deque[Ticket] = deque()
        self._tickets: set[Ticket] = set()
        self._latest: dict[Hashable, Ticket] = {}
        self._workers = 0
        self._closed = False

    def submit(
        self,
        operations: Sequence[Mapping[str, JSONValue]],
        settle: Settle | None = None,
        *,
        about: Iterable[Hashable] = (),
    ) -> Ticket:
        """Queue a request that carries *operations*, which are in their wire form.

        Args:
            operations: At least one.
            settle: Called once with the outcome, whether or not anybody still waits.
            about: Entities it changes: it is sent when earlier requests about them have ended.
        """
        ticket = Ticket(operations, settle, frozenset(about))
        before = {self._latest[key] for key in ticket.about if key in self._latest}
        for each in before:
            each.followers.append(ticket)
        ticket.waits_for = len(before)
        self._latest.update(dict.fromkeys(ticket.about, ticket))
        self._tickets.add(ticket)
        if not ticket.waits_for:
            self._ready.append(ticket)
            self._wake()
        return ticket

    async def wait(self, ticket: Ticket) -> Outcome:
        """Wait for the end of *ticket*; a cancelled wait withdraws it if it was not sent."""
        with self._host.hold():
            try:
                await ticket.settled.wait()
            except BaseException:
                self._withdraw(ticket)
                raise
        if ticket.outcome is None:  # `settled` is set after it
            raise AssertionError("a ticket was settled without an outcome")
        return ticket.outcome

    def _withdraw(self, ticket: Ticket) -> None:
        if ticket in self._ready:
            self._ready.remove(ticket)
        elif not ticket.waits_for:
            return  # it was sent: it runs to its end
        self._finish(ticket, NotApplied(WithdrawnError("withdrawn before it was sent")))

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
        """End what is still queued, and what will be: the session closes."""
        self._closed = True
        while self._ready:
            self._finish(self._ready.popleft(), NotApplied(_closed()))

    def _finish(self, ticket: Ticket, outcome: Outcome) -> None:
        """End *ticket*, and let go on what waited for it."""
        ending = [(ticket, outcome)]
        while ending:
            ended, its_outcome = ending.pop()
            self._tickets.discard(ended)
            if ended.outcome is None:
                ended.finish(its_outcome)
            if ended.waits_for:
                continue  # withdrawn while it waited: those behind it go on waiting
            for key in ended.about:
                if self._latest.get(key) is ended:
                    del self._latest[key]
            for follower in ended.followers:
                follower.waits_for -= 1
                if follower.waits_for:
                    continue
                if self._closed or follower.outcome is not None:
                    ending.append((follower, NotApplied(_closed())))
                else:
                    self._ready.append(follower)
                    self._wake()

    def _wake(self) -> None:
        """Have a worker for what can be sent; without a host, nothing can be any more."""
        if self._ready and self._workers < self._in_flight:
            try:
                self._host.spawn(self._work)
            except SessionStateError:
                self.abandon()
            else:
                self._workers += 1

    async def _work(self) -> None:
        try:
            while self._ready:
                await self._send(self._ready.popleft())
        finally:
            self._workers -= 1
            self._wake()  # cancelled with work left: the host goes on if somebody needs it

    async def _send(self, ticket: Ticket) -> None:
        outcome: Outcome = Unknown(TransportError("interrupted while waiting for the answer"))
        try:
            outcome = await self._exchange(ticket.operations)
        finally:  # also when the task is cancelled: somebody may be waiting
            self._finish(ticket, outcome)

    async def _exchange(self, operations: Sequence[Mapping[str, JSONValue]]) -> Outcome:
        """Send *operations*, and tell what became of them; no error may end the worker."""
        try:
            body = encode_batch(operations)
        except Exception as exc:  # noqa: BLE001 - whatever it is, nothing was sent
            return NotApplied(UnserialisableValueError("the operations", type(exc).__name__))
        try:
            request = WireRequest("POST", self._url, self._headers, body)
            response = await self._transport.send(request)
            return Applied(
                decode_answer(response.status, response.body, operations, redact=self._redact)
            )
        except ConnectError as exc:
            return NotApplied(exc)
        except TransportError as exc:
            return Unknown(exc)
        except FtrackJobsError as exc:
            return NotApplied(exc)
        except Exception as exc:  # noqa: BLE001 - a transport of the caller's may raise anything
            return Unknown(TransportError(f"the transport failed: {type(exc).__name__}"))


def _closed() -> SessionStateError:
    return SessionStateError("the session was closed before the request was sent")
