"""Uploads in parts: parts are stored until the client names those that make up the file.

A part is a file of its own, named by upload, number and digest. So the server keeps nothing in
memory, and a part may be sent twice with different contents: the client names a part by
its tag, which is the digest (docs/protocol.md, section 6.4).
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import threading
from collections.abc import Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any

from aioftrackjobs.devserver.api_errors import MissingPartError, TransferError, ValidationError
from aioftrackjobs.devserver.files.storage import PART, IncomingFile, Storage
from aioftrackjobs.devserver.files.upload_tokens import AnnouncedUpload, check_digest, uploads_of

_TAG = re.compile(r'"?([0-9a-f]{32})"?')
_BLOCK = 1024 * 1024


class Parts:
    """The parts that have arrived, in the folder of a storage.

    If they are *lasting*, they stay for the next server, which can decode the ids of their
    uploads; otherwise they are removed when this server stops.
    """

    def __init__(self, storage: Storage, *, lasting: bool) -> None:
        self._storage = storage
        self._lasting = lasting
        #: Uploads whose parts are removed when this server stops.
        self._open = set[str]()
        self._lock = threading.Lock()

    def keep(self, announced: AnnouncedUpload, incoming: IncomingFile) -> str:
        """Keep a part that has arrived completely, and return its tag."""
        assert announced.upload is not None  # noqa: S101 - the only caller has checked it
        tag = (incoming.md5() or b"").hex()
        if not self._lasting:
            with self._lock:
                self._open.add(announced.upload)
        self._storage.sweep_in_time()
        incoming.keep(self._path(announced, announced.number, tag))
        return tag

    def assemble(self, announced: AnnouncedUpload, parts: Any) -> IncomingFile:
        """Return the whole file, for the caller to keep or discard; the parts stay."""
        paths = [
            self._path(announced, number, tag)
            for number, tag in enumerate(_tags(parts, announced.number), 1)
        ]
        for number, path in enumerate(paths, 1):
            if not path.is_file():
                raise MissingPartError(f"No part {number} with this tag has arrived.")
        whole = self._storage.incoming(
            announced.component_id, hashed=announced.checksum is not None
        )
        try:
            for path in paths:
                _append(whole, path)
            _check_whole(announced, whole)
        except BaseException as error:
            whole.discard()
            if isinstance(error, FileNotFoundError):
                raise MissingPartError("The upload is being completed already.") from None
            raise
        return whole

    def is_whole(self, announced: AnnouncedUpload) -> bool:
        """Return whether the component has a file that matches what was announced."""
        path = self._storage.path(announced.component_id)
        try:
            with path.open("rb") as file:
                if os.fstat(file.fileno()).st_size != announced.size:
                    return False
                return announced.checksum is None or _checksum(file) == announced.checksum
        except FileNotFoundError:
            return False

    def discard_all(self, component_id: str) -> bool:
        """Remove the parts of all uploads of a component; return whether there were any."""
        return self.discard(uploads_of(component_id))

    def discard(self, upload: str) -> bool:
        """Remove all parts of uploads whose id begins so; return whether there were any."""
        with self._lock:
            self._open = {each for each in self._open if not each.startswith(upload)}
        found = list(self._storage.folder.glob(f"{PART}{upload}*"))
        for path in found:
            path.unlink(missing_ok=True)
        return bool(found)

    def close(self) -> None:
        """Remove the parts of uploads that no client can complete after this."""
        for upload in list(self._open):
            self.discard(upload)

    def _path(self, announced: AnnouncedUpload, number: int, tag: str) -> Path:
        return self._storage.folder / f"{PART}{announced.upload}-{number}-{tag}"


def _check_whole(announced: AnnouncedUpload, whole: IncomingFile) -> None:
    if whole.size != announced.size:
        raise TransferError(f"{announced.size} bytes were announced, the parts have {whole.size}.")
    check_digest(announced, whole)


def _checksum(file: BufferedReader) -> str:
    digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
    return base64.b64encode(digest.digest()).decode()


def _append(whole: IncomingFile, path: Path) -> None:
    with path.open("rb") as part:
        while block := part.read(_BLOCK):
            whole.write(block)
            whole.hash(block)


def _tags(parts: Any, expected: int) -> list[str]:
    if not isinstance(parts, list) or not all(isinstance(part, Mapping) for part in parts):
        raise ValidationError("'parts' must be a list of objects.")
    tags: dict[int, str] = {}
    for part in parts:
        number, tag = part.get("part_number"), part.get("e_tag")
        match = _TAG.fullmatch(tag.lower()) if isinstance(tag, str) else None
        if type(number) is not int or match is None:
            raise ValidationError("A part has a 'part_number' and an 'e_tag', as its PUT gave.")
        if number in tags:
            raise ValidationError(f"Part {number} is named twice.")
        tags[number] = match[1]
    if tags.keys() != set(range(1, expected + 1)):
        raise ValidationError(f"The upload has the parts 1 to {expected}; name each of them.")
    return [tags[number] for number in range(1, expected + 1)]
