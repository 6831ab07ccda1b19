"""The event hub: what ``session.events`` is, and the events that it delivers."""

from aioftrackjobs.events.cursor import EventCursor
from aioftrackjobs.events.hub import EventHub
from aioftrackjobs.events.models import (
    ActionDiscover,
    ActionLaunch,
    AttributeChange,
    AttributeChanges,
    EntityChange,
    EntityReference,
    Event,
    EventUser,
    Gap,
    Lagged,
    UpdateEvent,
)
from aioftrackjobs.events.streams import EventStream, ReplyStream

__all__ = [
    "ActionDiscover",
    "ActionLaunch",
    "AttributeChange",
    "AttributeChanges",
    "EntityChange",
    "EntityReference",
    "Event",
    "EventCursor",
    "EventHub",
    "EventStream",
    "EventUser",
    "Gap",
    "Lagged",
    "ReplyStream",
    "UpdateEvent",
]
