"""Handshake and frames of Socket.IO 0.9, which ftrack's event hub speaks.

A frame is ``type:id[+]:endpoint:data``; the endpoint is always empty. Whatever a server sends,
:func:`read_frame` returns a frame: one that is not understood has the kind "" and ends nothing.

Source:
    docs/protocol.md, sections 7.1 to 7.3.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from pydantic_core import from_json

from aioftrackjobs.errors import MalformedResponseError

HANDSHAKE_PATH: Final = "/socket.io/1/"
WEBSOCKET_PATH: Final = "/socket.io/1/websocket/"

DISCONNECT: Final = "0"
CONNECT: Final = "1"
HEARTBEAT: Final = "2"
EVENT: Final = "5"
ACKNOWLEDGEMENT: Final = "6"
ERROR: Final = "7"

#: The frames that a client sends as they are.
HEARTBEAT_FRAME: Final = "2::"
DISCONNECT_FRAME: Final = "0::"

#: Seconds without a heartbeat after which the JavaScript client counts a connection as lost, for a
#: server that announces no number.
DEFAULT_SILENCE: Final = 15.0

_FRAME = re.compile(r"([0-8]):(\d{0,18})(\+?):([^:]*)(?::(.*))?", re.DOTALL)
_SESSION = re.compile(r"[\w.~+/=-]{1,256}", re.ASCII)
_LONGEST_SILENCE = 3600.0


class Handshake(NamedTuple):
    """What the server says in the handshake.

    Attributes:
        session_id: Names the session for which one WebSocket may be opened.
        silence: Seconds without any frame after which the connection counts as lost.
        has_heartbeats: Whether the server sends heartbeats within that time.
    """

    session_id: str
    silence: float
    has_heartbeats: bool


def read_handshake(status: int, text: str, url: str = "") -> Handshake:
    """Return what a response with *text* says: ``id:heartbeat timeout:close timeout:transports``.

    Raises:
        MalformedResponseError: It is no handshake, or offers no WebSocket.
    """
    session_id, _, rest = text.strip().partition(":")
    silence, _, rest = rest.partition(":")
    transports = rest.partition(":")[2]
    if not _SESSION.fullmatch(session_id) or ":" not in rest:
        problem = "the body is no handshake of an event hub"
    elif "websocket" not in transports.split(","):
        problem = "the event hub offers no WebSocket"
    else:
        seconds = _seconds(silence)
        return Handshake(session_id, seconds or DEFAULT_SILENCE, seconds is not None)
    raise MalformedResponseError(problem, status=status, excerpt=text[:200], url=url)


def _seconds(text: str) -> float | None:
    """Return a positive number of seconds; None if the server announces no heartbeats."""
    try:
        seconds = float(text)
    except ValueError:
        return None
    return min(seconds, _LONGEST_SILENCE) if seconds > 0 else None


class Frame(NamedTuple):
    """A frame from the server.

    Attributes:
        kind: One of the constants above, another digit, or "" if the frame is not understood.
        packet_id: Number to acknowledge; "" if the server wants no acknowledgement.
        data: The rest.
    """

    kind: str
    packet_id: str
    data: str


def read_frame(text: str) -> Frame:
    """Return the frame in *text*."""
    if text.startswith("5:::"):  # nearly all of them
        return Frame(EVENT, "", text[4:])
    match = _FRAME.fullmatch(text)
    if match is None:
        return Frame(text, "", "") if text in ("0", "1", "2") else Frame("", "", text)
    kind, packet_id, _, _, data = match.groups(default="")
    return Frame(kind, packet_id, data)


def event_frame(payload: str, packet_id: int | None = None) -> str:
    """Return the frame that publishes an event.

    Args:
        payload: The event in JSON, see :func:`.encode_event`.
        packet_id: Number under which the server acknowledges it; None for no acknowledgement.
    """
    number = "" if packet_id is None else f"{packet_id}+"
    return f"5:{number}::{payload}"


def acknowledgement_frame(packet_id: str) -> str:
    """Return the frame that acknowledges one of the server."""
    return f"6:::{packet_id}"


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """The server's response to a frame with a number.

    Attributes:
        packet_id: The number.
        refusal: Why the server refuses the event; None if it does not.
    """

    packet_id: int
    refusal: str | None


def read_acknowledgement(data: str) -> Acknowledgement | None:
    """Return the acknowledgement in *data*, ``number[+arguments]``; None if there is none."""
    number, _, arguments = data.partition("+")
    if not (number.isascii() and number.isdigit()):
        return None
    try:
        decoded: Any = from_json(arguments) if arguments else []
    except ValueError:
        decoded = []
    match decoded:
        case [{"success": False} as result, *_]:
            return Acknowledgement(int(number), str(result.get("message") or "no reason given"))
    return Acknowledgement(int(number), None)
