"""What the journal, and leases, cost a farm: Jobs a second with and without.

    python tests/benchmarks/journal.py [--jobs N] [--commits N] [--tasks N ...] [--repeat N]

Each task runs Jobs in job_context, one after the other, with two progress reports each, and with
ten commits about an entity of its own, as a task of a farm (``farm.py``) makes; ``--commits 0``
for Jobs that do nothing, where the journal weighs most. The server (``crowd.py``) answers at once,
so that what the client does is what is measured; client and server have a core each. Settings take
turns; the ratio of the medians is to the plain setting. Where the machine has other work to do,
the processor time says more than the rate.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from statistics import median

from run import benching, machine, render

SETTINGS = ("plain", "leases", "journal", "journal and leases")


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=3_000, help="Jobs of all tasks together")
    parser.add_argument("--commits", type=int, default=10, help="in each Job")
    parser.add_argument("--tasks", type=int, nargs="+", default=[1, 10, 100, 1_000])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--latency", type=int, default=0, help="of the server, in ms")
    parser.add_argument("--folder", help="where the journal is; else a temporary folder")
    options = parser.parse_args()
    commits = str(options.commits)
    rates: dict[tuple[int, str], list[float]] = {}
    costs: dict[tuple[int, str], list[float]] = {}
    with (
        tempfile.TemporaryDirectory(dir=options.folder) as folder,
        benching("crowd", sys.executable, options.latency) as bench,
    ):
        for turn in range(options.repeat):
            for tasks in options.tasks:
                for setting in SETTINGS:
                    path = str(Path(folder, f"{turn}-{tasks}")) if "journal" in setting else ""
                    lease = "180" if "leases" in setting else "0"
                    cycles = max(1, options.jobs // tasks // (8 if tasks == 1 else 1))
                    result = bench.measure(
                        "ours", ["jobs", str(tasks), str(cycles), path, lease, commits]
                    )
                    key, jobs = (tasks, setting), tasks * cycles
                    rates.setdefault(key, []).append(jobs / result["seconds"])
                    costs.setdefault(key, []).append(1e6 * result["cpu"] / jobs)
    rows = []
    for key in rates:
        tasks, setting = key
        rate, plain = median(rates[key]), median(rates[tasks, "plain"])
        cost, least = median(costs[key]), median(costs[tasks, "plain"])
        rows.append(
            [
                f"{tasks:,}",
                setting,
                f"{rate:,.0f}/s",
                f"{rate / plain:.2f}",
                f"{cost:,.0f} µs",
                f"{cost / least:.2f}",
            ]
        )
    print(render(["tasks", "setting", "Jobs", "of plain", "CPU a Job", "of plain"], rows))
    print(f"\n{machine(sys.executable)}; load average at the end {os.getloadavg()[0]:.1f}.")


if __name__ == "__main__":
    main()
