"""What clients send and receive: the latest requests and events, for a page to show."""

from __future__ import annotations

import secrets
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import monotonic
from typing import Any, Final
from urllib.parse import parse_qs

from pydantic_core import from_json, to_json
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aioftrackjobs.devserver.faults.connections import INJECTED
from aioftrackjobs.devserver.faults.middleware import FaultMiddleware, is_page
from aioftrackjobs.devserver.faults.plan import Faults
from aioftrackjobs.devserver.pages import request_log
from aioftrackjobs.devserver.pages.streams import Streams

#: Entries that are kept, bytes of a body that are, and characters of one that are shown.
MOST_ENTRIES, _LARGEST_BODY, _SHOWN = 300, 16 * 1024, 3000
#: Operations of a request that are named, and characters of each.
_NAMED, _LONGEST_NAME = 3, 160
#: How the body of a response begins that is an error.
_REFUSAL = b'{"exception"'
#: Addresses whose last part is a secret, or is as good as one.
_SIGNED = ("/upload", "/socket.io/1/websocket")
#: Parameters of an address that name the user, where no header does.
_USER_PARAMETERS = ("api_user", "username")
#: Key in a scope for the user of a connection to the event hub, whose address does not name it.
USER: Final = "aioftrackjobs.user"


@dataclass(slots=True, eq=False)
class Entry:
    """A request, or an event.

    Attributes:
        number: Its place in the order of arrival.
        version: Up to which change of the traffic it is right.
        kind: ``request`` or ``event``.
        name: Method and path; the topic of an event.
        user: Who has sent it, if that is known.
        status: Status of the response; None as long as there is none.
        seconds: How long it took; None as long as it runs.
        fault: The injected fault.
        refusal: The error in the response to a batch, whose status is 200.
        receivers: The number of subscribers that an event is for.
        content: The body, or the event, if it is not too big; in JSON.
        size: Bytes of it.
    """

    number: int
    kind: str
    name: str
    user: str
    version: int = 0
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    status: int | None = None
    seconds: float | None = None
    fault: object = None
    refusal: str = ""
    receivers: int = 0
    content: bytes = b""
    size: int = 0

    @property
    def state(self) -> str:
        """How it has ended, for the colour of its row."""
        if self.kind == "event":
            return "event"
        if self.fault is not None:
            return "faulty"
        if self.seconds is None:
            return "open"
        is_bad = self.status is None or self.status >= 400 or self.refusal
        return "refused" if is_bad else "good"

    @property
    def summary(self) -> str:
        """What it is about: the operations of a batch, the entities of an event."""
        content = self._parsed()
        if isinstance(content, list):
            names = [_name_of(each) for each in content[:_NAMED] if isinstance(each, dict)]
            more = f" and {len(content) - _NAMED} more" if len(content) > _NAMED else ""
            return ", ".join(names) + more
        if isinstance(content, dict) and self.kind == "event":
            return _event_summary(content)
        return ""

    @property
    def text(self) -> str:
        """Its content, for people."""
        content = self._parsed()
        if content is None:
            return f"{self.size} bytes" if self.size else ""
        text = to_json(content, indent=2).decode()
        return f"{text[:_SHOWN]}\n…" if len(text) > _SHOWN else text

    def _parsed(self) -> Any:
        try:
            return from_json(self.content) if len(self.content) == self.size else None
        except ValueError:
            return None


class Traffic:
    """The latest requests to a server, and events from the first view of their page on.

    Attributes:
        faults: The faults of the server; None if it does not run by :func:`running`.
    """

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._lock = threading.Lock()
        self._start = secrets.token_hex(4)
        self._number = 0
        self._version = 0
        self._entries = deque[Entry](maxlen=MOST_ENTRIES)
        self.faults: Faults | None = None

    @property
    def position(self) -> str:
        """Up to which change all is known now."""
        return f"{self._start}-{self._version}"

    def since(self, position: str) -> tuple[list[Entry], bool]:
        """Return what is new after *position*, the latest first, and whether that is all."""
        start, _, text = position.partition("-")
        version = int(text) if start == self._start and text.isdecimal() else -1
        with self._lock:
            entries = [each for each in reversed(self._entries) if each.version > version]
        return entries, version < 0

    def note_changes(self, changes: object) -> None:
        """Forget all when the server is reset."""
        if changes is None:
            with self._lock:
                self._start = secrets.token_hex(4)
                self._entries.clear()
            self._streams.wake()

    def around(self, app: FaultMiddleware) -> ASGIApp:
        """Return *app*, whose requests are noted."""
        self.faults = app.faults

        async def serve(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] in ("http", "websocket") and not is_page(scope):
                await self._serve(app, scope, receive, send)
            else:
                await app(scope, receive, send)

        return serve

    async def _serve(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        began = monotonic()
        path = next((each for each in _SIGNED if scope["path"].startswith(each)), scope["path"])
        entry = self._add("request", f"{scope.get('method', 'WS')} {path}", _user_in(scope))
        largest = request_log.LARGEST_LOGGED_BODY if request_log.is_logging() else _LARGEST_BODY

        async def note_body() -> Message:
            message = await receive()
            body = message.get("body", b"")
            entry.size += len(body)
            if entry.size <= largest:
                entry.content += body
            return message

        async def note_status(message: Message) -> None:
            if message["type"] == "http.response.start":
                entry.status = message["status"]
            elif message["type"] == "websocket.accept":
                entry.status, entry.user = 101, scope.get(USER, entry.user)
                request_log.log_connection(entry)
            elif message.get("body", b"").startswith(_REFUSAL):
                entry.refusal = _refusal_in(message["body"])
            await send(message)

        try:
            await app(scope, note_body if path == "/api" else receive, note_status)
        finally:
            entry.seconds, entry.fault = monotonic() - began, scope.get(INJECTED)
            request_log.log_end(entry)
            if len(entry.content) > _LARGEST_BODY:
                entry.content = b""
            self._change(entry)

    def note_event(self, event: Mapping[str, Any], receivers: int) -> None:
        """Note an event of the hub; from any thread."""
        source = event.get("source")
        user = source.get("user") if isinstance(source, dict) else None
        name = str(user.get("username") or "") if isinstance(user, dict) else ""
        content = to_json(event)
        entry = self._add("event", str(event.get("topic")), name)
        entry.receivers, entry.size = receivers, len(content)
        if len(content) <= _LARGEST_BODY:
            entry.content = content
        self._change(entry)

    def _add(self, kind: str, name: str, user: str) -> Entry:
        with self._lock:
            self._number += 1
            entry = Entry(self._number, kind, name, user)
            self._entries.append(entry)
        self._change(entry)
        return entry

    def _change(self, entry: Entry) -> None:
        with self._lock:
            self._version += 1
            entry.version = self._version
        self._streams.wake()


def _user_in(scope: Scope) -> str:
    value = next((value for name, value in scope["headers"] if name == b"ftrack-user"), b"")
    if value:
        return str(value.decode("utf-8", "replace"))
    parameters = parse_qs(scope["query_string"].decode("latin-1"))
    return next((parameters[name][0] for name in _USER_PARAMETERS if name in parameters), "")


def _refusal_in(body: bytes) -> str:
    try:
        error = from_json(body)
    except ValueError:
        return "an error that is sent in parts"
    return f"{error.get('exception')}: {error.get('content')}"


def _name_of(operation: Mapping[str, Any]) -> str:
    """Return an operation in short."""
    parts = [str(operation.get("action", ""))]
    if "expression" in operation:
        parts.append(str(operation["expression"]))
    elif "entity_type" in operation:
        data = operation.get("entity_data")
        names = (
            [each for each in data if each != "__entity_type__"] if isinstance(data, dict) else []
        )
        parts.append(
            f"{operation['entity_type']} ({', '.join(names)})"
            if names
            else str(operation["entity_type"])
        )
    text = " ".join(parts)
    return f"{text[:_LONGEST_NAME]}…" if len(text) > _LONGEST_NAME else text


def _event_summary(event: Mapping[str, Any]) -> str:
    data = event.get("data")
    entities = data.get("entities") if isinstance(data, dict) else None
    if isinstance(entities, list):
        known = [each for each in entities if isinstance(each, dict)]
        names = [f"{each.get('action')} {each.get('entity_type')}" for each in known[:_NAMED]]
        more = f" and {len(known) - _NAMED} more" if len(known) > _NAMED else ""
        return ", ".join(names) + more
    target = event.get("target")
    return f"to {target}" if target else ""
