"""Uploads, component URLs, and the locations that every ftrack server has.

Source:
    docs/protocol.md, section 6.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import quote_plus, urlencode

from aioftrackjobs.config.secret import Secret
from aioftrackjobs.protocol.values import JSONValue

_MIB = 1024 * 1024

#: HTTP statuses of a URL that is not valid, or not any more; and an error code of stores.
_NOT_PERMITTED, _BAD_REQUEST, _EXPIRED = (401, 403, 410), 400, b"<Code>ExpiredToken</Code>"

#: Ids of the locations.
ORIGIN_LOCATION_ID = "ce9b348f-8809-11e3-821c-20c9d081909b"
UNMANAGED_LOCATION_ID = "cb268ecc-8809-11e3-a7e2-20c9d081909b"
REVIEW_LOCATION_ID = "cd41be70-8809-11e3-b98a-20c9d081909b"
CONNECT_LOCATION_ID = "07b82a97-8cf9-11e3-9383-20c9d081909b"
SERVER_LOCATION_ID = "3a372bde-05bc-11e4-8908-20c9d081909b"


class BuiltinLocation(NamedTuple):
    """A location whose id and name are the same on every server."""

    id: str
    name: str


BUILTIN_LOCATIONS = (
    BuiltinLocation(ORIGIN_LOCATION_ID, "ftrack.origin"),
    BuiltinLocation(UNMANAGED_LOCATION_ID, "ftrack.unmanaged"),
    BuiltinLocation(REVIEW_LOCATION_ID, "ftrack.review"),
    BuiltinLocation(CONNECT_LOCATION_ID, "ftrack.connect"),
    BuiltinLocation(SERVER_LOCATION_ID, "ftrack.server"),
)


@dataclass(frozen=True, slots=True)
class UploadTarget:
    """URL and headers for the upload of a component's file. The URL grants write access."""

    url: Secret[str]
    headers: Mapping[str, str]

    def __repr__(self) -> str:
        return f"{type(self).__name__}(url=...)"


@dataclass(frozen=True, slots=True)
class PartTargets:
    """URLs for the upload of the parts of a component's file. Each grants write access.

    Attributes:
        upload_id: The server's id of the whole upload.
        urls: One for each part, in order.
    """

    upload_id: str
    urls: Sequence[Secret[str]]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self.urls)} urls)"


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a file.

    Attributes:
        number: From 1.
        start: Its first byte.
        stop: The byte after its last one.
    """

    number: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class PartSizes:
    """How files are split into parts; all sizes in bytes.

    Attributes:
        steps: Pairs of a file size and the size of the parts up to that file size, ascending.
        largest: Size of the parts of files beyond the last step.
        fewest: A file that would have fewer parts is uploaded in one request.
        most: Number of parts that a server accepts.

    Source:
        docs/protocol.md, section 6.4.
    """

    steps: Sequence[tuple[int, int]] = (
        (128 * _MIB, 8 * _MIB),
        (1024 * _MIB, 16 * _MIB),
        (8 * 1024 * _MIB, 32 * _MIB),
        (64 * 1024 * _MIB, 64 * _MIB),
    )
    largest: int = 128 * _MIB
    fewest: int = 3
    most: int = 10_000

    def cut(self, size: int) -> list[Part]:
        """Return the parts of a file of *size* bytes; a single one if it is not split.

        Raises:
            ValueError: It is too big.
        """
        length = next((part for limit, part in self.steps if size <= limit), self.largest)
        count = -(-size // length)
        if count > self.most:
            raise ValueError(f"a file may have {self.most * length} bytes at most, not {size}")
        if count < self.fewest:
            return [Part(1, 0, size)]
        return [
            Part(number + 1, number * length, min((number + 1) * length, size))
            for number in range(count)
        ]


def content_md5(digest: bytes) -> str:
    """Return the ``Content-MD5`` value of an MD5 *digest*: 24 characters of base64.

    Source:
        RFC 1864, section 2.
    """
    return b64encode(digest).decode("ascii")


def upload_file_name(name: str, file_type: str) -> str:
    """Return the name that a browser saves the file under; *file_type* has its leading dot."""
    return f"{name}{file_type}"


def encode_upload_request(
    component_id: str,
    *,
    file_name: str,
    file_size: int,
    checksum: str | None = None,
    parts: int | None = None,
) -> dict[str, JSONValue]:
    """Return the operation that asks for a URL to upload to.

    Args:
        component_id: It need not exist yet.
        file_name: What a browser saves the file under.
        file_size: In bytes.
        checksum: Content-MD5 that the server is to check.
        parts: Number of parts; None for a file that is not split.
    """
    operation: dict[str, JSONValue] = {
        "action": "get_upload_metadata",
        "component_id": component_id,
        "file_name": file_name,
        "file_size": file_size,
    }
    if checksum is not None:
        operation["checksum"] = checksum
    if parts is not None:
        operation["parts"] = parts
    return operation


def encode_upload_completion(
    component_id: str, upload_id: str, tags: Mapping[int, str]
) -> dict[str, JSONValue]:
    """Return the operation that completes an upload in parts.

    Args:
        component_id: The component of the file.
        upload_id: The server's id of the upload.
        tags: The entity tag that the server returned for each part, by number.
    """
    return {
        "action": "complete_multipart_upload",
        "upload_id": upload_id,
        "component_id": component_id,
        "parts": [{"part_number": number, "e_tag": tags[number]} for number in sorted(tags)],
    }


def decode_upload_target(result: Mapping[str, Any]) -> UploadTarget:
    """Return the target in the server's *result*.

    Raises:
        KeyError: It contains no URL.
    """
    headers = result.get("headers") or {}
    return UploadTarget(
        Secret(str(result["url"])), {str(name): str(value) for name, value in headers.items()}
    )


def decode_part_targets(result: Mapping[str, Any], count: int) -> PartTargets:
    """Return the targets of *count* parts in the server's *result*.

    Raises:
        KeyError: One is missing.
    """
    urls = {int(each["part_number"]): Secret(str(each["signed_url"])) for each in result["urls"]}
    return PartTargets(str(result["upload_id"]), [urls[number + 1] for number in range(count)])


def may_have_expired(status: int, body: bytes = b"") -> bool:
    """Return whether a store may have rejected a request because its URL has expired.

    Stores reject such URLs as they reject all that is not permitted. Google's store, and Amazon's
    for temporary credentials, call it a bad request with a certain code.

    Args:
        status: HTTP status code.
        body: The body of the response, an error in XML.
    """
    return status in _NOT_PERMITTED or (status == _BAD_REQUEST and _EXPIRED in body)


def component_url(
    server_url: str,
    action: str,
    component_id: str,
    user: str,
    key: Secret[str],
    size: int | None = None,
) -> Secret[str]:
    """Return the URL for an *action* on a component. It contains the API key.

    Args:
        server_url: URL of the server.
        action: ``get``, ``remove`` or ``thumbnail``.
        component_id: Id of the component.
        user: Name of the user.
        key: The API key.
        size: Pixels of the longer side of a thumbnail.
    """
    about: dict[str, object] = {"id": component_id}
    if size is not None:
        about["size"] = size
    query = urlencode({**about, "username": user})
    return Secret(f"{server_url}/component/{action}?{query}&apiKey={quote_plus(key.reveal())}")
