"""The commands and their options. What they do is imported when they are called."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aioftrackjobs._version import __version__
from aioftrackjobs.errors import FtrackJobsError

if TYPE_CHECKING:
    from aioftrackjobs.devserver import ServerHandle

#: Exit code after Ctrl-C, as shells know it.
_INTERRUPTED = 130

app = typer.Typer(
    help="ftrack Jobs for asyncio programs: try them, and serve them on this machine.",
    no_args_is_help=True,
    add_completion=False,
    # Locals hold API keys.
    pretty_exceptions_show_locals=False,
)


class UnusablePathError(FtrackJobsError):
    """An option names a file or folder that cannot be used.

    Attributes:
        option: The option.
        path: What it names.
        reason: What is wrong with it.
    """

    def __init__(self, option: str, path: Path, reason: str) -> None:
        super().__init__(option, path, reason)
        self.option = option
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"cannot use {self.option} {self.path}: {self.reason}"


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
) -> None:
    """Serve ftrack's API on this machine until Ctrl-C."""
    from aioftrackjobs import devserver

    documents = None if schemas is None else read_schemas(schemas)
    if storage is not None:
        _make_folder(storage)
    devserver.serve(
        host=host,
        port=port,
        database=database,
        storage=storage,
        schemas=documents,
        api_user=api_user,
        api_key=api_key,
        on_ready=_show_environment,
    )


def read_schemas(path: Path) -> list[dict[str, Any]]:
    """Return the schema documents in a file: the answer to ``query_schemas``.

    Raises:
        UnusablePathError: There is no such file, or it holds something else.
    """
    try:
        documents = json.loads(path.read_bytes())
    except OSError as error:
        raise UnusablePathError("--schemas", path, error.strerror or str(error)) from error
    except ValueError as error:
        raise UnusablePathError("--schemas", path, f"no JSON: {error}") from error
    if not isinstance(documents, list) or not all(map(_is_schema, documents)):
        reason = "no list of schemas, which are objects with an id and a primary_key"
        raise UnusablePathError("--schemas", path, reason)
    return documents


def _is_schema(document: object) -> bool:
    if not isinstance(document, dict) or not isinstance(document.get("id"), str):
        return False
    key, properties = document.get("primary_key"), document.get("properties", {})
    return isinstance(key, list) and bool(key) and isinstance(properties, dict)


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UnusablePathError("--storage", path, error.strerror or str(error)) from error


def _show_environment(server: ServerHandle) -> None:
    """Print what a shell needs; only that goes to stdout, so it can be sent to a file."""
    print(f"export FTRACK_SERVER={shlex.quote(server.url)}")
    print(f"export FTRACK_API_USER={shlex.quote(server.api_user)}")
    print(f"export FTRACK_API_KEY={shlex.quote(server.api_key)}", flush=True)
    print("Serving until Ctrl-C. Paste these lines into another shell.", file=sys.stderr)
