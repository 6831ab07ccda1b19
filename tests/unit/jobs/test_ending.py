"""How a Job ends: what was decided, and the error that has left the block."""

from __future__ import annotations

import asyncio

import pytest

from aioftrackjobs.jobs.ending import End, describe_error, end_of_block, is_interruption
from aioftrackjobs.models import JobStatus

DONE, FAILED = JobStatus.DONE, JobStatus.FAILED

FINISHED, BROKEN = End(DONE, "3 files"), End(FAILED, "black")

CANCELLED = asyncio.CancelledError()
CLEAN = SystemExit(0)
ERROR = OSError("disk full")


@pytest.mark.parametrize(
    ("error", "decided", "end"),
    [
        (CANCELLED, None, End(FAILED, "why")),
        (CANCELLED, FINISHED, FINISHED),
        (CANCELLED, BROKEN, BROKEN),
        (CLEAN, None, End(DONE)),
        (CLEAN, BROKEN, BROKEN),
        (ERROR, None, End(FAILED, "OSError: disk full")),
        (ERROR, FINISHED, End(FAILED, "OSError: disk full")),
        (ERROR, BROKEN, BROKEN),
        (ERROR, End(FAILED), End(FAILED, "OSError: disk full")),
        (BaseExceptionGroup("g", [CANCELLED, CLEAN]), None, End(FAILED, "why")),
        (BaseExceptionGroup("g", [CLEAN]), None, End(DONE)),
        (BaseExceptionGroup("g", [CANCELLED, ERROR]), None, End(FAILED, "OSError: disk full")),
        (
            BaseExceptionGroup("g", [ERROR, ExceptionGroup("h", [ValueError(), ERROR])]),
            None,
            End(FAILED, "OSError: disk full (and 2 more)"),
        ),
    ],
)
def test_how_a_block_ends(error: BaseException, decided: End | None, end: End) -> None:
    assert end_of_block(error, decided, lambda _: "why") == end


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (KeyboardInterrupt(), "interrupted"),
        (GeneratorExit(), "closed before its end"),
        (SystemExit("no license"), "no license"),
        (SystemExit(""), "the process exits with 1"),
        (SystemExit(0.0), "0.0"),
        (SystemExit(2), "the process exits with 2"),
        (SystemExit(True), "the process exits with 1"),
        (asyncio.CancelledError("x"), "cancelled"),
        (ValueError("bad"), "ValueError: bad"),
        (ValueError(), "ValueError"),
    ],
)
def test_what_an_error_says(error: BaseException, text: str) -> None:
    assert describe_error(error) == text


def test_only_what_comes_from_outside_is_an_interruption() -> None:
    assert is_interruption(CANCELLED)
    assert is_interruption(KeyboardInterrupt())
    assert not is_interruption(SystemExit(0))
    assert not is_interruption(TimeoutError())
