"""Downloads files from the server location ``ftrack.server``, and resumes interrupted downloads.

Each attempt asks for the bytes that the :class:`.PartialFile` does not have yet, with ``Range`` and
``If-Range``. If the file on the server has changed, the download begins anew. Where the server
redirects to a store, each request gets a new URL from it, because such URLs expire.

Source:
    docs/protocol.md, section 6.5.
"""

from __future__ import annotations

from functools import partial
from itertools import count
from pathlib import Path
from typing import NoReturn

import anyio
from anyio.to_thread import run_sync

from aioftrackjobs.connection import Connection
from aioftrackjobs.entities.context import EntityContext
from aioftrackjobs.errors import TransferError
from aioftrackjobs.models import Entity
from aioftrackjobs.protocol.headers import (
    decode_content_md5,
    decode_content_range,
    decode_etag,
    decode_strong_etag,
)
from aioftrackjobs.protocol.upload import may_have_expired
from aioftrackjobs.transfers.control import (
    RENEWALS,
    Attempts,
    Meter,
    ProgressCallback,
    RetryableError,
    StopToken,
    failure_of,
    run_in_background,
)
from aioftrackjobs.transfers.partial_file import PartialFile
from aioftrackjobs.transport import Download, WireRequest

_WHOLE, _PART, _NO_SUCH_RANGE = 200, 206, 416


async def download(
    context: EntityContext,
    component: Entity | str,
    path: Path,
    *,
    resume: bool = False,
    progress: ProgressCallback | None = None,
) -> None:
    """Download the file of *component* to *path*.

    The file has a temporary name beside *path* until it is complete.

    Raises:
        TransferError: The server has no such file, it is incomplete, or it cannot be written.
        TransportError: The server could not be reached.
    """
    component_id = component if isinstance(component, str) else component["id"]
    connection = context.connection
    file = PartialFile(path, component_id, lasting=resume)
    file_download = FileDownload(connection, component_id, file, Meter(None, progress))
    try:
        async with connection.transfer_limiter.admit():
            await run_in_background(
                connection.background, file_download.run, file_download.stop_token
            )
    except OSError as exc:
        raise TransferError(f"{path} cannot be written: {exc.strerror}") from exc


class _RejectedError(Exception):
    """The URL of a download was rejected.

    Attributes:
        error: What to raise if no other URL is asked for.
    """

    def __init__(self, error: TransferError) -> None:
        super().__init__(error)
        self.error = error


class FileDownload:
    """The download of one file.

    Attributes:
        stop_token: Stops it.
    """

    def __init__(
        self, connection: Connection, component_id: str, file: PartialFile, meter: Meter
    ) -> None:
        self.stop_token = StopToken()
        self._connection = connection
        self._component_id = component_id
        self._label = f"component {component_id}"
        self._file = file
        self._meter = meter
        self._attempts = Attempts(connection.retry, self.stop_token)
        self._md5: bytes | None = None
        self._longest = 0  # bytes of the attempt that came furthest

    async def run(self) -> None:
        """Receive the file; an attempt that breaks off is continued by the next."""
        try:
            await run_sync(self._file.open)
            await self._attempts.run(self._attempt)
            await run_sync(self._file.finish)
            self._meter.finish(self._file.size)
        finally:
            with anyio.CancelScope(shield=True):
                await run_sync(self._file.close)

    async def _attempt(self) -> None:
        for renewals in count():
            try:
                await self._receive()
            except _RejectedError as exc:
                if renewals == RENEWALS:
                    raise exc.error from None
            else:
                return

    async def _receive(self) -> None:
        """Receive what is missing.

        Raises:
            _RejectedError: The URL that the server gave may have expired.
        """
        headers = {"accept-encoding": "identity"}
        if self._file.size and self._file.tag is not None:
            headers |= {"range": f"bytes={self._file.size}-", "if-range": self._file.tag}
        url = self._connection.component_url("get", self._component_id)
        request = WireRequest("GET", url, headers)
        async with (
            self._connection.transfer_limiter.requests,
            self._connection.transport.stream(request) as response,
        ):
            await self._accept(response)
            start = self._file.size

            def note() -> None:
                self.stop_token.check()
                if self._file.size > start:  # the bytes of earlier calls are no progress
                    self._note_progress()

            try:
                await response.save(self._file.write, note)
            finally:
                if self._file.size > start:
                    self._note_progress()
        await self._verify()

    def _note_progress(self) -> None:
        self._meter.set(0, self._file.size)
        if self._file.size > self._longest:
            self._longest = self._file.size
            self._attempts.reset()

    async def _accept(self, response: Download) -> None:
        """Prepare the file for the body of *response*: continue it, or begin anew."""
        if response.status == _PART:
            found = decode_content_range(response.headers)
            if found is not None and found[0] == self._file.size and self._is_same(response):
                self._meter.total = found[1]
                return
        if response.status in (_PART, _NO_SUCH_RANGE):
            await self._restart(f"{self._label} came with a range it does not have")
        if response.status != _WHOLE:
            error = TransferError(
                f"the server has no file for {self._label} (HTTP {response.status})"
            )
            if may_have_expired(response.status):
                raise _RejectedError(error)
            raise failure_of(response.status, response.headers, error)
        self._meter.total = response.size
        self._md5 = decode_content_md5(response.headers)
        restart = partial(self._file.restart, hashed=self._md5 is not None)
        await run_sync(restart, decode_strong_etag(response.headers))

    def _is_same(self, response: Download) -> bool:
        """Return whether a part belongs to the file so far, as some servers ignore ``If-Range``."""
        tag = decode_etag(response.headers)
        return tag is None or self._file.tag is None or tag == self._file.tag.strip('"')

    async def _verify(self) -> None:
        size, total = self._file.size, self._meter.total
        if total is not None and size != total:
            problem = f"{self._label} broke off after {size} of {total} bytes"
            if size > total:
                await self._restart(problem)
            raise RetryableError(TransferError(problem))
        if self._md5 is not None and self._file.md5() != self._md5:
            await self._restart(f"{self._label} arrived damaged")

    async def _restart(self, problem: str) -> NoReturn:
        """Discard the bytes so far, so that the next attempt begins at the first byte."""
        await run_sync(self._file.restart, None)
        raise RetryableError(TransferError(problem))
