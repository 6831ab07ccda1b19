"""The command ``recover``: fails lost Jobs, and shows what it found."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

import typer
from rich.console import Console
from rich.text import Text

from aioftrackjobs import RecoveredJob, Recovery, Verdict, recover
from aioftrackjobs.cli.dump import Source

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])", re.IGNORECASE)

#: Characters of a text that are shown.
_LONGEST = 300

_STYLES = {
    Verdict.FAILED: "yellow",
    Verdict.ALIVE: "green",
    Verdict.UNOWNED: "dim",
    Verdict.CHANGED: "green",
    Verdict.REFUSED: "red",
}


def parse_duration(text: str) -> timedelta:
    """Return a duration such as ``90s``, ``30m``, ``2h`` or ``1d``.

    Raises:
        typer.BadParameter: It is something else.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise typer.BadParameter(f"{text!r} is no duration such as 90s, 30m, 2h or 1d")
    try:
        return timedelta(**{_UNITS[match[2].lower()]: float(match[1])})
    except OverflowError:
        raise typer.BadParameter(f"{text!r} is longer than anything lasts") from None


async def run(source: Source, options: dict[str, Any]) -> Recovery:
    """Recover with *options*, as those of :func:`aioftrackjobs.recover`."""
    # A session with a journal delivers what it keeps; who only looks changes nothing.
    async with source.open(journal="" if options["dry_run"] else None) as session:
        return await recover(session, **options)


def show(recovery: Recovery) -> None:
    """Print each running Job, three lines long, and a line that sums all up."""
    console = Console(highlight=False)
    for job in recovery.jobs:
        is_lost = recovery.is_dry and job.verdict is Verdict.FAILED
        text = _plain(_lines_of(job, is_lost=is_lost))
        console.print(text, style=_STYLES[job.verdict], soft_wrap=True)
    count = len(recovery.failed)
    what = "would be failed" if recovery.is_dry else "failed"
    console.print(f"{len(recovery.jobs)} running, {count} of them lost and {what}.", style="bold")


def _lines_of(job: RecoveredJob, *, is_lost: bool) -> str:
    facts = [
        f"created {_shown(job.created_at)}" if job.created_at else "",
        f"run by {_short(job.owner)}" if job.owner else "",
        f"lease until {_shown(job.until)}" if job.until else "no lease",
    ]
    found = "lost" if is_lost else job.verdict.value
    if job.reason:
        found += f": {_short(job.reason)}"
    titles = (job.id, job.user, job.description)
    return "\n    ".join(
        (
            "  ".join(_short(title) for title in titles if title),
            ", ".join(fact for fact in facts if fact),
            found,
        )
    )


def _shown(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}"


def _short(text: str) -> str:
    """Return *text* in one line, and not too long."""
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


def _plain(text: str) -> Text:
    """Return what others wrote into a Job: no markup of ours, nor control codes of a terminal."""
    return Text(
        "".join(
            each if each.isprintable() or each == "\n" else "\N{REPLACEMENT CHARACTER}"
            for each in text
        )
    )
