"""Files of components on disk: written under a temporary name, then put in place at once."""

from __future__ import annotations

import hashlib
import math
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

from aioftrackjobs.devserver.errors import ServerStartError

#: Component ids that can be a file's name, as UUIDs can.
_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
#: Prefixes of files that are not complete, or about to be replaced; no component's file has one.
INCOMING, PART, EARLIER = ".incoming-", ".part-", ".earlier-"
#: The folder of the server's own in the one that the user names: it serves and removes all files
#: that are in there, and none beside it.
_FOLDER = "components"
#: Seconds after which such a file is abandoned.
_ABANDONED = 24 * 3600.0
#: Seconds between two searches for abandoned files.
_SWEEP_INTERVAL = 3600.0


def is_storable(component_id: object) -> bool:
    """Return whether *component_id* can name a file."""
    return isinstance(component_id, str) and _SAFE.fullmatch(component_id) is not None


def _usable(name: str | Path | None) -> Path:
    """Return the folder for files in *name*, created if it is missing; a temporary one for None."""
    try:
        if name is None:
            return Path(tempfile.mkdtemp(prefix="aioftrackjobs-"))
        folder = Path(name) / _FOLDER
        folder.mkdir(0o700, parents=True, exist_ok=True)
        # Permissions, read-only mounts and quotas: only creating a file shows that one can.
        tempfile.TemporaryFile(dir=folder).close()
    except (OSError, ValueError) as error:
        shown = None if name is None else str(name)
        raise ServerStartError(
            "storage", shown, getattr(error, "strerror", None) or str(error)
        ) from error
    return folder


class IncomingFile:
    """A file that is arriving; it is not visible as a component's file before :meth:`keep`.

    Attributes:
        size: Bytes written so far.
        is_hashed: Whether it has a digest, which needs :meth:`hash`.
    """

    def __init__(self, folder: Path, target: Path, *, hashed: bool) -> None:
        self._target = target
        # Closed by keep() or discard(), whichever comes first.
        self._file = tempfile.NamedTemporaryFile(  # noqa: SIM115
            dir=folder, prefix=INCOMING, delete=False, buffering=0
        )
        self._digest = hashlib.md5(usedforsecurity=False) if hashed else None
        self.size: int = 0
        self.is_hashed = hashed

    def write(self, block: bytes) -> None:
        """Add *block* to the end."""
        rest = memoryview(block)
        while rest:
            rest = rest[self._file.write(rest) :]
        self.size += len(block)

    def hash(self, block: bytes) -> None:
        """Add *block* to the digest; apart from writing, so that both can run in parallel."""
        if self._digest is not None:
            self._digest.update(block)

    def md5(self) -> bytes | None:
        """Return the MD5 digest of the blocks; None unless the file is hashed."""
        return self._digest.digest() if self._digest is not None else None

    def keep(self, target: Path | None = None) -> None:
        """Put the file in place, over an earlier one; at *target* if that is given."""
        self._file.close()
        Path(self._file.name).replace(target or self._target)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Put the file in place; if an error ends the context, the earlier file is restored."""
        arriving = Path(self._file.name)
        earlier = arriving.with_name(EARLIER + arriving.name.removeprefix(INCOMING))
        with suppress(OSError):  # there is none, or the disk has no hard links
            os.link(self._target, earlier)
        try:
            self.keep()
            yield
        except BaseException:
            if earlier.exists():
                earlier.replace(self._target)
            else:
                self._target.unlink(missing_ok=True)
            raise
        finally:
            earlier.unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove the file; harmless after :meth:`keep`."""
        self._file.close()
        Path(self._file.name).unlink(missing_ok=True)


class Storage:
    """One file for each component, in a folder inside *folder*, or else in a temporary one.

    Attributes:
        folder: The folder with the files, in which nothing else is.

    Raises:
        ServerStartError: If no files can be stored in it.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self._temporary = folder is None
        self.folder: Path = _usable(folder)
        self._lock: int | None = None
        if fcntl is not None:
            self._lock_folder()
        self._next_sweep = 0.0
        self.sweep_in_time()

    def _lock_folder(self) -> None:
        """Remove what servers that were killed have left, if no other server uses the folder.

        All that do share a lock on the folder itself, which ends with them, however they end.
        """
        with suppress(OSError):  # another server is there, or the disk has no locks
            self._lock = os.open(self.folder, os.O_RDONLY)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._remove(INCOMING, math.inf)
            self._remove(EARLIER, math.inf)
        if self._lock is not None:
            with suppress(OSError):
                fcntl.flock(self._lock, fcntl.LOCK_SH | fcntl.LOCK_NB)

    def incoming(self, component_id: str, *, hashed: bool) -> IncomingFile:
        """Return a new file for a component, to be written.

        Its MD5 digest is computed if *hashed*; that is most of the work.
        """
        return IncomingFile(self.folder, self.path(component_id), hashed=hashed)

    def path(self, component_id: str) -> Path:
        """Return the path of a component's file, whether or not it exists."""
        if not is_storable(component_id):
            raise ValueError(component_id)
        return self.folder / component_id

    def remove(self, component_id: str) -> bool:
        """Remove the file of a component, and return whether there was one."""
        path = self.path(component_id)
        existed = path.exists()
        path.unlink(missing_ok=True)
        return existed

    def empty(self) -> None:
        """Remove all files."""
        for path in self.folder.iterdir():
            path.unlink(missing_ok=True)

    def sweep_in_time(self) -> None:
        """Remove abandoned files and parts, at most once an hour."""
        now = time.monotonic()
        if now >= self._next_sweep:
            self._next_sweep = now + _SWEEP_INTERVAL
            oldest = time.time() - _ABANDONED
            self._remove(INCOMING, oldest)
            self._remove(PART, oldest)

    def _remove(self, prefix: str, before: float) -> None:
        for path in self.folder.glob(f"{prefix}*"):
            with suppress(OSError):  # another server may sweep here too
                if path.stat().st_mtime < before:
                    path.unlink()

    def close(self) -> None:
        """Release the folder, and remove it if it is a temporary one."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        if self._temporary:
            shutil.rmtree(self.folder, ignore_errors=True)
