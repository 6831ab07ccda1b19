"""The HTTP client that a session opens for itself, and the transport over it.

This module is imported when that happens: a caller who brings a client of another kind need not
have httpx in memory.

API calls, which nearly all requests are, take a short way. ``httpx.AsyncClient`` prepares each
request for what may happen to it (authentication, hooks, redirections, the choice of a proxy),
which takes as long as sending it. An API call has none of these.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterable, Sequence
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import httpx

from aioftrackjobs.errors import ConfigurationError
from aioftrackjobs.transport._base import OwnTransport
from aioftrackjobs.transport._files import FileTransport
from aioftrackjobs.transport._httpx import HttpxTransport

#: Seconds that an idle connection is kept: below the 5 s after which common servers close it,
#: so that a request seldom meets a connection that is just going away.
_KEEPALIVE = 4.0

#: As httpx asks for by itself, of what the standard library decodes.
_ENCODINGS = (b"accept-encoding", b"gzip, deflate")


def open_transport(
    server_url: str,
    *,
    api_url: str,
    timeout: float,
    secrets: tuple[str, ...],
    transfers: int,
) -> OwnTransport:
    """Return a transport of our own to the server at *server_url*.

    Args:
        server_url: If it is not https, no certificates are loaded, which takes a while.
        api_url: The target of nearly all requests. Redirections from there must not be followed.
        timeout: Seconds for each of connecting, sending and waiting for more of the response.
        secrets: Texts that must never show in an error.
        transfers: Files that worker threads move at the same time.

    Raises:
        ConfigurationError: The environment names a proxy or certificates that cannot be used.
    """
    # The number of connections is bounded by the senders, not here: waiting in httpcore's pool
    # costs a scan of it for each event.
    limits = httpx.Limits(
        max_connections=None, max_keepalive_connections=20, keepalive_expiry=_KEEPALIVE
    )
    if getproxies().keys() - {"no"}:
        return _OwnHttpxTransport(_open_proxied(limits, timeout), secrets)
    is_secure = urlsplit(server_url).scheme == "https"
    # The context without certificates trusts no server, so TLS would fail, not be insecure.
    verify = load_certificates() if is_secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    transport = httpx.AsyncHTTPTransport(verify=verify, limits=limits)
    client = httpx.AsyncClient(
        timeout=httpx.Timeout(timeout), follow_redirects=False, transport=transport
    )
    return FileTransport(
        _OwnHttpxTransport(ShortCut(client, transport, api_url), secrets),
        timeout=timeout,
        keepalive=_KEEPALIVE,
        load_certificates=(lambda: verify) if is_secure else load_certificates,
        cookies=client.cookies.jar,
        secrets=secrets,
        threads=transfers,
    )


class _OwnHttpxTransport(HttpxTransport):
    """A transport over a client that is closed with it."""

    def __init__(self, client: ShortCut | httpx.AsyncClient, secrets: tuple[str, ...]) -> None:
        super().__init__(client, secrets=secrets)
        self._own_client = client

    async def aclose(self) -> None:
        """Close the client."""
        await self._own_client.aclose()


def load_certificates() -> ssl.SSLContext:
    """Return a context for TLS that knows the certificates of authorities; takes a while.

    Raises:
        ConfigurationError: The environment names certificates that cannot be loaded.
    """
    try:
        return httpx.create_ssl_context()
    except OSError as exc:
        problem = f"the certificates of SSL_CERT_FILE or SSL_CERT_DIR cannot be loaded: {exc}"
    raise ConfigurationError([problem])


def _open_proxied(limits: httpx.Limits, timeout: float) -> httpx.AsyncClient:
    """Return a client that uses the proxies that the environment names."""
    try:
        return httpx.AsyncClient(
            timeout=httpx.Timeout(timeout),
            limits=limits,
            follow_redirects=False,
            trust_env=True,
            verify=load_certificates(),  # one for all: httpx would load one for each proxy
        )
    except ImportError:
        problem = "for a SOCKS proxy (ALL_PROXY) install httpx[socks]"
    except (httpx.InvalidURL, ValueError):  # their texts may quote the proxy's password
        problem = "HTTP_PROXY, HTTPS_PROXY or ALL_PROXY is no URL of a proxy"
    raise ConfigurationError([problem])


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
