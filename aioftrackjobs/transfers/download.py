"""Downloads files from the server location ``ftrack.server``, and resumes interrupted downloads.

Each attempt asks for the bytes that the :class:`.PartialFile` does not have yet, with ``Range`` and
``If-Range``. If the file on the server has changed, the download begins anew. Where the server
redirects to a store, each request gets a new URL from it, because such URLs expire.

A response with status 200 may be the page of a login or of a proxy, or end early without a sign. So
the file must have the size that its component has, and the MD5 digest that a header contains, and a
page for people is an attempt that has failed. An entity tag that looks like an MD5 digest is taken
for one, as those of object stores are. If neither a size nor a digest is known, the result says so.

Source:
    docs/protocol.md, section 6.5.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn, Self, TypeAlias

import anyio
from anyio.to_thread import run_sync

from aioftrackjobs.background import SafeLogger
from aioftrackjobs.entities.context import EntityContext
from aioftrackjobs.errors import FtrackJobsError, TransferError
from aioftrackjobs.models import Entity, remote_value
from aioftrackjobs.protocol.headers import (
    decode_content_md5,
    decode_content_range,
    decode_etag,
    decode_md5_etag,
    decode_media_type,
    decode_strong_etag,
)
from aioftrackjobs.protocol.query import key_criteria, select
from aioftrackjobs.protocol.upload import may_have_expired
from aioftrackjobs.protocol.values import Reference
from aioftrackjobs.transfers.control import (
    RENEWALS,
    Attempts,
    Meter,
    ProgressCallback,
    RetryableError,
    StopToken,
    failure_of,
    observing,
    run_in_background,
)
from aioftrackjobs.transfers.partial_file import PartialFile
from aioftrackjobs.transport import Download, WireRequest

logger: SafeLogger = SafeLogger(__name__)

_WHOLE, _PART, _NO_SUCH_RANGE = 200, 206, 416

#: Types of bodies that may be a page for people, or an error, and the extensions of such files.
_MESSAGES: Mapping[str, tuple[str, ...]] = {
    "text/html": (".html", ".htm", ".xhtml", ".shtml"),
    "application/xhtml+xml": (".html", ".htm", ".xhtml"),
    "application/json": (".json",),
    "application/problem+json": (),
}

#: What shows that a file is complete: a digest of its bytes, or only their number.
Proof: TypeAlias = Literal["digest", "size"]

if TYPE_CHECKING:
    _Path = Path
else:
    _Path = type(Path())  # before Python 3.12, Path itself cannot be a base


class DownloadedFile(_Path):
    """The path of a file that was downloaded.

    Attributes:
        verified_by: What shows that it is complete: the MD5 "digest" in a header of the response,
            or only its "size" in bytes. None if the server has told neither, so that it may have
            been cut off.
    """

    verified_by: Proof | None = None

    @classmethod
    def at(cls, path: Path, verified_by: Proof | None) -> Self:
        """Return the *path* of a file that is complete."""
        made = cls(path)
        made.verified_by = verified_by
        return made


class _Facts(NamedTuple):
    """What a component says of its file.

    Attributes:
        size: In bytes; None if that is not known.
        file_type: Its extension, with the leading dot.
    """

    size: int | None = None
    file_type: str | None = None


async def download(
    context: EntityContext,
    component: Entity | str,
    path: Path,
    *,
    resume: bool = False,
    checksum: bool = True,
    progress: ProgressCallback | None = None,
) -> DownloadedFile:
    """Download the file of *component* to *path*, and return the path.

    The file has a temporary name beside *path* until it is complete.

    Raises:
        TransferError: The server has no such file, it is incomplete, or it cannot be written.
        TransportError: The server could not be reached.
    """
    component_id = component if isinstance(component, str) else component["id"]
    connection = context.connection
    file = PartialFile(path, component_id, lasting=resume)
    meter = Meter(None, progress)
    file_download = FileDownload(context, component_id, file, meter, path.suffix, checksum=checksum)
    try:
        async with connection.transfer_limiter.admit():
            with observing(connection.observer, "download", meter):
                await run_in_background(
                    connection.background, file_download.run, file_download.stop_token
                )
    except OSError as exc:
        raise TransferError(f"{path} cannot be written: {exc.strerror}") from exc
    if file_download.verified_by is None:
        logger.warning(
            "%(path)s may be incomplete: neither its size nor its digest is known", path=path
        )
    return DownloadedFile.at(path, file_download.verified_by)


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
        verified_by: What shows that the file is complete, if anything does.
    """

    def __init__(
        self,
        context: EntityContext,
        component_id: str,
        file: PartialFile,
        meter: Meter,
        suffix: str,
        *,
        checksum: bool,
    ) -> None:
        self.stop_token: StopToken = StopToken()
        self.verified_by: Proof | None = None
        self._connection = context.connection
        self._facts = _known_facts(context, component_id)
        self._suffix = suffix
        self._checksum = checksum
        self._component_id = component_id
        self._label = f"component {component_id}"
        self._file = file
        self._meter = meter
        self._attempts = Attempts(context.connection.retry, self.stop_token)
        self._md5: bytes | None = None
        self._is_text = False
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
                if self._md5 is None:
                    self._note_digest(response, is_part=True)
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
        await self._refuse_message(response)
        size = self._facts.size if self._facts is not None else None
        if None not in (size, response.size) and size != response.size:
            raise RetryableError(self._wrong_size(response.size))
        self._meter.total = response.size if size is None else size
        self._note_digest(response)
        restart = partial(self._file.restart, hashed=self._md5 is not None)
        await run_sync(restart, decode_strong_etag(response.headers))

    def _is_same(self, response: Download) -> bool:
        """Return whether a part belongs to the file so far, as some servers ignore ``If-Range``."""
        tag = decode_etag(response.headers)
        return tag is None or self._file.tag is None or tag == self._file.tag.strip('"')

    async def _refuse_message(self, response: Download) -> None:
        """Raise RetryableError if *response* is not the file, but a page for people or an error."""
        media_type = decode_media_type(response.headers)
        self._is_text = media_type.startswith("text/")
        if (extensions := _MESSAGES.get(media_type)) is None:
            return
        facts = await self._ask()
        is_such_file = (facts.file_type or self._suffix).lower() in extensions
        if not is_such_file and (facts.size is None or facts.size != response.size):
            problem = f"{media_type} arrived in place of {self._label}: a page, or an error"
            raise RetryableError(TransferError(problem))

    async def _ask(self) -> _Facts:
        """Return what the component says of its file; ask the server if that is not known.

        It is asked once, and the download goes on without an answer.
        """
        if self._facts is None:
            reference = Reference("Component", (("id", self._component_id),))
            expression = select(_ATTRIBUTES, "Component", key_criteria([reference]))
            self._facts = _Facts()
            try:
                query = {"action": "query", "expression": expression}
                (result,) = await self._connection.api.call([query])
                (row,) = result["data"]
                if row["id"] == self._component_id:
                    self._facts = _facts_of(row)
            except (FtrackJobsError, LookupError, TypeError, ValueError):
                logger.debug("the size of %(file)s is not known", file=self._label, exc_info=True)
        return self._facts

    async def _verify(self) -> None:
        size, total = self._file.size, self._meter.total
        if total is not None and size != total:
            problem = f"{self._label} broke off after {size} of {total} bytes"
            if size > total:
                await self._restart(problem)
            raise RetryableError(TransferError(problem))
        if self._md5 is not None and await run_sync(self._file.md5) != self._md5:
            await self._restart(f"{self._label} arrived damaged: its MD5 digest differs")
        # A body of the announced length is only in question if it may be a text for people.
        is_doubtful = total is None or self._is_text or await run_sync(self._file.is_text)
        facts = await self._ask() if is_doubtful else self._facts or _Facts()
        if facts.size is not None and size != facts.size:
            await self._restart(str(self._wrong_size(size)))
        if self._md5 is not None:
            self.verified_by = "digest"
        elif total is not None or facts.size is not None:
            self.verified_by = "size"

    def _note_digest(self, response: Download, *, is_part: bool = False) -> None:
        """Note the MD5 digest of the file that *response* has in its headers, if any."""
        if not self._checksum:
            return
        self._md5 = decode_content_md5(response.headers, is_part=is_part)
        tag = decode_md5_etag(response.headers)
        if self._md5 is None and tag is not None:
            self._md5 = bytes.fromhex(tag)

    def _wrong_size(self, size: int | None) -> TransferError:
        expected = self._facts.size if self._facts is not None else None
        return TransferError(
            f"{size} bytes arrived as {self._label}, whose size is {expected}; if its file is "
            "right, correct the component's size"
        )

    async def _restart(self, problem: str) -> NoReturn:
        """Discard the bytes so far, so that the next attempt begins at the first byte."""
        await run_sync(self._file.restart, None)
        raise RetryableError(TransferError(problem))


_ATTRIBUTES = ("id", "size", "file_type", "system_type")


def _known_facts(context: EntityContext, component_id: str) -> _Facts | None:
    """Return what is known of a component's file here; None if its size is not."""
    for kind in ("FileComponent", "Component"):
        component = context.identity.find(kind, [component_id])
        if component is not None and remote_value(component, "size") is not None:
            return _facts_of({name: remote_value(component, name) for name in _ATTRIBUTES})
    return None


def _facts_of(row: Mapping[str, Any]) -> _Facts:
    """Return what a component's *row* says of its file. A size of 0 means that it is not known."""
    size, file_type = row.get("size"), row.get("file_type")
    is_file = row.get("system_type") in ("file", None)
    has_size = is_file and isinstance(size, int) and size > 0
    return _Facts(size if has_size else None, file_type if isinstance(file_type, str) else None)
