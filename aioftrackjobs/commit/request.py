"""A request that waits for its end: a commit, or a call of another kind.

A commit has three ends. *Applied*: the server did all of it. *Not applied*: the server refused it,
or never received it. *Unknown*: it was sent, and neither a response nor a query shows what the
server did. Between its submission and its end a request is in one of these states::

    submit
      |
      v   the requests it waits for end      a worker takes it
    HELD ------------------------------> QUEUED -----------> TAKEN <--------------+
      |                                    |                  |  |                |
      +-----------------+------------------+------------------+  | is sent        |
                        |                                        v                |
                        | caller cancelled,                    SENT --------------+
                        | session closed,                      | | |  did not leave, or server busy:
                        | cannot be encoded                    | | |  again after a pause;
                        v                                      | | |  refused in a group: again in
    NOT APPLIED <-------+------ refused alone, no retries left + | |  a smaller group
                                                                 | |
                                                   response lost | +---- response ----> APPLIED
                                                                 v                         ^
    UNKNOWN <---- no retries left, must not be repeated ---- UNCERTAIN --------------------+
                                                              |    ^    the server has all of it
                          what the server lacks is sent again |    | response lost
                                                              +----+

The attributes that show the state:

- HELD: ``waits_for`` is above 0. Requests about one entity keep their order (:class:`EntityOrder`).
- QUEUED: ``is_queued``. It waits in the :class:`SendQueue` for a worker.
- TAKEN: neither ``is_queued`` nor ``is_sent``. A worker has it, and waits for others to share its
  request, asks a question first, connects, or pauses between two attempts.
- SENT: ``is_sent``. The server may have received it, so that it cannot be withdrawn any more. With
  a client of the caller's that does not report when a request leaves, this begins earlier.
- UNCERTAIN: ``uncertain_because`` is set; ``is_sent`` stays true. Before each further attempt the
  server is asked what it has done (:class:`Reconciler`).
- The ends: ``outcome`` is set. It is set once, and never changes.

A caller that is cancelled withdraws its request only before it is SENT, and the worker is free at
once (:class:`Withdrawal`). After that, the request goes on without the caller, and its ``settle``
callback updates the unit of work; if the attempt has not left, it is withdrawn then.

A request with ``send_within`` has one attempt, and ends as NOT APPLIED or UNKNOWN where others
would be sent again. Its values are made from what was read right before, as the ``data`` of a Job
are: sent later, they would overwrite what others have written meanwhile. Its caller reads again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol, TypeAlias, TypedDict, Unpack

from aioftrackjobs.background import Waiter
from aioftrackjobs.errors import (
    FtrackJobsError,
    PermissionDeniedError,
    ServerError,
    TransportError,
    UnserialisableValueError,
    ValidationError,
)
from aioftrackjobs.protocol.operations import Create, Delete, Operation, Update, encode_operation
from aioftrackjobs.protocol.reconciliation import Findings, done_among, has_chosen_key
from aioftrackjobs.protocol.references import created_ids, linked_ids
from aioftrackjobs.protocol.values import JSONValue, Reference
from aioftrackjobs.protocol.wire import encode_batch, is_foreign

#: An entity as requests know it: its id, or the values of a key of several parts. The type is left
#: out, since a reference may call a Task a Context.
Key: TypeAlias = str | tuple[str, ...]

_WRITES = ("create", "update", "delete")
_READS = (
    "query",
    "query_schemas",
    "query_server_information",
    "search",
    "get_widget_url",
    "get_upload_metadata",  # signs a URL, and leaves nothing on the server
)

#: Names and HTTP statuses of a refusal because there is no such entity. What a real server answers
#: is not known (docs/protocol.md, section 10.3).
_MISSING = ("EntityNotFoundError", "NotFoundError", "NoResultFound", 404, 410)


class WithdrawnError(FtrackJobsError):
    """The caller was cancelled before the request was sent, or that took too long."""


@dataclass(eq=False, slots=True)  # not frozen, which takes twice as long: one for each commit
class Applied:
    """The server did all of it; one result for each operation, None where its response was lost."""

    results: Sequence[Any]


@dataclass(eq=False, slots=True)
class NotApplied:
    """The server refused it, or never received it.

    Attributes:
        error: Why.
        done: Operations that the server has applied all the same, because it does not roll back
            a batch that it refuses.
    """

    error: FtrackJobsError
    done: Sequence[Operation] = ()


@dataclass(eq=False, slots=True)
class Unknown:
    """It was sent, and what the server did is not known."""

    error: TransportError


Outcome: TypeAlias = Applied | NotApplied | Unknown
Settle: TypeAlias = Callable[[Outcome], None]


class RequestOwner(Protocol):
    """What requests are submitted to.

    Attributes:
        new_waiter: Makes what a task waits for.
    """

    new_waiter: Callable[[], Waiter]

    def withdraw(self, request: PendingRequest, /) -> None:
        """End *request*, now or when it turns out that the server has not received it."""
        ...

    def survives(self, error: BaseException, /) -> bool:
        """Return whether *error* of the end of a request is logged, and everything else goes on."""
        ...


class Manner(TypedDict, total=False):
    """How a request is sent.

    Attributes:
        unordered: Whether it neither waits for other requests about the same entities, nor lets
            them wait.
        is_urgent: Whether no other request of the session may hold it up.
        needs_new_connection: Whether it is urgent, and not sent over a connection that was used
            before, as such a one may be dead.
        is_dispensable: Whether its end does not matter any more when its caller gives it up, so
            that its connection is closed then.
        send_within: Seconds within which it has to leave, in its only attempt, because its values
            were made from what the server had when it was queued; None if they stay true.
    """

    unordered: bool
    is_urgent: bool
    needs_new_connection: bool
    is_dispensable: bool
    send_within: float | None


class PendingRequest:
    """A commit, or a call of another kind; the states are described at the top of this module.

    A render farm makes many. So the defaults, which most of them keep, are attributes of the class.

    Attributes:
        operations: The operations of a commit; none for another call.
        operations_left: Those of them that the server is not known to have applied.
        call: The operations of another call, in their wire form.
        count: Number of operations.
        count_left: Number of those that the server is not known to have applied.
        settle: Called with the outcome, once, also if the caller has stopped waiting.
        writes: Keys of the entities that it changes.
        creates: Ids of those that it creates.
        deletes: Ids of those that it deletes.
        references: Ids of other entities that it links its own to.
        number: Its place in the order of arrival.
        queued_at: When it arrived, as ``time.monotonic`` counts.
        waits_for: Number of earlier requests that must end before it may be sent.
        dependents: Later requests that wait for it.
        is_queued: Whether no worker has taken it.
        is_sent: Whether the server may have received it.
        is_abandoned: Whether no caller waits for it any more. It is withdrawn if it turns out that
            the server has not received it.
        unordered: As in :class:`Manner`.
        is_urgent: As in :class:`Manner`.
        needs_new_connection: As in :class:`Manner`.
        is_dispensable: As in :class:`Manner`.
        send_within: As in :class:`Manner`.
        is_repeatable: Whether it may be sent again when its response was lost.
        uncertain_because: Why it is not known what the server did; None if it is known.
        has_chosen_keys: Whether it creates entities under keys that users chose.
        travels_alone: Whether it shares no request with others: a refusal must be its own, because
            the server cannot say which of these entities, or of those that it deletes, are its.
        free_keys: Those of these entities that did not exist before it was sent; None if that is
            not known.
        last_error: Why the latest attempt to send it failed.
        outcome: Its end; None before.
        encoded: What :meth:`encode` has returned; None before, and after its end.
        observed: What an observer sees of it; None without an observer.
        owner: What it was submitted to.
    """

    operations: Sequence[Operation] = ()
    operations_left: Sequence[Operation] = ()
    call: Sequence[Mapping[str, JSONValue]] = ()
    settle: Settle | None = None
    writes: Sequence[Key] = ()
    creates: Sequence[str] = ()
    deletes: Sequence[str] = ()
    references: Sequence[str] = ()
    number: int = 0
    queued_at: float = 0.0
    waits_for: int = 0
    dependents: list[PendingRequest] | None = None
    is_queued: bool = True
    is_sent: bool = False
    is_abandoned: bool = False
    unordered: bool = False
    is_urgent: bool = False
    needs_new_connection: bool = False
    is_dispensable: bool = False
    is_repeatable: bool = True
    send_within: float | None = None
    uncertain_because: TransportError | None = None
    has_chosen_keys: bool = False
    travels_alone: bool = False
    free_keys: Set[Reference] | None = None
    last_error: FtrackJobsError | None = None
    outcome: Outcome | None = None
    observed: object = None
    owner: RequestOwner
    encoded: bytes | None = None
    _results: dict[int, Any] | None = None  # of operations that are known to be done, by index
    _waiters: Sequence[Waiter] = ()

    def __init__(self, count: int) -> None:
        self.count: int = count
        self.count_left: int = count

    @classmethod
    def of_commit(
        cls,
        operations: Sequence[Operation],
        settle: Settle,
        manner: Manner | None = None,
        uncertain_because: TransportError | None = None,
    ) -> PendingRequest:
        """Return the request of a commit.

        Args:
            operations: At least one.
            settle: Called with the outcome.
            manner: How it is sent; None for the usual one.
            uncertain_because: Why it is not known what the server did in an earlier attempt.
        """
        request = cls(len(operations))
        request.operations = request.operations_left = operations
        request.settle = settle
        if manner:
            request._set(manner)
        if uncertain_because is not None:
            request.uncertain_because, request.is_sent = uncertain_because, True
        is_update = len(operations) == 1 and isinstance(operations[0], Update)  # as nearly always
        if not is_update:
            request._note_kinds()
        if not request.unordered:
            if is_update:
                request.writes = (key_of(operations[0].target),)
            else:
                request._note_keys()
            if references := linked_ids(operations):
                request.references = references
        return request

    def _note_kinds(self) -> None:
        """Note what its operations that are no updates require of its sending."""
        for operation in self.operations:  # not any(): this runs for each operation of a farm
            if type(operation) is Create and not operation.fresh and has_chosen_key(operation):
                self.has_chosen_keys = self.travels_alone = True
            elif type(operation) is Delete:
                self.travels_alone = True

    def _note_keys(self) -> None:
        """Note which entities it changes, creates and deletes."""
        operations = self.operations
        self.writes = tuple([key_of(operation.target) for operation in operations])
        deleted = [each.target.key for each in operations if isinstance(each, Delete)]
        self.deletes = [key[0][1] for key in deleted if len(key) == 1]
        self.creates = [*chain.from_iterable(map(created_ids, operations))]

    @classmethod
    def of_call(
        cls, wire: Sequence[Mapping[str, JSONValue]], **manner: Unpack[Manner]
    ) -> PendingRequest:
        """Return the request of operations in their wire form, which travel by themselves."""
        request = cls(len(wire))
        request.call = wire
        request._set(manner)
        keys = [each.get("entity_key") for each in wire if each.get("action") in _WRITES]
        parts = [tuple(str(value) for value in key) for key in keys if isinstance(key, list)]
        request.writes = [key[0] if len(key) == 1 else key for key in parts]
        request.is_repeatable = all(each.get("action") in _READS for each in wire)
        return request

    def _set(self, manner: Manner) -> None:
        for name, value in manner.items():
            setattr(self, name, value)

    def encode(self) -> bytes:
        """Return what is left of its operations as a JSON list.

        They are encoded when the request is sent rather than when it is queued: thousands may
        wait, and the bytes would take as much memory again as what they are made from.

        Raises:
            UnserialisableValueError: A value or a name has no wire form.
        """
        if self.encoded is None:
            wire = self.call or [*map(encode_operation, self.operations_left)]
            try:
                self.encoded = encode_batch(wire)
            except Exception as exc:  # noqa: BLE001 - whatever pydantic_core raises
                raise UnserialisableValueError("the operations", type(exc).__name__) from None
        return self.encoded

    # What is left of it: less than all only after a refusal or a lost response

    @property
    def done(self) -> Sequence[Operation]:
        """The operations of a commit that the server is known to have applied."""
        return [self.operations[index] for index in sorted(self._results or ())]

    def _indices_left(self) -> list[int]:
        done = self._results or ()
        return [index for index in range(self.count) if index not in done]

    @property
    def chosen(self) -> Set[Reference]:
        """The entities that it creates under keys that users chose."""
        if not self.has_chosen_keys:
            return frozenset()
        return {each.target for each in self.operations if has_chosen_key(each)}

    @property
    def may_have_created(self) -> Set[Reference]:
        """Those of :attr:`chosen` that it has created if they exist with its values."""
        if self.free_keys is None and self.uncertain_because is None:
            return frozenset()
        created = {each.target for each in self.done if isinstance(each, Create)}
        return (self.chosen if self.free_keys is None else self.free_keys) - created

    def note_found(self, findings: Findings, refusal: ServerError | None = None) -> bool:
        """Mark as done what must be done according to *findings*; return whether anything is.

        Args:
            findings: What the server says.
            refusal: How it has refused this request, which was alone; None if it has not.
        """
        left, operations = self._indices_left(), self.operations_left
        in_doubt = self.uncertain_because is not None
        deletes = [each for each in operations if isinstance(each, Delete)]
        # Of a part of a commit that was refused, the rest may be done, but not what queries hide.
        hidden = findings.missing(each.target for each in deletes if each.unseen)
        if in_doubt and refusal is not None and _says_missing(refusal):
            hidden = set()
        elif not in_doubt and not self._was_applied_in_part(findings):
            hidden = {each.target for each in deletes}
        done = done_among(
            operations,
            findings.found,
            self.may_have_created,
            findings.unanswered | hidden,
            with_updates=refusal is not None and in_doubt,
        )
        return self._note_done([left[place] for place in done])

    def _was_applied_in_part(self, findings: Findings) -> bool:
        """Return whether *findings* prove that the server has applied a part of what it refused.

        That an entity does not exist proves nothing: it may have been deleted before.
        """
        gone = {each.target for each in self.operations if isinstance(each, Delete)}
        found = done_among(self.operations, findings.found, self.may_have_created, gone)
        return bool(self._results or found)

    def is_unclear(self, findings: Findings, refusal: ServerError) -> bool:
        """Return whether an earlier attempt may have been applied, although this one was refused.

        Args:
            findings: What the server says.
            refusal: How it has refused this request, which was alone.
        """
        if self.uncertain_because is None:
            return False
        found, silent = findings.found, findings.unanswered
        # These do not depend on what the server has, so that the earlier attempt was refused, too.
        is_constant = isinstance(refusal, (PermissionDeniedError, ValidationError))
        for each in self.operations_left:
            target = each.target
            if isinstance(each, Delete):
                is_unclear = target not in found
            elif is_constant:
                is_unclear = False
            elif isinstance(each, Create):
                is_unclear = target in silent or bool(findings.missing([target]))
            else:
                is_unclear = target in silent if _says_missing(refusal) else target not in found
            if is_unclear:
                return True
        return False

    def note_done(self, operations: Sequence[Operation]) -> None:
        """Mark as done those of its operations that are among *operations*."""
        known = {id(operation) for operation in operations}
        left = self._indices_left()
        self._note_done([index for index in left if id(self.operations[index]) in known])

    def _note_done(self, indices: Sequence[int]) -> bool:
        if indices:
            self._results = (self._results or {}) | dict.fromkeys(indices)
            self.count_left = self.count - len(self._results)
            self.operations_left = [self.operations[index] for index in self._indices_left()]
            self.encoded = None
        return bool(indices)

    # Its end

    def applied(self, results: Sequence[Any]) -> Applied:
        """Return the outcome if what was left has had these *results*."""
        if not self._results:
            return Applied(results)
        all_results = self._results | dict(zip(self._indices_left(), results, strict=True))
        return Applied([all_results[index] for index in range(self.count)])

    def abandoned(self, error: FtrackJobsError) -> Outcome:
        """Return the outcome if it is not sent, or not sent again, because of *error*."""
        if self.uncertain_because is not None:
            return Unknown(self.uncertain_because)
        return NotApplied(error, self.done)

    def end(self, outcome: Outcome) -> None:
        """Set the *outcome*, call :attr:`settle`, and wake the callers, in this order."""
        self.outcome = outcome
        # A caller may hold the request for long; what it has carried need not stay in memory.
        settle, self.settle, self.encoded = self.settle, None, None
        try:
            if settle is not None:
                settle(outcome)
        except BaseException as exc:
            if not self.owner.survives(exc):
                raise
        finally:
            for waiter in self._waiters:
                if not waiter.done():  # done: the task that waited was cancelled
                    waiter.set_result(None)

    @property
    def is_stale(self) -> bool:
        """Whether its values are too old to be sent."""
        return self.send_within is not None and time.monotonic() - self.queued_at > self.send_within

    def withdraw(self) -> None:
        """End it, now or when it turns out that the server has not received it."""
        self.owner.withdraw(self)

    def note_unsent(self) -> None:
        """Note that the server has not received it, unless it is uncertain from before."""
        self.is_sent = self.uncertain_because is not None
        if self.is_abandoned:
            self.withdraw()

    async def ended(self) -> None:
        """Wait for the end."""
        if self.outcome is None:
            await self.waiter()

    def waiter(self) -> Waiter:
        """Return a new waiter for a single task, which is woken at the end."""
        waiter = self.owner.new_waiter()
        if not self._waiters:
            self._waiters = (waiter,)
        else:  # and drop those whose tasks were cancelled
            self._waiters = (*[each for each in self._waiters if not each.done()], waiter)
        return waiter


def key_of(reference: Reference) -> Key:
    """Return the key by which requests know the entity."""
    key = reference.key
    return key[0][1] if len(key) == 1 else tuple([value for _, value in key])


def _says_missing(refusal: ServerError) -> bool:
    return not is_foreign(refusal) and (refusal.kind in _MISSING or refusal.status in _MISSING)
