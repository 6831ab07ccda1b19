"""JobEvents: what wakes those who wait for Jobs, or run them, before they read the Jobs again.

It listens only if the program uses the event hub for something else, because it is not proven that
ftrack publishes changes of Jobs (docs/protocol.md, section 7.7). Therefore sessions that stop a Job
publish an event of their own, too. Events are only a reason to read the Job.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from aioftrackjobs.errors import FtrackJobsError

if TYPE_CHECKING:
    from aioftrackjobs.events import Event, EventHub

#: The topic of the event that one Job was changed: ``{"job_id": "..."}``.
CHANGED = "aioftrackjobs.job-changed"

#: What ``ftrack.update`` calls the type of a Job.
_TABLE = "job"


class JobEvents:
    """Listens for changes of Jobs, and publishes them.

    Args:
        wake: Called with the ids of Jobs that may have changed; None for all.

    Attributes:
        hub: The event hub of the session; None if the program has not used it.
    """

    def __init__(self, wake: Callable[[Collection[str] | None], None]) -> None:
        self._wake = wake
        self._is_listening = False
        self.hub: EventHub | None = None

    def listen(self) -> None:
        """Listen from now on, if the hub is in use; called again and again."""
        if self._is_listening or self.hub is None or not self.hub.is_started:
            return
        self._is_listening = True
        for expression, where in (("topic=ftrack.update", _has_job), (f"topic={CHANGED}", None)):
            self.hub.on(
                expression,
                where=where,
                concurrency=1,
                on_gap=self._note_loss,
                on_lag=self._note_loss,
            )(self._note)

    async def publish(self, job_id: str) -> None:
        """Publish that a Job was changed, if the hub is in use."""
        if self.hub is not None and self.hub.is_started:
            with suppress(FtrackJobsError):  # the owner reads the Job all the same
                await self.hub.publish(CHANGED, {"job_id": job_id}, wait=False)

    async def _note(self, event: Event) -> None:
        ids = {each["entityId"] for each in _jobs_in(event)}
        if isinstance(event.data, Mapping) and isinstance(event.data.get("job_id"), str):
            ids.add(event.data["job_id"])
        self._wake(ids)

    def _note_loss(self, _: object) -> None:
        self._wake(None)


def _has_job(event: Event) -> bool:
    return bool(_jobs_in(event))


def _jobs_in(event: Event) -> list[Mapping[str, Any]]:
    entities = event.data.get("entities") if isinstance(event.data, Mapping) else None
    return [
        each
        for each in (entities if isinstance(entities, list) else ())
        if isinstance(each, Mapping)
        and each.get("entityType") == _TABLE
        and isinstance(each.get("entityId"), str)
    ]
