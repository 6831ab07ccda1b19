"""Serving: the actions on the event hub of a session."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import anyio

from aioftrackjobs.actions.declaration import Action
from aioftrackjobs.actions.service import ActionService
from aioftrackjobs.errors import FtrackJobsError
from aioftrackjobs.session import AsyncSession

if TYPE_CHECKING:
    from aioftrackjobs.events import Event

#: Events that are handled at the same time, and that may wait. A launch waits for its Job only.
_AT_ONCE, _QUEUE = 100, 10_000


def _ignore(_: object) -> None:
    """Do nothing about lost discoveries: a late reply is of no use."""


async def serve(session: AsyncSession, actions: Iterable[Action], *, concurrency: int) -> None:
    """Reply to discoveries and launches until this is cancelled, or the session closes."""
    hub = session.events
    failure: FtrackJobsError | None = None  # raised outside of the task group, which would wrap it

    async def publish(topic: str, data: Mapping[str, Any], target: str) -> None:
        await hub.publish(topic, dict(data), target, wait=False)

    async with anyio.create_task_group() as group:
        service = ActionService(session, actions, group, publish, concurrency=concurrency)

        async def discover(event: Event) -> dict[str, Any] | None:
            return await service.discover(event)

        async def launch(event: Event) -> dict[str, Any] | None:
            return await service.launch(event)

        hub.on(
            "topic=ftrack.action.discover",
            concurrency=_AT_ONCE,
            queue=_QUEUE,
            on_gap=_ignore,
            on_lag=_ignore,
        )(discover)
        hub.on("topic=ftrack.action.launch", concurrency=_AT_ONCE, queue=_QUEUE)(launch)
        try:
            await hub.run()
        except FtrackJobsError as exc:
            failure = exc
        finally:
            hub.off(discover)
            hub.off(launch)
        group.cancel_scope.cancel()
    if failure is not None:
        raise failure
