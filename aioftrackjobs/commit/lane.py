"""Lane: a queue of requests, and the workers that send them.

*Group commit* (a term of databases): a render farm commits many small changes at once, and a
request costs the server far more than the operations in it. So commits share requests. A session
without a request in progress sends a commit at once, and a lone commit never waits. Commits that
arrive while a request is in progress are held back, and travel together in the next one, which is
sent when that request ends. The slower the server is, the larger the groups are. A request that
takes longer than ``Timings.max_hold`` holds back no more, so that one slow request does not stop
all others.

Workers take requests from the queue, a limited number of them at the same time. Before a worker
takes a group it waits for a few turns of the event loop: the tasks that the latest response has
woken commit again within them, so that their commits are in the group.
"""

from __future__ import annotations

import time
from bisect import insort
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from operator import attrgetter

import anyio
import anyio.lowlevel

from aioftrackjobs.background import BackgroundTasks
from aioftrackjobs.commit.request import PendingRequest, Unknown
from aioftrackjobs.commit.sender import BatchSender, End
from aioftrackjobs.config.timings import Timings
from aioftrackjobs.errors import SessionStateError, TransportError, UnserialisableValueError

#: Limits of a group of commits that share a request. A commit above one of them travels alone.
GROUP_OPERATIONS, GROUP_BYTES = 500, 4 * 1024 * 1024

_by_arrival = attrgetter("number")


class SendQueue:
    """Requests that may be sent, in the order of arrival.

    Args:
        group_commit: Whether commits may share a request.

    Attributes:
        commits: Commits, which share requests.
        calls: Calls of other kinds, each of which travels by itself.
        groups: Groups of commits to be sent again, each in one request: halves of a group that was
            refused.
    """

    def __init__(self, *, group_commit: bool) -> None:
        self._group_operations = GROUP_OPERATIONS if group_commit else 1
        self.commits: list[PendingRequest] = []
        self.calls: list[PendingRequest] = []
        self.groups: deque[Sequence[PendingRequest]] = deque()
        self._withdrawn = 0  # in commits and calls, at most

    @property
    def is_empty(self) -> bool:
        """Whether it contains no requests, also none that were withdrawn."""
        return not (self.commits or self.calls or self.groups)

    def add(self, request: PendingRequest) -> None:
        """Put *request* in its place."""
        queue = self.commits if request.operations else self.calls
        if not queue or queue[-1].number < request.number:
            queue.append(request)
        else:  # it was held back, and others that arrived later were not
            insort(queue, request, key=_by_arrival)

    def take(self, *, may_send_commits: bool = True) -> Sequence[PendingRequest]:
        """Take what the next request carries; nothing if there is nothing to send.

        Args:
            may_send_commits: Whether that may be commits, besides groups that are sent again.
        """
        if self.groups:
            return self.groups.popleft()
        for queue in (self.commits, self.calls):
            _drop_ended(queue)
        commits, calls = self.commits if may_send_commits else [], self.calls
        if calls and not (commits and commits[0].number < calls[0].number):
            return [calls.pop(0)]
        return self._take_commits() if commits else []

    def _take_commits(self) -> list[PendingRequest]:
        """Take as many commits as one request may carry, but at least one."""
        group: list[PendingRequest] = []
        operations = place = 0
        size = 0.0
        for place, request in enumerate(self.commits):  # noqa: B007 - used below
            if request.outcome is not None:
                continue  # withdrawn
            operations += request.count_left
            size += _size(request)
            if group and (operations > self._group_operations or size > GROUP_BYTES):
                break
            group.append(request)
        else:
            place += 1
        del self.commits[:place]
        return group

    def note_withdrawn(self) -> None:
        """Drop withdrawn requests when they may be most of what waits here.

        While the server hangs, callers may give up and try again for as long as it does.
        """
        self._withdrawn += 1
        if 2 * self._withdrawn > len(self.commits) + len(self.calls):
            self._withdrawn = 0
            for queue in (self.commits, self.calls):
                queue[:] = [request for request in queue if request.outcome is None]


def _size(request: PendingRequest) -> float:
    """Return the bytes of *request*; infinite if it has to travel alone.

    A commit that cannot be encoded travels alone so that its error does not end other commits. A
    commit with a key that a user chose travels alone because a refused group is reconciled by
    asking which entities exist, and under such a key there may be the entity of another client. One
    with a delete does because a refusal must be its own: a query may hide what it did not delete.
    """
    if request.travels_alone:
        return inf
    try:
        return len(request.encode())
    except UnserialisableValueError:
        return inf


def _drop_ended(queue: list[PendingRequest]) -> None:
    """Remove requests that have ended from the front of *queue*."""
    if queue and queue[0].outcome is not None:
        del queue[: next((i for i, each in enumerate(queue) if each.outcome is None), len(queue))]


class Lane:
    """Sends the requests of one queue.

    Args:
        background: Runs the workers.
        end: Ends a request with an outcome.
        abandon: Called when nothing can be sent any more.
        max_requests: Requests in progress at once.
        group_commit: Whether commits may share a request.
        timings: Times that tests shorten.

    Attributes:
        sender: Sends groups of requests; None before the lane is opened.
        queue: What waits to be sent.
        is_closed: Whether nothing is sent again.
    """

    def __init__(
        self,
        background: BackgroundTasks,
        end: End,
        abandon: Callable[[], object],
        *,
        max_requests: int,
        group_commit: bool,
        timings: Timings,
    ) -> None:
        self.sender: BatchSender | None = None
        self.queue: SendQueue = SendQueue(group_commit=group_commit)
        self.is_closed = False
        self._background = background
        self._end_request, self._abandon = end, abandon
        self._max_requests = max_requests
        self._group_commit = group_commit
        self._timings = timings
        self._workers = 0
        self._batching = 0  # workers that wait for more commits before they take a group
        self._commits_in_progress: dict[object, float] = {}  # when each began, the oldest first
        self._is_watching = False

    def add(self, request: PendingRequest) -> None:
        """Have *request* sent, perhaps with others."""
        self.queue.add(request)
        if not self._batching:
            self._start_worker(may_send_commits=request.unordered or self._may_send_commits())

    @property
    def is_free(self) -> bool:
        """Whether a request that is added now is sent soon, however long those in progress take."""
        queue = self.queue
        ahead = self._workers + len(queue.calls) + len(queue.groups)
        return ahead < self._max_requests and len(queue.commits) < GROUP_OPERATIONS

    def end_queued(self) -> None:
        """End all that no worker has taken."""
        while group := self.take():
            for request in group:
                self._end_request(request, request.abandoned(closed_error()))

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
            queue = self.queue
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
            self._abandon()

    def _watch(self) -> None:
        """Have commits sent after a while even if those in progress take long."""
        if not self._is_watching:
            self._background.spawn(self._send_held_commits)
            self._is_watching = True

    async def _send_held_commits(self) -> None:
        try:
            while self.queue.commits:
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
                group = self.take(may_send_commits=may_send_commits)
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

    def take(self, *, may_send_commits: bool = True) -> Sequence[PendingRequest]:
        """Take what the next request carries; nothing if there is nothing to send."""
        group = self.queue.take(may_send_commits=may_send_commits)
        for request in group:
            request.is_queued = False
        return group

    async def _send(self, group: Sequence[PendingRequest]) -> None:
        assert self.sender is not None  # noqa: S101 - nothing is queued before it is opened
        in_progress = object()
        if group[0].operations:
            self._commits_in_progress[in_progress] = time.monotonic()
        try:
            self.queue.groups.extend(await self.sender.send(group))
            if self.is_closed:
                self._abandon()  # there may be no worker left to send them
        except BaseException:
            # The task is cancelled, or there is a defect in this package. Callers may be waiting.
            interrupted = Unknown(TransportError("interrupted while waiting for the response"))
            for request in group:
                if request.outcome is None:
                    abandoned = request.abandoned(closed_error())
                    self._end_request(request, interrupted if request.is_sent else abandoned)
            raise
        finally:
            self._commits_in_progress.pop(in_progress, None)


def closed_error() -> SessionStateError:
    """Return the error of a request that is not sent any more."""
    return SessionStateError("the session was closed before the request was sent")
