"""Cancelled while it starts, runs or stops, a server leaves nothing behind.

Native cancellation above all: ``Task.cancel()``, by which ``asyncio.run`` hands on Ctrl-C and
which anyio's shields do not hold off.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.to_thread import run_sync

from aioftrackjobs.devserver import running
from aioftrackjobs.devserver.engine import Engine
from aioftrackjobs.devserver.serving import runner, uvicorn_server
from aioftrackjobs.devserver.serving.address import bind

from .caller import names_in
from .waiting import server_threads


class Gate:
    """A point where the server's thread stops until the test lets it continue."""

    def __init__(self) -> None:
        self._reached = threading.Event()
        self._open = threading.Event()

    def pass_through(self) -> None:
        self._reached.set()
        assert self._open.wait(10)

    async def reached(self) -> None:
        assert await run_sync(self._reached.wait, 10)

    def open(self) -> None:
        self._open.set()


class Left:
    """What a server could leave behind: listening sockets, and files in the temporary folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.threads = server_threads()
        self.listeners: list[socket.socket] = []

    def nothing(self) -> bool:
        return (
            names_in(self.folder) == []
            and all(listener.fileno() == -1 for listener in self.listeners)
            and server_threads() == self.threads
        )


@pytest.fixture
def left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Left:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    left = Left(tmp_path)

    def recorded(host: str, port: int) -> socket.socket:
        left.listeners.append(bind(host, port))
        return left.listeners[-1]

    monkeypatch.setattr(runner, "bind", recorded)
    return left


#: Where to stop the thread, as (owner, name, before or after what is called there).
STAGES = {
    "before the socket": (runner, "bind", True),
    "after the socket": (runner, "bind", False),
    "before the store": (Engine, "_populate", True),
    "after the store": (Engine, "_populate", False),
    "before uvicorn": (uvicorn_server.UvicornServer, "run", True),
}


@pytest.fixture(params=STAGES)
def gate(request: pytest.FixtureRequest, left: Left, monkeypatch: pytest.MonkeyPatch) -> Gate:
    return gate_at(monkeypatch, *STAGES[request.param])


def gate_at(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, before: bool) -> Gate:
    gate, function = Gate(), getattr(owner, name)

    def gated(*args: Any, **kwargs: Any) -> Any:
        if before:
            gate.pass_through()
        result = function(*args, **kwargs)
        if not before:
            gate.pass_through()
        return result

    monkeypatch.setattr(owner, name, gated)
    return gate


async def use(inside: Callable[[], None] = lambda: None) -> None:
    async with running():
        inside()
        await anyio.sleep_forever()


async def steps(number: int) -> None:
    """Run *number* rounds of the event loop."""
    for _ in range(number):
        await asyncio.sleep(0)


@pytest.mark.parametrize("times", [1, 3])
async def test_cancelled_while_it_starts(gate: Gate, left: Left, times: int) -> None:
    task = asyncio.create_task(use())
    await gate.reached()
    for _ in range(times):
        task.cancel()
        await steps(3)
    gate.open()

    with pytest.raises(asyncio.CancelledError):
        await task

    assert left.nothing()


async def test_a_cancelled_scope_while_it_starts(gate: Gate, left: Left) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(use)
        await gate.reached()
        tasks.cancel_scope.cancel()
        gate.open()

    assert left.nothing()


@pytest.mark.parametrize("number", range(12))
async def test_cancelled_in_the_first_steps(left: Left, number: int) -> None:
    """Also before the thread is started, and while it is waited for."""
    task = asyncio.create_task(use())
    await steps(number)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task

    assert left.nothing()


async def test_cancelled_while_it_runs(left: Left) -> None:
    inside = asyncio.Event()
    task = asyncio.create_task(use(inside.set))
    await inside.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task

    assert len(left.listeners) == 1
    assert left.nothing()


@pytest.mark.parametrize("times", [1, 3])
async def test_cancelled_while_it_stops(
    left: Left, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    gate = gate_at(monkeypatch, uvicorn_server.UvicornServer, "run", before=False)

    async def use_shortly() -> None:
        async with running():
            pass

    task = asyncio.create_task(use_shortly())
    await gate.reached()
    for _ in range(times):
        task.cancel()
        await steps(3)
    assert not left.nothing()
    gate.open()

    with pytest.raises(asyncio.CancelledError):
        await task

    assert left.nothing()


async def test_a_failing_start_leaves_nothing(left: Left, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever fails at the start, everything that was made before is closed."""

    def fail(*_: Any) -> None:
        raise RuntimeError("no seeds")

    monkeypatch.setattr(Engine, "_populate", fail)

    with pytest.raises(RuntimeError, match="no seeds"):
        await use()

    assert left.nothing()


CTRL_C = """
import asyncio
from aioftrackjobs.devserver import running

async def main():
    async with running():
        print("running", flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.fixture
def program(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", CTRL_C],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    ) as process:
        yield process
        process.kill()


def test_ctrl_c_leaves_nothing(program: subprocess.Popen[str], tmp_path: Path) -> None:
    assert program.stdout is not None
    assert program.stdout.readline() == "running\n"
    names = names_in(tmp_path)

    program.send_signal(signal.SIGINT)
    _, errors = program.communicate(timeout=10)

    assert [name.startswith("aioftrackjobs-") for name in names] == [True]
    assert names_in(tmp_path) == []
    assert errors.rstrip().endswith("KeyboardInterrupt")
