"""Nothing lost, nothing stuck: proved in small; in full by ``tests/benchmarks/storms.py``.

``AIOFTRACKJOBS_SEED`` repeats what a failure shows the seed of.
"""

from __future__ import annotations

import logging
import os
import random
import sys
from pathlib import Path

import pytest

from ..amounts import amount
from .proofs import prove_cancellations, prove_faults, prove_kills
from .proofs.secrets import SecretWatch

SEED = int(os.environ.get("AIOFTRACKJOBS_SEED", random.randrange(10**9)))


@pytest.mark.long
async def test_all_jobs_end_correctly_though_a_tenth_of_all_requests_fails() -> None:
    outcome = await prove_faults(amount(60, 2_000), SEED)

    assert not outcome.violations, str(outcome)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
async def test_nothing_acknowledged_is_lost_when_the_server_is_killed(tmp_path: Path) -> None:
    outcome = await prove_kills(amount(2, 20), SEED, tmp_path)

    assert not outcome.violations, str(outcome)


@pytest.mark.long
async def test_jobs_cancelled_at_random_moments_end_correctly() -> None:
    outcome = await prove_cancellations(amount(100, 1_000), SEED)

    assert not outcome.violations, str(outcome)


def test_a_key_in_an_output_would_be_found() -> None:
    with SecretWatch("hush") as watch:
        logging.getLogger("some.client").debug("sent %s", {"key": "hush"})
        try:
            try:
                raise ValueError("hush")
            except ValueError as cause:
                raise OSError("no response") from cause
        except OSError as error:
            watch.see(error)

    assert {leak.partition(":")[0] for leak in watch.leaks} == {
        "the key is in a log record of some.client",
        "the key is in a OSError",
    }
    assert not any("hush" in leak for leak in watch.leaks)
