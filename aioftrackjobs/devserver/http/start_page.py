"""The page at the address of the server itself: what this is, and what to do next."""

from __future__ import annotations

import html

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from aioftrackjobs.devserver.http.responses import json_response

_WHAT = "An ftrack server for development and tests, by aioftrackjobs."
_NEXT = (
    "Set FTRACK_SERVER to this address, and FTRACK_API_USER and FTRACK_API_KEY to what the server "
    "printed when it started. Then any ftrack client can use it."
)


async def start_page(request: Request) -> Response:
    """Say what this server is: as HTML to browsers, as JSON to others."""
    url = str(request.base_url).rstrip("/")
    if "text/html" not in request.headers.get("accept", ""):
        return json_response(to_json({"server": _WHAT, "next": _NEXT, "url": url, "api": "/api"}))
    return HTMLResponse(
        "<!doctype html><html lang=en><title>ftrack for development</title>"
        f"<h1>{html.escape(_WHAT)}</h1><p>{html.escape(_NEXT)}</p><p><code>{html.escape(url)}</code>"
    )
