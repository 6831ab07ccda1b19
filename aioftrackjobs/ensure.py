"""Find or create: the entity that has given values afterwards, whichever it takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from aioftrackjobs.commit.unit_of_work import UnitOfWork
from aioftrackjobs.errors import MultipleResultsFoundError, QueryParameterError
from aioftrackjobs.models import Entity, remote_value
from aioftrackjobs.protocol.query import equality_criteria, select
from aioftrackjobs.results import fetch_page
from aioftrackjobs.workspace import Workspace

#: Stands for what the answer did not bring, and so differs from every value.
_NOT_TOLD = object()


async def ensure(
    workspace: Workspace,
    kind: type[Entity] | str,
    data: Mapping[str, Any],
    identifying_keys: Sequence[str] | None,
) -> Entity:
    """Return the entity of *kind* that has *data*: found and brought up to date, or created.

    Raises:
        QueryParameterError: There is nothing to tell the entity by.
        MultipleResultsFoundError: Several entities have the identifying values.
    """
    model = workspace.model(kind)
    keys = list(data) if identifying_keys is None else list(identifying_keys)
    if missing := [name for name in keys if name not in data]:
        raise QueryParameterError(f"identifying keys without a value: {', '.join(missing)}")
    if not keys:
        raise QueryParameterError(f"nothing tells which {model.entity_type} is meant")
    criteria = equality_criteria(dict(_criterion(name, data[name]) for name in keys))
    projections = dict.fromkeys((*model.primary_key_attributes, *data))
    expression = select(projections, model.entity_type, criteria)
    rows, _ = await fetch_page(workspace, f"{expression} limit 2")
    if len(rows) > 1:
        raise MultipleResultsFoundError(expression)
    unit = UnitOfWork(workspace)
    entity = rows[0] if rows else workspace.create(kind, data, unit=unit)
    if rows:
        wanted = {name: model.checked_value(name, value) for name, value in data.items()}
        changes = {name: value for name, value in wanted.items() if _differs(entity, name, value)}
        if changes:
            unit.set(entity, **changes)
    try:
        await unit.commit()
    except BaseException:
        unit.rollback()
        raise
    return entity


def _criterion(name: str, value: object) -> tuple[str, object]:
    """Return what to compare: an entity by its id."""
    return (f"{name}.id", value) if isinstance(value, Entity) else (name, value)


def _differs(entity: Entity, name: str, wanted: object) -> bool:
    """Tell whether the server has another value; it keeps times in whole seconds only.

    Local changes are not looked at: the flow that made them may take them back.
    """
    if isinstance(wanted, datetime):
        wanted = wanted.replace(microsecond=0)
    return bool(remote_value(entity, name, _NOT_TOLD) != wanted)
