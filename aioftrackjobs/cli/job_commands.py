"""The commands about Jobs and their options. A command imports its module when it is called."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import anyio
import typer

from aioftrackjobs import AsyncSession, JobStatus, RetryPolicy
from aioftrackjobs.cli.arguments import ApiKey, ApiUser, Server, ServerOptions, parse_duration

T = TypeVar("T")

_Job = Annotated[str, typer.Argument(metavar="JOB", help="Id of a Job, or its first characters.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_Statuses = Annotated[
    list[JobStatus] | None,
    typer.Option("--status", "-s", help="Only Jobs with this status. Can be repeated."),
]
_User = Annotated[str | None, typer.Option("--user", "-u", help="Only Jobs of this user.")]
_Search = Annotated[str | None, typer.Option("--search", help="Only Jobs with this in their text.")]
_Since = Annotated[
    str | None, typer.Option(metavar="TIME", help="Only Jobs created since: 90s, 30m, 2h, 1d.")
]
_Limit = Annotated[int, typer.Option("--limit", "-n", min=1, max=500, help="So many at most.")]

#: How the commands are called, in the order of their help.
commands: typer.Typer = typer.Typer()


#: Seconds for which a server that does not respond is tried again: someone sits and waits.
_PATIENCE = 5.0


def _run(
    server: ServerOptions,
    work: Callable[[AsyncSession], Awaitable[T]],
    *,
    journal: str | None = "",
    patience: float = _PATIENCE,
) -> T:
    retry = RetryPolicy(budget=patience)

    async def main() -> T:
        async with server.open_session(journal=journal, retry=retry) as session:
            return await work(session)

    return anyio.run(main)


def _filters(
    status: list[JobStatus] | None,
    user: str | None,
    search: str | None,
    since: str | None,
    limit: int,
) -> Any:
    from aioftrackjobs.cli.jobs import Filters

    younger_than = None if since is None else parse_duration(since)
    return Filters([each.value for each in status or ()], user, search, younger_than, limit)


@commands.command()
def ping(
    write: Annotated[
        bool, typer.Option("--write", help="Also create a Job, and delete it again.")
    ] = False,
    server: Server = None,
    api_user: ApiUser = None,
    api_key: ApiKey = None,
) -> None:
    """Check server, user, clock, latency and permissions: the first thing to run at a new site."""
    from aioftrackjobs.cli.ping import ping as check

    options = ServerOptions(server, api_user, api_key)
    if not _run(options, lambda session: check(session, write=write), patience=0):
        raise typer.Exit(1)


@commands.command()
def jobs(
    status: _Statuses = None,
    user: _User = None,
    search: _Search = None,
    since: _Since = None,
    limit: _Limit = 20,
    as_json: _Json = False,
    server: Server = None,
    api_user: ApiUser = None,
    api_key: ApiKey = None,
) -> None:
    """List the latest Jobs."""
    from aioftrackjobs.cli.jobs import find_jobs, print_jobs

    filters = _filters(status, user, search, since, limit)
    options = ServerOptions(server, api_user, api_key)
    print_jobs(_run(options, lambda session: find_jobs(session, filters)), as_json=as_json)


@commands.command()
def watch(
    status: _Statuses = None,
    user: _User = None,
    search: _Search = None,
    since: _Since = None,
    limit: _Limit = 20,
    server: Server = None,
    api_user: ApiUser = None,
    api_key: ApiKey = None,
) -> None:
    """Show the latest Jobs as they change, until Ctrl-C; in a pipe, a line for each change."""
    from aioftrackjobs.cli.jobs import watch_jobs

    filters = _filters(status, user, search, since, limit)
    options = ServerOptions(server, api_user, api_key)
    _run(options, lambda session: watch_jobs(session, filters))


@commands.command()
def show(
    job: _Job,
    as_json: _Json = False,
    server: Server = None,
    api_user: ApiUser = None,
    api_key: ApiKey = None,
) -> None:
    """Show all about a Job: its lease, owner, data, attachments and times."""
    from aioftrackjobs.cli.jobs import show_job

    options = ServerOptions(server, api_user, api_key)
    _run(options, lambda session: show_job(session, job, as_json=as_json))


@commands.command()
def wait(
    jobs: Annotated[list[str], typer.Argument(metavar="JOB...", help="Ids of Jobs.")],
    timeout: Annotated[
        str | None, typer.Option(metavar="TIME", help="How long: 90s, 30m, 2h, 1d.")
    ] = None,
    server: Server = None,
    api_user: ApiUser = None,
    api_key: ApiKey = None,
) -> None:
    """Wait for the end of Jobs. Exit code: 0 if all are done, 1 if not, 124 if the time is over."""
    from aioftrackjobs.cli.jobs import wait_for_jobs

    seconds = None if timeout is None else parse_duration(timeout).total_seconds()
    options = ServerOptions(server, api_user, api_key)
    code = _run(options, lambda session: wait_for_jobs(session, jobs, seconds))
    raise typer.Exit(code)


@commands.command()
def attach(
    job: _Job,
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Files to upload.")],
    server: Server = None,
    api_user: ApiUser = None,
    api_key: ApiKey = None,
) -> None:
    """Upload files, and attach them to a Job. Prints the id of each component."""
    from aioftrackjobs.cli.one_job import attach_files

    options = ServerOptions(server, api_user, api_key)
    _run(options, lambda session: attach_files(session, job, files), journal=None)


_TakeOver = Annotated[
    bool, typer.Option("--take-over", help="Also if another program seems to run it.")
]


@commands.command()
def finish(
    job: _Job,
    text: Annotated[str | None, typer.Argument(help="What was done.")] = None,
    take_over: _TakeOver = False,
    server: Server = None,
    api_user: ApiUser = None,
    api_key: ApiKey = None,
) -> None:
    """Let a Job that nothing runs end as done."""
    from aioftrackjobs.cli.one_job import end_job

    options = ServerOptions(server, api_user, api_key)
    _run(options, lambda session: end_job(session, job, JobStatus.DONE, text, take_over=take_over))


@commands.command()
def fail(
    job: _Job,
    reason: Annotated[str | None, typer.Argument(help="Why it failed.")] = None,
    take_over: _TakeOver = False,
    server: Server = None,
    api_user: ApiUser = None,
    api_key: ApiKey = None,
) -> None:
    """Let a Job that nothing runs end as failed; "stop" is for one that runs."""
    from aioftrackjobs.cli.one_job import end_job

    options = ServerOptions(server, api_user, api_key)
    _run(
        options,
        lambda session: end_job(session, job, JobStatus.FAILED, reason, take_over=take_over),
    )


@commands.command()
def stop(
    job: _Job,
    reason: Annotated[str | None, typer.Argument(help="Why, for the text of the Job.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it has ended.")] = False,
    server: Server = None,
    api_user: ApiUser = None,
    api_key: ApiKey = None,
) -> None:
    """Stop a Job, wherever it runs. Exit code 1 if it had ended already."""
    from aioftrackjobs.cli.one_job import stop_job

    options = ServerOptions(server, api_user, api_key)
    _run(options, lambda session: stop_job(session, job, reason, wait=wait))


@commands.command("open")
def open_(
    job: Annotated[str | None, typer.Argument(metavar="JOB", help="A Job to name.")] = None,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open it, or only print it.")
    ] = True,
    server: Server = None,
    api_user: ApiUser = None,
    api_key: ApiKey = None,
) -> None:
    """Open ftrack's interface in a browser, and print its address; its jobs menu shows the Jobs."""
    from aioftrackjobs.cli.one_job import open_job

    options = ServerOptions(server, api_user, api_key)
    _run(options, lambda session: open_job(session, job, browser=browser))


@commands.command(
    "run",
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
def run(arguments: Annotated[list[str] | None, typer.Argument()] = None) -> None:
    """Run a command as a Job: aioftrackjobs run [OPTIONS] -- COMMAND. See "run --help"."""
    from aioftrackjobs.cli.run import main

    main(arguments or [])
