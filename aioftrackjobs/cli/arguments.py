"""Arguments that several commands have: the server, files and folders, durations."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from aioftrackjobs import AsyncSession, RetryPolicy
from aioftrackjobs.errors import FtrackJobsError

#: Options of all commands that need a server.
Server = Annotated[
    str | None,
    typer.Option("--server", metavar="URL", help="ftrack server. Default: FTRACK_SERVER."),
]
ApiUser = Annotated[
    str | None, typer.Option("--api-user", help="User name. Default: FTRACK_API_USER.")
]
ApiKey = Annotated[
    str | None, typer.Option("--api-key", help="API key of the user. Default: FTRACK_API_KEY.")
]

#: The name of a file that means the standard output.
STDOUT = Path("-")

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """The server that a command uses. What is None comes from the environment."""

    server_url: str | None = None
    api_user: str | None = None
    api_key: str | None = field(default=None, repr=False)

    def open_session(
        self,
        *,
        journal: str | None = "",
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008 - immutable
    ) -> AsyncSession:
        """Return a session to be entered.

        Args:
            retry: When to repeat requests.
            journal: See :class:`AsyncSession`. The default is none, because a command that only
                reads must not deliver what a journal keeps.
        """
        return AsyncSession(
            self.server_url, self.api_key, self.api_user, journal=journal, retry=retry
        )


class UnusablePathError(FtrackJobsError):
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


def parse_duration(text: str) -> timedelta:
    """Return a duration such as ``90s``, ``30m``, ``2h`` or ``1d``.

    Raises:
        typer.BadParameter: The text is not a duration.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise typer.BadParameter(f"{text!r} is not a duration such as 90s, 30m, 2h or 1d")
    try:
        return timedelta(**{_UNITS[match[2].lower()]: float(match[1])})
    except OverflowError:
        raise typer.BadParameter(f"{text!r} is too long") from None
