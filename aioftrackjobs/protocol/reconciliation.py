"""What became of operations that may have been applied in part: what to ask, what is left.

Keys are made by the client, so an entity that a commit creates either exists or does not;
updates set absolute values and may be repeated; a delete of what is gone is done. A key that
the user has chosen may be somebody else's: whether it was free before, and the values of what
is there now, tell them apart.

Source:
    protocol.md, section 2.2: that a refused batch leaves nothing behind is an assumption, and
    a server may reorder a batch so that an entity is named before it exists.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, TypeAlias

from aioftrackjobs.protocol.operations import Create, Delete, Operation, Update, Values
from aioftrackjobs.protocol.query import PAGE_SIZE, key_criteria, select
from aioftrackjobs.protocol.values import (
    ENTITY_TYPE,
    VALUE_TYPE,
    JSONValue,
    Reference,
    decode_tagged,
    in_utc,
)

#: What the server says of an entity.
Row: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Question:
    """A query that tells which of some entities exist.

    Attributes:
        asked: All of one type.
        names: Attributes whose values it tells too.
    """

    asked: Sequence[Reference]
    names: Sequence[str] = ()

    @property
    def operation(self) -> dict[str, JSONValue]:
        """The query, in its wire form."""
        names = dict.fromkeys([*(name for name, _ in self.asked[0].key), *self.names])
        expression = select(names, self.asked[0].entity_type, key_criteria(self.asked))
        return {"action": "query", "expression": expression}

    def found(self, answer: Any) -> dict[Reference, Row]:
        """Return those that exist, by the *answer*; an odd one raises LookupError or TypeError."""
        rows = {tuple(row[name] for name, _ in self.asked[0].key): row for row in answer["data"]}
        found = {each: rows.get(tuple(value for _, value in each.key)) for each in self.asked}
        return {reference: row for reference, row in found.items() if row is not None}


def questions_before(operations: Iterable[Operation]) -> list[Question]:
    """Return what to ask before *operations* are sent among others: which chosen keys are taken."""
    return _pages((each.target, ()) for each in operations if is_chosen(each))


def questions(operations: Iterable[Operation]) -> list[Question]:
    """Return what to ask before *operations* are sent again.

    About a create whose key somebody else may have used, existence alone says nothing: its values
    are asked for too. Of a link, which has nothing but its key, existence says everything.
    """
    return _pages(
        (each.target, telling(each.values) if isinstance(each, Create) and is_chosen(each) else ())
        for each in operations
        if not isinstance(each, Update)
    )


def _pages(asked: Iterable[tuple[Reference, tuple[str, ...]]]) -> list[Question]:
    alike: dict[tuple[str, tuple[str, ...], tuple[str, ...]], dict[Reference, None]] = {}
    for target, names in asked:
        kind = (target.entity_type, tuple(name for name, _ in target.key), names)
        alike.setdefault(kind, {})[target] = None
    return [
        Question(tuple(references)[start : start + PAGE_SIZE], names)
        for (_, _, names), references in alike.items()
        for start in range(0, len(references), PAGE_SIZE)
    ]


def is_chosen(operation: Operation) -> bool:
    """Tell whether it creates an entity under a key that somebody else may have used.

    A link is what its key says, whoever made it.
    """
    if not isinstance(operation, Create) or operation.fresh:
        return False
    return len(operation.target.key) == 1 or bool(operation.values)


def done_among(
    operations: Sequence[Operation],
    found: Mapping[Reference, Row],
    free: Collection[Reference] = (),
) -> list[int]:
    """Return the places of those *operations* of one commit that need not be sent again.

    As far as the entities that exist can tell. What comes before the delete of an entity that is
    gone is done with it: sent again, it would be refused.

    Args:
        operations: What is left of the commit.
        found: The entities that exist, with the values that were asked for.
        free: Those under chosen keys that are taken for created by the commit if they have its
            values.
    """
    ends = {each.target: place for place, each in enumerate(operations) if isinstance(each, Delete)}
    ours = {target for target in free if target in found} - _differing(operations, found)
    begun: set[Reference] = set()
    done = []
    for place, operation in enumerate(operations):
        target = operation.target
        end = ends.get(target)
        if end is not None:
            is_done = place <= end and target not in found
        elif isinstance(operation, Create):
            # A second create of the same entity is refused, whoever has made it.
            exists = target in (ours if is_chosen(operation) else found)
            is_done = exists and target not in begun
            begun.add(target)
        else:
            is_done = False
        if is_done:
            done.append(place)
    return done


def puzzling(
    operations: Sequence[Operation], found: Mapping[Reference, Row], free: Collection[Reference]
) -> bool:
    """Tell whether one of *operations* may have created what exists, with other values.

    Somebody has changed it since; or it is not ours.
    """
    return not _differing(operations, found).isdisjoint(free)


def _differing(operations: Sequence[Operation], found: Mapping[Reference, Row]) -> set[Reference]:
    """Return which of the entities *found* have other values than *operations* create them with.

    What the same operations change afterwards may have either value.
    """
    changed: dict[Reference, set[str]] = {}
    for operation in operations:
        if isinstance(operation, Update) and operation.target in found:
            changed.setdefault(operation.target, set()).update(operation.values)
    first: dict[Reference, Create] = {}  # a second one is refused
    for operation in operations:
        if isinstance(operation, Create) and is_chosen(operation) and operation.target in found:
            first.setdefault(operation.target, operation)
    return {
        target
        for target, create in first.items()
        if not agrees(_without(create.values, changed.get(target, ())), found[target])
    }


def _without(values: Values, names: Collection[str]) -> Values:
    return {name: value for name, value in values.items() if name not in names}


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


def linked(operations: Sequence[Operation]) -> list[str]:
    """Return the ids of other entities that *operations* link their own to, or unlink."""
    ids: list[str] = []
    for operation in operations:  # all in one place: this runs for each operation of a farm
        key = operation.target.key
        if len(key) > 1:
            ids += [value for _, value in key]
        if not isinstance(operation, Delete):
            for name, value in operation.values.items():
                if type(value) is str:
                    if name.endswith("_id"):
                        ids.append(value)
                elif type(value) is dict or type(value) is list:
                    ids += _texts(value)
    return ids


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


#: What servers may cut from a time.
_FRACTION = timedelta(seconds=1)
#: What databases may cut from a number: they keep seven digits at least.
_DIGITS = 1e-6


def telling(values: Values) -> tuple[str, ...]:
    """Return the names of those *values* that tell whose an entity is.

    Those are scalars, times and references. For None, servers fill in a value of their own;
    collections and other containers grow by themselves.
    """
    return tuple(sorted(name for name, value in values.items() if _tells(value)))


def _tells(value: object) -> bool:
    if isinstance(value, Mapping):
        return VALUE_TYPE in value or ENTITY_TYPE in value
    return isinstance(value, (str, int, float))


def agrees(values: Values, row: Mapping[str, Any]) -> bool:
    """Tell whether the server's *row* has all of *values* that tell anything."""
    return all(name in row and _same(values[name], row[name]) for name in telling(values))


def _same(sent: Any, told: Any) -> bool:
    if isinstance(sent, Mapping) and ENTITY_TYPE in sent:  # a row may be of a subtype
        key = {name: value for name, value in sent.items() if name != ENTITY_TYPE}
        return isinstance(told, Mapping) and key.items() <= told.items()
    told, sent = _moment(told), _moment(sent)
    if isinstance(told, date):
        if isinstance(sent, str):  # as users of generic entities may write times
            sent = _moment({VALUE_TYPE: "datetime", "value": sent})
        return isinstance(sent, date) and _same_time(sent, told)
    if isinstance(sent, float) or isinstance(told, float):
        numbers = isinstance(sent, (int, float)) and isinstance(told, (int, float))
        return numbers and math.isclose(sent, told, rel_tol=_DIGITS)
    return bool(sent == told)


def _moment(value: Any) -> Any:
    return decode_tagged(value) if isinstance(value, Mapping) and VALUE_TYPE in value else value


def _same_time(one: date, other: date) -> bool:
    if isinstance(one, datetime) and isinstance(other, datetime):
        return abs(in_utc(one) - in_utc(other)) < _FRACTION
    days = [each.date() if isinstance(each, datetime) else each for each in (one, other)]
    return days[0] == days[1]
