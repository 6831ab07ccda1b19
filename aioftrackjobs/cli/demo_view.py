"""What the demo shows: progress bars while Jobs run, and a table at the end.

The view has a session of its own, so that it shows what the server has stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

import anyio
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Table
from rich.text import Text

from aioftrackjobs import AsyncSession, Component, Job
from aioftrackjobs.cli.demo_work import DAILIES, OTHERS
from aioftrackjobs.models import parse_job_data

_RUNNING = "select status, data, user.username from Job"
_ENDED = (
    "select status, data, created_at, finished_at, user.username,"
    " job_components.component.name, job_components.component.file_type,"
    " job_components.component.size from Job"
)
#: Columns of a terminal below which a table shows less.
NARROW = 70
#: Seconds between two queries.
_PERIOD = 0.1
_STYLES = {"running": "cyan", "done": "green", "failed": "red"}


class LiveView:
    """A progress bar for each Job; lines of text if the output is not an interactive terminal."""

    def __init__(self, session: AsyncSession, console: Console, shots: Sequence[str]) -> None:
        self._session = session
        self._console = console
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=36, complete_style="cyan", finished_style="green"),
            TaskProgressColumn(),
            TextColumn("{task.fields[status]}"),
            console=console,
            disable=not console.is_interactive,
        )
        self._tasks = {
            shot: self._bars.add_task(f"{shot:7}", total=1.0, status="") for shot in shots
        }
        self._seen: dict[str, str] = {}

    async def follow(self, ended: anyio.Event) -> None:
        """Show the Jobs of the server until *ended* is set, and once more after that."""
        with self._bars:
            while not ended.is_set():
                await self._update()
                with anyio.move_on_after(_PERIOD):
                    await ended.wait()
            await self._update()

    async def _update(self) -> None:
        async for job in self._session.query(_RUNNING).of(Job):
            shot = shot_of(job)
            name = f"{shot:7}  {job['user']['username']:8}"
            self._bars.update(
                self._tasks[shot],
                description=name,
                completed=parse_job_data(job["data"]).get("progress", 0.0),
                status=_colored(job.status),
            )
            if self._seen.get(shot) != job.status and not self._console.is_interactive:
                self._console.print(f"{name} {job.status}")
            self._seen[shot] = job.status


async def fetch_ended(session: AsyncSession) -> list[Job]:
    """Return the Jobs with the attributes for :func:`job_table`: by shot, then all others."""
    jobs = await session.query(_ENDED).of(Job).all()
    return sorted(jobs, key=lambda job: (shot_of(job) in OTHERS, shot_of(job)))


def shot_of(job: Job) -> str:
    """Return the name of the shot of *job*; Jobs of actions have none."""
    return str(parse_job_data(job["data"]).get("shot", DAILIES))


def attachments(job: Job) -> list[Component]:
    """Return the attached components of *job*."""
    return [link["component"] for link in job["job_components"]]


def file_name(component: Component) -> str:
    """Return the file name of a component."""
    return f"{component['name']}{component['file_type']}"


def job_table(jobs: Iterable[Job], *, is_narrow: bool) -> Table:
    """Return a table of *jobs*; a narrow one has no attachments and times."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), expand=True)
    for heading in ("User", "Status"):
        table.add_column(heading, no_wrap=True)
    table.add_column("Description", ratio=1, overflow="fold")
    for heading in () if is_narrow else ("Attachment", "Start, end"):
        table.add_column(heading, no_wrap=True)
    for job in jobs:
        cells = [
            job["user"]["username"],
            _colored(job.status),
            Text(job.description or ""),
            Text("\n".join(f"{file_name(c)}\n{_size(c['size'])}" for c in attachments(job))),
            f"{_clock(job['created_at'])}\n{_clock(job['finished_at'])}",
        ]
        table.add_row(*cells[: len(table.columns)])
    return table


def _colored(status: str) -> Text:
    return Text(str(status), _STYLES.get(status, ""))


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def _clock(moment: datetime | None) -> str:
    return f"{moment.astimezone():%H:%M:%S}" if moment else ""
