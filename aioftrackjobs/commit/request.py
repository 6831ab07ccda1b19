"""A request's worth of work, from its queueing to its end, and the ends that it can have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, TypeAlias

from aioftrackjobs.background import Waiter
from aioftrackjobs.errors import FtrackJobsError, TransportError, UnserialisableValueError
from aioftrackjobs.protocol.operations import Create, Delete, Operation, Update, encode_operation
from aioftrackjobs.protocol.reconciliation import Row, born, done_among, is_chosen, linked
from aioftrackjobs.protocol.values import JSONValue, Reference
from aioftrackjobs.protocol.wire import encode_batch

#: An entity as tickets know it: its id, or the values of a key of several. Its type would tell a
#: Context from the Task that it is.
Key: TypeAlias = str | tuple[str, ...]

_WRITES = ("create", "update", "delete")
_READS = (
    "query",
    "query_schemas",
    "query_server_information",
    "search",
    "get_widget_url",
    "get_upload_metadata",  # signs an address, and leaves nothing on the server
)


class WithdrawnError(FtrackJobsError):
    """The caller went away before the request was sent."""


@dataclass(slots=True)  # not frozen, which takes twice as long: there is one for each commit
class Applied:
    """The server did all of it; one result for each operation, None where its answer was lost."""

    results: Sequence[Any]


@dataclass(frozen=True, slots=True)
class NotApplied:
    """The server refused it, or never saw it.

    Attributes:
        error: Why.
        done: What a server that does not take back refused batches has done all the same.
    """

    error: FtrackJobsError
    done: Sequence[Operation] = ()


@dataclass(frozen=True, slots=True)
class Unknown:
    """It was sent, and no complete answer tells what the server did."""

    error: TransportError


Outcome: TypeAlias = Applied | NotApplied | Unknown
Settle: TypeAlias = Callable[[Outcome], None]


class PendingRequest:
    """A commit, or a call of another kind.

    A farm makes one for each change of each Job: what most of them never need stands in the
    class, and is encoded again in the rare case that something goes wrong.

    Attributes:
        count: Number of them.
        count_left: Number of those that are not known to be done.
        changes: The operations of a commit; none of another call.
        call: The operations of another call, as they travel.
        settle: Hears of the outcome, once, whether or not anybody still waits.
        about: The entities that it changes.
        births: Ids of those that it creates.
        deaths: Ids of those that it deletes.
        links: Ids of others that it links its own to.
        number: Its place in the order of arrival.
        since: When it arrived, as ``time.monotonic`` counts.
        waits_for: Number of earlier tickets that must end before it may be sent.
        followers: Later tickets that wait for it.
        is_queued: Whether it waits for a request to travel in.
        is_sent: Whether it may have left, so that it cannot be withdrawn.
        overtakes: Whether it waits for no others, nor lets them wait.
        is_repeatable: Whether it may be sent again when it is not known what became of it.
        doubt: Why it is not known, if that is so.
        has_chosen_keys: Whether it creates entities under keys that others may have used, so
            that it travels alone.
        free: Those of these entities that did not exist before it was sent; None if that is not
            known.
        trouble: Why the latest attempt to send it failed.
        outcome: Its end; None before.
        new_waiter: Makes what is waited for.
    """

    changes: Sequence[Operation] = ()
    call: Sequence[Mapping[str, JSONValue]] = ()
    settle: Settle | None = None
    about: Sequence[Key] = ()
    births: Sequence[str] = ()
    deaths: Sequence[str] = ()
    links: Sequence[str] = ()
    number: int = 0
    since: float = 0.0
    waits_for: int = 0
    followers: list[PendingRequest] | None = None
    is_queued: bool = True
    is_sent: bool = False
    overtakes: bool = False
    is_repeatable: bool = True
    doubt: TransportError | None = None
    has_chosen_keys: bool = False
    free: Set[Reference] | None = None
    trouble: FtrackJobsError | None = None
    outcome: Outcome | None = None
    new_waiter: Callable[[], Waiter]
    _body: bytes | None = None
    _results: dict[int, Any] | None = None
    _latch: Waiter | None = None
    _latches: Sequence[Waiter] = ()  # of those who wait besides the first

    def __init__(self, count: int) -> None:
        self.count = self.count_left = count

    @classmethod
    def of_commit(
        cls,
        changes: Sequence[Operation],
        settle: Settle,
        *,
        overtakes: bool = False,
        doubt: TransportError | None = None,
    ) -> PendingRequest:
        """Return the ticket of a commit.

        Args:
            changes: At least one.
            settle: Called with the outcome.
            overtakes: Neither wait for others about the same entities, nor let them wait.
            doubt: Why it is not known what became of an earlier attempt.
        """
        ticket = cls(len(changes))
        ticket.changes, ticket.settle = changes, settle
        for change in changes:  # not any(): this runs for each operation of a farm
            if type(change) is Create and not change.fresh and is_chosen(change):
                ticket.has_chosen_keys = True
        if overtakes:
            ticket.overtakes = True
        else:
            ticket.about = tuple([key_of(change.target) for change in changes])
            if len(changes) > 1 or not isinstance(changes[0], Update):
                ticket.births = [each for change in changes for each in born(change)]
                ticket.deaths = [
                    change.target.key[0][1]
                    for change in changes
                    if isinstance(change, Delete) and len(change.target.key) == 1
                ]
            if links := linked(changes):
                ticket.links = links
        if doubt is not None:
            ticket.doubt, ticket.is_sent = doubt, True
        return ticket

    @classmethod
    def of_call(cls, wire: Sequence[Mapping[str, JSONValue]]) -> PendingRequest:
        """Return the ticket of operations that travel by themselves."""
        ticket = cls(len(wire))
        ticket.call = wire
        keys = [each.get("entity_key") for each in wire if each.get("action") in _WRITES]
        parts = [tuple(str(value) for value in key) for key in keys if isinstance(key, list)]
        ticket.about = [key[0] if len(key) == 1 else key for key in parts]
        ticket.is_repeatable = all(each.get("action") in _READS for each in wire)
        return ticket

    def encode(self) -> bytes:
        """Return what is left of its operations as a JSON list.

        That is made when the request is sent rather than when it is queued: thousands may wait,
        and the bytes would take as much memory again as what they are made from.

        Raises:
            UnserialisableValueError: One of the values cannot travel.
        """
        if self._body is None:
            wire = self.call or [encode_operation(change) for change in self.changes_left]
            try:
                self._body = encode_batch(wire)
            except Exception as exc:  # noqa: BLE001 - whatever pydantic_core raises
                raise UnserialisableValueError("the operations", type(exc).__name__) from None
        return self._body

    # What is left of it: less than all only after a refusal

    @property
    def changes_left(self) -> Sequence[Operation]:
        """The operations of a commit that are not known to be done."""
        return [self.changes[index] for index in self._left()] if self._results else self.changes

    @property
    def done(self) -> Sequence[Operation]:
        """The other operations of a commit."""
        return [self.changes[index] for index in sorted(self._results or ())]

    def _left(self) -> list[int]:
        done = self._results or ()
        return [index for index in range(self.count) if index not in done]

    @property
    def chosen(self) -> Set[Reference]:
        """The entities that it creates under keys that others may have used."""
        if not self.has_chosen_keys:
            return frozenset()
        return {change.target for change in self.changes if is_chosen(change)}

    @property
    def may_have_created(self) -> Set[Reference]:
        """Those of :attr:`chosen` that it has created if they exist with its values."""
        if self.free is None and self.doubt is None:
            return frozenset()
        created = {change.target for change in self.done if isinstance(change, Create)}
        return (self.chosen if self.free is None else self.free) - created

    def narrow(self, found: Mapping[Reference, Row]) -> bool:
        """Take for done what is, as far as the entities *found* can tell; True if anything."""
        left = self._left()
        done = done_among(self.changes_left, found, self.may_have_created)
        return self._note_done([left[place] for place in done])

    def note_done(self, operations: Sequence[Operation]) -> None:
        """Take for done those of its changes that are among *operations*."""
        known = {id(operation) for operation in operations}
        self._note_done([index for index in self._left() if id(self.changes[index]) in known])

    def _note_done(self, indices: Sequence[int]) -> bool:
        if indices:
            self._results = (self._results or {}) | dict.fromkeys(indices)
            self.count_left = self.count - len(self._results)
            self._body = None
        return bool(indices)

    def apply(self, results: Sequence[Any]) -> Applied:
        """Return the outcome, when what was left has had these *results*."""
        if not self._results:
            return Applied(results)
        all_results = self._results | dict(zip(self._left(), results, strict=True))
        return Applied([all_results[index] for index in range(self.count)])

    def given_up(self, error: FtrackJobsError) -> Outcome:
        """Return the outcome, when it was not sent because of *error*, or not again."""
        if self.doubt is not None:
            return Unknown(self.doubt)
        return NotApplied(error, self.done)

    def finish(self, outcome: Outcome) -> None:
        """Let the end be known: first to who keeps the books, then to who waits."""
        self.outcome = outcome
        # Whoever holds the ticket now holds neither what it carried nor who sent it.
        settle, self.settle, self._body = self.settle, None, None
        try:
            if settle is not None:
                settle(outcome)
        finally:
            if self._latch is not None:
                for latch in (self._latch, *self._latches):
                    if not latch.done():  # its waiter may have been cancelled
                        latch.set_result(None)

    async def ended(self) -> None:
        """Wait for the end."""
        if self.outcome is None:
            await self.latch()

    def latch(self) -> Waiter:
        """Return what opens at the end, for one who waits: a wait that is cancelled breaks it."""
        latch = self.new_waiter()
        if self._latch is None or self._latch.done():
            self._latch = latch
        else:  # those whose waiters were cancelled make room
            self._latches = (*(each for each in self._latches if not each.done()), latch)
        return latch


def key_of(reference: Reference) -> Key:
    """Return what tickets know the entity by."""
    key = reference.key
    return key[0][1] if len(key) == 1 else tuple([value for _, value in key])
