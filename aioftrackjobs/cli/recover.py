"""``aioftrackjobs recover``: marks lost Jobs as failed, and lists all running Jobs."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from rich.console import Console
from rich.text import Text

from aioftrackjobs import AsyncSession, RecoveredJob, Recovery, Verdict, recover

#: Longest text that is shown, in characters.
_LONGEST = 300

_STYLES = {
    Verdict.FAILED: "yellow",
    Verdict.ALIVE: "green",
    Verdict.UNOWNED: "dim",
    Verdict.CHANGED: "green",
    Verdict.REDELIVERED: "green",
    Verdict.REFUSED: "red",
}


async def run(options: dict[str, Any]) -> Recovery:
    """Call :func:`aioftrackjobs.recover` with *options*."""
    # A session with a journal delivers what the journal keeps, but a dry run changes nothing.
    async with AsyncSession(journal="" if options["dry_run"] else None) as session:
        return await recover(session, **options)


def show(recovery: Recovery) -> None:
    """Print three lines for each running Job, and a summary."""
    console = Console(highlight=False)
    for job in recovery.jobs:
        is_lost = recovery.is_dry and job.verdict is Verdict.FAILED
        text = _plain(_lines_of(job, is_lost=is_lost))
        console.print(text, style=_STYLES[job.verdict], soft_wrap=True)
    count = len(recovery.failed)
    what = "would be marked failed" if recovery.is_dry else "marked failed"
    console.print(f"{len(recovery.jobs)} running Jobs, {count} lost and {what}.", style="bold")


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
    """Return *text* as one line of limited length."""
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


def _plain(text: str) -> Text:
    """Return *text* without markup and control codes: other programs may have written it."""
    return Text(
        "".join(
            each if each.isprintable() or each == "\n" else "\N{REPLACEMENT CHARACTER}"
            for each in text
        )
    )
