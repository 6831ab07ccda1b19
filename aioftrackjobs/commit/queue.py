"""What can be sent, and what of it travels together in the next request (design.md, idea 3)."""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Sequence
from math import inf
from operator import attrgetter

from aioftrackjobs.commit.request import Key, PendingRequest
from aioftrackjobs.errors import UnserialisableValueError
from aioftrackjobs.protocol.operations import Operation
from aioftrackjobs.protocol.reconciliation import named

#: What commits that travel together may be; one that is more by itself travels alone.
GROUP_OPERATIONS, GROUP_BYTES = 500, 4 * 1024 * 1024

_by_arrival = attrgetter("number")


class SendQueue:
    """Tickets that wait for nothing but a request to travel in, in the order of arrival.

    Args:
        group_commit: Whether commits may share a request.

    Attributes:
        commits: Those that may leave when others have.
        calls: What travels by itself.
        groups: Commits that left before, to be sent again, each group by itself: halves of one
            that was refused.
    """

    def __init__(self, *, group_commit: bool) -> None:
        self._group_operations = GROUP_OPERATIONS if group_commit else 1
        self.commits: list[PendingRequest] = []
        self.calls: list[PendingRequest] = []
        self.groups: deque[Sequence[PendingRequest]] = deque()
        self._withdrawn = 0  # of commits and calls, at most

    def add(self, ticket: PendingRequest) -> None:
        """Put *ticket* in its place."""
        queue = self.commits if ticket.changes else self.calls
        if not queue or queue[-1].number < ticket.number:
            queue.append(ticket)
        else:  # it had to wait for another one, and those behind it had not
            insort(queue, ticket, key=_by_arrival)

    def has_some(self, *, departs: bool) -> bool:
        """Tell whether there is something to be sent.

        Args:
            departs: Whether commits may be, beside those of groups that left before.
        """
        return bool((departs and self.commits) or self.calls or self.groups)

    def take(self, *, departs: bool = True) -> Sequence[PendingRequest]:
        """Take what the next request carries; nothing if there is nothing to be sent.

        Args:
            departs: As in :meth:`has_some`.
        """
        if self.groups:
            return self.groups.popleft()
        for queue in (self.commits, self.calls):
            _drop_ended(queue)
        commits, calls = self.commits if departs else [], self.calls
        if calls and not (commits and commits[0].number < calls[0].number):
            return [calls.pop(0)]
        return self._take_commits() if commits else []

    def _take_commits(self) -> list[PendingRequest]:
        """Take as many commits as one request may carry, but at least one."""
        group: list[PendingRequest] = []
        operations = place = 0
        size = 0.0
        for place, ticket in enumerate(self.commits):  # noqa: B007 - used below
            if ticket.outcome is not None:
                continue  # withdrawn
            operations += ticket.count_left
            size += _size(ticket)
            if group and (operations > self._group_operations or size > GROUP_BYTES):
                break
            group.append(ticket)
        else:
            place += 1
        del self.commits[:place]
        return group

    def note_withdrawn(self) -> None:
        """Drop withdrawn tickets when they may be most of what waits here.

        While the server hangs, callers may give up and try again for as long as it does.
        """
        self._withdrawn += 1
        if 2 * self._withdrawn > len(self.commits) + len(self.calls):
            self._withdrawn = 0
            for queue in (self.commits, self.calls):
                queue[:] = [ticket for ticket in queue if ticket.outcome is None]


def _size(ticket: PendingRequest) -> float:
    """Return the bytes of *ticket*; without limit if it has to travel alone.

    What cannot be encoded must not end the commits of others with its error. And where a key was
    chosen by a user, a refusal must be about this commit alone: that its entity exists does not
    tell whose it is, so that nobody could tell which of several commits is to be repeated.
    """
    if ticket.has_chosen_keys:
        return inf
    try:
        return len(ticket.encode())
    except UnserialisableValueError:
        return inf


def _drop_ended(queue: list[PendingRequest]) -> None:
    """Take what has ended from the front of *queue*."""
    if queue and queue[0].outcome is not None:
        del queue[: next((i for i, each in enumerate(queue) if each.outcome is None), len(queue))]


class EntityOrder:
    """The tickets that have not ended, as chains: one for each entity that they change.

    A ticket waits for the one before it about the same entity, for the creation of the entities
    that it refers to, and, before it deletes one, for those that link others to it.
    """

    def __init__(self) -> None:
        self._latest: dict[Key, PendingRequest] = {}
        self._births: dict[str, PendingRequest] = {}
        self._links: dict[str, dict[PendingRequest, None]] = {}

    def enter(self, ticket: PendingRequest) -> bool:
        """Put *ticket* behind those it has to wait for; return whether there is none."""
        if not ticket.about:
            return True
        latest, births = self._latest, self._births
        before = self._parents(ticket.changes) if births else set[PendingRequest]()
        for key in ticket.about:
            earlier = latest.get(key)
            if earlier is not None:
                before.add(earlier)
            latest[key] = ticket
        for each in ticket.births:
            births[each] = ticket
        for each in ticket.deaths:
            before.update(self._links.get(each, ()))
        for each in ticket.links:
            self._links.setdefault(each, {})[ticket] = None
        if not before:
            return True
        before.discard(ticket)
        for earlier in before:
            if earlier.followers is None:
                earlier.followers = []
            earlier.followers.append(ticket)
        ticket.waits_for = len(before)
        return not before

    def _parents(self, changes: Sequence[Operation]) -> set[PendingRequest]:
        """Return the tickets that create what *changes* name."""
        births = self._births
        return {births[each] for change in changes for each in named(change) if each in births}

    def leave(self, ticket: PendingRequest) -> Sequence[PendingRequest]:
        """Take out *ticket*, which has ended; return those that need not wait any more.

        One that is withdrawn while it waits keeps its place until it is its turn: those behind
        it wait for the ones before it.
        """
        if ticket.waits_for:
            return ()
        self._forget(ticket)
        if ticket.followers is None:  # as with most
            return ()
        freed, leaving = list[PendingRequest](), [ticket]
        while leaving:
            ended = leaving.pop()
            # Who holds it still does not hold all that came after it.
            followers, ended.followers = ended.followers, None
            for follower in followers or ():
                follower.waits_for -= 1
                if follower.waits_for:
                    continue
                if follower.outcome is None:
                    freed.append(follower)
                else:
                    self._forget(follower)
                    leaving.append(follower)
        return freed

    def _forget(self, ticket: PendingRequest) -> None:
        for key in ticket.about:
            if self._latest.get(key) is ticket:
                del self._latest[key]
        for value in ticket.births:
            if self._births.get(value) is ticket:
                del self._births[value]
        for value in ticket.links:
            linking = self._links.get(value)
            if linking is not None:
                linking.pop(ticket, None)
                if not linking:
                    del self._links[value]
