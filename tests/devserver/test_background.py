"""Work in the background of the server."""

from __future__ import annotations

import threading

import pytest

from aioftrackjobs.devserver.api.background import Background


def test_work_that_raises_does_not_stop_the_work_after_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    background, done = Background(), threading.Event()

    def broken(_: threading.Event) -> None:
        raise ValueError("broken")

    background.start(broken)
    background.start(lambda _: done.set())

    assert done.wait(20)
    background.close()
    assert "work in the background failed" in caplog.text
