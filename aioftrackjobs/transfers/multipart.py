"""FileUpload the bytes of a file to where the server says: whole, or in parts at the same time.

Source:
    protocol.md, sections 6.3 and 6.4.
"""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from functools import partial
from typing import Any
from urllib.parse import urljoin

import anyio

from aioftrackjobs.commit.request import PendingRequest
from aioftrackjobs.connection import Connection
from aioftrackjobs.errors import (
    ConnectError,
    FileChangedError,
    MalformedResponseError,
    ServerError,
    TransferError,
    TransportError,
)
from aioftrackjobs.protocol.headers import decode_etag, decode_md5_etag, decode_retry_after
from aioftrackjobs.protocol.upload import (
    Part,
    PartSizes,
    PartTargets,
    decode_part_targets,
    decode_upload_target,
    encode_upload_completion,
    encode_upload_request,
)
from aioftrackjobs.transfers.content import Content, Digest
from aioftrackjobs.transfers.control import (
    Attempts,
    Meter,
    ProgressCallback,
    RetryableError,
    StopToken,
)
from aioftrackjobs.transport import WireRequest, WireResponse

logger = logging.getLogger(__name__)

#: Parts of one file that are sent at the same time.
_PARALLEL = 4

#: Redirections that ask for the same request at another address, and how many are followed.
_SENT_ELSEWHERE, _REDIRECTIONS = (307, 308), 3

_SUCCESS, _SERVER_FAULT = 2, 5
_BAD_REQUEST, _TOO_MANY_REQUESTS = 400, 429

#: Times that a whole file is sent that a server refuses as one refuses what arrived damaged.
_DAMAGED_ATTEMPTS = 3


class FileUpload:
    """The upload of one file.

    Args:
        connection: To the server that says where the bytes go.
        component_id: Whose file it is.
        file_name: What a browser saves it under.
        content: The file.
        verified: Whether it is hashed, so that the server or this class notices any damage.
        sizes: How it is cut into parts.
        progress: Told of what was sent.
    """

    def __init__(
        self,
        connection: Connection,
        component_id: str,
        file_name: str,
        content: Content,
        *,
        verified: bool,
        sizes: PartSizes,
        progress: ProgressCallback | None,
    ) -> None:
        self._connection = connection
        self._component_id = component_id
        self._file_name = file_name
        self._content = content
        self._verified = verified
        self._sizes = sizes
        self._meter = Meter(content.size, progress)
        self._completion: PendingRequest | None = None

    async def run(self, halt: StopToken) -> None:
        """Send it all; what fails in passing is repeated.

        Raises:
            TransferError: The file cannot be read, or the server does not take it.
            FileChangedError: It changed while it was sent.
            TransportError: The server cannot be reached.
        """
        try:
            parts = self._sizes.cut(self._content.size)
        except ValueError as exc:
            raise TransferError(str(exc)) from None
        if len(parts) == 1:
            await self._send_whole(halt)
        else:
            await self._send_parts(halt, parts)
        self._meter.finish(self._content.size)

    async def _announce(self, **details: Any) -> Mapping[str, Any]:
        operation = encode_upload_request(
            self._component_id,
            file_name=self._file_name,
            file_size=self._content.size,
            **details,
        )
        (result,) = await self._connection.call([operation])
        if not isinstance(result, Mapping):
            raise MalformedResponseError("no URL to upload to", status=200)
        return result

    # Whole

    async def _send_whole(self, halt: StopToken) -> None:
        checksum = await self._content.checksum() if self._verified else None
        result = await self._announce(checksum=checksum)
        try:
            target = decode_upload_target(result)
        except (KeyError, TypeError, AttributeError):
            raise MalformedResponseError("no URL to upload to", status=200) from None
        whole = Part(1, 0, self._content.size)

        refusals = 0

        async def attempt() -> None:
            nonlocal refusals
            response, _ = await self._put(halt, target.url, whole, target.headers)
            if checksum is not None and response.status == _BAD_REQUEST:
                refusals += 1
                if refusals < _DAMAGED_ATTEMPTS:
                    await self._suspect_damage(checksum)
            self._require_success(response)
            await self._content.require_unchanged()

        await Attempts(self._connection.retry, halt).run(attempt)

    async def _suspect_damage(self, checksum: str) -> None:
        """Take it that the bytes were damaged on their way, if it was not the file that changed.

        A server refuses what has not the announced digest just as it refuses a bad request.
        """
        await self._content.require_unchanged()
        if await self._content.checksum() != checksum:
            raise FileChangedError(f"{self._file_name!r} was written to while it was uploaded")
        raise RetryableError(
            TransferError(
                f"the upload of {self._file_name!r} was refused with HTTP {_BAD_REQUEST}, "
                "as what arrives damaged is"
            )
        )

    # In parts

    async def _send_parts(self, halt: StopToken, parts: Sequence[Part]) -> None:
        result = await self._announce(parts=len(parts))
        if "urls" not in result and "url" in result:  # a server that knows nothing of parts
            await self._send_whole(halt)
            return
        try:
            targets = decode_part_targets(result, len(parts))
        except (KeyError, TypeError, ValueError, AttributeError):
            raise MalformedResponseError("no URL for each part of an upload", status=200) from None
        tags: dict[int, str] = {}
        waiting = deque(zip(parts, targets.urls, strict=True))

        async def work() -> None:
            try:
                while waiting:
                    part, url = waiting.popleft()
                    attempt = partial(self._send_part, halt, part, url)
                    tags[part.number] = await Attempts(self._connection.retry, halt).run(attempt)
            except Exception as exc:  # noqa: BLE001 - it is what the whole upload ends with
                halt.stop(exc)

        async with anyio.create_task_group() as workers:
            for _ in range(min(_PARALLEL, len(parts))):
                workers.start_soon(work)
        halt.check()
        await self._content.require_unchanged()
        await self._complete(halt, targets, tags)

    async def _send_part(self, halt: StopToken, part: Part, url: str) -> str:
        """Send a part, and return the tag that the server gives it."""
        response, digest = await self._put(halt, url, part)
        self._require_success(response)
        tag = decode_etag(response.headers)
        if tag is None:
            raise TransferError(f"the server gave no ETag for part {part.number} of an upload")
        # A tag of another form says nothing of the content, and is as good as no verification.
        told = decode_md5_etag(response.headers)
        if self._verified and told is not None and told != digest:
            raise RetryableError(
                TransferError(f"part {part.number} of {self._file_name!r} arrived damaged")
            )
        return tag

    async def _complete(
        self, halt: StopToken, targets: PartTargets, tags: Mapping[int, str]
    ) -> None:
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
                # Refused the second time, because the first time, unheard, it was done?
                if not (is_uncertain and await self._has_arrived()):
                    raise

        await Attempts(self._connection.retry, halt).run(attempt)

    async def settled(self) -> None:
        """Wait until nothing that was sent can still make a file, whoever was cancelled."""
        if self._completion is not None:
            await self._completion.ended()

    async def _has_arrived(self) -> bool:
        """Return whether the server has a file of the right size for the component."""
        url = self._connection.component_url("get", self._component_id)
        request = WireRequest("GET", url, {"accept-encoding": "identity"})
        async with self._connection.transport.stream(request) as answer:
            return answer.status // 100 == _SUCCESS and answer.size == self._content.size

    # Requests

    async def _put(
        self, halt: StopToken, url: str, part: Part, headers: Mapping[str, str] | None = None
    ) -> tuple[WireResponse, str]:
        """Send a part; return the answer, and the digest of what was sent if it was hashed."""
        outgoing = {name.lower(): value for name, value in (headers or {}).items()}
        outgoing["content-length"] = str(part.stop - part.start)
        # The bytes of a file that travels whole are hashed before, for the server to check.
        is_whole = part.stop - part.start == self._content.size
        is_hashed = self._verified and not is_whole
        for _ in range(_REDIRECTIONS):
            digest = hashlib.md5(usedforsecurity=False)
            body = _Body(self._content, part, digest if is_hashed else None, halt, self._meter)
            request = WireRequest("PUT", url, outgoing, body)
            async with self._connection.transfer_limiter.requests:
                response = await self._connection.transport.send(request)
            location = response.headers.get("location")
            if response.status not in _SENT_ELSEWHERE or location is None:
                break
            url = urljoin(url, location)
        return response, digest.hexdigest()

    def _require_success(self, response: WireResponse) -> None:
        if response.status // 100 != _SUCCESS:
            error = TransferError(
                f"the upload of {self._file_name!r} was refused with HTTP {response.status}"
            )
            raise failure_of(response.status, response.headers, error)
        # No store answers with a page; some call their empty answer one.
        if response.body and response.headers.get("content-type", "").startswith("text/html"):
            raise RetryableError(
                TransferError(f"a page came instead of an answer to {self._file_name!r}")
            )


class _Body:
    """The bytes of a part as they are sent.

    Attributes:
        size: In bytes.
    """

    def __init__(
        self, content: Content, part: Part, digest: Digest | None, halt: StopToken, meter: Meter
    ) -> None:
        self.size = part.stop - part.start
        self._content = content
        self._part = part
        self._digest = digest
        self._halt = halt
        self._meter = meter
        self._sent = 0
        meter.set(part.number, 0)

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        found = self._content.chunks(self._part.start, self._part.stop, self._digest)
        async with aclosing(found) as chunks:
            async for chunk in chunks:
                self._halt.check()
                yield chunk
                self.sent(len(chunk))

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Read from *offset* on, in a worker thread."""
        return self._content.read_into(self._part.start + offset, buffer, self._digest)

    def sent(self, count: int) -> None:
        """Tell that *count* more bytes were sent, unless the transfer is to stop."""
        self._halt.check()
        self._sent += count
        self._meter.set(self._part.number, self._sent)


def failure_of(
    status: int, headers: Mapping[str, str], error: TransferError
) -> TransferError | RetryableError:
    """Return *error*, as one that may pass if the answer says so."""
    if status // 100 == _SERVER_FAULT or status == _TOO_MANY_REQUESTS:
        return RetryableError(error, decode_retry_after(headers, datetime.now(UTC)))
    return error
