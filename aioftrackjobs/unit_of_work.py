"""The unit of work: what one flow has recorded and not yet sent, and what became of it.

Take, send, settle: a commit takes what is recorded before its first ``await``, and afterwards
every operation is done, pending again, or known to be uncertain. What is recorded meanwhile
waits for the next commit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import anyio.lowlevel

from aioftrackjobs.dispatch import Applied, NotApplied, Outcome, Settle, Ticket, Unknown
from aioftrackjobs.errors import CommitUncertainError, UnknownAttributeError
from aioftrackjobs.models import Entity, forget_local, settle
from aioftrackjobs.protocol.batching import fold
from aioftrackjobs.protocol.operations import (
    NOT_SET,
    Create,
    Delete,
    Operation,
    Update,
    encode_operation,
)
from aioftrackjobs.protocol.values import JSONValue, Reference, encode_value


class Committer(Protocol):
    """What a unit of work needs of its session."""

    def submit(self, operations: Sequence[Mapping[str, JSONValue]], settle: Settle) -> Ticket:
        """Queue a request; *settle* hears of its end in any case."""
        ...

    async def wait(self, ticket: Ticket) -> Outcome:
        """Wait for the end of a request; a cancelled wait withdraws it if it was not sent."""
        ...

    async def merge(self, answers: Sequence[Any]) -> None:
        """Take over what the server says of the entities it wrote."""
        ...

    def forget(self, entity: Entity) -> None:
        """Detach an entity that does not exist on the server."""
        ...


@dataclass(frozen=True, slots=True)
class Recorded:
    """An operation, the entity it is about, and the values as the entity keeps them."""

    operation: Operation
    entity: Entity
    values: Mapping[str, Any]


class UnitOfWork:
    """Recorded changes that are committed, or rolled back, together."""

    def __init__(self, committer: Committer) -> None:
        self._committer = committer
        self._pending: list[Recorded] = []
        self._uncertain: list[Recorded] = []
        self._flight: Ticket | None = None

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
    def created(self) -> list[Entity]:
        """Entities that the next commit creates."""
        return _distinct(self._entities(Create))

    @property
    def modified(self) -> list[Entity]:
        """Entities that the next commit changes, without the created and deleted ones."""
        others = [*self._entities(Create), *self._entities(Delete)]
        return _distinct(entity for entity in self._entities(Update) if entity not in others)

    @property
    def deleted(self) -> list[Entity]:
        """Entities that the next commit deletes."""
        return _distinct(self._entities(Delete))

    def _entities(self, kind: type[Operation]) -> list[Entity]:
        return [each.entity for each in self._pending if isinstance(each.operation, kind)]

    # Recording

    def record_create(self, entity: Entity, values: Mapping[str, Any]) -> None:
        """Record that *entity* is created with *values*, its key among them or not.

        Relations follow as updates of their own, as the official client records them: they can
        be taken back before the commit, which then sends one create.

        Raises:
            UnserialisableValueError: One of the values cannot travel.
        """
        target = entity.__ftrack_reference__()
        sent = _encode(target, values)
        related = {name for name, value in values.items() if isinstance(value, (Entity, tuple))}
        plain = sent.keys() - related - set(entity.primary_key_attributes)
        own = {name: value for name, value in values.items() if name not in related}
        create = Create(target, {name: sent[name] for name in sent if name in plain})
        self._pending.append(Recorded(create, entity, own))
        for name in values:
            if name in related:
                update = Update(target, {name: sent[name]})
                self._pending.append(Recorded(update, entity, {name: values[name]}))

    def record_update(self, entity: Entity, values: Mapping[str, Any]) -> None:
        """Record that attributes of *entity* get new *values*.

        Raises:
            UnserialisableValueError: One of the values cannot travel.
        """
        target = entity.__ftrack_reference__()
        self._pending.append(Recorded(Update(target, _encode(target, values)), entity, values))

    def record_reset(self, entity: Entity, name: str) -> None:
        """Record that the change of *name* is taken back: earlier updates do not send it."""
        target = entity.__ftrack_reference__()
        self._pending.append(Recorded(Update(target, {name: NOT_SET}), entity, {}))

    def record_delete(self, entity: Entity) -> None:
        """Record that *entity* is deleted."""
        self._pending.append(Recorded(Delete(entity.__ftrack_reference__()), entity, {}))

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

    def rollback(self) -> None:
        """Forget everything recorded, put local values back, and detach created entities."""
        dropped, self._pending, self._uncertain = [*self._uncertain, *self._pending], [], []
        for recorded in reversed(dropped):
            if isinstance(recorded.operation, Create):
                self._committer.forget(recorded.entity)
                continue  # it keeps its values: whoever holds it can still read what it was
            for name, value in recorded.values.items():
                forget_local(recorded.entity, name, value)

    # Sending

    async def commit(self) -> None:
        """Send everything recorded so far; returns when the server has applied it.

        A commit with nothing to send makes no request.

        Raises:
            ServerError: The server refused; the operations are pending again.
            ConnectError: The request never left; the operations are pending again.
            CommitUncertainError: It was sent and no complete answer came.
        """
        await anyio.lowlevel.checkpoint_if_cancelled()  # goes on at once if it is not
        await self.settled()  # a commit under way must not be overtaken
        # With none under way nothing was waited for: what is recorded later is not taken.
        taken, self._pending = self._pending, []
        operations = fold([recorded.operation for recorded in taken])
        if not operations:
            self._settle_applied(taken)
            return
        outcome = await self._send(taken, operations)
        match outcome:
            case Applied(results):
                await self._committer.merge(results)
            case NotApplied(error):
                raise error
            case Unknown(cause):
                raise CommitUncertainError(operations) from cause

    async def settled(self) -> None:
        """Wait until no commit is under way, also none whose caller was cancelled."""
        while self._flight is not None:
            await self._flight.settled.wait()

    async def _send(self, taken: list[Recorded], operations: Sequence[Operation]) -> Outcome:
        def settle_taken(outcome: Outcome) -> None:
            self._flight = None
            self._settle(taken, outcome)

        payload = [encode_operation(operation) for operation in operations]
        self._flight = ticket = self._committer.submit(payload, settle_taken)
        return await self._committer.wait(ticket)

    def _settle(self, taken: list[Recorded], outcome: Outcome) -> None:
        match outcome:
            case Applied():
                self._settle_applied(taken)
            case NotApplied():
                self._pending[:0] = taken
            case Unknown():
                self._uncertain += taken

    def _settle_applied(self, taken: Iterable[Recorded]) -> None:
        for recorded in taken:
            if isinstance(recorded.operation, Delete):
                self._committer.forget(recorded.entity)
            for name, value in recorded.values.items():
                settle(recorded.entity, name, value)


def _encode(target: Reference, values: Mapping[str, Any]) -> dict[str, JSONValue]:
    return {
        name: encode_value(value, f"{target.entity_type}.{name}") for name, value in values.items()
    }


def _distinct(entities: Iterable[Entity]) -> list[Entity]:
    return list({id(entity): entity for entity in entities}.values())
