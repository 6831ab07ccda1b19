"""The envelope of events: from the wire to plain fields, and back.

What other clients send may have any shape. :func:`read_event` returns an event whenever there is a
topic: a field of a wrong type gets its default, and keys that are not known are kept.

Source:
    docs/protocol.md, section 7.4.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic_core import from_json, to_json

from aioftrackjobs.errors import UnserialisableValueError

NAME: Final = "ftrack.event"
SUBSCRIBE: Final = "ftrack.meta.subscribe"
UNSUBSCRIBE: Final = "ftrack.meta.unsubscribe"
REPLY: Final = "ftrack.meta.reply"
UPDATE: Final = "ftrack.update"
DISCOVER: Final = "ftrack.action.discover"
LAUNCH: Final = "ftrack.action.launch"

#: What begins the data of an event frame, as servers and clients write it.
_HEAD: Final = f'{{"name":"{NAME}","args":['


def read_event(data: str) -> dict[str, Any] | None:
    """Return the event in the data of an event frame, as the wire has it; None if there is none."""
    try:
        payload = from_json(data)
    except ValueError:
        return None
    match payload:
        case {"args": [{"topic": str(topic)} as event, *_]} if topic:
            found: dict[str, Any] = event
            return found
    return None


def encode_event(
    topic: str,
    data: Any,
    *,
    event_id: str,
    source: Mapping[str, Any],
    target: str = "",
    in_reply_to: str | None = None,
) -> str:
    """Return the data of a frame that publishes an event.

    It has the seven known keys only: the official Python client drops an event with any other.

    Raises:
        UnserialisableValueError: JSON cannot hold the *data*.
    """
    event = {
        "topic": topic,
        "id": event_id,
        "data": data,
        "sent": None,
        "source": source,
        "target": target,
        "inReplyToEvent": in_reply_to,
    }
    try:
        body = to_json(event, inf_nan_mode="null").decode()
    except (TypeError, ValueError, RecursionError):
        raise UnserialisableValueError(f"data of the event {topic}", _culprit(data)) from None
    return f"{_HEAD}{body}]}}"


def _culprit(value: Any, depth: int = 20) -> str:
    """Return the name of the type that JSON cannot hold."""
    members: list[Any] = []
    if isinstance(value, Mapping):
        members = list(value.values())
    elif isinstance(value, list | tuple):
        members = list(value)
    for member in members if depth else ():
        try:
            to_json(member)
        except (TypeError, ValueError, RecursionError):
            return _culprit(member, depth - 1)
    return type(value).__name__


def subscription_data(expression: str, subscriber: Mapping[str, Any]) -> dict[str, Any]:
    """Return the data of an event that subscribes to *expression*.

    Args:
        expression: See :mod:`.subscription`.
        subscriber: Its ``id``, and what the targets of other clients may test besides.
    """
    return {"subscriber": dict(subscriber), "subscription": expression}


def unsubscription_data(subscriber_id: str) -> dict[str, Any]:
    """Return the data of an event that ends a subscription."""
    return {"subscriber": {"id": subscriber_id}}


def address_of(event: Mapping[str, Any]) -> str | None:
    """Return the target that reaches the publisher of *event*; None if it has no id."""
    source = event.get("source")
    own_id = source.get("id") if isinstance(source, Mapping) else None
    return f"id={quoted(own_id)}" if isinstance(own_id, str) and own_id else None


def quoted(value: str) -> str:
    """Return *value* as expressions of subscriptions and targets hold it.

    Raises:
        ValueError: It has both kinds of quotes, which no expression can hold.
    """
    if value and value.isascii() and value.replace("-", "").replace("_", "").isalnum():
        return value
    if '"' in value and "'" in value:
        raise ValueError("an expression cannot hold a text with both kinds of quotes")
    return f"'{value}'" if '"' in value else f'"{value}"'
