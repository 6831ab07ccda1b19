"""The HTTP client that a session opens for itself.

Imported when it does: who brings a client of another kind need not have httpx in memory.
"""

from __future__ import annotations

import os
from urllib.parse import urlsplit
from urllib.request import getproxies

import httpx

from aioftrackjobs.errors import ConfigurationError
from aioftrackjobs.transport._client import OwnClient
from aioftrackjobs.transport._direct import DirectTransport
from aioftrackjobs.transport._secure import SecureTransport, ssl_context
from aioftrackjobs.transport._short import ShortCut

#: Whether sockets are read past the event loop: that of Windows reads before it is asked to.
_IS_DIRECT = os.name == "posix"

#: Seconds that an idle connection is kept: below the 5 s after which common servers close it,
#: so that a request seldom meets a connection that is just going away.
_KEEPALIVE = 4.0


def open_client(server_url: str, timeout: float, api_url: str) -> OwnClient:
    """Return a client of our own for *server_url*.

    Args:
        server_url: Decides whether certificates are loaded, which takes a while.
        timeout: Seconds for each of connecting, sending and waiting for more of the answer.
        api_url: Where nearly all requests go; redirections from there are not to be followed.

    Raises:
        ConfigurationError: The environment names a proxy or certificates that cannot be used.
    """
    # The number of connections is bounded by who sends, not here: waiting in httpcore's pool
    # costs a scan of it for each event.
    limits = httpx.Limits(
        max_connections=None, max_keepalive_connections=20, keepalive_expiry=_KEEPALIVE
    )
    if getproxies().keys() - {"no"}:
        return _open_proxied(limits, timeout)
    is_secure = urlsplit(server_url).scheme == "https"
    if _IS_DIRECT and not is_secure:
        transport: httpx.AsyncHTTPTransport = DirectTransport(limits)
    else:
        verify = ssl_context() if is_secure else False
        transport = httpx.AsyncHTTPTransport(verify=verify, limits=limits)
    client = httpx.AsyncClient(
        timeout=httpx.Timeout(timeout),
        follow_redirects=False,
        transport=transport,
        mounts=None if is_secure else {"https://": SecureTransport(limits)},
    )
    return ShortCut(client, transport, api_url)


def _open_proxied(limits: httpx.Limits, timeout: float) -> httpx.AsyncClient:
    """Return a client that uses the proxies that the environment names."""
    try:
        return httpx.AsyncClient(
            timeout=httpx.Timeout(timeout),
            limits=limits,
            follow_redirects=False,
            trust_env=True,
            verify=ssl_context(),  # one for all: httpx would load one for each proxy
        )
    except ImportError:
        problem = "for a SOCKS proxy (ALL_PROXY) install httpx[socks]"
    except (httpx.InvalidURL, ValueError):  # their texts may quote the proxy's password
        problem = "HTTP_PROXY, HTTPS_PROXY or ALL_PROXY is no URL of a proxy"
    raise ConfigurationError([problem])
