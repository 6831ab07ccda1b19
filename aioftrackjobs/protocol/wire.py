"""Batches as bytes, and responses as lists of results or typed errors.

Source:
    docs/protocol.md, sections 1 and 2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic_core import from_json, to_json

from aioftrackjobs.errors import (
    AuthenticationError,
    DuplicateEntryError,
    MalformedResponseError,
    PermissionDeniedError,
    QuerySyntaxError,
    ServerError,
    ValidationError,
)
from aioftrackjobs.protocol.values import JSONValue

API_PATH = "/api"

#: A status from the first up to the second means that the request was redirected or refused.
_REDIRECTION, _SERVER_FAULT = 300, 500

#: Characters of an unreadable body that an error quotes.
_EXCERPT = 200

#: Names of errors with evidence (docs/protocol.md, section 1.4); any other is a plain ServerError.
_ERRORS: Mapping[str, type[ServerError]] = {
    "InvalidCredentialsError": AuthenticationError,
    "FTAuthenticationError": AuthenticationError,
    "PermissionError": PermissionDeniedError,
    "ValidationError": ValidationError,
    "DuplicateEntryError": DuplicateEntryError,
    "ParseError": QuerySyntaxError,
}


def encode_batch(operations: Sequence[Mapping[str, JSONValue]]) -> bytes:
    """Return the body of a request that carries *operations*, which are in their wire form."""
    return to_json(list(operations))


def join_batches(bodies: Sequence[bytes]) -> bytes:
    """Return the body of one request that carries all of *bodies*, none of them empty."""
    if len(bodies) == 1:
        return bodies[0]
    return b"[" + b",".join([body[1:-1] for body in bodies]) + b"]"


def decode_response(
    status: int,
    body: bytes,
    count: int,
    *,
    expression: str | None = None,
    redact: Callable[[str], str] = str,
) -> list[Any]:
    """Return one result for each of the operations that the request carried.

    Args:
        status: HTTP status code.
        body: The response.
        count: Number of operations.
        expression: The query that was sent, if it was one.
        redact: Removes secrets from a text that an error will show.

    Raises:
        ServerError: The server refused; the subclass says why.
        MalformedResponseError: The body is no ftrack response to these operations. The server may
            have applied them.
    """
    try:
        decoded: object = from_json(body)
    except ValueError:
        raise _unreadable(status, redact(_excerpt(body))) from None
    for part in decoded if isinstance(decoded, list) else [decoded]:
        if isinstance(part, dict) and "exception" in part:
            raise _refusal(status, part, expression, redact)
    if _REDIRECTION <= status < _SERVER_FAULT:
        raise ServerError(f"HTTP {status}", redact(_excerpt(body)), status=status)
    if not isinstance(decoded, list) or status >= _SERVER_FAULT:
        excerpt = redact(_excerpt(body))
        raise MalformedResponseError("not a list of results", status=status, excerpt=excerpt)
    if len(decoded) != count:
        raise MalformedResponseError(
            f"{len(decoded)} result(s) for {count} operation(s)", status=status
        )
    return decoded


def _unreadable(status: int, excerpt: str) -> MalformedResponseError | ServerError:
    if _REDIRECTION <= status < _SERVER_FAULT:  # from a proxy: ftrack never received the request
        return ServerError(f"HTTP {status}", excerpt, status=status)
    return MalformedResponseError("the body is not JSON", status=status, excerpt=excerpt)


def _excerpt(body: bytes) -> str:
    return body[:_EXCERPT].decode(errors="replace")


def _refusal(
    status: int,
    error_object: Mapping[str, Any],
    expression: str | None,
    redact: Callable[[str], str],
) -> ServerError:
    kind, code = str(error_object["exception"]), error_object.get("error_code")
    error = _ERRORS.get(kind, ServerError)(
        kind,
        redact(str(error_object.get("content", ""))),
        status=status,
        code=None if code is None else str(code),
        expression=expression,
    )
    if isinstance(error, QuerySyntaxError):
        place = error_object.get("error")
        if isinstance(place, dict):
            error.line, error.column = _number(place.get("line")), _number(place.get("column"))
    return error


def _number(value: object) -> int | None:
    return value if isinstance(value, int) else None
