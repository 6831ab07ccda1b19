"""What the measured programs share: the sizes of the work, and measuring time and memory.

It imports only what is cheap, because "hello job" measures its import, too, for all peers alike.
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
#: Requests that plain httpx sends at once: more of them are slower (httpcore's pool).
MAX_CONCURRENT = 10
FILE_SIZE = 256 << 20

#: The settings of ``journal.py``: what keeps a Job from being lost.
SETTINGS = ("plain", "leases", "journal", "journal and leases")

READING = "select id, status, user.username from Job"
CHUNK = 1 << 20

_MIB = 1 << 20


class Stopwatch:
    """Wall and processor time since its creation."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self, *, share: int = 1) -> dict[str, float]:
        """Return both, in seconds, divided by the number of repetitions."""
        return {
            "seconds": (time.perf_counter() - self._wall) / share,
            "cpu": (time.process_time() - self._cpu) / share,
        }


class Laps:
    """The times of repetitions, the first of which begins with its creation."""

    def __init__(self) -> None:
        self._times: list[float] = []
        self._started = time.perf_counter()

    def end(self) -> None:
        """End a repetition, and begin the next."""
        now = time.perf_counter()
        self._times.append(now - self._started)
        self._started = now

    def read(self) -> dict[str, float]:
        """Return the median, in seconds."""
        return {"seconds": sorted(self._times)[len(self._times) // 2]}


class Memory:
    """The highest use of memory since its creation, above the use at that time."""

    def __init__(self) -> None:
        self._idle = _status("VmRSS")
        try:
            # Reset the peak, for instance that of the imports (Linux, see proc(5)).
            with open("/proc/self/clear_refs", "w") as file:  # noqa: PTH123
                file.write("5")
        except OSError:
            self._idle = _status("VmHWM")

    def read(self) -> dict[str, float]:
        """Return MiB above the idle state, and the idle state itself."""
        return {"above_idle": _status("VmHWM") - self._idle, "idle": self._idle}


def _status(name: str) -> float:
    """Return a size that the system reports, in MiB; on other systems than Linux, the peak."""
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
