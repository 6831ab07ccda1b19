"""Files of components on disk: written under a name of their own, then put in place at once."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from aioftrackjobs.devserver.errors import StorageError

#: What a component id may look like to be a file's name; UUIDs do.
_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
#: How files that are not complete are called; no component's file is called so.
INCOMING, PART = ".incoming-", ".part-"
#: Seconds after which nobody will complete them, as the server that they came to is gone.
_ABANDONED = 24 * 3600.0


def is_storable(component_id: object) -> bool:
    """Return whether *component_id* can name a file."""
    return isinstance(component_id, str) and _SAFE.fullmatch(component_id) is not None


def _usable(name: str | Path | None) -> Path:
    """Return the folder called *name*, made if it is missing; a new temporary one for None."""
    try:
        if name is None:
            return Path(tempfile.mkdtemp(prefix="aioftrackjobs-"))
        folder = Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        # Permissions, read-only mounts and quotas: only making a file says that one can.
        tempfile.TemporaryFile(dir=folder).close()
    except (OSError, ValueError) as error:
        shown = None if name is None else str(name)
        raise StorageError(shown, getattr(error, "strerror", None) or str(error)) from error
    return folder


class Incoming:
    """A file that is arriving; it exists for nobody else before :meth:`keep`.

    Attributes:
        size: Bytes written so far.
    """

    def __init__(self, folder: Path, target: Path, *, hashed: bool) -> None:
        self._target = target
        # Closed by keep() or discard(), whichever comes first.
        self._file = tempfile.NamedTemporaryFile(  # noqa: SIM115
            dir=folder, prefix=INCOMING, delete=False, buffering=0
        )
        self._digest = hashlib.md5(usedforsecurity=False) if hashed else None
        self.size = 0

    def write(self, block: bytes) -> None:
        """Add *block* to the end."""
        rest = memoryview(block)
        while rest:
            rest = rest[self._file.write(rest) :]
        self.size += len(block)

    def hash(self, block: bytes) -> None:
        """Take *block* into the digest; apart from writing, so that both can be done at once."""
        if self._digest is not None:
            self._digest.update(block)

    @property
    def is_hashed(self) -> bool:
        """Whether it has a digest, which is what :meth:`hash` is for."""
        return self._digest is not None

    def md5(self) -> bytes | None:
        """Return the MD5 digest of what was written; None unless the file is hashed."""
        return self._digest.digest() if self._digest is not None else None

    def keep(self, target: Path | None = None) -> None:
        """Put the file in place, over any earlier one; at *target* if that is given."""
        self._file.close()
        Path(self._file.name).replace(target or self._target)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Put the file in place; if an error ends the context, what was there before is again."""
        earlier = Path(f"{self._file.name}-earlier")
        with suppress(OSError):  # there is none, or no second name for it on this disk
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
        """Forget the file; harmless after :meth:`keep`."""
        self._file.close()
        Path(self._file.name).unlink(missing_ok=True)


class Storage:
    """A folder with one file for each component; a temporary one unless one is named.

    Raises:
        StorageError: If no files can be kept in it.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self._temporary = folder is None
        self.folder = _usable(folder)
        if not self._temporary:
            self.sweep()

    def incoming(self, component_id: str, *, hashed: bool) -> Incoming:
        """Return a new file for a component, to be written.

        Its MD5 digest is made if *hashed*; that is most of the work.
        """
        return Incoming(self.folder, self.path(component_id), hashed=hashed)

    def path(self, component_id: str) -> Path:
        """Return where the file of a component is, if there is one.

        Raises:
            ValueError: If no file can have that name.
        """
        if not is_storable(component_id):
            raise ValueError(component_id)
        return self.folder / component_id

    def remove(self, component_id: str) -> bool:
        """Remove the file of a component, and return whether there was one."""
        path = self.path(component_id)
        existed = path.exists()
        path.unlink(missing_ok=True)
        return existed

    def sweep(self) -> None:
        """Remove what arrived in part and will not be completed: a server died meanwhile."""
        oldest = time.time() - _ABANDONED
        for prefix in (INCOMING, PART):
            for path in self.folder.glob(f"{prefix}*"):
                with suppress(OSError):  # another server may sweep here too
                    if path.stat().st_mtime < oldest:
                        path.unlink()

    def close(self) -> None:
        """Remove the folder if it was a temporary one."""
        if self._temporary:
            shutil.rmtree(self.folder, ignore_errors=True)
