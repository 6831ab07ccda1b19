"""``aioftrackjobs actions``: serves the actions of a module, and starts again when it changes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import typer

from aioftrackjobs import AsyncSession, shutdown_on_signals
from aioftrackjobs.actions import Actions
from aioftrackjobs.cli.arguments import UsageError

#: Seconds between two looks at the files.
_PAUSE = 0.25

#: Seconds that a program may take to end its Jobs before it is killed.
_GRACE = 15.0


class NoActionsError(UsageError):
    """What was named on the command line is no registry of actions.

    Attributes:
        target: What was named.
        reason: What it is instead.
    """

    def __init__(self, target: str, reason: str) -> None:
        super().__init__(target, reason)
        self.target = target
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.target} names no actions: {self.reason}"


def load_actions(target: str) -> Actions:
    """Return the actions that ``module:name`` names; the current folder is searched, too.

    Raises:
        NoActionsError: There are none, or the module cannot be imported.
    """
    module_name, _, name = target.partition(":")
    if not name or not all(map(str.isidentifier, module_name.split("."))):
        raise NoActionsError(target, "write MODULE:NAME, such as service:actions")
    if (folder := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, folder)
    try:
        found: object = import_module(module_name)
    except ModuleNotFoundError as exc:
        if exc.name is None or not f"{module_name}.".startswith(f"{exc.name}."):
            raise  # the module itself lacks something, which its traceback shows
        raise NoActionsError(target, f"there is no module {exc.name}") from exc
    for part in name.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, Actions):
        raise NoActionsError(target, f"{name} is no Actions of {module_name}")
    return found


async def serve(target: str, concurrency: int) -> None:
    """Serve the actions that *target* names, until a signal ends the program."""
    actions = load_actions(target)
    async with (
        AsyncSession() as session,
        shutdown_on_signals(session),
    ):
        names = ", ".join(action.title for action in actions)
        print(f"Serving {names}, until Ctrl-C.", file=sys.stderr, flush=True)
        await actions.serve(session, concurrency=concurrency)


def serve_and_reload(target: str, concurrency: int) -> None:
    """Serve actions in a process of its own, which starts again when a file has changed."""
    command = [sys.executable, "-m", "aioftrackjobs", "actions", target]
    command += ["--concurrency", str(concurrency)]
    signal.signal(signal.SIGTERM, _exit)
    while True:
        before = _changes()
        process = subprocess.Popen(command)  # noqa: S603 - this program
        try:
            while _changes() == before:
                time.sleep(_PAUSE)
        finally:
            _end(process)
        print("A file has changed: starting again.", file=sys.stderr, flush=True)


def _exit(number: int, _: object) -> None:
    raise typer.Exit(128 + number)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(_GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _changes() -> dict[Path, int]:
    """Return when each Python file in the current folder was changed."""
    found = {}
    for path in _files(Path.cwd()):
        try:
            found[path] = path.stat().st_mtime_ns
        except OSError:  # it was removed in this moment
            continue
    return found


def _files(folder: Path) -> Iterator[Path]:
    for root, folders, files in os.walk(folder):
        folders[:] = [
            each
            for each in folders
            if not each.startswith((".", "__")) and not Path(root, each, "pyvenv.cfg").exists()
        ]
        yield from (Path(root, each) for each in files if each.endswith(".py"))
