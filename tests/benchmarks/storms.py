"""Proofs that no operation is lost and no caller hangs, in full size; CI runs them in a small size.

    python tests/benchmarks/storms.py [--only NAME] [--jobs 10000] [--kills 50]
                                      [--cancellations 1000] [--seed N]

It ends with a status other than 0, and prints the seed, if it finds a violation.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from functools import partial
from pathlib import Path

import anyio
from run import ROOT

sys.path.insert(0, str(ROOT))

from tests.integration.proofs import prove_cancellations, prove_faults, prove_kills


def main() -> None:
    """Read the command line, run the proofs, and show what they found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", choices=("faults", "kills", "cancellations"))
    parser.add_argument("--jobs", type=int, default=10_000, help="through a faulty server")
    parser.add_argument("--kills", type=int, default=50, help="of the server")
    parser.add_argument("--cancellations", type=int, default=1_000, help="of Jobs")
    parser.add_argument("--seed", type=int, default=random.randrange(10**9))
    options = parser.parse_args()
    violations = 0
    with tempfile.TemporaryDirectory() as folder:
        proofs = {
            "faults": partial(prove_faults, options.jobs, options.seed),
            "kills": partial(prove_kills, options.kills, options.seed, Path(folder)),
            "cancellations": partial(prove_cancellations, options.cancellations, options.seed),
        }
        for name, proof in proofs.items():
            if options.only in (None, name):
                outcome = anyio.run(proof)
                print(outcome, flush=True)
                violations += len(outcome.violations)
    if violations:
        sys.exit(f"{violations} violations, seed {options.seed}")


if __name__ == "__main__":
    main()
