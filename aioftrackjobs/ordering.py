"""Which request has to wait for which: those about one entity never overtake each other."""

from __future__ import annotations

from collections.abc import Sequence

from aioftrackjobs.protocol.operations import Operation
from aioftrackjobs.protocol.reconciliation import named
from aioftrackjobs.tickets import Key, Ticket


class EntityOrder:
    """The tickets that have not ended, as chains: one for each entity that they change.

    A ticket waits for the one before it about the same entity, for the creation of the entities
    that it refers to, and, before it deletes one, for those that link others to it.
    """

    def __init__(self) -> None:
        self._latest: dict[Key, Ticket] = {}
        self._births: dict[str, Ticket] = {}
        self._links: dict[str, dict[Ticket, None]] = {}

    def enter(self, ticket: Ticket) -> bool:
        """Put *ticket* behind those it has to wait for; return whether there is none."""
        if not ticket.about:
            return True
        latest, births = self._latest, self._births
        before = self._parents(ticket.changes) if births else set[Ticket]()
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

    def _parents(self, changes: Sequence[Operation]) -> set[Ticket]:
        """Return the tickets that create what *changes* name."""
        births = self._births
        return {births[each] for change in changes for each in named(change) if each in births}

    def leave(self, ticket: Ticket) -> Sequence[Ticket]:
        """Take out *ticket*, which has ended; return those that need not wait any more.

        One that is withdrawn while it waits keeps its place until it is its turn: those behind
        it wait for the ones before it.
        """
        if ticket.waits_for:
            return ()
        self._forget(ticket)
        if ticket.followers is None:  # as with most
            return ()
        freed, leaving = list[Ticket](), [ticket]
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

    def _forget(self, ticket: Ticket) -> None:
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
