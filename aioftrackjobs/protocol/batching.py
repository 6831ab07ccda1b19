"""Folding: from the operations that were recorded to the fewest that must be sent.

The passes are those of the official client, with the same effect on the server, except that the
order of operations counts: if an entity is deleted and then created again under the same key, both
are sent, and the official client sends nothing.

Source:
    docs/protocol.md, section 9.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from aioftrackjobs.protocol.operations import NOT_SET, Create, Delete, Operation, Update, Values
from aioftrackjobs.protocol.values import Reference


def fold(operations: Sequence[Operation]) -> tuple[Operation, ...]:
    """Return the fewest operations that leave the server in the same state."""
    if len(operations) == 1:  # as most commits of a farm
        (operation,) = operations
        values = operation.values if isinstance(operation, Update) else None
        if values and NOT_SET not in values.values():
            return (operation,)
    if (create := _as_one_create(operations)) is not None:
        return (create,)
    return _merge_neighbours(_drop_empty(_keep_last_values(_cancel_short_lived(operations))))


def _as_one_create(operations: Sequence[Operation]) -> Create | None:
    """Return a create with the effect of all *operations*; None if there is no such create."""
    if not (operations and isinstance(create := operations[0], Create)):
        return None
    values = dict(create.values)
    for operation in operations[1:]:
        if not isinstance(operation, Update) or operation.target != create.target:
            return None
        values.update(operation.values)
    folded = Create(create.target, values, create.fresh)
    return None if _has_unset(folded) else folded


def _cancel_short_lived(operations: Sequence[Operation]) -> list[Operation]:
    """Leave out entities that are both created and deleted here, in this order."""
    since_create: dict[Reference, list[int]] = {}  # indices of operations, from the create on
    cancelled: set[int] = set()
    for index, operation in enumerate(operations):
        target = operation.target
        match operation:
            case Create():
                since_create[target] = [index]
            case Delete() if target in since_create:
                cancelled.update(since_create.pop(target), [index])
            case Update() if target in since_create:
                since_create[target].append(index)
            case _:
                pass
    return [operation for index, operation in enumerate(operations) if index not in cancelled]


def _keep_last_values(operations: Sequence[Operation]) -> list[Operation]:
    """Send an attribute only with the last update that sets it.

    A create or delete of the entity ends the search: updates before it are of a former entity with
    the same key.
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
    """Drop values that were reset, and updates without any value left."""
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
