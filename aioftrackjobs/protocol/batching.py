"""From recorded operations to the ones that travel.

The passes of the official client, with the same effect on the server, but looking at the order
of operations where it looks at sets: an entity deleted and then created again under the same
key is sent as both, where the official client sends nothing.

Source:
    protocol.md, section 9.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from aioftrackjobs.protocol.operations import NOT_SET, Create, Delete, Operation, Update, Values
from aioftrackjobs.protocol.values import Reference


def fold(operations: Sequence[Operation]) -> tuple[Operation, ...]:
    """Return the fewest operations that leave the server in the same state."""
    if len(operations) == 1:
        (operation,) = operations
        if isinstance(operation, Update) and operation.values and not _has_unset(operation):
            return tuple(operations)
    if (birth := _birth(operations)) is not None:
        return (birth,)
    return _merge_neighbours(_drop_empty(_keep_last_values(_cancel_unborn(operations))))


def _birth(operations: Sequence[Operation]) -> Create | None:
    """Return the one create that *operations* come to; None if they do more, or less."""
    if not (operations and isinstance(create := operations[0], Create)):
        return None
    values = dict(create.values)
    for operation in operations[1:]:
        if not isinstance(operation, Update) or operation.target != create.target:
            return None
        values.update(operation.values)
    birth = Create(create.target, values, create.fresh)
    return None if _has_unset(birth) else birth


def _cancel_unborn(operations: Sequence[Operation]) -> list[Operation]:
    """Leave out entities that are both created and deleted here, in that order."""
    lives: dict[Reference, list[int]] = {}  # where the operations since its creation stand
    cancelled: set[int] = set()
    for index, operation in enumerate(operations):
        target = operation.target
        match operation:
            case Create():
                lives[target] = [index]
            case Delete() if target in lives:
                cancelled.update(lives.pop(target), [index])
            case Update() if target in lives:
                lives[target].append(index)
            case _:
                pass
    return [operation for index, operation in enumerate(operations) if index not in cancelled]


def _keep_last_values(operations: Sequence[Operation]) -> list[Operation]:
    """Let an attribute travel only with the last update that sets it.

    A create or delete of the entity ends the search: what stands before it is another life.
    """
    later: dict[Reference, set[str]] = {}
    kept: list[Operation] = []
    for operation in reversed(operations):
        if not isinstance(operation, Update):
            later.pop(operation.target, None)
            kept.append(operation)
            continue
        seen = later.setdefault(operation.target, set())
        values = {name: value for name, value in operation.values.items() if name not in seen}
        seen.update(operation.values)
        kept.append(replace(operation, values=values))
    kept.reverse()
    return kept


def _drop_empty(operations: Sequence[Operation]) -> list[Operation]:
    """Drop values that were taken back, and updates that have none left."""
    return [
        operation if isinstance(operation, Delete) else _without_unset(operation)
        for operation in operations
        if not isinstance(operation, Update) or _is_set(operation.values)
    ]


def _has_unset(operation: Create | Update) -> bool:
    return NOT_SET in operation.values.values()


def _is_set(values: Values) -> bool:
    return any(value is not NOT_SET for value in values.values())


def _without_unset(operation: Create | Update) -> Operation:
    if not _has_unset(operation):
        return operation
    values = {name: value for name, value in operation.values.items() if value is not NOT_SET}
    return replace(operation, values=values)


def _merge_neighbours(operations: Sequence[Operation]) -> tuple[Operation, ...]:
    """Merge each update into the create or update just before it on the same entity.

    Only neighbours are merged, so the order between entities never changes.
    """
    merged: list[Operation] = []
    for operation in operations:
        match merged, operation:
            case [*_, Create() | Update() as last], Update() if last.target == operation.target:
                merged[-1] = replace(last, values={**last.values, **operation.values})
            case _:
                merged.append(operation)
    return tuple(merged)
