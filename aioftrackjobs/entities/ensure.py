"""Find an entity or create it, once, however many tasks of a session ask for it at the same time.

Between the query that finds nothing and the commit that creates the entity, another task may do the
same. So each call waits for the earlier ones of its session that may create what it looks for, and
for no others. Other sessions are not known here: against those, only the server's own rules help,
such as that usernames are unique.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from aioftrackjobs.commit.unit_of_work import UnitOfWork
from aioftrackjobs.entities.context import EntityContext
from aioftrackjobs.entities.ensure_turns import EnsureTurn, comparable
from aioftrackjobs.errors import (
    MultipleResultsFoundError,
    QueryParameterError,
    SessionStateError,
)
from aioftrackjobs.models import Entity, remote_value
from aioftrackjobs.protocol.query import equality_criteria, select

#: The value of an attribute that is not loaded, which differs from every other value.
_NOT_LOADED = object()

#: A time as text, with a fraction of a second between the two groups.
_FRACTION = r"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d)[.,]\d+(\D.*)?"


async def ensure(
    context: EntityContext,
    kind: type[Entity] | str,
    data: Mapping[str, Any],
    identifying_keys: Sequence[str] | None,
) -> Entity:
    """Find the entity of *kind* and update it, or create it; return it with the values of *data*.

    Args:
        context: The session's entities.
        kind: A class or the name of an entity type.
        data: Values by attribute that the entity has afterwards.
        identifying_keys: The attributes to find it by; None for all of *data*.

    Raises:
        QueryParameterError: There are no identifying keys, or one has no value in *data*, or none
            by which an entity can be found.
        MultipleResultsFoundError: Several entities have the identifying values.
        EntityError: An entity in *data* is recorded, and not yet committed.
    """
    model = context.model(kind)
    names = _identifying_names(model, data, identifying_keys)
    wanted = {name: model.checked_value(name, value, context) for name, value in data.items()}
    for value in wanted.values():
        if isinstance(value, Entity):
            await context.require_created(value.__ftrack_reference__())
    criteria = equality_criteria(dict(_criterion(model, name, wanted[name]) for name in names))
    projections = dict.fromkeys((*model.primary_key_attributes, *data))
    expression = select(projections, model.entity_type, criteria)
    unit = context.new_unit()
    turn = EnsureTurn(model, wanted, names)
    earlier = context.ensuring.enter(turn)
    try:
        for each in earlier:
            await each.ended.wait()
        entity = await _find(context, expression)
        if entity is None:
            entity = context.create(kind, data, unit=unit)
        else:
            changes = {
                name: value for name, value in wanted.items() if _differs(entity, name, value)
            }
            if changes:
                unit.set(entity, **changes)
        await unit.commit()
    except BaseException:
        unit.rollback()
        _end_when_settled(context, unit, turn)
        raise
    context.ensuring.end(turn)
    return entity


def _identifying_names(
    model: type[Entity], data: Mapping[str, Any], identifying_keys: Sequence[str] | None
) -> list[str]:
    names = list(data) if identifying_keys is None else list(identifying_keys)
    if paths := [name for name in (*data, *names) if "." in name]:
        raise QueryParameterError(
            f"{model.entity_type} has no attribute {paths[0]!r}: ensure() takes attributes of the "
            "entity itself, and an entity as the value of a relation"
        )
    if missing := [name for name in names if name not in data]:
        raise QueryParameterError(f"identifying keys without a value: {', '.join(missing)}")
    if not names:
        raise QueryParameterError(f"no attributes are given to find the {model.entity_type} by")
    return names


def _criterion(model: type[Entity], name: str, value: object) -> tuple[str, object]:
    """Return the attribute to compare, and its value or a list of values that it may have.

    Entities are compared by their key.
    """
    if isinstance(value, Entity):
        reference = value.__ftrack_reference__()
        return f"{name}.{reference.key[0][0]}", value
    if isinstance(value, (list, tuple, set, frozenset, Mapping)):
        what = "mapping" if isinstance(value, Mapping) else "list"
        raise QueryParameterError(
            f"a {model.entity_type} cannot be found by the {what} in {name!r}; "
            "name identifying_keys without it"
        )
    if isinstance(value, str) and (match := re.fullmatch(_FRACTION, value)):
        # If the attribute is a time, which is only known of typed models, the server keeps whole
        # seconds of it.
        return name, [value, match[1] + (match[2] or "")]
    return name, value


async def _find(context: EntityContext, expression: str) -> Entity | None:
    rows, _ = await context.fetch_page(f"{expression} limit 2")
    if len(rows) > 1:
        raise MultipleResultsFoundError(expression)
    return rows[0] if rows else None


def _differs(entity: Entity, name: str, wanted: object) -> bool:
    """Return whether the server has another value.

    Local changes do not count, because the task that made them may take them back.
    """
    found = remote_value(entity, name, _NOT_LOADED)
    if isinstance(found, date):  # the wanted time may be a text, or a date
        return comparable(found) != comparable(wanted)
    return bool(found != wanted)


def _end_when_settled(context: EntityContext, unit: UnitOfWork, turn: EnsureTurn) -> None:
    """End *turn* when its commit has: that of a cancelled call may still be on its way."""

    async def leave() -> None:
        try:
            await unit.settled()
        finally:
            context.ensuring.end(turn)

    try:
        context.connection.background.spawn(leave)
    except SessionStateError:  # it is closed: no query will find anything
        context.ensuring.end(turn)
