"""A file that is being downloaded: it grows beside its target, and takes its place when whole.

One that may be continued by a later call has a name that the later call finds, and beside it a
note of which bytes they are: the entity tag that the server gave. Without a note that vouches for
them, bytes of an earlier call are not used. What is left of other downloads is removed.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO
from uuid import uuid4

from aioftrackjobs.errors import TransferError

_CHUNK = 1024 * 1024

#: Pieces that are written at once; no system takes fewer.
_AT_ONCE = 16


class PartialFile:
    """The bytes so far; every method blocks.

    Args:
        target: Where the file goes when it is whole.
        component_id: What it is the file of.
        lasting: Whether it may be continued by a later call.

    Attributes:
        size: Bytes so far.
        tag: Entity tag of the file they are of; None if they cannot be continued.
    """

    def __init__(self, target: Path, component_id: str, *, lasting: bool) -> None:
        self._target = target
        self._component_id = component_id
        self._lasting = lasting
        own = "" if lasting else f".{uuid4().hex[:8]}"
        self._path = target.with_name(f".{target.name}{own}.part")
        self._note = target.with_name(f"{self._path.name}.json")
        self._file: IO[bytes] | None = None
        # A thread may still be writing when the program's end closes the file.
        self._lock = threading.Lock()
        self.size = 0
        self.tag: str | None = None

    def open(self) -> None:
        """Make the file, or open the one that an earlier call left.

        Raises:
            TransferError: The target is a directory, or another download continues the same file.
            OSError: It cannot be written.
        """
        if self._target.is_dir():
            raise TransferError(f"{self._target} is a directory; name the file to write")
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
        flags |= getattr(os, "O_NOFOLLOW", 0) if self._lasting else os.O_EXCL
        while self._file is None:
            file = os.fdopen(os.open(self._path, flags, 0o666), "r+b", buffering=0)
            if self._lasting and not _lock(file):
                file.close()
                raise TransferError(f"{self._target} is being downloaded already")
            if self._is_at_path(file):
                self._file = file
            else:  # whoever had it locked has finished, and it is the target by now
                file.close()
        if self._lasting:
            self.size = self._file.seek(0, os.SEEK_END)
            self.tag = self._noted_tag() if self.size else None
            if self.tag is None:
                self.restart(None)

    def restart(self, tag: str | None) -> None:
        """Begin anew, with a file that has the entity *tag*."""
        assert self._file is not None  # noqa: S101 - nothing happens before open
        self._file.truncate(0)
        self._file.seek(0)
        self.size, self.tag = 0, tag
        if self._lasting:
            self._note.unlink(missing_ok=True)
            if tag is not None:
                noted = {"component_id": self._component_id, "etag": tag}
                self._note.write_text(json.dumps(noted), "utf-8")

    def write(self, block: Sequence[bytes | memoryview]) -> None:
        """Add *block* to the end."""
        assert self._file is not None  # noqa: S101 - nothing happens before open
        pieces = [memoryview(piece) for piece in block if piece]
        while pieces:
            with self._lock:
                count = self._write_some(pieces)
            self.size += count
            while pieces and count >= len(pieces[0]):
                count -= len(pieces.pop(0))
            if count:
                pieces[0] = pieces[0][count:]

    def md5(self, check: Callable[[], None]) -> bytes:
        """Return the MD5 digest of the bytes so far; *check* may raise to end it early."""
        assert self._file is not None  # noqa: S101 - nothing happens before open
        self._file.seek(0)
        digest = hashlib.md5(usedforsecurity=False)
        while chunk := self._file.read(_CHUNK):
            digest.update(chunk)
            check()
        return digest.digest()

    def finish(self) -> None:
        """Put the file in place."""
        assert self._file is not None  # noqa: S101 - nothing happens before open
        if os.name == "nt":  # where open files cannot be renamed
            self._file.close()
        self._path.replace(self._target)
        if self._lasting:
            self._note.unlink(missing_ok=True)
        self._file.close()  # last: until then it is locked

    def leave(self) -> None:
        """Close the file, and remove it unless a later call may continue it."""
        if self._file is None or self._file.closed:
            return
        with self._lock:
            self._file.close()
        if not (self._lasting and self.size and self.tag is not None):
            with suppress(FileNotFoundError):
                self._path.unlink()
            if self._lasting:
                self._note.unlink(missing_ok=True)

    def _write_some(self, pieces: list[memoryview]) -> int:
        """Write what the system takes of *pieces* at once; return how many bytes that is."""
        assert self._file is not None  # noqa: S101 - nothing happens before open
        if hasattr(os, "writev"):  # one call, for each has to wait for the interpreter after it
            return os.writev(self._file.fileno(), pieces[:_AT_ONCE])
        return self._file.write(pieces[0])

    def _is_at_path(self, file: IO[bytes]) -> bool:
        try:
            return os.path.samestat(os.fstat(file.fileno()), self._path.stat())
        except FileNotFoundError:
            return False

    def _noted_tag(self) -> str | None:
        try:
            noted = json.loads(self._note.read_text("utf-8"))
            is_ours = noted["component_id"] == self._component_id
            return str(noted["etag"]) if is_ours else None
        except (OSError, ValueError, KeyError, TypeError):
            return None


def _lock(file: IO[bytes]) -> bool:
    """Keep other processes from continuing the same file; return whether none does already."""
    try:
        import fcntl
    except ImportError:  # Windows, where two downloads to one target are the caller's to avoid
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system that knows no locks
        return True
    return True
