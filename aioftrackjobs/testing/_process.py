"""ServerProcess: a server in a process of its own, which can be killed and started again."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from aioftrackjobs.devserver.serving.handle import EntityInspector
from aioftrackjobs.errors import FtrackJobsError
from aioftrackjobs.session import AsyncSession
from aioftrackjobs.testing._process_actions import ProcessActions
from aioftrackjobs.testing._server import FtrackCredentials

#: The child process reads its settings from standard input, because every user can read a command
#: line. It imports modules from the same places as its parent, which need not have them installed.
_PROGRAM = """
import json, sys
settings = json.loads(sys.stdin.readline())
sys.path[:] = settings["path"]
from aioftrackjobs.testing._process_main import main
main(settings)
"""
_SEED_BITS = 32
#: Seconds that a server may take to stop. It closes the connections of clients after two.
_STOP_TIMEOUT = 10.0


class ServerProcessError(FtrackJobsError):
    """The server's process did not start, or it does not run.

    Attributes:
        reason: What is wrong.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"the server's process: {self.reason}"


class ServerProcess(EntityInspector):
    """The embedded server in a process of its own, with data that survives the process.

    ::

        with ServerProcess(tmp_path) as server:
            async with server.session() as session:
                ...
                server.kill()  # kill -9, at any moment
                server.start()  # with the same data, on the same port
                ...

    The process ends with the process that made it. :meth:`jobs`, :meth:`job`, :meth:`find` and
    :meth:`content` read the server's database, so that faults do not affect them; they raise
    ServerProcessError if the process does not run. All methods block. If an event loop must go on
    meanwhile, call them with ``anyio.to_thread.run_sync(server.restart)``.

    Args:
        folder: Folder for the database, the files and the log. It is created if it is missing.
        faults: Faults to inject, as for the option ``--fault`` of ``aioftrackjobs serve``:
            ``"drop-after:0.1"``; see :mod:`aioftrackjobs.devserver.faults.options`.
        seed: Random seed of the faults at each start; None for a random one.
        port: Port to listen on; 0 for any free port, which then stays the same.
        api_user: Name of the user as whom clients act.
        options: More arguments of :func:`aioftrackjobs.devserver.serve`.

    Attributes:
        seed: Random seed of the faults.
        api_user: Name of the user as whom clients act.
        actions: Discovers and launches actions of connected clients, as the web interface does, and
            has the ``messages`` that clients have sent to it.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        faults: Sequence[str] = (),
        seed: int | None = None,
        port: int = 0,
        api_user: str = "developer",
        **options: Any,
    ) -> None:
        super().__init__(lambda query: self._request("query", query, "result"))
        self.seed: int = secrets.randbits(_SEED_BITS) if seed is None else seed
        self.api_user = api_user
        self.actions: ProcessActions = ProcessActions(
            lambda name, value: self._request(name, value, "result")
        )
        self._folder = Path(folder)
        self._faults = list(faults)
        self._options = {
            "database": str(self._folder / "ftrack.db"),
            "storage": str(self._folder / "files"),
            "api_user": api_user,
            "port": port,
            **options,
        }
        self._process: subprocess.Popen[str] | None = None
        self._credentials: FtrackCredentials | None = None
        self._pipe_lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} in {self._folder}, seed {self.seed}>"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()

    @property
    def is_alive(self) -> bool:
        """Whether the process runs. A fault may end it."""
        return self._process is not None and self._process.poll() is None

    @property
    def credentials(self) -> FtrackCredentials:
        """URL, key and user for any client. They stay the same after a restart.

        Raises:
            ServerProcessError: The process was never started.
        """
        if self._credentials is None:
            raise ServerProcessError("it was not started; call start(), or use it in a with block")
        return self._credentials

    @property
    def url(self) -> str:
        """URL of the server."""
        return self.credentials.server_url

    @property
    def api_key(self) -> str:
        """API key of :attr:`api_user`."""
        return self.credentials.api_key

    @property
    def log(self) -> str:
        """What all processes so far have written to the standard error."""
        path = self._folder / "server.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def session(self, **options: Any) -> AsyncSession:
        """Return a session on this server; *options* are arguments of ``AsyncSession``."""
        return AsyncSession(*self.credentials, **options)

    def content(self, component_id: str) -> bytes:
        """Return the content of a component's file.

        Raises:
            ServerProcessError: There is no such file, or the process does not run.
        """
        return Path(self._request("path", component_id, "path")).read_bytes()

    def start(self) -> None:
        """Start the process, and return when the server is ready; do nothing if it runs already.

        A process that a fault is ending counts as running for another moment: :meth:`wait` first.

        Raises:
            ServerProcessError: The server cannot start.
        """
        if self.is_alive:
            return
        self.kill()  # clean up after a process that has ended by itself
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-c", _PROGRAM],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        try:
            self._configure(self._process)
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """End the process at once and at any point, as ``kill -9`` and a power failure do."""
        if self._process is not None:
            self._process.kill()
            self._close(self._process)

    def stop(self) -> None:
        """Stop the server, and wait until its process has ended. Open requests get one second."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                self._process.kill()
            self._close(self._process)

    def wait(self, timeout: float = _STOP_TIMEOUT) -> None:
        """Wait until the process has ended by itself, as after a :class:`LosePower`.

        Clients see lost connections a moment before.

        Args:
            timeout: Seconds to wait.

        Raises:
            TimeoutError: The process still runs.
        """
        if self._process is not None:
            try:
                self._process.wait(timeout)
            except subprocess.TimeoutExpired:
                raise TimeoutError(f"the server still runs after {timeout:g} s") from None

    def restart(self) -> None:
        """Stop the server, and start it again with the same data."""
        self.stop()
        self.start()

    def _configure(self, process: subprocess.Popen[str]) -> None:
        """Send the settings to a new *process*, and wait until its server is ready."""
        settings = {
            "path": sys.path,
            "seed": self.seed,
            "faults": self._faults,
            "options": self._options,
        }
        response = _exchange(process, settings)
        if not response:
            last = self.log.strip().splitlines()[-1:] or ["it wrote no message"]
            raise ServerProcessError(f"it ended before it was ready: {last[0]}")
        if "error" in response:
            raise ServerProcessError(response["error"])
        self._credentials = FtrackCredentials(response["url"], response["api_key"], self.api_user)
        self._options["port"] = urlsplit(response["url"]).port

    def _request(self, name: str, value: Any, wanted: str) -> str:
        """Send a request to the running process, and return the *wanted* part of the response."""
        with self._pipe_lock:
            response = _exchange(self._process, {name: value}) if self._process else {}
        if not response:
            raise ServerProcessError("it does not run; call start(), or use it in a with block")
        if "error" in response:
            raise ServerProcessError(response["error"])
        return response[wanted]

    def _close(self, process: subprocess.Popen[str]) -> None:
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
        self._process = None


def _exchange(process: subprocess.Popen[str], request: dict[str, Any]) -> dict[str, str]:
    """Send *request* to a process, and return its response; empty if the process has ended."""
    assert process.stdin is not None  # noqa: S101 - both are pipes
    assert process.stdout is not None  # noqa: S101
    try:
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
    except BrokenPipeError:
        return {}
    response: dict[str, str] = json.loads(process.stdout.readline() or "{}")
    return response
