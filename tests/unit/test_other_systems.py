"""What the code does where the system has no signals, locks or process groups, as on Windows.

These tests take away from Linux what others lack. They do not show that the package works there.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aioftrackjobs import UnsupportedPlatformError, run_command, shutdown_on_signals
from aioftrackjobs.commands import execution
from aioftrackjobs.journal import _place, _presence, _process
from aioftrackjobs.running import signals
from aioftrackjobs.transfers import partial_file
from tests.tables import Tables

#: Attributes and modules that Windows does not have, of those that the package uses.
MISSING = {
    "os": ("fork", "register_at_fork", "killpg", "getuid", "geteuid", "chown", "fchmod", "writev"),
    "signal": ("SIGKILL", "SIGSTOP", "SIGCONT", "SIGTSTP", "SIGHUP", "SIGWINCH", "SIGUSR1"),
    "socket": ("AF_UNIX", "socketpair"),
    "time": ("CLOCK_BOOTTIME", "clock_gettime"),
}
MODULES = ("fcntl", "grp", "pty", "pwd", "resource", "termios", "tty")


@pytest.fixture
def on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the modules with tests here see another system, and nothing else."""
    windows = SimpleNamespace(platform="win32", modules={})
    for module in (_place, _presence, _process, signals):
        monkeypatch.setattr(module, "sys", windows)
    monkeypatch.setattr(_process, "_PROC", Path("no proc"))
    monkeypatch.setattr(_process, "this_process", lambda: _process.Process("here", os.getpid()))
    monkeypatch.setattr(_presence, "this_process", lambda: _process.Process("here", os.getpid()))
    for name in MODULES:
        monkeypatch.setitem(sys.modules, name, None)


def other_os(*missing: str, **different: Any) -> SimpleNamespace:
    """Return the module os without some of its names."""
    kept = {name: value for name, value in vars(os).items() if name not in missing}
    return SimpleNamespace(**{**kept, **different})


def test_every_module_of_the_client_imports() -> None:
    """Also the command line and the server; engines are extras, and so is the demo of a farm."""
    code = f"""
import asyncio, importlib, pkgutil, sys, subprocess, sqlite3, ssl, zoneinfo, pydantic.fields
import anyio._backends._asyncio, httpx, pydantic, rich.console, rich.live, typer, websockets
import concurrent.futures, socket, tempfile, email.message, certifi, uvicorn, sqlalchemy, starlette
import xml.etree.ElementTree, webbrowser, PIL.Image, jinja2, lark
import os, signal, time
for module, names in {MISSING!r}.items():
    for name in names:
        if hasattr(sys.modules[module], name):
            delattr(sys.modules[module], name)
for name in {MODULES!r}:
    sys.modules[name] = None
sys.platform = "win32"
asyncio.ProactorEventLoop = asyncio.SelectorEventLoop
import aioftrackjobs
for found in pkgutil.walk_packages(aioftrackjobs.__path__, "aioftrackjobs."):
    if not any(part in found.name for part in ("integrations", "demo_farm", "__main__")):
        importlib.import_module(found.name)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("on_windows")
async def test_signals_are_left_to_the_program() -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    async with Tables().session() as session, shutdown_on_signals(session):
        meanwhile = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert meanwhile == handlers


@pytest.mark.usefixtures("on_windows")
def test_a_process_is_not_asked_by_a_signal_which_would_stop_it() -> None:
    """There, signal 0 is Ctrl-C."""
    here = _process.Process("here", os.getpid())

    assert here.is_alive() is True
    assert here._replace(pid=os.getppid()).is_alive() is None
    assert here._replace(pid=2**22 + 1).is_alive() is None
    assert here._replace(host="elsewhere").is_alive() is None


@pytest.mark.usefixtures("on_windows")
def test_a_session_shows_no_lock_and_is_known_in_its_own_process_only(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.touch()
    lock = _presence.PresenceLock("mine")
    lock.hold(log)
    lock.release()
    _presence.note_opened("mine")
    here, now = _process.Process("here", os.getpid()), time.time()

    with log.open("rb") as file:
        found = [
            _presence.is_present(token, process, now - 10**6, now, log=file.fileno(), own_token="x")
            for token, process in (
                ("mine", here),
                ("of a program that was replaced", here),
                ("of another process", here._replace(pid=here.pid + 1)),
                ("of another host", here._replace(host="elsewhere")),
                ("of a Linux host", here._replace(place=f"{'0' * 8}-0000-4000-8000-{'0' * 12} x")),
            )
        ]

    assert found == [True, False, None, None, None]


@pytest.mark.usefixtures("on_windows")
def test_modes_of_a_journal_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.touch(mode=0o644)
    path.chmod(0o644)

    _place.make_private(path)

    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.usefixtures("on_windows")
def test_a_download_needs_no_locks_modes_or_vectors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    windows = other_os("fchmod", "writev", "pathconf", name="nt")
    monkeypatch.setattr(partial_file, "os", windows)
    target = tmp_path / "sh010.mov"
    target.write_bytes(b"earlier")

    for lasting in (False, True):
        file = partial_file.PartialFile(target, "component", lasting=lasting)
        file.open()
        file.write([b"new ", b"bytes"])
        file.finish()

        assert target.read_bytes() == b"new bytes"
        assert list(tmp_path.iterdir()) == [target]
        target.write_bytes(b"earlier")


async def test_a_command_is_refused_before_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "os", other_os(name="nt"))
    tables = Tables()
    async with tables.session() as session:
        with pytest.raises(
            UnsupportedPlatformError, match=r"only on Linux and macOS; .*run_process"
        ):
            await run_command(session, ["true"])

    assert tables.rows == {}, "there is no Job, either"
