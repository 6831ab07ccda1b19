"""The commands and their options. What they do is imported when they are called."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import anyio
import typer

from aioftrackjobs._version import __version__
from aioftrackjobs.cli.paths import make_folder, read_schemas

if TYPE_CHECKING:
    from aioftrackjobs.devserver import ServerHandle

#: Exit code after Ctrl-C, as shells know it.
_INTERRUPTED = 130
_MIB = 1024 * 1024

app = typer.Typer(
    help="ftrack Jobs for asyncio programs: try them, and serve them on this machine.",
    no_args_is_help=True,
    add_completion=False,
    # Locals hold API keys.
    pretty_exceptions_show_locals=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"aioftrackjobs {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


@app.command()
def demo(
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", min=2, max=20, help="How many run at once.")
    ] = 5,
) -> None:
    """Watch several Jobs run against a server on this machine, and one of them fail."""
    from aioftrackjobs.cli.demo import run

    try:
        run(jobs)
    except KeyboardInterrupt:
        print("Interrupted: the Jobs that ran ended as failed.", file=sys.stderr)
        raise typer.Exit(_INTERRUPTED) from None


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to serve on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to serve on; 0 for any free one.")
    ] = 8090,
    database: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="SQLite file to keep entities in; else in memory."),
    ] = None,
    storage: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder to keep files in; else a temporary one."),
    ] = None,
    api_user: Annotated[str, typer.Option(help="User that clients act as.")] = "developer",
    api_key: Annotated[
        str | None, typer.Option(help="Key of that user; else one is made up.")
    ] = None,
    schemas: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="JSON file with a server's schemas; else built-in ones."),
    ] = None,
    fixture: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="JSON file with entities to load, such as a dump."),
    ] = None,
    empty: Annotated[
        bool, typer.Option("--empty", help="Make no users but that one, no project, no words.")
    ] = False,
    public: Annotated[
        bool,
        typer.Option("--public", help="Allow a host that others reach; needs --api-key."),
    ] = False,
    global_api_key: Annotated[
        str | None, typer.Option(help="A key that acts for any user; else there is none.")
    ] = None,
    max_upload: Annotated[
        int | None,
        typer.Option(min=1, metavar="MIB", help="Size of the biggest file to take; else 1 TiB."),
    ] = None,
    fault: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[:WHEN]",
            help="What is to go wrong: drop-after:0.1 for a tenth of all requests, refuse:3x for "
            "the next three. Repeatable; a wrong name lists all.",
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="What chance begins with, to have the same faults again.")
    ] = None,
) -> None:
    """Serve ftrack's API on this machine until Ctrl-C."""
    from aioftrackjobs import devserver

    faults = devserver.Faults(seed, own_process=True)
    devserver.plan_faults(faults, fault or ())
    if faults.planned:
        print(f"Injecting faults with --seed {faults.seed}.", file=sys.stderr)
    documents = None if schemas is None else read_schemas(schemas)
    if storage is not None:
        make_folder("--storage", storage)
    limits = None if max_upload is None else devserver.Limits(upload=max_upload * _MIB)
    devserver.serve(
        host=host,
        port=port,
        database=database,
        storage=storage,
        schemas=documents,
        api_user=api_user,
        api_key=api_key,
        on_ready=_show_environment,
        fixture=fixture,
        empty=empty,
        public=public,
        global_api_key=global_api_key,
        limits=limits,
        faults=faults,
    )


_Server = Annotated[
    str | None, typer.Option("--server", metavar="URL", help="Server to read; else FTRACK_SERVER.")
]
_ApiUser = Annotated[
    str | None, typer.Option("--api-user", help="User to read as; else FTRACK_API_USER.")
]
_ApiKey = Annotated[
    str | None, typer.Option("--api-key", help="Key of that user; else FTRACK_API_KEY.")
]


@app.command()
def dump(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File to write; - for stdout.")],
    types: Annotated[
        list[str] | None,
        typer.Option("--type", metavar="TYPE", help="Entity type to write; else all. Repeatable."),
    ] = None,
    server: _Server = None,
    api_user: _ApiUser = None,
    api_key: _ApiKey = None,
) -> None:
    """Write the entities of any ftrack server to a file for "serve --fixture"."""
    from aioftrackjobs.cli.dump import Source, write_dump

    count = anyio.run(write_dump, Source(server, api_user, api_key), types or [], file)
    print(f"Wrote {count} entities.", file=sys.stderr)


@app.command()
def schemas(server: _Server = None, api_user: _ApiUser = None, api_key: _ApiKey = None) -> None:
    """Print the schemas of any ftrack server, for "serve --schemas"."""
    from aioftrackjobs.cli.dump import Source, write_schemas

    anyio.run(write_schemas, Source(server, api_user, api_key))


@app.command()
def recover(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only tell what would be done.")
    ] = False,
    older_than: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Only Jobs created longer ago: 90s, 30m, 2h, 1d."),
    ] = None,
    user: Annotated[str | None, typer.Option(help="Only Jobs of this user.")] = None,
    without_lease: Annotated[
        bool,
        typer.Option(
            "--without-lease",
            help="Fail Jobs without a lease too, which other programs may be running.",
        ),
    ] = False,
    grace: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="How long a lease must have run out; else 60s."),
    ] = None,
    server: _Server = None,
    api_user: _ApiUser = None,
    api_key: _ApiKey = None,
) -> None:
    """Fail the running Jobs whose owner is dead, on any host."""
    from aioftrackjobs.cli.dump import Source
    from aioftrackjobs.cli.recover import parse_duration, run, show

    options: dict[str, object] = {
        "dry_run": dry_run,
        "user": user,
        "without_lease": without_lease,
        "older_than": None if older_than is None else parse_duration(older_than),
    }
    if grace is not None:
        options["grace"] = parse_duration(grace).total_seconds()
    recovery = anyio.run(run, Source(server, api_user, api_key), options)
    show(recovery)
    if recovery.refused:
        raise typer.Exit(1)


def _show_environment(server: ServerHandle) -> None:
    """Print what a shell needs; only that goes to stdout, so it can be sent to a file."""
    print(f"export FTRACK_SERVER={shlex.quote(server.url)}")
    print(f"export FTRACK_API_USER={shlex.quote(server.api_user)}")
    print(f"export FTRACK_API_KEY={shlex.quote(server.api_key)}", flush=True)
    print("Serving until Ctrl-C. Paste these lines into another shell.", file=sys.stderr)
