"""``aioftrackjobs demo``: what a new user sees first."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .screens import draw, screen

DEMO = ("-m", "aioftrackjobs.cli", "demo")
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="signals and terminals of POSIX")


@dataclass(frozen=True)
class Run:
    """A demo that has ended."""

    code: int
    out: str
    err: str
    left: list[str]


@pytest.fixture(scope="module")
def piped(
    tmp_path_factory: pytest.TempPathFactory, environment: Callable[[Path], dict[str, str]]
) -> Run:
    """One demo with its output in a pipe, for all tests that only check the output."""
    folder = tmp_path_factory.mktemp("demo")
    env = environment(folder)
    done = subprocess.run([sys.executable, *DEMO], env=env, cwd=folder, capture_output=True)
    left = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
    return Run(done.returncode, done.stdout.decode(), done.stderr.decode(), left)


@pytest.fixture(scope="module")
def dumb(
    tmp_path_factory: pytest.TempPathFactory, environment: Callable[[Path], dict[str, str]]
) -> Run:
    """One demo with two Jobs in a terminal without control sequences."""
    return _in_terminal({**environment(tmp_path_factory.mktemp("demo")), "TERM": "dumb"})


def test_succeeds_without_warnings(piped: Run) -> None:
    assert (piped.code, piped.err) == (0, "")


def test_four_of_five_jobs_are_done_in_the_table(piped: Run) -> None:
    statuses = re.findall(r"^ ?(?:maya|jenkins) +(\w+)", _table(piped), re.MULTILINE)

    assert statuses == ["done", "done", "failed", "done", "done"]


@POSIX
def test_a_command_runs_as_a_job(piped: Run) -> None:
    assert re.search(r"^sheet +noor +running$", piped.out, re.MULTILINE)
    assert re.search(r"^sheet +noor +done$", piped.out, re.MULTILINE)
    assert re.search(r"^ ?noor +done +Make a contact sheet", _table(piped), re.MULTILINE)


def test_a_job_is_stopped_and_one_is_started_in_the_menu(piped: Run) -> None:
    # The text of a Job is broken into lines, beside which are the times.
    words = " ".join(re.sub(r"\d\d:\d\d:\d\d", "", _table(piped)).split())

    assert re.search(r"^cloth +noor +failed$", piped.out, re.MULTILINE)
    assert re.search(r"failed: stopped by maya: wrong\b", words)
    assert re.search(r"^ ?noor +done +Make dailies - 2 shots", _table(piped), re.MULTILINE)


def test_its_end_names_the_next_commands(piped: Run) -> None:
    end = piped.out.partition("What to try next")[2]
    for command in ("serve", "run --", "jobs", "stop"):
        assert f"    aioftrackjobs {command} " in end


def test_table_shows_why_a_job_failed(piped: Run) -> None:
    words = " ".join(_table(piped).split())

    assert "failed: TranscodeError:" in words
    assert "sh030.1034.exr is missing" in words


def test_every_job_has_its_attachment(piped: Run) -> None:
    found = re.findall(r"\w+\.(?:mov|txt)", _table(piped))

    assert found == ["sh010.mov", "sh020.mov", "traceback.txt", "sh040.mov", "sh050.mov"]


def test_download_is_verified(piped: Run) -> None:
    assert re.search(
        r"Downloaded sh010\.mov and compared it: SHA-256 [0-9a-f]{16}\.\.\., as uploaded", piped.out
    )


def test_piped_output_has_no_control_characters(piped: Run) -> None:
    assert all(character.isprintable() or character == "\n" for character in piped.out)


def test_piped_output_fits_in_80_columns(piped: Run) -> None:
    assert max(map(len, piped.out.splitlines())) <= 80


def test_piped_output_shows_the_end_of_each_job(piped: Run) -> None:
    for shot in ("sh010", "sh020", "sh040", "sh050"):
        assert re.search(rf"^{shot} +\w+ +done$", piped.out, re.MULTILINE)
    assert re.search(r"^sh030 +\w+ +failed$", piped.out, re.MULTILINE)


def test_closing_text_leads_to_a_real_ftrack(piped: Run) -> None:
    for name in ("FTRACK_SERVER", "FTRACK_API_USER", "FTRACK_API_KEY", "AsyncSession()"):
        assert name in piped.out


def test_nothing_is_left_on_disk(piped: Run) -> None:
    assert piped.left == ["tmp"]


def test_fewer_than_two_jobs_are_refused(command: Callable[..., Any]) -> None:
    ended = command("demo", "--jobs", "1")

    assert ended.code == 2
    assert "--jobs" in ended.err


@POSIX
async def test_interrupt_leaves_cleanly(launch: Callable[..., Any], tmp_path: Path) -> None:
    program = launch(*DEMO)
    await program.shows("running")

    program.send(signal.SIGINT)

    assert await program.end() == 130
    assert program.err == "Interrupted. The Jobs that were running are marked as failed.\n"
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.fixture(scope="module")
def narrow(
    tmp_path_factory: pytest.TempPathFactory, environment: Callable[[Path], dict[str, str]]
) -> Run:
    """One demo with two Jobs in a narrow terminal."""
    return _in_terminal({**environment(tmp_path_factory.mktemp("demo")), "COLUMNS": "40"})


@POSIX
def test_narrow_terminal_shows_live_bars_and_descriptions(narrow: Run) -> None:
    run = narrow

    assert run.code == 0
    bars = re.findall(r"sh010 +maya.*? (\d+)%", _without_escapes(run.out))
    assert len(set(bars)) > 5
    assert bars[-1] == "100"
    explained = run.out.replace("\r", "").partition("on purpose")[2].partition("To do the same")[0]
    assert all(len(line) <= 40 for line in explained.splitlines())
    table = _without_escapes(_table(run)).replace("\r", "")
    assert re.search(r"^ ?maya +done +Transcode sh010 *$", table, re.MULTILINE)


@POSIX
def test_a_picture_is_taken(
    request: pytest.FixtureRequest,
    narrow: Run,
    pictures: Path,
    tmp_path: Path,
    environment: Callable[[Path], dict[str, str]],
) -> None:
    """That of the documentation is wider, and has more Jobs."""
    run, width = narrow, 40
    if request.config.getoption("--pictures"):
        width = 100
        run = _in_terminal({**environment(tmp_path), "COLUMNS": str(width)}, jobs=5)
    lines = screen(run.out.partition("\r\n\r\nTo do the same")[0])

    picture = draw("aioftrackjobs demo", lines, width)
    (pictures / "terminal-demo.svg").write_text(picture, "utf-8")

    names = [line.split()[0] for line in map(_without_escapes, lines) if "100%" in line]
    assert {"sh010", "sheet"} <= set(names)
    assert len(names) == len(set(names)), "the picture shows the bars once, as they are at the end"


@POSIX
def test_dumb_terminal_gets_plain_lines(dumb: Run) -> None:
    assert dumb.code == 0
    assert all(character.isprintable() or character in "\r\n" for character in dumb.out)


@POSIX
def test_the_option_sets_the_number_of_jobs(dumb: Run) -> None:
    begun = re.findall(r"^(sh\d+) +\w+ +running\r$", dumb.out, re.MULTILINE)

    assert sorted(begun) == ["sh010", "sh020"]


@POSIX
def test_closed_pipe_ends_it_quietly(
    tmp_path: Path, environment: Callable[[Path], dict[str, str]]
) -> None:
    env = environment(tmp_path)
    with subprocess.Popen(
        [sys.executable, *DEMO], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        complaint = process.stderr.read()

    assert complaint == b""
    assert list(Path(env["TMPDIR"]).iterdir()) == []


def _table(run: Run) -> str:
    return run.out.partition("What the server has stored:")[2].partition("on purpose")[0]


def _in_terminal(env: dict[str, str], jobs: int = 2) -> Run:
    """Run the demo in a terminal."""
    import pty

    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, *DEMO, "--jobs", str(jobs)],
        env=env,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        written = b"".join(iter(lambda: _read(ours), b""))
        os.close(ours)
    return Run(process.returncode, written.decode(), err="", left=[])


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # how Linux tells that the other side is closed
        return b""


def _without_escapes(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
