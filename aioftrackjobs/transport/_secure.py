"""Certificates of authorities, which take longer to load than a request takes: once, if ever."""

from __future__ import annotations

import ssl

import httpx

from aioftrackjobs.errors import ConfigurationError


def ssl_context() -> ssl.SSLContext:
    """Return a context for TLS that knows the certificates of authorities.

    Raises:
        ConfigurationError: The environment names certificates that cannot be loaded.
    """
    try:
        return httpx.create_ssl_context()
    except OSError as exc:
        problem = f"the certificates of SSL_CERT_FILE or SSL_CERT_DIR cannot be loaded: {exc}"
    raise ConfigurationError([problem])


class SecureTransport(httpx.AsyncBaseTransport):
    """Transport for https that loads the certificates of authorities when it is first used."""

    def __init__(self, limits: httpx.Limits) -> None:
        self._limits = limits
        self._transport: httpx.AsyncHTTPTransport | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self._transport is None:
            self._transport = httpx.AsyncHTTPTransport(verify=ssl_context(), limits=self._limits)
        return await self._transport.handle_async_request(request)

    async def aclose(self) -> None:
        if self._transport is not None:
            await self._transport.aclose()
