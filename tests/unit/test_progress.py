"""Progress: as text, and written at most once per interval."""

from __future__ import annotations

import math

import anyio
import pytest

from aioftrackjobs.errors import ConnectError
from aioftrackjobs.host import Host
from aioftrackjobs.progress import CoalescingWriter, Progress


async def nothing() -> None:
    """Nothing to clean up."""


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
def test_what_is_no_progress_is_refused(done: float, total: float | None) -> None:
    with pytest.raises(ValueError, match="no progress"):
        Progress.of(done, None, total)


async def test_touches_during_a_write_become_one_more_write() -> None:
    host = Host(nothing)
    await host.start()
    state = 0
    written: list[int] = []
    writing, go_on, twice = anyio.Event(), anyio.Event(), anyio.Event()

    async def write() -> None:
        written.append(state)
        if len(written) == 1:
            writing.set()
            await go_on.wait()
        else:
            twice.set()

    writer = CoalescingWriter(host, write, interval=0.0)
    state = 1
    writer.touch()
    await writing.wait()
    for number in range(2, 1000):
        state = number
        writer.touch()
    go_on.set()
    await twice.wait()
    await writer.stop()
    await host.aclose(nothing)

    assert written == [1, 999]


async def test_nothing_is_written_within_the_interval() -> None:
    host = Host(nothing)
    await host.start()
    written: list[int] = []
    first = anyio.Event()

    async def write() -> None:
        written.append(1)
        first.set()

    writer = CoalescingWriter(host, write, interval=3600.0)
    writer.touch()
    await first.wait()
    for _ in range(100):
        writer.touch()
        await anyio.lowlevel.checkpoint()
    await writer.stop()
    await host.aclose(nothing)

    assert written == [1]


async def test_a_failed_write_is_logged_and_the_next_touch_tries_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    host = Host(nothing)
    await host.start()
    calls = 0
    failed, again = anyio.Event(), anyio.Event()

    async def write() -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            failed.set()
            raise ConnectError("away")
        again.set()

    writer = CoalescingWriter(host, write, interval=0.0)
    writer.touch()
    await failed.wait()
    writer.touch()
    await again.wait()
    await writer.stop()
    await host.aclose(nothing)

    assert calls == 2
    assert "progress was not written" in caplog.text
