"""What became of operations that may have been applied in part: what to ask, what is left.

Keys are made by the client, so an entity that a commit creates either exists or does not;
updates set absolute values and may be repeated; a delete of what is gone is done.

Source:
    protocol.md, section 2.2: that a refused batch leaves nothing behind is an assumption, and
    a server may reorder a batch so that an entity is named before it exists.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from aioftrackjobs.protocol.operations import Create, Delete, Operation
from aioftrackjobs.protocol.query import PAGE_SIZE, key_criteria, select
from aioftrackjobs.protocol.values import JSONValue, Reference


@dataclass(frozen=True, slots=True)
class Question:
    """A query that tells which of some entities exist.

    Attributes:
        asked: All of one type.
    """

    asked: Sequence[Reference]

    @property
    def operation(self) -> dict[str, JSONValue]:
        """The query, in its wire form."""
        names = [name for name, _ in self.asked[0].key]
        expression = select(names, self.asked[0].entity_type, key_criteria(self.asked))
        return {"action": "query", "expression": expression}

    def existing(self, answer: Any) -> Iterator[Reference]:
        """Return those that exist, by the *answer*; an odd one raises LookupError or TypeError."""
        found = {tuple(row[name] for name, _ in self.asked[0].key) for row in answer["data"]}
        for reference in self.asked:
            if tuple(value for _, value in reference.key) in found:
                yield reference


def questions(operations: Iterable[Operation]) -> list[Question]:
    """Return what to ask before *operations* are sent again.

    About a create whose key somebody else may have used, existence says nothing: it is repeated,
    and refused if it was taken. Of a link, which has nothing but its key, it says everything.
    """
    by_type: dict[tuple[str, ...], dict[Reference, None]] = {}
    for operation in operations:
        if isinstance(operation, Delete) or _is_told_by_existence(operation):
            kind = (operation.target.entity_type, *(name for name, _ in operation.target.key))
            by_type.setdefault(kind, {})[operation.target] = None
    return [
        Question(references[start : start + PAGE_SIZE])
        for references in map(tuple, by_type.values())
        for start in range(0, len(references), PAGE_SIZE)
    ]


def _is_told_by_existence(operation: Operation) -> bool:
    if not isinstance(operation, Create):
        return False
    return operation.fresh or (len(operation.target.key) > 1 and not operation.values)


def done_among(operations: Sequence[Operation], existing: Collection[Reference]) -> list[int]:
    """Return the places of those *operations* of one commit that need not be sent again.

    As far as the entities that exist can tell. What comes before the delete of an entity that is
    gone is done with it: sent again, it would be refused.
    """
    ends = {each.target: place for place, each in enumerate(operations) if isinstance(each, Delete)}
    done = []
    for place, operation in enumerate(operations):
        end = ends.get(operation.target)
        exists = operation.target in existing
        if (
            (exists and _is_told_by_existence(operation))
            if end is None
            else (place <= end and not exists)
        ):
            done.append(place)
    return done


def untouched(sent: Sequence[Operation], left: Sequence[Operation]) -> list[Operation]:
    """Return those of the *sent* operations that stay done when what they created is deleted.

    Args:
        sent: What was applied.
        left: The rest of the same commit. An entity that it changes too is left out.
    """
    created = {each.target for each in sent if isinstance(each, Create)}
    ids = {each for operation in sent for each in born(operation)}
    changed = {operation.target for operation in left} | created
    for operation in sent:
        if operation.target not in created and not ids.isdisjoint(named(operation)):
            changed.add(operation.target)
    return [operation for operation in sent if operation.target not in changed]


def stages(operations: Sequence[Operation]) -> list[Sequence[Operation]]:
    """Split *operations*, in their order, so that none names an entity its own stage creates.

    Sent one after the other, they survive a server that reorders what is in one batch.
    """
    split: list[list[Operation]] = [[]]
    created: set[str] = set()
    for operation in operations:
        names = set(named(operation))
        if names & created:
            split.append([])
            created.clear()
        split[-1].append(operation)
        created.update(born(operation))
    return [stage for stage in split if stage]


def born(operation: Operation) -> tuple[str, ...]:
    """Return the id of the entity that *operation* creates; a key of several parts is none."""
    key = operation.target.key
    return (key[0][1],) if isinstance(operation, Create) and len(key) == 1 else ()


def named(operation: Operation) -> Iterator[str]:
    """Return the ids of other entities that *operation* names, and more that may be ids.

    The parts of a key of several name others, as those of a JobComponent.
    """
    if not born(operation):
        for _, value in operation.target.key:
            yield value
    if not isinstance(operation, Delete):
        for each in operation.values.values():
            if isinstance(each, str):
                yield each
            elif isinstance(each, (dict, list)):
                yield from _texts(each)


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)
