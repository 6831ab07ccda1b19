"""The endpoints for files: uploads, downloads, thumbnails and removal; and for widgets."""

from __future__ import annotations

import functools
import html
import os
import re
from pathlib import Path

import anyio
from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.types import Message, Receive, Scope, Send

from aioftrackjobs.devserver.api.administration import is_widget
from aioftrackjobs.devserver.api_errors import (
    EntityNotFoundError,
    InvalidCredentialsError,
    RequestError,
    TransferError,
)
from aioftrackjobs.devserver.engine import Engine
from aioftrackjobs.devserver.files.storage import IncomingFile, is_storable
from aioftrackjobs.devserver.files.thumbnails import LARGEST_SIZE, PLACEHOLDER, picture_of
from aioftrackjobs.devserver.files.upload_tokens import AnnouncedUpload
from aioftrackjobs.devserver.http.backpressure import DatabaseThread, Slot
from aioftrackjobs.devserver.http.upload_receiver import receive

#: Bytes of a file read at once: big enough that the change to a worker thread costs nothing.
_BLOCK = 2 * 1024 * 1024
#: Pixels of a thumbnail if the client names no size.
_THUMBNAIL_SIZE = 300


class FileEndpoints:
    """Endpoints that serve what is not a batch."""

    def __init__(self, engine: Engine, database: DatabaseThread) -> None:
        self._engine = engine
        self._database = database
        self._pictures = anyio.CapacityLimiter(2)
        self._uploads = anyio.CapacityLimiter(engine.limits.uploads)

    async def upload(self, request: Request) -> Response:
        """Receive the file that was announced for this address."""
        announced = self._engine.uploads.decode(request.path_params["token"])
        limits = self._engine.limits
        is_hashed = announced.upload is not None or announced.checksum is not None
        make = functools.partial(self._engine.storage.incoming, hashed=is_hashed)
        with Slot(self._uploads) as slot:
            await slot.acquire(
                limits.queue_timeout,
                f"{limits.uploads} uploads are running, and none of them ended within "
                f"{limits.queue_timeout:g} s.",
            )
            incoming = await run_sync(make, announced.component_id)
            try:
                await receive(request, incoming, announced, limits)
                tag = await run_sync(self._keep, announced, incoming)
            finally:
                incoming.discard()
        return Response(headers={"ETag": f'"{tag}"'})

    def _keep(self, announced: AnnouncedUpload, incoming: IncomingFile) -> str:
        if announced.upload is not None:
            return self._engine.parts.keep(announced, incoming)
        incoming.keep()
        return (incoming.md5() or os.urandom(16)).hex()

    async def download(self, request: Request) -> Response:
        """Send the file of a component."""
        path, name = await self._file(request)
        return _ComponentFile(path, filename=name)

    async def thumbnail(self, request: Request) -> Response:
        """Send a picture of a component that fits into the requested size."""
        path, _ = await self._file(request)
        size = request.query_params.get("size") or str(_THUMBNAIL_SIZE)
        if not re.fullmatch(r"[1-9][0-9]{0,4}", size):
            raise RequestError("The parameter 'size' must be a number of pixels.")
        make = functools.partial(picture_of, path, min(int(size), LARGEST_SIZE), keeps_png=True)
        picture, kind = await run_sync(make, limiter=self._pictures)
        return Response(picture, media_type=kind)

    async def remove(self, request: Request) -> Response:
        """Remove the file of a component, and the parts of uploads that are not completed.

        It is a GET with an effect, as on a real server.
        """
        component_id = self._component_id(request)
        await self._check_credentials(request)
        existed = await run_sync(self._engine.storage.remove, component_id)
        if not (await run_sync(self._engine.parts.discard_all, component_id) or existed):
            raise EntityNotFoundError("There is no file for this component.")
        return Response(b"{}", media_type="application/json")

    async def widget(self, request: Request) -> Response:
        """Send a page that names the widget which a real server would show here."""
        parameters = dict(request.query_params)
        if not is_widget(self._engine.uploads, parameters):
            raise InvalidCredentialsError
        shown = " ".join(parameters.get(name, "") for name in ("name", "entity_type", "entity_id"))
        page = f"<!doctype html><title>ftrack</title><p>Widget: {html.escape(shown)}"
        return HTMLResponse(page)

    async def _file(self, request: Request) -> tuple[Path, str]:
        component_id = self._component_id(request)
        signature = request.query_params.get("signature")
        if signature is None:
            await self._check_credentials(request)
        elif not self._engine.uploads.is_signature("get", component_id, signature):
            raise InvalidCredentialsError
        return await self._database.run(self._engine.file_of, component_id)

    def _component_id(self, request: Request) -> str:
        component_id = request.query_params.get("id", "")
        if not is_storable(component_id):
            raise RequestError("The parameter 'id' must be a component's id.")
        return component_id

    async def _check_credentials(self, request: Request) -> None:
        query, headers = request.query_params, request.headers
        # At first without the database: others must not wait for those who have no key.
        identity = self._engine.credentials.check(
            query.get("username") or headers.get("ftrack-user"),
            query.get("apiKey") or headers.get("ftrack-api-key"),
        )
        await self._database.run(self._engine.check_user, identity)


class _ComponentFile(FileResponse):
    """A file, sent in big blocks, as each block needs a change to a worker thread."""

    chunk_size = _BLOCK

    def set_stat_headers(self, stat_result: os.stat_result) -> None:
        """Set an entity tag that does not look like an MD5 digest of the file, as none is."""
        self.headers["etag"] = f'"{stat_result.st_mtime_ns:x}-{stat_result.st_size:x}"'
        super().set_stat_headers(stat_result)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file; respond with a JSON error object to a range that it does not have."""
        refused_with: int | None = None

        async def send_file(message: Message) -> None:
            nonlocal refused_with
            if message["type"] == "http.response.start" and message["status"] >= 400:
                refused_with = message["status"]
            if refused_with is None:
                await send(message)

        await super().__call__(scope, receive, send_file)
        if refused_with is not None:
            raise TransferError("There is no such range of this file.", status=refused_with)


async def no_thumbnail(_: Request) -> Response:
    """Send what clients show where there is no thumbnail."""
    return Response(PLACEHOLDER, media_type="image/png")
