"""The dispatcher: sends the requests of a session in tasks of its own.

A caller hands over operations and waits. If the caller is cancelled, it withdraws what was not
sent; what was sent runs to its end, because the tasks that send belong to the session. Were they
the caller's, a cancellation would break a connection in the middle of a request, and leave unknown
what the server did.

Requests travel in two *lanes* (:mod:`aioftrackjobs.commit.lane`). Nearly all are in the ordinary
one. The other one is reserved for urgent requests: the final status of a Job, and the renewal of
its lease, must not wait until slow queries, commits and uploads of the same session have ended. It
has connections of its own, each for one request, because a connection that was good a moment ago
may be dead. While the ordinary lane is free, urgent requests travel in it and share its requests,
so that the other lane costs nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import count
from typing import Any, NamedTuple, Unpack

import anyio
import anyio.lowlevel

from aioftrackjobs.background import BackgroundTasks, Waiter
from aioftrackjobs.commit.api_client import ApiClient
from aioftrackjobs.commit.lane import Lane, closed_error
from aioftrackjobs.commit.late_writes import LateWrites
from aioftrackjobs.commit.order import EntityOrder
from aioftrackjobs.commit.request import (
    Applied,
    Manner,
    NotApplied,
    Outcome,
    PendingRequest,
    Settle,
    Unknown,
    WithdrawnError,
)
from aioftrackjobs.commit.sender import BatchSender
from aioftrackjobs.config.retry import Pauses, RetryPolicy
from aioftrackjobs.config.timings import DEFAULT_TIMINGS, Timings
from aioftrackjobs.errors import SessionStateError, TransportError
from aioftrackjobs.protocol.operations import Operation
from aioftrackjobs.protocol.values import JSONValue, Reference

#: Requests in progress at once. httpcore scans all of its pool at each event, so that many
#: concurrent requests are slower than few.
MAX_REQUESTS = 8

#: The same in the lane for urgent requests, where each may hang for a while.
RESERVED_REQUESTS = 16

#: Multiple of the first ``send_within`` up to which a request that was held back is not sent.
_LONGEST_LIMIT = 8


class Backlog(NamedTuple):
    """Commits that have not ended.

    Attributes:
        queued: How many wait to be sent.
        sent: How many are being sent, or wait to be sent again.
        uncertain: For how many of these it is not known whether the server has applied them.
        since: When the oldest of them was queued, as ``time.monotonic`` counts.
    """

    queued: int = 0
    sent: int = 0
    uncertain: int = 0
    since: float | None = None


class Dispatcher:
    """Sends commits and other calls, a bounded number of requests at once.

    It is made with its session, and accepts requests from :meth:`open` to :meth:`abandon`.

    Args:
        background: Runs the workers.
        retry: For how long, and how often, a request is repeated after a transient failure.
        pauses: Pauses between the attempts of all requests of the session.
        group_commit: Whether commits may share a request.
        max_requests: Requests in progress at once.
        timeout: Seconds after which a request counts as lost.
        timings: Times that tests shorten.

    Attributes:
        refusal: Why no requests are accepted; None if they are.
        require_here: Raises SessionStateError in another event loop, thread or process.
        new_waiter: Makes what a task waits for.
        late_writes: Puts right what lost requests change after they were repeated.
    """

    new_waiter: Callable[[], Waiter]

    def __init__(
        self,
        background: BackgroundTasks,
        *,
        retry: RetryPolicy,
        pauses: Pauses,
        group_commit: bool = True,
        max_requests: int = MAX_REQUESTS,
        timeout: float = 60.0,
        timings: Timings = DEFAULT_TIMINGS,
    ) -> None:
        self._retry = retry
        self._pauses = pauses
        self._timings = timings
        self._background = background
        self.require_here: Callable[[], None] = background.require_here
        make_lane = partial(
            Lane, background, self._end, self.abandon, group_commit=group_commit, timings=timings
        )
        self._ordinary = make_lane(max_requests=max_requests)
        self._reserved = make_lane(max_requests=RESERVED_REQUESTS)
        self._lanes = (self._ordinary, self._reserved)
        self.late_writes: LateWrites = LateWrites(
            background,
            read=self.call,
            write=lambda operations: self.submit(operations, lambda _: None),
            is_pending=self._is_pending,
            timeout=timeout,
        )
        self._order = EntityOrder()
        self._pending: set[PendingRequest] = set()
        self._arrivals = count()
        self._withdraws_all = False
        self._closed = False
        self.refusal: str | None = (
            "the session is not open; write: async with AsyncSession(...) as session:"
        )

    def open(self, api: ApiClient, reserved_api: ApiClient | None = None) -> None:
        """Accept requests from now on.

        Args:
            api: Sends them.
            reserved_api: Sends those in the reserved lane; *api* if None.
        """
        for lane, each in zip(self._lanes, (api, reserved_api or api), strict=True):
            lane.sender = BatchSender(
                each, self._end, self._retry, self._pauses, self.late_writes.note_lost
            )
        event_loop = self._background.event_loop
        assert event_loop is not None  # noqa: S101 - for type checkers
        self.require_here, self.new_waiter = event_loop.require_here, event_loop.new_waiter
        self.refusal = None

    def require_open(self) -> None:
        """Raise SessionStateError unless requests are accepted, and this is their event loop."""
        if self.refusal is not None:
            raise SessionStateError(self.refusal)
        self.require_here()

    # Queueing

    def submit(
        self,
        operations: Sequence[Operation],
        settle: Settle,
        manner: Manner | None = None,
        uncertain_because: TransportError | None = None,
    ) -> PendingRequest:
        """Queue a commit.

        Args:
            operations: At least one.
            settle: Called once with the outcome, also if the caller has stopped waiting.
            manner: How it is sent; None for the usual one.
            uncertain_because: Why it is not known what the server did in an earlier attempt.

        Raises:
            SessionStateError: The session is not open.
        """
        if self.refusal is not None:
            raise SessionStateError(self.refusal)
        return self._enter(PendingRequest.of_commit(operations, settle, manner, uncertain_because))

    async def call(
        self, operations: Sequence[Mapping[str, JSONValue]], **manner: Unpack[Manner]
    ) -> list[Any]:
        """Send *operations* in a request of their own, and return one result for each.

        Raises:
            ServerError: The server refused.
            SessionStateError: The session is not open.
            TransportError: No complete response came back.
            UnserialisableValueError: One of the values cannot be encoded.
        """
        self.require_open()
        if not operations:
            return []
        await anyio.lowlevel.checkpoint_if_cancelled()
        return await self.results(self.submit_call(operations, **manner))

    def submit_call(
        self, operations: Sequence[Mapping[str, JSONValue]], **manner: Unpack[Manner]
    ) -> PendingRequest:
        """Queue a request of *operations*, for :meth:`results`.

        Raises:
            SessionStateError: The session is not open.
        """
        self.require_open()
        return self._enter(PendingRequest.of_call(operations, **manner))

    async def results(self, request: PendingRequest) -> list[Any]:
        """Wait for the end of *request*; return its results, or raise why there are none."""
        match await self.wait(request):
            case Applied(results):
                return list(results)
            case NotApplied(error) | Unknown(error):
                raise error

    async def wait(self, request: PendingRequest) -> Outcome:
        """Wait for the end of *request*; a cancelled wait withdraws it if it was not sent."""
        if (outcome := request.outcome) is None:
            waiter = request.waiter()
            is_caller = self._background.begin_wait()
            try:
                await waiter
            except BaseException:
                self.withdraw(request)
                raise
            finally:
                if is_caller:
                    self._background.end_wait()
            outcome = request.outcome
            assert outcome is not None  # noqa: S101 - for type checkers
        return outcome

    def withdraw(self, request: PendingRequest) -> None:
        """End *request*, now or when it turns out that it was not received."""
        request.is_abandoned = True
        if request.outcome is not None:
            return
        if not request.is_sent:
            withdrawn = WithdrawnError("withdrawn before it was sent")
            error = closed_error() if self._withdraws_all else withdrawn
            self._end(request, request.abandoned(error))
        elif request.is_dispensable:
            self._end(request, Unknown(TransportError("given up before its response arrived")))
        else:
            return
        for lane in self._lanes:
            lane.queue.note_withdrawn()
            if lane.sender is not None:
                lane.sender.stop_unneeded()

    def _enter(self, request: PendingRequest) -> PendingRequest:
        request.number, request.queued_at = next(self._arrivals), time.monotonic()
        request.owner = self
        self._pending.add(request)
        if self._order.add(request):
            lane = self._urgent_lane_of(request) if request.is_urgent else self._ordinary
            lane.add(request)
        return request

    def _urgent_lane_of(self, request: PendingRequest) -> Lane:
        is_ordinary = self._ordinary.is_free and not request.needs_new_connection
        return self._ordinary if is_ordinary else self._reserved

    def _end(self, request: PendingRequest, outcome: Outcome) -> None:
        """End *request*, and release what waited for it; when closing, end that too."""
        if request.outcome is not None:
            return  # it was withdrawn meanwhile, and what waited for it has been released
        self._pending.discard(request)
        request.is_queued = False
        if self.late_writes.watched and request.operations:
            done = request.operations if isinstance(outcome, Applied) else request.done
            self.late_writes.note_applied(done)
        try:
            request.end(outcome)
        finally:
            if freed := self._order.remove(request):
                if self._closed:
                    self._end_unsent(freed)
                else:
                    for dependent in freed:
                        if self._is_outdated(dependent):
                            self.withdraw(dependent)
                        elif dependent.is_urgent:
                            self._urgent_lane_of(dependent).add(dependent)
                        else:
                            self._ordinary.add(dependent)

    def _is_pending(self, target: Reference) -> bool:
        """Return whether a commit that changes *target* has not ended."""
        return any(each.target == target for one in self._pending for each in one.operations)

    def survives(self, error: BaseException) -> bool:
        """Return whether *error* of the end of a request is a fault; others have to end, too."""
        return self._background.survives(error, "the end of a request")

    def _is_outdated(self, request: PendingRequest) -> bool:
        """Return whether *request*, which was held back, was made from what is there no more.

        An earlier request has changed the same entity. A caller whose limit has grown has read
        the entity several times in vain, because the program changes it all the time.
        """
        send_within = request.send_within
        return (
            send_within is not None
            and send_within <= _LONGEST_LIMIT * self._timings.data_send_limit
        )

    def _end_unsent(self, freed: Sequence[PendingRequest]) -> None:
        """End requests that need not wait any more, and those behind them, without sending them."""
        ending = [*freed]
        while ending:
            request = ending.pop()
            self._pending.discard(request)
            request.is_queued = False
            request.end(request.abandoned(closed_error()))
            ending += self._order.remove(request)

    # What is pending

    def backlog(self) -> Backlog:
        """Return the number of commits that have not ended. May be called in any thread."""
        commits = [request for request in tuple(self._pending) if request.operations]
        queued = sum(request.is_queued for request in commits)
        return Backlog(
            queued=queued,
            sent=len(commits) - queued,
            uncertain=sum(request.uncertain_because is not None for request in commits),
            since=min((request.queued_at for request in commits), default=None),
        )

    @property
    def is_idle(self) -> bool:
        """Whether all requests have ended, and nothing of them is kept."""
        queues_are_empty = all(lane.queue.is_empty for lane in self._lanes)
        return not self._pending and self._order.is_empty and queues_are_empty

    # Closing

    def withdraw_all(self) -> None:
        """End all requests but those that the server may be applying: the session closes.

        A query needs no outcome, and what is uncertain already would stay so.
        """
        self._withdraws_all = True
        for request in tuple(self._pending):
            self.withdraw(request)
            is_read = not request.operations and request.is_repeatable
            if is_read or request.uncertain_because is not None:
                self._end(request, request.abandoned(closed_error()))

    async def drain(self) -> None:
        """Wait until all requests have ended."""
        while self._pending:
            for request in tuple(self._pending):
                await request.ended()
            await anyio.lowlevel.checkpoint()

    def abandon(self, why: str | None = None) -> None:
        """Accept no more requests, and end those that no worker has taken: the session closes.

        Args:
            why: The :attr:`refusal`, if it is a particular one.
        """
        if not self._closed:
            self.refusal = why or "the session is closed; open a new one"
        self._closed = True
        for lane in self._lanes:
            lane.is_closed = True
        for lane in self._lanes:
            lane.end_queued()
