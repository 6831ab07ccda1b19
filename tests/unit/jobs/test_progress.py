"""Progress as text, and when it is written."""

from __future__ import annotations

from typing import cast

import pytest

from aioftrackjobs.commit.request import Applied, PendingRequest, Settle
from aioftrackjobs.jobs.channels import Channel, ProgressWriter
from aioftrackjobs.jobs.progress import Progress, compose_description
from aioftrackjobs.jobs.reading import ReadableJob


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


class Writer:
    """Keeps the channels that are to be written."""

    def __init__(self) -> None:
        self.added: list[Channel] = []

    def add(self, channel: Channel) -> None:
        self.added.append(channel)


def test_a_channel_that_is_touched_while_its_write_is_queued_is_written_after_that() -> None:
    posted: list[Settle] = []

    def post(settle: Settle) -> PendingRequest:
        posted.append(settle)
        channel.touch()  # as a handler of a signal may do it
        return cast("PendingRequest", object())

    writer = Writer()
    channel = Channel(cast("ProgressWriter", writer), cast("ReadableJob", None), post)
    channel.touch()
    assert channel.begin_read()
    channel.write()
    assert writer.added == [channel]
    channel.write()
    assert len(posted) == 1
    posted[0](Applied(()))
    assert writer.added == [channel, channel]
    assert channel.begin_read()
    channel.write()
    assert len(posted) == 2
