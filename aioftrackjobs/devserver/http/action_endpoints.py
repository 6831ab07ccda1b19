"""Endpoints of this server alone: what :class:`Actions` does, for commands and pages.

``POST /actions/discover`` takes ``{"selection": [...]}`` and returns ``{"items": [...]}``.
``POST /actions/launch`` takes ``{"item": ..., "selection": [...], "values": {...}}`` and returns
``{"reply": ...}``. ``POST /actions/messages`` returns ``{"messages": [...]}``. All act for the user
of the credentials in their headers, as ``POST /api`` does.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
from anyio.to_thread import run_sync
from pydantic_core import from_json, to_json
from starlette.requests import Request
from starlette.responses import Response

from aioftrackjobs.devserver.api_errors import EntityNotFoundError, RequestError
from aioftrackjobs.devserver.engine import Engine
from aioftrackjobs.devserver.http.backpressure import DatabaseThread
from aioftrackjobs.devserver.http.requests import BatchReader
from aioftrackjobs.devserver.http.responses import json_response

#: Requests that wait for replies at the same time, each in a thread.
_AT_ONCE = 8


class ActionEndpoints:
    """The endpoints for actions of the clients of *engine*."""

    def __init__(self, engine: Engine, database: DatabaseThread, reader: BatchReader) -> None:
        self._engine = engine
        self._database = database
        self._reader = reader
        self._waiting = anyio.CapacityLimiter(_AT_ONCE)

    async def discover(self, request: Request) -> Response:
        """Respond with the items of all actions for a selection."""
        user, data = await self._read(request)
        actions = self._engine.actions
        items = await self._run(partial(actions.discover, data.get("selection", ()), user=user))
        return json_response(to_json({"items": items}))

    async def launch(self, request: Request) -> Response:
        """Launch an action, and respond with its reply."""
        user, data = await self._read(request)
        match data:
            case {"item": str() | {"actionIdentifier": str()} as item}:
                pass
            case _:
                raise RequestError("A launch needs an 'item' with an 'actionIdentifier'.")
        selection, values = data.get("selection", ()), data.get("values")
        launch = partial(self._engine.actions.launch, item, selection, user=user, values=values)
        return json_response(to_json({"reply": await self._run(launch)}))

    async def messages(self, request: Request) -> Response:
        """Respond with what clients have sent to the web interface."""
        await self._read(request)
        return json_response(to_json({"messages": self._engine.actions.messages}))

    async def _read(self, request: Request) -> tuple[str, dict[str, Any]]:
        try:
            async with self._reader.read(request) as (caller, body):
                await self._database.run(self._engine.check_user, caller.identity)
                data = from_json(body or b"{}")
        except ValueError as error:
            raise RequestError(f"The request body is not JSON: {error}.") from None
        if not isinstance(data, dict):
            raise RequestError("The request body must be a JSON object.")
        return caller.identity.username, data

    async def _run(self, function: Callable[[], Any]) -> Any:
        try:
            return await run_sync(function, limiter=self._waiting)
        except (LookupError, TimeoutError, TypeError, ValueError) as error:
            text = str(error)
            sentence = f"{text[:1].upper()}{text[1:]}."
            if isinstance(error, LookupError):
                raise EntityNotFoundError(sentence) from None
            status = 504 if isinstance(error, TimeoutError) else None
            raise RequestError(sentence, status) from None
