"""``/user/api_credentials``: where desktop tools let a browser log in (docs/protocol.md, 1.6).

A tool opens the page with a ``redirect_url``, which is its own small web server, and gets
``api_user`` and ``api_key`` there as query parameters. A real server knows the user by the session
of the browser; here the user enters name and key, or a test sends them in the usual headers.
"""

from __future__ import annotations

import html
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from aioftrackjobs.devserver.api_errors import InvalidCredentialsError, RequestError
from aioftrackjobs.devserver.engine import Engine
from aioftrackjobs.devserver.limits import read_body

#: Bytes of a form; and seconds that it may take.
_LARGEST, _SECONDS = 16 * 1024, 10.0
_HEADERS = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
_FORM = """<!doctype html><html lang=en><title>ftrack for development</title>
<h1>Log in {identifier}</h1><p>{note}</p>
<form method=post><p><label>User <input name=api_user value="{user}"></label>
<p><label>API key <input name=api_key type=password autofocus></label>
<p><button>Log in</button></form>"""


class LoginPage:
    """The endpoint of the page; it sends keys to hosts only that are trusted.

    Args:
        engine: The server.
        run: Runs a function in the thread of the database.
        is_trusted: Returns whether a host is this machine, or one that is trusted.
    """

    def __init__(
        self,
        engine: Engine,
        run: Callable[..., Awaitable[Any]],
        is_trusted: Callable[[str], bool],
    ) -> None:
        self._engine = engine
        self._run = run
        self._is_trusted = is_trusted

    async def respond(self, request: Request) -> Response:
        """Show the form; or send the browser to the tool, with credentials that are valid."""
        target = request.query_params.get("redirect_url", "")
        if not self._is_allowed(target):
            raise RequestError("'redirect_url' must be an address on this or a trusted host.")
        headers = request.headers
        given = {"api_user": headers.get("ftrack-user"), "api_key": headers.get("ftrack-api-key")}
        if request.method == "POST":
            given |= await self._form(request)
        if not given["api_key"]:
            return self._page(request, self._engine.api_user, "A tool wants to act for you.", 200)
        try:
            identity = self._engine.credentials.check(given["api_user"], given["api_key"])
            await self._run(self._engine.check_user, identity)
        except InvalidCredentialsError as error:
            return self._page(request, given["api_user"] or "", str(error), error.status)
        parts = urlsplit(target)
        query = urlencode([*parse_qsl(parts.query, keep_blank_values=True), *given.items()])
        return RedirectResponse(urlunsplit(parts._replace(query=query)), 303, _HEADERS)

    def _is_allowed(self, target: str) -> bool:
        try:
            parts = urlsplit(target)
            name = parts.hostname or ""
        except ValueError:
            return False
        return parts.scheme in {"http", "https"} and name != "" and self._is_trusted(name)

    async def _form(self, request: Request) -> dict[str, str]:
        body = await read_body(request, _LARGEST, seconds=_SECONDS, idle=_SECONDS)
        form = dict(parse_qsl(body.decode("utf-8", "replace")))
        return {name: form.get(name, "") for name in ("api_user", "api_key")}

    def _page(self, request: Request, user: str, note: str, status: int) -> Response:
        shown = {"identifier": request.query_params.get("identifier", ""), "note": note}
        texts = {name: html.escape(text) for name, text in (*shown.items(), ("user", user))}
        return HTMLResponse(_FORM.format_map(texts), status, _HEADERS)
