"""Uploads and component URLs: payloads, names and addresses.

Source:
    protocol.md, sections 6.3 to 6.5.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from aioftrackjobs.protocol.values import JSONValue


@dataclass(frozen=True, slots=True)
class UploadTarget:
    """Where the bytes of a component go, and with which headers. The URL grants write access."""

    url: str
    headers: Mapping[str, str]

    def __repr__(self) -> str:
        return f"{type(self).__name__}(url=...)"


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
    component_id: str, *, file_name: str, file_size: int, checksum: str
) -> dict[str, JSONValue]:
    """Return the operation that asks where to upload to; *file_size* is in bytes."""
    return {
        "action": "get_upload_metadata",
        "component_id": component_id,
        "file_name": file_name,
        "file_size": file_size,
        "checksum": checksum,
    }


def decode_upload_target(result: Mapping[str, Any]) -> UploadTarget:
    """Return the target that the server's *result* names.

    Raises:
        KeyError: There is no URL in it.
    """
    headers = result.get("headers") or {}
    return UploadTarget(
        str(result["url"]), {str(name): str(value) for name, value in headers.items()}
    )


def component_url(server_url: str, action: str, component_id: str, user: str, key: str) -> str:
    """Return the address to ``get`` or ``remove`` a component at. It carries the API key."""
    query = urlencode({"id": component_id, "username": user, "apiKey": key})
    return f"{server_url}/component/{action}?{query}"
