"""Which request has to wait for which: those about one entity never overtake each other."""

from __future__ import annotations

from collections.abc import Iterator

from aioftrackjobs.protocol.reconciliation import named
from aioftrackjobs.tickets import Key, Ticket


class EntityOrder:
    """The tickets that have not ended, as chains: one for each entity that they change.

    A ticket waits for the one before it about the same entity, and for the creation of the
    entities that it refers to.
    """

    def __init__(self) -> None:
        self._latest: dict[Key, Ticket] = {}
        self._births: dict[str, Ticket] = {}

    def enter(self, ticket: Ticket) -> bool:
        """Put *ticket* behind those it has to wait for; return whether there is none."""
        if not ticket.about:
            return True
        latest, births = self._latest, self._births
        before: set[Ticket] = set()
        if births:
            ids = (each for change in ticket.changes for each in named(change))
            before.update(births[each] for each in ids if each in births)
        for key in ticket.about:
            if key in latest:
                before.add(latest[key])
            latest[key] = ticket
        before.discard(ticket)
        for each in ticket.births:
            births[each] = ticket
        for earlier in before:
            if earlier.followers is None:
                earlier.followers = []
            earlier.followers.append(ticket)
        ticket.waits_for = len(before)
        return not before

    def leave(self, ticket: Ticket) -> Iterator[Ticket]:
        """Take out *ticket*, which has ended; return those that need not wait any more.

        One that is withdrawn while it waits keeps its place until it is its turn: those behind
        it wait for the ones before it.
        """
        leaving = [ticket]
        while leaving:
            ended = leaving.pop()
            if ended.waits_for:
                continue
            self._forget(ended)
            for follower in ended.followers or ():
                follower.waits_for -= 1
                if follower.waits_for:
                    continue
                if follower.outcome is None:
                    yield follower
                else:
                    leaving.append(follower)

    def _forget(self, ticket: Ticket) -> None:
        for key in ticket.about:
            if self._latest.get(key) is ticket:
                del self._latest[key]
        for value in ticket.births:
            if self._births.get(value) is ticket:
                del self._births[value]
