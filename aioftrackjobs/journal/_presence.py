"""Which sessions that have written to a journal are there still.

As a rule the id and the start time of a process say it. Two sessions cannot be told apart by them,
and some processes cannot be seen from here; for these there is other evidence:

- A program that replaces itself by ``exec`` keeps both, and all that it was doing is gone. If a
  session has the process of this one, and this program does not know it, it was of that program.
- Each session holds a lock in the journal's write-ahead log. The kernel shows it to all containers
  that share the file, and releases it when the process ends, in whatever namespace.
- What ran before the kernel has booted is gone. A journal is on a local disk, so that another boot
  of a host with the same name is an earlier one; if the name differs, as in a new container, the
  last heartbeat has to be older than the boot.
"""

from __future__ import annotations

import hashlib
import os
import struct
import sys
import time
from contextlib import suppress
from pathlib import Path
from uuid import UUID

from aioftrackjobs.journal._process import Process, this_process

if sys.platform != "win32":
    import fcntl

#: A lock that belongs to an open file and not to a process, which would lose it whenever it closes
#: another one (fcntl(2), "Open file description locks"). Only Linux has them.
_SET, _GET = (
    getattr(sys.modules.get("fcntl"), f"F_OFD_{name}", None) for name in ("SETLK", "GETLK")
)

#: ``struct flock``: type, whence, start, length and process id.
_FLOCK = struct.Struct("@hhqqi4x")

#: Where the locks begin: far behind whatever a log contains.
_FIRST_LOCK = 1 << 60

#: Seconds by which the heartbeat of a session that lives may be late.
_LATE_HEARTBEAT = 30.0

#: The sessions that this program has opened.
_opened = set[str]()


class PresenceLock:
    """Shows other processes that a session is there.

    Args:
        token: Identifies the session in the journal.
    """

    def __init__(self, token: str) -> None:
        self._token = token
        self._file: int | None = None

    def hold(self, log: Path) -> None:
        """Hold the lock in the file *log*, if the system can; and until then where it was held."""
        file: int | None = None
        with suppress(OSError):
            if sys.platform == "linux":
                file = os.open(log, os.O_RDWR)
                fcntl.fcntl(file, fcntl.F_OFD_SETLK, _lock_of(self._token, fcntl.F_WRLCK))
        self.release()
        self._file = file

    def release(self) -> None:
        """Show that the session has ended."""
        file, self._file = self._file, None
        if file is not None:
            os.close(file)


def note_opened(token: str) -> None:
    """Note that this program has opened the session with *token*."""
    _opened.add(token)


def is_present(
    token: str, process: Process, seen: float, now: float, *, log: int, own_token: str
) -> bool | None:
    """Return whether a session is there; None if that cannot be seen from here.

    Args:
        token: Identifies the session.
        process: Its process.
        seen: When it has last written a heartbeat.
        now: The present time.
        log: The write-ahead log, an open file.
        own_token: Identifies the session that asks. If it cannot see its own lock, locks show
            nothing.
    """
    here = this_process()
    if process == here:
        return token in _opened
    is_alive = process.is_alive()
    if is_alive is not None:
        return is_alive
    if process.boot == here.boot:
        is_gone = bool(here.boot) and _is_locked(log, own_token) and not _is_locked(log, token)
    else:
        is_gone = _is_of_earlier_boot(process, seen, now)
    return False if is_gone else None


def _is_of_earlier_boot(process: Process, seen: float, now: float) -> bool:
    here = this_process()
    if not (_is_boot_id(process.boot) and _is_boot_id(here.boot)):
        return False
    if process.host == here.host:
        return True
    return seen < now - time.clock_gettime(time.CLOCK_BOOTTIME) - _LATE_HEARTBEAT


def _is_boot_id(text: str) -> bool:
    with suppress(ValueError):
        return bool(UUID(text))
    return False


def _is_locked(log: int, token: str) -> bool:
    if sys.platform == "linux":
        with suppress(OSError):
            found = fcntl.fcntl(log, fcntl.F_OFD_GETLK, _lock_of(token, fcntl.F_WRLCK))
            return bool(_FLOCK.unpack(found)[0] != fcntl.F_UNLCK)
    return False


def _lock_of(token: str, kind: int) -> bytes:
    place = int.from_bytes(hashlib.sha256(token.encode()).digest()[:7], "big")
    return _FLOCK.pack(kind, os.SEEK_SET, _FIRST_LOCK + place, 1, 0)
