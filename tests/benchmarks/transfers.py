"""Transfers of one big file: ours, curl, the official client and plain httpx, in one run.

    python tests/benchmarks/transfers.py [--size MIB] [--repeat N] [--memory-size MIB]

Each measurement is a fresh process; the programs take turns, so that a machine that slows down
slows all of them. Files are in memory where the system has such a place, and the server drops and
makes up what it can: what is measured is the client. Speeds are medians; read the ratios. Nobody
is pinned to a core, as ours hashes and writes in threads. Processor time is that of the transfer
alone for ours, and that of the whole process for curl.

"With checksum" is compared with curl after md5sum, which is how one does the same with curl. curl
sends files in parts that were split before, which costs it nothing here.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from measuring import Memory, Stopwatch, report

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
MIB = 1 << 20
#: Parts of a file of 1 GiB are as big.
PART = 16 * MIB
PARALLEL = 4
BUDGET = 64.0


# What is measured, each in a process of its own


async def upload_ours(path: str, *, in_parts: bool, checksum: bool) -> None:
    """Upload with the package; in one part only because it is told to."""
    from aioftrackjobs import AsyncSession
    from aioftrackjobs.protocol.upload import PartSizes
    from aioftrackjobs.session import context_of
    from aioftrackjobs.transfers.upload import upload

    sizes = PartSizes() if in_parts else PartSizes(fewest=sys.maxsize, most=sys.maxsize)
    async with AsyncSession() as session:
        await session.server_information()
        memory, watch = Memory(), Stopwatch()
        await upload(context_of(session), path, data={}, verified=checksum, sizes=sizes)
        report({**watch.read(), **memory.read()})


async def download_ours(path: str) -> None:
    """Download with the package."""
    from aioftrackjobs import AsyncSession

    async with AsyncSession() as session:
        await session.server_information()
        memory, watch = Memory(), Stopwatch()
        await session.download("any", path)
        report({**watch.read(), **memory.read()})


async def upload_httpx(path: str) -> None:
    """Upload with httpx, from the event loop's own thread."""
    import httpx

    url = os.environ["FTRACK_SERVER"]
    async with httpx.AsyncClient(timeout=60) as client:
        memory, watch = Memory(), Stopwatch()
        with open(path, "rb") as file:  # noqa: ASYNC230, PTH123

            async def chunks():
                while chunk := file.read(MIB):
                    yield chunk

            size = str(os.fstat(file.fileno()).st_size)
            headers = {"content-length": size}
            answer = await client.put(f"{url}/upload", content=chunks(), headers=headers)
            answer.raise_for_status()
        report({**watch.read(), **memory.read()})


async def download_httpx(path: str) -> None:
    """Download with httpx, writing from the event loop's own thread."""
    import httpx

    url = os.environ["FTRACK_SERVER"]
    async with httpx.AsyncClient(timeout=60) as client:
        memory, watch = Memory(), Stopwatch()
        async with client.stream("GET", f"{url}/component/get") as answer:
            with open(path, "wb") as file:  # noqa: ASYNC230, PTH123
                async for chunk in answer.aiter_raw():
                    file.write(chunk)
        report({**watch.read(), **memory.read()})


def official(name: str, *arguments: str) -> None:
    """Upload or download with the official Python client."""
    import official as programs

    getattr(programs, name)(*arguments)


PROGRAMS: dict[str, Callable[[str], None]] = {
    "ours-single": lambda path: asyncio.run(upload_ours(path, in_parts=False, checksum=False)),
    "ours-single-sum": lambda path: asyncio.run(upload_ours(path, in_parts=False, checksum=True)),
    "ours-parts": lambda path: asyncio.run(upload_ours(path, in_parts=True, checksum=False)),
    "ours-parts-sum": lambda path: asyncio.run(upload_ours(path, in_parts=True, checksum=True)),
    "ours-down": lambda path: asyncio.run(download_ours(path)),
    "httpx-single": lambda path: asyncio.run(upload_httpx(path)),
    "httpx-down": lambda path: asyncio.run(download_httpx(path)),
    "official-single-sum": lambda path: official("upload", path),
    "official-down": lambda path: official("download", "any", path),
}


# Running them


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        ending: Of the programs' names.
        aim: Least share of curl's speed.
    """

    title: str
    ending: str
    aim: float


ROWS = (
    Row("upload, one part, no checksum", "single", 0.9),
    Row("upload, one part, checksum", "single-sum", 0.7),
    Row("upload, parts, no checksum", "parts", 0.9),
    Row("upload, parts, checksum", "parts-sum", 0.7),
    Row("download", "down", 0.9),
)


class Bench:
    """A running stub, and files to send to it."""

    def __init__(self, folder: Path, environment: dict[str, str], size: int) -> None:
        self.environment = environment
        self.source, self.target = folder / "source.bin", folder / "target.bin"
        self.size = size
        self._url = environment["FTRACK_SERVER"]
        self._parts = folder / "curl.cfg"
        self._folder = folder

    def make_source(self, *, sparse: bool) -> None:
        """Make the file to upload, and the parts of it that curl sends."""
        with self.source.open("wb") as file:
            if sparse:
                file.truncate(self.size)
                return
            block, entries = os.urandom(PART), []
            for number in range(self.size // PART):
                file.write(block)
                part = self._folder / f"part{number}"
                part.write_bytes(block)
                entries.append(
                    f'silent\nfail\nheader = "Expect:"\n'
                    f'upload-file = "{part}"\nurl = "{self._url}/upload"\n'
                )
        self._parts.write_text("next\n".join(entries))

    def run(self, program: str) -> dict[str, float]:
        """Run a program of ours or a peer's, and return what it measured."""
        path = self.target if program.endswith("down") else self.source
        command = [sys.executable, __file__, "--program", program, str(path)]
        done = subprocess.run(
            command, env=self.environment, stdout=subprocess.PIPE, text=True, check=True
        )
        return self._checked(program, json.loads(done.stdout))

    def curl(self, ending: str) -> dict[str, float]:
        """Do the same with curl."""
        quiet = ["curl", "--silent", "--show-error", "--fail", "--header", "Expect:"]
        upload = [*quiet, "--upload-file", str(self.source), f"{self._url}/upload"]
        down = [*quiet, "--output", str(self.target), f"{self._url}/component/get"]
        parallel = ["curl", "--no-progress-meter", "--parallel", "--parallel-max", str(PARALLEL)]
        parts = [*parallel, "-K", str(self._parts)]
        commands = {
            "single": [upload],
            "single-sum": [["md5sum", str(self.source)], upload],
            "parts": [parts],
            "parts-sum": [["md5sum", str(self.source)], parts],
            "down": [down],
        }[ending]
        started, used = time.perf_counter(), _children_cpu()
        for command in commands:
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        result = {"seconds": time.perf_counter() - started, "cpu": _children_cpu() - used}
        return self._checked(ending, result)

    def _checked(self, program: str, result: dict[str, float]) -> dict[str, float]:
        if program.endswith("down"):
            if self.target.stat().st_size != self.size:
                raise AssertionError(f"{program}: {self.target.stat().st_size} bytes")
            self.target.unlink()
        return result


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@contextmanager
def benching(size: int) -> Iterator[Bench]:
    """Start the stub, and have a folder for the files."""
    memory = Path("/dev/shm")
    with ExitStack() as stack:
        place = memory if memory.is_dir() else None
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=place)))
        environment = {
            name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")
        }
        environment["PYTHONPATH"] = os.pathsep.join((str(HERE), str(ROOT)))
        environment["FTRACK_API_SCHEMA_CACHE_PATH"] = str(folder)
        process = stack.enter_context(
            subprocess.Popen(
                [sys.executable, str(HERE / "stub.py"), "0", str(size)],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        stack.callback(process.stdin.close)  # which ends it
        told = json.loads(process.stdout.readline())
        for name, key in (("SERVER", "url"), ("API_KEY", "key"), ("API_USER", "user")):
            environment[f"FTRACK_{name}"] = told[key]
        yield Bench(folder, environment, size)


def compare(bench: Bench, row: Row, repeat: int) -> list[str]:
    """Return the line of *row*."""
    runs: dict[str, Callable[[], dict[str, float]]] = {}
    for peer in ("ours", "httpx", "official"):
        if (name := f"{peer}-{row.ending}") in PROGRAMS:
            runs[peer] = lambda name=name: bench.run(name)
    if shutil.which("curl"):
        runs["curl"] = lambda: bench.curl(row.ending)
    results: dict[str, list[dict[str, float]]] = {peer: [] for peer in runs}
    for turn in range(repeat + 1):
        for peer, run in runs.items():
            result = run()
            if turn:  # the first fills caches
                results[peer].append(result)
    seconds = {peer: median(each["seconds"] for each in found) for peer, found in results.items()}
    speeds = {peer: bench.size / MIB / each for peer, each in seconds.items()}
    memory = max(each["above_idle"] for each in results["ours"])
    ratio = speeds["ours"] / speeds["curl"] if "curl" in speeds else None
    met = "" if ratio is None else "met" if ratio >= row.aim else "MISSED"
    shown = [
        f"{speeds[peer]:.0f} MiB/s" if peer in speeds else ""
        for peer in ("ours", "curl", "httpx", "official")
    ]
    against = ["" if ratio is None else f"{ratio:.2f}", f">= {row.aim:g}", met]
    cpu = {peer: median(each["cpu"] for each in found) for peer, found in results.items()}
    used = f"{cpu['ours']:.2f} s / {cpu['curl']:.2f} s" if "curl" in cpu else ""
    return [row.title, *shown, *against, used, f"{memory:.0f} MiB"]


def memory_of_huge(size: int) -> list[list[str]]:
    """Return the lines on the memory that a huge file takes, up and down."""
    lines = []
    with benching(size) as bench:
        bench.make_source(sparse=True)
        for title, program in (("upload", "ours-parts-sum"), ("download", "ours-down")):
            result = bench.run(program)
            used = result["above_idle"]
            met = "met" if used < BUDGET else "MISSED"
            aim = f"< {BUDGET:.0f} MiB"
            shown = f"{size / MIB / result['seconds']:.0f} MiB/s"
            name = f"{title}, {size // MIB} MiB, memory"
            lines.append([name, shown, "", "", "", "", aim, met, "", f"{used:.0f} MiB"])
    return lines


def render(lines: Sequence[Sequence[str]]) -> str:
    """Return *lines* as a Markdown table."""
    peers = ["ours", "curl", "httpx", "official"]
    head = ["1 file", *peers, "ours / curl", "aim", "", "CPU: ours / curl", "our memory"]
    widths = [max(len(line[column]) for line in (head, *lines)) for column in range(len(head))]
    rule = ["-" * width for width in widths]
    return "\n".join(
        "| " + " | ".join(f"{cell:{w}}" for cell, w in zip(line, widths, strict=True)) + " |"
        for line in (head, rule, *lines)
    )


def main() -> None:
    """Read the command line, and run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, default=1024, metavar="MIB", help="of the file")
    parser.add_argument("--memory-size", type=int, default=2048, metavar="MIB")
    parser.add_argument("--repeat", type=int, default=5, metavar="N")
    parser.add_argument("--only", metavar="ENDING", choices=[row.ending for row in ROWS])
    parser.add_argument("--program", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.program:
        name, path = options.program
        PROGRAMS[name](path)
        return
    rows = [row for row in ROWS if options.only in (None, row.ending)]
    with benching(options.size * MIB) as bench:
        bench.make_source(sparse=False)
        lines = [compare(bench, row, options.repeat) for row in rows]
    if options.only is None:
        lines += memory_of_huge(options.memory_size * MIB)
    print(render(lines))
    print(f"\n{options.size} MiB; medians of {options.repeat} fresh processes, each in turn.")


if __name__ == "__main__":
    main()
