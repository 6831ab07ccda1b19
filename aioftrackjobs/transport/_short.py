"""A short way for the requests that are nearly all of them: API calls, one address, one client.

``httpx.AsyncClient`` prepares each request for what may happen to it (authentication, hooks,
redirections, the choice of a proxy), which takes as long as sending it does. An API call of a
client of our own has none of these.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Sequence
from typing import Any

import httpx

#: As httpx asks for by itself, of what the standard library decodes.
_ENCODINGS = (b"accept-encoding", b"gzip, deflate")


class _ShortRequest(httpx.Request):
    """One that takes the short way."""


class ShortCut:
    """An ``httpx.AsyncClient`` whose requests to one address go straight to its connections.

    Cookies are kept and sent as the client does it: a load balancer may count on them.

    Args:
        client: Sends all others; closed with this.
        transport: The one of the client that *url* is reached by.
        url: The address; redirections from there are not followed.
    """

    def __init__(
        self, client: httpx.AsyncClient, transport: httpx.AsyncBaseTransport, url: str
    ) -> None:
        self._client = client
        self._transport = transport
        self._text, self._url = url, httpx.URL(url)
        self._extensions = {"timeout": client.timeout.as_dict()}

    @property
    def is_closed(self) -> bool:
        """Whether it takes no more requests."""
        return self._client.is_closed

    def build_request(
        self,
        method: str,
        url: str,
        *,
        content: bytes | AsyncIterable[bytes] | None,
        headers: Sequence[tuple[bytes, bytes]],
    ) -> httpx.Request:
        """Return a request that :meth:`send` takes."""
        if url != self._text:
            return self._client.build_request(method, url, content=content, headers=[*headers])
        request = _ShortRequest(
            method,
            self._url,
            headers=[*headers, _ENCODINGS],
            content=content,
            extensions=self._extensions,
        )
        if self._client.cookies:
            self._client.cookies.set_cookie_header(request)
        return request

    async def send(self, request: Any, *, stream: bool, follow_redirects: bool) -> httpx.Response:
        """Send *request*, and return its answer when its headers have arrived."""
        if not isinstance(request, _ShortRequest):
            return await self._client.send(
                request, stream=stream, follow_redirects=follow_redirects
            )
        response = await self._transport.handle_async_request(request)
        response.request = request
        if "set-cookie" in response.headers:
            self._client.cookies.extract_cookies(response)
        return response

    async def aclose(self) -> None:
        """Close the client."""
        await self._client.aclose()
