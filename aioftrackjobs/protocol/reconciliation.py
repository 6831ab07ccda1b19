"""What a server has done of operations: what to ask it, and what is left to send.

Ids are made by the client, so an entity that a commit creates either exists or does not; updates
set absolute values and may be repeated; a delete is done if its entity does not exist. Under a key
that a user chose there may be the entity of another client: whether the key was free before, and
the values of the entity that is there now, distinguish the two.

What a question did not answer is unknown, and not absent.

Source:
    docs/protocol.md, section 2.2: that a refused batch leaves nothing behind is an assumption, and
    a server may reorder a batch so that an entity is referred to before it exists.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple, TypeAlias

from aioftrackjobs.protocol.operations import Create, Delete, Operation, Update, Values
from aioftrackjobs.protocol.paging import next_offset
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
            LookupError: The result has another shape, or rows that were not asked for.
            TypeError: As well.
        """
        names = [name for name, _ in self.references[0].key]
        asked = {_folded(value for _, value in each.key): each for each in self.references}
        return {asked[_folded(row[name] for name in names)]: row for row in result["data"]}

    def without(self, references: Container[Reference]) -> ExistenceQuery:
        """Return the query for the other entities."""
        left = [each for each in self.references if each not in references]
        return self._replace(references=left)


class Findings:
    """What the server says about some entities.

    Attributes:
        found: Those that exist, with the values that were queried.
        unanswered: Those about which it does not answer.
        shown: Types of which queries show some.
    """

    def __init__(self) -> None:
        self.found: dict[Reference, Row] = {}
        self.unanswered: set[Reference] = set()
        self.shown: set[str] = set()

    def add(self, query: ExistenceQuery, result: Any) -> ExistenceQuery | None:
        """Add the *result* of a *query*; return a query for those that are on a further page.

        Raises:
            LookupError: It is not the result of this query.
            TypeError: As well.
        """
        found = query.found(result)
        for reference, row in found.items():
            self.found[reference] = {**self.found.get(reference, {}), **row}
            self.shown.add(reference.entity_type)
        more = query.without(found)
        if next_offset(result) is None or not more.references:
            return None
        if not found:
            self.unanswered.update(more.references)
            return None
        return more

    def missing(self, references: Iterable[Reference]) -> set[Reference]:
        """Return those of *references* that were not found, with nothing else of their types.

        Queries may hide these types, or the answer may be that to another question.
        """
        known, shown = self.found.keys() | self.unanswered, self.shown
        return {each for each in references if each not in known and each.entity_type not in shown}


def chosen_key_queries(operations: Iterable[Operation]) -> list[ExistenceQuery]:
    """Return the queries before *operations* are sent: which of the keys users chose are taken."""
    return _pages((each.target, ()) for each in operations if has_chosen_key(each))


def _folded(key: Iterable[object]) -> tuple[str, ...]:
    """Return the values of a *key* in the form in which they are compared: servers ignore case."""
    return tuple([str(value).lower() for value in key])


def existence_queries(
    operations: Iterable[Operation], *, with_updates: bool = False
) -> list[ExistenceQuery]:
    """Return the queries before *operations* are sent again.

    If a user chose the key of a create, existence alone does not show whose the entity is, so that
    its values are queried too. A link has nothing but its key, so its existence is enough.

    Args:
        operations: What is left of some commits.
        with_updates: Whether to ask for the values that updates set, too.
    """
    targets: list[tuple[Reference, tuple[str, ...]]] = []
    for each in operations:
        if isinstance(each, Create) and has_chosen_key(each):
            targets.append((each.target, discriminating_attributes(each.values)))
        elif not isinstance(each, Update):
            targets.append((each.target, ()))
        elif with_updates:
            targets.append((each.target, tuple(sorted(each.values))))
    return _pages(targets)


def absence_queries(references: Iterable[Reference]) -> list[ExistenceQuery]:
    """Return the queries that ask once more for entities that seem to be gone."""
    return _pages((each, ()) for each in references)


def value_queries(names: Mapping[Reference, Iterable[str]]) -> list[ExistenceQuery]:
    """Return the queries for attributes of entities, given by their *names*."""
    return _pages((target, tuple(sorted(each))) for target, each in names.items())


def any_query(reference: Reference) -> dict[str, JSONValue]:
    """Return the query, in its wire form, for any entity of a type."""
    names = ", ".join(name for name, _ in reference.key)
    return {"action": "query", "expression": f"select {names} from {reference.entity_type} limit 1"}


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
    unknown: Collection[Reference] = (),
    *,
    with_updates: bool = False,
) -> list[int]:
    """Return the indices of those *operations* of one commit that need not be sent again.

    If an entity is gone, what comes before its delete is done, too: sent again, it would be
    refused.

    Args:
        operations: What is left of the commit.
        found: The entities that exist, with the values that were queried.
        free: Entities under keys that users chose which count as created by the commit if they
            exist with its values.
        unknown: Entities that may exist although they are not among those found.
        with_updates: Whether an update is done whose values the entity has. It is no reason not to
            send it, but if it was refused, this shows that an earlier attempt was applied.
    """
    ends = {each.target: place for place, each in enumerate(operations) if isinstance(each, Delete)}
    ours = {target for target in free if target in found} - _differing(operations, found)
    begun: set[Reference] = set()
    done = []
    for place, operation in enumerate(operations):
        target = operation.target
        end = ends.get(target)
        if end is not None:
            is_done = place <= end and target not in found and target not in unknown
        elif isinstance(operation, Create):
            # A second create of the same entity is refused.
            exists = target in (ours if has_chosen_key(operation) else found)
            is_done = exists and target not in begun
            begun.add(target)
        elif with_updates and isinstance(operation, Update):
            is_done = target in found and has_values(operation, found[target])
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


def has_values(update: Update, row: Mapping[str, Any]) -> bool:
    """Return whether the server's *row* has all values of *update*, as far as can be compared."""
    return all(
        name in row and same_value(value, row[name]) for name, value in update.values.items()
    )


def same_value(sent: Any, found: Any) -> bool:
    """Return whether *found* is what a server returns for *sent*; lists are never compared."""
    return found is None if sent is None else _is_discriminating(sent) and _same(sent, found)


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
