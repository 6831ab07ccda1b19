"""Which lines of which programs are progress."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioftrackjobs.commands.output import LONGEST_LINE
from aioftrackjobs.commands.presets import PRESETS
from aioftrackjobs.commands.progress import ProgressReader, parse_frames


def _read(reader: ProgressReader, *lines: str) -> list[tuple[float | None, str | None]]:
    readings = [reader.read(line) for line in lines]
    return [(each.fraction, each.message) for each in readings if each is not None]


@pytest.mark.parametrize("name", [None, *PRESETS])
@pytest.mark.parametrize(
    "line",
    ["50%", "done 50 %", "progress: 50", "50/100", "time is 00:10:00", "openjd_progress 50", ""],
)
def test_nothing_is_guessed(name: str | None, line: str) -> None:
    assert _read(ProgressReader(preset=name), line) == []


@pytest.mark.parametrize(
    ("name", "line", "fraction", "message"),
    [
        ("alfred", "ALF_PROGRESS 37%", 0.37, None),
        ("tractor", "[12:00] TR_PROGRESS 037%", 0.37, None),
        ("husk", "ALF_PROGRESS 100%", 1.0, None),
        ("renderman", "R90000   55%", 0.55, None),
        ("renderman", "R90000 {progress}: R90000  5%", 0.05, None),
        ("arnold", "00:00:05  1234MB         |  40% done - 123 rays/pixel", 0.4, None),
        ("arnold", "\x1b[32m 5% done\x1b[0m", 0.05, None),
        (
            "cycles",
            "Fra:12 Mem:60.1M (Peak 61M) | Time:00:01.2 | Scene, View | Sample 48/128",
            0.375,
            "frame 12",
        ),
        (
            "cycles",
            "Fra:1 Mem:8M | Time:00:00.31 | Rendered 3/12 Tiles, Sample 1/9",
            0.25,
            "frame 1",
        ),
        ("cycles", "Fra:7 Mem:8M | Synchronizing object", None, "frame 7"),
        ("eevee", "Fra:3 Mem:9M | Rendering 12 / 64 samples", 0.1875, "frame 3"),
        ("maya", "[PROGRESS] 80 percent", 0.8, None),
        ("nuke", "Frame 1003 (3 of 24)", 2 / 24, "frame 1003"),
        ("redshift", "Block 12/240 (3,4) rendered", 0.05, None),
        ("tqdm", " 45%|████▌     | 45/100 [00:01<00:01, 40.0it/s]", 0.45, None),
        ("tqdm", "Loading: 100%|##########| 3/3 [00:00<00:00]", 1.0, None),
        ("rsync", "      3,000,000  33%  707.44MB/s    0:00:00 (xfr#1, to-chk=3/4)", 0.25, None),
        ("rsync", "      3,000,000 100%  707.44MB/s    0:00:00 (xfr#1, ir-chk=1/4)", 0.75, None),
        ("ffmpeg", "progress=end", 1.0, None),
    ],
)
def test_line_of_a_program(
    name: str, line: str, fraction: float | None, message: str | None
) -> None:
    reader = ProgressReader(preset=name)
    data = line.encode()

    assert reader.may_have_progress(data, 0, len(data)), "the line is not even read"
    assert _read(reader, line) == [(pytest.approx(fraction) if fraction else fraction, message)]


def test_rsync_of_the_whole_is_known_by_its_option() -> None:
    reader = ProgressReader(preset="rsync", command=["sh", "-c", "rsync -a --info=progress2 a b"])

    found = _read(
        reader, "  1,200,000  33%  1.44MB/s  0:00:01", "a 50% off", " 5.00M  66%  9kB/s 0:01"
    )

    assert found == [(0.33, None), (0.66, None)]


def test_ffmpeg_counts_microseconds_under_both_names() -> None:
    reader = ProgressReader(preset="ffmpeg", duration=10.0)

    lines = ("out_time_us=2500000", "out_time_ms=5000000", "out_time=00:00:07.5", "frame=9")
    stats = "frame=  100 fps=25 q=28.0 size=     256kB time=00:00:07.50 bitrate= 279.6kbits/s"

    assert _read(reader, *lines, stats) == [(0.25, None), (0.5, None), (0.75, None)]


def test_ffmpeg_says_its_own_duration() -> None:
    reader = ProgressReader(preset="ffmpeg")
    assert reader.needs_duration
    header = "  Duration: 00:01:00.00, start: 0.000000, bitrate: 18 kb/s"

    found = _read(reader, "out_time_us=1000000", "out_time_us=N/A", header, "out_time_us=30000000")

    assert found == [(0.5, None)]
    assert not reader.needs_duration


def test_ffmpeg_counts_frames() -> None:
    reader = ProgressReader(preset="ffmpeg", frames="1-50")

    assert _read(reader, "frame=25", "out_time_us=99000000") == [(0.5, None)]


def test_openjd_is_always_understood() -> None:
    reader = ProgressReader()
    lines = ("openjd_status: loading", "openjd_progress: 42.5", "openjd_progress: 101")
    wrong = ("openjd_progress: many", "openjd_progress: nan", " openjd_progress:5", "openjd_fail")

    assert _read(reader, *lines, *wrong) == [(None, "loading"), (0.425, None)]
    assert reader.failure is None
    assert _read(reader, "openjd_fail: no license") == []
    assert reader.failure == "no license"


def test_values_of_openjd_are_hidden() -> None:
    reader = ProgressReader()
    lines = [
        "openjd_env: MODE=quick",
        'openjd_redacted_env: "TOKEN=s3cret\\nsecond"',
        "openjd_redacted_env: X=y",
        "token s3cret and second, y",
    ]
    _read(reader, *lines)

    hidden = reader.hide("\n".join(lines))

    assert hidden.splitlines() == [
        "openjd_env: MODE=********",
        'openjd_redacted_env: "TOKEN=********',
        "openjd_redacted_env: X=********",
        "token ******** and ********, y",
    ]


@pytest.mark.parametrize("before", ["", "10%\r", "\x1b[32m", "\x1bM", "render: "])
def test_value_is_hidden_wherever_its_line_begins(before: str) -> None:
    """After a bar that a carriage return ends, in colours, and behind the name of a program."""
    reader = ProgressReader()

    hidden = reader.hide(f"first\n{before}openjd_env: TOKEN=s3cret\rnext\n")

    assert hidden == f"first\n{before}openjd_env: TOKEN=********\rnext\n"


def test_percentage_is_that_of_a_frame() -> None:
    reader = ProgressReader(preset="arnold", frames="1001-1004")

    found = _read(reader, "50% done", "100% done", "0% done", "50% done", "100% done", "5% done")

    assert [fraction for fraction, _ in found] == pytest.approx(
        [0.125, 0.25, 0.25, 0.375, 0.5, 0.5125]
    )
    assert [message for _, message in found][::5] == ["frame 1001", "frame 1003"]


def test_frame_is_found_by_its_number() -> None:
    reader = ProgressReader(preset="cycles", frames="10-20x5")

    found = _read(
        reader, "Fra:15 Mem | Sample 1/2", "Fra:20 Mem | Sample 0/2", "Fra:99 | Sample 1/2"
    )

    assert found == [(0.5, "frame 15"), (pytest.approx(2 / 3), "frame 20")]


def test_written_frame_of_nuke_is_finished() -> None:
    reader = ProgressReader(preset="nuke", frames="1001-1004")

    assert _read(reader, "Writing /r/a.1002.exr took 1.23 seconds") == [(0.5, "frame 1002")]


@pytest.mark.parametrize(
    ("pattern", "lines", "fractions"),
    [
        (r"(\d+)% finished", ["40% finished", "40%"], [0.4]),
        (r"step (\d+) of (\d+)", ["at step 3 of 12", "step 5 of 0"], [0.25]),
        (r"^(\d+)$", ["50", "x50"], [0.5]),
        (r"\A([\d,]+) ?%", ["12,5 %", " 1%"], [0.125]),
        (re.compile(r"DONE (\d+)", re.IGNORECASE), ["done 400"], [1.0]),
    ],
)
def test_expression_of_the_user(
    pattern: str | re.Pattern[str], lines: list[str], fractions: list[float | None]
) -> None:
    reader = ProgressReader(pattern=pattern)
    for end in ("\n", "\r"):
        data = f"before{end}{lines[0]}{end}after{end}".encode()
        assert reader.may_have_progress(data, 0, len(data))

    assert [fraction for fraction, _ in _read(reader, *lines)] == fractions


def test_flood_without_progress_is_not_read() -> None:
    flood = b"nothing to see here\n" * 50

    for reader in (
        ProgressReader(),
        ProgressReader(preset="cycles"),
        ProgressReader(pattern=r"(\d+) of (\d+)"),
        ProgressReader(pattern=r"^(\d+)%"),
    ):
        assert not reader.may_have_progress(flood, 0, len(flood))


@pytest.mark.parametrize(
    "before", ["", "Writing ", "Fra:1 ", "Block ", "(xfr#", "frame=", "Frame 1 ("]
)
@pytest.mark.parametrize("repeated", ["1", "1.", " ", "Sample ", "time=1:", "a"])
def test_long_line_takes_no_time(before: str, repeated: str) -> None:
    """Nothing else runs while a pattern is searched: neither the output nor a signal."""
    line = (before + repeated * LONGEST_LINE)[:LONGEST_LINE] + "x% took\n"
    readers = [
        *(ProgressReader(preset=name, duration=9) for name in PRESETS),
        ProgressReader(pattern=r"(\d+)%"),
        ProgressReader(pattern=r"(?i)(\d+)\s*PERCENT"),
    ]
    data = line.encode()

    began = time.thread_time()
    for reader in readers:
        if reader.may_have_progress(data, 0, len(data)):
            reader.read_lines(data, LONGEST_LINE)

    assert time.thread_time() - began < 5  # of the processor; the square of the line is a minute


def test_last_percentage_of_many_lines_counts() -> None:
    """Lines of OpenJD are all read, and so are those whose meaning depends on earlier ones."""
    lines = b"".join(b"%d%% done\n" % number for number in range(100))

    def fractions(reader: ProgressReader, data: bytes) -> list[float | None]:
        return [each.fraction for each in reader.read_lines(data, 1000)]

    assert fractions(ProgressReader(preset="arnold"), lines + b"no progress\n") == [0.99]
    assert len(fractions(ProgressReader(preset="arnold", frames="1-9"), lines)) == 100
    reader = ProgressReader(pattern=r"(\d+)% done")
    assert fractions(reader, b"openjd_fail: x\r" + lines)[-1] == 0.99
    assert reader.failure == "x"


@given(st.text("openjd_ x", max_size=40), st.integers(0, 30), st.integers(0, 60))
def test_line_is_found_between_all_others(before: str, begin: int, jays: int) -> None:
    """Texts that are searched by their rarest byte are found wherever they begin."""
    data = (before + "j" * jays + "openjd_x" + before).encode()
    reader = ProgressReader()

    for end in (len(data), len(data) - len(before) - 2, begin):
        expected = b"openjd_" in data[begin:end]
        assert reader.may_have_progress(data, begin, end) == expected


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"preset": "blender"}, "no preset; there are alfred, arnold, cycles"),
        ({"pattern": "("}, "no regular expression"),
        ({"pattern": "%"}, "has 0 groups"),
        ({"pattern": "(a)(b)(c)"}, "has 3 groups"),
        ({"pattern": re.compile(b"(a)")}, "must be for text"),
        ({"frames": "1100-1001"}, "no range of frames"),
        ({"frames": "1-10x0"}, "no range of frames"),
        ({"frames": "1-999999999"}, "no range of frames"),
        ({"frames": "all"}, "no frames such as"),
        ({"frames": ""}, "no frames such as"),
    ],
)
def test_mistake_is_named(options: dict[str, str], problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)):
        ProgressReader(**options)  # type: ignore[arg-type]


def test_frames_of_all_kinds() -> None:
    assert list(parse_frames("1001-1003, 7,-2--1,1-9x4,7")) == [
        1001,
        1002,
        1003,
        7,
        -2,
        -1,
        1,
        5,
        9,
    ]
