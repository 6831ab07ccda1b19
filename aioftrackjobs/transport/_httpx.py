"""Transport over ``httpx.AsyncClient``."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import cast
from urllib.parse import urlsplit
from urllib.request import getproxies

import httpx

from aioftrackjobs.errors import ConnectError, TransportError
from aioftrackjobs.transport._base import Download, WireRequest, WireResponse
from aioftrackjobs.transport._bulk import is_bulky, iter_bulk
from aioftrackjobs.transport._redaction import hide_secrets, redact

#: Seconds that an idle connection is kept: below the 5 s after which common servers close it,
#: so that a request seldom meets a connection that is just going away.
_KEEPALIVE = 4.0

#: Errors after which the request is known not to have left this machine.
_NEVER_LEFT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.UnsupportedProtocol,
    httpx.LocalProtocolError,
    httpx.ProxyError,
)


_ANY_FAILURE = (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError)


def open_client(server_url: str, timeout: float) -> httpx.AsyncClient:
    """Return a client of our own for *server_url*.

    Args:
        server_url: Decides whether certificates are loaded, which takes a while.
        timeout: Seconds for each of connecting, sending and waiting for more of the answer.
    """
    # The number of connections is bounded by who sends, not here: waiting in httpcore's pool
    # costs a scan of it for each event.
    limits = httpx.Limits(
        max_connections=None, max_keepalive_connections=20, keepalive_expiry=_KEEPALIVE
    )
    mounts = None
    verify: ssl.SSLContext | bool
    if urlsplit(server_url).scheme == "https" or getproxies():
        verify = httpx.create_ssl_context()  # one for all: httpx would load one for each proxy
    else:
        verify, mounts = False, {"https://": _SecureTransport(limits)}
    return httpx.AsyncClient(
        timeout=httpx.Timeout(timeout),
        limits=limits,
        follow_redirects=False,
        trust_env=True,
        verify=verify,
        mounts=mounts,
    )


class _SecureTransport(httpx.AsyncBaseTransport):
    """Transport for https that loads the certificates of authorities when it is first used."""

    def __init__(self, limits: httpx.Limits) -> None:
        self._limits = limits
        self._transport: httpx.AsyncHTTPTransport | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self._transport is None:
            self._transport = httpx.AsyncHTTPTransport(limits=self._limits)
        return await self._transport.handle_async_request(request)

    async def aclose(self) -> None:
        if self._transport is not None:
            await self._transport.aclose()


class HttpxTransport:
    """Transport over a client that the caller owns and closes.

    Args:
        client: An ``httpx.AsyncClient`` on any httpx transport.
        secrets: Texts that must never show in an error.
    """

    def __init__(self, client: httpx.AsyncClient, *, secrets: tuple[str, ...] = ()) -> None:
        self._client = client
        self._secrets = secrets
        hide_secrets()

    async def send(self, request: WireRequest) -> WireResponse:
        """Send *request*, and return its whole answer; redirections are for the caller to see."""
        async with self._exchange(request, follow_redirects=False) as response:
            try:
                body = await response.aread()
            except _ANY_FAILURE as exc:
                error = self._translate(exc, request.url)
            else:
                return WireResponse(response.status_code, body, dict(response.headers))
        raise error

    @asynccontextmanager
    async def stream(self, request: WireRequest) -> AsyncIterator[Download]:
        """Send *request*, follow redirects, and give access to its answer as it arrives."""
        async with self._exchange(request, follow_redirects=True) as response:
            yield _HttpxDownload(response, lambda exc: self._translate(exc, request.url))

    @asynccontextmanager
    async def _exchange(
        self, request: WireRequest, *, follow_redirects: bool
    ) -> AsyncIterator[httpx.Response]:
        if self._client.is_closed:
            raise ConnectError("the HTTP client is closed")
        try:
            outgoing = self._client.build_request(
                request.method, request.url, content=request.body, headers=_headers(request.headers)
            )
            response = await self._client.send(
                outgoing, stream=True, follow_redirects=follow_redirects
            )
        except _ANY_FAILURE as exc:
            error = self._translate(exc, request.url)
        else:
            try:
                yield response
            finally:
                await response.aclose()
            return
        raise error  # outside the handler, so that not even its context holds httpx's error

    def _translate(self, exc: Exception, url: str) -> TransportError:
        """Return what an error of httpx means for the caller.

        Never chain it: its request holds a URL and headers with secrets.
        """
        if isinstance(exc, _NEVER_LEFT):
            return ConnectError(f"cannot reach {_origin(url)}: {self._reason(exc)}")
        return TransportError(f"no complete answer from {_origin(url)}: {self._reason(exc)}")

    def _reason(self, exc: Exception) -> str:
        text = redact(str(exc), *self._secrets)
        return f"{type(exc).__name__}: {text}" if text else type(exc).__name__


class _HttpxDownload:
    def __init__(
        self, response: httpx.Response, translate: Callable[[Exception], TransportError]
    ) -> None:
        self._response = response
        self._translate = translate
        self.status = response.status_code
        self.headers: Mapping[str, str] = dict(response.headers)
        length = self.headers.get("content-length", "")
        encoded = "content-encoding" in self.headers or "transfer-encoding" in self.headers
        self.size = int(length) if length.isdigit() and not encoded else None

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        try:
            async with aclosing(self._pieces()) as pieces:
                async for piece in pieces:
                    yield piece
        except _ANY_FAILURE as exc:
            error = self._translate(exc)
        else:
            return
        raise error

    def _pieces(self) -> AsyncGenerator[bytes, None]:
        if self.size is not None and is_bulky(self._response, self.size):
            return iter_bulk(self._response, self.size)
        return cast("AsyncGenerator[bytes, None]", self._response.aiter_bytes())


def _headers(headers: Mapping[str, str | bytes]) -> list[tuple[bytes, bytes]]:
    return [
        # A server may name a file in a header: UTF-8 is what such servers read and write.
        (name.encode("ascii"), value if isinstance(value, bytes) else value.encode())
        for name, value in headers.items()
    ]


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
