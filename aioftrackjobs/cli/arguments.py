"""Arguments that several commands have: the server, files and folders, durations."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from aioftrackjobs import JobStatus
from aioftrackjobs.cli.run import use_server
from aioftrackjobs.errors import FtrackJobsError

#: The name of a file that means the standard output.
STDOUT = Path("-")

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])", re.IGNORECASE)


def options_of(
    read: Callable[..., object], gives: str | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator for commands that have the options of *read*, besides their own.

    Args:
        read: Called before the command, with the values of its options.
        gives: The parameter of the command that gets what it returns; None for none.
    """
    added = inspect.signature(read, eval_str=True).parameters

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        own = [each for name, each in signature.parameters.items() if name != gives]

        @wraps(command)
        def run(**given: Any) -> None:
            found = read(**{name: given.pop(name) for name in added})
            command(**given, **({} if gives is None else {gives: found}))

        # typer reads the options here.
        run.__signature__ = signature.replace(parameters=[*own, *added.values()])  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in (*own, *added.values())}
        return run

    return decorate


_SERVER = "Server"  # the heading of these options in the help


def _name_server(
    server: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="ftrack server. Default: FTRACK_SERVER.", rich_help_panel=_SERVER
        ),
    ] = None,
    api_user: Annotated[
        str | None,
        typer.Option(help="User name. Default: FTRACK_API_USER.", rich_help_panel=_SERVER),
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(help="API key. Default: FTRACK_API_KEY.", rich_help_panel=_SERVER),
    ] = None,
    key_file: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="A file that has the API key.", rich_help_panel=_SERVER),
    ] = None,
) -> None:
    use_server(server, api_user, api_key, key_file)


#: Gives a command the options that name a server; they go to the environment, as all commands and
#: what they start read them there.
with_server = options_of(_name_server)


class Filters(NamedTuple):
    """Which Jobs are listed.

    Attributes:
        statuses: Only Jobs with one of these; all if empty.
        user: Only the Jobs of the user with this name.
        text: Only Jobs with this in their text.
        younger_than: Only Jobs that were created since then.
        limit: So many, the latest.
    """

    statuses: Sequence[str] = ()
    user: str | None = None
    text: str | None = None
    younger_than: timedelta | None = None
    limit: int = 20


def _read_filters(
    status: Annotated[
        list[JobStatus] | None,
        typer.Option(
            "--status",
            "-s",
            metavar="STATUS",
            help="Only Jobs that are queued, running, done or failed. Can be repeated.",
        ),
    ] = None,
    user: Annotated[
        str | None, typer.Option("--user", "-u", help="Only Jobs of this user.")
    ] = None,
    search: Annotated[str | None, typer.Option(help="Only Jobs with this in their text.")] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only Jobs created since: 90s, 30m, 2h, 1d.")
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", metavar="N", min=1, max=500, help="So many at most.")
    ] = 20,
) -> Filters:
    younger_than = None if since is None else parse_duration("--since", since)
    return Filters([each.value for each in status or ()], user, search, younger_than, limit)


#: Gives a command the options that choose Jobs.
with_filters = options_of(_read_filters, "filters")


class RefusedError(FtrackJobsError):
    """A command cannot do what it was to do; the text says why."""


class UsageError(FtrackJobsError):
    """An argument is wrong in itself, whatever the server says; the text says why."""

    exit_code = 2


class UnusablePathError(UsageError):
    """A file or folder that an option names cannot be used.

    Attributes:
        option: The option.
        path: The file or folder.
        reason: Why it cannot be used.
    """

    def __init__(self, option: str, path: Path, reason: str) -> None:
        super().__init__(option, path, reason)
        self.option = option
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"cannot use {self.option} {self.path}: {self.reason}"


def read_schemas(path: Path) -> list[dict[str, Any]]:
    """Return the schema documents in a file, as a server returns them for ``query_schemas``.

    Raises:
        UnusablePathError: There is no such file, or it has another content.
    """
    try:
        documents = json.loads(path.read_bytes())
    except OSError as error:
        raise UnusablePathError("--schemas", path, error.strerror or str(error)) from error
    except (ValueError, RecursionError) as error:
        raise UnusablePathError("--schemas", path, f"it is not JSON: {error}") from error
    if not isinstance(documents, list) or not all(map(_is_schema, documents)):
        reason = "it is not a list of schemas, which are objects with an id and a primary_key"
        raise UnusablePathError("--schemas", path, reason)
    return documents


def _is_schema(document: object) -> bool:
    if not isinstance(document, dict) or not isinstance(document.get("id"), str):
        return False
    key, properties = document.get("primary_key"), document.get("properties", {})
    return isinstance(key, list) and bool(key) and isinstance(properties, dict)


def make_folder(option: str, path: Path) -> None:
    """Create the folder that *option* names, if it does not exist.

    Raises:
        UnusablePathError: It cannot be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UnusablePathError(option, path, error.strerror or str(error)) from error


def parse_duration(option: str, text: str) -> timedelta:
    """Return the duration that *option* has, such as ``90s``, ``30m``, ``2h`` or ``1d``.

    Raises:
        typer.BadParameter: The text is not a duration.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise typer.BadParameter(
            f"{text!r} is not a duration such as 90s, 30m, 2h or 1d", param_hint=option
        )
    try:
        return timedelta(**{_UNITS[match[2].lower()]: float(match[1])})
    except OverflowError:
        raise typer.BadParameter(f"{text!r} is too long", param_hint=option) from None
