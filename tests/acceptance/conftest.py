"""Programs as users run them: real processes, against an embedded server on a real socket."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import anyio
import pytest
import pytest_asyncio

import aioftrackjobs
from aioftrackjobs import AsyncSession
from aioftrackjobs.devserver import ServerHandle

ROOT = Path(__file__).parents[2]

#: Seconds that anything here may take; reached only by a failing test.
PATIENCE = 20.0

_KEPT = ("PATH", "SYSTEMROOT", "LD_LIBRARY_PATH")


class Program:
    """A running process, whose output goes to files so that it never blocks."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        self._process = process
        self._folder = folder

    @property
    def out(self) -> str:
        return (self._folder / "out").read_text()

    @property
    def err(self) -> str:
        return (self._folder / "err").read_text()

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def shows(self, text: str) -> None:
        """Wait until *text* is in the output."""
        with anyio.fail_after(PATIENCE):
            while text not in self.out + self.err:
                ended = self._process.poll()
                assert ended is None or text in self.out + self.err, f"{ended}: {self.err}"
                await anyio.sleep(0.02)

    async def end(self) -> int:
        """Wait for the end, and return the exit code."""
        with anyio.fail_after(PATIENCE):
            while (code := self._process.poll()) is None:  # noqa: ASYNC110 - it is a process
                await anyio.sleep(0.02)
        return code

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture(scope="session")
def environment() -> Callable[[Path], dict[str, str]]:
    """Return the whole environment of a program that keeps its temporary files in a folder."""

    def build(folder: Path) -> dict[str, str]:
        temporary = folder / "tmp"
        temporary.mkdir(exist_ok=True)
        return {
            **{name: os.environ[name] for name in _KEPT if name in os.environ},
            "HOME": str(folder),
            "TMPDIR": str(temporary),
            "PYTHONPATH": str(Path(aioftrackjobs.__file__).parents[1]),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUTF8": "1",
            "COLUMNS": "80",
            "TERM": "xterm",
        }

    return build


@pytest.fixture
def launch(
    tmp_path: Path, environment: Callable[[Path], dict[str, str]]
) -> Iterator[Callable[..., Program]]:
    """Start ``python ARGUMENTS``; what still runs after the test is killed."""
    count = 0
    with ExitStack() as stack:

        def start(
            *arguments: str, env: Mapping[str, str] | None = None, pass_fds: Sequence[int] = ()
        ) -> Program:
            nonlocal count
            count += 1
            folder = tmp_path / f"program{count}"
            folder.mkdir()
            with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
                process = subprocess.Popen(
                    [sys.executable, *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    cwd=tmp_path,
                    env={**environment(tmp_path), **(env or {})},
                    pass_fds=pass_fds,
                )
            program = Program(process, folder)
            stack.callback(program.kill)
            return program

        yield start


class Runs:
    """Runs of pytest in which aioftrackjobs is installed, with its plugin."""

    def __init__(self, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
        self._pytester = pytester
        # What these tests import, with what an installation adds for pytest.
        metadata = pytester.path / "installed" / "aioftrackjobs-0.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: aioftrackjobs\nVersion: 0\n"
        )
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        points = project["entry-points"]["pytest11"]
        lines = [f"{name} = {target}" for name, target in points.items()]
        (metadata / "entry_points.txt").write_text("\n".join(["[pytest11]", *lines]))
        package = Path(aioftrackjobs.__file__).parents[1]
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(metadata.parent), str(package)]))
        monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")

    @property
    def folder(self) -> Path:
        """Where they run."""
        return self._pytester.path

    def run(self, tests: str, *options: str) -> pytest.RunResult:
        """Run a file of tests; warnings are errors."""
        return self.run_here(str(self._pytester.makepyfile(tests)), *options)

    def run_here(self, *arguments: str) -> pytest.RunResult:
        """Run pytest with *arguments*; warnings are errors."""
        # pytest-asyncio wants to be told what its default will be.
        strict = ("-W", "error", "-W", "ignore:The configuration option")
        return self._pytester.runpytest_subprocess(*strict, *arguments)


@pytest.fixture
def runs(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Runs:
    return Runs(pytester, monkeypatch)


@pytest_asyncio.fixture
async def session(server: ServerHandle) -> AsyncIterator[AsyncSession]:
    async with AsyncSession(server.url, server.api_key, server.api_user) as opened:
        yield opened


@pytest.fixture
def ftrack(server: ServerHandle) -> dict[str, str]:
    """The three environment variables for the embedded server."""
    return {
        "FTRACK_SERVER": server.url,
        "FTRACK_API_USER": server.api_user,
        "FTRACK_API_KEY": server.api_key,
    }


@pytest.fixture(scope="session")
def until() -> Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]:
    """Wait until a condition holds."""

    async def wait(holds: Callable[[], Awaitable[bool]]) -> None:
        with anyio.fail_after(PATIENCE):
            while not await holds():  # noqa: ASYNC110 - of another process
                await anyio.sleep(0.05)

    return wait
