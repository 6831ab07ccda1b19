"""The commands and their options. A command imports its module when it is called."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from shutil import get_terminal_size
from typing import Annotated

import anyio
import typer

from aioftrackjobs import AsyncSession
from aioftrackjobs._version import __version__
from aioftrackjobs.cli.arguments import make_folder, parse_duration, read_schemas, with_server
from aioftrackjobs.cli.job_commands import commands
from aioftrackjobs.cli.run import use_server

#: Exit code after Ctrl-C, as shells know it.
_INTERRUPTED = 130
_MIB = 1024 * 1024

#: Columns of the terminal, and whether they are too few for a help with tables.
_COLUMNS = get_terminal_size().columns
_IS_NARROW = _COLUMNS < 60

app: typer.Typer = typer.Typer(
    help="Run commands as ftrack Jobs, look at Jobs, and run an ftrack server on this machine.",
    no_args_is_help=True,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "terminal_width": _COLUMNS if _IS_NARROW else None,
    },
    # The tables of rich cut names of options and variables where there is no room.
    rich_markup_mode=None if _IS_NARROW else "rich",
    # Local variables hold API keys.
    pretty_exceptions_show_locals=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"aioftrackjobs {__version__}")
        raise typer.Exit


@app.callback()
@with_server
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
    user: Annotated[str | None, typer.Option(help="The same as --api-user.")] = None,
) -> None:
    use_server(None, user, None, None)


app.add_typer(commands)


@app.command()
def demo(
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=2, max=20, help="Number of Jobs.")] = 5,
    farm: Annotated[
        bool, typer.Option("--farm", help="Run a farm of three workers, on PostgreSQL.")
    ] = False,
) -> None:
    """Watch Jobs run on a local ftrack server: most succeed, one fails."""
    if farm:
        from aioftrackjobs.cli.demo_farm import run
    else:
        from aioftrackjobs.cli.demo import run

    try:
        run(jobs)
    except KeyboardInterrupt:
        print("Interrupted. The Jobs that were running are marked as failed.", file=sys.stderr)
        raise typer.Exit(_INTERRUPTED) from None


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for any free port.")
    ] = 8090,
    database: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="SQLite file for the entities. Default: in memory."),
    ] = None,
    storage: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder for files. Default: a temporary folder."),
    ] = None,
    api_user: Annotated[str, typer.Option(help="User name of clients.")] = "developer",
    api_key: Annotated[
        str | None, typer.Option(help="API key of that user. Default: a random key.")
    ] = None,
    schemas: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="JSON file with schemas. Default: built-in ones.",
        ),
    ] = None,
    fixture: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="JSON file with entities to load, such as a dump."),
    ] = None,
    empty: Annotated[
        bool, typer.Option("--empty", help="Start without the demo project and its users.")
    ] = False,
    public: Annotated[
        bool,
        typer.Option("--public", help="Allow other machines to connect. Needs --api-key."),
    ] = False,
    trusted_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Name by which clients call the server. Can be repeated."
        ),
    ] = None,
    global_api_key: Annotated[
        str | None, typer.Option(help="API key that is valid for any user. Default: none.")
    ] = None,
    ignore_unknown: Annotated[
        bool,
        typer.Option("--ignore-unknown", help="Ignore attributes that a type does not have."),
    ] = False,
    max_upload: Annotated[
        int | None,
        typer.Option(min=1, metavar="MIB", help="Largest file that is accepted. Default: 1 TiB."),
    ] = None,
    fault: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[:WHEN]",
            help="Fault to inject: drop-after:0.1 for one tenth of all requests, refuse:3x for "
            "the next three. Can be repeated. An unknown name lists all faults.",
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Random seed of the faults, to repeat a run.")
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Print a line for each request.")
    ] = False,
) -> None:
    """Run an ftrack server on this machine until Ctrl-C."""
    from aioftrackjobs import devserver
    from aioftrackjobs.cli.serve import Announcement, checked_options, log_requests

    faults = devserver.Faults(seed, own_process=True)
    if verbose:
        log_requests()
    limits = None if max_upload is None else devserver.Limits(upload=max_upload * _MIB)
    with checked_options():
        devserver.plan_faults(faults, fault or ())
        if fault:
            print(f"Injecting {', '.join(fault)} with --seed {faults.seed}.", file=sys.stderr)
        documents = None if schemas is None else read_schemas(schemas)
        if storage is not None:
            make_folder("--storage", storage)
        devserver.serve(
            host=host,
            port=port,
            database=database,
            storage=storage,
            schemas=documents,
            api_user=api_user,
            api_key=api_key,
            on_ready=Announcement(schemas, database, storage).show,
            fixture=fixture,
            empty=empty,
            public=public,
            trusted_hosts=trusted_host or (),
            global_api_key=global_api_key,
            limits=limits,
            ignore_unknown=ignore_unknown,
            faults=faults,
        )


@app.command()
@with_server
def dump(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File to write; - for stdout.")],
    types: Annotated[
        list[str] | None,
        typer.Option(
            "--type",
            metavar="TYPE",
            help="Only this entity type. Can be repeated.",
        ),
    ] = None,
) -> None:
    """Save the entities of an ftrack server to a file for "serve --fixture"."""
    from aioftrackjobs.cli.dump import write_dump

    count = anyio.run(write_dump, AsyncSession(journal=""), types or [], file)
    print(f"Wrote {count} entities.", file=sys.stderr)


@app.command()
@with_server
def schemas() -> None:
    """Print the schemas of an ftrack server, for "serve --schemas"."""
    from aioftrackjobs.cli.dump import write_schemas

    anyio.run(write_schemas, AsyncSession(journal=""))


@app.command()
@with_server
def models(
    types: Annotated[
        list[str] | None, typer.Argument(metavar="TYPE", help="Entity types. Default: all.")
    ] = None,
) -> None:
    """Print a Python module with the entity types of an ftrack server, for type checkers."""
    from aioftrackjobs.cli.models import write_models

    print(anyio.run(write_models, AsyncSession(journal=""), types or []), end="")


_Selection = Annotated[
    list[str] | None,
    typer.Argument(metavar="TYPE:ID", help="Entities that are selected, such as Task:9c1f."),
]


@app.command()
@with_server
def discover(
    selection: _Selection = None,
) -> None:
    """Show the actions that programs offer on a server of "serve"."""
    from aioftrackjobs.cli.actions import ask, selection_of

    found = ask("discover", selection=selection_of(selection or ()))
    print(json.dumps(found["items"], indent=2, ensure_ascii=False))


@app.command()
@with_server
def launch(
    action: Annotated[str, typer.Argument(help="Identifier of the action.")],
    selection: _Selection = None,
    value: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Value for the action's form. Can be repeated."),
    ] = None,
) -> None:
    """Launch an action on a server of "serve", and show its result or its form."""
    from aioftrackjobs.cli.actions import ask, selection_of, values_of

    body = {"selection": selection_of(selection or ()), "values": values_of(value or ())}
    reply = ask("launch", item=action, **body)["reply"]
    print(json.dumps(reply, indent=2, ensure_ascii=False))
    if isinstance(reply, dict) and reply.get("success") is False:
        raise typer.Exit(1)


@app.command()
@with_server
def actions(
    target: Annotated[
        str, typer.Argument(metavar="MODULE:NAME", help="An Actions object: service:actions.")
    ],
    concurrency: Annotated[
        int, typer.Option(min=1, help="Number of Jobs that work at the same time.")
    ] = 8,
    reload: Annotated[
        bool,
        typer.Option("--reload", help="Start again when a Python file in this folder changes."),
    ] = False,
) -> None:
    """Offer the actions of a module in the web interface, until Ctrl-C."""
    from aioftrackjobs.cli.serve_actions import serve, serve_and_reload

    if reload:
        serve_and_reload(target, concurrency)
    else:
        anyio.run(serve, target, concurrency)


@app.command()
@with_server
def recover(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be done.")
    ] = False,
    older_than: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Only Jobs created longer ago: 90s, 30m, 2h, 1d.",
        ),
    ] = None,
    user: Annotated[str | None, typer.Option(help="Only Jobs of this user.")] = None,
    without_lease: Annotated[
        bool,
        typer.Option(
            "--without-lease",
            help="Also fail Jobs without a lease, as those of other programs. Needs --older-than.",
        ),
    ] = False,
    grace: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Time since the lease has expired. Default: 60s.",
        ),
    ] = None,
) -> None:
    """Mark running Jobs as failed if their process has died, on any host."""
    from aioftrackjobs.cli.recover import run, show

    if without_lease and older_than is None and not dry_run:
        raise typer.BadParameter(
            "other programs run Jobs without a lease; name an age at which none of these still "
            "runs: --older-than 1d",
            param_hint="--without-lease",
        )
    options: dict[str, object] = {
        "dry_run": dry_run,
        "user": user,
        "without_lease": without_lease,
        "older_than": None if older_than is None else parse_duration("--older-than", older_than),
    }
    if grace is not None:
        options["grace"] = parse_duration("--grace", grace).total_seconds()
    recovery = anyio.run(run, options)
    show(recovery)
    if recovery.refused:
        raise typer.Exit(1)
