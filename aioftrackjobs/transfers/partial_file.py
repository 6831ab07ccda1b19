"""The file of a download in progress: it grows beside its target, and replaces it when complete.

An ordinary partial file has a random name, and is removed if the download fails. A *lasting* one
(``.NAME.part``) stays, so that a later call can continue it. A note beside it (``.NAME.part.json``)
says what it contains: the component, and the entity tag (ETag) of the file on the server. Without a
note for the same component the bytes of an earlier call are discarded.

The target is a regular file, or a new one. If it is a symbolic link, the file that it points to is
replaced, and the link stays, as with ``cp`` or ``curl``. A file that is replaced keeps its mode.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO
from uuid import uuid4

from aioftrackjobs.errors import TransferError
from aioftrackjobs.transfers.archive import open_regular

#: Do not follow a link, nor wait for the other end of a pipe, that others have placed there.
_NO_OTHERS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)

#: Bytes of a name on common file systems.
_LONGEST_NAME = 255

#: What a path may be that is no regular file, nor a device.
_KINDS = {stat.S_IFDIR: "directory", stat.S_IFIFO: "named pipe", stat.S_IFSOCK: "socket"}

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
        self._given = target
        self._component_id = component_id
        self._lasting = lasting
        self._target = self._path = self._note = target  # until it is opened
        self._file: IO[bytes] | None = None
        # When the program ends, the file is closed while a thread may still write to it.
        self._lock = threading.Lock()
        self._digest: hashlib._Hash | None = None
        self.size: int = 0
        self.tag: str | None = None

    def open(self) -> None:
        """Create the file, or open the file of an earlier call.

        Raises:
            TransferError: The target is a directory, or no regular file, or another download
                continues the same file.
            OSError: The file cannot be written.
        """
        mode = self._mode_of_target()
        # The program may change its current directory before the download ends.
        self._target = Path(os.path.realpath(self._given))
        end = ".part" if self._lasting else f".{uuid4().hex[:8]}.part"
        self._path = _beside(self._target, end)
        self._note = self._path.with_name(f"{self._path.name}.json")
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
        flags |= _NO_OTHERS if self._lasting else os.O_EXCL
        while self._file is None:
            # Others must not read it if they may not read the target.
            descriptor = os.open(self._path, flags, 0o666 if mode is None else 0o600)
            file = os.fdopen(descriptor, "r+b", buffering=0)
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                file.close()
                raise TransferError(f"{self._path} is in the way; remove it")
            if mode is not None:
                _set_mode(file, mode)
            if self._lasting and not _lock(file):
                file.close()
                raise TransferError(f"{self._given} is being downloaded already")
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
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
                with os.fdopen(os.open(self._note, flags, 0o600), "w", encoding="utf-8") as note:
                    json.dump(noted, note)

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
        """Move the file to its target.

        Raises:
            TransferError: The target is no regular file any more.
            OSError: The file could not be written.
        """
        assert self._file is not None  # noqa: S101 - open comes first
        if (mode := self._mode_of_target()) is not None:
            _set_mode(self._file, mode)
        # Network file systems report a full disk when a file is closed.
        os.close(os.dup(self._file.fileno()))
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
            with suppress(OSError):  # the error of the download says more
                self._path.unlink(missing_ok=True)
                self._note.unlink(missing_ok=True)

    def _mode_of_target(self) -> int | None:
        """Return the permissions of the target; None if there is none yet.

        Raises:
            TransferError: It is no regular file.
        """
        try:
            mode = self._given.stat().st_mode
        except FileNotFoundError:  # also if a link leads nowhere yet
            return None
        if not stat.S_ISREG(mode):
            kind = _KINDS.get(stat.S_IFMT(mode), "device")
            raise TransferError(f"{self._given} is a {kind}; name the file to write")
        return stat.S_IMODE(mode) & 0o777

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
            with open_regular(self._note, follow=False) as note:
                noted = json.loads(note.read())
            return str(noted["etag"]) if noted["component_id"] == self._component_id else None
        except (TransferError, OSError, ValueError, KeyError, TypeError):
            return None


def _beside(target: Path, end: str) -> Path:
    """Return a hidden path beside *target*, with its name as far as the file system allows."""
    name = target.name
    try:
        limit = os.pathconf(target.parent, "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):
        limit = _LONGEST_NAME
    room = limit - len(f".{end}.json")
    if len(os.fsencode(name)) > room:
        # Two long names may begin with the same characters.
        mark = f"~{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}"
        name = os.fsencode(name)[: room - len(mark)].decode(errors="ignore") + mark
    return target.with_name(f".{name}{end}")


def _set_mode(file: IO[bytes], mode: int) -> None:
    if hasattr(os, "fchmod"):
        with suppress(PermissionError):  # some network file systems have no modes
            os.fchmod(file.fileno(), mode)


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
