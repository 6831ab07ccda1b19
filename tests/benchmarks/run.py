"""Benchmarks against the official client and plain httpx, all measured in the same run.

    python tests/benchmarks/run.py [--only NAME] [--repeat N] [--quick]

Each measurement is a fresh process, pinned to one core; the server has another. The programs
take turns, so that a machine that slows down slows all of them; the table shows medians. Read
the ratios, because the seconds depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from measuring import COMMITS, FILE_SIZE, JOBS, LIFE_CYCLES, UPDATES
from nginx import tls_before

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent

CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else []
PEERS = ("official", "ours", "raw")
SERVERS = ("stub", "embedded")

#: The duration of a commit is independent of the entities in memory if a commit with many of them
#: takes at most this many times a commit with few. What is above 1 allows for the machine's noise.
INDEPENDENT = 1.25

Result = Mapping[str, float]
Results = Mapping[str, Sequence[Result]]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        metric: Key of the figure in the results that the programs report.
        unit: The unit in which the table shows it.
        aim: The highest share of the official client's figure that ours may have; None for no aim.
        limit: The highest figure that ours may have, in the unit of the metric.
    """

    title: str
    metric: str = "seconds"
    unit: str = "s"
    aim: float | None = None
    limit: float | None = None


@dataclass(frozen=True, slots=True)
class Workload:
    """A program to measure, with the lines of the table about it.

    Attributes:
        program: Function of the programs to run, with its arguments.
        peers: The clients that are measured.
        repeat: How often each is measured, unless the command line sets it.
    """

    name: str
    program: tuple[str, ...]
    rows: tuple[Row, ...]
    peers: tuple[str, ...] = PEERS
    repeat: int = 5


_SIZE = f"{FILE_SIZE >> 20} MiB"
_MEMORY = Row("  memory above the idle session", "above_idle", "MiB", limit=32)

WORKLOADS = (
    Workload(
        "import", ("importing",), (Row("import (raw: httpx and pydantic)", unit="ms"),), repeat=9
    ),
    Workload(
        "hello",
        ("hello",),
        (Row("hello job: process start to first Job running", unit="ms", aim=0.7),),
        repeat=15,
    ),
    Workload(
        "cycles",
        ("life_cycles",),
        (Row(f"{LIFE_CYCLES} Job life cycles of {UPDATES + 2} commits, one after another"),),
        repeat=3,
    ),
    *(
        Workload(
            f"commit-{held}",
            ("commit", str(held)),
            (Row(f"one commit with {held:,} entities in memory".replace(",", " "), unit="ms"),),
            peers=("official", "ours"),
        )
        for held in (10, 1_000, 10_000)
    ),
    Workload(
        "read",
        ("read",),
        (
            Row(f"read {JOBS:,} Jobs with user names".replace(",", " "), aim=0.1),
            Row("  memory above the idle session", "above_idle", "MiB"),
        ),
    ),
    Workload("upload", ("upload", "{file}"), (Row(f"upload {_SIZE}, checksum", aim=0.7), _MEMORY)),
    Workload(
        "download",
        ("download", "{component}", "{target}"),
        (Row(f"download {_SIZE}", aim=0.5), _MEMORY),
    ),
)


@dataclass(slots=True)
class Bench:
    """A running server, and what the programs need to find it and their files.

    Attributes:
        server: URL of the server itself, also if the programs reach it over TLS.
        commands: Commands of the peers that have no program of their name in this folder.
    """

    environment: Mapping[str, str]
    python: str
    server: str
    places: dict[str, str] = field(default_factory=dict)
    commands: dict[str, list[str]] = field(default_factory=dict)

    def measure(self, peer: str, program: Sequence[str]) -> Result:
        """Run a program once, in a fresh process, and return what it measured."""
        arguments = [part.format_map(self.places) for part in program]
        runner = self.commands.get(peer, [self.python, str(HERE / f"{peer}.py")])
        command = [*runner, *arguments]
        started = time.monotonic()
        done = subprocess.run(
            command, env=self.environment, stdout=subprocess.PIPE, text=True, check=True
        )
        result = json.loads(done.stdout)
        if "at" in result:
            result["seconds"] = result["at"] - started
        if program[-1] == "{target}":
            self._check_download()
        if "component" in result:
            self.places["component"] = result["component"]
        return result

    def _check_download(self) -> None:
        """Fail if the downloaded file has another size; remove it before the next download."""
        target = Path(self.places["target"])
        if target.stat().st_size != FILE_SIZE:
            raise AssertionError(f"downloaded {target.stat().st_size} of {FILE_SIZE} bytes")
        target.unlink()


@contextmanager
def benching(server: str, python: str, latency: int, *, tls: bool = False) -> Iterator[Bench]:
    """Start *server* on a core of its own, and make a folder for the files of the programs.

    Args:
        server: Name of its program.
        python: Interpreter of the measured programs.
        latency: Milliseconds that the server waits before it responds.
        tls: Whether nginx, on the same core, serves it over TLS.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        environment = {
            name: value
            for name, value in os.environ.items()
            # httpx makes a TLS context for each proxy. Modules are compiled once, before measuring.
            if not name.lower().endswith("_proxy") and name != "PYTHONDONTWRITEBYTECODE"
        }
        environment["FTRACK_API_SCHEMA_CACHE_PATH"] = str(folder)
        environment["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")
        paths = (environment.get("PYTHONPATH"), str(ROOT))
        environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
        if len(CORES) > 1:
            os.sched_setaffinity(0, {CORES[0]})  # the server inherits it
        server_options = [] if server == "embedded" else [str(latency)]
        process = stack.enter_context(
            subprocess.Popen(
                [sys.executable, str(HERE / f"{server}.py"), *server_options],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        stack.callback(process.stdin.close)  # which ends the server
        endpoint = json.loads(process.stdout.readline())
        for name, key in (("SERVER", "url"), ("API_KEY", "key"), ("API_USER", "user")):
            environment[f"FTRACK_{name}"] = endpoint[key]
        if tls:
            address = endpoint["url"].partition("//")[2]
            environment |= stack.enter_context(tls_before(address, folder))
        if len(CORES) > 1:
            os.sched_setaffinity(0, {CORES[-1]})  # the programs inherit it
        bench = Bench(environment, python, endpoint["url"])
        bench.places |= {"file": str(folder / "upload.bin"), "target": str(folder / "download.bin")}
        yield bench


def measure(bench: Bench, workload: Workload, repeat: int) -> Results:
    """Measure all peers in turn, after one round that warms the caches on disk."""
    results: dict[str, list[Result]] = {peer: [] for peer in workload.peers}
    for turn in range(repeat + 1):
        for peer in workload.peers:
            result = bench.measure(peer, workload.program)
            if turn:
                results[peer].append(result)
    found = {result["found"] for each in results.values() for result in each if "found" in result}
    if len(found) > 1:
        raise AssertionError(f"{workload.name}: the programs have read different data")
    return results


# The table


def cells(row: Row, results: Results) -> list[str]:
    """Return the line of *row*: title, figures, ratio, aim, and whether the aim is met."""
    figures = {
        peer: median(result[row.metric] for result in each)
        for peer, each in results.items()
        if all(row.metric in result for result in each)
    }
    ratio = figures["ours"] / figures["official"] if row.limit is None else None
    aim, met = "", ""
    if row.aim is not None and ratio is not None:
        aim, met = f"<= {row.aim:g}", _met(ratio <= row.aim)
    if row.limit is not None:
        aim, met = f"< {row.limit:g} {row.unit}", _met(figures["ours"] < row.limit)
    shown = [_figure(figures.get(peer), row.unit) for peer in PEERS]
    return [row.title, *shown, "" if ratio is None else f"{ratio:.2f}", aim, met]


def growth(few: Results, many: Results) -> list[str]:
    """Return the line that compares commits with few and with many entities in memory."""
    factors = {
        peer: median(each["seconds"] for each in many[peer])
        / median(each["seconds"] for each in few[peer])
        for peer in few
    }
    shown = [f"{factors[peer]:.2f} x" if peer in factors else "" for peer in PEERS]
    aim, met = f"<= {INDEPENDENT:g} x", _met(factors["ours"] <= INDEPENDENT)
    return ["  commit with 10 000 / with 10", *shown, "", aim, met]


def _met(is_met: bool) -> str:
    return "met" if is_met else "MISSED"


def _figure(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    if unit == "ms":
        return f"{value * 1000:.4g} ms"
    return f"{value:.3g} {unit}"


def render(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return *lines* as a Markdown table."""
    widths = [max(len(line[column]) for line in (head, *lines)) for column in range(len(head))]
    rule = ["-" * width for width in widths]
    return "\n".join(
        "| "
        + " | ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in (head, rule, *lines)
    )


def machine(python: str) -> str:
    """Return one line with the versions of Python and the packages, and the number of cores."""
    packages = ("ftrack-python-api", "httpx", "anyio", "pydantic")
    shown = "*(f'{name} {version(name)}' for name in sys.argv[1:])"
    code = (
        "import platform, sys; from importlib.metadata import version; "
        f"print('Python ' + platform.python_version(), {shown}, sep=', ')"
    )
    done = subprocess.run(
        [python, "-c", code, *packages], stdout=subprocess.PIPE, text=True, check=True
    )
    return f"{done.stdout.strip()}; {os.cpu_count()} cores"


def run(options: argparse.Namespace, show: Callable[[str], None]) -> None:
    """Measure what the options select, and show the table."""
    chosen = [
        workload
        for workload in WORKLOADS
        if not options.only or any(workload.name.startswith(name) for name in options.only)
    ]
    results: dict[str, Results] = {}
    with benching(options.server, options.python, options.latency) as bench:
        _write_file(Path(bench.places["file"]))
        bench.places["component"] = "any"
        if options.server == "embedded" and any("{component}" in each.program for each in chosen):
            bench.measure("ours", ("upload", "{file}"))
        for workload in chosen:
            repeat = options.repeat or (1 if options.quick else workload.repeat)
            print(f"{workload.name} ...", file=sys.stderr, flush=True)
            results[workload.name] = measure(bench, workload, repeat)
    lines = []
    for workload in chosen:
        lines += [cells(row, results[workload.name]) for row in workload.rows]
    if {"commit-10", "commit-10000"} <= results.keys():
        place = 1 + next(i for i, line in enumerate(lines) if "10 000 entities" in line[0])
        lines.insert(place, growth(results["commit-10"], results["commit-10000"]))
    show(render(["workload", *PEERS, "ours / official", "aim", ""], lines))
    show(
        f"\nThe figures are medians of fresh processes; server: {options.server}, latency "
        f"{options.latency} ms. {machine(options.python)}."
    )
    show(f"A commit is the mean of {COMMITS} commits. Memory is the peak above the idle session.")
    show(f"Reproduce with: python tests/benchmarks/run.py {shlex.join(sys.argv[1:])}".rstrip())


def _write_file(path: Path) -> None:
    block = os.urandom(1 << 20)
    with path.open("wb") as file:
        for _ in range(FILE_SIZE >> 20):
            file.write(block)


def main() -> None:
    """Read the command line, and run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    names = ", ".join(workload.name for workload in WORKLOADS)
    parser.add_argument(
        "--only",
        action="append",
        metavar="NAME",
        help=f"workloads whose names start with NAME: {names}",
    )
    parser.add_argument("--repeat", type=int, metavar="N", help="measure each N times")
    parser.add_argument("--quick", action="store_true", help="measure each once: a smoke test")
    parser.add_argument("--server", choices=SERVERS, default="stub")
    parser.add_argument(
        "--latency",
        type=int,
        default=0,
        metavar="MS",
        help="that the stub adds to each API response",
    )
    parser.add_argument(
        "--python",
        default=sys.executable,
        metavar="PATH",
        help="interpreter of the measured programs, of a virtual environment without the packages "
        "for development: if they are installed, httpx imports rich and click, httpcore trio",
    )
    run(parser.parse_args(), print)


if __name__ == "__main__":
    main()
