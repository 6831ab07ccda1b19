"""What a server has done of operations: what to ask it, and what is left to send.

Ids are made by the client, so an entity that a commit creates either exists or does not; updates
set absolute values and may be repeated; a delete is done if its entity does not exist. Under a key
that a user chose there may be the entity of another client: whether the key was free before, and
the values of the entity that is there now, distinguish the two.

Source:
    docs/protocol.md, section 2.2: that a refused batch leaves nothing behind is an assumption, and
    a server may reorder a batch so that an entity is referred to before it exists.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple, TypeAlias

from aioftrackjobs.protocol.operations import Create, Delete, Operation, Update, Values
from aioftrackjobs.protocol.query import PAGE_SIZE, key_criteria, select
from aioftrackjobs.protocol.references import created_ids, referenced_ids
from aioftrackjobs.protocol.values import (
    ENTITY_TYPE,
    VALUE_TYPE,
    JSONValue,
    Reference,
    decode_tagged,
    in_utc,
)

#: Values of an entity in a response.
Row: TypeAlias = Mapping[str, Any]


class ExistenceQuery(NamedTuple):
    """A query for the entities that exist among some.

    Attributes:
        references: The entities, all of one type.
        names: Attributes whose values the rows contain, besides the key.
    """

    references: Sequence[Reference]
    names: Sequence[str] = ()

    @property
    def operation(self) -> dict[str, JSONValue]:
        """The query, in its wire form."""
        names = dict.fromkeys([*(name for name, _ in self.references[0].key), *self.names])
        expression = select(names, self.references[0].entity_type, key_criteria(self.references))
        return {"action": "query", "expression": expression}

    def found(self, result: Any) -> dict[Reference, Row]:
        """Return the entities that exist according to the *result* of the query.

        Raises:
            LookupError: The result has another shape.
            TypeError: As well.
        """
        names = [name for name, _ in self.references[0].key]
        rows = {tuple(row[name] for name in names): row for row in result["data"]}
        found = {each: rows.get(tuple(value for _, value in each.key)) for each in self.references}
        return {reference: row for reference, row in found.items() if row is not None}


def chosen_key_queries(operations: Iterable[Operation]) -> list[ExistenceQuery]:
    """Return the queries before *operations* are sent: which of the keys users chose are taken."""
    return _pages((each.target, ()) for each in operations if has_chosen_key(each))


def existence_queries(operations: Iterable[Operation]) -> list[ExistenceQuery]:
    """Return the queries before *operations* are sent again.

    If a user chose the key of a create, existence alone does not show whose the entity is, so that
    its values are queried too. A link has nothing but its key, so its existence is enough.
    """
    targets: list[tuple[Reference, tuple[str, ...]]] = []
    for each in operations:
        if isinstance(each, Create) and has_chosen_key(each):
            targets.append((each.target, discriminating_attributes(each.values)))
        elif not isinstance(each, Update):
            targets.append((each.target, ()))
    return _pages(targets)


def _pages(targets: Iterable[tuple[Reference, tuple[str, ...]]]) -> list[ExistenceQuery]:
    alike: dict[tuple[str, tuple[str, ...], tuple[str, ...]], dict[Reference, None]] = {}
    for target, names in targets:
        kind = (target.entity_type, tuple(name for name, _ in target.key), names)
        alike.setdefault(kind, {})[target] = None
    return [
        ExistenceQuery(tuple(references)[start : start + PAGE_SIZE], names)
        for (_, _, names), references in alike.items()
        for start in range(0, len(references), PAGE_SIZE)
    ]


def has_chosen_key(operation: Operation) -> bool:
    """Return whether it creates an entity under a key that another client may have used.

    A link does not count: it is what its key says, no matter which client has created it.
    """
    if not isinstance(operation, Create) or operation.fresh:
        return False
    return len(operation.target.key) == 1 or bool(operation.values)


def done_among(
    operations: Sequence[Operation],
    found: Mapping[Reference, Row],
    free: Collection[Reference] = (),
) -> list[int]:
    """Return the indices of those *operations* of one commit that need not be sent again.

    If an entity is gone, what comes before its delete is done, too: sent again, it would be
    refused.

    Args:
        operations: What is left of the commit.
        found: The entities that exist, with the values that were queried.
        free: Entities under keys that users chose which count as created by the commit if they
            exist with its values.
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
            # A second create of the same entity is refused.
            exists = target in (ours if has_chosen_key(operation) else found)
            is_done = exists and target not in begun
            begun.add(target)
        else:
            is_done = False
        if is_done:
            done.append(place)
    return done


def is_ambiguous(
    operations: Sequence[Operation], found: Mapping[Reference, Row], free: Collection[Reference]
) -> bool:
    """Return whether one of *operations* may have created what exists with other values.

    Either another client has changed the entity since, or another client has created it.
    """
    return not _differing(operations, found).isdisjoint(free)


def _differing(operations: Sequence[Operation], found: Mapping[Reference, Row]) -> set[Reference]:
    """Return which of the entities *found* have other values than *operations* create them with.

    An attribute that the same operations change afterwards may have either value.
    """
    changed: dict[Reference, set[str]] = {}
    for operation in operations:
        if isinstance(operation, Update) and operation.target in found:
            changed.setdefault(operation.target, set()).update(operation.values)
    first: dict[Reference, Create] = {}  # a second one is refused
    for operation in operations:
        if (
            isinstance(operation, Create)
            and has_chosen_key(operation)
            and operation.target in found
        ):
            first.setdefault(operation.target, operation)
    return {
        target
        for target, create in first.items()
        if not agrees(_without(create.values, changed.get(target, ())), found[target])
    }


def _without(values: Values, names: Collection[str]) -> Values:
    return {name: value for name, value in values.items() if name not in names}


def untouched(sent: Sequence[Operation], left: Sequence[Operation]) -> list[Operation]:
    """Return those of the *sent* operations that remain if what they created is deleted again.

    Args:
        sent: Operations that were applied.
        left: The rest of the same commit. Operations on an entity that it changes are left out.
    """
    created = {each.target for each in sent if isinstance(each, Create)}
    ids = {each for operation in sent for each in created_ids(operation)}
    changed = {operation.target for operation in left} | created
    for operation in sent:
        if operation.target not in created and not ids.isdisjoint(referenced_ids(operation)):
            changed.add(operation.target)
    return [operation for operation in sent if operation.target not in changed]


def stages(operations: Sequence[Operation]) -> list[Sequence[Operation]]:
    """Split *operations*, in their order, so that none refers to what its own stage creates.

    Sent one after the other, the stages do not depend on the order within a batch.
    """
    split: list[list[Operation]] = [[]]
    created: set[str] = set()
    for operation in operations:
        if created.intersection(referenced_ids(operation)):
            split.append([])
            created.clear()
        split[-1].append(operation)
        created.update(created_ids(operation))
    return [stage for stage in split if stage]


#: Servers may drop the fraction of a second.
_TIME_TOLERANCE = timedelta(seconds=1)
#: Databases may round a number; they keep seven digits at least.
_NUMBER_TOLERANCE = 1e-6


def discriminating_attributes(values: Values) -> tuple[str, ...]:
    """Return the names of those *values* by which an entity can be recognised.

    Those are scalars, times and references. In place of None a server may set a default, and
    other clients may add to collections and other containers.
    """
    return tuple(sorted(name for name, value in values.items() if _is_discriminating(value)))


def _is_discriminating(value: object) -> bool:
    if isinstance(value, Mapping):
        return VALUE_TYPE in value or ENTITY_TYPE in value
    return isinstance(value, (str, int, float))


def agrees(values: Values, row: Mapping[str, Any]) -> bool:
    """Return whether the server's *row* has all discriminating *values*."""
    names = discriminating_attributes(values)
    return all(name in row and _same(values[name], row[name]) for name in names)


def _same(sent: Any, found: Any) -> bool:
    if isinstance(sent, Mapping) and ENTITY_TYPE in sent:  # a row may be of a subtype
        key = {name: value for name, value in sent.items() if name != ENTITY_TYPE}
        return isinstance(found, Mapping) and key.items() <= found.items()
    found, sent = _moment(found), _moment(sent)
    if isinstance(found, date):
        if isinstance(sent, str):  # as users of generic entities may write times
            sent = _moment({VALUE_TYPE: "datetime", "value": sent})
        return isinstance(sent, date) and _same_time(sent, found)
    if isinstance(sent, float) or isinstance(found, float):
        numbers = isinstance(sent, (int, float)) and isinstance(found, (int, float))
        return numbers and math.isclose(sent, found, rel_tol=_NUMBER_TOLERANCE)
    return bool(sent == found)


def _moment(value: Any) -> Any:
    return decode_tagged(value) if isinstance(value, Mapping) and VALUE_TYPE in value else value


def _same_time(one: date, other: date) -> bool:
    if isinstance(one, datetime) and isinstance(other, datetime):
        return abs(in_utc(one) - in_utc(other)) < _TIME_TOLERANCE
    days = [each.date() if isinstance(each, datetime) else each for each in (one, other)]
    return days[0] == days[1]
