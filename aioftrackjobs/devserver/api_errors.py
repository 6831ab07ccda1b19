"""The errors that the server sends to clients.

An error becomes one JSON object for the whole request, whatever operation it comes from (protocol
reference, sections 1.4 and 2.2). Their names are those of a real server where these are known;
:mod:`aioftrackjobs.devserver.assumptions` lists where they are not.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from aioftrackjobs.errors import FtrackJobsError


class ApiError(FtrackJobsError):
    """The request is refused, and nothing of it stays.

    Attributes:
        exception: Name of the error on the wire.
        strict_status: HTTP status in strict mode; assumed, none is published.
        status: The same, unless the error has one of its own.
        content: Text for the user.
    """

    exception: str = "ServerError"
    strict_status: int = 400

    def __init_subclass__(cls, *, exception: str = "", status: int = 0) -> None:
        # A class without a status of its own is sent as the error that it is derived from.
        if status:
            cls.exception, cls.strict_status = exception or cls.__name__, status

    def __init__(self, content: str) -> None:
        super().__init__(content)
        self.content: str = content
        self.status: int = self.strict_status


class ParseError(ApiError, status=400):
    """A query has a syntax error.

    Attributes:
        line: Where it stops being a query, from 1.
        column: The same within the line, from 1.
    """

    def __init__(self, content: str, line: int, column: int) -> None:
        super().__init__(content)
        self.line: int = line
        self.column: int = column


class ValidationError(ApiError, status=422):
    """A value has the wrong form, or a name does not exist."""


class IntegrityError(ApiError, status=409):
    """A reference names an entity that does not exist."""


class DuplicateEntryError(ApiError, status=409):
    """There is an entity with this key already."""


class EntityNotFoundError(ApiError, status=404):
    """The entity or file to work on does not exist."""


class InvalidCredentialsError(ApiError, status=401):
    """User and key do not belong together."""

    def __init__(self) -> None:
        super().__init__(
            "The supplied API key is not valid for this user. Keys are made under "
            "Settings, API keys, and are sent in the header ftrack-api-key."
        )


class PermissionDeniedError(ApiError, exception="PermissionError", status=403):
    """The caller is authenticated, but not permitted to do this."""


class RequestError(ApiError, status=400):
    """The request is not valid for this address; it has a 4xx status in any mode."""

    def __init__(self, content: str, status: int | None = None) -> None:
        super().__init__(content)
        if status is not None:
            self.status = status


class TransferError(RequestError, status=400):
    """An upload or download does not match what was announced."""


class MissingPartError(TransferError):
    """An upload is completed before all its parts have arrived."""


class BusyError(TransferError):
    """The server is too busy now.

    Attributes:
        retry_after: Seconds after which the client may try again.
    """

    def __init__(self, content: str, retry_after: int) -> None:
        super().__init__(content, status=503)
        self.retry_after = retry_after


class DatabaseLockedError(BusyError):
    """Another process writes to the database."""

    def __init__(self) -> None:
        super().__init__("The database is in use by another program; try again.", 1)


class UnsupportedOperationError(ApiError, status=501):
    """A real server supports this; this one does not."""


def unknown_name(
    kind: str, name: str, known: Iterable[str], *, of: str = "", otherwise: str = ""
) -> ValidationError:
    """Return the error for a name that does not exist; the hint is *otherwise* if none is near."""
    by_lower = {each.lower(): each for each in known}
    match = get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    hint = f", did you mean '{by_lower[match[0]]}'?" if match else f". {otherwise}".rstrip()
    owner = f" of {of}" if of else ""
    return ValidationError(f"Unknown {kind} '{name}'{owner}{hint}")


def error_body(error: ApiError) -> dict[str, Any]:
    """Return the wire form of *error*.

    Braces are doubled: the official Python client uses the text as a format string
    (docs/protocol.md, section 1.5).
    """
    content = error.content.replace("{", "{{").replace("}", "}}")
    body: dict[str, Any] = {"exception": error.exception, "content": content, "error_code": None}
    if isinstance(error, ParseError):
        # Section 1.4 mentions an object `error`, but not its content.
        body["error"] = {"line": error.line, "column": error.column}
    return body
