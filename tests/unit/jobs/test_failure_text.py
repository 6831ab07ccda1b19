"""Why a block failed, in one line and as a traceback."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from aioftrackjobs.background import format_error
from aioftrackjobs.config.secret import Secret
from aioftrackjobs.jobs.ending import describe_failure
from aioftrackjobs.jobs.progress import one_line
from aioftrackjobs.transport import redact

KEY = "SECRET-KEY"


class BrokenError(Exception):
    def __str__(self) -> str:
        text = "a text of the server with {braces}"
        return text.format()  # as the official client's errors do


@pytest.mark.parametrize(
    ("error", "line"),
    [
        pytest.param(ValueError("bad frame"), "ValueError: bad frame", id="plain"),
        pytest.param(ValueError(), "ValueError", id="no text"),
        pytest.param(ValueError("two\n  lines"), "ValueError: two lines", id="lines"),
        pytest.param(BrokenError(), "BrokenError", id="broken str"),
        pytest.param(KeyboardInterrupt(), "interrupted", id="ctrl-c"),
        pytest.param(SystemExit(3), "the process exits with 3", id="exit"),
        pytest.param(
            ExceptionGroup("g", [ExceptionGroup("h", [ValueError("a")]), OSError("b")]),
            "ValueError: a (and 1 more)",
            id="nested groups",
        ),
        pytest.param(ValueError(f"key {KEY}"), "ValueError: key ***", id="secret"),
        pytest.param(
            ValueError("GET https://h/component/get?id=1&apiKey=abc&x=1"),
            "ValueError: GET https://h/component/get?id=1&apiKey=***&x=1",
            id="secret in a url",
        ),
    ],
)
async def test_a_failure_is_one_line(error: BaseException, line: str) -> None:
    assert one_line(describe_failure(error), Secret(KEY)) == line


async def test_a_cancellation_says_so() -> None:
    assert describe_failure(asyncio.CancelledError()) == "cancelled"


async def test_a_long_reason_is_cut() -> None:
    line = one_line(describe_failure(ValueError("x" * 1000)))

    assert len(line) == 300
    assert line.endswith("…")


def test_a_traceback_has_causes_and_no_secrets() -> None:
    try:
        try:
            raise KeyError(KEY)
        except KeyError as exc:
            raise ValueError("outer") from exc
    except ValueError as error:
        text = format_error(error, lambda text: redact(text, Secret(KEY)))

    assert "ValueError: outer" in text
    assert "KeyError" in text
    assert Path(__file__).name in text
    assert KEY not in text.replace("raise KeyError(KEY)", "")
