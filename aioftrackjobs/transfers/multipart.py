"""Uploads the bytes of a file to the URLs that the server gives: whole, or in parallel parts.

How a multi-part upload resumes: each part has its own attempts (``_send_parts``). Parts that the
store has accepted are kept with their ETags, and only the part that failed is sent again. When all
parts have an ETag, one API call (``_complete``) makes the file. A whole file is sent again from its
first byte.

URLs of a store are signed, and expire after a while. If the store rejects one, the server is asked
for new ones, and the same part is sent again. It is not documented whether the server goes on with
the same upload then. If it begins a new one, all parts are sent again.

Source:
    docs/protocol.md, sections 6.3 and 6.4.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from itertools import count
from typing import Any, NoReturn, TypeVar

import anyio

from aioftrackjobs.commit.request import PendingRequest
from aioftrackjobs.config.secret import Secret
from aioftrackjobs.connection import Connection
from aioftrackjobs.errors import (
    ConnectError,
    FileChangedError,
    MalformedResponseError,
    ServerError,
    TransferError,
    TransportError,
)
from aioftrackjobs.models import FileComponent
from aioftrackjobs.protocol.headers import (
    REPEATABLE,
    decode_etag,
    decode_location,
    decode_md5_etag,
)
from aioftrackjobs.protocol.upload import (
    Part,
    PartSizes,
    PartTargets,
    UploadTarget,
    decode_part_targets,
    decode_upload_target,
    encode_upload_completion,
    encode_upload_request,
    may_have_expired,
    upload_file_name,
)
from aioftrackjobs.transfers.content import Content, HashUpdate
from aioftrackjobs.transfers.control import (
    RENEWALS,
    Attempts,
    Meter,
    ProgressCallback,
    RetryableError,
    StopToken,
    failure_of,
)
from aioftrackjobs.transport import WireRequest, WireResponse

T = TypeVar("T")

#: Parts of one file that are sent at the same time.
_PARALLEL = 4

#: How many requests are sent in all if the store redirects them.
_MOST_REQUESTS = 3

_SUCCESS, _BAD_REQUEST = 2, 400

#: Times that a whole file is sent if the server rejects it as it rejects damaged bytes.
_DAMAGED_ATTEMPTS = 3


class FileUpload:
    """The upload of one file.

    Args:
        connection: Connection to the ftrack server, which gives the URLs.
        component: The component that the file belongs to.
        content: The file.
        verified: Whether to hash the bytes, so that damage is noticed.
        sizes: How to cut the file into parts.
        progress: Called with the number of bytes sent.

    Attributes:
        stop_token: Stops it.
        has_begun: Whether the store may have received bytes.
        meter: Counts the bytes.
    """

    def __init__(
        self,
        connection: Connection,
        component: FileComponent,
        content: Content,
        *,
        verified: bool,
        sizes: PartSizes,
        progress: ProgressCallback | None,
    ) -> None:
        self.stop_token: StopToken = StopToken()
        self.has_begun: bool = False
        self._connection = connection
        self._component_id: str = component.id
        # Browsers save the file under this name.
        self._file_name = upload_file_name(component.name, component.file_type or "")
        self._content = content
        self._verified = verified
        self._sizes = sizes
        self.meter: Meter = Meter(content.size, progress)
        self._completion: PendingRequest | None = None

    async def run(self) -> None:
        """Send the file; requests that fail with a retryable error are repeated.

        Raises:
            TransferError: The file cannot be read, or the server did not accept it.
            FileChangedError: The file changed while it was sent.
            TransportError: The server could not be reached.
        """
        try:
            parts = self._sizes.cut(self._content.size)
        except ValueError as exc:
            raise TransferError(str(exc)) from None
        if len(parts) == 1:
            await self._send_whole()
        else:
            await self._send_parts(parts)
        self.meter.finish(self._content.size)

    async def completion_ended(self) -> None:
        """Wait until no request that was sent can make a file any more, even after a cancellation.

        The dispatcher goes on with a completion whose caller was cancelled.
        """
        if self._completion is not None:
            await self._completion.ended()

    async def _request_urls(self, decode: Callable[[Any], T], **details: Any) -> T:
        """Announce the file to the server, and return the decoded URLs to upload to."""
        operation = encode_upload_request(
            self._component_id,
            file_name=self._file_name,
            file_size=self._content.size,
            **details,
        )
        result = Secret((await self._connection.call([operation]))[0])
        self.has_begun = True
        urls = _decoded(decode, result)
        if isinstance(urls, MalformedResponseError):
            raise urls
        return urls

    def _attempts(self) -> Attempts:
        return Attempts(self._connection.retry, self.stop_token)

    # Whole

    async def _send_whole(self) -> None:
        checksum = await self._content.checksum() if self._verified else None
        announce = partial(self._request_urls, decode_upload_target, checksum=checksum)
        target = await announce()
        whole = Part(1, 0, self._content.size)
        rejections = 0

        async def put() -> WireResponse:
            nonlocal target
            for renewals in count():
                response, _ = await self._put(target, whole)
                if renewals == RENEWALS or not may_have_expired(response.status, response.body):
                    break
                target = await announce()
            return response

        async def attempt() -> None:
            nonlocal rejections
            response = await put()
            if checksum is not None and response.status == _BAD_REQUEST:
                rejections += 1
                if rejections < _DAMAGED_ATTEMPTS:
                    await self._suspect_damage(checksum)
            self._require_success(response)
            await self._content.require_unchanged()

        await self._attempts().run(attempt)

    async def _suspect_damage(self, checksum: str) -> NoReturn:
        """Raise RetryableError, because bytes that do not match their digest get HTTP 400, too.

        Raises:
            FileChangedError: They do not match because the file has changed.
        """
        await self._content.require_unchanged()
        if await self._content.checksum() != checksum:
            raise FileChangedError(f"{self._file_name!r} was written to while it was uploaded")
        raise RetryableError(
            TransferError(
                f"the upload of {self._file_name!r} was rejected with HTTP {_BAD_REQUEST}, "
                "as are bytes that arrive damaged"
            )
        )

    # In parts

    async def _send_parts(self, parts: Sequence[Part]) -> None:
        def decode(result: Any) -> PartTargets | None:
            if "urls" not in result and "url" in result:
                return None
            return decode_part_targets(result, len(parts))

        announce = partial(self._request_urls, decode, parts=len(parts))
        targets = await announce()
        if targets is None:  # the server has no multi-part uploads
            await self._send_whole()
            return
        progress = _PartsProgress(parts, targets)
        renew = partial(progress.renew, announce)

        async def work() -> None:
            upload_id = progress.targets.upload_id
            try:
                while progress.unsent and progress.targets.upload_id == upload_id:
                    attempt = partial(self._send_part, progress, progress.unsent.popleft(), renew)
                    await self._attempts().run(attempt)
            except Exception as exc:  # noqa: BLE001 - guard raises it for the whole upload
                self.stop_token.stop(exc)

        while progress.unsent:
            async with anyio.create_task_group() as workers:
                for _ in range(min(_PARALLEL, len(progress.unsent))):
                    workers.start_soon(work)
            self.stop_token.check()
        await self._content.require_unchanged()
        await self._complete(progress.targets, progress.tags)

    async def _send_part(
        self,
        progress: _PartsProgress,
        part: Part,
        renew: Callable[[PartTargets], Awaitable[bool]],
    ) -> None:
        """Send a part, and note its ETag; return without it if the server began a new upload."""
        while True:
            targets = progress.targets
            target = UploadTarget(targets.urls[part.number - 1], {})
            response, digest = await self._put(target, part)
            if not may_have_expired(response.status, response.body) or not await renew(targets):
                break
            if progress.targets.upload_id != targets.upload_id:
                return
        self._require_success(response)
        tag = decode_etag(response.headers)
        if tag is None:
            raise TransferError(f"the server gave no ETag for part {part.number} of an upload")
        # Some stores have tags that are no MD5 digest; these verify nothing.
        received = decode_md5_etag(response.headers)
        if self._verified and received is not None and received != digest:
            raise RetryableError(
                TransferError(f"part {part.number} of {self._file_name!r} arrived damaged")
            )
        if progress.targets.upload_id == targets.upload_id:
            progress.tags[part.number] = tag

    async def _complete(self, targets: PartTargets, tags: Mapping[int, str]) -> None:
        """Let the server join the parts.

        If an attempt ended without a response, it may have succeeded; then the server rejects the
        next attempt, because the upload exists no longer. The file itself shows what happened.
        """
        operation = encode_upload_completion(self._component_id, targets.upload_id, tags)
        dispatcher = self._connection.dispatcher
        is_uncertain = False

        async def attempt() -> None:
            nonlocal is_uncertain
            try:
                self._completion = dispatcher.submit_call([operation])
                await dispatcher.results(self._completion)
            except ConnectError:
                raise
            except TransportError:
                is_uncertain = True
                raise
            except ServerError:
                if not (is_uncertain and await self._has_arrived()):
                    raise

        await self._attempts().run(attempt)

    async def _has_arrived(self) -> bool:
        """Return whether the server has a file of the right size for the component."""
        url = self._connection.component_url("get", self._component_id)
        request = WireRequest("GET", url, {"accept-encoding": "identity"})
        async with self._connection.transport.stream(request) as response:
            return response.status // 100 == _SUCCESS and response.size == self._content.size

    # Requests

    async def _put(self, target: UploadTarget, part: Part) -> tuple[WireResponse, str]:
        """Send a part; return the response, and the MD5 digest of the bytes if they were hashed."""
        url = target.url
        # A file that is sent whole was hashed before, because the server needs the digest first.
        is_whole = part.stop - part.start == self._content.size
        is_hashed = self._verified and not is_whole
        for _ in range(_MOST_REQUESTS):
            md5 = hashlib.md5(usedforsecurity=False)
            update = md5.update if is_hashed else None
            body = _Body(self._content, part, update, self.stop_token, self.meter)
            request = WireRequest("PUT", url, _headers(target, part), body)
            async with self._connection.transfer_limiter.requests:
                response = await self._connection.transport.send(request)
            location = Secret(decode_location(url.reveal(), response.headers) or "")
            if response.status not in REPEATABLE or not location.reveal():
                break
            url = location
        return response, md5.hexdigest()

    def _require_success(self, response: WireResponse) -> None:
        if response.status // 100 != _SUCCESS:
            error = TransferError(
                f"the upload of {self._file_name!r} was rejected with HTTP {response.status}"
            )
            raise failure_of(response.status, response.headers, error)
        # A page with a success status comes from a proxy or a login form and not from a store. But
        # some stores give an empty body this content type.
        if response.body and response.headers.get("content-type", "").startswith("text/html"):
            raise RetryableError(
                TransferError(f"the response to the upload of {self._file_name!r} is an HTML page")
            )


def _decoded(decode: Callable[[Any], T], result: Secret[Any]) -> T | MalformedResponseError:
    """Return the URLs in *result*, or an error, which has no frames with them."""
    try:
        return decode(result.reveal())
    except (KeyError, TypeError, ValueError, AttributeError):
        return MalformedResponseError("no URLs to upload to", status=200)


def _headers(target: UploadTarget, part: Part) -> dict[str, str]:
    headers = {name.lower(): value for name, value in target.headers.items()}
    return {**headers, "content-length": str(part.stop - part.start)}


class _PartsProgress:
    """Which parts the store has accepted, and where the others go.

    Attributes:
        targets: The latest URLs of all parts.
        tags: The ETag of each part that was accepted, by its number.
        unsent: The parts that no worker has taken.
    """

    def __init__(self, parts: Sequence[Part], targets: PartTargets) -> None:
        self._parts = parts
        self.targets = targets
        self.tags: dict[int, str] = {}
        self.unsent = deque(parts)
        self._lock = anyio.Lock()
        self._renewals = 0
        self._most_accepted = 0

    async def renew(
        self, announce: Callable[[], Awaitable[PartTargets | None]], rejected: PartTargets
    ) -> bool:
        """Ask for new URLs, unless another worker has done so since *rejected* were given.

        If the server begins a new upload with them, no part of it is sent.

        Returns:
            False if that has not helped before.
        """
        async with self._lock:
            if self.targets is not rejected:
                return True
            if len(self.tags) > self._most_accepted:
                self._most_accepted, self._renewals = len(self.tags), 0
            if self._renewals == RENEWALS or (targets := await announce()) is None:
                return False
            self._renewals += 1
            if targets.upload_id != rejected.upload_id:
                self.tags, self.unsent = {}, deque(self._parts)
            self.targets = targets
            return True


class _Body:
    """The bytes of one part, as the transport reads them.

    Attributes:
        size: In bytes.
    """

    def __init__(
        self,
        content: Content,
        part: Part,
        update: HashUpdate | None,
        stop_token: StopToken,
        meter: Meter,
    ) -> None:
        self.size = part.stop - part.start
        self._content = content
        self._part = part
        self._update = update
        self._stop_token = stop_token
        self._meter = meter
        self._sent = 0
        meter.set(part.number, 0)

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        found = self._content.chunks(self._part.start, self._part.stop, self._update)
        async with aclosing(found) as chunks:
            async for chunk in chunks:
                self._stop_token.check()
                yield chunk
                self.sent(len(chunk))

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Read bytes from *offset* on, in a worker thread; return how many."""
        return self._content.read_into(self._part.start + offset, buffer, self._update)

    def sent(self, count: int) -> None:
        """Report that *count* more bytes were sent; raise StoppedError after a stop."""
        self._stop_token.check()
        self._sent += count
        self._meter.set(self._part.number, self._sent)
