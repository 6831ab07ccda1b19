"""The HTTP client that a session opens for itself, and the transport over it.

This module is imported when a session opens its own client, so that a caller with another client
does not load httpx. What is called httpx here is httpx2 where that is installed (`_library.py`).

API calls, which are nearly all requests, skip a part of ``httpx.AsyncClient``: it prepares each
request for authentication, hooks, redirections and the choice of a proxy, which takes as long as
sending it. An API call needs none of these.
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import AsyncIterable, Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit
from urllib.request import getproxies

import anyio
import certifi
from anyio.to_thread import run_sync

from aioftrackjobs.config.secret import Secret
from aioftrackjobs.errors import ConfigurationError, TransportError
from aioftrackjobs.transport._base import OwnTransport, WireRequest, WireResponse
from aioftrackjobs.transport._bounds import Bounds, ExceededError
from aioftrackjobs.transport._files import FileTransport
from aioftrackjobs.transport._httpx import HttpxTransport, encoded
from aioftrackjobs.transport._library import httpx

#: Bytes of a response that a thread reads: more than those of a hundred Jobs.
_MOST_IN_THREAD = 64 * 1024 * 1024

#: Seconds that an idle connection is kept. Common servers close it after 5 s, and a request on a
#: connection that is being closed fails.
_KEEPALIVE = 4.0

#: A connection for each request: one that was good a moment ago may be dead by now.
_NO_KEEPALIVE = httpx.Limits(max_connections=None, max_keepalive_connections=0)

#: Variables that name certificates of authorities: those of OpenSSL and httpx, and that of the
#: official client. All that are set count, because tools such as conda set some of them unasked.
_CERTIFICATE_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")


def open_transport(
    server_url: str,
    *,
    api_url: str,
    timeout: float,
    bounds: Bounds,
    reserved_seconds: float,
    secrets: tuple[Secret[str], ...],
    transfers: int,
) -> OwnTransport:
    """Return a transport of our own to the server at *server_url*.

    Args:
        server_url: If it is not https, no certificates are loaded, because this takes long.
        api_url: The URL of API calls, whose redirections must not be followed.
        timeout: Seconds for each of connecting, sending and waiting for more of the response.
        bounds: What a request and its response may take.
        reserved_seconds: The same time for those that have connections of their own.
        secrets: Texts that must never appear in an error.
        transfers: Number of files that worker threads move at the same time.

    Raises:
        ConfigurationError: The environment names a proxy or certificates that cannot be used.
    """
    # The senders limit the number of connections. Requests that wait in httpcore's pool would make
    # it search the pool at each event.
    limits = httpx.Limits(
        max_connections=None, max_keepalive_connections=20, keepalive_expiry=_KEEPALIVE
    )
    reserved_bounds = replace(bounds, seconds=reserved_seconds)
    if getproxies().keys() - {"no"}:
        certificates = load_certificates()  # once; httpx would load them for each proxy
        open_proxied = partial(_open_proxied, timeout=timeout, certificates=certificates)
        client = open_proxied(limits)
        late = _LateClient(partial(open_proxied, _NO_KEEPALIVE))
        reserved = _OwnHttpxTransport(late, secrets, reserved_bounds)
        return _OwnHttpxTransport(client, secrets, bounds, reserved)
    is_secure = urlsplit(server_url).scheme == "https"
    # A context without certificates trusts no server, so that TLS fails and is never insecure.
    verify = load_certificates() if is_secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    transport = httpx.AsyncHTTPTransport(verify=verify, limits=limits)
    client = httpx.AsyncClient(
        timeout=httpx.Timeout(timeout),
        follow_redirects=False,
        transport=transport,
        mounts=None if is_secure else {"https://": _LateSecureTransport(limits)},
    )
    reserved_transport = _LateTransport(
        partial(httpx.AsyncHTTPTransport, verify=verify, limits=_NO_KEEPALIVE)
    )
    return FileTransport(
        _OwnHttpxTransport(
            ShortCut(client, transport, api_url),
            secrets,
            bounds,
            _OwnHttpxTransport(
                ShortCut(client, reserved_transport, api_url), secrets, reserved_bounds
            ),
        ),
        timeout=timeout,
        keepalive=_KEEPALIVE,
        load_certificates=(lambda: verify) if is_secure else load_certificates,
        cookies=client.cookies.jar,
        secrets=secrets,
        threads=transfers,
    )


def send_in_thread(request: WireRequest, timeout: float) -> WireResponse:
    """Send *request* over a connection of its own, and return its response; blocks the thread.

    It goes the way that the requests of :func:`open_transport` go: through the same proxies, and
    with the same certificates.

    Args:
        request: Has its whole body.
        timeout: Seconds for each of connecting, sending and waiting for more of the response,
            which may take twice as long in all.

    Raises:
        ConfigurationError: The environment names certificates that cannot be used.
        TransportError: No complete response arrived.
    """
    is_secure = urlsplit(request.url).scheme == "https"
    is_proxied = bool(getproxies().keys() - {"no"})
    needs_certificates = is_secure or is_proxied
    verify = load_certificates() if needs_certificates else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    body = cast("bytes | None", request.body)
    deadline = time.monotonic() + 2 * timeout
    try:
        with httpx.Client(verify=verify, trust_env=is_proxied, timeout=timeout) as client:
            received = bytearray()
            with client.stream(
                request.method,
                request.url,
                content=body,
                headers=encoded(request.headers),
            ) as response:
                for piece in response.iter_bytes():
                    received += piece
                    if len(received) > _MOST_IN_THREAD or time.monotonic() > deadline:
                        raise ExceededError  # noqa: TRY301 - it ends as all others
            return WireResponse(response.status_code, bytes(received), dict(response.headers))
    except Exception as exc:  # noqa: BLE001 - its text may quote a secret, and its request does
        reason = type(exc).__name__
    raise TransportError(f"no complete response: {reason}")


class _OwnHttpxTransport(HttpxTransport):
    """A transport over a client that is closed with it, as its *reserved* transport is."""

    def __init__(
        self,
        client: ShortCut | httpx.AsyncClient | _LateClient,
        secrets: tuple[Secret[str], ...],
        bounds: Bounds,
        reserved: _OwnHttpxTransport | None = None,
    ) -> None:
        super().__init__(client, secrets=secrets, bounds=bounds)
        self._own_client = client
        self.reserved = reserved or self

    async def aclose(self) -> None:
        """Close the clients."""
        if self.reserved is not self:
            await self.reserved.aclose()
        await self._own_client.aclose()


class _LateTransport(httpx.AsyncBaseTransport):
    """A transport that is opened when it is first needed.

    Args:
        open_transport: Opens it.
    """

    def __init__(self, open_transport: Callable[[], httpx.AsyncHTTPTransport]) -> None:
        self._open = open_transport
        self._opened: httpx.AsyncHTTPTransport | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send *request*, and return its response when its headers have arrived."""
        if self._opened is None:
            self._opened = self._open()
        return await self._opened.handle_async_request(request)

    async def aclose(self) -> None:
        """Close the connections."""
        if self._opened is not None:
            await self._opened.aclose()


class _LateClient:
    """An ``httpx.AsyncClient`` that is opened when it is first needed.

    Args:
        open_client: Opens it.
    """

    def __init__(self, open_client: Callable[[], httpx.AsyncClient]) -> None:
        self._open = open_client
        self._opened: httpx.AsyncClient | None = None
        self.is_closed = False

    def build_request(self, method: str, url: str, **options: Any) -> httpx.Request:
        """Return a request for :meth:`send`."""
        if self._opened is None:
            self._opened = self._open()
        return self._opened.build_request(method, url, **options)

    async def send(self, request: Any, *, stream: bool, follow_redirects: bool) -> httpx.Response:
        """Send *request*, and return its response when its headers have arrived."""
        assert self._opened is not None  # noqa: S101 - it has built the request
        return await self._opened.send(request, stream=stream, follow_redirects=follow_redirects)

    async def aclose(self) -> None:
        """Close the client."""
        self.is_closed = True
        if self._opened is not None:
            await self._opened.aclose()


class _LateSecureTransport(httpx.AsyncBaseTransport):
    """Connections over TLS of a session whose server has none; opened when first needed.

    The server may redirect to its address with TLS.
    """

    def __init__(self, limits: httpx.Limits) -> None:
        self._limits = limits
        self._opening = anyio.Lock()
        self._opened: httpx.AsyncHTTPTransport | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send *request*, and return its response when its headers have arrived."""
        async with self._opening:
            if self._opened is None:
                verify = await run_sync(load_certificates)
                self._opened = httpx.AsyncHTTPTransport(verify=verify, limits=self._limits)
        return await self._opened.handle_async_request(request)

    async def aclose(self) -> None:
        """Close the connections."""
        if self._opened is not None:
            await self._opened.aclose()


def load_certificates() -> ssl.SSLContext:
    """Return a context for TLS that trusts the certificates of authorities; takes long.

    These are the same with either library: on its own, httpx2 would trust those of the system.

    Raises:
        ConfigurationError: The environment names certificates that cannot be loaded.
    """
    found = {name: value for name in _CERTIFICATE_VARIABLES if (value := os.environ.get(name))}
    if not found:
        return ssl.create_default_context(cafile=certifi.where())
    context: ssl.SSLContext | None = None
    problems: list[str] = []
    for variable, value in found.items():
        for path in value.split(os.pathsep) if variable == "SSL_CERT_DIR" else [value]:
            file, directory = (None, path) if Path(path).is_dir() else (path, None)
            try:
                if context is None:  # without a place, it would load the defaults, too
                    context = ssl.create_default_context(cafile=file, capath=directory)
                else:
                    context.load_verify_locations(cafile=file, capath=directory)
            except OSError as exc:  # errors of TLS, too
                problems.append(f"{variable} names no certificates: {path}: {exc.strerror or exc}")
    if problems or context is None:
        raise ConfigurationError(problems)
    return context


def _open_proxied(
    limits: httpx.Limits, *, timeout: float, certificates: ssl.SSLContext
) -> httpx.AsyncClient:
    """Return a client that uses the proxies that the environment names."""
    try:
        return httpx.AsyncClient(
            timeout=httpx.Timeout(timeout),
            limits=limits,
            follow_redirects=False,
            trust_env=True,
            verify=certificates,
        )
    except ImportError:
        problem = f"for a SOCKS proxy (ALL_PROXY) install {httpx.__name__}[socks]"
    except (httpx.InvalidURL, ValueError):  # their texts may quote the proxy's password
        problem = "HTTP_PROXY, HTTPS_PROXY or ALL_PROXY is not the URL of a proxy"
    raise ConfigurationError([problem])


class _ShortRequest(httpx.Request):
    """A request that :class:`ShortCut` sends without its client."""


class ShortCut:
    """An ``httpx.AsyncClient`` whose requests to one address go straight to its connections.

    Cookies are stored and sent as by the client, because a load balancer may need them.

    Args:
        client: Sends all other requests; closed with this object.
        transport: The transport of the client.
        url: The address; its redirections are not followed.

    Attributes:
        is_closed: Whether it accepts no more requests.
    """

    def __init__(
        self, client: httpx.AsyncClient, transport: httpx.AsyncBaseTransport, url: str
    ) -> None:
        self.is_closed: bool = False
        self._client = client
        self._transport = transport
        self._text, self._url = url, httpx.URL(url)
        self._extensions = {"timeout": client.timeout.as_dict()}

    def build_request(
        self,
        method: str,
        url: str,
        *,
        content: bytes | AsyncIterable[bytes] | None,
        headers: Sequence[tuple[bytes, bytes]],
    ) -> httpx.Request:
        """Return a request for :meth:`send`."""
        if url != self._text:
            return self._client.build_request(method, url, content=content, headers=[*headers])
        request = _ShortRequest(
            method,
            self._url,
            headers=[*headers],
            content=content,
            extensions=self._extensions,
        )
        if self._client.cookies:
            self._client.cookies.set_cookie_header(request)
        return request

    async def send(self, request: Any, *, stream: bool, follow_redirects: bool) -> httpx.Response:
        """Send *request*, and return its response when its headers have arrived."""
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
        """Close the client, and the transport."""
        self.is_closed = True
        await self._client.aclose()
        await self._transport.aclose()
