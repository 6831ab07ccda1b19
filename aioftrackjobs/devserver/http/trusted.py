"""Which names the server is called by, and which pages may call it.

A page of a stranger can make a browser call this server: under a name of the page's own, which
leads to this machine (DNS rebinding), or as a request from another origin. So both are checked,
before anything else.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable
from contextlib import suppress
from functools import lru_cache
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from aioftrackjobs.devserver.api_errors import RequestError
from aioftrackjobs.devserver.http.responses import error_response

#: Ends of names that are in no public DNS (RFC 6761).
_RESERVED = (".localhost", ".test")


class TrustedMiddleware:
    """Refuses requests to other hosts, and from pages of other origins, than are trusted.

    Args:
        app: The application.
        hosts: Names that are trusted beside those that no stranger can have.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str] = ()) -> None:
        self._app = app
        self._hosts = frozenset(host.lower() for host in hosts)
        self._reason = lru_cache(maxsize=64)(self._untrusted)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        reason = None
        if "headers" in scope:
            headers = Headers(scope=scope)
            reason = self._reason(headers.get("host", ""), headers.get("origin"))
        if reason is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": reason})
        else:
            error = RequestError(f"{reason}; allow it by trusted_hosts (--trusted-host).", 403)
            await error_response(error)(scope, receive, send)

    def _untrusted(self, called: str, origin: str | None) -> str | None:
        host = _name_of(f"http://{called}")
        if not is_trusted(host, self._hosts) and address_in(host) is None:
            return f"This server is not called '{host}'"
        if origin is not None:
            name = _name_of(origin)
            if name != host and not is_trusted(name, self._hosts):
                return f"Pages of '{origin}' must not call this server"
        return None


#: Stands for what is no address, as the origin ``null`` of pages in files and frames.
_UNREADABLE = "null"


def is_trusted(name: str, hosts: Collection[str]) -> bool:
    """Return whether no stranger can have *name*, or it is one of *hosts*."""
    if name in hosts:
        return True
    address = address_in(name)
    if address is not None:
        return address.is_loopback
    # Names without a dot are of the local network; a request may also have no host at all.
    is_local = "." not in name and ":" not in name and name != _UNREADABLE
    return is_local or name.endswith(_RESERVED)


def _name_of(url: str) -> str:
    with suppress(ValueError):
        if url.startswith(("http://", "https://")):
            return urlsplit(url).hostname or ""
    return _UNREADABLE


def address_in(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the IP address in *name*, which needs no DNS; None for another name."""
    with suppress(ValueError):
        return ipaddress.ip_address(name)
    return None
