"""The command ``recover``: fails lost Jobs, and shows what it found."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from aioftrackjobs import Recovery, Verdict, recover
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
    """Print a table of all running Jobs, and a line that sums it up."""
    console = Console()
    if recovery.jobs:
        console.print(_table(recovery))
    count = len(recovery.failed)
    what = "would be failed" if recovery.is_dry else "failed"
    console.print(f"{len(recovery.jobs)} running, {count} of them lost and {what}.", style="bold")


def _table(recovery: Recovery) -> Table:
    table = Table()
    for title in ("Job", "user", "created", "text", "owner", "lease until", "found"):
        table.add_column(title, overflow="fold")
    for job in recovery.jobs:
        found = "lost" if recovery.is_dry and job.verdict is Verdict.FAILED else job.verdict.value
        if job.reason:
            found += f": {job.reason}"
        cells = (
            job.id,
            job.user or "",
            _shown(job.created_at),
            job.description or "",
            job.owner or "",
            _shown(job.until),
            found,
        )
        table.add_row(*map(_plain, cells), style=_STYLES[job.verdict])
    return table


def _shown(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S}"


def _plain(text: str) -> Text:
    """Return what others wrote into a Job: no markup of ours, nor control codes of a terminal."""
    shown = text if len(text) <= _LONGEST else text[:_LONGEST] + "…"
    return Text(
        "".join(
            each if each.isprintable() or each == "\n" else "\N{REPLACEMENT CHARACTER}"
            for each in shown
        )
    )
