"""The ASGI application: its routes, and its responses to errors."""

from __future__ import annotations

import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, Unpack

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute

from aioftrackjobs.devserver.api_errors import ApiError, RequestError
from aioftrackjobs.devserver.engine import Engine
from aioftrackjobs.devserver.http.action_endpoints import ActionEndpoints
from aioftrackjobs.devserver.http.backpressure import DatabaseThread
from aioftrackjobs.devserver.http.batch_endpoint import BatchEndpoint
from aioftrackjobs.devserver.http.event_endpoints import EventEndpoints
from aioftrackjobs.devserver.http.file_endpoints import FileEndpoints, no_thumbnail
from aioftrackjobs.devserver.http.requests import BatchReader
from aioftrackjobs.devserver.http.responses import CORS, error_response
from aioftrackjobs.devserver.http.trusted import TrustedMiddleware, is_trusted
from aioftrackjobs.devserver.options import Options, ServerOptions
from aioftrackjobs.devserver.pages.login import LoginPage
from aioftrackjobs.devserver.pages.routes import Pages

_FAILED = "The development server failed; its log says why."


def create_app(**options: Unpack[ServerOptions]) -> Starlette:
    """Return the server as an ASGI application; ``app.state.engine`` has user and key.

    The application is ready at once, whether or not its lifespan is run. It releases what it
    holds open when the lifespan ends, or else with the application itself.

    Raises:
        ServerStartError: If an option cannot be used.
    """
    made_from = Options(**options)
    return application_of(Engine(made_from), made_from.trusted_hosts)


def application_of(engine: Engine, trusted_hosts: Iterable[str]) -> Starlette:
    """Return the ASGI application that serves *engine*, and closes it when it ends."""
    database = DatabaseThread()
    reader = BatchReader(engine, database)
    files = FileEndpoints(engine, database)
    events = EventEndpoints(engine, database)
    hosts = frozenset(host.lower() for host in trusted_hosts)
    login = LoginPage(engine, database.run, lambda name: is_trusted(name, hosts))
    actions = ActionEndpoints(engine, database, reader)
    pages = Pages(engine, database.run)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            pages.streams.close()
            close()

    app = Starlette(
        routes=[
            Route("/api", BatchEndpoint(engine, database, reader), methods=["POST"]),
            Route("/upload/{token}", files.upload, methods=["PUT"]),
            Route("/component/get", files.download),
            Route("/user/api_credentials", login.respond, methods=["GET", "POST"]),
            _get_only("/component/remove", files.remove),
            Route("/component/thumbnail", files.thumbnail),
            Route("/img/thumbnail2.png", no_thumbnail),
            Route("/widget", files.widget),
            Route("/actions/discover", actions.discover, methods=["POST"]),
            Route("/actions/launch", actions.launch, methods=["POST"]),
            Route("/actions/messages", actions.messages, methods=["POST"]),
            Route("/socket.io/1/", events.handshake),
            *pages.routes,
            WebSocketRoute("/socket.io/1/websocket/{session}", events.websocket),
        ],
        middleware=[Middleware(TrustedMiddleware, hosts=trusted_hosts), CORS],
        exception_handlers={
            ApiError: lambda _, error: error_response(error),
            HTTPException: _http_error_response,
            Exception: lambda *_: error_response(RequestError(_FAILED, status=500)),
        },
        lifespan=lifespan,
    )
    close = weakref.finalize(app, engine.close)
    app.state.engine = engine
    app.state.reader = reader
    app.state.pages = pages
    return app


def _get_only(path: str, endpoint: Callable[[Request], Awaitable[Response]]) -> Route:
    """Return a route without HEAD, which Starlette adds to GET: GET has an effect here."""
    route = Route(path, endpoint, methods=["GET"])
    route.methods = {"GET"}
    return route


def _http_error_response(_: Request, error: Any) -> Response:
    response = error_response(RequestError(f"{error.detail}.", status=error.status_code))
    response.headers.update(error.headers or {})
    return response
