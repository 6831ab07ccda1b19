"""The unit of work: the changes that a task or a block has recorded, and their outcome.

A commit takes what is recorded before its first ``await``, sends it, and settles it: afterwards
every change is applied, pending again, or known to be uncertain. Changes that are recorded
meanwhile wait for the next commit.
"""

from __future__ import annotations

from collections.abc import Container, Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any, NoReturn, Unpack

from aioftrackjobs.background import SafeLogger
from aioftrackjobs.commit.changes import (
    InFlightCommit,
    RecordedChange,
    UnitOfWorkContext,
    checked_values,
    creation,
    creation_key,
    encode_values,
    end_creation,
    entities_of,
    latest_values,
    not_created,
    settle_applied,
    settle_found,
    split_done,
)
from aioftrackjobs.commit.dispatcher import Dispatcher
from aioftrackjobs.commit.request import (
    Applied,
    Manner,
    NotApplied,
    Outcome,
    PendingRequest,
    Settle,
    Unknown,
    WithdrawnError,
)
from aioftrackjobs.config.settings import require
from aioftrackjobs.errors import (
    CommitUncertainError,
    EntityError,
    FtrackJobsError,
    SessionStateError,
    TransportError,
)
from aioftrackjobs.models import (
    Entity,
    change_locally,
    forget_local,
    owner_of,
    was_created_here,
)
from aioftrackjobs.protocol.batching import fold
from aioftrackjobs.protocol.operations import NOT_SET, Create, Delete, Operation, Update
from aioftrackjobs.protocol.references import server_set_rows
from aioftrackjobs.protocol.values import Reference

logger: SafeLogger = SafeLogger(__name__)

_operation_of = attrgetter("operation")


class UnitOfWork:
    """Recorded changes that are committed, or rolled back, together.

    Example: ``async with session.unit_of_work() as unit: print(unit.recorded_operations)``

    Args:
        context: The entities of the session.
        dispatcher: Sends the commits.
        manner: How its commits are sent.

    Attributes:
        has_ended: Whether it refuses to record anything more.
    """

    def __init__(
        self,
        context: UnitOfWorkContext,
        dispatcher: Dispatcher,
        **manner: Unpack[Manner],
    ) -> None:
        self._context = context
        self._dispatcher = dispatcher
        self._manner = manner
        self._pending: list[RecordedChange] = []
        self._to_delete: set[int] = set()  # the id() of entities with a delete that has not ended
        self._uncertain: list[RecordedChange] = []
        self._uncertain_because: TransportError | None = None
        self._in_flight: InFlightCommit | None = None
        self._last_request: PendingRequest | None = None
        self.has_ended: bool = False

    # What is recorded

    @property
    def recorded_operations(self) -> tuple[Operation, ...]:
        """All pending operations, in the order they were recorded."""
        return tuple(map(_operation_of, self._pending))

    @property
    def uncertain_operations(self) -> tuple[Operation, ...]:
        """Operations that were sent; it is not known whether they were applied."""
        return tuple(recorded.operation for recorded in self._uncertain)

    @property
    def last_error(self) -> FtrackJobsError | None:
        """Why the latest attempt to send the latest commit failed; None if it did not."""
        return None if self._last_request is None else self._last_request.last_error

    @property
    def created(self) -> list[Entity]:
        """Entities that the next commit creates."""
        return entities_of(self._pending, Create)

    @property
    def modified(self) -> list[Entity]:
        """Entities that the next commit changes, without the created and deleted ones."""
        others = {id(entity) for entity in entities_of(self._pending, Create, Delete)}
        updated = entities_of(self._pending, Update)
        return [entity for entity in updated if id(entity) not in others]

    @property
    def deleted(self) -> list[Entity]:
        """Entities that the next commit deletes."""
        return entities_of(self._pending, Delete)

    # Recording

    def record_create(
        self, target: Reference, entity: Entity, values: Mapping[str, Any], *, fresh: bool = False
    ) -> None:
        """Record that *entity* is created with *values*, its key among them or not.

        Args:
            target: The reference to the new entity.
            entity: The new entity.
            values: Its attributes.
            fresh: Whether its key was made for it, so that no other entity can have it.

        Raises:
            UnserialisableValueError: One of the values has no wire form.
        """
        key = creation_key(target)
        self._record(*creation(target, entity, values, fresh=fresh))
        self._context.creators[key] = self

    def record_update(self, entity: Entity, values: Mapping[str, Any]) -> None:
        """Record that attributes of *entity* get new *values*.

        Raises:
            UnserialisableValueError: One of the values has no wire form.
            EntityError: The entity is to be deleted.
        """
        target = entity.__ftrack_reference__()
        if self._to_delete and id(entity) in self._to_delete:
            raise EntityError(f"{entity!r} is to be deleted; roll back to change it")
        operation = Update(target, encode_values(target, values))
        if self.has_ended:
            self._refuse()
        self._pending.append(RecordedChange(operation, entity, values, next(self._context.count)))

    def record_reset(self, entity: Entity, name: str) -> None:
        """Record that the change of *name* is reset: earlier updates do not send it."""
        target = entity.__ftrack_reference__()
        self._record(RecordedChange(Update(target, {name: NOT_SET}), entity, {}))

    def record_delete(self, entity: Entity) -> None:
        """Record that *entity* is deleted; a second call changes nothing.

        Raises:
            EntityError: Another unit of work has yet to create it, after which it would exist.
        """
        target = entity.__ftrack_reference__()
        creator = self._context.creators.get(creation_key(target), self)
        if creator is not self and creator.is_creating(entity):
            raise EntityError(not_created(entity))
        if id(entity) not in self._to_delete:
            delete = Delete(target, unseen=was_created_here(entity))
            self._record(RecordedChange(delete, entity, {}))
            self._to_delete.add(id(entity))

    def _record(self, *recorded: RecordedChange) -> None:
        if self.has_ended:
            self._refuse()
        for each in recorded:
            each.number = next(self._context.count)
        self._pending += recorded

    def _refuse(self) -> NoReturn:
        raise SessionStateError(
            "this unit of work has ended, as has its `async with session.unit_of_work()` block; a "
            "task that outlives the block records in one of its own"
        )

    def end(self) -> None:
        """Refuse to record anything more: the block that would commit it has ended."""
        self.has_ended = True

    def set(self, entity: Entity, **values: Any) -> None:
        """Record new *values* of *entity* without touching its local ones.

        It is for reports about an entity that other tasks may be changing: their unfinished
        changes are neither seen nor sent.

        Raises:
            UnknownAttributeError: The type has no such attribute.
            InvalidValueError: An attribute cannot have its value.
        """
        require(isinstance(entity, Entity), "entity", "an entity", entity)
        self.record_update(entity, checked_values(entity, values))

    def drop_updates(self, entity: Entity, names: Container[str]) -> dict[str, Any]:
        """Forget what is recorded of some attributes of *entity*, and return their latest values.

        A commit that was submitted is not withdrawn.
        """
        kept, latest = list[RecordedChange](), dict[str, Any]()
        for each in self._pending:
            is_about_them = isinstance(each.operation, Update) and all(
                name in names for name in each.operation.values
            )
            if each.entity is entity and is_about_them:
                latest = {name: latest[name] for name in latest if name not in each.names}
                latest.update(each.values)  # none if it is a reset
            else:
                kept.append(each)
        self._pending = kept
        for name, value in latest.items():
            forget_local(entity, name, value)
        self._show_others([entity])
        return latest

    def rollback(self, *, keep_uncertain: bool = False) -> None:
        """Forget everything recorded, put local values back, and detach created entities.

        A commit that was submitted is not withdrawn; what the server does not apply of it is
        forgotten, too.

        Args:
            keep_uncertain: Keep uncertain operations, for :meth:`resolve`.

        Raises:
            SessionStateError: The session belongs to another event loop, thread or process.
        """
        self._dispatcher.require_here()
        self.drop(keep_uncertain=keep_uncertain)

    def drop(self, *, keep_uncertain: bool = False) -> None:
        """Do as :meth:`rollback`, in any thread and without a running event loop."""
        dropped = self._take_pending()
        if not keep_uncertain:
            dropped, self._uncertain = [*self._uncertain, *dropped], []
        if self._in_flight is not None:
            self._in_flight.rolled_back = True
        self._update_to_delete()
        self._undo(dropped)

    def _take_pending(self) -> list[RecordedChange]:
        taken, self._pending = self._pending, []
        return taken

    def _update_to_delete(self) -> None:
        """Note which entities are to be deleted: a change of one could never be applied."""
        self._to_delete = {id(each.entity) for each in self._open_changes() if each.is_delete}

    def _open_changes(self) -> list[RecordedChange]:
        """Return all changes whose outcome is not known yet, whether or not they were sent."""
        in_flight = self._in_flight.taken if self._in_flight is not None else []
        return [*in_flight, *self._uncertain, *self._pending]

    def _undo(self, dropped: Sequence[RecordedChange]) -> None:
        for recorded in reversed(dropped):
            if isinstance(recorded.operation, Create):
                end_creation(self._context, self, recorded.operation.target)
                self._context.forget(recorded.entity)
                continue  # it keeps its values, which can still be read
            for name, value in recorded.values.items():
                forget_local(recorded.entity, name, value)
                self._context.note_undone(recorded.entity, name, self)
        self._show_others([each.entity for each in dropped])

    def _show_others(self, entities: Iterable[Entity]) -> None:
        """Let *entities* show the values again that other units have recorded."""
        owner: object = self._context  # not of an entity whose creation was rolled back
        left = {id(entity): entity for entity in entities if owner_of(entity) is owner}
        if left:
            for (key, name), value in self._values_of_others(left.values()).items():
                change_locally(left[key], name, value)

    def _values_of_others(self, entities: Iterable[Entity]) -> dict[tuple[int, str], Any]:
        """Return the latest values that other units have recorded, by id() and name."""
        units = [unit for unit in self._context.units() if unit is not self]
        return latest_values(chain.from_iterable(unit.unsettled() for unit in units), entities)

    def accept_uncertain(self) -> None:
        """Settle what is uncertain as applied: the caller has found it on the server."""
        accepted, self._uncertain = self._uncertain, []
        settle_applied(self._context, self, accepted)

    # Committing

    async def commit(self) -> None:
        """Send everything recorded so far; returns when the server has applied it.

        A commit with nothing to send makes no request. What is uncertain is resolved first. A
        commit of an entity waits for a commit in progress that creates it.

        Raises:
            EntityError: Another task has yet to commit an entity that this refers to; or it does
                not exist any more. The operations are pending again.
            SessionStateError: The session is closed, or belongs to another event loop.
            ServerError: The server refused; the operations are pending again.
            ConnectError: The request was not sent; the operations are pending again.
            UnserialisableValueError: An operation cannot be encoded; all are pending again.
            CommitUncertainError: It was sent, but no complete response arrived; or an earlier
                commit ended so, and it is still not known whether that was applied.
        """
        if (refusal := self._dispatcher.refusal) is not None:
            raise SessionStateError(refusal)
        self._dispatcher.require_here()
        while True:
            if self._in_flight is not None or self._uncertain:
                await self.resolve()
            elif not self._pending:
                return
            elif (creator := self._needed_first()) is not None:
                await creator.settled()
            else:
                break
        taken, self._pending = self._pending, []
        if (request := self._begin(taken)) is not None:
            outcome = await self._dispatcher.wait(request)
            if not isinstance(outcome, Applied):
                self._raise(request, outcome)

    def _needed_first(self) -> UnitOfWork | None:
        """Return a unit whose commit, which is in progress, must end before this one is sent."""
        return None

    async def resolve(self) -> None:
        """Settle what is uncertain: ask the server what it has done, and send the rest.

        Raises:
            ServerError: The server refused the rest; it is pending again.
            CommitUncertainError: It is still not known.
        """
        self._dispatcher.require_open()
        await self.settled()
        taken, self._uncertain = self._uncertain, []
        if (request := self._begin(taken, self._uncertain_because)) is not None:
            outcome = await self._dispatcher.wait(request)
            if not isinstance(outcome, Applied):
                self._raise(request, outcome)

    def post(self, on_end: Settle) -> PendingRequest:
        """Queue a commit of what is recorded, without waiting for its end.

        Args:
            on_end: Called with the outcome. What was not applied is pending again.

        Raises:
            SessionStateError: A commit is in progress, or the session is closed.
        """
        if self._in_flight is not None:
            raise SessionStateError("a commit of this unit of work is in progress")
        taken = self._take_pending()
        operations = fold([*map(_operation_of, taken)])
        return self._submit(InFlightCommit(taken, on_end), operations)

    async def settled(self) -> None:
        """Wait until no commit is in progress, also none whose caller was cancelled."""
        while self._in_flight is not None and self._in_flight.request is not None:
            await self._in_flight.request.ended()

    # What follows is no coroutine, so that the caller itself waits: this runs for each commit.

    def _begin(
        self, taken: list[RecordedChange], uncertain_because: TransportError | None = None
    ) -> PendingRequest | None:
        """Queue a commit of the changes *taken*; None if there is nothing to send."""
        if operations := fold([*map(_operation_of, taken)]):
            return self._submit(InFlightCommit(taken), operations, uncertain_because)
        settle_applied(self._context, self, taken)
        self._update_to_delete()
        return None

    def _raise(self, request: PendingRequest, outcome: NotApplied | Unknown) -> NoReturn:
        """Raise why a commit was not applied, or why that is not known."""
        if isinstance(outcome, NotApplied):
            raise outcome.error
        raise CommitUncertainError(request.operations, self.resolve) from outcome.error

    def _submit(
        self,
        commit: InFlightCommit,
        operations: Sequence[Operation],
        uncertain_because: TransportError | None = None,
    ) -> PendingRequest:
        self._in_flight = commit
        try:
            request = self._dispatcher.submit(
                operations, self._note_end, self._manner, uncertain_because
            )
        except BaseException:
            self._note_end(
                Unknown(uncertain_because) if uncertain_because else NotApplied(WithdrawnError(""))
            )
            raise
        commit.request = self._last_request = request
        return request

    def _note_end(self, outcome: Outcome) -> None:
        """Settle the commit in progress, also if its caller was cancelled."""
        commit = self._in_flight
        if commit is None or (commit.request is not None and commit.request.outcome is not outcome):
            return  # an interruption has ended its submission, after which it was sent all the same
        self._in_flight = None
        try:
            self._settle(commit, outcome)
        finally:
            if commit.on_end is not None:
                commit.on_end(outcome)

    def _settle(self, commit: InFlightCommit, outcome: Outcome) -> None:
        """Update the entities, and what is pending and uncertain, after the end of *commit*."""
        # No match statement: this runs for each commit of a farm, and isinstance is faster.
        if isinstance(outcome, Applied):
            request, taken = commit.request, commit.taken
            assert request is not None  # noqa: S101 - for type checkers: only that is applied
            if request.uncertain_because is not None:
                taken = settle_found(taken, request, outcome.results)
            settle_applied(self._context, self, taken)
            if rows := server_set_rows(request.operations, outcome.results):
                self._merge(rows)
        elif isinstance(outcome, NotApplied):
            applied, rest = split_done(commit.taken, outcome.done)
            settle_applied(self._context, self, applied)
            self._return(rest, commit)
        elif commit.rolled_back:
            self._undo(commit.taken)
        else:
            self._uncertain += commit.taken
            self._uncertain_because = outcome.error
        if self._to_delete:
            self._update_to_delete()

    def _return(self, taken: list[RecordedChange], commit: InFlightCommit) -> None:
        """Let what was not applied be pending again, unless it was rolled back meanwhile."""
        if commit.rolled_back:
            self._undo(taken)
        else:
            self._pending[:0] = taken

    def _merge(self, rows: Sequence[Any]) -> None:
        """Merge the server's *rows* into the entities. The commit was applied in any case."""
        try:
            self._context.merge(rows)
        except Exception:  # a reader of a user's own model may raise anything
            logger.warning("a commit was applied, but its response is odd", exc_info=True)

    # For other units

    def unsettled(self) -> Iterator[RecordedChange]:
        """Return the changes that the server may yet apply, and that were not rolled back."""
        if self._in_flight is not None and not self._in_flight.rolled_back:
            yield from self._in_flight.taken
        yield from self._uncertain
        yield from self._pending

    @property
    def is_settled(self) -> bool:
        """Whether it has nothing to commit."""
        return not (self._pending or self._uncertain or self._in_flight is not None)

    @property
    def is_sending(self) -> bool:
        """Whether a commit is in progress."""
        return self._in_flight is not None

    def pending_creation(self, key: Hashable) -> Entity | None:
        """Return the entity that the next commit creates under this :func:`creation_key`."""
        for each in self._pending:
            if isinstance(each.operation, Create) and creation_key(each.operation.target) == key:
                return each.entity
        return None

    def is_creating(self, entity: Entity) -> bool:
        """Return whether it creates *entity*."""
        creations = [each for each in self._open_changes() if isinstance(each.operation, Create)]
        return any(each.entity is entity for each in creations)

    def is_deleting(self, entity: Entity) -> bool:
        """Return whether it deletes *entity*, as far as is known."""
        return id(entity) in self._to_delete
