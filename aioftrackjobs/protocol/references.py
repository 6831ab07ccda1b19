"""Which entities an operation creates, refers to and links, and what a response adds to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from aioftrackjobs.protocol.operations import Create, Delete, Operation
from aioftrackjobs.protocol.values import ENTITY_TYPE, Reference


def created_ids(operation: Operation) -> tuple[str, ...]:
    """Return the id of the entity that *operation* creates; a key of several parts is no id."""
    key = operation.target.key
    return (key[0][1],) if isinstance(operation, Create) and len(key) == 1 else ()


def referenced_ids(operation: Operation) -> Iterator[str]:
    """Return the ids of other entities that *operation* refers to, and more texts that may be ids.

    The parts of a key of several, as that of a JobComponent, are ids of other entities.
    """
    if not created_ids(operation):
        for _, value in operation.target.key:
            yield value
    if not isinstance(operation, Delete):
        for each in operation.values.values():
            if isinstance(each, str):
                yield each
            elif isinstance(each, (dict, list)):
                yield from _texts(each)


def linked_ids(operations: Sequence[Operation]) -> list[str]:
    """Return the ids of other entities that *operations* link their own to, or unlink."""
    ids: list[str] = []
    for operation in operations:  # all in one function: this runs for each operation of a farm
        key = operation.target.key
        if len(key) > 1:
            ids += [value for _, value in key]
        if not isinstance(operation, Delete):
            for name, value in operation.values.items():
                if type(value) is str:
                    if name[-3:] == "_id":  # half the time of endswith()
                        ids.append(value)
                elif type(value) is dict or type(value) is list:
                    ids += _texts(value)
    return ids


def _texts(value: object) -> list[str]:
    """Return all texts in *value*, in no particular order."""
    texts: list[str] = []
    left = [value]
    for each in left:  # the list grows during the loop
        if isinstance(each, str):
            texts.append(each)
        elif isinstance(each, dict):
            left += each.values()
        elif isinstance(each, list):
            left += each
    return texts


def server_set_rows(
    operations: Sequence[Operation], results: Sequence[Any]
) -> list[Mapping[str, Any]]:
    """Return the rows among *results* that have values which *operations* did not set.

    A row that only repeats what was sent says nothing new, and most do. It is returned all the
    same if an earlier row of the same entity is, since that one may be older.
    """
    rows: list[Mapping[str, Any]] = []
    included: set[Reference] = set()
    for operation, result in zip(operations, results, strict=True):
        if result is None or isinstance(operation, Delete):
            continue
        # All in one function: this runs for each operation of a farm.
        row, (entity_type, key) = result["data"], operation.target
        sent: dict[str, Any] = dict(operation.values)
        sent[ENTITY_TYPE] = entity_type
        for name, value in key:
            sent[name] = value  # noqa: PERF403 - update() takes twice as long
        says_more = row != sent and not row.items() <= sent.items()  # most are just equal
        if says_more or (included and operation.target in included):
            included.add(operation.target)
            rows.append(row)
    return rows
