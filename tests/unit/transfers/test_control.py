"""The progress, the attempts and the stop of a transfer."""

from __future__ import annotations

import pytest

from aioftrackjobs.config.retry import NO_RETRIES, RetryPolicy
from aioftrackjobs.errors import TransferError
from aioftrackjobs.transfers.control import Attempts, Meter, RetryableError, StoppedError, StopToken


def test_bytes_that_are_sent_again_count_once() -> None:
    seen: list[tuple[int, int | None]] = []
    meter = Meter(30, lambda *counts: seen.append(counts))

    for part, count in [(1, 0), (1, 8), (2, 5), (1, 0), (1, 4), (1, 10), (2, 10), (3, 10)]:
        meter.set(part, count)
    meter.finish(30)

    assert seen == [(8, 30), (13, 30), (15, 30), (20, 30), (30, 30)]


async def test_a_stopped_transfer_raises_the_first_reason() -> None:
    stop_token = StopToken()

    async def work() -> None:
        stop_token.stop(TransferError("first"))
        stop_token.stop(TransferError("second"))
        stop_token.check()

    with pytest.raises(TransferError, match="first"):
        await stop_token.guard(work)


async def test_no_attempt_follows_a_stop() -> None:
    stop_token = StopToken()
    stop_token.stop()

    async def attempt() -> None:
        raise AssertionError("tried")

    with pytest.raises(StoppedError):
        await Attempts(RetryPolicy(), stop_token).run(attempt)


async def test_a_retryable_error_raises_its_cause_when_the_attempts_end() -> None:
    async def attempt() -> None:
        raise RetryableError(TransferError("busy"), 5)

    with pytest.raises(TransferError, match="busy"):
        await Attempts(NO_RETRIES, StopToken()).run(attempt)
