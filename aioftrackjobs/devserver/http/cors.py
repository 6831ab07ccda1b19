"""What pages in browsers need: leave to call from another origin (CORS)."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from aioftrackjobs.devserver.api_errors import RequestError
from aioftrackjobs.devserver.http.responses import refused

_DESCRIBED = ("content-type", "content-length")


class _Browsers(CORSMiddleware):
    """Cross-origin calls, refused like everything else: with a JSON error object."""

    def preflight_response(self, request_headers: Headers) -> Response:
        """Answer a browser that asks what it may do."""
        response = super().preflight_response(request_headers)
        if response.status_code < 400:
            return response
        reason = bytes(response.body).decode()
        refusal = RequestError(f"{reason}.", status=response.status_code)
        headers = {key: value for key, value in response.headers.items() if key not in _DESCRIBED}
        answer = refused(refusal)
        answer.headers.update(headers)
        return answer


#: Pages from anywhere may call: what lets a caller in are the headers, which a page must know.
BROWSERS = Middleware(
    _Browsers,
    allow_origin_regex=".*",
    allow_methods=["GET", "HEAD", "POST", "PUT"],
    allow_headers=["*"],
    allow_credentials=True,
    expose_headers=["ETag", "Content-Disposition", "Content-Range", "Accept-Ranges"],
)
