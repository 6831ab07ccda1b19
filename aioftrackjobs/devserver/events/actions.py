"""Actions without a browser: what the web interface asks of clients, and what it would show.

See docs/protocol.md, section 7.8.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from queue import Empty, SimpleQueue
from typing import Any
from uuid import uuid4

from aioftrackjobs.devserver.events.hub import Event, EventHub
from aioftrackjobs.devserver.schema.model import Model

MESSAGE = "ftrack.action.trigger-user-interface"
_REPLY = "ftrack.meta.reply"


class Actions:
    """Discovers and launches the actions of connected clients, as the web interface does.

    ::

        task = server.inspector.find("Task")[0]
        item, = server.actions.discover([task], user="maya")
        form = server.actions.launch(item, [task], user="maya")
        reply = server.actions.launch(item, [task], user="maya", values={"frames": "1001-1010"})
        assert reply["success"]

    A selection has entities: as queries and sessions return them, as pairs of type and id, or as
    events have them, ``{"entityType": "task", "entityId": ...}``. All methods wait for replies, so
    a program whose event loop replies calls them in another thread: ``anyio.to_thread.run_sync``.

    Attributes:
        messages: Data of the messages that clients have sent to the web interface, in order.
    """

    def __init__(
        self,
        hub: EventHub,
        model: Model,
        user_id: Callable[[str], str | None],
        api_user: str,
    ) -> None:
        self._hub = hub
        self._model = model
        self._user_id = user_id
        self._api_user = api_user
        self._id = uuid4().hex
        self._waiting: dict[str, SimpleQueue[Event]] = {}
        self.messages: list[dict[str, Any]] = []
        hub.observe(MESSAGE, self._note_message)
        hub.observe(_REPLY, self._note_reply)

    def discover(
        self, selection: Iterable[Any] = (), *, user: str | None = None, timeout: float = 2.0
    ) -> list[dict[str, Any]]:
        """Return the items of all actions that clients offer for a selection.

        Args:
            selection: See above.
            user: Name of the acting user; the server's own if not given.
            timeout: Seconds to wait for clients that do not reply.
        """
        data = {"selection": self._selection(selection)}
        items = list[dict[str, Any]]()
        for reply in self._ask("ftrack.action.discover", data, user, timeout, every=True):
            found = reply.get("items", ()) if isinstance(reply, dict) else reply
            items += [item for item in found or () if isinstance(item, dict)]
        return items

    def launch(
        self,
        item: Mapping[str, Any] | str,
        selection: Iterable[Any] = (),
        *,
        user: str | None = None,
        values: Mapping[str, Any] | None = None,
        timeout: float = 10.0,
    ) -> Any:
        """Launch an action, and return what its client replies: a result, or a form to fill in.

        Args:
            item: An item of :meth:`discover`, or the identifier of an action.
            selection: See above.
            user: Name of the acting user; the server's own if not given.
            values: What the user has entered into the form of an earlier reply.
            timeout: Seconds to wait for the reply.

        Raises:
            LookupError: If no connected client has this action for this user.
            TimeoutError: If no client has replied in time.
        """
        data: Event = {"actionIdentifier": item} if isinstance(item, str) else dict(item)
        data["selection"] = self._selection(selection)
        if values is not None:
            data["values"] = dict(values)
        for reply in self._ask("ftrack.action.launch", data, user, timeout, every=False):
            return reply
        name = data.get("actionIdentifier")
        raise TimeoutError(f"no client has replied to the launch of {name!r} in {timeout:g} s")

    def _selection(self, selection: Iterable[Any]) -> list[dict[str, Any]]:
        return [self._selected(each) for each in map(selected, selection)]

    def _selected(self, entity: Mapping[str, Any] | tuple[str, str]) -> dict[str, Any]:
        if isinstance(entity, Mapping):
            return dict(entity)
        name, own_id = entity
        known = self._model.types.get(name)
        if known is None:
            raise _no_entity(entity)
        return {"entityId": own_id, "entityType": known.table_name}

    def _ask(
        self, topic: str, data: Event, user: str | None, timeout: float, *, every: bool
    ) -> list[Any]:
        """Return the data of the replies to an event: the first, or those of all subscribers."""
        username = self._api_user if user is None else user
        event_id = uuid4().hex
        event = {
            "topic": topic,
            "id": event_id,
            "data": data,
            "sent": None,
            "source": {
                "id": self._id,
                "applicationId": "ftrack.client.web",
                "user": {"username": username, "id": self._user_id(username)},
            },
            "target": "",
            "inReplyToEvent": None,
        }
        replies = self._waiting[event_id] = SimpleQueue()
        try:
            expected = self._hub.publish_from_thread(event)
            if not expected and not every:
                raise LookupError(
                    f"no connected client has the action {data.get('actionIdentifier')!r} for "
                    f"{username}"
                )
            deadline, found = time.monotonic() + timeout, list[Any]()
            while len(found) < (expected if every else 1):
                try:
                    reply = replies.get(timeout=max(0.0, deadline - time.monotonic()))
                except Empty:
                    break
                found.append(reply.get("data"))
            return found
        finally:
            del self._waiting[event_id]

    def _note_reply(self, event: Event) -> None:
        if (waiting := self._waiting.get(str(event.get("inReplyToEvent")))) is not None:
            waiting.put(event)

    def _note_message(self, event: Event) -> None:
        if isinstance(data := event.get("data"), dict):
            self.messages.append(data)


def selected(entity: Any) -> Mapping[str, Any] | tuple[str, str]:
    """Return an entry of a selection as an event has it, or as the type and the id of an entity.

    Raises:
        ValueError: If it is none.
    """
    name: Any
    own_id: Any
    match entity:
        case {"entityId": _, "entityType": _}:
            return dict(entity)
        case (str() as name, own_id):
            pass
        case {"__entity_type__": str() as name, "id": own_id}:
            pass
        case _:
            name, own_id = getattr(entity, "entity_type", None), getattr(entity, "id", None)
            own_id = entity["id"] if own_id is None and isinstance(entity, Mapping) else own_id
    if not name or not own_id:
        raise _no_entity(entity)
    return str(name), str(own_id)


def _no_entity(entity: Any) -> ValueError:
    return ValueError(
        f"a selection has entities, or pairs of entity type and id, but not {entity!r}"
    )
