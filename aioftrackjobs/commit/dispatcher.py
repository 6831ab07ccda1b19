"""The dispatcher: sends the requests of a session in tasks of its own.

A caller hands over operations and waits. If the caller is cancelled, it withdraws what was not
sent; what was sent runs to its end, because the tasks that send belong to the session. Were they
the caller's, a cancellation would break a connection in the middle of a request, and leave unknown
what the server did.

*Group commit* (a term of databases): a render farm commits many small changes at once, and a
request costs the server far more than the operations in it. So commits share requests. A session
without a request in progress sends a commit at once, and a lone commit never waits. Commits that
arrive while a request is in progress are held back, and travel together in the next one, which is
sent when that request ends. The slower the server is, the larger the groups are. A request that
takes longer than ``Timings.max_hold`` holds back no more, so that one slow request does not stop
all others.

Workers take requests from the queue, at most :data:`MAX_REQUESTS` of them. Before a worker takes a
group it waits for a few turns of the event loop: the tasks that the latest response has woken
commit again within them, so that their commits are in the group.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import count
from typing import Any, NamedTuple

import anyio
import anyio.lowlevel

from aioftrackjobs.background import BackgroundTasks, Waiter
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

#: Requests in progress at once. httpcore scans all of its pool at each event, so that many
#: concurrent requests are slower than few.
MAX_REQUESTS = 8

#: Times of the first patience up to which a request that was held back is not sent any more.
_MOST_PATIENCE = 8


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
        timings: Times that tests shorten.

    Attributes:
        refusal: Why no requests are accepted; None if they are.
        require_here: Raises SessionStateError in another event loop, thread or process.
        new_waiter: Makes what a task waits for.
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
        timings: Timings = DEFAULT_TIMINGS,
    ) -> None:
        self._sender: BatchSender | None = None
        self._retry = retry
        self._pauses = pauses
        self._background = background
        self.require_here = background.require_here
        self._group_commit = group_commit
        self._max_requests = max_requests
        self._timings = timings
        self._order = EntityOrder()
        self._queue = SendQueue(group_commit=group_commit)
        self._pending: set[PendingRequest] = set()
        self._arrivals = count()
        self._workers = 0
        self._batching = 0  # workers that wait for more commits before they take a group
        self._commits_in_progress: dict[object, float] = {}  # when each began, the oldest first
        self._is_watching = False
        self._withdraws_all = False
        self._closed = False
        self.refusal: str | None = (
            "the session is not open; write: async with AsyncSession(...) as session:"
        )

    def open(self, api: ApiClient) -> None:
        """Accept requests from now on, and send them by *api*."""
        self._sender = BatchSender(api, self._end, self._retry, self._pauses)
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
        *,
        unordered: bool = False,
        patience: float | None = None,
        uncertain_because: TransportError | None = None,
    ) -> PendingRequest:
        """Queue a commit.

        Args:
            operations: At least one.
            settle: Called once with the outcome, also if the caller has stopped waiting.
            unordered: Do not wait for earlier requests about the same entities.
            patience: Send it once, within so many seconds; None to send it until it is applied.
            uncertain_because: Why it is not known what the server did in an earlier attempt.

        Raises:
            SessionStateError: The session is not open.
        """
        if self.refusal is not None:
            raise SessionStateError(self.refusal)
        request = PendingRequest.of_commit(
            operations,
            settle,
            unordered=unordered,
            patience=patience,
            uncertain_because=uncertain_because,
        )
        return self._enter(request)

    async def call(self, operations: Sequence[Mapping[str, JSONValue]]) -> list[Any]:
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
        return await self.results(self.submit_call(operations))

    def submit_call(self, operations: Sequence[Mapping[str, JSONValue]]) -> PendingRequest:
        """Queue a request of *operations*, for :meth:`results`.

        Raises:
            SessionStateError: The session is not open.
        """
        self.require_open()
        return self._enter(PendingRequest.of_call(operations))

    async def results(self, request: PendingRequest) -> list[Any]:
        """Wait for the end of *request*; return its results, or raise why there are none."""
        match await self.wait(request):
            case Applied(results):
                return list(results)
            case NotApplied(error) | Unknown(error):
                raise error

    async def wait(self, request: PendingRequest) -> Outcome:
        """Wait for the end of *request*; a cancelled wait withdraws it if it was not sent."""
        waiter = request.waiter() if request.outcome is None else None
        with self._background.keep_alive_for_caller():
            try:
                if waiter is not None:
                    await waiter
            except BaseException:
                self.withdraw(request)
                raise
        assert request.outcome is not None  # noqa: S101 - for type checkers
        return request.outcome

    def withdraw(self, request: PendingRequest) -> None:
        """End *request*, now or when it turns out that it was not received."""
        request.is_abandoned = True
        if request.outcome is None and not request.is_sent:
            withdrawn = WithdrawnError("withdrawn before it was sent")
            error = _closed_error() if self._withdraws_all else withdrawn
            self._end(request, request.abandoned(error))
            self._queue.note_withdrawn()
            if self._sender is not None:
                self._sender.stop_unneeded()

    def _enter(self, request: PendingRequest) -> PendingRequest:
        request.number, request.queued_at = next(self._arrivals), time.monotonic()
        request.owner = self
        self._pending.add(request)
        if self._order.add(request):
            self._queue.add(request)
            if not self._batching:
                self._start_worker_for(request)
        return request

    def _start_worker_for(self, request: PendingRequest) -> None:
        """Start a worker for *request*, which was just queued and none is about to take."""
        self._start_worker(may_send_commits=request.unordered or self._may_send_commits())

    def _end(self, request: PendingRequest, outcome: Outcome) -> None:
        """End *request*, and release what waited for it; when closing, end that too."""
        if request.outcome is not None:
            return  # it was withdrawn meanwhile, and what waited for it has been released
        self._pending.discard(request)
        request.is_queued = False
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
                            continue
                        self._queue.add(dependent)
                        if not self._batching:
                            self._start_worker_for(dependent)

    def _is_outdated(self, request: PendingRequest) -> bool:
        """Return whether *request*, which was held back, was made from what is there no more.

        An earlier request has changed the same entity. A caller whose patience has grown has read
        the entity several times in vain, because the program changes it all the time.
        """
        patience = request.patience
        return patience is not None and patience <= _MOST_PATIENCE * self._timings.data_patience

    def _end_unsent(self, freed: Sequence[PendingRequest]) -> None:
        """End requests that need not wait any more, and those behind them, without sending them."""
        ending = [*freed]
        while ending:
            request = ending.pop()
            self._pending.discard(request)
            request.is_queued = False
            request.end(request.abandoned(_closed_error()))
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
        return not self._pending and self._order.is_empty and self._queue.is_empty

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
                self._end(request, request.abandoned(_closed_error()))

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
        while group := self._take():
            for request in group:
                self._end(request, request.abandoned(_closed_error()))

    # Sending

    def _may_send_commits(self) -> bool:
        """Return whether commits may be sent now, or wait for the end of those in progress."""
        if not self._commits_in_progress or not self._group_commit:
            return True
        oldest = next(iter(self._commits_in_progress.values()))
        return time.monotonic() - oldest >= self._timings.max_hold

    def _start_worker(self, *, may_send_commits: bool = True) -> None:
        """Start a worker if there is something to send, and none that will send it.

        Args:
            may_send_commits: Whether commits may be sent now.
        """
        try:
            queue = self._queue
            if queue.commits and not may_send_commits:
                self._watch()
            has_work = (may_send_commits and queue.commits) or queue.calls or queue.groups
            if has_work and not self._batching and self._workers < self._max_requests:
                work = partial(self._work, may_send_commits=may_send_commits)
                # Only commits share requests, so that a call need not wait for others.
                turns = self._timings.batching_turns if may_send_commits and queue.commits else 0
                self._background.spawn(work, turns=turns)
                self._workers += 1
                self._batching += 1
        except SessionStateError:  # the background tasks have ended: nothing can be sent any more
            self.abandon()

    def _watch(self) -> None:
        """Have commits sent after a while even if those in progress take long."""
        if not self._is_watching:
            self._background.spawn(self._send_held_commits)
            self._is_watching = True

    async def _send_held_commits(self) -> None:
        try:
            while self._queue.commits:
                await anyio.sleep(self._timings.max_hold)
                if self._may_send_commits():
                    self._start_worker()
        finally:
            self._is_watching = False

    async def _work(self, *, may_send_commits: bool) -> None:
        """Take groups and send them, until there is nothing to send."""
        is_batching = True
        try:
            while True:
                group = self._take(may_send_commits=may_send_commits)
                self._batching -= 1
                is_batching = False
                if not group:
                    return
                # What does not fit into this request travels beside it, in another worker's.
                self._start_worker(may_send_commits=may_send_commits)
                await self._send(group)
                self._batching += 1
                is_batching = True
                # After a commit, the commits that it has held back may be sent.
                may_send_commits = bool(group[0].operations) or self._may_send_commits()
                await self._background.wait_turns(self._timings.batching_turns)
        finally:
            self._batching -= is_batching
            self._workers -= 1
            # If the event loop shuts down and has cancelled this worker, the background tasks go
            # on while a caller waits, and another worker sends what is left.
            self._start_worker(may_send_commits=self._may_send_commits())

    def _take(self, *, may_send_commits: bool = True) -> Sequence[PendingRequest]:
        group = self._queue.take(may_send_commits=may_send_commits)
        for request in group:
            request.is_queued = False
        return group

    async def _send(self, group: Sequence[PendingRequest]) -> None:
        assert self._sender is not None  # noqa: S101 - nothing is queued before it is opened
        in_progress = object()
        if group[0].operations:
            self._commits_in_progress[in_progress] = time.monotonic()
        try:
            self._queue.groups.extend(await self._sender.send(group))
            if self._closed:
                self.abandon()  # there may be no worker left to send them
        except BaseException:
            # The task is cancelled, or there is a defect in this package. Callers may be waiting.
            interrupted = Unknown(TransportError("interrupted while waiting for the response"))
            for request in group:
                if request.outcome is None:
                    abandoned = request.abandoned(_closed_error())
                    self._end(request, interrupted if request.is_sent else abandoned)
            raise
        finally:
            self._commits_in_progress.pop(in_progress, None)


def _closed_error() -> SessionStateError:
    return SessionStateError("the session was closed before the request was sent")
