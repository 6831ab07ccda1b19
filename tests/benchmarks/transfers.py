"""Transfers over TLS: this package, curl, httpx, http.client and the official client, in one run.

    python tests/benchmarks/transfers.py [--size MIB] [--repeat N] [--package FOLDER]

nginx is the store (``store.py``). Each measurement is a fresh process, and the programs take turns,
so that a machine that slows down slows all of them. Files are in memory if the system has a file
system for that. Speeds are medians; read the ratios. No process is pinned to a core: nginx and the
client share all cores.

In tasks with a checksum, md5sum runs after a program that verifies nothing itself: curl, httpx,
http.client ("bare"), and the official client in downloads. The official client always computes a
checksum of an upload.
A task transfers one file with all bytes, or eight files with an eighth of the bytes each.

During transfers, a task of our event loop wakes every 5 ms. The table shows its greatest delay, and
in brackets its greatest delay without transfers, because other programs use the machine too.

``--package`` measures another checkout with the benchmark of this one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from hashlib import md5
from pathlib import Path
from statistics import median
from typing import BinaryIO
from urllib.parse import urlsplit

from measuring import Memory, Stopwatch, report

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
MIB = 1 << 20
MANY = 8

#: The aims: the lowest share of curl's speed without and with checksum, the highest share of the
#: official client's time, the most memory above idle in MiB, the highest delay of the loop in ms.
OF_CURL, OF_CURL_SUM, OF_OFFICIAL, MEMORY, LATENESS = 1.0, 0.7, 0.6, 32.0, 50.0

#: Seconds for which an event loop without transfers is measured, for comparison.
_RESTING = 0.5

#: Seconds between the wake-ups of the task that measures the delay of the event loop.
_WAKE = 0.005


@dataclass(frozen=True, slots=True)
class Task:
    """A transfer to measure, the same for each program.

    Attributes:
        kind: "upload" or "download".
        count: How many files at the same time.
        checksum: Whether they are verified.
    """

    kind: str
    count: int
    checksum: bool

    @property
    def title(self) -> str:
        """The title in the table."""
        files = "1 file" if self.count == 1 else f"{self.count} files"
        return f"{self.kind}, {files}, {'checksum' if self.checksum else 'no checksum'}"

    @property
    def component_id(self) -> str:
        """The id of the file to download."""
        return f"{self.count}{'-summed' if self.checksum else ''}"

    def is_verified_by(self, peer: str) -> bool:
        """Return whether a program computes the checksums itself."""
        return peer == "ours" or (peer == "official" and self.kind == "upload")

    def sources(self, folder: Path) -> list[Path]:
        """Return the files to upload."""
        return [folder / f"source-{self.count}-{number}" for number in range(self.count)]

    def targets(self, folder: Path) -> list[Path]:
        """Return the paths of the downloaded files."""
        return [folder / f"target-{number}" for number in range(self.count)]


TASKS = [
    Task(kind, count, checksum)
    for kind in ("upload", "download")
    for count in (1, MANY)
    for checksum in (False, True)
]


# The measured programs, each in a process of its own


async def ours(task: Task, folder: Path) -> None:
    """Transfer with the package."""
    from aioftrackjobs import AsyncSession

    async with AsyncSession() as session:
        await session.create_component(b"x", name="first")  # imports what transfers need
        async with lateness() as at_rest:
            await asyncio.sleep(_RESTING)
        memory, watch = Memory(), Stopwatch()
        async with lateness() as late, asyncio.TaskGroup() as group:
            if task.kind == "upload":
                for path in task.sources(folder):
                    group.create_task(session.create_component(path, checksum=task.checksum))
            else:
                for path in task.targets(folder):
                    group.create_task(session.download(task.component_id, path))
        measured = {"late": max(late), "at_rest": max(at_rest)}
        report({**watch.read(), **memory.read(), **measured})


@asynccontextmanager
async def lateness() -> AsyncIterator[list[float]]:
    """Yield a list that receives the delay, in seconds, of each wake-up of a task in the block."""
    found = [0.0]

    async def wake() -> None:
        while True:
            due = time.perf_counter() + _WAKE
            await asyncio.sleep(_WAKE)
            found.append(time.perf_counter() - due)

    waking = asyncio.create_task(wake())
    try:
        yield found
    finally:
        waking.cancel()


async def plain_httpx(task: Task, folder: Path) -> None:
    """Transfer with httpx; read and write the files in the thread of the event loop."""
    import httpx

    url = os.environ["FTRACK_SERVER"]

    async def send(path: Path) -> None:
        with path.open("rb") as file:

            async def chunks():
                while chunk := file.read(MIB):
                    yield chunk

            headers = {"content-length": str(path.stat().st_size)}
            response = await client.put(f"{url}/upload", content=chunks(), headers=headers)
            response.raise_for_status()

    async def receive(path: Path) -> None:
        address = f"{url}/component/get?id={task.component_id}"
        async with client.stream("GET", address) as response:
            response.raise_for_status()
            with path.open("wb") as file:
                async for chunk in response.aiter_raw():
                    file.write(chunk)

    async with httpx.AsyncClient(timeout=60) as client:
        watch = Stopwatch()
        async with asyncio.TaskGroup() as group:
            if task.kind == "upload":
                for path in task.sources(folder):
                    group.create_task(send(path))
            else:
                for path in task.targets(folder):
                    group.create_task(receive(path))
        report(watch.read())


def bare(task: Task, folder: Path) -> None:
    """Transfer with http.client in a thread for each file: what ours is built on, and nothing else.

    It is the floor of ours: no request for an address, no entity, no limits, no progress.
    """
    from http.client import HTTPConnection, HTTPResponse, HTTPSConnection

    url = urlsplit(os.environ["FTRACK_SERVER"])
    kind = HTTPSConnection if url.scheme == "https" else HTTPConnection

    def requested(method: str, path: str, body: BinaryIO | None, size: int) -> HTTPResponse:
        connection = kind(url.netloc, timeout=60, blocksize=256 * 1024)
        headers = {"content-length": str(size)} if body else {}
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        if response.status not in (200, 201, 204):
            raise AssertionError(f"{method} {path}: {response.status}")
        return response

    def send(path: Path) -> None:
        with path.open("rb", buffering=0) as file:
            requested("PUT", "/upload", file, path.stat().st_size).read()

    def receive(path: Path) -> None:
        buffer = memoryview(bytearray(MIB))
        response = requested("GET", f"/component/get?id={task.component_id}", None, 0)
        with response, path.open("wb", buffering=0) as file:
            while count := response.readinto(buffer):
                file.write(buffer[:count])

    work = send if task.kind == "upload" else receive
    paths = task.sources(folder) if task.kind == "upload" else task.targets(folder)
    with ThreadPoolExecutor(task.count) as threads:
        watch = Stopwatch()
        list(threads.map(work, paths))
        report(watch.read())


def official(task: Task, folder: Path) -> None:
    """Transfer with the official client, in a thread and with a session for each file."""
    from official import open_session

    def prepare(path: Path) -> Callable[[], None]:
        session = open_session()
        location = session.query('Location where name is "ftrack.server"').one()

        def send() -> None:
            session.create_component(str(path), {"name": "benchmark"}, location)

        def receive() -> None:
            source = location.accessor.open(task.component_id)
            with path.open("wb") as target:
                while chunk := source.read(MIB):
                    target.write(chunk)
            source.close()

        return send if task.kind == "upload" else receive

    paths = task.sources(folder) if task.kind == "upload" else task.targets(folder)
    works = [prepare(path) for path in paths]
    with ThreadPoolExecutor(task.count) as threads:
        watch = Stopwatch()
        for done in [threads.submit(work) for work in works]:
            done.result()
        report(watch.read())


PROGRAMS: dict[str, Callable[[Task, Path], None]] = {
    "ours": lambda task, folder: asyncio.run(ours(task, folder)),
    "httpx": lambda task, folder: asyncio.run(plain_httpx(task, folder)),
    "bare": bare,
    "official": official,
}
PEERS = ("ours", "curl", "httpx", "bare", "official")


# Running the programs


class Bench:
    """A running store, and files to transfer."""

    def __init__(self, folder: Path, size: int, environment: dict[str, str]) -> None:
        self._folder = folder
        self._size = size
        self._environment = environment
        self._url = environment["FTRACK_SERVER"]

    def run(self, peer: str, task: Task) -> dict[str, float]:
        """Run a program for *task*, and return what it measured."""
        result = self._curl(task) if peer == "curl" else self._run(peer, task)
        if task.checksum and not task.is_verified_by(peer):
            paths = (task.sources if task.kind == "upload" else task.targets)(self._folder)
            result["seconds"] += self._call(["md5sum", *map(str, paths)])
        if task.kind == "download":
            sizes = [path.stat().st_size for path in task.targets(self._folder)]
            if sizes != [self._size // task.count] * task.count:
                raise AssertionError(f"{peer}: {sizes} bytes")
            for path in task.targets(self._folder):
                path.unlink()
        return result

    def _run(self, peer: str, task: Task) -> dict[str, float]:
        arguments = (task.kind, str(task.count), str(int(task.checksum)), str(self._folder))
        command = [sys.executable, __file__, "--program", peer, *arguments]
        done = subprocess.run(
            command, env=self._environment, stdout=subprocess.PIPE, text=True, check=True
        )
        return json.loads(done.stdout)

    def _curl(self, task: Task) -> dict[str, float]:
        curl = [
            "curl",
            "--silent",
            "--show-error",
            "--no-progress-meter",
            "--fail",
            "--http1.1",
            "--header",
            "Expect:",
        ]
        curl += ["--parallel", "--parallel-immediate"] if task.count > 1 else []
        if task.kind == "upload":
            for path in task.sources(self._folder):
                curl += ["--upload-file", str(path), f"{self._url}/upload"]
        else:
            for path in task.targets(self._folder):
                address = f"{self._url}/component/get?id={task.component_id}"
                curl += ["--output", str(path), address]
        return {"seconds": self._call(curl)}

    def _call(self, command: Sequence[str]) -> float:
        """Run a command, without its output; return how many seconds that takes."""
        started = time.perf_counter()
        subprocess.run(command, env=self._environment, stdout=subprocess.DEVNULL, check=True)
        return time.perf_counter() - started


@contextmanager
def benching(size: int, package: Path, *, tls: bool) -> Iterator[Bench]:
    """Start the store, with files to transfer."""
    from store import serving

    memory = Path("/dev/shm")
    place = memory if memory.is_dir() else None
    with tempfile.TemporaryDirectory(dir=place) as name:
        folder = Path(name)
        checksums = make_files(folder, size)
        environment = {
            name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")
        }
        environment["PYTHONPATH"] = os.pathsep.join((str(HERE), str(package)))
        environment["FTRACK_API_SCHEMA_CACHE_PATH"] = str(folder)
        with serving(folder, checksums, tls=tls) as facts:
            yield Bench(folder, size, environment | facts)


def make_files(folder: Path, size: int) -> dict[str, str]:
    """Make the files to upload and to download; return the checksums of the latter."""
    (folder / "files").mkdir()
    block, checksums = os.urandom(MIB), {}
    for count in (1, MANY):
        first, *others = (folder / f"source-{count}-{number}" for number in range(count))
        digest = md5(usedforsecurity=False)
        with first.open("wb") as file:
            for _ in range(size // count // MIB):
                file.write(block)
                digest.update(block)
        for link in (*others, folder / "files" / f"{count}", folder / "files" / f"{count}-summed"):
            link.hardlink_to(first)
        checksums[f"{count}-summed"] = b64encode(digest.digest()).decode()
    return checksums


def compare(bench: Bench, task: Task, peers: Sequence[str], repeat: int) -> list[str]:
    """Return the line of the table about *task*."""
    results: dict[str, list[dict[str, float]]] = {peer: [] for peer in peers}
    for _ in range(repeat):
        for peer in peers:
            results[peer].append(bench.run(peer, task))
    seconds = {peer: median(each["seconds"] for each in found) for peer, found in results.items()}
    cells = [f"{seconds[peer]:.2f} s" if peer in seconds else "" for peer in PEERS]
    memory = max(each["above_idle"] for each in results["ours"])
    late, at_rest = (
        median(each[name] for each in results["ours"]) * 1000 for name in ("late", "at_rest")
    )
    cells += [
        _against(seconds, "curl", OF_CURL_SUM if task.checksum else OF_CURL),
        _against(seconds, "official", 1 / OF_OFFICIAL),
        f"{memory:.0f} MiB{'' if memory < MEMORY else ' MISSED'}",
        f"{late:.0f} ms ({at_rest:.0f}){'' if late < LATENESS else ' MISSED'}",
    ]
    return [task.title, *cells]


def _against(seconds: dict[str, float], peer: str, aim: float) -> str:
    """Return our speed as a multiple of a peer's, and whether it meets the aim."""
    if peer not in seconds:
        return ""
    ratio = seconds[peer] / seconds["ours"]
    return f"{ratio:.2f}{'' if ratio >= aim else ' MISSED'}"


def render(lines: Sequence[Sequence[str]], title: str) -> str:
    """Return *lines* as a Markdown table."""
    aims = f"aims: speed of curl {OF_CURL:g}, {OF_CURL_SUM:g} with checksum; "
    head = [
        title,
        *PEERS,
        "speed / curl",
        "speed / official",
        "our memory",
        "event loop delay (at rest)",
    ]
    widths = [max(len(line[column]) for line in (head, *lines)) for column in range(len(head))]
    rule = ["-" * width for width in widths]
    table = "\n".join(
        "| " + " | ".join(f"{cell:{w}}" for cell, w in zip(line, widths, strict=True)) + " |"
        for line in (head, rule, *lines)
    )
    aims += f"of the official client {1 / OF_OFFICIAL:.2f}; "
    aims += f"less than {MEMORY:.0f} MiB above idle, and {LATENESS:.0f} ms delay"
    return f"{table}\n\n{aims}"


def main() -> None:
    """Read the command line, and run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, default=1024, metavar="MIB", help="of all files")
    parser.add_argument("--repeat", type=int, default=3, metavar="N")
    parser.add_argument("--package", type=Path, default=ROOT, metavar="FOLDER", help="to measure")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=PEERS)
    parser.add_argument("--only", choices=("tls", "plain"), help="one of the tables")
    parser.add_argument("--program", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.program:
        peer, kind, count, checksum, folder = options.program
        PROGRAMS[peer](Task(kind, int(count), checksum == "1"), Path(folder))
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the store ends, too
    peers = [peer for peer in options.peers if peer != "curl" or shutil.which("curl")]
    for name, title in (("tls", "over TLS"), ("plain", "plain HTTP (no aims)")):
        if options.only not in (None, name):
            continue
        with benching(options.size * MIB, options.package.resolve(), tls=name == "tls") as bench:
            lines = [compare(bench, task, peers, options.repeat) for task in TASKS]
        print(f"{render(lines, title)}\n")
    print(f"{options.size} MiB; medians of {options.repeat} fresh processes, which took turns.")


if __name__ == "__main__":
    main()
