"""What can be sent, and what of it travels together in the next request (design.md, idea 3)."""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Sequence
from operator import attrgetter

from aioftrackjobs.tickets import Ticket

#: What commits that travel together may be; one that is more by itself travels alone.
GROUP_OPERATIONS, GROUP_BYTES = 500, 4 * 1024 * 1024

_by_arrival = attrgetter("number")


class Outbox:
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
        self.commits: list[Ticket] = []
        self.calls: list[Ticket] = []
        self.groups: deque[Sequence[Ticket]] = deque()
        self._withdrawn = 0  # of commits and calls, at most

    def add(self, ticket: Ticket) -> None:
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

    def take(self, *, departs: bool = True) -> Sequence[Ticket]:
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

    def _take_commits(self) -> list[Ticket]:
        """Take as many as one request may carry, but one at least; the first is to be sent."""
        operations = size = 0
        for place, ticket in enumerate(self.commits):
            operations, size = operations + ticket.count_left, size + len(ticket.body)
            if (operations > self._group_operations or size > GROUP_BYTES) and place:
                break
        else:
            place += 1
        group = [ticket for ticket in self.commits[:place] if ticket.outcome is None]
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


def _drop_ended(queue: list[Ticket]) -> None:
    """Take what has ended from the front of *queue*."""
    if queue and queue[0].outcome is not None:
        del queue[: next((i for i, each in enumerate(queue) if each.outcome is None), len(queue))]
