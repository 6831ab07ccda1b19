"""Actions of the clients of a server in another process."""

from __future__ import annotations

import builtins
import json
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from aioftrackjobs.devserver.events.actions import selected

#: Seconds between two questions whether the clients have replied.
_PAUSE = 0.01


class ProcessActions:
    """What :attr:`FtrackServer.actions` is for a server in the same process.

    All methods wait for replies, so a program whose event loop replies calls them in another
    thread: ``anyio.to_thread.run_sync``.

    Args:
        request: Sends a request to the process, and returns the response to it.
    """

    def __init__(self, request: Callable[[str, Any], str]) -> None:
        self._request = request

    @property
    def messages(self) -> list[dict[str, Any]]:
        """Data of the messages that clients have sent to the web interface, in order."""
        found: list[dict[str, Any]] = json.loads(self._request("messages", ""))
        return found

    def discover(
        self, selection: Iterable[Any] = (), *, user: str | None = None, timeout: float = 2.0
    ) -> list[dict[str, Any]]:
        """Return the items of all actions that clients offer for a selection.

        Args:
            selection: Entities, or pairs of entity type and id.
            user: Name of the acting user; the server's own if not given.
            timeout: Seconds to wait for clients that do not reply.
        """
        chosen = list(map(selected, selection))
        items: list[dict[str, Any]] = self._call("discover", chosen, user=user, timeout=timeout)
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
            selection: Entities, or pairs of entity type and id.
            user: Name of the acting user; the server's own if not given.
            values: What the user has entered into the form of an earlier reply.
            timeout: Seconds to wait for the reply.

        Raises:
            LookupError: No connected client has this action for this user.
            TimeoutError: No client has replied in time.
        """
        wanted = item if isinstance(item, str) else dict(item)
        entered = None if values is None else dict(values)
        chosen = list(map(selected, selection))
        return self._call("launch", wanted, chosen, user=user, values=entered, timeout=timeout)

    def _call(self, method: str, *arguments: Any, **named: Any) -> Any:
        """Return what a method of the actions returns in the other process."""
        # Other requests go through the same pipe meanwhile, such as those of the action itself.
        number = self._request("call", {"method": method, "arguments": arguments, "named": named})
        while not (outcome := json.loads(self._request("outcome", number))):
            time.sleep(_PAUSE)
        if "error" in outcome:
            raise getattr(builtins, outcome["error"])(outcome["text"])
        return outcome["value"]
