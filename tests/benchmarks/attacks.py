"""Attacks of many kinds on two servers and both event loops: nothing lost, false or left running.

    python tests/benchmarks/attacks.py [--minutes 10] [--seed N] [--only TEXT] [--list]

The embedded server and an independent one (``attacking/memory_server.py``) run in processes of
their own; a proxy before them makes the faults. Each kind is run in turn, with the server and the
event loop by chance, until the time is over. What is *lost* was reported as done and is not so.
*False* is any other report that does not match the server, which is read past the proxy. *Left* are
Jobs that stay running, and calls and processes that do not end. It prints a table, and ends with
status 1 if there is one of these, with the seed, which repeats the order and the faults of each
round, but not the timing.
"""

from __future__ import annotations

import argparse
import logging
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
from run import ROOT

sys.path.insert(0, str(ROOT))

from tests.benchmarks.attacking import commits, files, jobs, processes
from tests.benchmarks.attacking.ground import Ground
from tests.benchmarks.attacking.score import Score
from tests.benchmarks.attacking.servers import Server, ServerName, started

Attack = Callable[[Ground], Awaitable[Score]]

KINDS: dict[str, Attack] = {**commits.KINDS, **files.KINDS, **jobs.KINDS, **processes.KINDS}
SERVERS: tuple[ServerName, ...] = ("embedded", "memory")
BACKENDS = ("asyncio", "trio")


def run_round(kind: str, server: Server, backend: str, seed: int) -> Score:
    """Run an attack once, in an event loop of its own."""
    with tempfile.TemporaryDirectory() as folder:
        ground = Ground(server, backend, random.Random(seed), Path(folder))
        try:
            return anyio.run(KINDS[kind], ground, backend=backend)
        except Exception as exc:
            logging.getLogger(__name__).warning("the round has ended", exc_info=True)
            score = Score(attempts=1)
            score.note("left", f"the round ended by {_innermost(exc)!r}")
            return score


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def rounds(kinds: list[str], chance: random.Random) -> list[tuple[str, ServerName, str]]:
    """Return each kind on each server and event loop, in an order by chance; kinds take turns."""
    turns = []
    for _ in range(len(SERVERS) * len(BACKENDS)):
        order = list(kinds)
        chance.shuffle(order)
        turns.append(order)
    settings = [(server, backend) for server in SERVERS for backend in BACKENDS]
    shuffled = {kind: chance.sample(settings, len(settings)) for kind in kinds}
    return [(kind, *shuffled[kind].pop()) for order in turns for kind in order]


def show(scores: dict[str, Score], durations: Counter[str]) -> None:
    """Print the table."""
    columns = ("attempts", "operations", "lost", "false", "left")
    width = max(map(len, KINDS))
    print(f"\n{'kind':{width}}", *(f"{name:>10}" for name in columns), f"{'seconds':>8}")
    for kind, score in scores.items():
        cells = (f"{getattr(score, name):>10}" for name in columns)
        print(f"{kind:{width}}", *cells, f"{durations[kind]:>8.0f}")
    for kind, score in scores.items():
        for example in score.examples:
            print(f"  {kind}: {example}")


def main() -> None:
    """Read the command line, run the attacks, and show what they found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="for all kinds together")
    parser.add_argument("--only", default="", help="kinds whose name contains this text")
    parser.add_argument("--server", choices=SERVERS, help="only this server")
    parser.add_argument("--backend", choices=BACKENDS, help="only this event loop")
    parser.add_argument("--list", action="store_true", help="print the kinds")
    parser.add_argument("--verbose", action="store_true", help="print each round and all logs")
    parser.add_argument("--seed", type=int, default=random.randrange(10**9))
    options = parser.parse_args()
    kinds = [kind for kind in KINDS if options.only in kind]
    if options.list:
        print(*kinds, sep="\n")
        return
    logging.basicConfig(level=logging.WARNING if options.verbose else logging.CRITICAL)
    print(f"seed {options.seed}", flush=True)
    chance = random.Random(options.seed)
    scores: dict[str, Score] = {}
    durations: Counter[str] = Counter()
    end = time.monotonic() + options.minutes * 60
    with started("embedded") as embedded, started("memory") as memory:
        servers = {"embedded": embedded, "memory": memory}
        while time.monotonic() < end:
            for kind, name, backend in rounds(kinds, chance):
                if options.server not in (None, name) or options.backend not in (None, backend):
                    continue
                began = time.monotonic()
                found = run_round(kind, servers[name], backend, chance.randrange(2**32))
                durations[kind] += time.monotonic() - began
                scores.setdefault(kind, Score()).add(found)
                if options.verbose or found.violations:
                    print(f"{kind}, {name}, {backend}: {found}", flush=True)
                if time.monotonic() > end:
                    break
    show(scores, durations)
    for kind in kinds:
        if kind not in scores:
            print(f"not run, because the time was over: {kind}")
    if any(score.violations for score in scores.values()):
        sys.exit(f"violations, seed {options.seed}")


if __name__ == "__main__":
    main()
