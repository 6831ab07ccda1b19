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

#: Statuses of an address that does not exist, or takes no POST.
_NO_SUCH_ADDRESS = (404, 405)

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
    return to_json(operations)


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
    url: str = "",
) -> list[Any]:
    """Return one result for each of the operations that the request carried.

    Args:
        status: HTTP status code.
        body: The response.
        count: Number of operations.
        expression: The query that was sent, if it was one.
        redact: Removes secrets from a text that an error will show.
        url: The address that responded, which an error names if it may be the wrong one.

    Raises:
        ServerError: The server refused; the subclass says why.
        MalformedResponseError: The body is no ftrack response to these operations. The server may
            have applied them.
    """
    try:
        decoded: object = from_json(body)
    except ValueError:
        raise _unreadable(status, redact(_excerpt(body)), url) from None
    may_refuse = b"exception" in body  # all results are searched only then
    for part in (decoded if isinstance(decoded, list) else [decoded]) if may_refuse else ():
        if isinstance(part, dict) and "exception" in part:
            refusal = _refusal(status, part, expression, redact)
            if status in _NO_SUCH_ADDRESS and url:
                refusal.url = url
            raise refusal
    if _REDIRECTION <= status < _SERVER_FAULT:
        raise _foreign_refusal(status, redact(_excerpt(body)), url)
    if not isinstance(decoded, list) or status >= _SERVER_FAULT:
        excerpt = redact(_excerpt(body))
        problem = "not a list of results"
        raise MalformedResponseError(problem, status=status, excerpt=excerpt, url=url)
    if len(decoded) != count:
        problem = f"{len(decoded)} result(s) for {count} operation(s)"
        raise MalformedResponseError(problem, status=status, url=url)
    return decoded


def is_foreign(refusal: ServerError) -> bool:
    """Return whether something else than ftrack has refused, such as a proxy: it names no error."""
    return refusal.kind == f"HTTP {refusal.status}"


def redirection_refused(status: int, url: str, location: str, problem: str) -> ServerError:
    """Return the error for a redirection that is not followed: nothing was applied.

    Args:
        status: HTTP status code.
        url: The address that was called.
        location: Where it redirects to, without secrets.
        problem: Why it is not followed.
    """
    detail = f"{url} redirects to {location}, {problem}; correct the server URL if that is right"
    return ServerError(f"HTTP {status}", detail, status=status)


def _unreadable(status: int, excerpt: str, url: str) -> MalformedResponseError | ServerError:
    if _REDIRECTION <= status < _SERVER_FAULT:
        return _foreign_refusal(status, excerpt, url)
    problem = "the body is not JSON"
    return MalformedResponseError(problem, status=status, excerpt=excerpt, url=url)


def _foreign_refusal(status: int, excerpt: str, url: str) -> ServerError:
    """Return the error for a refusal by something else than ftrack, such as a proxy."""
    detail = f"{url} is no ftrack API, or is not reached: {excerpt}" if url else excerpt
    return ServerError(f"HTTP {status}", detail, status=status)


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
