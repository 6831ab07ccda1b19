"""Progress as text."""

from __future__ import annotations

import pytest

from aioftrackjobs.jobs.progress import Progress, compose_description


@pytest.mark.parametrize(
    ("progress", "text"),
    [
        (Progress(0.25, "encoding"), "25 %, encoding"),
        (Progress(0.25), "25 %"),
        (Progress(1.0), "100 %"),
        (Progress(0.9999), "99 %"),
        (Progress(None, "encoding"), "encoding"),
        (Progress(None), ""),
        (Progress(0.5, " two\nlines "), "50 %, two lines"),
        (Progress(0.5, " \n "), "50 %"),
    ],
)
def test_progress_is_shown_as_a_percentage_and_a_message(progress: Progress, text: str) -> None:
    assert str(progress) == text


def test_a_message_of_any_length_is_shown_in_one_line() -> None:
    shown = str(Progress(0.5, "x" * 10_000_000))

    assert len(shown) < 400
    assert shown.endswith("…")


@pytest.mark.parametrize(
    ("base", "progress", "result", "reason", "text"),
    [
        ("Render", Progress(0.5), None, None, "Render (50 %)"),
        ("Render", Progress(None), None, None, "Render"),
        (None, Progress(0.5, "sh010"), None, None, "50 %, sh010"),
        ("Render", None, "3 files", None, "Render - 3 files"),
        (None, None, "3 files", None, "3 files"),
        ("Render", Progress(0.5), None, "disk full", "Render (50 %) - failed: disk full"),
        ("Render", Progress(0.5), "3 files", "disk full", "Render - 3 files - failed: disk full"),
        (None, None, None, "disk full", "failed: disk full"),
        (None, None, None, None, ""),
    ],
)
def test_the_text_of_a_job(
    base: str | None,
    progress: Progress | None,
    result: str | None,
    reason: str | None,
    text: str,
) -> None:
    assert compose_description(base, progress, result, reason) == text
