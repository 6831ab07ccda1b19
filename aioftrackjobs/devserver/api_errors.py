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

    def __init__(self, content: str) -> None:
        super().__init__(content)
        self.content = content
        self.status: int = self.strict_status


class ParseError(ApiError):
    """A query has a syntax error.

    Attributes:
        line: Where it stops being a query, from 1.
        column: The same within the line, from 1.
    """

    exception: str = "ParseError"
    strict_status: int = 400

    def __init__(self, content: str, line: int, column: int) -> None:
        super().__init__(content)
        self.line = line
        self.column = column


class ValidationError(ApiError):
    """A value has the wrong form, or a name does not exist."""

    exception: str = "ValidationError"
    strict_status: int = 422


class IntegrityError(ApiError):
    """A reference names an entity that does not exist."""

    exception: str = "IntegrityError"
    strict_status: int = 409


class DuplicateEntryError(ApiError):
    """There is an entity with this key already."""

    exception: str = "DuplicateEntryError"
    strict_status: int = 409


class EntityNotFoundError(ApiError):
    """The entity or file to work on does not exist."""

    exception: str = "EntityNotFoundError"
    strict_status: int = 404


class InvalidCredentialsError(ApiError):
    """User and key do not belong together."""

    exception: str = "InvalidCredentialsError"
    strict_status: int = 401

    def __init__(self) -> None:
        super().__init__(
            "The supplied API key is not valid for this user. Keys are made under "
            "Settings, API keys, and are sent in the header ftrack-api-key."
        )


class PermissionDeniedError(ApiError):
    """The caller is authenticated, but not permitted to do this."""

    exception: str = "PermissionError"
    strict_status: int = 403


class RequestError(ApiError):
    """The request is not valid for this address; it has a 4xx status in any mode."""

    exception: str = "RequestError"
    strict_status: int = 400

    def __init__(self, content: str, status: int | None = None) -> None:
        super().__init__(content)
        if status is not None:
            self.status = status


class TransferError(RequestError):
    """An upload or download does not match what was announced."""

    exception: str = "TransferError"
    strict_status: int = 400


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


class UnsupportedOperationError(ApiError):
    """A real server supports this; this one does not."""

    exception: str = "UnsupportedOperationError"
    strict_status: int = 501


def unknown_name(
    kind: str, name: str, known: Iterable[str], *, of: str = "", otherwise: str = ""
) -> ValidationError:
    """Return the error for a name that does not exist, with the nearest one that does.

    Args:
        kind: What the name names, such as ``attribute``.
        name: The name.
        known: Names that exist.
        of: The owner of the names, such as an entity type.
        otherwise: The hint if no name is near.
    """
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
