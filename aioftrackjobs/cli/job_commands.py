"""The commands about Jobs and their options. A command imports its module when it is called."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, TypeVar

import anyio
import typer

from aioftrackjobs import AsyncSession, JobStatus, RetryPolicy
from aioftrackjobs.cli.arguments import Filters, parse_duration, with_filters, with_server

T = TypeVar("T")

_Job = Annotated[str, typer.Argument(metavar="JOB", help="Id of a Job, or its first characters.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

#: How the commands are called, in the order of their help.
commands: typer.Typer = typer.Typer()


#: Seconds for which a server that does not respond is tried again: someone sits and waits.
_PATIENCE = 5.0


def _run(
    work: Callable[[AsyncSession], Awaitable[T]],
    *,
    journal: str | None = "",
    patience: float = _PATIENCE,
) -> T:
    retry = RetryPolicy(budget=patience)

    async def main() -> T:
        async with AsyncSession(journal=journal, retry=retry) as session:
            return await work(session)

    return anyio.run(main)


@commands.command()
@with_server
def ping(
    write: Annotated[
        bool, typer.Option("--write", help="Also create a Job, and delete it again.")
    ] = False,
) -> None:
    """Check server, user, clock, latency and permissions: the first thing to run at a new site."""
    from aioftrackjobs.cli.ping import ping as check

    if not _run(lambda session: check(session, write=write), patience=0):
        raise typer.Exit(1)


@commands.command()
@with_server
@with_filters
def jobs(filters: Filters, as_json: _Json = False) -> None:
    """List the latest Jobs."""
    from aioftrackjobs.cli.jobs import find_jobs, print_jobs

    print_jobs(_run(lambda session: find_jobs(session, filters)), as_json=as_json)


@commands.command()
@with_server
@with_filters
def watch(filters: Filters) -> None:
    """Show the latest Jobs as they change, until Ctrl-C; in a pipe, a line for each change."""
    from aioftrackjobs.cli.jobs import watch_jobs

    _run(lambda session: watch_jobs(session, filters))


@commands.command()
@with_server
def show(
    job: _Job,
    as_json: _Json = False,
) -> None:
    """Show all about a Job: its lease, owner, data, attachments and times."""
    from aioftrackjobs.cli.jobs import show_job

    _run(lambda session: show_job(session, job, as_json=as_json))


@commands.command()
@with_server
def wait(
    jobs: Annotated[list[str], typer.Argument(metavar="JOB...", help="Ids of Jobs.")],
    timeout: Annotated[
        str | None, typer.Option(metavar="TIME", help="How long: 90s, 30m, 2h, 1d.")
    ] = None,
) -> None:
    """Wait for the end of Jobs. Exit code: 0 if all are done, 1 if not, 124 if the time is over."""
    from aioftrackjobs.cli.jobs import wait_for_jobs

    seconds = None if timeout is None else parse_duration("--timeout", timeout).total_seconds()
    code = _run(lambda session: wait_for_jobs(session, jobs, seconds))
    raise typer.Exit(code)


@commands.command()
@with_server
def attach(
    job: _Job,
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Files to upload.")],
) -> None:
    """Upload files, and attach them to a Job. Prints the id of each component."""
    from aioftrackjobs.cli.one_job import attach_files

    _run(lambda session: attach_files(session, job, files), journal=None)


_TakeOver = Annotated[
    bool, typer.Option("--take-over", help="Also if another program seems to run it.")
]


@commands.command()
@with_server
def finish(
    job: _Job,
    text: Annotated[str | None, typer.Argument(help="What was done.")] = None,
    take_over: _TakeOver = False,
) -> None:
    """Let a Job that nothing runs end as done."""
    from aioftrackjobs.cli.one_job import end_job

    _run(lambda session: end_job(session, job, JobStatus.DONE, text, take_over=take_over))


@commands.command()
@with_server
def fail(
    job: _Job,
    reason: Annotated[str | None, typer.Argument(help="Why it failed.")] = None,
    take_over: _TakeOver = False,
) -> None:
    """Let a Job that nothing runs end as failed; "stop" is for one that runs."""
    from aioftrackjobs.cli.one_job import end_job

    _run(
        lambda session: end_job(session, job, JobStatus.FAILED, reason, take_over=take_over),
    )


@commands.command()
@with_server
def stop(
    job: _Job,
    reason: Annotated[str | None, typer.Argument(help="Why, for the text of the Job.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it has ended.")] = False,
) -> None:
    """Stop a Job, wherever it runs. Exit code 1 if it had ended already."""
    from aioftrackjobs.cli.one_job import stop_job

    _run(lambda session: stop_job(session, job, reason, wait=wait))


@commands.command("open")
@with_server
def open_(
    job: Annotated[str | None, typer.Argument(metavar="JOB", help="A Job to name.")] = None,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open it, or only print it.")
    ] = True,
) -> None:
    """Open ftrack's interface in a browser, and print its address; its jobs menu shows the Jobs."""
    from aioftrackjobs.cli.one_job import open_job

    _run(lambda session: open_job(session, job, browser=browser))


@commands.command(
    "run",
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
def run(arguments: Annotated[list[str] | None, typer.Argument()] = None) -> None:
    """Run a command as a Job: aioftrackjobs run [OPTIONS] -- COMMAND. See "run --help"."""
    from aioftrackjobs.cli.run import main

    main(arguments or [])
