"""Recorded changes: operations, with the entities and values that they come from.

And what the units of work of a session share: which of them creates what, and a count of changes.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol
from weakref import WeakValueDictionary

from aioftrackjobs.commit.request import PendingRequest, Settle
from aioftrackjobs.errors import UnknownAttributeError
from aioftrackjobs.models import Entity, owner_of, settle, settle_created, settle_late
from aioftrackjobs.protocol.operations import Create, Delete, Operation, Update
from aioftrackjobs.protocol.values import JSONValue, Reference, encode_value


def creation_key(target: Reference) -> Hashable:
    """Return what an entity to create is found by: its id, which is all that links have of it."""
    return target.key[0][1] if len(target.key) == 1 else target


def not_created(entity: Entity) -> str:
    """Return what an error says of an *entity* that another unit of work has not created."""
    return (
        f"{entity!r} is not yet created, by another unit of work; commit that one first, in the "
        "task that has recorded it, or use one `async with session.unit_of_work()` around both"
    )


class Reads(Protocol):
    """The queries whose responses have not arrived, and must not overwrite what is newer.

    Attributes:
        open_reads: Their numbers.
    """

    open_reads: dict[int, None]

    def note_write(self, entity: Entity, names: Iterable[str]) -> None:
        """Remember, while there are any, that the server has applied new values of an entity."""
        ...


class UnitOfWorkContext(Protocol):
    """What a unit of work needs of the entities of its session.

    Attributes:
        creators: The unit that has recorded the creation of an entity and not committed it, by
            :func:`creation_key`.
        count: Numbers the changes in the order in which they are recorded.
    """

    creators: WeakValueDictionary[Hashable, Any]
    count: Iterator[int]

    @property
    def reads(self) -> Reads:
        """The queries whose responses have not arrived."""
        ...

    def units(self) -> Iterable[Any]:
        """Return the units of work that users' code has, of tasks and of blocks."""
        ...

    def merge(self, rows: Sequence[Any]) -> None:
        """Take over values that the server has set in entities that it wrote.

        Raises:
            MalformedResponseError: The rows cannot be read.
        """
        ...

    def note_undone(self, entity: Entity, name: str, unit: Any, /) -> None:
        """Take note that a recorded change of *name* was rolled back."""
        ...

    def forget(self, entity: Entity) -> None:
        """Detach an entity that does not exist on the server."""
        ...


@dataclass(eq=False, slots=True)  # not frozen, which takes twice as long
class RecordedChange:
    """An operation, the entity that it changes, and the values as the entity keeps them.

    Attributes:
        number: Its place among the changes of all units of the session.
    """

    operation: Operation
    entity: Entity
    values: Mapping[str, Any]
    number: int = 0

    @property
    def names(self) -> Iterable[str]:
        """The attributes that it sets or resets."""
        return () if isinstance(self.operation, Delete) else self.operation.values

    @property
    def is_delete(self) -> bool:
        """Whether it deletes the entity."""
        return isinstance(self.operation, Delete)


def creation(
    target: Reference, entity: Entity, values: Mapping[str, Any], *, fresh: bool
) -> list[RecordedChange]:
    """Return what to record of a new *entity*.

    Relations follow as updates of their own, as in the official client: they can be reset before
    the commit, which then sends one create.

    Args:
        target: The reference to the new entity.
        entity: The new entity.
        values: Its attributes.
        fresh: Whether its key was made for it, so that no other entity can have it.

    Raises:
        UnserialisableValueError: One of the values has no wire form.
    """
    keys = entity.primary_key_attributes
    own: dict[str, Any] = {}
    updates: list[RecordedChange] = []
    for name, value in values.items():
        # A text first: whether a value is an entity takes long to find out.
        if not isinstance(value, str) and isinstance(value, (Entity, tuple)):
            change = {name: value}
            updates.append(
                RecordedChange(Update(target, encode_values(target, change)), entity, change)
            )
        else:
            own[name] = value
    sent = {name: value for name, value in own.items() if name not in keys}
    create = Create(target, encode_values(target, sent), fresh)
    return [RecordedChange(create, entity, own), *updates]


def encode_values(target: Reference, values: Mapping[str, Any]) -> Mapping[str, JSONValue]:
    """Return *values* of the entity that *target* names in their wire form.

    Raises:
        UnserialisableValueError: One of them has none.
    """
    for value in values.values():
        if not (type(value) is str and value.isascii()):
            break
    else:
        return values  # ASCII text is its own wire form
    return {
        name: encode_value(value, f"{target.entity_type}.{name}") for name, value in values.items()
    }


def checked_values(entity: Entity, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return *values* as *entity* keeps them.

    Raises:
        UnknownAttributeError: The type has no such attribute.
        InvalidValueError: An attribute cannot have its value.
    """
    known = entity.attributes
    for name in values:
        if known and name not in known:
            raise UnknownAttributeError(entity.entity_type, name, known)
    owner = owner_of(entity)
    return {name: entity.checked_value(name, each, owner) for name, each in values.items()}


def entities_of(recorded: Iterable[RecordedChange], *kinds: type[Operation]) -> list[Entity]:
    """Return the entities that operations of these *kinds* change, each once."""
    entities = (each.entity for each in recorded if isinstance(each.operation, kinds))
    return list({id(entity): entity for entity in entities}.values())


def without_resets(changes: Sequence[RecordedChange]) -> Sequence[RecordedChange]:
    """Return *changes* without the values that later ones of them reset, which are not sent."""
    for each in changes:
        if not each.values and isinstance(each.operation, Update):
            break
    else:
        return changes  # as nearly always
    left, reset = list[RecordedChange](), set[tuple[int, str]]()
    for each in reversed(changes):
        key = id(each.entity)
        if isinstance(each.operation, Create):
            left.append(each)  # a reset does not change what a create sends
            continue
        values = {name: value for name, value in each.values.items() if (key, name) not in reset}
        left.append(each if len(values) == len(each.values) else replace(each, values=values))
        reset.update((key, name) for name in each.names if name not in each.values)
    return left[::-1]


def latest_values(
    changes: Iterable[RecordedChange], entities: Iterable[Entity]
) -> dict[tuple[int, str], Any]:
    """Return the latest of the values that *changes* set in *entities*.

    Returns:
        The values by the ``id()`` of the entity and the name, without those that were reset.
    """
    ids = {id(entity) for entity in entities}
    latest = dict[tuple[int, str], RecordedChange]()
    for change in changes:
        if id(change.entity) in ids:
            for name in change.names:
                known = latest.setdefault((id(change.entity), name), change)
                if known.number < change.number:
                    latest[id(change.entity), name] = change
    return {key: each.values[key[1]] for key, each in latest.items() if key[1] in each.values}


@dataclass(eq=False, slots=True)
class InFlightCommit:
    """A commit that has been submitted and has not ended.

    Attributes:
        taken: The changes that it contains.
        on_end: Called with the outcome, when the unit of work is settled.
        request: Its request; None before it is queued.
        rolled_back: Whether its changes are to be dropped if they were not applied.
    """

    taken: list[RecordedChange]
    on_end: Settle | None = None
    request: PendingRequest | None = None
    rolled_back: bool = False


def split_done(
    taken: Sequence[RecordedChange], done: Sequence[Operation]
) -> tuple[list[RecordedChange], list[RecordedChange]]:
    """Split the changes *taken* by a commit into what the server has *done*, and the rest."""
    if not done:
        return [], list(taken)
    ends = {(type(operation), operation.target) for operation in done}
    not_created: set[Reference] = set()  # nothing that follows their create was done either
    settled, rest = list[RecordedChange](), list[RecordedChange]()
    for each in taken:
        target = each.operation.target
        ended = (type(each.operation), target) in ends and target not in not_created
        if isinstance(each.operation, Create) and not ended:
            not_created.add(target)
        (settled if ended else rest).append(each)
    return settled, rest


def settle_applied(
    context: UnitOfWorkContext, unit: object, taken: Sequence[RecordedChange]
) -> None:
    """Settle changes *taken* from *unit*, which the server has applied: values become remote."""
    for recorded in taken if len(taken) == 1 else without_resets(taken):
        entity, operation, values = recorded.entity, recorded.operation, recorded.values
        if isinstance(operation, Update):  # as nearly always
            pass
        elif isinstance(operation, Create):
            end_creation(context, unit, operation.target)
            settle_created(entity)
        else:
            context.forget(entity)
        if values:
            settle(entity, values)
            if context.reads.open_reads:
                context.reads.note_write(entity, values)


def end_creation(context: UnitOfWorkContext, unit: object, target: Reference) -> None:
    """Note that *unit* has no creation of *target* to commit any more."""
    key = creation_key(target)
    if context.creators.get(key) is unit:
        del context.creators[key]


def settle_found(
    taken: Sequence[RecordedChange], request: PendingRequest, results: Sequence[Any]
) -> list[RecordedChange]:
    """Settle the changes *taken* by a commit of entities that an earlier attempt has created.

    Values that were read since that attempt are newer than those of its creates. Updates were sent
    again, and their values are the newest.

    Returns:
        The changes that are left to settle.
    """
    found, updated = set[Reference](), dict[Reference, set[str]]()
    for change, result in zip(request.operations, results, strict=True):
        if isinstance(change, Create) and result is None:
            found.add(change.target)
        elif isinstance(change, Update):
            updated.setdefault(change.target, set()).update(change.values)
    left: list[RecordedChange] = []
    for each in reversed(taken):
        target = each.operation.target
        if target in found and updated.get(target, set()).isdisjoint(each.values):
            for name, value in each.values.items():
                settle_late(each.entity, name, value)
            left.append(replace(each, values={}))
        else:
            left.append(each)
    return left[::-1]
