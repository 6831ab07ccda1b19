"""Cross-origin requests (CORS): pages in browsers may call from any origin."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from aioftrackjobs.devserver.api_errors import RequestError
from aioftrackjobs.devserver.http.responses import error_response

_DESCRIBED = ("content-type", "content-length")


class _JsonErrors(CORSMiddleware):
    """CORS whose errors are JSON objects, as all errors are."""

    def preflight_response(self, request_headers: Headers) -> Response:
        """Respond to the preflight request of a browser."""
        response = super().preflight_response(request_headers)
        if response.status_code < 400:
            return response
        reason = bytes(response.body).decode()
        error = RequestError(f"{reason}.", status=response.status_code)
        headers = {key: value for key, value in response.headers.items() if key not in _DESCRIBED}
        refused = error_response(error)
        refused.headers.update(headers)
        return refused


#: Pages from any origin may call: the credentials are in headers, which a page must know.
CORS = Middleware(
    _JsonErrors,
    allow_origin_regex=".*",
    allow_methods=["GET", "HEAD", "POST", "PUT"],
    allow_headers=["*"],
    allow_credentials=True,
    expose_headers=["ETag", "Content-Disposition", "Content-Range", "Accept-Ranges"],
)
