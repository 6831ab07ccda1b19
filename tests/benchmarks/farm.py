"""A farm's commits through one session, against the official clients and plain httpx.

    python tests/benchmarks/farm.py [--quick] [--tls] [--peers NAME ...] [--tasks N ...] [--profile]

Each of many tasks has Jobs of its own. A Job is created as running, changed ten times and set to
done, with a commit for each step. All peers are measured in the same run, in fresh processes pinned
to one core, and take turns; the server (``async_stub.py``) has the other core. Read the ratios,
because a slow minute of the machine slows all peers alike.

With ``--tls``, nginx is in front of the server, on its core. The clients load the certificates of
all usual authorities, and one that is made for the run.

The official JavaScript client is installed for the run, which needs Node and npm.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import pstats
import shlex
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

from findings import Figures, Findings, Peer, aims, table
from measuring import JOBS, UPDATES
from plotting import bars
from run import HERE, ROOT, Bench, Result, Workload, benching, machine, measure, render
from server import rate, request, update

LATENCIES = (0, 50)
TASKS = (1, 100, 1_000, 5_000)
PARTS = ("farm", "lone", "cold", "read", "jobs", "floors")

#: The numbers of life cycles are chosen so that each peer works for some seconds.
PEERS = (
    Peer("ours, 1 task", "ours", 1, {0: 160, 50: 3}),
    Peer("ours, 100 tasks", "ours", 100, {0: 40, 50: 4}),
    Peer("ours, 1 000 tasks", "ours", 1_000, {0: 5, 50: 3}),
    Peer("ours, 5 000 tasks", "ours", 5_000, {0: 1, 50: 1}),
    Peer("official Python, 1 thread", "official", 1, {0: 60, 50: 3}),
    Peer("official Python, 32 threads", "official", 32, {0: 4, 50: 3}),
    Peer("official JavaScript, 100 promises", "javascript", 100, {0: 3, 50: 2}),
    Peer("httpx, prepared operations, 10 at a time", "raw", 100, {0: 2, 50: 1}, batch=1),
    Peer("httpx, prepared batches of 100, 10 at a time", "raw", 10, {0: 20, 50: 3}, batch=100),
    Peer("httpx, prepared batches of 100, 2 at a time", "raw", 2, {0: 100, 50: 3}, batch=100),
)
CLIENTS = tuple(dict.fromkeys(peer.client for peer in PEERS))

#: What each promise costs at least, see ``floors.py``.
FLOORS = (
    PEERS[1],
    Peer("floor: grouped commits", "grouped", 100, {0: 40}),
    Peer("floor: and an identity map", "mapped", 100, {0: 40}),
    Peer("floor: and units of work", "units", 100, {0: 40}),
)

COLD = (
    Workload("import", ("importing",), (), peers=("raw", "ours"), repeat=9),
    Workload("hello", ("hello",), (), peers=("official", "ours"), repeat=9),
)
READ = Workload("read", ("read",), (), peers=("official", "javascript", "raw", "ours"), repeat=3)
#: Jobs with two reports each: all at once in ours, in 32 threads with the official client.
MANY = Workload("jobs", ("many", "1000"), (), peers=("official", "ours"), repeat=3)
#: Commits at each latency.
LONE = {
    latency: Workload("lone", ("lone", str(count)), (), peers=("raw", "ours"), repeat=7)
    for latency, count in ((0, 300), (50, 20))
}

_JAVASCRIPT = ROOT / "tests" / "devserver" / "javascript"
#: Seconds to measure the server alone.
_ALONE = 1.5


@contextmanager
def javascript() -> Iterator[list[str] | None]:
    """Install the official JavaScript client; yield the command that runs its program, or None."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        say("node or npm is not installed: measuring without JavaScript")
        yield None
        return
    say("npm ci")
    with tempfile.TemporaryDirectory() as folder:
        for file in (
            _JAVASCRIPT / "package.json",
            _JAVASCRIPT / "package-lock.json",
            HERE / "javascript.mjs",
        ):
            shutil.copy(file, folder)
        command = [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if done.returncode:
            say(f"npm failed, measuring without JavaScript: {done.stderr[-300:]}")
            yield None
        else:
            yield [node, str(Path(folder, "javascript.mjs"))]


def work_of(bench: Bench) -> Result:
    """Return the server's own figures so far."""
    with urllib.request.urlopen(f"{bench.server}/work") as response:
        return json.load(response)


def cycle(bench: Bench, peer: Peer, cycles: int) -> Figures:
    """Run the life cycles of *peer* once; the server must have received all of them."""
    before = work_of(bench)
    batch = [] if peer.batch is None else [str(peer.batch)]
    result = bench.measure(peer.client, ["farm", str(peer.tasks), str(cycles), *batch])
    after = work_of(bench)
    operations = peer.tasks * cycles * (peer.batch or 1) * (UPDATES + 2)
    if after["writes"] - before["writes"] != operations:
        raise AssertionError(f"{peer.title}: {after['writes'] - before['writes']} != {operations}")
    return Figures(
        rate=operations / result["seconds"],
        cpu=result["cpu"] / operations,
        memory=result["idle"] + result["above_idle"],
        server=(after["cpu"] - before["cpu"]) / result["seconds"],
    )


def farm(
    benches: dict[int, Bench], peers: Sequence[Peer], repeat: int, *, quick: bool
) -> dict[tuple[Peer, int], Figures]:
    """Measure *peers* at each latency; they take turns."""
    found: dict[tuple[Peer, int], list[Figures]] = {}
    for _ in range(repeat):
        for latency, bench in benches.items():
            for peer in peers:
                say(f"{peer.title}, {latency} ms")
                cycles = peer.cycles[latency]
                if quick:
                    cycles = max(1, cycles // 4)
                found.setdefault((peer, latency), []).append(cycle(bench, peer, cycles))
    return {
        key: Figures(*(median(values) for values in zip(*each, strict=True)))
        for key, each in found.items()
    }


def alone(bench: Bench) -> float:
    """Return the operations a second of the server when plain sockets send batches of 100.

    The responses are not even parsed, so a rate that includes any client can only be lower.
    """
    endpoint = {
        "port": urlsplit(bench.server).port,
        "user": bench.environment["FTRACK_API_USER"],
        "key": bench.environment["FTRACK_API_KEY"],
    }
    message = request(endpoint, [update("0" * 36)] * 100)
    return 100 * asyncio.run(rate(endpoint, message, _ALONE))


def seconds_of(
    bench: Bench, workload: Workload, clients: Sequence[str], options: argparse.Namespace
) -> dict[str, float]:
    """Return the medians of a workload, by client."""
    say(workload.name)
    peers = tuple(peer for peer in workload.peers if peer in clients)
    chosen = Workload(workload.name, workload.program, workload.rows, peers)
    results = measure(bench, chosen, options.repeat or (1 if options.quick else workload.repeat))
    return {peer: median(each["seconds"] for each in of) for peer, of in results.items()}


def profile(bench: Bench, tasks: int, cycles: int) -> None:
    """Print the 25 functions of ours that take the most time, then the time by package."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "profile"))
        program = [bench.python, "-m", "cProfile", "-o", path, str(HERE / "ours.py")]
        bench.commands["profiled"] = program
        bench.measure("profiled", ["farm", str(tasks), str(cycles)])
        stats = pstats.Stats(path)
    shares: dict[str, float] = {}
    for (file, _line, _name), (_calls, _all, own, _total, _callers) in stats.stats.items():
        shares[owner(file)] = shares.get(owner(file), 0.0) + own
    stats.sort_stats("tottime").print_stats(25)
    whole = sum(shares.values())
    for name, own in sorted(shares.items(), key=lambda item: -item[1])[:15]:
        print(f"{own / whole:6.1%}  {name}")


def owner(file: str) -> str:
    """Return the package that a file belongs to, or its path if it is one of our own files."""
    parts = Path(file).parts
    if "aioftrackjobs" in parts:
        return "/".join(parts[parts.index("aioftrackjobs") :])
    if "site-packages" in parts:
        return parts[parts.index("site-packages") + 1]
    return "built-in functions" if file == "~" else f"standard library: {Path(file).parent.name}"


def say(text: str) -> None:
    """Print the progress to standard error."""
    print(f"{text} ...", file=sys.stderr, flush=True)


def run(options: argparse.Namespace) -> None:
    """Measure what the options select, and print the tables."""
    with ExitStack() as stack:
        benches = {
            latency: stack.enter_context(
                benching("async_stub", options.python, latency, tls=options.tls)
            )
            for latency in options.latencies
        }
        first = benches[options.latencies[0]]
        if options.profile:
            profile(first, options.profile, cycles=max(1, 1_000 // options.profile))
            return
        clients = list(options.peers)
        if "javascript" in clients:
            program = stack.enter_context(javascript())
            if program is None:
                clients.remove("javascript")
            else:
                for bench in benches.values():
                    bench.commands["javascript"] = program
        peers = [
            peer
            for peer in PEERS
            if peer.client in clients and (peer.client != "ours" or peer.tasks in options.tasks)
        ]
        findings = Findings(server=alone(benches[0]) if 0 in benches else None)
        if "farm" in options.parts:
            repeat = options.repeat or (1 if options.quick else 3)
            findings.farm = farm(benches, peers, repeat, quick=options.quick)
        if "lone" in options.parts:
            for latency, bench in benches.items():
                findings.lone[latency] = seconds_of(bench, LONE[latency], clients, options)
        if "cold" in options.parts and 50 in benches:
            findings.cold = {
                each.name: seconds_of(benches[50], each, clients, options) for each in COLD
            }
        if 0 in benches:
            measure_without_latency(benches[0], findings, clients, options)
        late = {latency: work_of(bench)["late"] for latency, bench in benches.items()}
    show(findings, late, options)
    if options.plot is not None and findings.floors:
        costs = {peer.title: figures.cpu for (peer, _), figures in findings.floors.items()}
        options.plot.write_text(bars("CPU for each operation", costs), encoding="utf-8")


def measure_without_latency(
    bench: Bench, findings: Findings, clients: Sequence[str], options: argparse.Namespace
) -> None:
    """Measure the parts that only need the server without latency."""
    if "read" in options.parts:
        findings.read = seconds_of(bench, READ, clients, options)
    if "jobs" in options.parts:
        findings.jobs = seconds_of(bench, MANY, clients, options)
    if "floors" in options.parts:
        for floor in FLOORS[1:]:
            bench.commands[floor.client] = [options.python, str(HERE / "floors.py"), floor.client]
        repeat = options.repeat or (1 if options.quick else 3)
        findings.floors = farm({0: bench}, FLOORS, repeat, quick=options.quick)


def show(findings: Findings, late: dict[int, float], options: argparse.Namespace) -> None:
    """Print the tables, and the conditions under which they were measured."""
    for found in (findings.farm, findings.floors):
        if found:
            print(render(*table(found)), end="\n\n")
    if lines := aims(findings):
        print(render(["", "ours", "peer", "ratio", "aim", ""], lines))
    print(
        f"\nA Job is {UPDATES + 2} operations, with a commit for each. The figures are medians of "
        "fresh processes. All clients are pinned to one core, which includes threads and the "
        "workers of Node; the server has another core. CPU is user and system time of the client's "
        "process; memory is its peak. 'Server busy' is the share of its core that the server used, "
        "including the client's start."
    )
    if options.tls:
        print("All clients speak HTTPS with nginx, which shares the server's core.")
    if findings.server is not None:
        print(f"The server alone, batches of 100 over plain sockets: {findings.server:,.0f}/s.")
    for latency, seconds in late.items():
        if latency:
            print(
                f"The latency limit is tasks / {latency} ms: no task can have more than one commit "
                f"in each round trip. The mean response was sent "
                f"{1e3 * (latency / 1e3 + seconds):.2f} ms after its request."
            )
    print(f"The reading workload reads {JOBS:,} Jobs with their users' names, in pages.")
    print(f"{machine(options.python)}; load average at the end {os.getloadavg()[0]:.1f}.")
    print(f"Reproduce with: python tests/benchmarks/farm.py {shlex.join(sys.argv[1:])}".rstrip())


def main() -> None:
    """Read the command line, and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--quick", action="store_true", help="measure each once, with less work: a minute"
    )
    parser.add_argument("--repeat", type=int, metavar="N", help="measure each N times")
    parser.add_argument("--tls", action="store_true", help="over HTTPS; needs nginx")
    parser.add_argument("--peers", nargs="+", choices=CLIENTS, default=CLIENTS)
    parser.add_argument("--tasks", nargs="+", type=int, choices=TASKS, default=TASKS)
    parser.add_argument("--latencies", nargs="+", type=int, choices=LATENCIES, default=LATENCIES)
    parser.add_argument(
        "--parts",
        nargs="+",
        choices=PARTS,
        default=PARTS,
        help="what to measure; cold needs the latency of 50 ms; read, jobs and floors that of 0 ms",
    )
    parser.add_argument(
        "--profile", nargs="?", type=int, const=100, metavar="TASKS", help="profile ours instead"
    )
    parser.add_argument(
        "--plot", type=Path, metavar="FILE.svg", help="write a plot of the floors to a file"
    )
    parser.add_argument(
        "--python",
        default=sys.executable,
        metavar="PATH",
        help="interpreter of the measured programs, as in run.py",
    )
    run(parser.parse_args())


if __name__ == "__main__":
    main()
