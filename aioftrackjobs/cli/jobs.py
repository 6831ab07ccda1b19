"""Jobs in the terminal: ``jobs``, ``show``, ``watch`` and ``wait``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import anyio
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from aioftrackjobs import AsyncSession, Entity, Job
from aioftrackjobs.cli.arguments import Filters, RefusedError, UsageError
from aioftrackjobs.cli.texts import plain, since
from aioftrackjobs.jobs.ownership import Lease
from aioftrackjobs.models import parse_job_data
from aioftrackjobs.protocol.query import bind

_PROJECTIONS = "id, status, data, created_at, finished_at, user.username"

_STYLES = {"running": "cyan", "done": "green", "failed": "red", "queued": "yellow"}

#: Characters of an id in tables; with so many, ids of any site are unique.
_SHORT_ID = 8

#: Widths from which on a table has the columns of users, and of ages and progress.
_WIDE, _MIDDLE = 90, 60

#: Seconds between two looks of ``watch``.
_PAUSE = 1.0

#: Exit code of ``wait`` when the time is over, as of the command timeout.
TIMED_OUT = 124


async def find_jobs(session: AsyncSession, filters: Filters) -> list[Job]:
    """Return the latest Jobs that match, the oldest first."""
    criteria, values = [], dict[str, object]()
    if filters.statuses:
        criteria.append("status in {statuses}")
        values["statuses"] = list(filters.statuses)
    if filters.user is not None:
        criteria.append("user.username is {user}")
        values["user"] = filters.user
    if filters.text is not None:
        criteria.append("data like {text}")
        values["text"] = f"%{filters.text}%"
    if filters.younger_than is not None:
        await session.current_user()  # after a response, the server's time is known
        criteria.append("created_at > {moment}")
        values["moment"] = datetime.now(UTC) - filters.younger_than
    text = f"select {_PROJECTIONS} from Job"
    if criteria:
        text += " where " + " and ".join(criteria)
    text = bind(text, values) + f" order by created_at desc limit {filters.limit}"
    found = await session.query(text).of(Job).all()
    return sorted(found[: filters.limit], key=lambda job: str(job.created_at))


async def find_job(session: AsyncSession, given: str) -> Job:
    """Return the Job with an id, or the one whose id begins with *given*.

    Raises:
        UsageError: It is no id, nor the beginning of one.
        RefusedError: There is no such Job, or there are several.
    """
    text = given.strip().lower()
    if not text or set(text) - set("0123456789abcdef-"):
        raise UsageError(f"{given!r} is no id of a Job, or the beginning of one")
    query = session.query(
        f"select {_PROJECTIONS} from Job where id like {{id}} limit 2", id=f"{text}%"
    )
    found = await query.of(Job).all()
    if len(found) != 1:
        count = "several Jobs have ids that begin" if found else "no Job has an id that begins"
        raise RefusedError(f"{count} with {given}")
    return found[0]


def row_of(job: Job) -> dict[str, Any]:
    """Return what is known of a Job, for ``--json``."""
    data = parse_job_data(job.data)
    lease = Lease.of(data)
    user = job.get("user")
    progress = data.get("progress")
    return {
        "id": job.id,
        "status": str(job.status),
        "description": job.description,
        "progress": progress if isinstance(progress, int | float) else None,
        "user": user["username"] if isinstance(user, Entity) else None,
        "created_at": _iso(job.created_at),
        "finished_at": _iso(job.finished_at),
        "owner": None if lease is None else f"{lease.process.host}:{lease.process.pid}",
        "lease_until": None if lease is None else _iso(lease.until),
    }


def print_jobs(jobs: Iterable[Job], *, as_json: bool) -> None:
    """Print a table, or without a terminal a line for each Job with tabs, or JSON."""
    rows = [row_of(job) for job in jobs]
    console = Console(highlight=False)
    if as_json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
    elif console.is_terminal:
        console.print(table_of(rows, console.width))
    else:
        for row in rows:
            print(line_of(row))


def line_of(row: Mapping[str, Any]) -> str:
    """Return a line for pipes: id, status, percentage, user, time and text, between tabs."""
    moment = str(row["created_at"] or "")[:19]
    values = (row["id"], row["status"], _percent(row), row["user"], moment, row["description"])
    return "\t".join(plain(str(value or "-")) for value in values)


def table_of(rows: Sequence[Mapping[str, Any]], width: int) -> Table:
    """Return a table with those columns for which there is room."""
    table = Table(box=None, padding=(0, 1, 0, 0), expand=True, header_style="bold")
    table.add_column("id", no_wrap=True, width=_SHORT_ID)
    table.add_column("status", no_wrap=True, width=7)
    if width >= _MIDDLE:
        table.add_column("", no_wrap=True, justify="right", width=5)
        table.add_column("age", no_wrap=True, justify="right", width=4)
    if width >= _WIDE:
        table.add_column("user", no_wrap=True, max_width=16)
    table.add_column("text", no_wrap=True, overflow="ellipsis", ratio=1)
    for row in rows:
        style = _STYLES.get(row["status"], "")
        cells = [Text(row["id"][:_SHORT_ID]), Text(row["status"], style)]
        if width >= _MIDDLE:
            cells += [Text(_percent(row)), Text(since(row["created_at"]))]
        if width >= _WIDE:
            cells.append(Text(plain(row["user"] or "")))
        cells.append(Text(plain(row["description"] or "")))
        table.add_row(*cells)
    return table


async def show_job(session: AsyncSession, given: str, *, as_json: bool) -> None:
    """Print all about a Job."""
    job = await find_job(session, given)
    links = await session.query(
        "select component.id, component.name, component.file_type, component.size "
        "from JobComponent where job_id is {id}",
        id=job.id,
    ).all()
    files = [
        {
            "id": link["component"]["id"],
            "name": f"{link['component']['name']}{link['component'].get('file_type') or ''}",
            "size": link["component"].get("size"),
        }
        for link in links
    ]
    row = {**row_of(job), "attachments": files, "data": parse_job_data(job.data) or job.data}
    if as_json:
        print(json.dumps(row, indent=2, ensure_ascii=False))
        return
    ended = f", ended {row['finished_at']}" if row["finished_at"] else ""
    lines = [
        f"{row['id']}  {row['status']}{'  ' + _percent(row) if _percent(row) else ''}",
        f"text         {row['description'] or '-'}",
        f"user         {row['user'] or '-'}",
        f"created      {row['created_at']} ({since(row['created_at'])} ago){ended}",
        f"lease        {_lease_text(row)}",
    ]
    lines += [
        f"attachment   {each['name']} ({each['size'] or 0} bytes, {each['id']})" for each in files
    ]
    style = _STYLES.get(row["status"], "")
    console = Console(highlight=False)
    for number, line in enumerate(lines):
        console.print(Text(plain(line), style if not number else ""), soft_wrap=True)
    console.print(Text("data"))
    text = json.dumps(row["data"], indent=2, ensure_ascii=False)
    console.print(Text("\n".join(map(plain, text.split("\n")))), soft_wrap=True)


async def watch_jobs(session: AsyncSession, filters: Filters) -> None:
    """Show Jobs as they change until Ctrl-C; without a terminal, print a line for each change."""
    console = Console(highlight=False)
    if console.is_terminal:
        with Live(console=console, auto_refresh=False, screen=False) as live:
            while True:
                rows = [row_of(job) for job in await find_jobs(session, filters)]
                room = max(console.height - 2, 1)
                live.update(table_of(rows[-room:], console.width), refresh=True)
                await anyio.sleep(_PAUSE)
    known = dict[str, str]()
    while True:
        for job in await find_jobs(session, filters):
            line = line_of(row_of(job))
            if known.get(job.id) != line:
                known[job.id] = line
                print(line, flush=True)
        await anyio.sleep(_PAUSE)


async def wait_for_jobs(session: AsyncSession, given: Sequence[str], timeout: float | None) -> int:
    """Wait for the end of Jobs, and return the exit code: 0 if all are done, 1 if not."""
    jobs = [await find_job(session, each) for each in given]
    states = await session.wait_for(jobs, timeout=timeout)
    for state in states:
        print(plain(f"{state.id}  {state}"))
    if not all(state.has_ended for state in states):
        print("aioftrackjobs: the time is over, and not all Jobs have ended", file=sys.stderr)
        return TIMED_OUT
    return 0 if all(state.is_done for state in states) else 1


def _percent(row: Mapping[str, Any]) -> str:
    progress = row["progress"]
    return "" if progress is None else f"{progress * 100:.0f} %"


def _lease_text(row: Mapping[str, Any]) -> str:
    if row["owner"] is None:
        return "none: no process of this package runs the Job"
    return f"of {row['owner']} until {row['lease_until']}"


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="seconds")
