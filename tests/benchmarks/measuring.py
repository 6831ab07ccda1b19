"""What the measured programs share: the sizes of the work, and how time and memory are taken.

Kept free of imports that cost anything: it is part of what "hello job" measures, for all alike.
"""

import json
import os
import sys
import time

JOBS = 20_000
USERS = 20
PAGE = 500
LIFE_CYCLES = 200
UPDATES = 10
COMMITS = 30
#: Requests that plain httpx has in flight at once: more of them are slower (httpcore's pool).
IN_FLIGHT = 10
FILE_SIZE = 256 << 20

#: What keeps a Job from being lost, for ``journal.py``.
SETTINGS = ("plain", "leases", "journal", "journal and leases")

READING = "select id, status, user.username from Job"
CHUNK = 1 << 20

_MIB = 1 << 20


class Stopwatch:
    """Wall and processor time since it was made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self, *, share: int = 1) -> dict[str, float]:
        """Return both, in seconds, divided by the number of repetitions."""
        return {
            "seconds": (time.perf_counter() - self._wall) / share,
            "cpu": (time.process_time() - self._cpu) / share,
        }


class Laps:
    """Times of the same thing done again and again, from when it was made."""

    def __init__(self) -> None:
        self._times: list[float] = []
        self._started = time.perf_counter()

    def end(self) -> None:
        """End one, and begin the next."""
        now = time.perf_counter()
        self._times.append(now - self._started)
        self._started = now

    def read(self) -> dict[str, float]:
        """Return the median, in seconds."""
        return {"seconds": sorted(self._times)[len(self._times) // 2]}


class Memory:
    """The highest use of memory since it was made, above the use at that time."""

    def __init__(self) -> None:
        self._idle = _status("VmRSS")
        try:
            # Forget the peak so far, such as that of the imports (Linux, see proc(5)).
            with open("/proc/self/clear_refs", "w") as file:  # noqa: PTH123
                file.write("5")
        except OSError:
            self._idle = _status("VmHWM")

    def read(self) -> dict[str, float]:
        """Return MiB above the idle state, and the idle state itself."""
        return {"above_idle": _status("VmHWM") - self._idle, "idle": self._idle}


def _status(name: str) -> float:
    """Return a size from the system, in MiB; the peak where there is no better."""
    try:
        with open("/proc/self/status") as file:  # noqa: PTH123
            return next(int(line.split()[1]) for line in file if line.startswith(name)) / 1024
    except (OSError, StopIteration):
        import resource

        scale = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / _MIB


def moment() -> dict[str, float]:
    """Return the time on the clock that all processes of a machine share."""
    return {"at": time.monotonic()}


def account() -> tuple[str, str, str]:
    """Return server URL, API key and user."""
    return (
        os.environ["FTRACK_SERVER"],
        os.environ["FTRACK_API_KEY"],
        os.environ["FTRACK_API_USER"],
    )


def report(result: dict[str, float], **facts: str) -> None:
    """Print what was measured, for ``run.py``."""
    print(json.dumps({**result, **facts}), flush=True)
