"""Which process this is, and whether another one still lives.

A process id alone does not identify a process: it is used again later, and each container counts
for itself. On Linux, the boot id of the kernel and the namespace of process ids identify the place
that it is valid in, and the start time identifies the process. On other systems it can only be
seen that no process has the id.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

_PROC = Path("/proc")
#: States of processes that have ended, and of which only the exit code is left.
_ENDED = ("Z", "X", "x")
#: Place of the state and of the start time among the fields behind the name (proc(5)).
_STATE, _START = 0, 19


class Process(NamedTuple):
    """A process, on this host or another.

    Attributes:
        host: Name of the host, for people.
        pid: Its id there.
        place: Where its id is valid: kernel boot and namespace; empty if that is not known.
        started: When it started, as the system counts it; empty if that is not known.
    """

    host: str
    pid: int
    place: str = ""
    started: str = ""

    @property
    def boot(self) -> str:
        """The boot of the kernel that it runs in; empty if that is not known."""
        return self.place.partition(" ")[0]

    def is_alive(self) -> bool | None:
        """Return whether it lives; None if that cannot be seen from here."""
        here = this_process()
        if self == here:
            return True
        if self.place != here.place or (not self.place and self.host != here.host):
            return None
        if not self.place:
            return _exists(self.pid)
        found = _read_start(self.pid)
        if found is None:
            return _exists(self.pid)  # it may only be hidden from this user
        return found == self.started

    @classmethod
    def decode(cls, found: Mapping[str, Any]) -> Process | None:
        """Return the process whose ``_asdict()`` is in *found*; None if there is none."""
        match found:
            case {
                "host": str() as host,
                "pid": int() as pid,
                "place": str() as place,
                "started": str() as started,
            }:
                return cls(host, pid, place, started)
            case _:
                return None


def this_process() -> Process:
    """Return the process that this code runs in, also after a fork."""
    return _describe(os.getpid())


@lru_cache(maxsize=1)
def _describe(pid: int) -> Process:
    return Process(socket.gethostname(), pid, _read_place(), _read_start(pid) or "")


def _read_place() -> str:
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        namespace = (_PROC / "self/ns/pid").readlink().name
    except OSError:
        return ""
    return f"{boot} {namespace}"


def _read_start(pid: int) -> str | None:
    """Return the start time of a process in ticks since the boot; "" if it has ended."""
    try:
        fields = (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return "" if fields[_STATE] in _ENDED else fields[_START]


def _exists(pid: int) -> bool | None:
    """Return False if no process has that id, else None: the one that has it may be another."""
    if sys.platform == "win32":  # where signal 0 is Ctrl-C
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return None
    return None
