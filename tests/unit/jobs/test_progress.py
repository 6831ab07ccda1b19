"""Progress as text."""

from __future__ import annotations

import math

import pytest

from aioftrackjobs.jobs.progress import Progress


@pytest.mark.parametrize(
    ("done", "message", "total", "text"),
    [
        (0.25, "encoding", None, "25 %, encoding"),
        (30, None, 120, "25 %"),
        (5, None, 4, "100 %"),
        (-1, None, None, "0 %"),
        (math.inf, None, None, "100 %"),
    ],
)
def test_progress_reads_as_percent(
    done: float, message: str | None, total: float | None, text: str
) -> None:
    assert str(Progress.of(done, message, total)) == text


@pytest.mark.parametrize(
    ("done", "total"), [(math.nan, None), (1, 0), (1, -1), (1, math.nan), (math.inf, math.inf)]
)
def test_an_amount_that_is_no_progress_is_refused(done: float, total: float | None) -> None:
    with pytest.raises(ValueError, match="no progress"):
        Progress.of(done, None, total)
