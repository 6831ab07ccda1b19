"""The dispatcher: requests belong to the session, not to the caller (design.md, ideas 2 and 3).

A caller hands over operations and waits. Its cancellation withdraws what was not sent; what was
sent runs to its end and is *settled* by the dispatcher's own task, so that no connection is torn
down half-way, and no commit left in doubt, because somebody stopped waiting.

*Group commit*: an idle session sends at once, and what comes while a commit is under way travels
together in the next request, which leaves when that one is answered: so the longer requests take,
the more they carry. One that takes very long holds nobody back.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

import anyio
import anyio.lowlevel

from aioftrackjobs.background import BackgroundTasks
from aioftrackjobs.commit.api_client import ApiClient
from aioftrackjobs.commit.queue import EntityOrder, SendQueue
from aioftrackjobs.commit.request import (
    Applied,
    NotApplied,
    Outcome,
    PendingRequest,
    Settle,
    Unknown,
    WithdrawnError,
)
from aioftrackjobs.commit.sender import BatchSender
from aioftrackjobs.errors import SessionStateError, TransportError
from aioftrackjobs.protocol.operations import Operation
from aioftrackjobs.protocol.values import JSONValue
from aioftrackjobs.retry import Pauses, RetryPolicy
from aioftrackjobs.timings import DEFAULT_TIMINGS, Timings

#: Requests that are under way at once. httpcore rescans its pool on each event, so that many
#: in flight are slower than few.
IN_FLIGHT = 8


@dataclass(frozen=True, slots=True)
class Waiting:
    """Commits that have not come to their end.

    Attributes:
        queued: How many wait to be sent.
        sent: How many are under way, or are tried again.
        in_doubt: How many of those may or may not have been applied.
        since: When the oldest of them was queued, as ``time.monotonic`` counts.
    """

    queued: int = 0
    sent: int = 0
    in_doubt: int = 0
    since: float | None = None


class Dispatcher:
    """Sends commits and other calls, a bounded number of requests at once.

    It is made with its session, and sends from :meth:`open` to :meth:`abandon`.

    Args:
        host: Where the requests run.
        retry: For how long, and how often, what failed for a passing reason is tried again.
        pauses: Those between the attempts of all requests of the session.
        group_commit: Whether commits may share a request.
        in_flight: Requests under way at once.
        timings: Times that tests shorten.
    """

    def __init__(
        self,
        host: BackgroundTasks,
        *,
        retry: RetryPolicy,
        pauses: Pauses,
        group_commit: bool = True,
        in_flight: int = IN_FLIGHT,
        timings: Timings = DEFAULT_TIMINGS,
    ) -> None:
        self._sender: BatchSender | None = None
        self._retry = retry
        self._pauses = pauses
        self._host = host
        self._hold = host.hold()
        self._group_commit = group_commit
        self._in_flight = in_flight
        self._timings = timings
        self._order = EntityOrder()
        self._outbox = SendQueue(group_commit=group_commit)
        self._tickets: set[PendingRequest] = set()
        self._arrivals = count()
        self._workers = 0
        self._gathering = 0
        self._under_way: dict[object, float] = {}  # requests with commits: when they began
        self._watches = False
        self._closed = False

    def open(self, api: ApiClient) -> None:
        """Accept requests from now on, and send them by *api*."""
        self._sender = BatchSender(api, self._finish, self._retry, self._pauses)

    def require_open(self) -> None:
        """Raise SessionStateError unless requests are accepted."""
        if self._closed:
            raise SessionStateError("the session is closed; open a new one")
        if self._sender is None:
            raise SessionStateError(
                "the session is not open; write: async with AsyncSession(...) as session:"
            )

    # Queueing

    def submit(
        self,
        changes: Sequence[Operation],
        settle: Settle,
        *,
        overtakes: bool = False,
        doubt: TransportError | None = None,
    ) -> PendingRequest:
        """Queue a commit.

        Args:
            changes: What it carries; at least one operation.
            settle: Called once with the outcome, whether or not anybody still waits.
            overtakes: Do not wait for earlier requests about the same entities.
            doubt: Why it is not known what became of an earlier attempt.

        Raises:
            SessionStateError: The session is not open.
        """
        self.require_open()
        ticket = PendingRequest.of_commit(changes, settle, overtakes=overtakes, doubt=doubt)
        return self._enter(ticket)

    async def call(self, operations: Sequence[Mapping[str, JSONValue]]) -> list[Any]:
        """Send *operations* in a request of their own, and return one result for each.

        Raises:
            ServerError: The server refused.
            SessionStateError: The session is not open.
            TransportError: No complete answer came back.
            UnserialisableValueError: One of the values cannot travel.
        """
        self.require_open()
        if not operations:
            return []
        await anyio.lowlevel.checkpoint_if_cancelled()
        return await self.results(self.submit_call(operations))

    def submit_call(self, operations: Sequence[Mapping[str, JSONValue]]) -> PendingRequest:
        """Queue a request of *operations*, for :meth:`results`.

        Raises:
            SessionStateError: The session is not open.
        """
        self.require_open()
        return self._enter(PendingRequest.of_call(operations))

    async def results(self, ticket: PendingRequest) -> list[Any]:
        """Wait for the end of *ticket*, and return its results, or raise why there are none."""
        match await self.wait(ticket):
            case Applied(results):
                return list(results)
            case NotApplied(error) | Unknown(error):
                raise error

    async def wait(self, ticket: PendingRequest) -> Outcome:
        """Wait for the end of *ticket*; a cancelled wait withdraws it if it was not sent."""
        with self._hold:
            try:
                if ticket.outcome is None:
                    await ticket.latch()
            except BaseException:
                if ticket.outcome is None and not ticket.is_sent:
                    withdrawn = WithdrawnError("withdrawn before it was sent")
                    self._finish(ticket, ticket.given_up(withdrawn))
                    self._outbox.note_withdrawn()
                raise
        assert ticket.outcome is not None  # noqa: S101 - for type checkers
        return ticket.outcome

    def _enter(self, ticket: PendingRequest) -> PendingRequest:
        ticket.number, ticket.since = next(self._arrivals), time.monotonic()
        ticket.new_waiter = self._host.new_waiter
        self._tickets.add(ticket)
        if self._order.enter(ticket):
            self._let_go(ticket)
        return ticket

    def _let_go(self, ticket: PendingRequest) -> None:
        """Let *ticket* be sent, now that there is nothing that it has to wait for."""
        self._outbox.add(ticket)
        if not self._gathering:
            self._wake(departs=ticket.overtakes or self._may_depart())

    def _finish(self, ticket: PendingRequest, outcome: Outcome) -> None:
        """End *ticket*, and let go on what waited for it; when the session closes, end that too."""
        if ticket.outcome is not None:
            return  # withdrawn meanwhile: what waited for it has been let go
        self._tickets.discard(ticket)
        ticket.is_queued = False
        try:
            ticket.finish(outcome)
        finally:
            if freed := self._order.leave(ticket):
                if self._closed:
                    self._refuse(freed)
                else:
                    for follower in freed:
                        self._let_go(follower)

    def _refuse(self, freed: Sequence[PendingRequest]) -> None:
        """End tickets that need not wait any more, and those behind them, unsent."""
        ending = [*freed]
        while ending:
            ticket = ending.pop()
            self._tickets.discard(ticket)
            ticket.is_queued = False
            ticket.finish(ticket.given_up(_closed()))
            ending += self._order.leave(ticket)

    def waiting(self) -> Waiting:
        """Tell which commits have not come to their end."""
        commits = [ticket for ticket in self._tickets if ticket.changes]
        queued = sum(ticket.is_queued for ticket in commits)
        return Waiting(
            queued=queued,
            sent=len(commits) - queued,
            in_doubt=sum(ticket.doubt is not None for ticket in commits),
            since=min((ticket.since for ticket in commits), default=None),
        )

    # Closing

    async def drain(self) -> None:
        """Wait until nothing is queued or under way."""
        while self._tickets:
            for ticket in tuple(self._tickets):
                await ticket.ended()
            await anyio.lowlevel.checkpoint()

    def abandon(self) -> None:
        """End what is still queued, and what will be: the session closes."""
        self._closed = True
        while group := self._take():
            for ticket in group:
                self._finish(ticket, ticket.given_up(_closed()))

    # FileUpload

    def _may_depart(self) -> bool:
        """Tell whether commits may leave now, rather than when a request of others has ended."""
        if not self._under_way or not self._group_commit:
            return True
        oldest = next(iter(self._under_way.values()))
        return time.monotonic() - oldest >= self._timings.max_hold

    def _wake(self, *, departs: bool = True) -> None:
        """Have a worker for what can be sent; without a host, nothing can be any more.

        Args:
            departs: Whether commits can be.
        """
        try:
            if self._outbox.commits and not departs:
                self._watch()
            can_be_sent = self._outbox.has_some(departs=departs)
            if can_be_sent and not self._gathering and self._workers < self._in_flight:
                self._host.spawn(partial(self._work, departs=departs))
                self._workers += 1
                self._gathering += 1
        except SessionStateError:
            self.abandon()

    def _watch(self) -> None:
        """Let commits leave after a while, if what they wait for takes long."""
        if not self._watches:
            self._host.spawn(self._hurry)
            self._watches = True

    async def _hurry(self) -> None:
        try:
            while self._outbox.commits:
                await anyio.sleep(self._timings.max_hold)
                if self._may_depart():
                    self._wake()
        finally:
            self._watches = False

    async def _work(self, *, departs: bool) -> None:
        gathers = True
        try:
            while True:
                for _ in range(self._timings.batching_turns):
                    await anyio.lowlevel.checkpoint()
                group = self._take(departs=departs)
                self._gathering -= 1
                gathers = False
                if not group:
                    return
                self._wake(departs=departs)  # what does not fit in leaves beside it
                await self._send(group)
                self._gathering += 1
                gathers = True
                departs = bool(group[0].changes) or self._may_depart()
        finally:
            self._gathering -= gathers
            self._workers -= 1
            # Cancelled with work left: the host goes on if somebody needs it.
            self._wake(departs=self._may_depart())

    def _take(self, *, departs: bool = True) -> Sequence[PendingRequest]:
        group = self._outbox.take(departs=departs)
        for ticket in group:
            ticket.is_queued = False
        return group

    async def _send(self, group: Sequence[PendingRequest]) -> None:
        assert self._sender is not None  # noqa: S101 - nothing is queued before it is opened
        request = object()
        if group[0].changes:
            self._under_way[request] = time.monotonic()
        try:
            self._outbox.groups.extend(await self._sender.deliver(group))
            if self._closed:
                self.abandon()  # there may be no worker for them any more
        except BaseException:
            # The task is cancelled, or it is a defect of ours: somebody may be waiting.
            cut_off = Unknown(TransportError("interrupted while waiting for the answer"))
            for ticket in group:
                if ticket.outcome is None:
                    self._finish(ticket, cut_off if ticket.is_sent else ticket.given_up(_closed()))
            raise
        finally:
            self._under_way.pop(request, None)


def _closed() -> SessionStateError:
    return SessionStateError("the session was closed before the request was sent")
