"""The order of requests: which may be sent, and which travel together in the next request.

Every request first enters the :class:`EntityOrder`, which holds it back while an earlier one about
the same entity has not ended. What may be sent waits in the :class:`SendQueue` for a worker of the
dispatcher. Both are data structures without I/O.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Sequence
from math import inf
from operator import attrgetter

from aioftrackjobs.commit.request import Key, PendingRequest
from aioftrackjobs.errors import UnserialisableValueError
from aioftrackjobs.protocol.operations import Operation
from aioftrackjobs.protocol.references import referenced_ids

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


class EntityOrder:
    """Keeps requests about the same entity in their order.

    The requests that have not ended form chains, one for each entity that they change. A request
    waits for the one before it in each of its chains, for the creation of the entities that it
    refers to, and, before it deletes an entity, for the requests that link others to it.
    """

    def __init__(self) -> None:
        self._latest: dict[Key, PendingRequest] = {}
        self._creating: dict[str, PendingRequest] = {}
        self._linking: dict[str, dict[PendingRequest, None]] = {}

    @property
    def is_empty(self) -> bool:
        """Whether all requests have ended."""
        return not (self._latest or self._creating or self._linking)

    def add(self, request: PendingRequest) -> bool:
        """Put *request* behind those that it has to wait for; return whether there are none."""
        if not request.writes:
            return True
        latest, creating = self._latest, self._creating
        # Not set[PendingRequest](), which takes eight times as long: this runs for each commit.
        before: set[PendingRequest] = self._parents(request.operations) if creating else set()
        for key in request.writes:
            earlier = latest.get(key)
            if earlier is not None:
                before.add(earlier)
            latest[key] = request
        for each in request.creates:
            creating[each] = request
        for each in request.deletes:
            before.update(self._linking.get(each, ()))
        for each in request.references:
            self._linking.setdefault(each, {})[request] = None
        if not before:
            return True
        before.discard(request)
        for earlier in before:
            if earlier.dependents is None:
                earlier.dependents = []
            earlier.dependents.append(request)
        request.waits_for = len(before)
        return not before

    def _parents(self, operations: Sequence[Operation]) -> set[PendingRequest]:
        """Return the requests that create what *operations* refer to."""
        creating = self._creating
        return {
            creating[each]
            for operation in operations
            for each in referenced_ids(operation)
            if each in creating
        }

    def remove(self, request: PendingRequest) -> Sequence[PendingRequest]:
        """Remove *request*, which has ended; return those that need not wait any more.

        A request that is withdrawn while it waits keeps its place until those before it have
        ended, since those behind it wait for them, too.
        """
        if request.waits_for:
            return ()
        self._forget(request)
        if request.dependents is None:  # as with most
            return ()
        freed, removing = list[PendingRequest](), [request]
        while removing:
            ended = removing.pop()
            # A caller that keeps an old request must not keep all later ones in memory with it.
            dependents, ended.dependents = ended.dependents, None
            for dependent in dependents or ():
                dependent.waits_for -= 1
                if dependent.waits_for:
                    continue
                if dependent.outcome is None:
                    freed.append(dependent)
                else:
                    self._forget(dependent)
                    removing.append(dependent)
        return freed

    def _forget(self, request: PendingRequest) -> None:
        for key in request.writes:
            if self._latest.get(key) is request:
                del self._latest[key]
        for value in request.creates:
            if self._creating.get(value) is request:
                del self._creating[value]
        for value in request.references:
            linking = self._linking.get(value)
            if linking is not None:
                linking.pop(request, None)
                if not linking:
                    del self._linking[value]
