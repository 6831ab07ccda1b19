"""Frames of Socket.IO 0.9: ``type:id[+]:endpoint:data`` (docs/protocol.md, section 7.2)."""

from __future__ import annotations

import re
from typing import Any, Final

from pydantic_core import from_json, to_json

EVENT_NAME: Final = "ftrack.event"
CONNECT: Final = "1::"
HEARTBEAT: Final = "2::"
EVENT_PREFIX: Final = "5:::"
_FRAME = re.compile(r"([0-8]):(\d{0,18})\+?:([^:]*)(?::(.*))?", re.DOTALL)


class FrameError(Exception):
    """A frame, or the event in it, that the hub cannot use; the text is for its sender."""


def read_frame(text: str) -> tuple[str, str, str]:
    """Return the type of a frame, its number, which is empty if it has none, and its data.

    The types are: 0 disconnect, 2 heartbeat, 5 event, and others.
    """
    match = _FRAME.fullmatch(text)
    if match is None:
        raise FrameError("A frame is 'type:id:endpoint:data', with a type from 0 to 8.")
    kind, packet_id, _, data = match.groups(default="")
    return kind, packet_id, data


def read_event(data: str, largest: int) -> dict[str, Any]:
    """Return the event in the data of a frame of type 5, which takes *largest* characters."""
    if len(data) > largest:
        raise FrameError(f"An event takes {largest} characters at most.")
    try:
        payload = from_json(data, allow_inf_nan=False)
    except ValueError as error:
        raise FrameError(f"The event is not JSON: {error}.") from None
    match payload:
        case {"name": "ftrack.event", "args": [{"topic": str(topic)} as event]} if topic:
            return dict(event)
    raise FrameError(
        f'An event is {{"name": "{EVENT_NAME}", "args": [EVENT]}}, and EVENT has a "topic".'
    )


def event_frame(event: dict[str, Any]) -> str:
    """Return the frame that brings *event* to a client; without a number, as JavaScript needs."""
    return EVENT_PREFIX + to_json({"name": EVENT_NAME, "args": [event]}).decode()


def acknowledgement(packet_id: str, error: str | None = None) -> str:
    """Return the response to a numbered frame; the Python client takes exactly one argument."""
    result = {"success": True} if error is None else {"success": False, "message": error}
    return f"6:::{packet_id}+{to_json([result]).decode()}"


def error_frame(reason: str) -> str:
    """Return the response to a frame without a number that the hub cannot use."""
    return f"7:::{reason}+"
