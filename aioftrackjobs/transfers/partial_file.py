"""The file of a download in progress: it grows beside its target, and replaces it when complete.

An ordinary partial file has a random name, and is removed if the download fails. A *lasting* one
(``.NAME.part``) stays, so that a later call can continue it. A note beside it (``.NAME.part.json``)
says what it contains: the component, and the entity tag (ETag) of the file on the server. Without a
note for the same component the bytes of an earlier call are discarded.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO
from uuid import uuid4

from aioftrackjobs.errors import TransferError

#: Pieces that one system call writes; every system accepts at least as many (POSIX, IOV_MAX).
_AT_ONCE = 16

#: Bytes that are read at once to be hashed.
_HASHED_AT_ONCE = 1 << 20


class PartialFile:
    """The bytes so far; every method blocks.

    Args:
        target: Path of the complete file.
        component_id: The component that the file belongs to.
        lasting: Whether a later call may continue it.

    Attributes:
        size: Bytes so far.
        tag: Entity tag of the file on the server; None if the bytes cannot be continued.
    """

    def __init__(self, target: Path, component_id: str, *, lasting: bool) -> None:
        self._target = target
        self._component_id = component_id
        self._lasting = lasting
        own = "" if lasting else f".{uuid4().hex[:8]}"
        self._path = target.with_name(f".{target.name}{own}.part")
        self._note = target.with_name(f"{self._path.name}.json")
        self._file: IO[bytes] | None = None
        # When the program ends, the file is closed while a thread may still write to it.
        self._lock = threading.Lock()
        self._digest: hashlib._Hash | None = None
        self.size = 0
        self.tag: str | None = None

    def open(self) -> None:
        """Create the file, or open the file of an earlier call.

        Raises:
            TransferError: The target is a directory, or another download continues the same file.
            OSError: The file cannot be written.
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
            else:  # another download had it locked, has finished, and made it the target
                file.close()
        if self._lasting:
            self.size = self._file.seek(0, os.SEEK_END)
            self.tag = self._noted_tag() if self.size else None
            if self.tag is None:
                self.restart(None)

    def restart(self, tag: str | None, *, hashed: bool = False) -> None:
        """Discard all bytes; the next ones belong to a file with the entity *tag*.

        Args:
            tag: What a later call continues the file by; None if it cannot.
            hashed: Whether to hash the bytes, for :meth:`md5`.
        """
        assert self._file is not None  # noqa: S101 - open comes first
        self._file.truncate(0)
        self._file.seek(0)
        self.size, self.tag = 0, tag
        self._digest = hashlib.md5(usedforsecurity=False) if hashed else None
        if self._lasting:
            self._note.unlink(missing_ok=True)
            if tag is not None:
                noted = {"component_id": self._component_id, "etag": tag}
                self._note.write_text(json.dumps(noted), "utf-8")

    def write(self, block: Sequence[bytes | memoryview]) -> None:
        """Append the pieces of *block*."""
        assert self._file is not None  # noqa: S101 - open comes first
        pieces = [memoryview(piece) for piece in block if piece]
        while pieces:
            with self._lock:
                count = self._write_some(pieces)
            self.size += count
            while count:
                written, rest = pieces[0][:count], pieces[0][count:]
                if self._digest is not None:
                    self._digest.update(written)
                count -= len(written)
                pieces[:1] = [rest] if rest else []

    def md5(self) -> bytes:
        """Return the MD5 digest of all bytes, which are read again unless they were hashed."""
        if self._digest is None:
            assert self._file is not None  # noqa: S101 - open comes first
            self._file.seek(0)
            self._digest = hashlib.md5(usedforsecurity=False)
            while block := self._file.read(_HASHED_AT_ONCE):
                self._digest.update(block)
        return self._digest.digest()

    def is_text(self) -> bool:
        """Return whether the file begins as HTML, XML or JSON do."""
        assert self._file is not None  # noqa: S101 - open comes first
        self._file.seek(0)
        head = self._file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")
        self._file.seek(0, os.SEEK_END)
        return head.startswith((b"<", b"{"))

    def finish(self) -> None:
        """Move the file to its target."""
        assert self._file is not None  # noqa: S101 - open comes first
        if os.name == "nt":  # Windows does not rename open files
            self._file.close()
        self._path.replace(self._target)
        self._note.unlink(missing_ok=True)
        self._file.close()  # last, because this releases the lock

    def close(self) -> None:
        """Close the file, and remove it unless a later call may continue it."""
        if self._file is None or self._file.closed:
            return
        with self._lock:
            self._file.close()
        if not (self._lasting and self.size and self.tag is not None):
            self._path.unlink(missing_ok=True)
            self._note.unlink(missing_ok=True)

    def _write_some(self, pieces: list[memoryview]) -> int:
        """Write *pieces* by one system call; return how many bytes the system has accepted."""
        assert self._file is not None  # noqa: S101 - open comes first
        if hasattr(
            os, "writev"
        ):  # after each system call the thread waits for the interpreter's lock
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
            return str(noted["etag"]) if noted["component_id"] == self._component_id else None
        except (OSError, ValueError, KeyError, TypeError):
            return None


def _lock(file: IO[bytes]) -> bool:
    """Lock *file* for this download; return False if another download has locked it."""
    try:
        import fcntl
    except ImportError:  # Windows: callers must not download to one target twice at a time
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True
