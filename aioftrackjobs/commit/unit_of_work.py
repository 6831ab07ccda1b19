"""The unit of work: what one flow has recorded and not yet sent, and what became of it.

Take, send, settle: a commit takes what is recorded before its first ``await``, and afterwards
every operation is done, pending again, or known to be uncertain. What is recorded meanwhile
waits for the next commit.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn, Protocol
from weakref import WeakValueDictionary

from aioftrackjobs.commit.changes import (
    InFlightCommit,
    RecordedChange,
    creation,
    encode_values,
    entities_of,
    fold_recorded,
    settle_found,
    split_done,
)
from aioftrackjobs.commit.dispatcher import Dispatcher
from aioftrackjobs.commit.request import (
    Applied,
    NotApplied,
    Outcome,
    PendingRequest,
    Settle,
    Unknown,
    WithdrawnError,
)
from aioftrackjobs.errors import (
    CommitUncertainError,
    EntityError,
    FtrackJobsError,
    SessionStateError,
    TransportError,
    UnknownAttributeError,
)
from aioftrackjobs.models import Entity, forget_local, settle
from aioftrackjobs.protocol.operations import (
    NOT_SET,
    Create,
    Delete,
    Operation,
    Update,
    news,
)

logger = logging.getLogger(__name__)


class UnitOfWork:
    """RecordedChange changes that are committed, or rolled back, together.

    Args:
        committer: Hears of the end of commits.
        dispatcher: Sends them.
        overtakes: Do not wait for the commits of other units about the same entities.
    """

    def __init__(
        self, committer: UnitOfWorkContext, dispatcher: Dispatcher, *, overtakes: bool = False
    ) -> None:
        self._committer = committer
        self._dispatcher = dispatcher
        self._overtakes = overtakes
        self._pending: list[RecordedChange] = []
        self._doomed: set[int] = set()  # ids of the entities that are to be deleted
        self._uncertain: list[RecordedChange] = []
        self._doubt: TransportError | None = None  # why it is uncertain
        self._flight: InFlightCommit | None = None
        self._ticket: PendingRequest | None = None
        self._ended = False

    # What is recorded

    @property
    def recorded_operations(self) -> tuple[Operation, ...]:
        """All pending operations, in the order they were recorded."""
        return tuple(recorded.operation for recorded in self._pending)

    @property
    def uncertain_operations(self) -> tuple[Operation, ...]:
        """Operations that were sent and may or may not have been applied."""
        return tuple(recorded.operation for recorded in self._uncertain)

    @property
    def trouble(self) -> FtrackJobsError | None:
        """Why the latest attempt to send the latest commit failed; None if it did not."""
        return None if self._ticket is None else self._ticket.trouble

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
        self, entity: Entity, values: Mapping[str, Any], *, fresh: bool = False
    ) -> None:
        """Record that *entity* is created with *values*, its key among them or not.

        Args:
            entity: The new entity.
            values: Its attributes.
            fresh: Whether its key was made for it, so that no other entity can have it.

        Raises:
            UnserialisableValueError: One of the values cannot travel.
        """
        self._record(*creation(entity, values, fresh=fresh))
        self._committer.creators[id(entity)] = self

    def record_update(self, entity: Entity, values: Mapping[str, Any]) -> None:
        """Record that attributes of *entity* get new *values*.

        Raises:
            UnserialisableValueError: One of the values cannot travel.
            EntityError: The entity is to be deleted.
        """
        target = entity.__ftrack_reference__()
        if self._doomed and id(entity) in self._doomed:
            raise EntityError(f"{entity!r} is to be deleted; roll back to change it")
        operation = Update(target, encode_values(target, values))
        if self._ended:
            self._refuse()
        self._pending.append(RecordedChange(operation, entity, values))

    def record_reset(self, entity: Entity, name: str) -> None:
        """Record that the change of *name* is taken back: earlier updates do not send it."""
        target = entity.__ftrack_reference__()
        self._record(RecordedChange(Update(target, {name: NOT_SET}), entity, {}))

    def record_delete(self, entity: Entity) -> None:
        """Record that *entity* is deleted; once is enough.

        Raises:
            EntityError: Another unit of work has yet to create it. Sent before, the delete would
                find nothing, and the entity would be there in the end.
        """
        if self._committer.creators.get(id(entity), self) is not self:
            raise EntityError(
                f"{entity!r} is not yet created, by another unit of work; commit that one first"
            )
        if id(entity) not in self._doomed:
            self._record(RecordedChange(Delete(entity.__ftrack_reference__()), entity, {}))
            self._doomed.add(id(entity))

    def _record(self, *recorded: RecordedChange) -> None:
        if self._ended:
            self._refuse()
        self._pending += recorded

    def _refuse(self) -> NoReturn:
        raise SessionStateError(
            "this flow's unit of work has ended; a task that outlives it needs one of its own"
        )

    def end(self) -> None:
        """Refuse to record anything more: whoever committed it is gone."""
        self._ended = True

    def set(self, entity: Entity, **values: Any) -> None:
        """Record new *values* of *entity* without touching its local ones.

        For flows that report about an entity others may be editing: nothing half-done of theirs
        is seen or sent.

        Raises:
            UnknownAttributeError: The type has no such attribute.
            ValueError: An attribute cannot have its value.
        """
        known = entity.attributes
        for name in values:
            if known and name not in known:
                raise UnknownAttributeError(entity.entity_type, name, known)
        checked = {name: entity.checked_value(name, value) for name, value in values.items()}
        self.record_update(entity, checked)

    def rollback(self, *, keep_uncertain: bool = False) -> None:
        """Forget everything recorded, put local values back, and detach created entities.

        A commit that is under way is not called back; what the server does not apply of it is
        forgotten too.

        Args:
            keep_uncertain: Leave what is uncertain to be resolved.
        """
        dropped = self._take_pending()
        if not keep_uncertain:
            dropped, self._uncertain = [*self._uncertain, *dropped], []
        if self._flight is not None:
            self._flight.rolled_back = True
        self._note_doomed()
        self._undo(dropped)

    def _take_pending(self) -> list[RecordedChange]:
        taken, self._pending = self._pending, []
        return taken

    def _note_doomed(self) -> None:
        """Find out which entities are to be deleted: a change of one could never be sent."""
        under_way = self._flight.taken if self._flight is not None else []
        recorded = (*under_way, *self._uncertain, *self._pending)
        deletes = [each for each in recorded if each.is_delete]
        self._doomed = {id(each.entity) for each in deletes}

    def _undo(self, dropped: Sequence[RecordedChange]) -> None:
        for recorded in reversed(dropped):
            if isinstance(recorded.operation, Create):
                self._committer.forget(recorded.entity)
                continue  # it keeps its values: whoever holds it can still read what it was
            for name, value in recorded.values.items():
                forget_local(recorded.entity, name, value)

    def accept_uncertain(self) -> None:
        """Take what was uncertain as applied: the server was asked, and has it."""
        accepted, self._uncertain = self._uncertain, []
        self._settle_applied(accepted)

    # FileUpload

    async def commit(self) -> None:
        """Send everything recorded so far; returns when the server has applied it.

        A commit with nothing to send makes no request. What is uncertain is settled first.

        Raises:
            ServerError: The server refused; the operations are pending again.
            ConnectError: The request never left; the operations are pending again.
            CommitUncertainError: It was sent and no complete answer came; or that is how an earlier
                one ended, and it is still not known what became of that.
        """
        while self._flight is not None or self._uncertain:
            await self.resolve()
        if not self._pending:
            return
        taken, self._pending = self._pending, []
        await self._send(taken)

    async def resolve(self) -> None:
        """Settle what is uncertain: ask the server what it has done, and send the rest.

        Raises:
            ServerError: The server refused the rest; it is pending again.
            CommitUncertainError: Still nobody knows.
        """
        await self.settled()
        taken, self._uncertain = self._uncertain, []
        await self._send(taken, self._doubt)

    def post(self, settle: Settle) -> PendingRequest:
        """Queue a commit of what is recorded, without waiting for its end.

        Args:
            settle: Called with the outcome. What was not applied is pending again.

        Raises:
            SessionStateError: A commit is under way, or the session is closed.
        """
        if self._flight is not None:
            raise SessionStateError("a commit of this unit of work is under way")
        taken = self._take_pending()
        operations = fold_recorded(taken)
        return self._submit(InFlightCommit(taken, self._land, settle), operations)

    async def settled(self) -> None:
        """Wait until no commit is under way, also none whose caller was cancelled."""
        while self._flight is not None and self._flight.ticket is not None:
            await self._flight.ticket.ended()

    async def _send(self, taken: list[RecordedChange], doubt: TransportError | None = None) -> None:
        operations = fold_recorded(taken)
        if not operations:
            self._settle_applied(taken)
            self._note_doomed()
            return
        ticket = self._submit(InFlightCommit(taken, self._land), operations, doubt)
        match await self._dispatcher.wait(ticket):
            case NotApplied(error):
                raise error
            case Unknown(error):
                raise CommitUncertainError(operations, self.resolve) from error
            case Applied():
                pass

    def _submit(
        self,
        flight: InFlightCommit,
        operations: Sequence[Operation],
        doubt: TransportError | None = None,
    ) -> PendingRequest:
        self._flight = flight
        try:
            ticket = self._dispatcher.submit(
                operations, flight, overtakes=self._overtakes, doubt=doubt
            )
        except BaseException:
            withdrawn = NotApplied(WithdrawnError("not sent"))
            flight(withdrawn if doubt is None else Unknown(doubt))
            raise
        flight.ticket = self._ticket = ticket
        return ticket

    def _land(self, flight: InFlightCommit, outcome: Outcome) -> None:
        """Keep the books of a commit that has ended."""
        self._flight = None
        match outcome:
            case Applied(results):
                ticket, taken = flight.ticket, flight.taken
                if ticket is not None and ticket.doubt is not None:
                    taken = settle_found(taken, ticket, results)
                self._settle_applied(taken)
                if ticket is not None:
                    self._merge(news(ticket.changes, results))
            case NotApplied(done=done):
                self._return(self._settle_done(flight.taken, done), flight)
            case Unknown() if flight.rolled_back:
                self._undo(flight.taken)
            case Unknown():
                self._uncertain += flight.taken
                self._doubt = outcome.error
        if self._doomed:
            self._note_doomed()

    def _return(self, taken: list[RecordedChange], flight: InFlightCommit) -> None:
        """Let what was not applied be pending again, unless it was rolled back meanwhile."""
        if flight.rolled_back:
            self._undo(taken)
        else:
            self._pending[:0] = taken

    def _settle_done(
        self, taken: list[RecordedChange], done: Sequence[Operation]
    ) -> list[RecordedChange]:
        """Settle what a server has done of a commit that it refused; return the rest."""
        settled, rest = split_done(taken, done)
        self._settle_applied(settled)
        return rest

    def _merge(self, rows: Sequence[Any]) -> None:
        """Take over the server's *rows*. The commit was applied, whatever they say."""
        if not rows:
            return
        try:
            self._committer.merge(rows)
        except Exception:  # a reader of a user's own model may raise anything
            logger.warning("a commit was applied, but its response is odd", exc_info=True)

    def _settle_applied(self, taken: Iterable[RecordedChange]) -> None:
        for recorded in taken:
            entity, operation = recorded.entity, recorded.operation
            if isinstance(operation, Delete):
                self._committer.forget(entity)
            elif isinstance(operation, Create):
                self._committer.creators.pop(id(entity), None)
            for name, value in recorded.values.items():
                settle(entity, name, value)
            if recorded.values:
                self._committer.note_written(entity, recorded.values)


class UnitOfWorkContext(Protocol):
    """What a unit of work needs of its session.

    Attributes:
        creators: The unit that has yet to create an entity, by the ``id()`` of the entity.
    """

    creators: WeakValueDictionary[int, Any]

    def merge(self, rows: Sequence[Any]) -> None:
        """Take over what the server says of the entities it wrote.

        Raises:
            MalformedResponseError: The rows cannot be read.
        """
        ...

    def note_written(self, entity: Entity, names: Iterable[str]) -> None:
        """Remember that the server has applied new values of an entity.

        A read that began earlier must not overwrite them with older ones.
        """
        ...

    def forget(self, entity: Entity) -> None:
        """Detach an entity that does not exist on the server."""
        ...
