"""Responses over HTTP: everything is JSON, errors too; pages of other origins may read them."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic_core import to_json
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from aioftrackjobs.devserver import api_errors
from aioftrackjobs.devserver.http.requests import is_strict

_BODY_HEADERS = ("content-type", "content-length")


def json_response(body: bytes, status: int = 200) -> Response:
    """Return a response with JSON."""
    return Response(body, status, media_type="application/json")


def error_response(error: api_errors.ApiError, status: int | None = None) -> Response:
    """Return the response for *error*, with the status of the error if none is given."""
    response = json_response(to_json(api_errors.error_body(error)), status or error.status)
    if isinstance(error, api_errors.BusyError):
        response.headers["Retry-After"] = str(error.retry_after)
    return response


def batch_error_response(error: api_errors.ApiError, headers: Mapping[str, str]) -> Response:
    """Return the response for the error of a batch, with status 200 unless in strict mode.

    A request that is no batch at all, or that the server is too busy for, always has a real
    status.
    """
    is_of_batch = not isinstance(error, api_errors.RequestError) or (
        isinstance(error, api_errors.TransferError) and not isinstance(error, api_errors.BusyError)
    )
    return error_response(error, 200 if is_of_batch and not is_strict(headers) else None)


class _JsonErrors(CORSMiddleware):
    """CORS whose errors are JSON objects, as all errors are."""

    def preflight_response(self, request_headers: Headers) -> Response:
        response = super().preflight_response(request_headers)
        if response.status_code < 400:
            return response
        error = api_errors.RequestError(f"{bytes(response.body).decode()}.")
        kept = {key: value for key, value in response.headers.items() if key not in _BODY_HEADERS}
        return Response(
            to_json(api_errors.error_body(error)), response.status_code, kept, "application/json"
        )


#: For all pages that :mod:`aioftrackjobs.devserver.http.trusted` lets through.
CORS = Middleware(
    _JsonErrors,
    allow_origin_regex=".*",
    allow_methods=["GET", "HEAD", "POST", "PUT"],
    allow_headers=["*"],
    allow_credentials=True,
    expose_headers=["ETag", "Content-Disposition", "Content-Range", "Accept-Ranges"],
)
