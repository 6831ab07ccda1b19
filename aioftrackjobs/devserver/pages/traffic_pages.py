"""The page about requests, events and faults."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import fields
from inspect import getdoc
from typing import Any, get_args
from urllib.parse import urlencode

from anyio.to_thread import run_sync
from starlette.responses import RedirectResponse, Response

from aioftrackjobs.devserver.api_errors import RequestError
from aioftrackjobs.devserver.engine import Engine
from aioftrackjobs.devserver.errors import ServerStartError
from aioftrackjobs.devserver.faults.kinds import FAULTS, Named
from aioftrackjobs.devserver.faults.options import plan_faults
from aioftrackjobs.devserver.faults.plan import Faults
from aioftrackjobs.devserver.pages.access import Visit
from aioftrackjobs.devserver.pages.rendering import html
from aioftrackjobs.devserver.pages.streams import Streams
from aioftrackjobs.devserver.pages.traffic import MOST_ENTRIES, Entry, Traffic

PATH = "/pages/requests"
#: Which entries a page shows.
_SHOWN = ("all", "requests", "events", "faults")
#: Injected faults that the page lists.
_LISTED = 20


class TrafficPages:
    """The page about the traffic of *engine*, where faults are injected by hand."""

    def __init__(self, engine: Engine, streams: Streams, traffic: Traffic) -> None:
        self._engine = engine
        self._streams = streams
        self._traffic = traffic

    async def show(self, visit: Visit) -> Response:
        """Show the latest requests and events."""
        return await self._page(visit)

    async def _page(self, visit: Visit, status: int = 200, **form: Any) -> Response:
        self._engine.hub.watcher = self._traffic.note_event
        wanted, position = _wanted(visit), self._traffic.position
        entries, _ = self._traffic.since("")
        query = urlencode({"show": wanted, "since": position})

        def render() -> Response:
            return visit.page(
                "requests.html",
                status,
                entries=[each for each in entries if _is_wanted(each, wanted)],
                most=MOST_ENTRIES,
                stream=f"{PATH}/stream?{query}",
                shown=_SHOWN,
                wanted=wanted,
                **{**self._panel(), **form},
            )

        return await run_sync(render)

    async def stream(self, visit: Visit) -> Response:
        """Send the entries that are new or have changed."""
        request, wanted, token = visit.request, _wanted(visit), visit.token
        self._engine.hub.watcher = self._traffic.note_event
        position = request.headers.get("last-event-id") or request.query_params.get("since", "")

        async def step(position: str) -> tuple[str, Mapping[str, Any] | None]:
            now_at = self._traffic.position
            entries, is_all = self._traffic.since(position)
            if not entries and not is_all:
                return now_at, None

            def render() -> dict[str, Any]:
                some = [each for each in entries if _is_wanted(each, wanted)]
                return {
                    "rows": [html("traffic.html", "entry_row", entry=each) for each in some],
                    "gone": [],
                    "is_all": is_all,
                    "parts": [html("traffic.html", "fault_lists", token=token, **self._lists())],
                }

            return now_at, await run_sync(render)

        return self._streams.respond(step, position)

    def _panel(self) -> dict[str, Any]:
        """Return what the form for faults shows."""
        return {
            "kinds": [_described(kind) for kind in FAULTS],
            "matchers": get_args(Named),
            "form": {"fault": "drop", "amount": "", "on": "", "settings": ""},
            "error": "",
            **self._lists(),
        }

    def _lists(self) -> dict[str, Any]:
        faults = self._traffic.faults
        injected = () if faults is None else faults.injected
        return {
            "seed": None if faults is None else faults.seed,
            "planned": () if faults is None else faults.planned,
            "injected": [str(each) for each in reversed(injected[-_LISTED:])],
            "count": len(injected),
        }

    async def inject(self, visit: Visit) -> Response:
        """Plan a fault."""
        form = {name: visit.field(name).strip() for name in ("fault", "amount", "on", "settings")}
        try:
            settings = shlex.split(form["settings"])
            on = [f"on={form['on']}"] if form["on"] else []
            parts = [form["fault"], *filter(None, [form["amount"]]), *on, *settings]
            plan_faults(self._faults(), [":".join(parts)])
        except (ServerStartError, ValueError) as error:
            reason = error.reason if isinstance(error, ServerStartError) else str(error)
            return await self._page(visit, 422, form=form, error=f"{reason}.")
        return RedirectResponse(PATH, 303)

    async def reset(self, visit: Visit) -> Response:
        """Remove the planned faults; with a seed, start again with its random numbers."""
        seed = visit.field("seed").strip()
        if not seed:
            self._faults().clear()
        elif seed.isascii() and seed.isdecimal() and len(seed) < 20:
            self._faults().reset(int(seed))
        else:
            return await self._page(visit, 422, error="A seed is a whole number.")
        return RedirectResponse(PATH, 303)

    def _faults(self) -> Faults:
        if self._traffic.faults is None:
            raise RequestError("This server was started without faults.", 409)
        return self._traffic.faults


def _wanted(visit: Visit) -> str:
    wanted = visit.request.query_params.get("show", "")
    return wanted if wanted in _SHOWN else "all"


def _is_wanted(entry: Entry, wanted: str) -> bool:
    if wanted == "faults":
        return entry.fault is not None
    return wanted == "all" or wanted == f"{entry.kind}s"


def _described(kind: Any) -> dict[str, Any]:
    """Return a kind of fault for people: its names, what it does, its settings."""
    settings = [each for each in fields(kind) if each.name != "applied"]
    has_moment = len(settings) < len(fields(kind))
    names = [f"{kind.name}-before", f"{kind.name}-after"] if has_moment else [kind.name]
    defaults = [f"{each.name}={each.default}" for each in settings]
    return {"names": names, "what": (getdoc(kind) or "").partition("\n")[0], "settings": defaults}
