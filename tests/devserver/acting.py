"""A client that offers an action, for the tests of the pages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio

from aioftrackjobs.devserver import ServerHandle

from .hub_client import HubClient, connected

MESSAGE = "ftrack.action.trigger-user-interface"


@asynccontextmanager
async def offering(
    server: ServerHandle, items: list[Any], launch: Callable[[dict[str, Any]], Any]
) -> AsyncIterator[HubClient]:
    """Offer *items* for any selection, and reply what *launch* says; enter with another client."""
    async with (
        connected(server) as hub,
        connected(server) as other,
        anyio.create_task_group() as tasks,
    ):
        for topic in ("discover", "launch"):
            await hub.subscribe(f"topic=ftrack.action.{topic}")

        async def reply() -> None:
            while True:
                event = await hub.event()
                if event["topic"] == "ftrack.action.discover":
                    content = {"items": items}
                elif event["topic"] == "ftrack.action.launch":
                    content = launch(event["data"])
                else:
                    continue
                target, asked = f"id={event['source']['id']}", event["id"]
                await hub.publish(
                    "ftrack.meta.reply", data=content, target=target, inReplyToEvent=asked
                )

        tasks.start_soon(reply)
        yield other
        tasks.cancel_scope.cancel()
