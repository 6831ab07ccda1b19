"""The ASGI application: addresses, and nothing that is not HTTP."""

from __future__ import annotations

import functools
import logging
import mimetypes
import os
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import anyio
from anyio.to_thread import run_sync
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from aioftrackjobs.devserver.engine import DEFAULT_API_USER, Answer, Engine, refused
from aioftrackjobs.devserver.receiving import receive
from aioftrackjobs.devserver.refusals import (
    CredentialsRefusal,
    NotFoundRefusal,
    Refusal,
    RequestRefusal,
    TransferRefusal,
)
from aioftrackjobs.devserver.storage import is_storable

logger = logging.getLogger(__name__)
Result = TypeVar("Result")

#: Bytes of a file read at once: big enough that the hop to a worker thread costs nothing.
_BLOCK = 2 * 1024 * 1024


def create_app(
    database: str | Path | None = None,
    storage: str | Path | None = None,
    schemas: Iterable[Mapping[str, Any]] | None = None,
    api_user: str = DEFAULT_API_USER,
    api_key: str | None = None,
) -> Starlette:
    """Return the server as an ASGI application; ``app.state.engine`` has user and key.

    It is ready at once, whether or not its lifespan is run. What it holds open is let go when
    the lifespan ends, or else with the application itself.

    Args:
        database: SQLite file; in memory if not given.
        storage: Folder for files; a temporary one if not given.
        schemas: Documents as ``query_schemas`` answers them; built-in ones if not given.
        api_user: User the server is made for; added if there is no such user.
        api_key: Key of *api_user*; made up, or kept from the database, if not given.

    Raises:
        ServerStartError: If one of these cannot be used; the subclass says which.
    """
    engine = Engine(database, storage, schemas, api_user, api_key)
    return application_of(engine)


def application_of(engine: Engine) -> Starlette:
    """Return the ASGI application that serves *engine*, and closes it in the end."""
    server = _Server(engine)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            closing()

    app = Starlette(
        routes=[
            Route("/api", server.api, methods=["POST"]),
            Route("/upload/{token}", server.upload, methods=["PUT"]),
            Route("/component/get", server.download),
            Route("/component/remove", server.remove),
            Route("/component/thumbnail", server.thumbnail),
        ],
        exception_handlers={
            Refusal: _refusal_response,
            HTTPException: _http_error_response,
            Exception: _failure_response,
        },
        lifespan=lifespan,
    )
    closing = weakref.finalize(app, engine.close)
    app.state.engine = engine
    return app


class _Server:
    """The endpoints. Only one thread at a time works on the engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._one_at_a_time = anyio.CapacityLimiter(1)

    async def _blocking(self, function: Callable[..., Result], *arguments: Any) -> Result:
        return await run_sync(function, *arguments, limiter=self._one_at_a_time)

    async def api(self, request: Request) -> Response:
        """Answer a batch of operations."""
        body = await request.body()
        answer = await self._blocking(
            self._engine.answer, body, request.headers, str(request.base_url)
        )
        return _json(answer)

    async def upload(self, request: Request) -> Response:
        """Take the file that was announced for this address."""
        announced = self._engine.uploads.announced(request.path_params["token"])
        make = functools.partial(
            self._engine.storage.incoming,
            announced.component_id,
            hashed=announced.checksum is not None,
        )
        incoming = await run_sync(make)
        try:
            await receive(request, incoming, announced)
            await run_sync(incoming.keep)
        except ClientDisconnect:
            raise TransferRefusal("The upload ended before all of it arrived.") from None
        finally:
            incoming.discard()
        return Response(headers={"ETag": f'"{(incoming.md5() or os.urandom(16)).hex()}"'})

    async def download(self, request: Request) -> Response:
        """Send the file of a component."""
        path, name = await self._file(request)
        return _ComponentFile(path, filename=name)

    async def thumbnail(self, request: Request) -> Response:
        """Send the file of a component if it is an image; thumbnails are not made yet."""
        path, name = await self._file(request)
        kind = mimetypes.guess_type(name)[0] or ""
        if not kind.startswith("image/"):
            raise NotFoundRefusal("There is no thumbnail of this component.")
        return _ComponentFile(path, media_type=kind)

    async def remove(self, request: Request) -> Response:
        """Remove the file of a component (a GET with an effect, as the real one)."""
        component_id = self._component_id(request)
        self._check_credentials(request)
        if not await run_sync(self._engine.storage.remove, component_id):
            raise NotFoundRefusal("There is no file for this component.")
        return Response(b"{}", media_type="application/json")

    async def _file(self, request: Request) -> tuple[Path, str]:
        component_id = self._component_id(request)
        signature = request.query_params.get("signature")
        if signature is None:
            self._check_credentials(request)
        elif not self._engine.uploads.is_signature(component_id, signature):
            raise CredentialsRefusal
        return await self._blocking(self._engine.file_of, component_id)

    def _component_id(self, request: Request) -> str:
        component_id = request.query_params.get("id", "")
        if not is_storable(component_id):
            raise RequestRefusal("The parameter 'id' must be a component's id.")
        return component_id

    def _check_credentials(self, request: Request) -> None:
        query, headers = request.query_params, request.headers
        self._engine.credentials.check(
            query.get("username") or headers.get("ftrack-user"),
            query.get("apiKey") or headers.get("ftrack-api-key"),
        )


class _ComponentFile(FileResponse):
    """A file, sent in blocks that keep hops to worker threads rare."""

    chunk_size = _BLOCK


def _json(answer: Answer) -> Response:
    return Response(answer.body, answer.status, media_type="application/json")


def _refusal_response(_: Request, refusal: Exception) -> Response:
    assert isinstance(refusal, Refusal)  # noqa: S101 - the class this handler is for
    return _json(refused(refusal, refusal.status))


def _http_error_response(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - the class this handler is for
    refusal = RequestRefusal(f"{error.detail}.", status=error.status_code)
    response = _json(refused(refusal, refusal.status))
    response.headers.update(error.headers or {})
    return response


def _failure_response(_: Request, error: Exception) -> Response:
    refusal = RequestRefusal("The development server failed; its log says why.", status=500)
    return _json(refused(refusal, 500))
