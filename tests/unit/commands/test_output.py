"""Output in pieces: lines, their ends, and what is kept of them."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioftrackjobs.commands.output import LONGEST_LINE, LONGEST_LOG, LineReader, OutputLog
from aioftrackjobs.commands.progress import ProgressReader, Reading


def _reader(log: OutputLog) -> tuple[LineReader, list[Reading]]:
    found: list[Reading] = []
    return LineReader(ProgressReader(), threading.Lock(), (log,), found.append), found


@given(st.lists(st.sampled_from([b"openjd_progress: 5", b"\n", b"\r", b"x", b"\r\n", b""])))
def test_lines_do_not_depend_on_the_pieces(pieces: list[bytes]) -> None:
    """The same bytes mean the same, however they arrive."""
    whole, single, cut = b"".join(pieces), OutputLog(), OutputLog()
    one, expected = _reader(single)
    one.feed(whole, len(whole))
    one.end()

    other, found = _reader(cut)
    for piece in pieces:
        for at in range(0, len(piece), 7):
            part = bytearray(piece[at : at + 7] + b"rubbish behind it")
            other.feed(part, len(part) - 17)
    other.end()

    assert [each.fraction for each in found] == [each.fraction for each in expected]
    assert cut.text() == single.text()


def test_carriage_return_ends_a_line_of_progress() -> None:
    reader, found = _reader(OutputLog())
    data = b"openjd_progress: 1\ropenjd_progress: 2\r\nopenjd_progress: 3"

    reader.feed(data, len(data))
    assert [each.fraction for each in found] == [0.01, 0.02]
    reader.end()
    assert [each.fraction for each in found] == [0.01, 0.02, 0.03]


def test_line_without_end_needs_no_memory() -> None:
    """Of a line of 1 GiB, the first 64 KiB count; so does the line after it."""
    log = OutputLog()
    reader, found = _reader(log)
    piece = b"x" * LONGEST_LINE
    for _ in range(1024):
        reader.feed(piece, len(piece))
        assert len(reader._rest) <= LONGEST_LINE

    last = b"yyy\nopenjd_progress: 7\n"
    reader.feed(last, len(last))

    assert [each.fraction for each in found] == [0.07]
    assert len(log.text()) < 3 * LONGEST_LINE
    assert log.last_line() == "openjd_progress: 7"


@pytest.mark.parametrize("size", [1, 1000, LONGEST_LOG - 1, LONGEST_LOG, 3 * LONGEST_LOG])
def test_log_keeps_the_end(size: int) -> None:
    log, lines = OutputLog(), []
    count = max(3, 2 * LONGEST_LOG // (size + 8))
    for number in range(count):
        lines.append(f"{number:06} {'a' * size}\n")
        log.add(lines[-1].encode())

    text = log.text()

    assert len(text) <= LONGEST_LOG
    assert "".join(lines).endswith(text)
    assert size + 8 > LONGEST_LOG or text[:6].isdigit(), "it begins with a whole line"
    assert len(text) >= min(len("".join(lines)), LONGEST_LOG) - size - 9


def test_last_line_that_says_something() -> None:
    log = OutputLog()
    log.add(b"Traceback:\n\x1b[31mValueError:  no\xff frames\x1b[0m\r\n\n----\n\r\n")

    assert log.last_line() == "ValueError: no� frames"
    assert OutputLog().last_line() is None
