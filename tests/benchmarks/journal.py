"""What the journal and leases cost a farm: Jobs a second with and without them.

    python tests/benchmarks/journal.py [--commits N] [--tasks N ...] [--rounds N] [--repeat N]

Each task runs Jobs in ``job_context``, one after the other. A Job makes two progress reports, and
ten commits about an entity of its own, as a task of a farm (``farm.py``) does. ``--commits 0`` is
for Jobs that do nothing, where the share of the journal is highest. The aim is less than 10 % for
Jobs with ten commits. The server (``async_stub.py``) responds at once, so that the work of the
client is measured; client and server have a core each.

Settings take turns of some tenths of a second in one process, so that changes in the machine's
speed affect all of them. A turn leaves almost no work for later ones. The shares are medians of
several processes, with the lowest and the highest.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from measuring import SETTINGS
from run import benching, machine, render

#: Jobs of a turn: of a single task, and of many tasks together; a quarter if they make commits.
ALONE, TOGETHER = 40, 400


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--commits", type=int, default=10, help="in each Job")
    parser.add_argument("--tasks", type=int, nargs="+", default=[1, 10, 100, 1_000])
    parser.add_argument("--rounds", type=int, default=20, help="turns of each setting")
    parser.add_argument("--repeat", type=int, default=5, help="processes")
    parser.add_argument("--latency", type=int, default=0, help="of the server, in ms")
    parser.add_argument("--folder", help="of the journal; a temporary one by default")
    options = parser.parse_args()
    results: dict[int, list[dict[str, float]]] = {tasks: [] for tasks in options.tasks}
    with (
        tempfile.TemporaryDirectory(dir=options.folder) as folder,
        benching("async_stub", sys.executable, options.latency) as bench,
    ):
        for turn in range(options.repeat):
            for tasks, found in results.items():
                place = Path(folder, f"{turn}-{tasks}")
                place.mkdir()
                jobs = (ALONE if tasks == 1 else TOGETHER) // (4 if options.commits else 1)
                cycles = max(1, jobs // tasks)
                program = ["jobs", str(tasks), str(cycles), str(options.rounds), str(place)]
                result = bench.measure("ours", [*program, str(options.commits)])
                done = tasks * cycles * options.rounds
                found.append({key: value / done for key, value in result.items()})
    rows = [row for tasks, found in results.items() for row in lines(f"{tasks:,}", found)]
    head = ["tasks", "setting", "Jobs", "of plain", "lowest to highest", "CPU a Job", "of plain"]
    print(render(head, rows))
    print(f"\n{machine(sys.executable)}; load average at the end {os.getloadavg()[0]:.1f}.")


def lines(tasks: str, found: Sequence[dict[str, float]]) -> list[list[str]]:
    """Return the lines of the table for a number of tasks."""
    rows = []
    for setting in SETTINGS:
        seconds = [each[f"{setting}: seconds"] for each in found]
        cpu = [each[f"{setting}: cpu"] for each in found]
        rates = [each["plain: seconds"] / each[f"{setting}: seconds"] for each in found]
        costs = [each[f"{setting}: cpu"] / each["plain: cpu"] for each in found]
        rows.append(
            [
                tasks,
                setting,
                f"{1 / median(seconds):,.0f}/s",
                f"{median(rates):.2f}",
                f"{min(rates):.2f} to {max(rates):.2f}",
                f"{1e6 * median(cpu):,.0f} µs",
                f"{median(costs):.2f}",
            ]
        )
    return rows


if __name__ == "__main__":
    main()
