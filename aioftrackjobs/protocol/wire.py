"""Batches as bytes, and answers as lists of results or typed errors.

Source:
    protocol.md, sections 1 and 2.
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

#: From here on, and below server faults, the request was sent away or refused.
_REDIRECTION, _SERVER_FAULT = 300, 500

#: Characters of an unreadable body that an error shows.
_EXCERPT = 200

#: Names of errors with evidence (protocol.md, section 1.4); any other is a plain ServerError.
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
        body: The answer.
        count: Number of operations.
        expression: The query that was sent, if it was one.
        redact: Takes secrets out of a text that an error will show.

    Raises:
        ServerError: The server refused; the subclass tells why.
        MalformedResponseError: The body is not an ftrack answer to these operations. The server
            may have acted on them.
    """
    try:
        answer: object = from_json(body)
    except ValueError:
        raise _unreadable(status, redact(_excerpt(body))) from None
    for part in answer if isinstance(answer, list) else [answer]:
        if isinstance(part, dict) and "exception" in part:
            raise _refusal(status, part, expression, redact)
    if _REDIRECTION <= status < _SERVER_FAULT:
        raise ServerError(f"HTTP {status}", redact(_excerpt(body)), status=status)
    if not isinstance(answer, list) or status >= _SERVER_FAULT:
        excerpt = redact(_excerpt(body))
        raise MalformedResponseError("not a list of results", status=status, excerpt=excerpt)
    if len(answer) != count:
        raise MalformedResponseError(
            f"{len(answer)} result(s) for {count} operation(s)", status=status
        )
    return answer


def _unreadable(status: int, excerpt: str) -> MalformedResponseError | ServerError:
    if _REDIRECTION <= status < _SERVER_FAULT:  # a proxy's word: ftrack never saw the request
        return ServerError(f"HTTP {status}", excerpt, status=status)
    return MalformedResponseError("the body is not JSON", status=status, excerpt=excerpt)


def _excerpt(body: bytes) -> str:
    return body[:_EXCERPT].decode(errors="replace")


def _refusal(
    status: int,
    answer: Mapping[str, Any],
    expression: str | None,
    redact: Callable[[str], str],
) -> ServerError:
    kind, code = str(answer["exception"]), answer.get("error_code")
    error = _ERRORS.get(kind, ServerError)(
        kind,
        redact(str(answer.get("content", ""))),
        status=status,
        code=None if code is None else str(code),
        expression=expression,
    )
    if isinstance(error, QuerySyntaxError):
        place = answer.get("error")
        if isinstance(place, dict):
            error.line, error.column = _number(place.get("line")), _number(place.get("column"))
    return error


def _number(value: object) -> int | None:
    return value if isinstance(value, int) else None
