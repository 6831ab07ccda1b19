"""Answers over HTTP: everything is JSON, refusals too."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic_core import to_json
from starlette.responses import Response

from aioftrackjobs.devserver.api_errors import (
    ApiError,
    BusyError,
    RequestError,
    TransferError,
    error_body,
)
from aioftrackjobs.devserver.http.headers import is_strict


def reply(body: bytes, status: int = 200) -> Response:
    """Return JSON as a response."""
    return Response(body, status, media_type="application/json")


def refused(refusal: ApiError, status: int | None = None) -> Response:
    """Return *refusal* as a response; with the status it stands for if none is given."""
    response = reply(to_json(error_body(refusal)), status or refusal.status)
    if isinstance(refusal, BusyError):
        response.headers["Retry-After"] = str(refusal.retry_after)
    return response


def batch_refused(refusal: ApiError, headers: Mapping[str, str]) -> Response:
    """Return the refusal of a batch, with status 200 unless the client wants real ones.

    What is no batch at all, or finds the server too busy for any, has a real one always.
    """
    is_of_batch = not isinstance(refusal, RequestError) or (
        isinstance(refusal, TransferError) and not isinstance(refusal, BusyError)
    )
    return refused(refusal, 200 if is_of_batch and not is_strict(headers) else None)
