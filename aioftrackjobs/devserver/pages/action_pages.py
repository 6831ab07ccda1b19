"""The page with the project tree and the actions that clients offer for a selection."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from urllib.parse import urlencode

import anyio
from anyio.to_thread import run_sync
from pydantic_core import from_json
from starlette.responses import Response

from aioftrackjobs.devserver.api_errors import RequestError
from aioftrackjobs.devserver.engine import Engine
from aioftrackjobs.devserver.events.actions import MESSAGE
from aioftrackjobs.devserver.pages.access import Run, Visit
from aioftrackjobs.devserver.pages.forms import entered, form_in
from aioftrackjobs.devserver.pages.rendering import html
from aioftrackjobs.devserver.pages.streams import Streams
from aioftrackjobs.protocol.query import quote

#: Entities of a project that the tree shows, and messages that are listed.
_MOST_ENTITIES, _MOST_MESSAGES = 2000, 20
#: Users that wait for replies at the same time, each in a thread.
_AT_ONCE = 8


class ActionPages:
    """The page that does with actions what the web interface does."""

    def __init__(self, engine: Engine, run: Run, streams: Streams) -> None:
        self._engine = engine
        self._run = run
        self._streams = streams
        self._waiting = anyio.CapacityLimiter(_AT_ONCE)
        engine.hub.observe(MESSAGE, lambda _: streams.wake())

    async def show(self, visit: Visit) -> Response:
        """Show the tree of a project."""
        return await self._page(visit, project=visit.request.query_params.get("project", ""))

    async def _page(self, visit: Visit, status: int = 200, **values: Any) -> Response:
        projects = await self._run(self._find, "select id, name, full_name from Project", "name")
        known = [each["id"] for each in projects]
        project = values.pop("project", "") or visit.field("project")
        project = project if project in known else known[0] if known else ""
        tree = await self._run(self._tree, project) if project else {}
        shown = {"items": None, "form": None, "item": "", "reply": None, "errors": [], **values}
        messages = self._messages()
        return visit.page(
            "actions.html",
            status,
            projects=projects,
            project=project,
            tree=tree,
            most=_MOST_ENTITIES,
            selection=visit.form.get("selection", []),
            stream=f"/pages/actions/stream?{urlencode({'since': len(messages)})}",
            messages=messages[:_MOST_MESSAGES],
            **shown,
        )

    def _find(self, query: str, order: str, most: int = 500) -> list[dict[str, Any]]:
        response = self._engine.query(f"{query} order by {order} limit {most}")
        found: list[dict[str, Any]] = from_json(response)[0]["data"]
        return found

    def _tree(self, project: str) -> dict[str, list[dict[str, Any]]]:
        """Return the entities of a project by the id of their parent."""
        query = f"select id, name, parent_id from TypedContext where project_id is {quote(project)}"
        tree = defaultdict[str, list[dict[str, Any]]](list)
        for entity in self._find(query, "name", _MOST_ENTITIES):
            tree[entity["parent_id"]].append(entity)
        return tree

    def _messages(self) -> list[dict[str, Any]]:
        return self._engine.actions.messages[::-1]

    async def stream(self, visit: Visit) -> Response:
        """Send the messages that clients send to the web interface."""
        request = visit.request
        position = request.headers.get("last-event-id") or request.query_params.get("since", "")

        async def step(position: str) -> tuple[str, Mapping[str, Any] | None]:
            messages = self._messages()
            now_at = str(len(messages))
            if now_at == position:
                return now_at, None
            part = html("action.html", "message_list", messages=messages[:_MOST_MESSAGES])
            return now_at, {"rows": [], "gone": [], "is_all": False, "parts": [part]}

        return self._streams.respond(step, position)

    async def discover(self, visit: Visit) -> Response:
        """Show the actions for a selection."""
        actions = self._engine.actions
        selection, user = _selection(visit), visit.user.username
        items, errors = await self._wait(partial(actions.discover, selection, user=user))
        return await self._page(visit, items=items or [], errors=errors)

    async def launch(self, visit: Visit) -> Response:
        """Launch an action, and show its reply."""
        item, form = _json_in(visit, "item"), form_in(_json_in(visit, "form"))
        values, errors = None, list[str]()
        if form is not None:
            values, form, errors = entered(form, lambda name: visit.form.get(name, []))
        reply: Any = None
        if not errors:
            launch = partial(self._engine.actions.launch, item, _selection(visit), values=values)
            reply, errors = await self._wait(partial(launch, user=visit.user.username))
        if errors or (isinstance(reply, dict) and reply.get("success") is False):
            next_form = form  # with what was entered
        else:
            next_form = form_in(reply)
        status = 422 if errors else 200
        return await self._page(
            visit, status, item=item, form=next_form, reply=_shown(reply), errors=errors
        )

    async def _wait(self, function: Callable[[], Any]) -> tuple[Any, list[str]]:
        """Return what *function* returns, and what is wrong."""
        try:
            return await run_sync(function, limiter=self._waiting), []
        except (LookupError, TimeoutError, TypeError, ValueError) as error:
            text = str(error)
            return None, [f"{text[:1].upper()}{text[1:]}."]


def _selection(visit: Visit) -> list[tuple[str, str]]:
    """Return the types and ids of the selected entities."""
    pairs = [text.partition(":") for text in visit.form.get("selection", [])]
    return [(name, own_id) for name, _, own_id in pairs]


def _json_in(visit: Visit, name: str) -> dict[str, Any]:
    try:
        value = from_json(visit.field(name) or "{}")
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise RequestError(f"The field '{name}' has no JSON object.")
    return value


def _shown(reply: Any) -> dict[str, Any] | None:
    """Return a reply that is no form for a page: a text, and whether it is good news."""
    if reply is None or form_in(reply) is not None:
        return None
    if isinstance(reply, dict) and isinstance(reply.get("message"), str):
        return {
            "is_good": reply.get("success") is not False,
            "text": reply["message"],
            "data": None,
        }
    is_good = not isinstance(reply, dict) or reply.get("success") is not False
    return {"is_good": is_good, "text": "The action has replied.", "data": reply}
