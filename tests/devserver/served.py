"""A server in a process of its own, which can be killed and measured."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aioftrackjobs

API_KEY = "key-for-tests"
_SERVE = """
import sys
from aioftrackjobs.devserver import serve
serve(port=0, database=sys.argv[1], storage=sys.argv[2], api_key=sys.argv[3],
      on_ready=lambda server: print(server.url, flush=True))
"""


class Served:
    """A running server that keeps its data in a folder."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self._process = process
        self.url = url

    def kill(self) -> None:
        """End it as ``kill -9`` does, at once."""
        self._process.kill()
        self._process.wait()

    def peak_memory(self) -> int:
        """Return the most bytes of memory that it ever had."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024


@contextmanager
def served(folder: Path) -> Iterator[Served]:
    """Serve the data in *folder* for the length of the block, then kill the server."""
    command = [sys.executable, "-c", _SERVE, str(folder / "ftrack.db"), str(folder / "files")]
    process = subprocess.Popen(
        [*command, API_KEY],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(aioftrackjobs.__file__).parents[1])},
    )
    with process:
        try:
            assert process.stdout is not None
            yield Served(process, process.stdout.readline().strip())
        finally:
            process.kill()
