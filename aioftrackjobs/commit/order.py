"""The order of requests about the same entities: which may be sent, and which must wait.

Every request first enters the :class:`EntityOrder`, which holds it back while an earlier one about
the same entity has not ended. It is a data structure without I/O.
"""

from __future__ import annotations

from collections.abc import Sequence

from aioftrackjobs.commit.request import Key, PendingRequest
from aioftrackjobs.protocol.operations import Operation
from aioftrackjobs.protocol.references import referenced_ids


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
        latest = self._latest
        # Not set[PendingRequest](), which takes eight times as long: this runs for each commit.
        before: set[PendingRequest] = self._parents(request.operations) if self._creating else set()
        for key in request.writes:
            earlier = latest.get(key)
            if earlier is not None:
                before.add(earlier)
            latest[key] = request
        if request.creates or request.deletes or request.references:
            self._link(request, before)
        if not before:
            return True
        before.discard(request)
        for earlier in before:
            if earlier.dependents is None:
                earlier.dependents = []
            earlier.dependents.append(request)
        request.waits_for = len(before)
        return not before

    def _link(self, request: PendingRequest, before: set[PendingRequest]) -> None:
        """Note what *request* creates and links, and add to *before* what it must not overtake."""
        for each in request.creates:
            self._creating[each] = request
        for each in request.deletes:
            before.update(self._linking.get(each, ()))
        for each in request.references:
            self._linking.setdefault(each, {})[request] = None

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
        latest = self._latest
        for key in request.writes:
            if latest.get(key) is request:
                del latest[key]
        if request.creates or request.references:
            self._unlink(request)

    def _unlink(self, request: PendingRequest) -> None:
        for value in request.creates:
            if self._creating.get(value) is request:
                del self._creating[value]
        for value in request.references:
            linking = self._linking.get(value)
            if linking is not None:
                linking.pop(request, None)
                if not linking:
                    del self._linking[value]
