"""Nothing lost, nothing stuck: proved in small; in full by ``tests/benchmarks/storms.py``.

``AIOFTRACKJOBS_SEED`` repeats what a failure shows the seed of.
"""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import pytest

from .proofs import prove_cancellations, prove_faults, prove_kills

SEED = int(os.environ.get("AIOFTRACKJOBS_SEED", random.randrange(10**9)))


async def test_all_jobs_end_truly_though_a_tenth_of_all_requests_is_spoiled() -> None:
    outcome = await prove_faults(200, SEED)

    assert not outcome.violations, str(outcome)


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
async def test_nothing_acknowledged_is_lost_when_the_server_is_killed(tmp_path: Path) -> None:
    outcome = await prove_kills(3, SEED, tmp_path)

    assert not outcome.violations, str(outcome)


async def test_jobs_cancelled_at_random_moments_end_truly() -> None:
    outcome = await prove_cancellations(200, SEED)

    assert not outcome.violations, str(outcome)
