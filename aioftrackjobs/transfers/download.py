"""Downloading files from the server location ``ftrack.server``.

Source:
    protocol.md, section 6.5.
"""

from __future__ import annotations

from pathlib import Path

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
from aioftrackjobs.transfers.control import (
    Attempts,
    Meter,
    ProgressCallback,
    RetryableError,
    StopToken,
    run_in_background,
)
from aioftrackjobs.transfers.multipart import failure_of
from aioftrackjobs.transfers.partial_file import PartialFile
from aioftrackjobs.transport import Download, WireRequest

_WHOLE, _PART, _NO_SUCH_RANGE = 200, 206, 416


async def download(
    workspace: EntityContext,
    component: Entity | str,
    path: Path,
    *,
    resume: bool = False,
    progress: ProgressCallback | None = None,
) -> None:
    """Download the file of *component* to *path*.

    It grows under a temporary name beside *path*, and gets its own when it is complete.

    Raises:
        TransferError: The server has no such file, it was cut off, or it cannot be written.
        TransportError: The server cannot be reached.
    """
    component_id = component if isinstance(component, str) else component["id"]
    connection = workspace.connection
    file = PartialFile(path, component_id, lasting=resume)
    fetching = FileDownload(connection, component_id, file, Meter(None, progress))
    try:
        async with connection.transfer_limiter.admit():
            await run_in_background(connection.background, fetching.run)
    except OSError as exc:
        raise TransferError(f"{path} cannot be written: {exc.strerror}") from exc


class FileDownload:
    """The download of one file."""

    def __init__(
        self, connection: Connection, component_id: str, file: PartialFile, meter: Meter
    ) -> None:
        self._connection = connection
        self._component_id = component_id
        self._file = file
        self._meter = meter
        self._total: int | None = None
        self._digest: bytes | None = None
        self._most = 0

    async def run(self, halt: StopToken) -> None:
        """Fetch it all; what breaks off is continued."""
        try:
            await run_sync(self._file.open)
            attempts = Attempts(self._connection.retry, halt)
            await attempts.run(lambda: self._attempt(halt, attempts))
            await run_sync(self._file.finish)
            self._meter.finish(self._file.size)
        finally:
            with anyio.CancelScope(shield=True):
                await run_sync(self._file.leave)

    async def _attempt(self, halt: StopToken, attempts: Attempts) -> None:
        headers = {"accept-encoding": "identity"}
        if self._file.size and self._file.tag is not None:
            headers |= {"range": f"bytes={self._file.size}-", "if-range": self._file.tag}
        url = self._connection.component_url("get", self._component_id)
        request = WireRequest("GET", url, headers)
        async with (
            self._connection.transfer_limiter.requests,
            self._connection.transport.stream(request) as answer,
        ):
            await self._begin(answer)

            def note() -> None:
                halt.check()
                self._note_progress(attempts)

            try:
                await answer.save(self._file.write, note)
            finally:
                self._note_progress(attempts)
        await self._check(halt)

    def _note_progress(self, attempts: Attempts) -> None:
        self._meter.set(0, self._file.size)
        if self._file.size > self._most:  # further than any attempt before
            self._most = self._file.size
            attempts.renew()

    async def _begin(self, answer: Download) -> None:
        """Make the file ready for the body of *answer*."""
        if answer.status == _PART:
            begins = decode_content_range(answer.headers)
            if begins is not None and begins[0] == self._file.size and self._is_same(answer):
                self._total = self._meter.total = begins[1]
                return
        if answer.status in (_PART, _NO_SUCH_RANGE):
            await run_sync(self._file.restart, None)
            raise RetryableError(TransferError(f"{self._what} came with a range it does not have"))
        if answer.status != _WHOLE:
            error = TransferError(f"the server has no file for {self._what} (HTTP {answer.status})")
            raise failure_of(answer.status, answer.headers, error)
        await run_sync(self._file.restart, decode_strong_etag(answer.headers))
        self._total = self._meter.total = answer.size
        self._digest = decode_content_md5(answer.headers)

    def _is_same(self, answer: Download) -> bool:
        """Tell whether a part is of the file so far: not every store knows ``If-Range``."""
        tag = decode_etag(answer.headers)
        return tag is None or self._file.tag is None or tag == self._file.tag.strip('"')

    async def _check(self, halt: StopToken) -> None:
        size, total = self._file.size, self._total
        if total is not None and size != total:
            if size > total:
                await run_sync(self._file.restart, None)
            raise RetryableError(
                TransferError(f"{self._what} broke off after {size} of {total} bytes")
            )
        if self._digest is not None and await run_sync(self._file.md5, halt.check) != self._digest:
            await run_sync(self._file.restart, None)
            raise RetryableError(TransferError(f"{self._what} arrived damaged"))

    @property
    def _what(self) -> str:
        return f"component {self._component_id}"
