"""Trials: launches for tests, which need neither an event hub nor a browser."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import anyio

from aioftrackjobs.actions.action_event import table_of
from aioftrackjobs.actions.declaration import Action
from aioftrackjobs.actions.forms import plain
from aioftrackjobs.actions.service import ActionService, Run
from aioftrackjobs.errors import ArgumentError
from aioftrackjobs.models import Entity, JobState
from aioftrackjobs.session import AsyncSession


@dataclass(frozen=True, slots=True)
class LaunchOutcome:
    """What came out of a launch.

    Attributes:
        reply: The reply to the launch: a form, or a result with ``success`` and
            ``message``.
        job: The state of the Job at its end; None if there was none.
        messages: What the web interface shows after that.
        error: What the function has raised.
    """

    reply: dict[str, Any]
    job: JobState | None
    messages: list[dict[str, Any]]
    error: BaseException | None


async def try_launch(
    session: AsyncSession,
    actions: Iterable[Action],
    identifier: str,
    selection: Iterable[Any],
    values: Mapping[str, Any] | None,
    user: str | None,
) -> LaunchOutcome:
    """Launch an action, and wait for its end."""
    event = _event(session, selection, user)
    event["data"]["actionIdentifier"] = identifier
    if values is not None:
        given = {name: plain(value) for name, value in values.items()}
        event["data"]["values"] = given or {"": ""}  # a form that was sent as it came
    messages: list[dict[str, Any]] = []
    runs: list[Run] = []

    async def note(_: str, data: Mapping[str, Any], __: str) -> None:
        messages.append(dict(data))

    async with anyio.create_task_group() as group:
        service = ActionService(session, actions, group, note, concurrency=1)
        service.on_run = runs.append
        reply = await service.launch(event)
    run = runs[0] if runs else None
    return LaunchOutcome(
        reply or {},
        None if run is None else run.state,
        messages,
        None if run is None else run.error,
    )


async def try_discovery(
    session: AsyncSession, actions: Iterable[Action], selection: Iterable[Any], user: str | None
) -> list[dict[str, Any]]:
    """Return the items that are offered for *selection*."""

    async def ignore(_: str, __: Mapping[str, Any], ___: str) -> None:
        pass

    async with anyio.create_task_group() as group:
        service = ActionService(session, actions, group, ignore, concurrency=1)
        reply = await service.discover(_event(session, selection, user))
    items: list[dict[str, Any]] = (reply or {}).get("items", [])
    return items


def _event(session: AsyncSession, selection: Iterable[Any], user: str | None) -> dict[str, Any]:
    return {
        "data": {"selection": [_selected(each) for each in selection]},
        "source": {"user": {"username": session.api_user if user is None else user}},
    }


def _selected(entity: Any) -> dict[str, str]:
    match entity:
        case Entity():
            return {"entityType": table_of(entity.entity_type), "entityId": entity["id"]}
        case {"entityType": str(), "entityId": str()}:
            return dict(entity)
        case {"__entity_type__": str() as kind, "id": str() as own_id}:
            return {"entityType": table_of(kind), "entityId": own_id}
        case (str() as kind, str() as own_id):
            return {"entityType": table_of(kind), "entityId": own_id}
        case _:
            raise ArgumentError(
                "each of selection", "an entity, or its type and id", f"a {type(entity).__name__}"
            )
