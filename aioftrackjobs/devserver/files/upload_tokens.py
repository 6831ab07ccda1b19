"""Announcing uploads: their addresses, and what must arrive there.

The announcement is part of the address, and signed. So the server stores nothing, and uploads
that never arrive leave nothing behind (docs/protocol.md, section 6.3).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import mimetypes
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, TypeAlias

from pydantic_core import from_json, to_json

from aioftrackjobs.devserver.api_errors import TransferError, ValidationError
from aioftrackjobs.devserver.files.storage import IncomingFile, is_storable
from aioftrackjobs.devserver.limits import Limits

_SIGNATURE_CHARACTERS = 43
#: Characters of the id of an upload in parts that are the same for all of its component.
_PREFIX_CHARACTERS = 16
#: What a signature permits; one for a use is not valid for another.
Use: TypeAlias = Literal["get", "put", "upload", "widget"]


@dataclass(frozen=True, slots=True)
class AnnouncedUpload:
    """What an upload must match: a whole file, or one part of it.

    Attributes:
        size: Bytes of the file; clients choose the size of its parts.
        checksum: Base64 of the file's MD5 digest; None if the client gave none.
        upload: Id that all parts of the file share; None for a whole file.
        number: Number of the part, from 1; for the upload itself, the number of its parts.
    """

    component_id: str
    size: int
    checksum: str | None
    upload: str | None = None
    number: int = 0


class UploadTokens:
    """Makes and decodes the addresses of uploads, and signs those of downloads.

    The *secret* is stored with the entities, so that addresses stay valid when a server is
    started again with the same database.
    """

    def __init__(self, limits: Limits, secret: bytes) -> None:
        self._limits = limits
        self._secret = secret

    def sign(self, use: Use, text: str) -> str:
        """Return a signature that only servers with this secret can make."""
        signed = f"{use}\0{text}".encode("utf-8", "surrogatepass")
        digest = hmac.digest(self._secret, signed, "sha256")
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")

    def is_signature(self, use: Use, text: str, signature: str) -> bool:
        """Return whether *signature* is that of *text* for this *use*."""
        given = signature.encode("utf-8", "surrogatepass")
        return hmac.compare_digest(self.sign(use, text).encode(), given)

    def announce(
        self, operation: Mapping[str, Any], component: Mapping[str, Any] | None, base_url: str
    ) -> dict[str, Any]:
        """Return the address and the headers for the upload of a component's file.

        *component* is None if it does not exist yet; then the operation must have name and size.
        """
        name, size = _name_and_size(operation, component)
        component_id, checksum = operation.get("component_id"), _checksum(operation)
        if not isinstance(component_id, str) or not is_storable(component_id):
            raise ValidationError("'component_id' must be a component's id.")
        if size > self._limits.upload:
            raise ValidationError(f"A file takes {self._limits.upload} bytes at most.")
        announced = AnnouncedUpload(component_id, size, checksum)
        if operation.get("parts") is not None:
            return self._announce_parts(announced, operation["parts"], base_url)
        headers = {
            "Content-Type": mimetypes.guess_type(name)[0] or "application/octet-stream",
            "Content-Length": str(size),
        }
        if checksum is not None:
            headers["Content-MD5"] = checksum
        url = self._url(announced, base_url)
        return {"url": url, "headers": headers, "component_id": component_id}

    def _announce_parts(
        self, announced: AnnouncedUpload, parts: Any, base_url: str
    ) -> dict[str, Any]:
        if not isinstance(parts, int) or isinstance(parts, bool):
            raise ValidationError("'parts' must be a whole number.")
        if not 1 <= parts <= self._limits.parts:
            raise ValidationError(f"'parts' must be from 1 to {self._limits.parts}.")
        upload_id = f"{uploads_of(announced.component_id)}{secrets.token_hex(8)}"
        upload = replace(announced, upload=upload_id, number=parts)
        urls = [
            {
                "part_number": number,
                "signed_url": self._url(replace(upload, number=number), base_url),
            }
            for number in range(1, parts + 1)
        ]
        return {
            "component_id": announced.component_id,
            "upload_id": self._token(upload, "upload"),
            "urls": urls,
        }

    def _url(self, announced: AnnouncedUpload, base_url: str) -> str:
        return f"{base_url.rstrip('/')}/upload/{self._token(announced, 'put')}"

    def _token(self, announced: AnnouncedUpload, use: Use) -> str:
        content = base64.urlsafe_b64encode(to_json(asdict(announced))).decode().rstrip("=")
        return self.sign(use, content) + content

    def decode(self, token: str, use: Use = "put") -> AnnouncedUpload:
        """Return the upload that *token* announces.

        Args:
            token: The last part of an upload's address, or the id of an upload in parts.
            use: Which of the two; ``put`` or ``upload``.
        """
        signature, content = token[:_SIGNATURE_CHARACTERS], token[_SIGNATURE_CHARACTERS:]
        if not token.isascii() or not self.is_signature(use, content, signature):
            raise TransferError("No such upload was announced.", status=403)
        padding = "=" * (-len(content) % 4)
        return AnnouncedUpload(**from_json(base64.urlsafe_b64decode(content + padding)))


def uploads_of(component_id: str) -> str:
    """Return the prefix that the ids of all uploads of a component have, and no others."""
    return hashlib.sha256(component_id.encode()).hexdigest()[:_PREFIX_CHARACTERS]


def _name_and_size(
    operation: Mapping[str, Any], component: Mapping[str, Any] | None
) -> tuple[str, int]:
    stored = component or {}
    name, size = operation.get("file_name"), operation.get("file_size")
    if name is None and component is not None:
        name = f"{stored.get('name') or ''}{stored.get('file_type') or ''}"
    size = stored.get("size") if size is None else size
    if not isinstance(name, str) or not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise ValidationError(
            "'file_name' and 'file_size' are needed for a component that does not exist yet."
        )
    return name, size


def _checksum(operation: Mapping[str, Any]) -> str | None:
    checksum = operation.get("checksum")
    if checksum is None:
        return None
    try:
        if len(base64.b64decode(checksum, validate=True)) == 16:
            return str(checksum)
    except (TypeError, ValueError, binascii.Error):
        pass
    raise ValidationError("'checksum' must be the base64 of an MD5 digest.")


def check_digest(announced: AnnouncedUpload, incoming: IncomingFile) -> None:
    """Check a whole file against the announced digest, if there is one."""
    if announced.checksum is not None and base64.b64decode(announced.checksum) != incoming.md5():
        raise TransferError("What arrived does not have the MD5 digest that was announced.")
