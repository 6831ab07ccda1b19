"""Programs run as users run them: as real processes, with an embedded server on a real socket."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import anyio
import pytest
import pytest_asyncio

import aioftrackjobs
from aioftrackjobs import AsyncSession
from aioftrackjobs.cli import main
from aioftrackjobs.devserver import ServerHandle

ROOT = Path(__file__).parents[2]

#: Seconds that anything here may take; reached only by a failing test.
TIME_LIMIT = 50.0

_KEPT = ("PATH", "SYSTEMROOT", "LD_LIBRARY_PATH")
_IMPORTED_FROM = (Path(__file__).parent / "without_trio", Path(aioftrackjobs.__file__).parents[1])


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
        with anyio.fail_after(TIME_LIMIT):
            while text not in self.out + self.err:
                ended = self._process.poll()
                assert ended is None or text in self.out + self.err, f"{ended}: {self.err}"
                await anyio.sleep(0.02)

    async def end(self) -> int:
        """Wait for the end, and return the exit code."""
        with anyio.fail_after(TIME_LIMIT):
            while (code := self._process.poll()) is None:  # noqa: ASYNC110 - it is a process
                await anyio.sleep(0.02)
        return code

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


def _environment_of(folder: Path) -> dict[str, str]:
    """Return the environment variables of a program whose temporary files go to *folder*."""
    temporary = folder / "tmp"
    temporary.mkdir(exist_ok=True)
    return {
        **{name: os.environ[name] for name in _KEPT if name in os.environ},
        "HOME": str(folder),
        "TMPDIR": str(temporary),
        "PYTHONPATH": os.pathsep.join(map(str, _IMPORTED_FROM)),
        "PYTHONUTF8": "1",
        "COLUMNS": "80",
        "TERM": "xterm",
    }


@pytest.fixture(scope="session")
def environment() -> Callable[[Path], dict[str, str]]:
    """Return the environment variables of a program, by the folder of its temporary files."""
    return _environment_of


@pytest.fixture
def launch(
    tmp_path: Path, environment: Callable[[Path], dict[str, str]]
) -> Iterator[Callable[..., Program]]:
    """Start ``python ARGUMENTS``. A process that still runs after the test is killed."""
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


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Ended]:
    """Run ``aioftrackjobs ARGUMENTS`` in this process: as a program does, without its start.

    A command that has an event loop needs a thread without one: await ``run_sync`` with it.
    """

    def run(*arguments: str, env: Mapping[str, str] | None = None) -> Ended:
        with monkeypatch.context() as patched:
            patched.setattr(sys, "argv", ["aioftrackjobs", *arguments])
            patched.setenv("COLUMNS", "80")
            for name in ("SERVER", "API_USER", "API_KEY", "APIKEY", "JOBS_JOURNAL"):
                patched.setenv(f"FTRACK_{name}", "")  # so that what the command sets is undone
                patched.delenv(f"FTRACK_{name}")
            for name, value in (env or {}).items():
                patched.setenv(name, value)
            capsys.readouterr()
            with pytest.raises(SystemExit) as left:
                main()
            assert isinstance(left.value.code, int)
            return Ended(left.value.code, *capsys.readouterr())

    return run


@dataclass(frozen=True)
class TestRun:
    """A run of pytest that has ended.

    Attributes:
        out: What it printed.
        outcomes: What became of each test, by its file without "test_" and its name.
    """

    __test__ = False

    out: str
    outcomes: tuple[tuple[str, str, str], ...]

    def of(self, file: str) -> list[str]:
        """Return the outcomes of the tests in a file."""
        return [outcome for name, _, outcome in self.outcomes if name == file]

    def shows(self, *patterns: str) -> None:
        """Check that lines like these are in the output, in this order."""
        pytest.LineMatcher(self.out.splitlines()).fnmatch_lines(patterns)


class TestRuns:
    """Runs of pytest in which aioftrackjobs is installed, with its plugin.

    Args:
        folder: Where they run, each in a folder of its own.
    """

    __test__ = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        # What these tests import, with what an installation adds for pytest.
        metadata = folder / "installed" / "aioftrackjobs-0.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: aioftrackjobs\nVersion: 0\n"
        )
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        points = project["entry-points"]["pytest11"]
        lines = [f"{name} = {target}" for name, target in points.items()]
        (metadata / "entry_points.txt").write_text("\n".join(["[pytest11]", *lines]))
        package = Path(aioftrackjobs.__file__).parents[1]
        self._path = os.pathsep.join([str(metadata.parent), str(package)])

    def run(self, files: Mapping[str, str], *options: str) -> TestRun:
        """Run files of tests, by their names without "test_"; warnings are errors."""
        sources = {f"test_{name}.py": textwrap.dedent(text) for name, text in files.items()}
        return self.run_files(sources, *options)

    def run_files(self, files: Mapping[str, str], *options: str) -> TestRun:
        """Run pytest in a folder that has *files*; warnings are errors."""
        self._count += 1
        folder = self._folder / str(self._count)
        folder.mkdir()
        for name, text in files.items():
            (folder / name).write_text(text)
        # pytest-asyncio wants to be told what its default will be.
        strict = ("-W", "error", "-W", "ignore:The configuration option")
        own = ("--rootdir=.", "-rA", "--junitxml=report.xml")
        # None of these is of use here, and each run would import them.
        needless = ("cacheprovider", "hypothesispytest", "respx", "timeout", "xdist")
        without = [f"-pno:{name}" for name in needless]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *strict, *own, *without, *options],
            cwd=folder,
            env={**_environment_of(folder), "PYTHONPATH": self._path},
            capture_output=True,
            text=True,
        )
        report = folder / "report.xml"
        assert report.exists(), done.stdout + done.stderr
        cases = ElementTree.parse(report).iter("testcase")
        return TestRun(done.stdout, tuple(_outcome_of(case) for case in cases))


def _outcome_of(case: ElementTree.Element) -> tuple[str, str, str]:
    file = case.attrib["classname"].rpartition(".")[2].removeprefix("test_")
    kinds = {"failure": "failed", "error": "error", "skipped": "skipped"}
    found = [kinds[child.tag] for child in case if child.tag in kinds]
    return file, case.attrib["name"], found[0] if found else "passed"


@pytest.fixture(scope="session")
def all_runs(tmp_path_factory: pytest.TempPathFactory) -> TestRuns:
    return TestRuns(tmp_path_factory.mktemp("runs"))


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
        with anyio.fail_after(TIME_LIMIT):
            while not await holds():  # noqa: ASYNC110 - of another process
                await anyio.sleep(0.05)

    return wait
