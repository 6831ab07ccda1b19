"""A server in a process of its own, which can lose power."""

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

from aioftrackjobs.devserver.serving.inspection import EntityInspector
from aioftrackjobs.errors import FtrackJobsError
from aioftrackjobs.session import AsyncSession
from aioftrackjobs.testing._credentials import FtrackCredentials

#: The child takes its orders from standard input: what stands in a command line, all can read.
#: It looks for modules where its parent does, installed or not.
_PROGRAM = """
import json, sys
told = json.loads(sys.stdin.readline())
sys.path[:] = told["path"]
from aioftrackjobs.testing._served import main
main(told)
"""
_SEED_BITS = 32
#: Seconds that a server which was asked to stop may take; it cuts off clients after two.
_PATIENCE = 10.0


class ServerProcessError(FtrackJobsError):
    """The server's process did not start, or there is none that could be used.

    Attributes:
        reason: What is wrong.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"the server's process: {self.reason}"


class ServerProcess:
    """The embedded server in a process of its own, with a database that outlives it.

    It ends with the process that made it. What is looked up in it passes no network and no fault.

    ::

        with ServerProcess(tmp_path) as server:
            async with server.session() as session:
                ...
                server.kill()  # kill -9, in the midst of whatever it does
                server.start()  # with the same data, on the same port
                ...

    Its methods block: in a program with an event loop call them with
    ``anyio.to_thread.run_sync(server.restart)`` if it must go on meanwhile.

    Args:
        folder: Where database, files and log are kept; made if it is missing.
        faults: What is to go wrong, as the option ``--fault`` of ``aioftrackjobs serve`` has it:
            ``"drop-after:0.1"``; see :mod:`aioftrackjobs.devserver.faults.options`.
        seed: What chance begins with at each start; a random one if not given.
        port: 0 for any free one, which then stays the same.
        options: What else :func:`aioftrackjobs.devserver.serve` takes, such as ``api_user``.

    Attributes:
        seed: What chance begins with.
        api_user: Whom clients act as.
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
        self.seed = secrets.randbits(_SEED_BITS) if seed is None else seed
        self.api_user = api_user
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
        self._asking = threading.Lock()
        self._looks = EntityInspector(lambda expression: self._ask("look", expression, "found"))

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
        """Whether the process runs; a fault may have ended it."""
        return self._process is not None and self._process.poll() is None

    @property
    def credentials(self) -> FtrackCredentials:
        """URL, key and user for any client; they stay the same.

        Raises:
            ServerProcessError: If it was never started.
        """
        if self._credentials is None:
            raise ServerProcessError("it was not started; call start(), or use it in a with block")
        return self._credentials

    @property
    def url(self) -> str:
        """What clients take as the server's URL."""
        return self.credentials.server_url

    @property
    def api_key(self) -> str:
        """The key of :attr:`api_user`."""
        return self.credentials.api_key

    @property
    def log(self) -> str:
        """What the processes so far have said."""
        path = self._folder / "server.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def session(self, **options: Any) -> AsyncSession:
        """Return a session on this server, to be opened; *options* as ``AsyncSession`` has them."""
        return AsyncSession(*self.credentials, **options)

    def jobs(self) -> list[dict[str, Any]]:
        """Return all Jobs, the oldest first, as :meth:`FtrackServer.jobs` does.

        Raises:
            ServerProcessError: If it does not run.
        """
        return self._looks.jobs()

    def job(self, job: object) -> dict[str, Any]:
        """Return one Job, as in :meth:`jobs`.

        Args:
            job: Its id, or anything with an ``id``, such as the Job of a session.

        Raises:
            LookupError: If there is none.
            ServerProcessError: If it does not run.
        """
        return self._looks.job(job)

    def find(self, expression: str) -> list[dict[str, Any]]:
        """Return the entities that a query finds, as plain dictionaries; times are ``datetime``.

        Raises:
            ServerProcessError: If *expression* is no query, or it does not run.
        """
        return self._looks.find(expression)

    def content(self, component_id: str) -> bytes:
        """Return the bytes of a component's file.

        Raises:
            ServerProcessError: If there is none, or it does not run.
        """
        return Path(self._ask("path", component_id, "path")).read_bytes()

    def start(self) -> None:
        """Start the process, and return when it answers; does nothing if it runs.

        One that a fault has ended may look as if it ran for a moment more: :meth:`wait` first.

        Raises:
            ServerProcessError: If it cannot start.
        """
        if self.is_alive:
            return
        self.kill()  # what is left of one that ended by itself
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
            self._take(self._say(self._process))
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """End the process as ``kill -9`` does, or a power cut: at once, wherever it is."""
        if self._process is not None:
            self._process.kill()
            self._close(self._process)

    def stop(self) -> None:
        """Ask the process to end, and wait for that: requests under way have a second."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                self._process.kill()
            self._close(self._process)

    def wait(self, patience: float = _PATIENCE) -> None:
        """Wait until the process has ended by itself, as after a :class:`LosePower`.

        Its connections are lost a moment before.

        Raises:
            TimeoutError: If it has not, within *patience* seconds.
        """
        if self._process is not None:
            try:
                self._process.wait(patience)
            except subprocess.TimeoutExpired:
                raise TimeoutError(f"the server still runs after {patience:g} s") from None

    def restart(self) -> None:
        """Stop and start."""
        self.stop()
        self.start()

    def _say(self, process: subprocess.Popen[str]) -> dict[str, str]:
        """Tell the process what to do, and return what it says of its start."""
        told = {
            "path": sys.path,
            "seed": self.seed,
            "faults": self._faults,
            "options": self._options,
        }
        said = _exchange(process, told)
        if not said:
            last = self.log.strip().splitlines()[-1:] or ["it said nothing"]
            raise ServerProcessError(f"it ended before it was ready: {last[0]}")
        return said

    def _ask(self, name: str, value: str, wanted: str) -> str:
        """Return what the running process knows."""
        with self._asking:
            said = _exchange(self._process, {name: value}) if self._process else {}
        if not said:
            raise ServerProcessError("it does not run; call start(), or use it in a with block")
        if "error" in said:
            raise ServerProcessError(said["error"])
        return said[wanted]

    def _take(self, said: dict[str, str]) -> None:
        if "error" in said:
            raise ServerProcessError(said["error"])
        self._credentials = FtrackCredentials(said["url"], said["api_key"], self.api_user)
        self._options["port"] = urlsplit(said["url"]).port

    def _close(self, process: subprocess.Popen[str]) -> None:
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
        self._process = None


def _exchange(process: subprocess.Popen[str], told: dict[str, Any]) -> dict[str, str]:
    """Tell a process something, and return what it says; nothing if it has ended."""
    assert process.stdin is not None  # noqa: S101 - both are pipes
    assert process.stdout is not None  # noqa: S101
    try:
        process.stdin.write(json.dumps(told) + "\n")
        process.stdin.flush()
    except BrokenPipeError:
        return {}
    said: dict[str, str] = json.loads(process.stdout.readline() or "{}")
    return said
